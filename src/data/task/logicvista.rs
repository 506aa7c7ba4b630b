//! The task LogicVista, test split.

use super::{Doc, Prompt, PublishedResult, RowSource, TaskSpec};
use omr_base::config::Mode;
use omr_verify::python;

/// The task LogicVista, test split.
pub const TASK: TaskSpec =
    TaskSpec { name: "logicvista_thinking", rows: RowSource::OfHub(prompt), ..TaskSpec::DEFAULT };

fn prompt(doc: &Doc, _: Mode) -> PublishedResult<Prompt> {
    let image = doc.image("image")?;
    let question = doc.text("question", "AttributeError")?;
    Prompt::image_then_text(image, python::strip(question), question).with_gold(doc, "answer")
}

//! The task MathVerse, testmini split, with the query contained in the data set.

use super::{Doc, Prompt, PublishedResult, RowSource, TaskSpec, written};
use crate::text::Part;
use omr_base::config::Mode;
use omr_verify::python;

/// The task MathVerse, testmini split.
pub const TASK: TaskSpec =
    TaskSpec { name: "mathverse_testmini_reward", rows: RowSource::OfHub(prompt), ..TaskSpec::DEFAULT };

fn prompt(doc: &Doc, _: Mode) -> PublishedResult<Prompt> {
    let query = doc.written("query_wo");
    let text = python::strip(&query);
    // An empty text in the column marks that there is no image.
    let prompt = if doc.images.iter().any(|(name, image)| name == "image" && image.is_none()) {
        Prompt { parts: vec![Part::Text(text.to_owned())], question: Some(text.to_owned()), ..Prompt::default() }
    } else {
        Prompt::image_then_text(doc.image("image")?, text, text)
    };
    // The data set contains each problem in several versions, with more or less text.
    let cluster = Some(doc.value("problem_index")).filter(|problem| !problem.is_null()).map(written);
    Prompt { cluster, ..prompt }.with_gold(doc, "answer")
}

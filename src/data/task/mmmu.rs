//! The task MMMU, validation split: questions with up to seven images in their text.

use super::interleave::{self, options};
use super::{Doc, Prompt, PublishedResult, RowSource, TaskSpec};
use omr_base::config::Mode;

/// The task MMMU, validation split.
pub const TASK: TaskSpec =
    TaskSpec { name: "mmmu_reasoning_reward", rows: RowSource::OfHub(prompt), ..TaskSpec::DEFAULT };

fn prompt(doc: &Doc, mode: Mode) -> PublishedResult<Prompt> {
    let question = doc.written("question");
    let text = match doc.value("question_type") == "multiple-choice" {
        true => format!("{question}\n{}\n\n", options(doc)?),
        false => format!("{question}\n\n"),
    };
    interleave::prompt(doc, &text, mode)?.with_gold(doc, "answer")
}

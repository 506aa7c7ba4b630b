//! MMMU, validation: questions with up to seven pictures within their text.

use super::interleave::{self, options};
use super::{Checked, Doc, Hub, Prompt, Rows, Subject, TaskSpec};
use crate::config::Mode;

/// The task.
pub const TASK: TaskSpec = TaskSpec {
    name: "mmmu_reasoning_reward",
    // The last is where its data set has moved to.
    aliases: &["mmmu_val_reasoning", "mmmu_val", "mmmu", "lmms-lab-encoder/MMMU"],
    about: "questions of many college subjects, some open",
    hub: Some(Hub {
        repo: "lmms-lab/MMMU",
        split: &["validation"],
        columns: &["question", "options", "answer", "question_type"],
        pictures: interleave::PICTURES,
        subject: Subject::Id("id"),
        ..Hub::DEFAULT
    }),
    rows: Rows::OfHub(prompt),
    ..TaskSpec::DEFAULT
};

fn prompt(doc: &Doc, mode: Mode) -> Checked<Prompt> {
    let question = doc.written("question");
    let text = match doc.value("question_type") == "multiple-choice" {
        true => format!("{question}\n{}\n\n", options(doc)?),
        false => format!("{question}\n\n"),
    };
    interleave::prompt(doc, &text, mode)?.with_gold(doc, "answer")
}

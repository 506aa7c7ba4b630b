//! LogicVista, test.

use super::hub::{self, Doc, Hub, Prompt, Subject};
use super::{Answers, Checked, PUBLISHED_MAX_NEW_TOKENS, TaskSpec, aggregate};
use crate::config::Mode;
use omr_verify::python;

/// The task.
pub const TASK: TaskSpec = TaskSpec {
    name: "logicvista_thinking",
    aliases: &["logicvista_reasoning", "logicvista"],
    about: "logic in pictures: patterns, diagrams, sequences",
    hub: Some(Hub {
        repo: "lscpku/LogicVista",
        config: None,
        split: &["test"],
        columns: &["question", "answer"],
        optional: &[],
        pictures: &["image"],
        subject: Subject::Column("skill"),
    }),
    rows: |spec, source, take| hub::questions(spec, source, take, prompt),
    answers: Answers::Greedy,
    max_new_tokens: PUBLISHED_MAX_NEW_TOKENS,
    score: aggregate::accuracy_and_format,
    aggregate: aggregate::means,
    published: Some("acc_score"),
    recipe: None,
};

fn prompt(doc: &Doc, _: Mode) -> Checked<Prompt> {
    let picture = doc.picture("image")?;
    let question = doc.text("question", "AttributeError")?;
    Prompt::picture_then_text(picture, python::strip(question), question).with_gold(doc, "answer")
}

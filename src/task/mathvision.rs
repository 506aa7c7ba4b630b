//! MathVision, test and testmini.

use super::hub::{self, Doc, Hub, Prompt, Subject, written};
use super::{Answers, Checked, Crash, PUBLISHED_MAX_NEW_TOKENS, Stage, TaskSpec, aggregate};
use crate::config::Mode;

const fn hub(split: &'static [&'static str]) -> Hub {
    Hub {
        repo: "MathLLMs/MathVision",
        config: None,
        split,
        columns: &["question", "options", "answer"],
        optional: &[],
        pictures: &["decoded_image"],
        subject: Subject::Column("subject"),
    }
}

/// All of its 3,040 questions.
pub const TEST: TaskSpec = TaskSpec {
    name: "mathvision_reason_test_reward",
    aliases: &["mathvision_reason_test_reasoning", "mathvision_test", "mathvision"],
    about: "problems of mathematics competitions with pictures",
    hub: Some(hub(&["test"])),
    rows: |spec, source, take| hub::questions(spec, source, take, prompt),
    answers: Answers::Greedy,
    max_new_tokens: PUBLISHED_MAX_NEW_TOKENS,
    score: aggregate::accuracy_and_format,
    aggregate: aggregate::means,
    published: Some("acc_score"),
    recipe: None,
};

/// Its 304 questions for a look.
pub const TESTMINI: TaskSpec = TaskSpec {
    name: "mathvision_reason_testmini_reward",
    aliases: &["mathvision_reason_testmini_reasoning", "mathvision_testmini"],
    hub: Some(hub(&["testmini"])),
    published: Some("acc_score"),
    ..TEST
};

const INSTRUCTION: &str = "Please solve the problem step by step and put your answer in one \"\\boxed{}\".";

fn prompt(doc: &Doc, _: Mode) -> Checked<Prompt> {
    let Some(options) = doc.value("options").as_array() else {
        return Err(Crash::new(
            Stage::Messages,
            "TypeError",
            "nothing in `options`",
            "a list, empty for an open question",
        ));
    };
    // No space behind the instruction: the published task has none.
    let text = if options.is_empty() {
        format!("{INSTRUCTION}{}", doc.text("question", "TypeError")?)
    } else {
        let line = |(i, option)| format!("{}. {}", super::letter(i), written(option));
        let options: Vec<String> = options.iter().enumerate().map(line).collect();
        format!("{INSTRUCTION}{}\nChoices: {}", doc.written("question"), options.join("\n"))
    };
    Prompt::picture_then_text(doc.picture("decoded_image")?, &text, &text).with_gold(doc, "answer")
}

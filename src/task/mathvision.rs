//! MathVision, test and testmini.

use super::{Checked, Crash, Doc, Hub, Prompt, Rows, Stage, Subject, TaskSpec, letter, written};
use crate::config::Mode;

const fn hub(split: &'static [&'static str]) -> Hub {
    Hub {
        repo: "MathLLMs/MathVision",
        split,
        columns: &["question", "options", "answer"],
        pictures: &["decoded_image"],
        subject: Subject::Column("subject"),
        ..Hub::DEFAULT
    }
}

/// All of its 3,040 questions.
pub const TEST: TaskSpec = TaskSpec {
    name: "mathvision_reason_test_reward",
    aliases: &["mathvision_reason_test_reasoning", "mathvision_test", "mathvision"],
    about: "problems of mathematics competitions with pictures",
    hub: Some(hub(&["test"])),
    rows: Rows::OfHub(prompt),
    ..TaskSpec::DEFAULT
};

/// Its 304 questions for a look.
pub const TESTMINI: TaskSpec = TaskSpec {
    name: "mathvision_reason_testmini_reward",
    aliases: &["mathvision_reason_testmini_reasoning", "mathvision_testmini"],
    hub: Some(hub(&["testmini"])),
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
        let line = |(i, option)| format!("{}. {}", letter(i), written(option));
        let options: Vec<String> = options.iter().enumerate().map(line).collect();
        format!("{INSTRUCTION}{}\nChoices: {}", doc.written("question"), options.join("\n"))
    };
    Prompt::picture_then_text(doc.picture("decoded_image")?, &text, &text).with_gold(doc, "answer")
}

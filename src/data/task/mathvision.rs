//! The tasks MathVision, test and testmini splits.

use super::{Crash, Doc, Prompt, PublishedResult, RowSource, Stage, TaskSpec, letter, written};
use omr_base::config::Mode;

/// The full set of 3,040 questions.
pub const TEST: TaskSpec =
    TaskSpec { name: "mathvision_reason_test_reward", rows: RowSource::OfHub(prompt), ..TaskSpec::DEFAULT };

/// The subset of 304 questions.
pub const TESTMINI: TaskSpec = TaskSpec { name: "mathvision_reason_testmini_reward", ..TEST };

const INSTRUCTION: &str = "Please solve the problem step by step and put your answer in one \"\\boxed{}\".";

fn prompt(doc: &Doc, _: Mode) -> PublishedResult<Prompt> {
    let Some(options) = doc.value("options").as_array() else {
        let expected = "a list, empty for an open question";
        return Err(Crash::new(Stage::Messages, "TypeError", "nothing in `options`", expected));
    };
    // There is no space after the instruction, as in the published task.
    let text = if options.is_empty() {
        format!("{INSTRUCTION}{}", doc.text("question", "TypeError")?)
    } else {
        let line = |(i, option)| format!("{}. {}", letter(i), written(option));
        let options: Vec<String> = options.iter().enumerate().map(line).collect();
        format!("{INSTRUCTION}{}\nChoices: {}", doc.written("question"), options.join("\n"))
    };
    Prompt::image_then_text(doc.image("decoded_image")?, &text, &text).with_gold(doc, "answer")
}

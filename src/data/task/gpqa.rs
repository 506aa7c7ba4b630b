//! The task GPQA, diamond subset: four options in a random order.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use super::shuffle::Random;
use super::{Doc, Prompt, PublishedResult, QuestionSink, RowSource, Source, TaskSpec, aggregate, hub, letter};
use crate::rows::short;
use crate::text::Part;
use omr_base::config::Mode;
use omr_base::error::Result;
use omr_base::philox::{self, Purpose};
use omr_verify::python;

/// The task GPQA, diamond subset.
pub const TASK: TaskSpec = TaskSpec {
    name: "gpqa_diamond_thinking",
    rows: RowSource::Made(rows),
    aggregate: aggregate::accuracy,
    ..TaskSpec::DEFAULT
};

/// Columns of the options. Before the shuffle, the correct option is last and the others keep this order.
const OPTIONS: [&str; 4] = ["Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"];

/// Makes the rows. In compat one generator draws the orders of all rows, one after another. In strict each question has
/// its own generator.
fn rows(spec: &TaskSpec, source: &Source, take: QuestionSink) -> Result<()> {
    let mut random = Random::seed(source.shuffle_seed);
    let mut emit = |doc: Doc| -> Result<ControlFlow<()>> {
        let mut order = [1, 2, 3, 0];
        match source.mode {
            Mode::Compat => random.shuffle(&mut order),
            Mode::Strict => {
                let question = short(&blake3::hash(doc.written("Question").as_bytes()));
                philox::shuffle(source.shuffle_seed, Purpose::Data, question, &mut order);
            }
        }
        take(hub::task_question(spec, doc.index, &doc, prompt(&doc, &order, source.mode)))
    };
    hub::docs(spec, source, &mut emit).map(drop)
}

/// Cleans an option as the published task does.
pub fn cleaned(option: &Value) -> String {
    static NOTE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\[.*?\]").expect("a fixed pattern"));
    match option {
        Value::String(text) => {
            let text = python::strip(text).replace(" [title]", ". ");
            NOTE.replace_all(&text, "").replace("  ", " ")
        }
        _ => " ".to_owned(),
    }
}

fn prompt(doc: &Doc, order: &[usize], mode: Mode) -> PublishedResult<Prompt> {
    let options: Vec<String> = order.iter().map(|&i| cleaned(doc.value(OPTIONS[i]))).collect();
    let right = match mode {
        // If several options are equal, the first one counts as correct.
        Mode::Compat => options.iter().position(|option| *option == cleaned(doc.value(OPTIONS[0]))),
        Mode::Strict => order.iter().position(|&i| i == 0),
    };
    let gold = format!("({})", letter(right.unwrap_or_default()));
    let listed = options.iter().enumerate().map(|(i, option)| format!("({}) {option}", letter(i)));
    let listed = listed.collect::<Vec<String>>().join(" ");
    let question = doc.written("Question");
    let text = format!("Question: {question}\nChoices:\n{listed}\n");
    Ok(Prompt {
        parts: vec![Part::Text(python::strip(&text).to_owned())],
        question: Some(text),
        target: gold.clone().into(),
        gold,
        ..Prompt::default()
    })
}

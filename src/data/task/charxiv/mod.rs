//! The tasks of CharXiv, validation split: charts from papers, with reasoning questions and descriptive questions.

use std::ops::ControlFlow;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Crash, Doc, Marks, Metrics, Prompt, PublishedResult, QuestionSink, RowSource, Source, Stage, TaskSpec, aggregate,
    hub, written,
};
use crate::rows::Row;
use omr_base::config::Mode;
use omr_base::error::Result;
use omr_verify::python;

/// The questions and instructions of the published tasks, word for word.
#[derive(Deserialize)]
struct Instructions {
    /// The descriptive questions, numbered from 1, each with its instructions. The last two are about the whole figure.
    descriptive: Vec<(String, Vec<String>)>,
    /// Instructions below a reasoning question, by the type of its answer, numbered from 1. The instruction of the
    /// fourth type depends on the answer, see [`demanded_number`].
    reasoning: Vec<Vec<String>>,
}

static INSTRUCTIONS: LazyLock<Instructions> =
    LazyLock::new(|| serde_json::from_str(include_str!("instructions.json")).expect("a fixed text"));

/// The reasoning questions.
pub const REASONING_TASK: TaskSpec =
    TaskSpec { name: "charxiv_val_reasoning_cot", rows: RowSource::OfHub(reasoning), ..TaskSpec::DEFAULT };

/// The descriptive questions, four per chart.
pub const DESCRIPTIVE_TASK: TaskSpec = TaskSpec {
    name: "charxiv_val_descriptive_cot",
    rows: RowSource::Made(descriptive_rows),
    score: by_number,
    aggregate: aggregate::charxiv,
    ..REASONING_TASK
};

/// Number of questions per chart, and number of times that the published task repeats the data set.
const QUESTIONS: usize = 4;

fn with_demands(question: &str, demands: &[String]) -> String {
    let lines: String = demands.iter().map(|demand| format!("\n    * {demand}")).collect();
    python::strip(&format!("{question}{lines}")).to_owned()
}

/// Makes a prompt. In compat the judge receives no question, as in the published tasks.
fn prompt(doc: &Doc, text: String, mode: Mode) -> PublishedResult<Prompt> {
    let prompt = Prompt::image_then_text(doc.image("image")?, &text, &text);
    Ok(Prompt { question: prompt.question.filter(|_| mode == Mode::Strict), ..prompt })
}

fn reasoning(doc: &Doc, mode: Mode) -> PublishedResult<Prompt> {
    let source = doc.value("reasoning_q_source");
    let demands = match source.as_u64() {
        Some(kind @ 1..=3) => INSTRUCTIONS.reasoning[kind as usize - 1].clone(),
        Some(4) => vec![demanded_number(doc.text("reasoning_a", "AttributeError")?)],
        _ => {
            let found = format!("reasoning_q_source {}", written(source));
            return Err(Crash::new(Stage::Messages, "UnboundLocalError", found, "1 to 4"));
        }
    };
    prompt(doc, with_demands(&doc.written("reasoning_q"), &demands), mode)?.with_gold(doc, "reasoning_a")
}

/// Returns the instruction for a numeric answer. It contains the number of decimal places of `answer`, counted as the
/// characters between its first point and its second point (or its end).
pub fn demanded_number(answer: &str) -> String {
    match answer.split('.').nth(1) {
        None => "Your final answer must be an exact integer.".to_owned(),
        Some(places) => format!("Your final answer must be a number with {} decimal places.", python::len(places)),
    }
}

/// Makes the rows of the descriptive task. In compat the whole data set is repeated four times, and each row gets the
/// question with the number `index % 4 + 1`. In strict each chart gets its four questions.
fn descriptive_rows(spec: &TaskSpec, source: &Source, take: QuestionSink) -> Result<()> {
    let (passes, each) = if source.mode == Mode::Compat { (QUESTIONS, 1) } else { (1, QUESTIONS) };
    let mut index = 0;
    let mut emit = |doc: Doc| -> Result<ControlFlow<()>> {
        for _ in 0..each {
            let prompt = descriptive(&doc, index % QUESTIONS + 1, source.mode);
            index += 1;
            if take(hub::task_question(spec, index - 1, &doc, prompt))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    };
    for _ in 0..passes {
        if hub::docs(spec, source, &mut emit)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn descriptive(doc: &Doc, number: usize, mode: Mode) -> PublishedResult<Prompt> {
    let place = match doc.value("subplot_loc") {
        Value::Null => json!([doc.value("subplot_row"), doc.value("subplot_col")]),
        place => place.clone(),
    };
    let text = question(doc.value(&format!("descriptive_q{number}")), &place)?;
    let mut prompt = prompt(doc, text, mode)?.with_gold(doc, &format!("descriptive_a{number}"))?;
    prompt.cluster = Some(doc.index.to_string());
    if mode == Mode::Strict {
        prompt.extra.insert("q_number".to_owned(), number.to_string().into());
    }
    Ok(prompt)
}

/// Returns the descriptive question with number `id`, about a part of a figure. `place` is `[row, column]`, where row 0
/// means that there is only one plot, or the name of the part.
pub fn question(id: &Value, place: &Value) -> PublishedResult<String> {
    let refuse = |class, found: String, expected: &str| Crash::new(Stage::ProcessDocs, class, found, expected);
    let known = id.as_u64().and_then(|id| INSTRUCTIONS.descriptive.get((id as usize).wrapping_sub(1)));
    // A question about the whole figure ignores the place. Otherwise the place is checked before the question, as in
    // the published code.
    let whole = matches!(id.as_u64(), Some(18 | 19));
    let prefix = match place {
        _ if whole => String::new(),
        Value::Array(at) if at.first() == Some(&json!(0)) => "For the current plot, ".to_owned(),
        Value::Array(at) => {
            let [row, column] = [0, 1].map(|i| written(at.get(i).unwrap_or(&Value::Null)));
            format!("For the subplot at row {row} and column {column}, ")
        }
        Value::String(name) => format!("For {name}, "),
        other => {
            let found = format!("{} in `subplot_loc`", written(other));
            return Err(refuse("ValueError", found, "a name or [row, column]"));
        }
    };
    match known {
        Some((question, demands)) => Ok(with_demands(&format!("{prefix}{question}"), demands)),
        None => Err(refuse("KeyError", format!("descriptive question {}", written(id)), "1 to 19")),
    }
}

fn by_number(row: &Row, marks: &Marks, mode: Mode) -> PublishedResult<Metrics> {
    let mut metrics = aggregate::accuracy_and_format(row, marks, mode)?;
    if let Some(number) = row.extra.get("q_number") {
        metrics.insert("q_number".to_owned(), number.clone());
    }
    Ok(metrics)
}

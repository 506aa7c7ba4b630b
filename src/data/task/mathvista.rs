//! The task MathVista, testmini split: the query of its authors, without caption and text of the image, plus a request
//! to answer step by step.

use serde_json::Value;

use super::{Crash, Doc, Prompt, PublishedResult, RowSource, Stage, TaskSpec, letter, written};
use omr_base::config::Mode;

/// The task MathVista, testmini split.
pub const TASK: TaskSpec =
    TaskSpec { name: "mathvista_testmini_cot_reward", rows: RowSource::OfHub(prompt), ..TaskSpec::DEFAULT };

const CHOOSE: &str =
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.";
/// Hints by the answer's type and number of decimal places. A dash stands for any number of places.
const HINTS: &str = include_str!("mathvista.tsv");
/// Number of option letters that the published task supports.
const LETTERS: usize = 8;

fn prompt(doc: &Doc, mode: Mode) -> PublishedResult<Prompt> {
    let query = query(doc)?;
    let prompt = Prompt::image_then_text(doc.image("decoded_image")?, &query, &query);
    Ok(Prompt { target: doc.value("answer").clone(), gold: gold(doc, mode)?, ..prompt })
}

fn choices(doc: &Doc) -> &[Value] {
    doc.value("choices").as_array().map_or(&[], Vec::as_slice)
}

fn is_choice(doc: &Doc) -> bool {
    doc.value("question_type") == "multi_choice"
}

fn query(doc: &Doc) -> PublishedResult<String> {
    let answer_type = doc.written("answer_type");
    let refuse = |class, expected: &str| {
        let found = format!("answer_type {answer_type} with precision {}", doc.written("precision"));
        Err(Crash::new(Stage::Messages, class, found, expected))
    };
    let precision = doc.value("precision").as_f64();
    let mut of_type = HINTS
        .lines()
        .filter_map(|line| line.strip_prefix(&*answer_type)?.strip_prefix('\t')?.split_once('\t'))
        .peekable();
    let fits = |places: &str| places == "-" || places.parse().ok() == precision;
    let hint = match is_choice(doc) {
        true if answer_type == "text" => CHOOSE,
        true => return refuse("AssertionError", "text, for a question with choices"),
        false if of_type.peek().is_none() => return refuse("AssertionError", "integer, float or list"),
        false => match of_type.find(|(places, _)| fits(places)) {
            Some((_, hint)) => hint,
            None => return refuse("UnboundLocalError", "precision 1 or 2"),
        },
    };
    let mut query = format!("Question: {}", doc.written("question"));
    if let Some(unit) = doc.value("unit").as_str().filter(|unit| !unit.is_empty()) {
        query += &format!(" (Unit: {unit})");
    }
    if !choices(doc).is_empty() {
        query += "\nChoices:";
        for (i, choice) in choices(doc).iter().enumerate() {
            query += &format!("\n({}) {}", letter(i), written(choice));
        }
    }
    Ok(omr_verify::python::strip(&format!("{query}\n{hint}")).to_owned())
}

/// Returns the letter of the correct choice, or the answer itself for an open question.
fn gold(doc: &Doc, mode: Mode) -> PublishedResult<String> {
    if choices(doc).is_empty() || !is_choice(doc) {
        return doc.gold("answer");
    }
    let answer = doc.value("answer");
    let refuse = |class, expected: &str| {
        let found = format!("answer {} of {}", written(answer), choices(doc).len());
        Crash::new(Stage::ProcessResults, class, found, expected)
    };
    let missing = || refuse("ValueError", "one of the choices");
    let index = choices(doc).iter().position(|choice| choice == answer).ok_or_else(missing)?;
    match mode {
        Mode::Compat if index >= LETTERS => Err(refuse("IndexError", "one of the first 8 choices")),
        _ => Ok(letter(index).to_string()),
    }
}

//! MathVista, testmini: the query of its authors, without caption and text of the picture, asked for step by step.

use serde_json::Value;

use super::{Checked, Crash, Doc, Hub, Prompt, Rows, Stage, Subject, TaskSpec, letter, written};
use crate::config::Mode;

/// The task.
pub const TASK: TaskSpec = TaskSpec {
    name: "mathvista_testmini_cot_reward",
    aliases: &["mathvista_testmini_cot_reasoning", "mathvista_testmini", "mathvista"],
    about: "mathematics in pictures of many kinds",
    hub: Some(Hub {
        repo: "AI4Math/MathVista",
        split: &["testmini"],
        columns: &["question", "choices", "answer", "question_type", "answer_type"],
        optional: &["unit", "precision"],
        pictures: &["decoded_image"],
        subject: Subject::Member("metadata", "task"),
        ..Hub::DEFAULT
    }),
    rows: Rows::OfHub(prompt),
    ..TaskSpec::DEFAULT
};

const CHOOSE: &str =
    "Hint: Please answer the question and provide the correct option letter, e.g., A, B, C, D, at the end.";
/// Hints by the answer's type and its decimal places.
const HINTS: [(&str, Option<f64>, &str); 4] = [
    (
        "integer",
        None,
        "Hint: Please answer the question requiring an integer answer and provide the final value, e.g., 1, 2, 3, at the end.",
    ),
    (
        "float",
        Some(1.0),
        "Hint: Please answer the question requiring a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4, at the end.",
    ),
    (
        "float",
        Some(2.0),
        "Hint: Please answer the question requiring a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45, at the end.",
    ),
    (
        "list",
        None,
        "Hint: Please answer the question requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4], at the end.",
    ),
];
/// Letters the published task has for its options.
const LETTERS: usize = 8;

fn prompt(doc: &Doc, mode: Mode) -> Checked<Prompt> {
    let query = query(doc)?;
    let prompt = Prompt::picture_then_text(doc.picture("decoded_image")?, &query, &query);
    Ok(Prompt { target: doc.value("answer").clone(), gold: gold(doc, mode)?, ..prompt })
}

fn choices(doc: &Doc) -> &[Value] {
    doc.value("choices").as_array().map_or(&[], Vec::as_slice)
}

fn is_choice(doc: &Doc) -> bool {
    doc.value("question_type") == "multi_choice"
}

fn query(doc: &Doc) -> Checked<String> {
    let answer_type = doc.written("answer_type");
    let refuse = |class, expected: &str| {
        let found = format!("answer_type {answer_type} with precision {}", doc.written("precision"));
        Err(Crash::new(Stage::Messages, class, found, expected))
    };
    let precision = doc.value("precision").as_f64();
    let hint = match is_choice(doc) {
        true if answer_type == "text" => CHOOSE,
        true => return refuse("AssertionError", "text, for a question with choices"),
        false if !HINTS.iter().any(|(kind, ..)| *kind == answer_type) => {
            return refuse("AssertionError", "integer, float or list");
        }
        false => {
            let fits = |places: Option<f64>| places.is_none() || places == precision;
            match HINTS.iter().find(|(kind, places, _)| *kind == answer_type && fits(*places)) {
                Some((.., hint)) => hint,
                None => return refuse("UnboundLocalError", "precision 1 or 2"),
            }
        }
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

/// The letter of the choice that is right, or the answer itself.
fn gold(doc: &Doc, mode: Mode) -> Checked<String> {
    if choices(doc).is_empty() || !is_choice(doc) {
        return doc.gold("answer");
    }
    let answer = doc.value("answer");
    let refuse = |class, expected: &str| {
        Crash::new(
            Stage::ProcessResults,
            class,
            format!("answer {} of {}", written(answer), choices(doc).len()),
            expected,
        )
    };
    let missing = || refuse("ValueError", "one of the choices");
    let index = choices(doc).iter().position(|choice| choice == answer).ok_or_else(missing)?;
    match mode {
        Mode::Compat if index >= LETTERS => Err(refuse("IndexError", "one of the first 8 choices")),
        _ => Ok(letter(index).to_string()),
    }
}

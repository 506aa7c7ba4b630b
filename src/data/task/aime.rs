//! The tasks AIME 2024 and 2025, and AMC 2023, without images: eight answers at temperature 1 per problem.

use serde_json::{Value, json};

use super::{Answers, Doc, Marks, Metrics, Prompt, PublishedResult, RowSource, TaskSpec, written};
use crate::rows::Row;
use crate::text::Part;
use omr_base::config::Mode;
use omr_verify::python;

/// The problems of 2024.
pub const AIME24: TaskSpec = TaskSpec {
    name: "aime24_nofigures_agg8_reward",
    rows: RowSource::OfHub(prompt),
    answers: Answers::Sampled(8),
    score,
    published: Some("avg@8"),
    ..TaskSpec::DEFAULT
};

/// The problems of 2025.
pub const AIME25: TaskSpec = TaskSpec { name: "aime25_nofigures_agg8_reward", ..AIME24 };

/// The task AMC 2023. The paper reports it, but the published evaluation contains no such task, so it uses the prompts
/// of AIME.
pub const AMC23: TaskSpec = TaskSpec { name: "amc23", published: None, ..AIME24 };

/// Returns the first of `columns` that is not null.
fn first<'a>(doc: &'a Doc, columns: &[&str]) -> &'a Value {
    columns.iter().map(|column| doc.value(column)).find(|value| !value.is_null()).unwrap_or(&Value::Null)
}

/// Makes the prompt, which is the problem alone. An answer that is an integer is normalised with [`whole`].
pub fn prompt(doc: &Doc, _: Mode) -> PublishedResult<Prompt> {
    let problem = if doc.value("problem").is_null() { "question" } else { "problem" };
    let question = doc.text(problem, "AttributeError")?;
    let answer = first(doc, &["answer", "orig_answer", "orig_orig_answer"]);
    Ok(Prompt {
        parts: vec![Part::Text(python::strip(question).to_owned())],
        question: Some(question.to_owned()),
        target: answer.clone(),
        gold: whole(&written(answer)),
        ..Prompt::default()
    })
}

/// Removes leading zeros from an answer that consists of digits, so that 023 becomes 23. Other answers are returned
/// unchanged.
pub fn whole(answer: &str) -> String {
    let digits: Option<String> = answer.chars().map(|c| Some(char::from(b'0' + python::digit_value(c)?))).collect();
    match digits {
        Some(digits) if !digits.is_empty() => {
            let number = digits.trim_start_matches('0');
            if number.is_empty() { "0".to_owned() } else { number.to_owned() }
        }
        _ => answer.to_owned(),
    }
}

/// Computes for the first 2, 4, 8, ... answers: whether one is correct (`cov`), whether most are correct (`maj`), and
/// the share of correct ones (`avg`).
pub fn score(_: &Row, marks: &Marks, _: Mode) -> PublishedResult<Metrics> {
    let right: Vec<f64> = marks.all().map(|mark| mark.acc).collect();
    let mut metrics = Metrics::new();
    metrics.insert("exact_match".to_owned(), right.first().map_or(Value::Null, |right| json!(right)));
    let counts: Vec<usize> = (1..).map(|i| 1 << i).take_while(|n| *n <= right.len()).collect();
    let share = |n: usize| right[..n].iter().sum::<f64>() / n as f64;
    metrics.extend(counts.iter().map(|n| (format!("cov@{n}"), u8::from(right[..*n].contains(&1.0)).into())));
    metrics.extend(counts.iter().map(|n| (format!("maj@{n}"), u8::from(share(*n) > 0.5).into())));
    metrics.extend(counts.iter().map(|n| (format!("avg@{n}"), share(*n).into())));
    let answers: Vec<&str> = marks.all().map(|mark| mark.predict_str).collect();
    metrics.insert("extracted_answers".to_owned(), json!(answers));
    metrics.insert("exact_matches".to_owned(), json!(right));
    Ok(metrics)
}

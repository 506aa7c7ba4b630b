//! The tasks AIME 2024 and 2025, and AMC 2023, without images: eight answers at temperature 1 per problem.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Answers, Doc, Mark, Marks, Metrics, Prompt, PublishedResult, RowSource, TaskSpec, written};
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

/// Returns the score of the answer that most of `marks` have. Of equally frequent answers, the one counts that reaches its
/// number first. Right answers are one answer, in whatever notation; a response without an answer has no vote.
fn vote(marks: &[Mark]) -> f64 {
    let mut counts: HashMap<Option<String>, usize> = HashMap::new();
    let mut best = (0, 0.0);
    for mark in marks.iter().filter(|mark| !mark.predict_str.is_empty()) {
        let count = counts.entry((mark.acc < 1.0).then(|| whole(mark.predict_str))).or_default();
        *count += 1;
        if *count > best.0 {
            best = (*count, mark.acc);
        }
    }
    best.1
}

/// Computes for the first 2, 4, 8, ... answers: whether one is correct (`cov`), whether the majority vote is correct
/// (`maj`; in compat, as published: whether more than half of the answers are), and the share of correct ones (`avg`).
pub fn score(_: &Row, marks: &Marks, mode: Mode) -> PublishedResult<Metrics> {
    let right: Vec<f64> = marks.all().map(|mark| mark.acc).collect();
    let mut metrics = Metrics::new();
    metrics.insert("exact_match".to_owned(), right.first().map_or(Value::Null, |right| json!(right)));
    let counts: Vec<usize> = (1..).map(|i| 1 << i).take_while(|n| *n <= right.len()).collect();
    let share = |n: usize| right[..n].iter().sum::<f64>() / n as f64;
    metrics.extend(counts.iter().map(|n| (format!("cov@{n}"), u8::from(right[..*n].contains(&1.0)).into())));
    let all: Vec<Mark> = marks.all().copied().collect();
    let majority = |n: usize| if mode == Mode::Strict { vote(&all[..n]) >= 0.5 } else { share(n) > 0.5 };
    metrics.extend(counts.iter().map(|n| (format!("maj@{n}"), u8::from(majority(*n)).into())));
    metrics.extend(counts.iter().map(|n| (format!("avg@{n}"), share(*n).into())));
    let answers: Vec<&str> = marks.all().map(|mark| mark.predict_str).collect();
    metrics.insert("extracted_answers".to_owned(), json!(answers));
    metrics.insert("exact_matches".to_owned(), json!(right));
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_equal_right_answers_beat_five_different_wrong_ones() {
        let mark = |acc: f64, predict_str| Mark { acc, format: 0.0, predict_str };
        let all = [("25", 1.0), ("1", 0.0), ("2", 0.0), ("025", 1.0), ("3", 0.0), ("4", 0.0), ("", 0.0), ("25", 1.0)];
        let sampled: Vec<Mark> = all.iter().map(|(text, acc)| mark(*acc, text)).collect();
        let marks = Marks { greedy: None, sampled };
        for (mode, right) in [(Mode::Strict, 1), (Mode::Compat, 0)] {
            assert_eq!(score(&Row::default(), &marks, mode).unwrap()["maj@8"], right);
        }
        // Of equally frequent answers, the one that reaches its number first.
        assert_eq!(vote(&[mark(1.0, "7"), mark(0.0, "8"), mark(0.0, "8"), mark(1.0, "7")]), 0.0);
    }
}

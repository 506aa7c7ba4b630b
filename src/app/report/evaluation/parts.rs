//! Accuracy by subject, and by length of the answer.

use std::collections::BTreeSet;

use super::read::{Run, acc};
use crate::report::Table;
use omr_train::eval::samples::{Answer, Sample};

/// Formats a share as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1}", 100.0 * share)
}

/// Formats a share with its number of questions: `71.4 (35)`.
fn cell(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    format!("{} ({})", percent(values.iter().sum::<f64>() / values.len() as f64), values.len())
}

/// Returns the accuracy by subject, if the rows contain subjects.
pub fn by_subject(runs: &[Run]) -> Option<Table> {
    let of = |run: &Run| -> Vec<(String, f64)> {
        let samples = run.tasks.iter().flat_map(|task| &task.samples);
        samples.filter_map(|s| Some((format!("{}: {}", s.task, s.subject.as_ref()?), acc(s)?))).collect()
    };
    let all: Vec<Vec<(String, f64)>> = runs.iter().map(of).collect();
    let subjects: BTreeSet<&String> = all.iter().flatten().map(|(subject, _)| subject).collect();
    let mut table = Table { head: vec!["percent (questions)".to_owned()], rows: Vec::new() };
    table.head.extend(runs.iter().map(|run| run.name.clone()));
    for subject in subjects {
        let values = |run: &Vec<(String, f64)>| -> Vec<f64> {
            run.iter().filter(|(name, _)| name == subject).map(|(_, value)| *value).collect()
        };
        let cells: Vec<String> = all.iter().map(|run| cell(&values(run))).collect();
        table.rows.push([vec![subject.clone()], cells].concat());
    }
    Some(table).filter(|table| !table.rows.is_empty())
}

/// Returns the length of an answer in tokens, or in characters if it was recorded without tokens.
fn length(answer: &Answer) -> usize {
    match answer.response_length {
        0 => answer.response.chars().count(),
        tokens => tokens,
    }
}

/// Returns the accuracy of each quarter of a run's answers, ordered by length, and their mean length.
pub fn by_length(runs: &[Run], tasks: &[&str]) -> Table {
    let mut table = Table { head: vec!["percent (answers)".to_owned()], rows: Vec::new() };
    table.head.extend(["shortest quarter", "second", "third", "longest", "mean length"].map(str::to_owned));
    for name in tasks {
        for (run, task) in runs.iter().filter_map(|run| Some((run, run.task(name)?))) {
            let answers = task.samples.iter().flat_map(Sample::answers);
            let mut answers: Vec<(usize, f64)> = answers.map(|answer| (length(answer), answer.acc_score)).collect();
            answers.sort_by_key(|(length, _)| *length);
            let quarter = |i: usize| {
                let part = &answers[i * answers.len() / 4..(i + 1) * answers.len() / 4];
                let longest = part.last().map(|(length, _)| format!(", up to {length}")).unwrap_or_default();
                cell(&part.iter().map(|(_, acc)| *acc).collect::<Vec<f64>>()) + &longest
            };
            let mean = answers.iter().map(|(length, _)| *length as f64).sum::<f64>() / answers.len().max(1) as f64;
            let cells: Vec<String> = (0..4).map(quarter).chain([format!("{mean:.0}")]).collect();
            let label = if runs.len() == 1 { task.task.clone() } else { format!("{}, {}", task.task, run.name) };
            table.rows.push([vec![label], cells].concat());
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::super::read::Measured;
    use super::*;

    /// Makes a task with one question per entry: subject, tokens and score.
    fn task(name: &str, questions: &[(&str, usize, f64)]) -> Measured {
        let sample = |(subject, response_length, acc_score): &(&str, usize, f64)| Sample {
            task: name.to_owned(),
            subject: Some((*subject).to_owned()).filter(|subject| !subject.is_empty()),
            greedy: Some(Answer { response_length: *response_length, acc_score: *acc_score, ..Answer::default() }),
            ..Sample::default()
        };
        let accs = questions.iter().map(|question| question.2);
        Measured {
            task: name.to_owned(),
            n: questions.len(),
            metric: "acc_score".to_owned(),
            value: Some(accs.sum::<f64>() / questions.len() as f64),
            ci95: None,
            rules: None,
            published: Vec::new(),
            samples: questions.iter().map(sample).collect(),
        }
    }

    fn run(name: &str, tasks: Vec<Measured>) -> Run {
        Run { name: name.to_owned(), model: None, mode: "strict".to_owned(), judge: None, tasks }
    }

    #[test]
    fn subjects_have_a_row_each_and_runs_a_column() {
        let a = run("a", vec![task("t", &[("art", 1, 1.0), ("art", 1, 0.0), ("law", 1, 1.0), ("", 1, 1.0)])]);
        let b = run("b", vec![task("t", &[("art", 1, 1.0)]), task("u", &[("art", 1, 0.0)])]);
        let rows = [["t: art", "50.0 (2)", "100.0 (1)"], ["t: law", "100.0 (1)", "-"], ["u: art", "-", "0.0 (1)"]];
        assert_eq!(by_subject(&[a, b]).unwrap().rows, rows);
        assert_eq!(by_subject(&[run("c", vec![task("t", &[("", 1, 1.0)])])]), None);
    }

    #[test]
    fn answers_in_order_of_length_are_quartered_and_have_a_mean_length() {
        let runs = [run("a", vec![task("t", &[("", 50, 1.0), ("", 400, 0.0), ("", 150, 0.0), ("", 200, 1.0)])])];
        let cells =
            ["t", "100.0 (1), up to 50", "0.0 (1), up to 150", "100.0 (1), up to 200", "0.0 (1), up to 400", "200"];
        assert_eq!(by_length(&runs, &["other", "t"]).rows, [cells]);
    }
}

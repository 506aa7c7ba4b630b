//! Accuracy by subject, by length of the answer, and against the number of tokens.

use std::collections::BTreeSet;

use serde::Serialize;

use super::read::{Run, acc};
use crate::eval::samples::{Answer, Sample};
use crate::report::Table;

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

/// Returns the accuracy of each quarter of a run's answers, ordered by length.
pub fn by_length(runs: &[Run], tasks: &[&str]) -> Table {
    let mut table = Table { head: vec!["percent (answers)".to_owned()], rows: Vec::new() };
    table.head.extend(["shortest quarter", "second", "third", "longest"].map(str::to_owned));
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
            let cells: Vec<String> = (0..4).map(quarter).collect();
            let label = if runs.len() == 1 { task.task.clone() } else { format!("{}, {}", task.task, run.name) };
            table.rows.push([vec![label], cells].concat());
        }
    }
    table
}

/// Edges of the plotting area: left and right, bottom and top.
const ACROSS: [f64; 2] = [46.0, 690.0];
const UP: [f64; 2] = [286.0, 14.0];

/// A chart of accuracy against tokens.
#[derive(Serialize)]
pub struct AgainstTokens {
    /// Axis labels: positions and numbers of tokens.
    ticks: [(f64, String); 3],
    points: Vec<Point>,
    /// Names of the tasks that have a point, with their numbers.
    tasks: Vec<String>,
}

/// A point for one task of one run. The colour of the point identifies the run, and its number identifies the task.
#[derive(Serialize)]
struct Point {
    run: usize,
    number: usize,
    x: f64,
    y: f64,
    label: String,
}

/// Returns the ends of an axis around `values`. They are multiples of a step, which is a power of ten but at least 2.
/// The lower end is close to the smallest value.
fn around(values: impl Iterator<Item = f64> + Clone) -> [f64; 2] {
    let (least, most) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max));
    let step = 10f64.powf(((most - least).max(most / 10.0) / 2.0).log10().floor()).max(2.0);
    [((least - step / 2.0) / step).floor().max(0.0) * step, (most / step).ceil() * step]
}

/// Returns the chart of each run's accuracy per task against the mean number of tokens of its answers. Returns `None`
/// if no numbers of tokens are known.
pub fn against_tokens(runs: &[Run], tasks: &[&str]) -> Option<AgainstTokens> {
    let measured = |i: usize, number: usize| {
        let task = runs[i].task(tasks[number])?;
        Some((i, number, task.mean_tokens()?, task.value?))
    };
    let of_run = |i: usize| (0..tasks.len()).filter_map(move |number| measured(i, number));
    let all: Vec<(usize, usize, f64, f64)> = (0..runs.len()).flat_map(of_run).collect();
    if all.is_empty() {
        return None;
    }
    let [low, high] = around(all.iter().map(|point| point.2));
    let x = |tokens: f64| ACROSS[0] + (tokens - low) / (high - low) * (ACROSS[1] - ACROSS[0]);
    let ticks = [low, (low + high) / 2.0, high].map(|tokens| (x(tokens), tokens.to_string()));
    let shown = |number: &usize| all.iter().any(|point| point.1 == *number);
    let names = (0..tasks.len()).filter(shown).map(|number| format!("{}: {}", number + 1, tasks[number])).collect();
    let point = |(run, number, tokens, share): (usize, usize, f64, f64)| Point {
        run,
        number: number + 1,
        x: x(tokens),
        y: UP[0] + share * (UP[1] - UP[0]),
        label: format!("{}, {}: {} % at {tokens:.0} tokens", runs[run].name, tasks[number], percent(share)),
    };
    Some(AgainstTokens { ticks, points: all.into_iter().map(point).collect(), tasks: names })
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
    fn a_task_stands_at_its_tokens_and_its_accuracy() {
        let tasks = vec![task("short", &[("", 50, 1.0), ("", 150, 0.0)]), task("long", &[("", 400, 1.0)])];
        let runs = [run("a", tasks), run("recorded", vec![task("short", &[("", 0, 1.0)])])];
        let found = against_tokens(&runs, &["other", "short", "long"]).unwrap();
        let [short, long] = &found.points[..] else { panic!("answers recorded without tokens have no place") };
        // Positions 46 to 690 stand for 0 to 400 tokens, and 286 to 14 for 0 to 100 percent.
        assert!(short.label.ends_with("short: 50.0 % at 100 tokens") && [short.x, short.y] == [207.0, 150.0]);
        assert!(long.label.ends_with("long: 100.0 % at 400 tokens") && [long.x, long.y] == [690.0, 14.0]);
        assert_eq!(found.tasks, ["2: short", "3: long"]);
        assert!(against_tokens(&runs[1..], &["short"]).is_none());
    }
}

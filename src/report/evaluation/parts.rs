//! Accuracy taken apart: by subject, by length, against tokens.

use std::fmt::Write;

use super::legend::{hue, legend, percent, sorted};
use super::read::{Run, acc};
use crate::eval::samples::{Answer, Sample};
use crate::page::escape;
use crate::report::Table;
use crate::report::html::rows;

/// A share with its number of questions: `71.4 (35)`.
fn cell(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".to_owned();
    }
    format!("{} ({})", percent(values.iter().sum::<f64>() / values.len() as f64), values.len())
}

/// Accuracy by what the questions are about, where the rows say.
pub fn by_subject(runs: &[Run]) -> String {
    let of = |run: &Run| -> Vec<(String, f64)> {
        let samples = run.tasks.iter().flat_map(|task| &task.samples);
        samples.filter_map(|s| Some((format!("{}: {}", s.task, s.subject.as_ref()?), acc(s)?))).collect()
    };
    let all: Vec<Vec<(String, f64)>> = runs.iter().map(of).collect();
    let subjects = sorted(all.iter().flatten().map(|(subject, _)| subject.clone()));
    if subjects.is_empty() {
        return String::new();
    }
    let mut table = Table { head: vec!["percent (questions)".to_owned()], rows: Vec::new() };
    table.head.extend(runs.iter().map(|run| run.name.clone()));
    for subject in subjects {
        let values = |run: &Vec<(String, f64)>| -> Vec<f64> {
            run.iter().filter(|(name, _)| *name == subject).map(|(_, value)| *value).collect()
        };
        let cells: Vec<String> = all.iter().map(|run| cell(&values(run))).collect();
        table.rows.push([vec![subject.clone()], cells].concat());
    }
    format!("<section><h2>By subject</h2>{}</section>\n", rows(&table))
}

/// Tokens of an answer; characters where it was recorded without them.
fn length(answer: &Answer) -> usize {
    match answer.response_length {
        0 => answer.response.chars().count(),
        tokens => tokens,
    }
}

/// Accuracy of the shortest quarter of a run's answers, and of the longer ones.
pub fn by_length(runs: &[Run], tasks: &[&str]) -> String {
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
    format!(
        "<section class=\"lengths\"><h2>By length of the answer</h2><p class=\"sub\">In tokens; in characters where answers were recorded \
         without them.</p>{}</section>\n",
        rows(&table)
    )
}

/// A drawing's size and its margins: left, right, top, bottom.
const SIZE: [f64; 2] = [720.0, 320.0];
const EDGE: [f64; 4] = [46.0, 30.0, 14.0, 34.0];

/// Ends of an axis around `values`: multiples of a power of ten (at least of 2), the lower one near the least value.
fn around(values: impl Iterator<Item = f64> + Clone) -> [f64; 2] {
    let (least, most) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max));
    let step = 10f64.powf(((most - least).max(most / 10.0) / 2.0).log10().floor()).max(2.0);
    [((least - step / 2.0) / step).floor().max(0.0) * step, (most / step).ceil() * step]
}

/// Accuracy of each run's tasks over the tokens of a mean answer. Points have the colour of their run and the number of
/// their task.
pub fn against_tokens(runs: &[Run], tasks: &[&str]) -> String {
    let point = |i: usize, number: usize| {
        let task = runs[i].task(tasks[number])?;
        Some((i, number, task.mean_tokens()?, task.value?))
    };
    let of_run = |i: usize| (0..tasks.len()).filter_map(move |number| point(i, number));
    let points: Vec<(usize, usize, f64, f64)> = (0..runs.len()).flat_map(of_run).collect();
    if points.is_empty() {
        return String::new();
    }
    let [left, right, top, bottom] = EDGE;
    let [low, high] = around(points.iter().map(|point| point.2));
    let x = |tokens: f64| left + (tokens - low) / (high - low) * (SIZE[0] - left - right);
    let y = |share: f64| SIZE[1] - bottom - share * (SIZE[1] - top - bottom);
    let mut out = format!(
        "<section><h2>Accuracy against tokens</h2><p class=\"sub\">Mean tokens of an answer across, percent up.</p>{}<div class=\"chart \
         still\"><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Accuracy over tokens of an answer\">",
        legend(runs),
        SIZE[0],
        SIZE[1]
    );
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (end, at) = (SIZE[0] - right, y(share));
        let _ = write!(
            out,
            "<line x1=\"{left}\" x2=\"{end}\" y1=\"{at:.1}\" y2=\"{at:.1}\" class=\"grid\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            left - 8.0,
            at + 4.0,
            100.0 * share
        );
    }
    for part in [0.0, 0.5, 1.0] {
        let (tokens, end) = (low + part * (high - low), SIZE[1] - 10.0);
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{end}\" text-anchor=\"middle\">{tokens}</text>", x(tokens));
    }
    for (i, number, tokens, share) in &points {
        let said = format!("{}, {}: {} % at {tokens:.0} tokens", runs[*i].name, tasks[*number], percent(*share));
        let (at, up) = (x(*tokens), y(*share));
        let _ = write!(
            out,
            "<g><title>{}</title><circle cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"5\" class=\"{}\"/><text x=\"{:.1}\" \
             y=\"{:.1}\">{}</text></g>",
            escape(&said),
            hue(*i),
            at + 7.0,
            up + 4.0,
            number + 1,
        );
    }
    out.push_str("</svg></div><p class=\"legend\">");
    let shown = |number: &usize| points.iter().any(|point| point.1 == *number);
    let names = (0..tasks.len()).filter(shown).map(|number| format!("{}: {}", number + 1, escape(tasks[number])));
    out.push_str(&names.collect::<Vec<String>>().join(", "));
    out.push_str("</p></section>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::super::read::Measured;
    use super::*;

    /// A task with a question for each subject, tokens and verdict.
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
        let found = by_subject(&[a, b]);
        let row = |subject: &str, a: &str, b: &str| {
            format!("<tr><th scope=\"row\">{subject}</th><td>{a}</td><td>{b}</td></tr>")
        };
        let rows =
            [row("t: art", "50.0 (2)", "100.0 (1)"), row("t: law", "100.0 (1)", "-"), row("u: art", "-", "0.0 (1)")];
        assert!(found.contains(&rows.concat()), "{found}");
        assert_eq!(by_subject(&[run("c", vec![task("t", &[("", 1, 1.0)])])]), "");
    }

    #[test]
    fn a_task_stands_at_its_tokens_and_its_accuracy() {
        let tasks = vec![task("short", &[("", 50, 1.0), ("", 150, 0.0)]), task("long", &[("", 400, 1.0)])];
        let runs = [run("a", tasks), run("recorded", vec![task("short", &[("", 0, 1.0)])])];
        let found = against_tokens(&runs, &["other", "short", "long"]);
        assert_eq!(found.matches("<circle").count(), 2, "answers recorded without tokens have no place: {found}");
        // 46 to 690 across are 0 to 400 tokens, 286 to 14 up are 0 to 100 percent.
        assert!(found.contains("short: 50.0 % at 100 tokens</title><circle cx=\"207.0\" cy=\"150.0\""), "{found}");
        assert!(found.contains("long: 100.0 % at 400 tokens</title><circle cx=\"690.0\" cy=\"14.0\""), "{found}");
        assert!(found.contains(">2</text>") && found.contains("<p class=\"legend\">2: short, 3: long</p>"), "{found}");
        assert_eq!(against_tokens(&runs[1..], &["short"]), "");
    }
}

//! The page of one evaluation, or of several side by side: the table with the published rows, bars with intervals, accuracy
//! by subject, by length and against tokens, and of several runs the questions that flipped.

mod answers;
mod legend;
mod parts;
mod pictures;
mod read;

use std::fmt::Write;
use std::path::Path;

use self::legend::{hue, legend, percent};
pub use self::pictures::keep;
pub use self::read::is_evaluation;
use self::read::{Measured, Run, acc};
use super::html::{contrasts, rows};
use super::{Contrast, Table, browser};
use crate::error::Result;
use crate::eval::stats::{self, Interval};
use crate::page::{escape, frame};

const STYLE: &str = include_str!("evaluation.css");

/// The page of the evaluations in `dirs`. Errors name the file.
pub fn page(dirs: &[&Path]) -> Result<String> {
    let runs = Run::read_all(dirs)?;
    let tasks = tasks(&runs);
    let title = match &runs[..] {
        [run] => format!("Evaluation of {}", run.model.as_deref().unwrap_or(&run.name)),
        runs => format!("{} evaluations", runs.len()),
    };
    let mut body = header(&title, &runs);
    let scores = rows(&scores(&runs, &tasks));
    let _ = writeln!(body, "<section class=\"scores\"><h2>Scores</h2>{scores}</section>");
    body.push_str(&bars(&runs, &tasks));
    body.push_str(&parts::by_subject(&runs));
    body.push_str(&parts::by_length(&runs, &tasks));
    body.push_str(&parts::against_tokens(&runs, &tasks));
    let pictures = pictures::read(dirs)?;
    match &runs[..] {
        [run] => body.push_str(&answers::of(run, &pictures)?),
        [first, others @ ..] => {
            others.iter().for_each(|other| body.push_str(&pairs(first, other, &tasks)));
            body.push_str(&answers::of_several(&runs, &pictures)?);
        }
        [] => {}
    }
    let style = format!("{}{STYLE}", browser::STYLE);
    Ok(frame(&title, &style, &body, &format!("<script>\n{}</script>", browser::SCRIPT)))
}

/// The table of the evaluations in `dirs`, with the published rows. Errors name the file.
pub fn table(dirs: &[&Path]) -> Result<Table> {
    let runs = Run::read_all(dirs)?;
    Ok(scores(&runs, &tasks(&runs)))
}

/// The tasks that any of `runs` measured.
fn tasks(runs: &[Run]) -> Vec<&str> {
    let mut tasks: Vec<&str> = Vec::new();
    for task in runs.iter().flat_map(|run| &run.tasks) {
        if !tasks.contains(&task.task.as_str()) {
            tasks.push(&task.task);
        }
    }
    tasks
}

fn header(title: &str, runs: &[Run]) -> String {
    let mut out = format!("<header><p class=\"brand\">omr</p><h1>{}</h1>", escape(title));
    for run in runs {
        let judge = run.judge.as_ref().map_or("judge off: rules alone decide".to_owned(), |judge| judge.line());
        let model = run.model.as_deref().map(|model| format!(", model {model}")).unwrap_or_default();
        let line = format!("{}: {} rules{model}; {judge}", run.name, run.mode);
        let _ = write!(out, "<p class=\"remark\">{}</p>", escape(&line));
    }
    out.push_str(
        "<p class=\"remark\">Whiskers and intervals are of 95 %; questions on one picture or problem count as one \
         observation. Published scores are those of OpenMMReasoner's README and paper; they were not measured here.</p></header>\n",
    );
    out
}

/// A task a row: the runs, by the rules alone and with the judge, and beside them the published models.
fn scores(runs: &[Run], tasks: &[&str]) -> Table {
    let of_task = |task: &&str| vec![(*task).to_owned()];
    let mut table = Table { head: vec!["percent".to_owned()], rows: tasks.iter().map(of_task).collect() };
    let mut add = |name: String, of: &dyn Fn(&str) -> Option<String>| {
        table.head.push(name);
        table.rows.iter_mut().zip(tasks).for_each(|(row, task)| row.push(of(task).unwrap_or_else(|| "-".to_owned())));
    };
    for run in runs {
        let with_interval = |measured: &Measured| {
            let value = percent(measured.value?);
            let ends = measured.ci95.map(|ci95| format!(" ({} to {})", percent(ci95.lo), percent(ci95.hi)));
            Some(value + &ends.unwrap_or_default())
        };
        if run.judge.is_some() {
            add(format!("{}, rules", run.name), &|task| run.task(task)?.rules.map(percent));
            add(format!("{}, rules with judge", run.name), &|task| with_interval(run.task(task)?));
        } else {
            add(format!("{}, rules", run.name), &|task| with_interval(run.task(task)?));
        }
    }
    let mut models: Vec<&str> = Vec::new();
    for (model, _) in runs.iter().flat_map(|run| &run.tasks).flat_map(|task| &task.published) {
        if !models.contains(&model.as_str()) {
            models.push(model);
        }
    }
    for model in models {
        let of = |task: &str| {
            let mut all = runs.iter().filter_map(|run| run.task(task)).flat_map(|measured| &measured.published);
            all.find(|(name, _)| name == model).map(|(_, share)| percent(*share))
        };
        add(format!("{model}, published"), &of);
    }
    table
}

fn bars(runs: &[Run], tasks: &[&str]) -> String {
    let mut out = format!("<section><h2>Accuracy by task</h2>{}<ul class=\"bars\">", legend(runs));
    for task in tasks {
        let of: Vec<(usize, &Measured)> =
            runs.iter().enumerate().filter_map(|(i, run)| Some((i, run.task(task)?))).collect();
        let Some((_, first)) = of.first() else { continue };
        let ours = first.published.first().map(|(model, x)| format!("; {model} {} published", percent(*x)));
        let _ = write!(
            out,
            "<li><div class=\"who\"><b>{}</b> <span>{} questions, {}{}</span></div><div>",
            escape(task),
            first.n,
            escape(&first.metric),
            escape(&ours.unwrap_or_default()),
        );
        of.iter().for_each(|(i, measured)| out.push_str(&bar(*i, measured)));
        out.push_str("</div></li>");
    }
    out.push_str("</ul></section>\n");
    out
}

/// A run's bar: the drawing is 100 wide, so that lengths are percents, and each stands alone in a row of the same columns.
fn bar(i: usize, measured: &Measured) -> String {
    let Some(value) = measured.value else { return String::new() };
    let (mut ends, mut words) = (String::new(), String::new());
    if let Some(Interval { lo, hi }) = measured.ci95 {
        let (from, to) = (100.0 * lo, 100.0 * hi);
        ends = format!("<path class=\"ci95\" d=\"M{from:.2} 8.5v9M{to:.2} 8.5v9M{from:.2} 13H{to:.2}\"/>");
        words = format!(" <small>{} to {}</small>", percent(lo), percent(hi));
    }
    format!(
        "<div class=\"run {}\"><svg viewBox=\"0 0 100 26\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path d=\"M0 0v26M25 \
         0v26M50 0v26M75 0v26M100 0v26\"/><rect y=\"4\" width=\"{:.2}\" height=\"18\"/>{ends}</svg><p class=\"value\"><b>{} \
         %</b>{words}</p></div>",
        hue(i),
        100.0 * value,
        percent(value),
    )
}

/// How much is right of the questions that both runs measured: one number each, in one order.
fn paired(a: &Measured, b: &Measured) -> (Vec<f64>, Vec<f64>) {
    let of_b = b.by_index();
    a.samples.iter().filter_map(|x| Some((acc(x)?, acc(of_b.get(&x.index)?)?))).unzip()
}

fn pairs(a: &Run, b: &Run, tasks: &[&str]) -> String {
    let mut found = Vec::new();
    for task in tasks {
        let (Some(x), Some(y)) = (a.task(task), b.task(task)) else { continue };
        let (before, after) = paired(x, y);
        let Some(estimate) = stats::paired(&after, &before).filter(|estimate| estimate.n > 0) else { continue };
        let gained = before.iter().zip(&after).filter(|(before, after)| after > before).count();
        let lost = before.iter().zip(&after).filter(|(before, after)| after < before).count();
        let what = format!("{} questions: {gained} gained, {lost} lost", before.len());
        found.push(Contrast { label: (*task).to_owned(), what, estimate });
    }
    if found.is_empty() {
        return String::new();
    }
    format!("<section><h2>{} minus {}</h2>{}</section>\n", escape(&b.name), escape(&a.name), contrasts(&found))
}

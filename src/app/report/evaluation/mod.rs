//! The page of one evaluation, or of several for comparison. It contains the table with published scores, bars with
//! intervals, accuracy by subject and by length, and for several runs the questions whose result changed.

mod answers;
mod images;
mod parts;
mod read;

use std::path::Path;

use minijinja::context;

pub use self::answers::answer;
pub use self::images::keep;
use self::parts::percent;
pub use self::read::is_evaluation;
use self::read::{Measured, Run, acc};
use super::comparison::distinct;
use super::html::render;
use super::run::started;
use super::{Contrast, Table, browser};
use omr_base::error::Result;
use omr_data::task::Observation;
use omr_train::eval::samples::Sample;
use omr_train::eval::stats;

/// Returns the page of the evaluations in `dirs`. Errors name the file.
pub fn page(dirs: &[&Path]) -> Result<String> {
    let runs = Run::read_all(dirs)?;
    let tasks = tasks(&runs);
    let title = match &runs[..] {
        [run] => format!("Evaluation of {}", run.model.as_deref().unwrap_or(&run.name)),
        runs => format!("{} evaluations", runs.len()),
    };
    let images = images::read(dirs)?;
    let (pairs, answers) = match &runs[..] {
        [first, others @ ..] if !others.is_empty() => {
            let pairs = others.iter().map(|other| (&first.name, &other.name, differences(first, other, &tasks)));
            (pairs.filter(|(.., found)| !found.is_empty()).collect(), answers::of_several(&runs, &images))
        }
        runs => (Vec::new(), runs.first().and_then(|run| answers::of(run, &images))),
    };
    let page = context! {
        title,
        remarks => runs.iter().map(remark).collect::<Vec<String>>(),
        scores => scores(&runs, &tasks),
        runs => runs.iter().map(|run| &run.name).collect::<Vec<_>>(),
        tasks => bars(&runs, &tasks),
        subjects => parts::by_subject(&runs),
        lengths => parts::by_length(&runs, &tasks),
        pairs,
        answers,
        facts => dirs.iter().filter(|_| dirs.len() == 1).flat_map(|dir| started(dir)).collect::<Vec<_>>(),
    };
    render("evaluation.html", &[browser::SCRIPT], page)
}

/// Returns the table of the evaluations in `dirs`, with the published scores. Errors name the file.
pub fn table(dirs: &[&Path]) -> Result<Table> {
    let runs = Run::read_all(dirs)?;
    Ok(scores(&runs, &tasks(&runs)))
}

/// Returns the tasks that any of `runs` evaluated.
fn tasks(runs: &[Run]) -> Vec<&str> {
    distinct(runs.iter().flat_map(|run| &run.tasks).map(|measured| &measured.task))
}

/// Describes in a line for the user how a run was evaluated.
fn remark(run: &Run) -> String {
    let judge = run.judge.as_ref().map_or("judge off: only the rules decide".to_owned(), |judge| judge.line());
    let model = run.model.as_deref().map(|model| format!(", model {model}")).unwrap_or_default();
    format!("{}: {} rules{model}; {judge}", run.name, run.mode)
}

/// Returns the table of scores: one row per task, with the runs (by the rules alone and with the judge) and the
/// published models as columns. The last row is the mean over the tasks, for columns that have a score of each.
fn scores(runs: &[Run], tasks: &[&str]) -> Table {
    let mean = (tasks.len() > 1).then(|| format!("mean of {} tasks", tasks.len()));
    let rows = tasks.iter().map(|task| (*task).to_owned()).chain(mean).map(|name| vec![name]).collect();
    let mut table = Table { head: vec!["percent".to_owned()], rows };
    let mut add = |name: String, of: &dyn Fn(&str) -> Option<(f64, String)>| {
        table.head.push(name);
        let cells: Vec<_> = tasks.iter().map(|task| of(task)).collect();
        let shares: Option<Vec<f64>> = cells.iter().map(|cell| cell.as_ref().map(|(share, _)| *share)).collect();
        let mean = shares.map(|shares| (stats::mean(&shares).mean, String::new()));
        let text = |cell: Option<(f64, String)>| cell.map_or("-".to_owned(), |(share, ends)| percent(share) + &ends);
        table.rows.iter_mut().zip(cells.into_iter().chain([mean])).for_each(|(row, cell)| row.push(text(cell)));
    };
    for run in runs {
        let with_interval = |measured: &Measured| {
            let ends = measured.ci95.map(|ci95| format!(" ({} to {})", percent(ci95[0]), percent(ci95[1])));
            Some((measured.value?, ends.unwrap_or_default()))
        };
        if run.judge.is_some() {
            add(format!("{}, rules", run.name), &|task| Some((run.task(task)?.rules?, String::new())));
            add(format!("{}, rules with judge", run.name), &|task| with_interval(run.task(task)?));
        } else {
            add(format!("{}, rules", run.name), &|task| with_interval(run.task(task)?));
        }
    }
    let published = runs.iter().flat_map(|run| &run.tasks).flat_map(|task| &task.published);
    for model in distinct(published.map(|(model, _)| model)) {
        let of = |task: &str| {
            let mut all = runs.iter().filter_map(|run| run.task(task)).flat_map(|measured| &measured.published);
            all.find(|(name, _)| name == model).map(|(_, share)| (*share, String::new()))
        };
        add(format!("{model}, published"), &of);
    }
    table
}

/// Returns, for each task, the results of the runs that evaluated the task. Each result has the index of its run.
fn bars<'a>(runs: &'a [Run], tasks: &[&str]) -> Vec<Vec<(usize, &'a Measured)>> {
    let of_task = |task: &&str| runs.iter().enumerate().filter_map(|(i, run)| Some((i, run.task(task)?))).collect();
    tasks.iter().map(of_task).collect()
}

/// Returns the scores of the questions that both runs evaluated, in the same order. The file of a task may have changed
/// in between, so a question is the same only if its text is.
fn paired(a: &Measured, b: &Measured) -> (Vec<Observation>, Vec<Observation>) {
    let of_b = b.by_index();
    let of = |value, x: &Sample| Observation { value, clusters: x.clusters.clone() };
    let same = |x: &Sample| of_b.get(&x.index).copied().filter(|y| y.question == x.question);
    a.samples.iter().filter_map(|x| Some((of(acc(x)?, x), of(acc(same(x)?)?, x)))).unzip()
}

/// Returns the paired difference of `b` minus `a` for each task that both evaluated.
fn differences(a: &Run, b: &Run, tasks: &[&str]) -> Vec<Contrast> {
    let mut found = Vec::new();
    for task in tasks {
        let (Some(x), Some(y)) = (a.task(task), b.task(task)) else { continue };
        let (before, after) = paired(x, y);
        let Some(estimate) = stats::paired(&after, &before).filter(|estimate| estimate.n > 0) else { continue };
        let gained = before.iter().zip(&after).filter(|(before, after)| after.value > before.value).count();
        let lost = before.iter().zip(&after).filter(|(before, after)| after.value < before.value).count();
        let what = format!("{} questions: {gained} gained, {lost} lost", before.len());
        found.push(Contrast { label: (*task).to_owned(), what, estimate });
    }
    found
}

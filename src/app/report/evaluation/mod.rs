//! The page of one evaluation, or of several for comparison. It contains the table with published scores, bars with
//! intervals, accuracy by subject and by length, and for several runs the questions whose result changed.

mod answers;
mod images;
mod parts;
mod read;

use std::path::{Path, PathBuf};

use minijinja::context;

pub use self::answers::answer;
pub use self::images::keep;
use self::parts::percent;
pub use self::read::is_evaluation;
use self::read::{Measured, Run};
use super::comparison::{distinct, names};
use super::html::render;
use super::run::started;
use super::{Contrast, Table, browser};
use omr_base::error::Result;
use omr_data::task::Observation;
use omr_train::eval::samples::{Sample, observations};
use omr_train::eval::stats::{self, Estimate};

/// Returns the page of the evaluations in `dirs`. Errors name the file.
pub fn page(dirs: &[&Path]) -> Result<String> {
    let runs: Vec<Run> = dirs.iter().zip(names(dirs)).map(|(dir, name)| Run::read(dir, name)).collect::<Result<_>>()?;
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
        measures => measures(&runs, &tasks),
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

/// Reads the evaluations of a recipe's models, given by the name of the model and the folder.
fn models(dirs: &[(&str, PathBuf)]) -> Result<Vec<Run>> {
    dirs.iter().map(|(name, dir)| Run::read(dir, (*name).to_owned())).collect()
}

/// Returns the table of the evaluations of a recipe's models, with the published scores. Errors name the file.
pub fn table(dirs: &[(&str, PathBuf)]) -> Result<Table> {
    let runs = models(dirs)?;
    Ok(scores(&runs, &tasks(&runs)))
}

/// Returns the accuracy of a recipe's models by kind of question, if the questions have kinds.
pub fn by_subject(dirs: &[(&str, PathBuf)]) -> Result<Option<Table>> {
    Ok(parts::by_subject(&models(dirs)?))
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
fn paired(a: &Measured, b: &Measured, score: Score) -> (Vec<Observation>, Vec<Observation>) {
    let of_b = b.by_index();
    let of = |value, x: &Sample| Observation { value, clusters: x.clusters.clone() };
    let same = |x: &Sample| of_b.get(&x.index).copied().filter(|y| y.question == x.question);
    a.samples.iter().filter_map(|x| Some((of(score(x)?, x), of(score(same(x)?)?, x)))).unzip()
}

type Score = fn(&Sample) -> Option<f64>;

/// Ways to score a question by its answers. pass@k is 1 if one of the k sampled answers is right.
const SCORES: [(&str, Score); 3] = [
    ("greedy", Sample::acc),
    ("temperature 1", Sample::acc_t1),
    ("pass@k", |sample| {
        (sample.sampled.len() > 1).then(|| f64::from(sample.sampled.iter().any(|answer| answer.acc_score >= 0.5)))
    }),
];

/// Returns the k of pass@k as text.
fn drawn(name: &str, task: &Measured) -> String {
    let sample = task.samples.first().filter(|_| name == "pass@k");
    sample.map_or(String::new(), |sample| format!(", k = {}", sample.sampled.len()))
}

/// Returns the accuracies of each task by [`SCORES`], with their intervals, if a task has more than one of them.
fn measures(runs: &[Run], tasks: &[&str]) -> Option<Table> {
    let mut table = Table { head: vec!["percent".to_owned()], rows: Vec::new() };
    table.head.extend(runs.iter().map(|run| run.name.clone()));
    for (task, (name, score)) in tasks.iter().flat_map(|task| SCORES.map(|score| (task, score))) {
        let cell = |run: &Run| {
            let of = run.task(task)?;
            let Estimate { mean, ci95, .. } = stats::clustered(&observations(&of.samples, score)?);
            Some(format!("{} ({} to {}){}", percent(mean), percent(ci95[0]), percent(ci95[1]), drawn(name, of)))
        };
        let cells: Vec<Option<String>> = runs.iter().map(cell).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
            table.rows.push([format!("{task}, {name}")].into_iter().chain(cells).collect());
        }
    }
    Some(table).filter(|table| table.rows.len() > tasks.len())
}

/// Returns the paired differences of `b` minus `a` for each task that both evaluated, by each of [`SCORES`].
fn differences(a: &Run, b: &Run, tasks: &[&str]) -> Vec<Contrast> {
    let mut found = Vec::new();
    for (task, (name, score)) in tasks.iter().flat_map(|task| SCORES.map(|score| (task, score))) {
        let (Some(x), Some(y)) = (a.task(task), b.task(task)) else { continue };
        let k = drawn(name, x);
        if k != drawn(name, y) {
            continue;
        }
        let (before, after) = paired(x, y, score);
        let Some(estimate) = stats::paired(&after, &before).filter(|estimate| estimate.n > 0) else { continue };
        let gained = before.iter().zip(&after).filter(|(before, after)| after.value > before.value).count();
        let lost = before.iter().zip(&after).filter(|(before, after)| after.value < before.value).count();
        let what = format!("{name}{k}, {} questions: {gained} gained, {lost} lost", before.len());
        found.push(Contrast { label: (*task).to_owned(), what, estimate });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_train::eval::samples::Answer;

    /// Makes a run of one task. Each question has a greedy answer and sampled ones, given by their scores.
    fn run(name: &str, questions: &[(f64, &[f64])]) -> Run {
        let answer = |acc_score: f64| Answer { acc_score, ..Answer::default() };
        let sample = |(index, (greedy, sampled)): (usize, &(f64, &[f64]))| Sample {
            index: index as u64,
            greedy: Some(answer(*greedy)),
            sampled: sampled.iter().map(|acc| answer(*acc)).collect(),
            ..Sample::default()
        };
        let task = Measured {
            task: "t".to_owned(),
            n: questions.len(),
            metric: "acc_score".to_owned(),
            value: None,
            ci95: None,
            rules: None,
            published: Vec::new(),
            samples: questions.iter().enumerate().map(sample).collect(),
        };
        Run { name: name.to_owned(), model: None, mode: "strict".to_owned(), judge: None, tasks: vec![task] }
    }

    #[test]
    fn a_gain_at_temperature_1_is_on_the_page_beside_the_greedy_accuracy() {
        let before = run("sft", &[(1.0, &[1.0, 0.0]), (1.0, &[0.0, 0.0]), (0.0, &[0.0, 0.0]), (1.0, &[1.0, 1.0])]);
        let after = run("rl", &[(1.0, &[1.0, 1.0]), (1.0, &[1.0, 0.0]), (0.0, &[0.0, 0.0]), (1.0, &[1.0, 1.0])]);
        let whats: Vec<(String, f64)> =
            differences(&before, &after, &["t"]).into_iter().map(|found| (found.what, found.estimate.mean)).collect();
        let expected = [
            ("greedy, 4 questions: 0 gained, 0 lost", 0.0),
            ("temperature 1, 4 questions: 2 gained, 0 lost", 0.25),
            ("pass@k, k = 2, 4 questions: 1 gained, 0 lost", 0.25),
        ];
        assert_eq!(whats, expected.map(|(what, mean)| (what.to_owned(), mean)));
        let table = measures(&[before, after], &["t"]).unwrap();
        assert_eq!(table.head, ["percent", "sft", "rl"]);
        let names: Vec<&str> = table.rows.iter().map(|row| row[0].as_str()).collect();
        assert_eq!(names, ["t, greedy", "t, temperature 1", "t, pass@k"]);
        assert!(table.rows[1][1].starts_with("37.5 (") && table.rows[1][2].starts_with("62.5 ("), "{table:?}");
    }

    #[test]
    fn pass_at_k_is_compared_for_equal_k_only() {
        let (two, three) = (run("two", &[(1.0, &[1.0, 0.0])]), run("three", &[(0.0, &[1.0, 0.0, 0.0])]));
        assert!(differences(&two, &three, &["t"]).iter().all(|found| !found.what.starts_with("pass@")));
        let table = measures(&[two, three], &["t"]).unwrap();
        assert!(table.rows[2][1].ends_with(", k = 2") && table.rows[2][2].ends_with(", k = 3"), "{table:?}");
    }
}

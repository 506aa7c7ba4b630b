//! A page that compares several runs.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::Path;

use super::run::{self, STAGES};
use super::{Curve, RecipeReport, Series, Stage, Table, html, report};
use omr_base::config::{Config, Difference, RecipeConfig, RlConfig, SftConfig, differences};
use omr_base::error::Result;
use omr_train::eval::stats::Estimate;
use omr_train::training::metrics;

/// Returns a page about `dirs`. It has a column per run with its results and the settings that differ, and each chart
/// has a line per run.
pub fn comparison(dirs: &[&Path]) -> Result<RecipeReport> {
    let mut reports: Vec<RecipeReport> = dirs.iter().map(|dir| report(dir)).collect::<Result<_>>()?;
    let names = names(dirs);
    let mut out = RecipeReport { title: format!("{} runs", dirs.len()), ..RecipeReport::default() };
    let mut rows: Vec<Vec<String>> = Vec::new();
    out.headline = "The same metrics for each run.".to_owned();
    if reports.iter().any(|report| !report.stages.is_empty()) {
        out.headline += " Accuracies are greedy / temperature 1, in percent.";
        let mut row = |label: String, cell: &dyn Fn(&RecipeReport) -> String| {
            rows.push([label].into_iter().chain(reports.iter().map(cell)).collect());
        };
        for (stage, _) in STAGES {
            row(format!("Accuracy, {}", html::stage_name(stage)), &|report| reached(report, stage));
        }
        for other in ["sft", "control"] {
            row(format!("RL - {}", html::stage_name(other)), &|report| gain(report, other));
        }
    }
    out.keys = keys::<RlConfig>(dirs).or_else(|| keys::<SftConfig>(dirs)).or_else(|| keys::<RecipeConfig>(dirs));
    out.keys.iter_mut().for_each(|keys| keys.head.extend(names.iter().cloned()));
    for ((dir, name), report) in dirs.iter().zip(&names).zip(&mut reports) {
        if report.stages.is_empty() {
            let course = run::course(&metrics::read(&dir.join("metrics.jsonl"))?);
            let fact = |run::Course { name, first, last, .. }| (String::from(name), format!("{first:.4} to {last:.4}"));
            report.facts.splice(0..0, course.map(fact));
        }
        for curve in &report.curves {
            // The chart of SFT may also contain continued SFT, which is left out.
            let lines = curve.series.iter().filter(|line| line.name != "control").map(|line| Series {
                name: if ["sft", "rl"].contains(&&*line.name) {
                    name.clone()
                } else {
                    format!("{name}, {}", line.name)
                },
                points: line.points.clone(),
            });
            match out.curves.iter_mut().find(|known| known.title == curve.title) {
                Some(known) => known.series.extend(lines),
                None => out.curves.push(Curve { series: lines.collect(), ..curve.clone() }),
            }
        }
    }
    for label in distinct(reports.iter().flat_map(|report| &report.facts).map(|(label, _)| label)) {
        let value = |report: &RecipeReport| report.facts.iter().find(|fact| fact.0 == label).map(|fact| fact.1.clone());
        let values: Vec<String> = reports.iter().map(|report| value(report).unwrap_or("-".to_owned())).collect();
        match values.iter().all(|other| *other == values[0]) {
            true => out.facts.push((label.to_owned(), values[0].clone())),
            false => rows.push([label.to_owned()].into_iter().chain(values).collect()),
        }
    }
    out.table = Some(Table { head: [String::new()].into_iter().chain(names).collect(), rows });
    Ok(out)
}

/// Returns the keys that differ between the configs of the runs, with the values of each run. Returns `None` if a
/// config is of another kind or cannot be read.
fn keys<C: Config>(dirs: &[&Path]) -> Option<Table> {
    let configs: Vec<C> = dirs.iter().map(|dir| run::config_of(dir)).collect::<Option<_>>()?;
    let others: Vec<Vec<Difference>> = configs.iter().map(|other| differences(&configs[0], other)).collect();
    let row = |path: &str| -> Vec<String> {
        let of = |other: &Vec<Difference>| other.iter().find(|key| key.path == path).cloned();
        let was = others.iter().find_map(of).map(|key| key.was).unwrap_or_default();
        let values = others.iter().map(|other| of(other).map_or_else(|| was.clone(), |key| key.now));
        [path.to_owned()].into_iter().chain(values).collect()
    };
    let paths = distinct(others.iter().flatten().map(|key| &key.path));
    Some(Table { head: vec!["key".to_owned()], rows: paths.into_iter().map(row).collect() })
}

/// Returns each of `names` once, in the order of their first places.
pub(super) fn distinct<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    let mut seen = HashSet::new();
    names.map(String::as_str).filter(|name| seen.insert(*name)).collect()
}

/// Returns short names of the folders: the last part of each path, preceded by as many parts as make the names distinct.
pub(super) fn names(dirs: &[&Path]) -> Vec<String> {
    let paths: Vec<Vec<&OsStr>> = dirs.iter().map(|dir| dir.iter().collect()).collect();
    let name = |path: &[&OsStr], count: usize| {
        path[path.len().saturating_sub(count)..].join(OsStr::new("/")).to_string_lossy().into_owned()
    };
    let of_all = |count: usize| paths.iter().map(|path| name(path, count)).collect::<Vec<_>>();
    let differ = |names: &Vec<String>| names.iter().collect::<HashSet<_>>().len() == names.len();
    let longest = paths.iter().map(Vec::len).max().unwrap_or(1);
    (1..longest).map(of_all).find(differ).unwrap_or_else(|| of_all(longest))
}

type Pick = fn(&Stage) -> Option<Estimate>;

/// The two accuracies: greedy, and at temperature 1.
const MEASURES: [Pick; 2] = [|stage| stage.acc, |stage| stage.acc_t1];

fn of(report: &RecipeReport, stage: &str, pick: Pick) -> Option<f64> {
    report.stages.iter().find(|of| of.name == stage).and_then(pick).map(|estimate| estimate.mean * 100.0)
}

fn reached(report: &RecipeReport, stage: &str) -> String {
    MEASURES.map(|pick| of(report, stage, pick).map_or("-".to_owned(), |share| format!("{share:.1}"))).join(" / ")
}

fn gain(report: &RecipeReport, other: &str) -> String {
    let gain = |pick: Pick| Some(of(report, "rl", pick)? - of(report, other, pick)?);
    MEASURES.map(|pick| gain(pick).map_or("-".to_owned(), |points| format!("{points:+.1}"))).join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_named_by_what_tells_them_apart() {
        let of = |dirs: &[&str]| names(&dirs.iter().map(Path::new).collect::<Vec<_>>());
        assert_eq!(of(&["runs/gspo/rl", "runs/grpo/rl"]), ["gspo/rl", "grpo/rl"]);
        assert_eq!(of(&["/tmp/x/gspo/model", "/data/y/grpo/model"]), ["gspo/model", "grpo/model"]);
        assert_eq!(of(&["runs/a", "runs/a/rl"]), ["a", "rl"]);
        assert_eq!(of(&["runs/shapes/sft", "runs/shapes/rl"]), ["sft", "rl"]);
        assert_eq!(of(&["a/b/c", "a/c", "x/c"]), ["b/c", "a/c", "x/c"]);
        assert_eq!(of(&["a/seed1/rl", "b/seed1/rl2", "c/seed2/rl"]), ["seed1/rl", "seed1/rl2", "seed2/rl"]);
        assert_eq!(of(&["a", "a"]), ["a", "a"]);
    }
}

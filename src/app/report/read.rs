//! Builds a [`RecipeReport`] from run directories (`docs/user/runs.md`).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::{Map, Value};

use super::browser::{self, Browser, Row};
use super::html::separated;
use super::run::{self, STAGES, config_of, facts_of_recipe as facts, time};
use super::{Contrast, Curve, RecipeReport, Series, Stage, Table, evaluation, rollouts, step};
use omr_base::config::{RecipeConfig, RlConfig};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_data::rows;
use omr_train::eval::samples::{self, Sample, observations};
use omr_train::eval::stats::{self, Estimate};
use omr_train::eval::summary::format_share;
use omr_train::training::metrics;

/// Table of the charts with one line each: folder of the stage, title, possible names of the metric, `log` for a
/// logarithmic axis, `folded` if the page shows the chart only on request, caption. A folded chart is left out if the
/// metric never changes.
const CURVES: &str = include_str!("curves.tsv");

/// Facet of a question that RL answers correctly and SFT does not.
const FIXED: &str = "fixed by RL";

/// Title of the chart whose caption depends on the config of the run.
const REWARD: &str = "Reward";

const PROBS_DIFF: &str = "training/rollout_probs_diff_max";

/// Maximum number of points per line. Longer runs are averaged in buckets.
const MAX_POINTS: usize = 600;

/// Builds the report of one run directory: a recipe, or a single `sft` or `rl` run. Its rollouts are of steps that are
/// evenly spaced.
pub fn report(dir: &Path) -> Result<RecipeReport> {
    build(dir, rollouts::spread)
}

/// Builds the report of a run that continues. Its rollouts are of the newest steps, the newest first.
pub fn live(dir: &Path) -> Result<RecipeReport> {
    build(dir, rollouts::newest)
}

fn build(dir: &Path, choose: rollouts::Choose) -> Result<RecipeReport> {
    let name = name(dir);
    let summary = summary(dir)?;
    let mut report = RecipeReport { title: name.clone(), ..RecipeReport::default() };
    // A recipe that is still running has no summary, but it has the folders of its stages.
    let recipe = summary.contains_key("stages") || dir.join("sft").is_dir();
    if !recipe && !dir.join("metrics.jsonl").exists() && !run::is_training(dir) {
        let found = "no summary.json with stages and no metrics.jsonl";
        return Err(Error::input(dir, found, "a run directory of omr recipe, omr sft or omr rl"));
    }
    let rl = if recipe { dir.join("rl") } else { dir.to_owned() };
    // If the directory is a single run, its metrics are used for every stage.
    let read = |dir: &Path| metrics::read(&dir.join("metrics.jsonl")).map(Rc::new);
    let names = ["sft", "control", "rl"];
    let steps: Steps = match recipe {
        true => names.into_iter().map(|stage| Ok((stage, read(&dir.join(stage))?))).collect::<Result<_>>()?,
        false => names.into_iter().zip(std::iter::repeat(read(dir)?)).collect(),
    };
    if recipe {
        report.title = format!("The {} recipe", name.rsplit('/').next().unwrap_or_default());
        let measured = measured(dir)?;
        report.stages = stages(&measured);
        report.contrasts = contrasts(&measured);
        report.examples = examples(dir, &measured)?;
        report.columns = columns(dir)?;
        report.kinds = evaluation::by_subject(&evaluations(dir, ""))?;
        report.headline = headline(&report);
        report.remarks = remarks(dir);
        report.tiles = tiles(&summary, &steps["rl"]);
    } else {
        report.headline = run::headline(&steps["rl"]);
    }
    report.step = step::image(&steps["rl"]);
    (report.curves, report.constant) = curves(&steps, recipe);
    if let Some(config) = config_of::<RlConfig>(&rl) {
        report.rollouts = rollouts::browser(&rl, &config, choose)?;
        let reward = report.curves.iter_mut().find(|curve| curve.title == REWARD);
        reward.into_iter().for_each(|curve| curve.caption += &run::scored_by(&config));
    }
    report.changed = steps.values().flat_map(|steps| steps.iter()).filter_map(wall_time).reduce(f64::max);
    report.facts = if recipe { facts(dir, &summary) } else { run::facts(dir, &summary, &steps["rl"]) };
    report.config = files::read_config(dir.join("config.yaml")).unwrap_or_default();
    Ok(report)
}

/// Returns the folders of the finished evaluations of the recipe's models on its own questions, or of those in the
/// folder `part` of each.
fn evaluations(dir: &Path, part: &str) -> Vec<(&'static str, PathBuf)> {
    let dirs = STAGES.iter().map(|(stage, _)| (*stage, dir.join("eval").join(stage).join(part)));
    dirs.filter(|(_, dir)| evaluation::is_evaluation(dir)).collect()
}

/// Returns the table of the additional tasks on which the recipe's models were evaluated.
fn columns(dir: &Path) -> Result<Option<Table>> {
    let dirs = evaluations(dir, "tasks");
    if dirs.is_empty() { Ok(None) } else { evaluation::table(&dirs).map(Some) }
}

/// Returns the last two parts of the path of a run, such as `digits/rl`.
fn name(dir: &Path) -> String {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let parts: Vec<_> = full.iter().map(|part| part.to_string_lossy()).collect();
    parts[parts.len().saturating_sub(2)..].join("/")
}

pub(super) fn summary(dir: &Path) -> Result<Map<String, Value>> {
    files::json::read_if_exists(&dir.join("summary.json")).map(Option::unwrap_or_default)
}

type Pick = fn(&Sample) -> Option<f64>;
/// Metrics of each step, by stage.
type Steps = HashMap<&'static str, Rc<Vec<metrics::Metrics>>>;
type Measured = HashMap<&'static str, Vec<Sample>>;

fn measured(dir: &Path) -> Result<Measured> {
    let mut out = Measured::new();
    for (stage, _) in STAGES {
        let path = dir.join("eval").join(stage).join("samples.jsonl");
        if path.exists() {
            out.insert(stage, samples::read(&path)?);
        }
    }
    Ok(out)
}

fn stages(measured: &Measured) -> Vec<Stage> {
    let stage = |(name, note): (&str, &str)| {
        let samples = measured.get(name)?;
        let of = |pick: Pick| observations(samples, pick).map(|scores| stats::clustered(&scores));
        let (acc, acc_t1, format) = (of(Sample::acc), of(Sample::acc_t1), format_share(samples));
        Some(Stage { name: name.to_owned(), note: note.to_owned(), acc, acc_t1, format })
    };
    STAGES.into_iter().filter_map(stage).collect()
}

fn contrasts(measured: &Measured) -> Vec<Contrast> {
    let mut out = Vec::new();
    for (other, label) in [("sft", "RL minus SFT"), ("control", "RL minus control")] {
        let (Some(rl), Some(other)) = (measured.get("rl"), measured.get(other)) else { continue };
        // A paired difference requires the same questions in the same order.
        if rl.iter().map(|s| &s.id).ne(other.iter().map(|s| &s.id)) {
            continue;
        }
        let kinds: [(&str, Pick); 2] = [("greedy", Sample::acc), ("temperature 1", Sample::acc_t1)];
        for (what, pick) in kinds {
            let (Some(a), Some(b)) = (observations(rl, pick), observations(other, pick)) else { continue };
            if let Some(estimate) = stats::paired(&a, &b) {
                out.push(Contrast { label: label.to_owned(), what: what.to_owned(), estimate });
            }
        }
    }
    out
}

/// Returns a sentence with both accuracies of the run.
fn headline(report: &RecipeReport) -> String {
    let percent = |e: Estimate| format!("{:.1} %", e.mean * 100.0);
    let of = |name: &str| report.stages.iter().find(|stage| stage.name == name);
    type Kind = (&'static str, &'static str, fn(&Stage) -> Option<Estimate>);
    let kinds: [Kind; 2] =
        [("greedy", "with greedy decoding", |s| s.acc), ("temperature 1", "at temperature 1", |s| s.acc_t1)];
    let moved = kinds.iter().filter_map(|(_, how, pick)| {
        let (sft, rl) = (pick(of("sft")?)?, pick(of("rl")?)?);
        Some(format!("from {} to {} {how}", percent(sft), percent(rl)))
    });
    let moved: Vec<String> = moved.collect();
    if moved.is_empty() {
        return "The recipe is not finished yet.".to_owned();
    }
    let gains = kinds.iter().filter_map(|(what, how, _)| {
        let contrast = report.contrasts.iter().find(|c| c.label == "RL minus control" && c.what == *what)?;
        let Estimate { mean, ci95, .. } = contrast.estimate;
        let chance = if ci95[0] <= 0.0 && ci95[1] >= 0.0 { ", not significant" } else { "" };
        Some(format!("{how} {:+.1} points ({:+.1} to {:+.1}{chance})", mean * 100.0, ci95[0] * 100.0, ci95[1] * 100.0))
    });
    let gains: Vec<String> = gains.collect();
    let against = match gains.is_empty() {
        true => String::new(),
        false => format!(" Compared with the same number of additional SFT steps: {}.", gains.join("; ")),
    };
    format!("RL changes the accuracy on held-out questions {}.{against}", moved.join(" and "))
}

fn remarks(dir: &Path) -> Vec<String> {
    let Some(config) = config_of::<RecipeConfig>(dir) else { return Vec::new() };
    let mut out = Vec::new();
    if config.base.model.is_none() {
        out.push("The base model has random weights. Its accuracy is only the starting point.");
    }
    let rollout = &config.rl.rollout;
    if rollout.top_p < 1.0 || rollout.top_k > 0 || rollout.min_p > 0.0 {
        out.push(
            "Rollouts were sampled with top-p, top-k or min-p. The recorded log-probs are those without this \
             truncation.",
        );
    }
    if config.task.tuning {
        out.push("Evaluated on the tuning images: use these results to choose settings, and do not report them.");
    }
    out.into_iter().map(str::to_owned).collect()
}

fn tiles(summary: &Map<String, Value>, steps: &[metrics::Metrics]) -> Vec<(String, String)> {
    let at = |group: &str, key: &str| summary.get(group)?.get(key)?.as_f64();
    let mut out = Vec::new();
    if let Some(seconds) = at("seconds", "total") {
        out.push(("all stages, including evaluation".to_owned(), time(seconds)));
    }
    for (key, label) in [("sft", "tokens per second in SFT"), ("rollout", "tokens per second in rollouts")] {
        if let Some(speed) = at("tokens_per_sec", key) {
            out.push((label.to_owned(), separated(speed.round_ties_even() as usize, ",")));
        }
    }
    let largest = steps.iter().filter_map(|step| step.get(PROBS_DIFF)?.as_f64()).reduce(f64::max);
    if let Some(largest) = largest {
        let label = format!("largest difference between sampler and trainer, {} steps", run::count(steps));
        out.push((label, largest.to_string()));
    }
    out
}

/// Returns the charts, and the metrics that never change and have no chart, with their values.
fn curves(steps: &Steps, recipe: bool) -> (Vec<Curve>, Vec<String>) {
    let mut all = Vec::new();
    let kind = if run::is_rl(&steps["rl"]) { "rl" } else { "sft" };
    let stages = if recipe { vec!["sft", "rl"] } else { vec![kind] };
    for drawn in CURVES.lines().map(|line| line.split('\t').collect::<Vec<&str>>()) {
        let [stage, title, names, axis, folded, caption] = drawn[..] else { continue };
        if !stages.contains(&stage) {
            continue;
        }
        let line =
            |stage: &str| names.split(',').map(|name| points(&steps[stage], name)).find(|points| !points.is_empty());
        let of = |stage: &str, points| Series { name: stage.to_owned(), points };
        let mut series: Vec<Series> = line(stage).into_iter().map(|points| of(stage, points)).collect();
        if recipe
            && stage == "sft"
            && let (Some(control), Some(sft)) = (line("control"), series.first())
        {
            // The line of continued SFT continues where SFT ended.
            let end = sft.points.last().map_or(0.0, |p| p.0);
            let shift = if control[0].0 > end { 0.0 } else { end };
            let [begun, sft_begun] = ["control", "sft"].map(|stage| steps[stage].first().and_then(wall_time));
            let later = begun.zip(sft_begun).map_or(0.0, |(begun, sft_begun)| begun - sft_begun);
            let points = control.into_iter().map(|(step, value, at)| (step + shift, value, at + later)).collect();
            series.push(of("control", points));
        }
        let [title, caption] = [title, caption].map(str::to_owned);
        all.push(Curve { title, caption, log: axis == "log", folded: folded == "folded", series });
    }
    if stages.contains(&"rl") {
        all.extend(["type", "domain"].map(|kind| rewards(kind, &steps["rl"])));
    }
    all.extend(["sft", "control", "rl"].iter().flat_map(|stage| validations(stage, &steps[stage], recipe)));
    all.extend(stages.iter().flat_map(|stage| others(stage, &steps[*stage], recipe)));
    all.retain(|curve| !curve.series.is_empty());
    let first = |curve: &Curve| curve.series[0].points[0].1;
    let changes =
        |curve: &Curve| curve.series.iter().flat_map(|line| &line.points).any(|point| point.1 != first(curve));
    let (drawn, constant): (Vec<_>, Vec<_>) = all.into_iter().partition(|curve| !curve.folded || changes(curve));
    (drawn, constant.iter().map(|curve| format!("{} {}", curve.title, first(curve))).collect())
}

/// Returns the chart of the mean scores of the rows of each reward type or domain. It has no series if the rows have
/// none.
fn rewards(kind: &str, steps: &[metrics::Metrics]) -> Curve {
    let line =
        |name: &str| Series { name: name.to_owned(), points: points(steps, &format!("reward/{kind}/{name}/mean")) };
    let names = run::rewarded(steps).into_iter().filter_map(|name| name.strip_prefix(kind)?.strip_prefix('/'));
    let (title, caption) = (format!("Reward by {kind}"), format!("Mean over the rollouts of each {kind} of rows."));
    Curve { title, caption, series: names.map(line).collect(), ..Curve::default() }
}

/// Returns the charts of all metrics of a stage that have no chart of their own.
fn others(stage: &str, steps: &[metrics::Metrics], recipe: bool) -> Vec<Curve> {
    let known: HashSet<&str> =
        CURVES.lines().filter_map(|line| line.split('\t').nth(2)).flat_map(|names| names.split(',')).collect();
    let is_other = |name: &&String| {
        !known.contains(name.as_str())
            && !["step", metrics::WALL_TIME].contains(&name.as_str())
            && !name.starts_with("val-core/")
            && run::reward_name(name).is_none()
    };
    let names: BTreeSet<&String> = steps.iter().flat_map(|step| step.keys()).filter(is_other).collect();
    let curve = |name: &String| {
        let series = vec![Series { name: stage.to_owned(), points: points(steps, name) }];
        let title = if recipe { format!("{stage}: {name}") } else { name.clone() };
        Curve { title, folded: true, series, ..Curve::default() }
    };
    names.into_iter().map(curve).filter(|curve| !curve.series[0].points.is_empty()).collect()
}

/// Returns the charts of the validations of a stage: accuracy by source. A single run has the same steps under every
/// stage's name, so it is shown only once.
fn validations(stage: &str, steps: &[metrics::Metrics], recipe: bool) -> Vec<Curve> {
    if !recipe && stage != "rl" {
        return Vec::new();
    }
    let curve = |name: &&String| {
        let what = name.trim_start_matches("val-core/");
        let title = if recipe { format!("Validation of {stage}: {what}") } else { format!("Validation: {what}") };
        let series = vec![Series { name: stage.to_owned(), points: points(steps, name) }];
        let caption = "Share of correct answers to questions that are not used for training.".to_owned();
        Curve { title, caption, log: false, folded: false, series }
    };
    run::measured_beside(steps).iter().map(curve).collect()
}

fn wall_time(metrics: &metrics::Metrics) -> Option<f64> {
    metrics.get(metrics::WALL_TIME)?.as_f64()
}

/// Returns the points of a metric. The numbers are rounded to six digits to keep the page small.
fn points(steps: &[metrics::Metrics], name: &str) -> Vec<(f64, f64, f64)> {
    let number = |m: &metrics::Metrics, key: &str| m.get(key).and_then(Value::as_f64);
    let begun = steps.first().and_then(wall_time);
    let point =
        |m| Some((number(m, "step")?, number(m, name)?, wall_time(m).zip(begun).map_or(0.0, |(at, of)| at - of)));
    let all: Vec<_> = steps.iter().filter_map(point).collect();
    let bucket = all.len().div_ceil(MAX_POINTS).max(1);
    let mean = |points: &[(f64, f64, f64)]| {
        let mean = |of: fn(&(f64, f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
        (mean(|p| p.0), run::rounded(mean(|p| p.1)), (mean(|p| p.2) * 10.0).round() / 10.0)
    };
    all.chunks(bucket).map(mean).collect()
}

/// Returns the browser of the questions with the answers of SFT and RL. Questions that RL has fixed come first.
fn examples(dir: &Path, measured: &Measured) -> Result<Option<Browser>> {
    let (Some(before), Some(after)) = (measured.get("sft"), measured.get("rl")) else { return Ok(None) };
    let images = images(&dir.join("data").join("heldout.parquet"))?;
    let after: HashMap<&str, &Sample> = after.iter().map(|sample| (sample.id.as_str(), sample)).collect();
    let row = |sft: &Sample| {
        let rl = after.get(sft.id.as_str())?;
        let both = [
            ("greedy", sft.greedy.as_ref().zip(rl.greedy.as_ref())),
            ("temperature 1", sft.sampled.first().zip(rl.sampled.first())),
        ];
        let (mut answers, mut facets) = (Vec::new(), Vec::new());
        for (how, (sft, rl)) in both.into_iter().filter_map(|(how, both)| Some((how, both?))) {
            let is_right = [sft, rl].map(|answer| answer.acc_score >= 1.0);
            let change = match is_right {
                [false, true] => FIXED,
                [true, false] => "broken by RL",
                [true, true] => "correct both times",
                [false, false] => "wrong both times",
            };
            let both = [("SFT", sft), ("RL", rl)];
            answers.extend(both.map(|(stage, of)| evaluation::answer(&format!("{stage}, {how}"), of)));
            facets.push((how.to_owned(), change.to_owned()));
        }
        let images = images.get(&sft.id).cloned().into_iter().collect();
        let (id, question, gold) = (sft.id.clone(), sft.question.clone(), Some(sft.target.clone()));
        Some(Row { id, question, images, gold, answers, facets, facts: Vec::new() })
    };
    let mut rows: Vec<Row> = before.iter().filter_map(row).collect();
    rows.sort_by_key(|row| row.facets.iter().all(|(_, change)| change != FIXED));
    let note = format!("{} held-out questions. Those that RL fixed come first.", rows.len());
    Ok((!rows.is_empty()).then(|| Browser { title: "The answers, before and after RL".to_owned(), note, rows }))
}

/// Returns the first image of each row as a `data:` address, by the row's id.
fn images(path: &Path) -> Result<HashMap<String, String>> {
    let mut out = HashMap::new();
    if !path.exists() {
        return Ok(out);
    }
    for row in rows::read(&rows::read::entry(path))? {
        if let Some(image) = row.images.first() {
            out.extend(browser::unchanged(&image.bytes(&row.place)?, usize::MAX).map(|image| (row.id, image)));
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_has_its_six_columns_and_metrics_their_names() {
        assert!(CURVES.lines().all(|line| line.split('\t').count() == 6));
        for name in [PROBS_DIFF, metrics::MEMORY] {
            assert!(CURVES.contains(&format!("\t{name}\t")), "{name}");
        }
    }
}

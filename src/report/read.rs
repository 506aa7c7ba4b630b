//! From run directories (FORMATS section 4) to a [`RecipeReport`].

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{Contrast, Curve, Example, RecipeReport, Series, Shown, Stage, Table};
use crate::config::{self, RecipeConfig};
use crate::data;
use crate::error::{Error, Result};
use crate::eval::samples::{self, Answer, Sample};
use crate::eval::stats::{self, Estimate, Interval};
use crate::files;
use crate::reward::judge;
use crate::train::metrics;

/// The models a recipe measures, in the order shown, with what each is.
const STAGES: [(&str, &str); 4] = [
    ("base", "where it starts"),
    ("sft", "imitates the teacher's kept answers"),
    ("control", "SFT continued instead of RL"),
    ("rl", "improved on its own answers"),
];

/// Curves of a stage: folder, title, caption, and the metric by its possible names.
const CURVES: [(&str, &str, &str, &[&str]); 8] = [
    ("sft", "SFT loss", "Mean over the supervised tokens of a batch.", &["loss", "train/loss"]),
    (
        "rl",
        "Reward",
        "Mean over a step's rollouts: 0.9 for the right answer, 0.1 for the format.",
        &["critic/score/mean"],
    ),
    ("rl", "Right rollouts", "Share of a step's rollouts with the right answer.", &["critic/score/acc_score/mean"]),
    (
        "rl",
        "Response length",
        "Tokens, mean over a step's rollouts. Longer is not better by itself.",
        &["response_length/mean"],
    ),
    ("rl", "Entropy", "Nats a token. Near zero the policy no longer explores.", &["actor/entropy"]),
    ("rl", "Gradient norm", "Before clipping.", &["actor/grad_norm"]),
    ("sft", "SFT gradient norm", "Before clipping.", &["grad_norm"]),
    (
        "rl",
        "Sampler against trainer",
        "Largest difference of a token's probability between the two. Zero: they are the same arithmetic.",
        &["training/rollout_probs_diff_max"],
    ),
];

/// Points a line keeps at most; longer runs are averaged in buckets.
const MAX_POINTS: usize = 600;

/// What one run directory shows: a recipe's, or that of a single `sft` or `rl` run.
pub fn report(dir: &Path) -> Result<RecipeReport> {
    let name = dir.file_name().map_or_else(|| dir.display().to_string(), |n| n.to_string_lossy().into_owned());
    let summary = summary(dir)?;
    let mut report = RecipeReport { title: name.clone(), ..RecipeReport::default() };
    // A recipe that is still running has no summary; its stages' folders show it.
    let recipe = summary.contains_key("stages") || dir.join("sft").is_dir();
    if !recipe && !dir.join("metrics.jsonl").exists() {
        return Err(Error::input(
            dir.display().to_string(),
            "neither summary.json with stages nor metrics.jsonl",
            "the run directory of omr recipe, omr sft or omr rl",
        ));
    }
    if recipe {
        report.title = format!("The {name} recipe");
        let measured = measured(dir)?;
        report.stages = stages(&summary, &measured);
        report.contrasts = contrasts(&measured);
        report.examples = examples(dir, &measured)?;
        report.headline = headline(&report);
        report.remarks = remarks(dir);
        report.tiles = tiles(&summary);
    } else {
        report.headline = "The course of one run.".to_owned();
    }
    report.curves = curves(dir, recipe)?;
    report.facts = facts(dir, &summary);
    Ok(report)
}

/// Several runs side by side: a row each, and each curve with a line each.
pub fn comparison(dirs: &[&Path]) -> Result<RecipeReport> {
    let reports: Vec<RecipeReport> = dirs.iter().map(|dir| report(dir)).collect::<Result<_>>()?;
    let mut out = RecipeReport { title: format!("{} runs", dirs.len()), ..RecipeReport::default() };
    out.headline = "The same measurements, run by run. Accuracies are greedy / temperature 1, in percent.".to_owned();
    let mut table = Table { head: vec!["Run".to_owned()], rows: Vec::new() };
    table.head.extend(STAGES.iter().map(|(stage, _)| super::html::stage_name(stage)));
    table.head.extend(["RL - SFT".to_owned(), "RL - Control".to_owned()]);
    for (dir, report) in dirs.iter().zip(&reports) {
        table.rows.push(comparison_row(dir, report));
        for curve in &report.curves {
            // The first: behind SFT's own course may stand its control's.
            let Some(line) = curve.series.first() else { continue };
            let line = Series { name: dir.display().to_string(), points: line.points.clone() };
            match out.curves.iter_mut().find(|known| known.title == curve.title) {
                Some(known) => known.series.push(line),
                None => out.curves.push(Curve { series: vec![line], ..curve.clone() }),
            }
        }
    }
    out.table = Some(table);
    Ok(out)
}

fn comparison_row(dir: &Path, report: &RecipeReport) -> Vec<String> {
    let percent = |estimate: &Option<Estimate>| estimate.map_or("-".to_owned(), |e| format!("{:.1}", e.mean * 100.0));
    let stage = |name: &str| report.stages.iter().find(|stage| stage.name == name);
    let mut row = vec![dir.display().to_string()];
    for (name, _) in STAGES {
        row.push(stage(name).map_or("-".to_owned(), |s| format!("{} / {}", percent(&s.acc), percent(&s.acc_t1))));
    }
    for other in ["sft", "control"] {
        let gain = |pick: fn(&Stage) -> Option<Estimate>| {
            let (rl, other) = (stage("rl").and_then(pick)?, stage(other).and_then(pick)?);
            Some(format!("{:+.1}", (rl.mean - other.mean) * 100.0))
        };
        let [greedy, t1] = [gain(|s| s.acc), gain(|s| s.acc_t1)].map(|g| g.unwrap_or("-".to_owned()));
        row.push(format!("{greedy} / {t1}"));
    }
    row
}

fn summary(dir: &Path) -> Result<Map<String, Value>> {
    let path = dir.join("summary.json");
    match files::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).map_err(|error| Error::format(&path, error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Map::new()),
        Err(error) => Err(Error::io(&path)(error)),
    }
}

type Pick = fn(&Sample) -> Option<f64>;
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

fn all<T>(samples: &[Sample], pick: impl Fn(&Sample) -> Option<T>) -> Option<Vec<T>> {
    samples.iter().map(pick).collect::<Option<Vec<T>>>().filter(|values| !values.is_empty())
}

fn stages(summary: &Map<String, Value>, measured: &Measured) -> Vec<Stage> {
    let mut out = Vec::new();
    for (name, note) in STAGES {
        let written = summary.get("stages").and_then(|stages| stages.get(name)).filter(|stage| stage.is_object());
        let samples = measured.get(name);
        if written.is_none() && samples.is_none() {
            continue;
        }
        let number = |key: &str| written?.get(key)?.as_f64();
        let n = number("n").unwrap_or(0.0) as usize;
        let from_summary = |key: &str| {
            let mean = number(key)?;
            let ends = written.and_then(|stage| serde_json::from_value::<Interval>(stage.get("ci95")?.clone()).ok());
            let ci95 = ends.filter(|_| key == "acc_t1").unwrap_or_else(|| stats::wilson(mean * n as f64, n));
            Some(Estimate { mean, ci95, n })
        };
        let of = |pick: fn(&Sample) -> Option<f64>| samples.and_then(|s| all(s, pick)).map(|v| stats::accuracy(&v));
        out.push(Stage {
            name: name.to_owned(),
            note: note.to_owned(),
            acc: of(Sample::acc).or_else(|| from_summary("acc")),
            acc_t1: of(Sample::acc_t1).or_else(|| from_summary("acc_t1")),
            format: number("format"),
        });
    }
    out
}

fn contrasts(measured: &Measured) -> Vec<Contrast> {
    let mut out = Vec::new();
    for (other, label) in [("sft", "RL minus SFT"), ("control", "RL minus control")] {
        let (Some(rl), Some(other)) = (measured.get("rl"), measured.get(other)) else { continue };
        // Paired means the same questions in the same order.
        if rl.iter().map(|s| &s.id).ne(other.iter().map(|s| &s.id)) {
            continue;
        }
        let kinds: [(&str, Pick); 2] = [("greedy", Sample::acc), ("temperature 1", Sample::acc_t1)];
        for (what, pick) in kinds {
            let (Some(a), Some(b)) = (all(rl, pick), all(other, pick)) else { continue };
            if let Some(estimate) = stats::paired(&a, &b) {
                out.push(Contrast { label: label.to_owned(), what: what.to_owned(), estimate });
            }
        }
    }
    out
}

fn headline(report: &RecipeReport) -> String {
    let at_t1 = |name: &str| report.stages.iter().find(|s| s.name == name).and_then(|s| s.acc_t1);
    let (Some(sft), Some(rl)) = (at_t1("sft"), at_t1("rl")) else {
        return "The recipe so far.".to_owned();
    };
    let percent = |e: Estimate| format!("{:.1} %", e.mean * 100.0);
    let mut out = format!("RL takes held-out accuracy from {} to {} at temperature 1", percent(sft), percent(rl));
    let control = report.contrasts.iter().find(|c| c.label == "RL minus control" && c.what == "temperature 1");
    match control.map(|c| c.estimate) {
        Some(e) if e.ci95.lo > 0.0 => out.push_str(&format!(
            ", {:+.1} points over as many more steps of SFT ({:+.1} to {:+.1}).",
            e.mean * 100.0,
            e.ci95.lo * 100.0,
            e.ci95.hi * 100.0
        )),
        Some(e) => out.push_str(&format!(
            ", but it is not shown to beat as many more steps of SFT: {:+.1} points ({:+.1} to {:+.1}).",
            e.mean * 100.0,
            e.ci95.lo * 100.0,
            e.ci95.hi * 100.0
        )),
        None => out.push('.'),
    }
    out
}

fn resolved(dir: &Path) -> Option<RecipeConfig> {
    config::load(Some(&dir.join("config.yaml")), &[], &|_| None).ok()
}

fn remarks(dir: &Path) -> Vec<String> {
    let Some(config) = resolved(dir) else { return Vec::new() };
    let mut out = Vec::new();
    if config.base.model.is_none() {
        out.push("The base is a random initialisation: it knows nothing, and its accuracy is the floor.".to_owned());
    }
    let rollout = &config.rl.rollout;
    if rollout.top_p < 1.0 || rollout.top_k > 0 || rollout.min_p > 0.0 {
        out.push(
            "Rollouts were truncated (top-p, top-k or min-p); recorded log-probabilities are the untruncated ones."
                .to_owned(),
        );
    }
    if config.task.tuning {
        out.push("Measured on the tuning pictures: figures for choosing settings, not for reporting.".to_owned());
    }
    out
}

fn tiles(summary: &Map<String, Value>) -> Vec<(String, String)> {
    let at = |group: &str, key: &str| summary.get(group)?.get(key)?.as_f64();
    let mut out = Vec::new();
    if let Some(seconds) = at("seconds", "total") {
        out.push(("all stages, evaluation included".to_owned(), time(seconds)));
    }
    for (key, label) in [("sft", "tokens a second in SFT"), ("rollout", "tokens a second in rollouts")] {
        if let Some(speed) = at("tokens_per_sec", key) {
            out.push((label.to_owned(), thousands(speed)));
        }
    }
    if let Some(seed) = summary.get("seed") {
        out.push(("seed; the same seed gives the same bits".to_owned(), seed.to_string()));
    }
    out
}

fn time(seconds: f64) -> String {
    if seconds < 90.0 {
        format!("{seconds:.0} s")
    } else {
        format!("{:.0} min {:02.0} s", (seconds / 60.0).floor(), seconds % 60.0)
    }
}

fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The judges a run has asked, with what they said: stage by stage, as the summaries have it.
pub fn judges(dir: &Path) -> Vec<(String, judge::Summary)> {
    let mut stages: Vec<(String, PathBuf)> = vec![("run".to_owned(), dir.to_owned())];
    stages.extend(["data", "rl"].map(|stage| (stage.to_owned(), dir.join(stage))));
    stages.extend(STAGES.map(|(stage, _)| (format!("evaluation of {stage}"), dir.join("eval").join(stage))));
    let said = |dir: &Path| -> Option<judge::Summary> {
        let summary: Value = serde_json::from_slice(&files::read(dir.join("summary.json")).ok()?).ok()?;
        serde_json::from_value(summary.get("judge")?.clone()).ok()
    };
    stages.into_iter().filter_map(|(stage, dir)| Some((stage, said(&dir)?))).collect()
}

fn facts(dir: &Path, summary: &Map<String, Value>) -> Vec<(String, String)> {
    let mut out = Vec::new();
    if let Ok(text) = files::read_to_string(dir.join("config.yaml"))
        && let Some(version) = text.lines().next().and_then(|line| line.strip_prefix("# "))
    {
        out.push(("Program".to_owned(), version.to_owned()));
    }
    if let Some(device) = summary.get("device").and_then(Value::as_str) {
        out.push(("Device".to_owned(), device.to_owned()));
    }
    if let Some(seconds) = summary.get("seconds").and_then(Value::as_object) {
        let parts = seconds.iter().filter(|(name, _)| *name != "total");
        let parts: Vec<_> = parts.filter_map(|(name, s)| Some(format!("{name} {}", time(s.as_f64()?)))).collect();
        out.push(("Time".to_owned(), parts.join(", ")));
    }
    let judges = judges(dir);
    match judges.is_empty() {
        true => out.push(("Judge".to_owned(), "off: rules alone decide what is right".to_owned())),
        false => out.extend(judges.iter().map(|(stage, judge)| (format!("Judge, {stage}"), judge.line()))),
    }
    let Some(config) = resolved(dir) else { return out };
    let (sft, rl) = (&config.sft, &config.rl);
    let mut add = |label: &str, value: String| out.push((label.to_owned(), value));
    add("Storage", config.dtype.name().to_owned());
    add(
        "SFT",
        format!(
            "{} steps, lr {}, {}",
            sft.max_steps.map_or("all".to_owned(), |n| n.to_string()),
            sft.optimizer.learning_rate,
            sft.optimizer.lr_scheduler_type.name()
        ),
    );
    add(
        "RL",
        format!(
            "{}, {} steps of {} prompts x {} rollouts, lr {}",
            rl.loss_mode.name(),
            rl.total_training_steps.map_or("all".to_owned(), |n| n.to_string()),
            rl.train_batch_size,
            rl.rollout.n,
            rl.optimizer.learning_rate
        ),
    );
    add("Clip", format!("{} below, {} above", rl.clip_ratio_low, rl.clip_ratio_high));
    match rl.reward.command.is_empty() {
        true => add("Reward", format!("{} scorer", rl.reward.mode.name())),
        false => add("Reward", format!("by {}", rl.reward.command.join(" "))),
    }
    out
}

fn curves(dir: &Path, recipe: bool) -> Result<Vec<Curve>> {
    let mut files: HashMap<&str, Vec<metrics::Metrics>> = HashMap::new();
    for stage in ["sft", "control", "rl"] {
        let path = if recipe { dir.join(stage) } else { dir.to_owned() }.join("metrics.jsonl");
        files.insert(stage, metrics::read(&path)?);
    }
    let mut out = Vec::new();
    for (stage, title, caption, names) in CURVES {
        let mut series = Vec::new();
        let line = |stage: &str| names.iter().map(|name| points(&files[stage], name)).find(|points| !points.is_empty());
        if let Some(points) = line(stage) {
            series.push(Series { name: stage.to_owned(), points });
        }
        if recipe
            && stage == "sft"
            && let (Some(control), Some(sft)) = (line("control"), series.first())
        {
            // The control goes on where SFT ended.
            let end = sft.points.last().map_or(0.0, |p| p.0);
            let shift = if control[0].0 > end { 0.0 } else { end };
            let points = control.into_iter().map(|(step, value)| (step + shift, value)).collect();
            series.push(Series { name: "control".to_owned(), points });
        }
        if !series.is_empty() {
            out.push(Curve { title: title.to_owned(), caption: caption.to_owned(), series });
        }
    }
    out.extend(["sft", "control", "rl"].iter().flat_map(|stage| validations(stage, &files[stage], recipe)));
    Ok(out)
}

/// What was measured beside the steps of a stage: accuracy by source, a curve each. A run alone has the same steps under
/// the name of any stage.
fn validations(stage: &str, steps: &[metrics::Metrics], recipe: bool) -> Vec<Curve> {
    if !recipe && stage != "rl" {
        return Vec::new();
    }
    let mut names: Vec<&String> = steps.iter().flat_map(|step| step.keys()).collect();
    names.retain(|name| name.starts_with("val-core/") && !name.ends_with("/std"));
    names.sort_unstable();
    names.dedup();
    let curve = |name: &&String| {
        let what = name.trim_start_matches("val-core/");
        let title = if recipe { format!("Validation of {stage}: {what}") } else { format!("Validation: {what}") };
        let series = vec![Series { name: stage.to_owned(), points: points(steps, name) }];
        Curve { title, caption: "Share of right answers on questions that are not trained on.".to_owned(), series }
    };
    names.iter().map(curve).collect()
}

fn points(steps: &[metrics::Metrics], name: &str) -> Vec<(f64, f64)> {
    let number = |m: &metrics::Metrics, key: &str| m.get(key).and_then(Value::as_f64);
    let all: Vec<_> = steps.iter().filter_map(|m| Some((number(m, "step")?, number(m, name)?))).collect();
    let bucket = all.len().div_ceil(MAX_POINTS).max(1);
    let mean = |points: &[(f64, f64)]| {
        let n = points.len() as f64;
        let (step, value) = points.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (step / n, value / n)
    };
    all.chunks(bucket).map(mean).collect()
}

fn examples(dir: &Path, measured: &Measured) -> Result<Vec<Example>> {
    let (Some(before), Some(after)) = (measured.get("sft"), measured.get("rl")) else {
        return Ok(Vec::new());
    };
    let pictures = pictures(&dir.join("data").join("heldout.parquet"))?;
    let after: HashMap<&str, &Sample> = after.iter().map(|sample| (sample.id.as_str(), sample)).collect();
    let pair = |a: Option<&Answer>, b: Option<&Answer>| Some([shown(a?), shown(b?)]);
    let both = before.iter().filter_map(|sample| Some((sample, *after.get(sample.id.as_str())?)));
    let examples = both.map(|(a, b)| Example {
        id: a.id.clone(),
        question: a.question.clone(),
        target: a.target.clone(),
        picture: pictures.get(&a.id).cloned(),
        greedy: pair(a.greedy.as_ref(), b.greedy.as_ref()),
        sampled: pair(a.sampled.first(), b.sampled.first()),
    });
    Ok(examples.collect())
}

/// The first picture of each row as a `data:` address, by the row's id.
fn pictures(path: &Path) -> Result<HashMap<String, String>> {
    let mut out = HashMap::new();
    if !path.exists() {
        return Ok(out);
    }
    for row in data::read(&data::read::entry(path))? {
        if let Some(image) = row.images.first() {
            let bytes = image.bytes(&row.place)?;
            let kind = match bytes.as_ref() {
                [0x89, b'P', b'N', b'G', ..] => "png",
                [0xff, 0xd8, ..] => "jpeg",
                [b'G', b'I', b'F', ..] => "gif",
                [b'R', b'I', b'F', b'F', ..] => "webp",
                _ => continue,
            };
            out.insert(row.id, format!("data:image/{kind};base64,{}", STANDARD.encode(&bytes)));
        }
    }
    Ok(out)
}

fn shown(answer: &Answer) -> Shown {
    let text = answer.response.as_str();
    let think = text.split_once("<think>").and_then(|(_, rest)| rest.split_once("</think>")).map(|(think, _)| think);
    Shown {
        think: think.unwrap_or(text).trim().to_owned(),
        answer: answer.predict_str.clone(),
        right: answer.acc_score >= 1.0,
        format: answer.format_reward_score >= 1.0,
        length: answer.response_length,
    }
}

//! `summary.json` of an evaluation: metrics with 95 % intervals, metrics by the rules alone, and published scores. This
//! module also formats the lines that are printed for the user.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::measured::{Measured, MeasuredTasks};
use super::samples::Sample;
use super::stats;
use omr_base::config::EvalConfig;
use omr_base::error::Result;
use omr_base::files;
use omr_data::reward::Shares;
use omr_data::task::{Counted, Crash, Metric, published};

impl Measured {
    /// Returns the task's part of `summary.json`: metrics with 95 % intervals, metrics by the rules alone, and
    /// published scores.
    fn summary(&self) -> Value {
        let metrics = (self.spec.aggregate)(&self.counted, self.mode);
        // The format score has no interval, because it describes only the form of the model's answers.
        let means = metrics.iter().filter(|m| !m.observations.is_empty() && m.name != "format_score");
        let ci95: Map<String, Value> =
            means.map(|m| (m.name.clone(), json!(stats::clustered(&m.observations).ci95))).collect();
        let published: Map<String, Value> = self.published().map(|(model, x)| (model.to_owned(), x.into())).collect();
        let mut summary = json!({
            "n": self.counted.len(),
            "rule_only": values((self.spec.aggregate)(&self.by_rules_alone(), self.mode)),
            "ci95": ci95,
            "metrics": values(metrics),
            "published_omr_7b": published.get(published::OURS),
        });
        if let Some(metric) = self.spec.published {
            summary["published"] = json!({"metric": metric, "models": published});
        }
        for (name, share) in self.shares.iter().flat_map(Shares::named) {
            summary[name] = share.into();
        }
        if !self.crashed.is_empty() {
            let crash = |(index, crash): &(u64, Crash)| json!({"index": index, "stage": crash.stage.name(), "type": crash.class, "found": crash.found});
            summary["crashed"] = self.crashed.iter().map(crash).collect();
        }
        summary
    }

    /// Formats a line for the user. It contains the metric for which scores are published (or all means if there is no
    /// such metric) and the published score of OpenMMReasoner-7B.
    fn line(&self) -> String {
        let metrics = (self.spec.aggregate)(&self.counted, self.mode);
        // Recorded answers may be too few for the published metric.
        let named = self.spec.published.filter(|name| metrics.iter().any(|m| m.name == *name));
        let is_shown = |m: &&Metric| named.map_or(!m.observations.is_empty(), |name| m.name == name);
        let shown = metrics.iter().filter(is_shown).map(|metric| {
            let [lo, hi] = stats::clustered(&metric.observations).ci95;
            let interval = format!(" ({:.1} to {:.1})", 100.0 * lo, 100.0 * hi);
            let interval = if metric.observations.is_empty() { String::new() } else { interval };
            match metric.value.as_f64() {
                Some(share) => format!("{} {:.1} %{interval}", metric.name, 100.0 * share),
                None => format!("{} {}", metric.name, metric.value),
            }
        });
        let shown: Vec<String> = shown.collect();
        let ours = self.published().find(|(model, _)| *model == published::OURS);
        let ours = ours.map(|(model, x)| format!("; published for {model}: {:.1} %", 100.0 * x));
        let part = self
            .missing()
            .map(|(measured, all)| format!("; {measured} of {all} questions: not comparable with published scores"));
        let ours = ours.or(part);
        let (name, shown, images) = (self.spec.name, shown.join(", "), self.images);
        format!("{name}: {shown}; images read: {images}{}", ours.unwrap_or_default())
    }

    fn by_rules_alone(&self) -> Vec<Counted> {
        let mut counted = self.counted.clone();
        self.rules_alone.iter().for_each(|(i, metrics)| counted[*i].metrics.clone_from(metrics));
        counted
    }

    /// Describes the rows that were left out.
    fn crashed_lines(&self) -> impl Iterator<Item = String> {
        self.crashed.iter().map(|(index, crash)| {
            let (name, stage, class, found) = (self.spec.name, crash.stage.name(), crash.class, &crash.found);
            format!(
                "{name}: index {index} is left out, because the published evaluation fails there with {class} in \
                 {stage} ({found})"
            )
        })
    }

    /// Returns the published scores. There are none if only a part of the questions was measured.
    fn published(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let is_whole = self.missing().is_none();
        published::of(self.spec.name).into_iter().filter(move |_| self.spec.published.is_some() && is_whole)
    }

    /// Returns the numbers of measured and of published questions, if they differ.
    fn missing(&self) -> Option<(usize, usize)> {
        let measured = self.counted.len() + self.crashed.len();
        self.spec.questions.filter(|all| *all != measured).map(|all| (measured, all))
    }
}

fn values(metrics: Vec<Metric>) -> Map<String, Value> {
    metrics.into_iter().map(|metric| (metric.name, metric.value)).collect()
}

impl MeasuredTasks {
    /// Writes `dir/summary.json` atomically. `model` is the evaluated model, if known, and `seconds` the duration.
    pub fn write(&self, dir: &Path, model: Option<&str>, config: &EvalConfig, seconds: f64) -> Result<()> {
        let tasks: Map<String, Value> =
            self.tasks.iter().map(|task| (task.spec.name.to_owned(), task.summary())).collect();
        let summary = json!({
            "model": model,
            "mode": config.mode.name(),
            "judge": self.judge.as_ref().map(|judge| &judge.summary),
            "tasks": tasks,
            "average": self.average(),
            "seconds": seconds,
        });
        files::write(dir.join("summary.json"), format!("{summary:#}\n").as_bytes())
    }

    /// Returns the mean of the published metric over the tasks that have one, and the same mean of each model with a
    /// published score for all of them. Returns null for fewer than two tasks.
    fn average(&self) -> Value {
        let mut scores: Vec<f64> = Vec::new();
        let mut published: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for task in &self.tasks {
            let metrics = (task.spec.aggregate)(&task.counted, task.mode);
            let named = metrics.iter().find(|metric| Some(metric.name.as_str()) == task.spec.published);
            let Some(score) = named.and_then(|metric| metric.value.as_f64()) else { continue };
            scores.push(score);
            task.published().for_each(|(model, share)| published.entry(model).or_default().push(share));
        }
        if scores.len() < 2 {
            return Value::Null;
        }
        published.retain(|_, shares| shares.len() == scores.len());
        let published: BTreeMap<_, _> =
            published.iter().map(|(model, shares)| (model, stats::mean(shares).mean)).collect();
        json!({"tasks": scores.len(), "score": stats::mean(&scores).mean, "published": published})
    }

    /// Returns the results for the user: rows left out, one line per task, and the judge.
    pub fn lines(&self) -> Vec<String> {
        let crashed = self.tasks.iter().flat_map(Measured::crashed_lines);
        let mut lines: Vec<String> = crashed.chain(self.tasks.iter().map(Measured::line)).collect();
        let warning = |task: &Measured| Some(format!("{}: {}", task.spec.name, task.shares.as_ref()?.warning()?));
        lines.extend(self.tasks.iter().filter_map(warning));
        let average = self.average();
        if let Some(score) = average["score"].as_f64() {
            let ours = average["published"][published::OURS].as_f64();
            let ours = ours.map(|x| format!("; published for {}: {:.1} %", published::OURS, 100.0 * x));
            lines.push(format!("mean of the tasks: {:.1} %{}", 100.0 * score, ours.unwrap_or_default()));
        }
        if let Some(judge) = &self.judge {
            lines.push(judge.summary.line());
            lines.extend(judge.down.iter().map(|what| {
                format!(
                    "the judge is down ({what}): only the rules were used; remove summary.json to ask the judge again"
                )
            }));
        }
        lines
    }
}

/// Returns the mean format score of the answers at temperature 1, or of the greedy answers if none was sampled.
pub fn format_share(samples: &[Sample]) -> f64 {
    let sampled: Vec<f64> = samples.iter().flat_map(|s| &s.sampled).map(|a| a.format_reward_score).collect();
    let greedy = || samples.iter().filter_map(|s| s.greedy.as_ref()).map(|a| a.format_reward_score).collect();
    stats::mean(&if sampled.is_empty() { greedy() } else { sampled }).mean
}

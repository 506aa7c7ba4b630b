//! Reads the run directories of evaluations for the page.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use omr_base::error::Result;
use omr_base::files;
use omr_data::reward::judge;
use omr_train::eval::samples::{self, Sample};
use omr_train::eval::stats::Interval;

/// Metric of a task that has no published metric.
const PLAIN: &str = "acc_score";

/// Maximum number of questions in a page. The file of samples contains all of them.
pub const SHOWN: usize = 400;

/// A finished evaluation.
pub struct Run {
    /// Short name that distinguishes its folder from the others.
    pub name: String,
    /// Model directory, if known.
    pub model: Option<String>,
    /// `strict` or `compat`.
    pub mode: String,
    /// Summary of the judge, if one was used.
    pub judge: Option<judge::Summary>,
    /// Tasks, in order.
    pub tasks: Vec<Measured>,
}

/// Results of a task in a run.
#[derive(Serialize)]
pub struct Measured {
    /// Name of the task.
    pub task: String,
    /// Number of questions.
    pub n: usize,
    /// Metric that is shown.
    pub metric: String,
    /// Value of the metric, as a share.
    pub value: Option<f64>,
    /// 95 % interval of the metric, if it is a mean.
    pub ci95: Option<Interval>,
    /// Value of the metric by the rules alone, without the judge.
    pub rules: Option<f64>,
    /// Published scores, with the names of the models.
    pub published: Vec<(String, f64)>,
    /// Questions with their answers.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

/// Parses a share given as a number or as the text of a percentage.
fn share(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.strip_suffix('%')?.parse::<f64>().ok().map(|percent| percent / 100.0),
        other => other.as_f64(),
    }
}

/// True if `dir` is the run directory of a finished evaluation.
pub fn is_evaluation(dir: &Path) -> bool {
    let summary = files::json::read::<Value>(&dir.join("summary.json"));
    summary.is_ok_and(|summary| summary["tasks"].is_object()) && dir.join("samples.jsonl").exists()
}

impl Run {
    /// Reads a run directory. Errors name the file.
    pub fn read(dir: &Path, name: String) -> Result<Run> {
        let path = dir.join("summary.json");
        let summary: Value = files::json::read(&path)?;
        let mut samples = samples::read(&dir.join("samples.jsonl"))?;
        let empty = Map::new();
        let mut tasks = Vec::new();
        for (task, measured) in summary["tasks"].as_object().unwrap_or(&empty) {
            let (of_task, rest) = samples.into_iter().partition(|sample| sample.task == *task);
            samples = rest;
            tasks.push(Measured::read(task, measured, of_task));
        }
        Ok(Run {
            name,
            model: summary["model"].as_str().map(str::to_owned),
            mode: summary["mode"].as_str().unwrap_or("strict").to_owned(),
            judge: serde_json::from_value(summary["judge"].clone()).ok(),
            tasks,
        })
    }

    /// Returns the results of a task.
    pub fn task(&self, name: &str) -> Option<&Measured> {
        self.tasks.iter().find(|task| task.task == name)
    }
}

impl Measured {
    fn read(task: &str, measured: &Value, samples: Vec<Sample>) -> Measured {
        let metric = measured["published"]["metric"].as_str().unwrap_or(PLAIN).to_owned();
        let first = || measured["metrics"].as_object()?.iter().find(|(_, value)| share(value).is_some());
        let metric = match measured["metrics"].get(&metric) {
            Some(_) => metric,
            None => first().map_or(metric, |(name, _)| name.clone()),
        };
        let published = measured["published"]["models"].as_object().into_iter().flatten();
        Measured {
            task: task.to_owned(),
            n: measured["n"].as_u64().unwrap_or(0) as usize,
            value: share(&measured["metrics"][&metric]),
            ci95: serde_json::from_value(measured["ci95"][&metric].clone()).ok(),
            rules: share(&measured["rule_only"][&metric]),
            published: published.filter_map(|(model, x)| Some((model.clone(), x.as_f64()?))).collect(),
            metric,
            samples,
        }
    }

    /// Returns a map from the numbers of the questions to the questions.
    pub fn by_index(&self) -> HashMap<u64, &Sample> {
        self.samples.iter().map(|sample| (sample.index, sample)).collect()
    }
}

/// Returns the score of a question: the score of its greedy answer or, without one, the share of correct answers among
/// its sampled answers.
pub fn acc(sample: &Sample) -> Option<f64> {
    sample.acc().or_else(|| sample.acc_t1())
}

/// True if the score of a question, see [`acc`], is at least 0.5.
pub fn right(sample: &Sample) -> bool {
    acc(sample).is_some_and(|acc| acc >= 0.5)
}

/// Returns the questions that the page of one run shows, the wrong ones first.
pub fn shown<'a>(samples: impl Iterator<Item = &'a Sample>) -> Vec<&'a Sample> {
    let mut samples: Vec<&Sample> = samples.collect();
    samples.sort_by_key(|sample| right(sample));
    samples.truncate(SHOWN);
    samples
}

//! What the run directories of evaluations hold, as the page shows it.

use std::collections::HashMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::eval::samples::{self, Sample};
use crate::eval::stats::Interval;
use crate::files;
use crate::report::comparison::names;
use crate::reward::judge;

/// The metric of a task that names none as the one published.
const PLAIN: &str = "acc_score";

/// Questions a page holds; the file of samples has the others.
pub const SHOWN: usize = 400;

/// A finished evaluation.
pub struct Run {
    /// What tells its folder from those of the others.
    pub name: String,
    /// The model directory, where that is known.
    pub model: Option<String>,
    /// `strict` or `compat`.
    pub mode: String,
    /// The judge, where one was asked.
    pub judge: Option<judge::Summary>,
    /// Its tasks, in their order.
    pub tasks: Vec<Measured>,
}

/// A task as a run measured it.
#[derive(Serialize)]
pub struct Measured {
    /// Its name.
    pub task: String,
    /// Questions.
    pub n: usize,
    /// The metric that is shown.
    pub metric: String,
    /// Its value and interval, as shares.
    pub value: Option<f64>,
    /// Its 95 % interval, where it is a mean.
    pub ci95: Option<Interval>,
    /// The same as if no judge had been asked.
    pub rules: Option<f64>,
    /// What others publish, with the models' names.
    pub published: Vec<(String, f64)>,
    /// The questions with their answers.
    #[serde(skip)]
    pub samples: Vec<Sample>,
}

/// A share: a number, or the text of a percentage.
fn share(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.strip_suffix('%')?.parse::<f64>().ok().map(|percent| percent / 100.0),
        other => other.as_f64(),
    }
}

/// True for the run directory of an evaluation that is done.
pub fn is_evaluation(dir: &Path) -> bool {
    let summary = files::read(dir.join("summary.json")).ok();
    let summary = summary.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    summary.is_some_and(|summary| summary["tasks"].is_object()) && dir.join("samples.jsonl").exists()
}

impl Run {
    /// Reads run directories. Errors name the file.
    pub fn read_all(dirs: &[&Path]) -> Result<Vec<Run>> {
        dirs.iter().zip(names(dirs)).map(|(dir, name)| Run::read(dir, name)).collect()
    }

    fn read(dir: &Path, name: String) -> Result<Run> {
        let path = dir.join("summary.json");
        let text = files::read(&path).map_err(Error::io(&path))?;
        let summary: Value = serde_json::from_slice(&text).map_err(|error| Error::format(&path, error.to_string()))?;
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

    /// A task's measurement.
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

    /// Its questions by their numbers.
    pub fn by_index(&self) -> HashMap<u64, &Sample> {
        self.samples.iter().map(|sample| (sample.index, sample)).collect()
    }

    /// Mean tokens of an answer; none where answers were recorded without them.
    pub fn mean_tokens(&self) -> Option<f64> {
        let lengths: Vec<f64> =
            self.samples.iter().flat_map(Sample::answers).map(|answer| answer.response_length as f64).collect();
        let sum: f64 = lengths.iter().sum();
        (sum > 0.0).then(|| sum / lengths.len() as f64)
    }
}

/// How much of a question is right: the share of its right answers, greedy or not.
pub fn acc(sample: &Sample) -> Option<f64> {
    sample.acc().or_else(|| sample.acc_t1())
}

/// True where half of a question's answers are right, or more.
pub fn right(sample: &Sample) -> bool {
    acc(sample).is_some_and(|acc| acc >= 0.5)
}

/// The questions that the page of one run shows, in their order there.
pub fn shown<'a>(samples: impl Iterator<Item = &'a Sample>) -> Vec<&'a Sample> {
    let mut samples: Vec<&Sample> = samples.collect();
    samples.sort_by_key(|sample| right(sample));
    samples.truncate(SHOWN);
    samples
}

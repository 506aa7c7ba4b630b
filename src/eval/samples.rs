//! `samples.jsonl`: every question measured, with every answer and verdict, a line each.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::Row;
use crate::error::{Error, Result};
use crate::files;
use crate::reward::judge::Ruling;
use crate::task::{Mark, Marks, Metrics};

/// What rows call that which a question is about.
const SUBJECTS: [&str; 4] = ["subject", "category", "skill", "kind"];

/// One question and its answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Task.
    pub task: String,
    /// Row of the task's data, from 0.
    pub index: u64,
    /// The row's id.
    pub id: String,
    /// The question as asked, without the picture.
    pub question: String,
    /// The right answer.
    pub target: String,
    /// What the question is about, where its row says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The greedy answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greedy: Option<Answer>,
    /// Answers at temperature 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sampled: Vec<Answer>,
    /// What the task makes of them.
    #[serde(default, skip_serializing_if = "Metrics::is_empty")]
    pub metrics: Metrics,
}

/// One answer and its verdict; the names are the reward's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The text the model wrote.
    pub response: String,
    /// Its length in tokens; 0 where it was recorded without them.
    pub response_length: usize,
    /// `stop` or `length`; `recorded` for answers that were recorded before.
    pub finish_reason: String,
    /// Composite reward.
    pub score: f64,
    /// 1 when the answer is right.
    pub acc_score: f64,
    /// 1 when the format is kept.
    pub format_reward_score: f64,
    /// What was taken as the answer.
    pub predict_str: String,
    /// Why it was judged so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// The judge's word: a number, or "unjudged"; absent where it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Ruling>,
}

impl Answer {
    /// Accuracy by the rules alone: the judge is asked only where they say no.
    pub fn rule_acc(&self) -> f64 {
        if self.judge.is_some() { 0.0 } else { self.acc_score }
    }

    fn mark(&self, rules_alone: bool) -> Mark<'_> {
        let acc = if rules_alone { self.rule_acc() } else { self.acc_score };
        Mark { acc, format: self.format_reward_score, predict_str: &self.predict_str }
    }
}

impl Sample {
    /// A task's question without answers.
    pub fn of(task: &str, index: u64, row: &Row) -> Sample {
        Sample {
            task: task.to_owned(),
            index,
            id: row.id.clone(),
            question: row.question(),
            target: row.ground_truth.clone().unwrap_or_default(),
            subject: SUBJECTS.iter().find_map(|name| Some(row.extra.get(*name)?.as_str()?.to_owned())),
            ..Sample::default()
        }
    }

    /// Share of right answers at temperature 1; `None` when none was sampled.
    pub fn acc_t1(&self) -> Option<f64> {
        let n = self.sampled.len();
        (n > 0).then(|| self.sampled.iter().map(|answer| answer.acc_score).sum::<f64>() / n as f64)
    }

    /// 1 when the greedy answer is right; `None` when none was asked for.
    pub fn acc(&self) -> Option<f64> {
        self.greedy.as_ref().map(|answer| answer.acc_score)
    }

    /// What the task's metrics are made of; with `rules_alone`, as if no judge had been asked.
    pub fn marks(&self, rules_alone: bool) -> Marks<'_> {
        Marks {
            greedy: self.greedy.as_ref().map(|answer| answer.mark(rules_alone)),
            sampled: self.sampled.iter().map(|answer| answer.mark(rules_alone)).collect(),
        }
    }

    /// All answers.
    pub fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.greedy.iter().chain(&self.sampled)
    }

    /// Its line in the file.
    pub fn line(&self) -> Result<String> {
        let line = serde_json::to_string(self).map_err(|error| Error::Failed(format!("samples.jsonl: {error}")))?;
        Ok(line + "\n")
    }
}

/// Reads a file of [`Sample::line`]s.
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    let file = files::open(path).map_err(Error::io(path))?;
    let mut samples = Vec::new();
    for (i, line) in BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io(path))?;
        if !line.trim().is_empty() {
            let sample = serde_json::from_str(&line);
            samples.push(sample.map_err(|error| Error::format(path, format!("line {}: {error}", i + 1)))?);
        }
    }
    Ok(samples)
}

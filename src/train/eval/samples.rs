//! `samples.jsonl`: one line per evaluated question, with all its answers and verdicts.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use omr_base::error::{Error, Result};
use omr_data::reward::judge::Ruling;
use omr_data::rows::Row;
use omr_data::rows::readers::json::jsonl;
use omr_data::task::hub::CLUSTER;
use omr_data::task::{Mark, Marks, Metrics, Observation};

/// Names of the columns that may contain the subject of a question.
const SUBJECTS: [&str; 4] = ["subject", "category", "skill", "kind"];

/// One question and its answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Name of the task.
    pub task: String,
    /// Index of the row in the task's data, from 0.
    pub index: u64,
    /// Id of the row.
    pub id: String,
    /// Text of the question, without images.
    pub question: String,
    /// Correct answer.
    pub target: String,
    /// Subject of the question, if its row contains one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Names shared by questions that depend on the same things, such as images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clusters: Vec<String>,
    /// Greedy answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greedy: Option<Answer>,
    /// Answers at temperature 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sampled: Vec<Answer>,
    /// Metrics that the task computes from the answers.
    #[serde(default, skip_serializing_if = "Metrics::is_empty")]
    pub metrics: Metrics,
}

/// One answer and its verdict. The field names are those of the reward.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Text of the assistant's turn before the response, such as the `<think>` of a chat template.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub opened: String,
    /// Text that the model generated.
    pub response: String,
    /// Number of tokens of the text, or 0 if it was recorded without tokens.
    pub response_length: usize,
    /// `stop` or `length`, or `recorded` for answers that were recorded before.
    pub finish_reason: String,
    /// Composite reward; null if the answer has no score.
    pub score: Option<f64>,
    /// 1 if the answer is correct, 0 if it has no score.
    pub acc_score: f64,
    /// 1 if the format is correct.
    pub format_reward_score: f64,
    /// Answer that was extracted from the response.
    pub predict_str: String,
    /// Reason of the verdict.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Ruling of the judge: a number or "unjudged". Absent if the judge was not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<Ruling>,
}

impl Answer {
    fn mark(&self, rules_alone: bool) -> Mark<'_> {
        // The judge is used only for answers that the rules reject.
        let acc = if rules_alone && self.judge.is_some() { 0.0 } else { self.acc_score };
        Mark { acc, format: self.format_reward_score, predict_str: &self.predict_str }
    }
}

/// Returns the clusters that a row names: one, or a list. Parquet files of omr contain a list as JSON text.
fn clusters(row: &Row) -> Vec<String> {
    let list = |value: &Value| serde_json::from_value::<Vec<String>>(value.clone()).ok();
    match row.extra.get(CLUSTER) {
        Some(Value::String(text)) => serde_json::from_str(text).unwrap_or_else(|_| vec![text.clone()]),
        other => other.and_then(list).unwrap_or_default(),
    }
}

/// Returns a value of each sample, or `None` if a sample lacks it or if there are no samples.
pub fn observations(samples: &[Sample], pick: impl Fn(&Sample) -> Option<f64>) -> Option<Vec<Observation>> {
    let of = |sample: &Sample| Some(Observation { value: pick(sample)?, clusters: sample.clusters.clone() });
    samples.iter().map(of).collect::<Option<Vec<Observation>>>().filter(|values| !values.is_empty())
}

impl Sample {
    /// Makes a sample of a question without answers.
    pub fn of(task: &str, index: u64, row: &Row) -> Sample {
        Sample {
            task: task.to_owned(),
            index,
            id: row.id.clone(),
            question: row.question(),
            target: row.ground_truth.clone().unwrap_or_default(),
            clusters: clusters(row),
            subject: SUBJECTS.iter().find_map(|name| Some(row.extra.get(*name)?.as_str()?.to_owned())),
            ..Sample::default()
        }
    }

    /// Returns the share of correct answers at temperature 1, or `None` if none was sampled.
    pub fn acc_t1(&self) -> Option<f64> {
        let n = self.sampled.len();
        (n > 0).then(|| self.sampled.iter().map(|answer| answer.acc_score).sum::<f64>() / n as f64)
    }

    /// Returns 1 if the greedy answer is correct, or `None` if there is none.
    pub fn acc(&self) -> Option<f64> {
        self.greedy.as_ref().map(|answer| answer.acc_score)
    }

    /// Returns the scores that the task's metrics are computed from. With `rules_alone`, the judge's rulings are
    /// ignored.
    pub fn marks(&self, rules_alone: bool) -> Marks<'_> {
        Marks {
            greedy: self.greedy.as_ref().map(|answer| answer.mark(rules_alone)),
            sampled: self.sampled.iter().map(|answer| answer.mark(rules_alone)).collect(),
        }
    }

    /// Returns all answers.
    pub fn answers(&self) -> impl Iterator<Item = &Answer> {
        self.greedy.iter().chain(&self.sampled)
    }

    /// Formats the sample as a line of the file.
    pub fn line(&self) -> Result<String> {
        let line = serde_json::to_string(self).map_err(|error| Error::Failed(format!("samples.jsonl: {error}")))?;
        Ok(line + "\n")
    }
}

/// Reads a file with lines of [`Sample::line`].
pub fn read(path: &Path) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    jsonl(path, usize::MAX, |at, fields| {
        let sample = serde_json::from_value(fields?.into());
        samples.push(sample.map_err(|error| Error::format(path, format!("line {}: {error}", at.number)))?);
        Ok(())
    })?;
    Ok(samples)
}

//! Scores of the answers to a question.

use serde_json::{Map, Value};

use super::crash::PublishedResult;
use crate::rows::Row;
use omr_base::config::Mode;

/// Metrics by name.
pub type Metrics = Map<String, Value>;

/// Score of one answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark<'a> {
    /// 1 if the answer is correct.
    pub acc: f64,
    /// Score of the format.
    pub format: f64,
    /// Answer that was extracted from the response.
    pub predict_str: &'a str,
}

/// Scores of all answers to one question.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks<'a> {
    /// Score of the greedy answer, if there is one.
    pub greedy: Option<Mark<'a>>,
    /// Scores of the sampled answers.
    pub sampled: Vec<Mark<'a>>,
}

impl Marks<'_> {
    /// Returns all scores, the greedy one first.
    pub fn all(&self) -> impl Iterator<Item = &Mark<'_>> {
        self.greedy.iter().chain(&self.sampled)
    }

    /// Computes the accuracy of the greedy answer, the share of correct answers at temperature 1, and the format score.
    /// The format score is the mean over the answers at temperature 1. If no answer was sampled, it is the format score
    /// of the greedy answer.
    pub(super) fn as_configured(_: &Row, marks: &Marks, _: Mode) -> PublishedResult<Metrics> {
        let mean = |pick: fn(&Mark) -> f64| {
            let n = marks.sampled.len();
            (n > 0).then(|| marks.sampled.iter().map(pick).sum::<f64>() / n as f64)
        };
        let format = mean(|mark| mark.format).or(marks.greedy.map(|mark| mark.format));
        let all =
            [("acc_score", marks.greedy.map(|m| m.acc)), ("acc_score_t1", mean(|m| m.acc)), ("format_score", format)];
        Ok(all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect())
    }
}

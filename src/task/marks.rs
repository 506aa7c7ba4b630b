//! Scores of the answers to a question.

use serde_json::{Map, Value};

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
}

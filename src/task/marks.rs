//! What answers came to.

use serde_json::{Map, Value};

/// Metrics by their names.
pub type Metrics = Map<String, Value>;

/// What an answer came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark<'a> {
    /// 1 when it is right.
    pub acc: f64,
    /// How well it keeps to the format.
    pub format: f64,
    /// What was taken as the answer.
    pub predict_str: &'a str,
}

/// The marks of one question's answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks<'a> {
    /// Of the greedy answer, where there is one.
    pub greedy: Option<Mark<'a>>,
    /// Of the sampled ones.
    pub sampled: Vec<Mark<'a>>,
}

impl Marks<'_> {
    /// All of them, the greedy one first.
    pub fn all(&self) -> impl Iterator<Item = &Mark<'_>> {
        self.greedy.iter().chain(&self.sampled)
    }
}

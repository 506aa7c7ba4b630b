//! Rewards: the verifier's rules, a judge or a reward process of one's own, and the score they make with the format.

pub mod judge;
pub mod process;
pub mod scorer;

pub use crate::config::Rubric;
pub use judge::Judged;
pub use omr_verify::Mode;
pub use scorer::Scorer;

use std::collections::BTreeMap;

use omr_verify::{Grade, extract, grade};
use serde_json::{Map, Value};

use crate::error::Result;

/// A response to be scored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Item {
    /// The response.
    pub response: String,
    /// The right answer.
    pub ground_truth: String,
    /// The question, where it is known.
    pub question: Option<String>,
    /// Where the row came from, for a reward of one's own; empty where that is not known.
    pub data_source: String,
    /// What else the row carries, for a reward of one's own.
    pub extra_info: Map<String, Value>,
    /// File and row, or line: errors name it.
    pub place: String,
}

/// Takes a score once it is there, on whatever thread that happens; dropped uncalled when the work is given up.
pub type OnScored = Box<dyn FnOnce(Result<Judged>) + Send>;

/// A response's reward and how it came about.
#[derive(Clone, PartialEq, Debug)]
pub struct Score {
    /// [`composite`] of the two below.
    pub score: f64,
    /// 1 when the answer is right, else 0.
    pub acc_score: f64,
    /// How well the response keeps to the format.
    pub format_reward_score: f64,
    /// The answer as it was found in the response; empty when none was.
    pub predict_str: String,
    /// Which rule decided about the answer.
    pub why: &'static str,
    /// Numbers that a reward of one's own gave besides, by their names.
    pub further: BTreeMap<String, f64>,
}

/// `(1 - format_weight) x acc + format_weight x format`.
pub fn composite(acc: f64, format: f64, format_weight: f64) -> f64 {
    (1.0 - format_weight) * acc + format_weight * format
}

/// Scores a response by the rules alone. In strict mode the question matters where it lists options. Never panics,
/// whatever the texts.
pub fn score(response: &str, ground_truth: &str, question: Option<&str>, rubric: impl Into<Rubric>) -> Score {
    let Rubric { mode, format, format_weight } = rubric.into();
    let format_reward_score = extract::format_score(response, mode, format);
    let Grade { correct, answer, why } = grade(response, ground_truth, question, mode);
    let acc_score = f64::from(correct);
    let score = composite(acc_score, format_reward_score, format_weight);
    Score { score, acc_score, format_reward_score, predict_str: answer.into_owned(), why, further: BTreeMap::new() }
}

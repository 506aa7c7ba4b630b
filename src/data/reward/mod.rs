//! Rewards: scores responses with the rules of the verifier, optionally with a judge, or with a custom reward process.
//! A score combines the accuracy with the format reward.

pub mod judge;
pub mod process;
pub mod scorer;
pub mod shares;
pub mod typed;

pub use judge::Judged;
pub use omr_base::config::Rubric;
pub use omr_verify::Mode;
pub use scorer::Scorer;
pub use shares::Shares;

use std::borrow::Cow;
use std::collections::BTreeMap;

use omr_verify::{Grade, extract, grade, grade_flexible};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use omr_base::error::Result;

/// Key of `extra_info` with further right answers: a list, or a list as JSON text, as parquet files of omr contain it.
pub const RIGHT_ANSWERS: &str = "right_answers";

/// Labels that the rules can use, for errors.
pub const PLAIN_LABEL: &str =
    "a string, a number, or a list with exactly one; for several right answers, set `columns: {answers: NAME}`";

/// A response to be scored.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Item {
    /// Text of the response: the sampled tokens.
    pub response: String,
    /// Text of the assistant's turn before the response, such as the `<think>` of a chat template.
    #[serde(default)]
    pub opened: String,
    /// Label as text: of a list or a struct, its JSON.
    #[serde(skip)]
    pub ground_truth: String,
    /// Label as a reward program receives it, if it is a list or a struct; otherwise null.
    #[serde(rename = "ground_truth", deserialize_with = "given")]
    pub label: Value,
    /// Question, if it is known.
    pub question: Option<String>,
    /// Source of the row, for a custom reward; empty if it is not known.
    #[serde(default)]
    pub data_source: String,
    /// Other fields of the row, for a custom reward.
    #[serde(default)]
    pub extra_info: Map<String, Value>,
    /// Columns of the row with their names and values in the file, for a custom reward. Images are left out.
    #[serde(default)]
    pub columns: Map<String, Value>,
    /// File and row, or line, for error messages.
    #[serde(skip)]
    pub place: String,
}

impl Item {
    /// Returns an item that was read from JSON with its label as text.
    pub fn labelled(self) -> Item {
        let ground_truth = self.label.as_str().map_or_else(|| self.label.to_string(), str::to_owned);
        let label = if self.label.is_object() || self.label.is_array() { self.label } else { Value::Null };
        Item { ground_truth, label, ..self }
    }

    /// Returns the text that the rules score: in strict mode, the response behind what stands before it in its turn.
    pub fn text(&self, mode: Mode) -> Cow<'_, str> {
        if mode == Mode::Strict { extract::turn(&self.opened, &self.response) } else { Cow::Borrowed(&self.response) }
    }

    /// Returns the right answers: the label, then those of [`RIGHT_ANSWERS`] that differ from it.
    pub fn right_answers(&self) -> Vec<String> {
        let further: Option<Vec<String>> = match self.extra_info.get(RIGHT_ANSWERS) {
            Some(Value::String(text)) => serde_json::from_str(text).ok(),
            other => other.and_then(|list| serde_json::from_value(list.clone()).ok()),
        };
        let further = further.unwrap_or_default().into_iter().filter(|answer| *answer != self.ground_truth);
        std::iter::once(self.ground_truth.clone()).chain(further).collect()
    }
}

/// Deserializes any value but null.
fn given<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<Value, D::Error> {
    let value = Value::deserialize(value)?;
    if value.is_null() { Err(D::Error::custom("null, expected a label")) } else { Ok(value) }
}

/// Deserializes a text, or a number as text, because labels in files of other programs are often numbers.
pub fn text<'de, D: Deserializer<'de>>(value: D) -> std::result::Result<String, D::Error> {
    match Value::deserialize(value)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(D::Error::custom(format!("{other}, expected a string or a number"))),
    }
}

/// Callback that receives a score, on any thread. It is dropped without a call if the work is abandoned.
pub type OnScored = Box<dyn FnOnce(Result<Judged>) + Send>;

/// Reward of a response and its parts.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Score {
    /// Combined score: [`composite`] of `acc_score` and `format_reward_score`. `None` if the response has no score: a
    /// reward program gave none, or there is no usable reply of the judge that has to give it.
    pub score: Option<f64>,
    /// 1 if the answer is correct, otherwise 0; 0 without a score.
    pub acc_score: f64,
    /// Degree to which the response follows the format.
    pub format_reward_score: f64,
    /// Answer extracted from the response; empty if none was found.
    pub predict_str: String,
    /// Rule that decided about the answer.
    #[serde(default)]
    pub why: Cow<'static, str>,
    /// Additional numbers returned by a custom reward, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub further: BTreeMap<String, f64>,
}

impl Score {
    /// Returns the accuracy, unless the response has no score.
    pub fn accuracy(&self) -> Option<f64> {
        self.score.map(|_| self.acc_score)
    }
}

/// Returns `(1 - format_weight) x acc + format_weight x format`.
pub fn composite(acc: f64, format: f64, format_weight: f64) -> f64 {
    (1.0 - format_weight) * acc + format_weight * format
}

/// Scores a response with the rules only. In strict mode the question matters if it lists options. Never panics, for
/// any texts.
pub fn score(response: &str, ground_truth: &str, question: Option<&str>, rubric: impl Into<Rubric>) -> Score {
    let Rubric { mode, format, format_weight, flexible_extract, .. } = rubric.into();
    let format_reward_score = extract::format_score(response, mode, format);
    let grade = if flexible_extract { grade_flexible } else { grade };
    let Grade { correct, answer, why } = grade(response, ground_truth, question, mode);
    let acc_score = f64::from(correct);
    let score = Some(composite(acc_score, format_reward_score, format_weight));
    let (predict_str, why) = (answer.into_owned(), Cow::Borrowed(why));
    Score { score, acc_score, format_reward_score, predict_str, why, further: BTreeMap::new() }
}

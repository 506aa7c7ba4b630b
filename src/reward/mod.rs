//! Rewards: answer extraction, mathematical equality, choices, format.
//!
//! `compat` follows the published scorer, flaws included; `strict` is the default and does what was meant.

pub mod choice;
pub mod compat;
pub mod extract;
pub mod judge;
pub mod lexicon;
mod locate;
mod normalise;
mod number_words;
pub mod process;
pub mod python;
pub mod question;
pub mod scorer;
pub mod steps;
pub mod value;
mod verify;
mod words;

pub use crate::config::{Format, Mode, Rubric};
pub use judge::Judged;
pub use scorer::Scorer;
pub use steps::Verdict;
pub use verify::verify;

use std::collections::BTreeMap;

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

/// Scores a response by rule alone. The question matters in strict where it lists options. Never panics, whatever the
/// texts.
pub fn score(response: &str, ground_truth: &str, question: Option<&str>, rubric: impl Into<Rubric>) -> Score {
    let rubric = rubric.into();
    let format_reward_score = extract::format_score(response, rubric);
    let (predict, path) = extract::predict_str(response, rubric.mode);
    let gold = extract::simple_parse(ground_truth);
    let (right, why) = match rubric.mode {
        Mode::Compat if compat::mcq::relaxed_match(&predict, gold) => {
            (true, if compat::mcq::LETTERS.contains(&gold) { "mcq" } else { "relaxed" })
        }
        Mode::Compat => (verify(gold, &predict, Mode::Compat).equal, "math_verify"),
        // An empty answer is no answer, whatever the gold.
        Mode::Strict if path == extract::Path::None || predict.is_empty() => (false, "no answer"),
        Mode::Strict => question.and_then(|q| by_option(gold, &predict, q)).unwrap_or_else(|| {
            let verdict = verify(gold, &predict, Mode::Strict);
            (verdict.equal, verdict.why)
        }),
    };
    let why = if right || rubric.mode == Mode::Strict { why } else { "none" };
    let acc_score = f64::from(right);
    let score = composite(acc_score, format_reward_score, rubric.format_weight);
    Score { score, acc_score, format_reward_score, predict_str: predict.into_owned(), why, further: BTreeMap::new() }
}

/// Where one of both is the letter of an option that the question lists, and the other the text of exactly one of
/// them: whether it is the same option.
fn by_option(gold: &str, answer: &str, question: &str) -> Option<(bool, &'static str)> {
    let (letter, text) = match (choice::letter(gold), choice::letter(answer)) {
        (Some(letter), None) if choice::named_letter(answer).is_none() => (letter, answer),
        (None, Some(letter)) => (letter, gold),
        _ => return None,
    };
    let options = question::options(question);
    if !options.iter().any(|o| o.0 == letter) {
        return None;
    }
    let mut named = options.iter().filter(|o| verify(o.1, text, Mode::Strict).equal).map(|o| o.0);
    let one = named.next().filter(|_| named.next().is_none())?;
    Some((one == letter, if one == letter { "the option's text" } else { "another option's text" }))
}

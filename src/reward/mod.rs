//! Rewards: answer extraction, mathematical equality, choices, format.
//!
//! `compat` follows the published scorer, flaws included; `strict` is the default and does what was meant.

mod answer;
mod chemistry;
pub mod choice;
mod code;
mod comparative;
mod compare;
mod compat;
mod contradiction;
pub mod extract;
mod fields;
pub mod judge;
mod labels;
mod layout;
pub mod lexicon;
mod locate;
mod markup;
pub mod math;
mod options;
pub mod process;
mod prose;
pub mod python;
mod ranks;
mod remarks;
pub mod scorer;
mod substances;
mod tabular;
mod tail;
mod verify;
pub mod words;

pub use crate::config::Mode;
pub use judge::Judged;
pub use scorer::{Item, OnScored, Scorer};
pub use verify::{Verdict, verify};

/// Weight of the format in a score.
pub const FORMAT_WEIGHT: f64 = 0.1;

/// A response's reward and how it came about.
#[derive(Clone, PartialEq, Debug)]
pub struct Score {
    /// `0.9 acc_score + 0.1 format_reward_score`.
    pub score: f64,
    /// 1 when the answer is right, else 0.
    pub acc_score: f64,
    /// How well the response keeps to the format.
    pub format_reward_score: f64,
    /// The answer as it was found in the response; empty when none was.
    pub predict_str: String,
    /// Which rule decided about the answer.
    pub why: &'static str,
}

/// `(1 - format_weight) x acc + format_weight x format`.
pub fn composite(acc: f64, format: f64, format_weight: f64) -> f64 {
    (1.0 - format_weight) * acc + format_weight * format
}

/// Scores a response by rule alone. Never panics, whatever the texts.
pub fn score(response: &str, ground_truth: &str, _question: Option<&str>, mode: Mode) -> Score {
    let format_reward_score = extract::format_score(response, mode);
    let (predict, path) = extract::predict_str(response, mode);
    let gold = extract::simple_parse(ground_truth);
    let (right, why) = match mode {
        Mode::Compat if choice::relaxed_match(predict, gold) => {
            (true, if choice::LETTERS.contains(&gold) { "mcq" } else { "relaxed" })
        }
        Mode::Compat => (verify(gold, predict, mode).equal, "math_verify"),
        // An empty answer is no answer, whatever the gold.
        Mode::Strict if path == extract::Path::None || predict.is_empty() => (false, "no answer"),
        Mode::Strict => {
            let verdict = verify(gold, predict, mode);
            (verdict.equal, verdict.why)
        }
    };
    let why = if right || mode == Mode::Strict { why } else { "none" };
    let acc_score = f64::from(right);
    let score = composite(acc_score, format_reward_score, FORMAT_WEIGHT);
    Score { score, acc_score, format_reward_score, predict_str: predict.to_owned(), why }
}

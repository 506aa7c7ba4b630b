//! The judge's score from 1 to 10 of a response to a row with the reward type `llm_judge`.

use std::sync::LazyLock;

use omr_verify::Mode;
use regex::Regex;
use serde_json::Value;

use super::{Judged, Reply, Ruling, start};
use crate::reward::{Score, composite};
use omr_base::config::Rubric;

/// A JSON object.
static OBJECT: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)\{.*\}"));
/// A value that JSON does not have and Python's reader accepts.
static NOT_FINITE: LazyLock<Regex> = LazyLock::new(|| pattern(r"([:\[,]\s*)(NaN|-?Infinity)\b"));
/// A named score, as Vero searches for it.
static NAMED: LazyLock<Regex> = LazyLock::new(|| pattern(r#"(?i)"?SCORE"?\s*:\s*"?([0-9]+(?:\.[0-9]+)?)"?"#));
/// The first number from 1 to 10 in a text, as Vero reads it.
static FIRST: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b(10|[1-9])(?:\.\d+)?\b"));
/// A text that consists of a score.
static ALONE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i)^[\s*"]*(?:score[\s*":=]*)?([0-9]+(?:\.[0-9]+)?)(?:\s*/\s*10)?[\s*".]*$"#));

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

/// Returns the score in a reply. In strict mode it stands alone or in `SCORE` of a JSON object, and is a number from 1 to
/// 10. In compat mode it is what Vero reads, which may be any number.
pub fn of(reply: &str, mode: Mode) -> Option<f64> {
    let captured = |regex: &Regex, text: &str| regex.captures(text)?[1].parse::<f64>().ok();
    let number = |value: &Value| match (value, mode) {
        (Value::Number(number), _) => number.as_f64(),
        (Value::Bool(value), Mode::Compat) => Some(f64::from(u8::from(*value))),
        (Value::String(text), Mode::Compat) => text.trim().parse().ok(),
        (Value::String(text), Mode::Strict) => captured(&ALONE, text),
        _ => None,
    };
    let in_object = |text: &str| {
        let text = OBJECT.find(text)?.as_str();
        let parsed = serde_json::from_str::<Value>(text).or_else(|error| match mode {
            Mode::Strict => Err(error),
            Mode::Compat => serde_json::from_str(&NOT_FINITE.replace_all(text, r#"$1"$2""#)),
        });
        let object = parsed.ok()?;
        number(["SCORE", "score"].iter().find_map(|key| object.get(key).filter(|value| !value.is_null()))?)
    };
    match mode {
        Mode::Strict => {
            let text = reply.rsplit("</think>").next().unwrap_or(reply);
            in_object(text).or_else(|| captured(&ALONE, text)).filter(|score| (1.0..=10.0).contains(score))
        }
        Mode::Compat => in_object(reply).or_else(|| captured(&NAMED, reply)).or_else(|| captured(&FIRST, reply)),
    }
}

/// Returns a score from 1 to 10 as a number from 0 to 1. As in Vero, a NaN is 1.
pub fn scaled(score: f64) -> f64 {
    if score.is_nan() { 1.0 } else { (score.clamp(1.0, 10.0) - 1.0) / 9.0 }
}

/// Returns the score of the rules with the accuracy that the judge's reply gives. Without a score in the reply, the
/// response has no score and counts as unjudged.
pub fn judged(mut score: Score, reply: &Reply, rubric: Rubric) -> Judged {
    let ruling = match reply {
        Reply::Failed(what) => Ruling::Unjudged(what.clone()),
        Reply::Said(text) => match of(text, rubric.mode) {
            None => Ruling::Unjudged(format!("the judge replied {:?}", start(text))),
            Some(given) => {
                score.acc_score = scaled(given);
                score.score = Some(composite(score.acc_score, score.format_reward_score, rubric.format_weight));
                Ruling::Said(i64::from(score.acc_score > 0.5))
            }
        },
    };
    Judged { score, judge: Some(ruling), calls: 1 }
}

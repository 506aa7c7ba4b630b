//! Whether an answer says the same as the gold answer.

use crate::config::Mode;

use super::answer::{MAX_ANSWER, bare, locate};
use super::math::{self, BUDGET, Steps, Value};
use super::{choice, compat};

/// The verifier's word.
#[derive(Clone, PartialEq, Debug)]
pub struct Verdict {
    /// Whether they are equal.
    pub equal: bool,
    /// The gold answer as it was understood.
    pub gold_parsed: String,
    /// The answer as it was understood.
    pub answer_parsed: String,
    /// Which rule decided.
    pub why: &'static str,
    /// Steps of work that the comparison took; the same on every machine.
    pub steps: u64,
}

/// Compares an answer, bare or in a text, with the gold answer. Never panics and takes bounded time, whatever
/// the texts. `compat` gives the published scorer's equality.
pub fn verify(gold: &str, answer: &str, mode: Mode) -> Verdict {
    match mode {
        Mode::Strict => strict(gold, answer),
        Mode::Compat => compat::verify(gold, answer),
    }
}

fn strict(gold: &str, answer: &str) -> Verdict {
    let steps = Steps::new(BUDGET);
    let found = locate(answer, &steps);
    if gold.len() > MAX_ANSWER || found.len() > MAX_ANSWER {
        let equal = gold == found;
        let why = if equal { "same text" } else { "too long to be an answer" };
        let shown = |t: &str| t.chars().take(200).collect();
        return Verdict { equal, gold_parsed: shown(gold), answer_parsed: shown(found), why, steps: steps.taken() };
    }
    let (gold_text, answer_text) = (bare(gold), bare(found));
    let (equal, why) = compare(&gold_text, &answer_text, &steps);
    Verdict { equal, gold_parsed: gold_text, answer_parsed: answer_text, why, steps: steps.taken() }
}

fn compare(gold: &str, answer: &str, steps: &Steps) -> (bool, &'static str) {
    if gold.is_empty() || answer.is_empty() {
        let same = gold == answer;
        return (same, if same { "both empty" } else { "no answer" });
    }
    if gold == answer {
        return (true, "same text");
    }
    if let Some(letter) = choice::letter(gold) {
        return match choice::named_letter(answer) {
            Some(named) => (named == letter, if named == letter { "same choice" } else { "another choice" }),
            None => (false, "no choice named"),
        };
    }
    let compact = |t: &str| t.split_whitespace().collect::<String>();
    if gold.contains('\\') && compact(gold) == compact(answer) {
        return (true, "same notation");
    }
    let (gold_value, answer_value) = (math::parse(gold, true, steps), math::parse(answer, true, steps));
    let comparison = math::equal(&gold_value, &answer_value, steps);
    if comparison.equal {
        return (true, comparison.why);
    }
    // Words that happen to read as mathematics: "No", "red".
    let words = math::words(gold);
    let wordy = words.chars().any(char::is_alphabetic) && is_wordy(&gold_value) && !gold.contains('\\');
    if wordy && words == math::words(answer) {
        return (true, "equal words");
    }
    if let Some(why) = other_readings(gold, &gold_value, answer, &answer_value, steps) {
        return (true, why);
    }
    if steps.exhausted() {
        return (false, "too much work to compare");
    }
    (false, comparison.why)
}

/// Commas between groups of three digits may part members, and a comma between digits may be a decimal point.
fn other_readings(
    gold: &str,
    gold_value: &Value,
    answer: &str,
    answer_value: &Value,
    steps: &Steps,
) -> Option<&'static str> {
    let is_list = |v: &Value| matches!(v, Value::List(_) | Value::Set(_) | Value::Tuple(_));
    if gold.contains(',') && is_list(answer_value) {
        let value = math::parse(gold, false, steps);
        if is_list(&value) && math::equal(&value, answer_value, steps).equal {
            return Some("equal members");
        }
    }
    if answer.contains(',') && is_list(gold_value) {
        let value = math::parse(answer, false, steps);
        if is_list(&value) && math::equal(gold_value, &value, steps).equal {
            return Some("equal members");
        }
    }
    let european = |t: &str| {
        let (whole, fraction) = t.strip_prefix('-').unwrap_or(t).split_once(',')?;
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        (digits(whole) && digits(fraction) && fraction.len() != 3).then(|| t.replace(',', "."))
    };
    if let Some(text) = european(answer)
        && math::equal(gold_value, &math::parse(&text, true, steps), steps).equal
    {
        return Some("equal with a decimal comma");
    }
    if let Some(text) = european(gold)
        && math::equal(&math::parse(&text, true, steps), answer_value, steps).equal
    {
        return Some("equal with a decimal comma");
    }
    None
}

/// True when nothing but letters was read: `No` is the product of N and o, too.
fn is_wordy(value: &Value) -> bool {
    match value {
        Value::Text(_) => true,
        Value::Scalar(e, _) => !e.has_numbers(),
        _ => false,
    }
}

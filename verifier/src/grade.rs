//! A complete response held against the right answer.

use std::borrow::Cow;

use crate::{Mode, choice, compat, extract, question, verify};

/// What a response's answer is and whether it is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Grade<'a> {
    /// True when the answer is right.
    pub correct: bool,
    /// The answer as it was found in the response; empty when none was found.
    pub answer: Cow<'a, str>,
    /// Name of the rule that decided.
    pub why: &'static str,
}

/// Finds the answer in `response` and compares it with `ground_truth`. In strict mode an answer may be the text of one of
/// the options that `question` lists, or its letter. Never panics and takes bounded time, whatever the texts.
pub fn grade<'a>(response: &'a str, ground_truth: &str, question: Option<&str>, mode: Mode) -> Grade<'a> {
    let (answer, path) = extract::predict_str(response, mode);
    let gold = extract::simple_parse(ground_truth);
    let (correct, why) = match mode {
        Mode::Compat if compat::mcq::relaxed_match(&answer, gold) => {
            (true, if compat::mcq::LETTERS.contains(&gold) { "mcq" } else { "relaxed" })
        }
        Mode::Compat => (verify(gold, &answer, Mode::Compat).equal, "math_verify"),
        // An empty answer is no answer, whatever the gold.
        Mode::Strict if path == extract::Path::None || answer.is_empty() => (false, "no answer"),
        Mode::Strict => question.and_then(|q| by_option(gold, &answer, q)).unwrap_or_else(|| {
            let verdict = verify(gold, &answer, Mode::Strict);
            (verdict.equal, verdict.why)
        }),
    };
    let why = if correct || mode == Mode::Strict { why } else { "none" };
    Grade { correct, answer, why }
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

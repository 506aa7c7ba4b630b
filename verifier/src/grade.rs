//! Grades a complete response against the right answer.

use std::borrow::Cow;

use crate::{Mode, choice, compat, extract, question, verify};

/// Result of grading one response: the answer that was found and whether it is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Grade<'a> {
    /// True if the answer is right.
    pub correct: bool,
    /// The answer as found in the response. Empty if none was found.
    pub answer: Cow<'a, str>,
    /// Name of the rule that decided.
    pub why: &'static str,
}

/// Finds the answer in `response` and compares it with `ground_truth`. In strict mode an answer that is an option's
/// text is compared with the letter of that option, and the reverse; `question` lists the options. Never panics and
/// takes bounded time for every input.
pub fn grade<'a>(response: &'a str, ground_truth: &str, question: Option<&str>, mode: Mode) -> Grade<'a> {
    let (answer, path) = extract::predict_str(response, mode);
    let gold = extract::simple_parse(ground_truth);
    let (correct, why) = match mode {
        Mode::Compat if compat::mcq::relaxed_match(&answer, gold) => {
            (true, if compat::mcq::LETTERS.contains(&gold) { "mcq" } else { "relaxed" })
        }
        Mode::Compat => (verify(gold, &answer, Mode::Compat).equal, "math_verify"),
        // An empty answer counts as no answer, even if the gold answer is empty, too.
        Mode::Strict if path == extract::Path::None || answer.is_empty() => (false, "no answer"),
        Mode::Strict => question.and_then(|q| by_option(gold, &answer, q)).unwrap_or_else(|| {
            let verdict = verify(gold, &answer, Mode::Strict);
            (verdict.equal, verdict.why)
        }),
    };
    let why = if correct || mode == Mode::Strict { why } else { "none" };
    Grade { correct, answer, why }
}

/// Handles the case in which one answer is the letter of an option in the question and the other is the text of exactly
/// one option. Returns whether both name the same option, with the reason, or `None` if the case does not apply.
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

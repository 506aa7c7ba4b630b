//! Grades a complete response against the right answer.

use std::borrow::Cow;

use crate::extract::{self, Path};
use crate::lexicon::{self, Kind};
use crate::{Mode, choice, compat, locate, python, question, verify};

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

/// Reason of a response in which no answer was found.
pub const NO_ANSWER: &str = "no answer";

/// Finds the answer in `response` and compares it with `ground_truth`. In strict mode a response without a tag or a box
/// is also right if all of it equals the right answer, and an answer that is an option's text is compared with the
/// letter of that option, and the reverse; `question` lists the options. Never panics and takes bounded time for every
/// input.
pub fn grade<'a>(response: &'a str, ground_truth: &str, question: Option<&str>, mode: Mode) -> Grade<'a> {
    let (answer, path) = extract::predict_str(response, mode);
    let gold = extract::simple_parse(ground_truth);
    let solved = if mode == Mode::Strict { verify::solved(gold) } else { gold.into() };
    let gold = &*solved;
    let options = question.map(question::options).unwrap_or_default();
    let read = |answer: &str| {
        let boxed = locate::boxes(answer);
        by_option(gold, boxed.as_deref().unwrap_or(answer), &options).unwrap_or_else(|| {
            let verdict = verify::strict(gold, answer, question.filter(|_| options.is_empty()));
            (verdict.equal, verdict.why)
        })
    };
    let (correct, why) = match mode {
        Mode::Compat if compat::mcq::relaxed_match(&answer, gold) => {
            (true, if compat::mcq::LETTERS.contains(&gold) { "mcq" } else { "relaxed" })
        }
        Mode::Compat if compat::verify(gold, &answer).equal => (true, "math_verify"),
        Mode::Compat => (false, "none"),
        // An empty answer counts as no answer, even if the gold answer is empty, too.
        Mode::Strict if path == Path::None || answer.is_empty() => (false, NO_ANSWER),
        Mode::Strict => read(&answer),
    };
    let whole = extract::simple_parse(python::strip(extract::without_thinking(response)));
    let words = |text: &str| text.split_whitespace().count();
    let longest = options.iter().map(|option| option.1).chain([gold]).map(words).max().unwrap_or(0);
    // "and 7" is not 7, although an answer in a tag may have such a word.
    let is_worded =
        whole.contains(' ') && whole.starts_with(char::is_alphabetic) && !gold.contains(char::is_alphabetic);
    let is_bare = matches!(path, Path::TrailingNumber | Path::None) && !is_worded;
    let is_short = (1..=longest + usize::from(whole.starts_with("The "))).contains(&words(whole));
    if mode == Mode::Strict && !correct && is_bare && is_short && read(&format!("\\boxed{{{whole}}}")).0 {
        return Grade { correct: true, answer: Cow::Borrowed(whole), why: "the complete response" };
    }
    Grade { correct, answer, why }
}

/// Grades like [`grade`]. In strict mode the last line of a response that marks no answer may also be the right answer.
pub fn grade_flexible<'a>(response: &'a str, ground_truth: &str, question: Option<&str>, mode: Mode) -> Grade<'a> {
    let graded = grade(response, ground_truth, question, mode);
    let is_marked = || matches!(extract::extract(response, mode).1, Path::AnswerTag | Path::Boxed);
    if mode != Mode::Strict || graded.correct || is_marked() {
        return graded;
    }
    let text = extract::strip_think(response, mode);
    let line = text.lines().last().unwrap_or_default();
    // "The answer is: sixty-four" says that it is the answer.
    let is_named = !lexicon::find(Kind::Marker, line).is_empty();
    let tagged = if is_named { Cow::Owned(format!("<answer>{line}</answer>")) } else { Cow::Borrowed(line) };
    let last = grade(&tagged, ground_truth, question, mode);
    if last.correct { Grade { answer: Cow::Owned(last.answer.into_owned()), ..last } } else { graded }
}

/// Handles the case in which one answer is the letter of an option in the question and the other is the text of exactly
/// one option, alone or behind a letter. Returns whether both name the same option, with the reason, or `None` if the
/// case does not apply.
fn by_option(gold: &str, answer: &str, options: &[(char, &str)]) -> Option<(bool, &'static str)> {
    let (letter, text) = match (choice::letter(gold), choice::letter(answer)) {
        (Some(letter), None) => match choice::labelled(answer) {
            Some((_, text)) => (letter, text),
            None if choice::named_letter(answer).is_none() => (letter, answer),
            None => return None,
        },
        (None, Some(letter)) => (letter, gold),
        _ => return None,
    };
    if !options.iter().any(|o| o.0 == letter) {
        return None;
    }
    let mut named = options.iter().filter(|o| verify(o.1, text, Mode::Strict).equal).map(|o| o.0);
    let one = named.next().filter(|_| named.next().is_none())?;
    Some((one == letter, if one == letter { "the option's text" } else { "another option's text" }))
}

//! Decides whether an answer equals the gold answer. The steps are: find the answer in its text, normalise the notation
//! of both answers, parse each of them once, and compare the two values by their kind.
//!
//! An answer is accepted only if all of it is understood. Text beside the value that is not understood leads to
//! rejection.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use crate::extract::outer_boxes;
use crate::locate::{MAX_ANSWER, bare, boxes, locate};
use crate::normalise::normalise;
use crate::steps::{BUDGET, Steps, Verdict};
use crate::value::comparison::{no, outcome, yes};
use crate::value::{self, Comparison, UNEVALUATED, Unit, Value};
use crate::{Mode, choice, compat, question, words};

/// Compares an answer with the gold answer. The answer may be the bare value or a text that contains it. Never panics
/// and takes bounded time for every input. `compat` gives the verdict of the published scorer.
pub fn verify(gold: &str, answer: &str, mode: Mode) -> Verdict {
    match mode {
        Mode::Strict => strict(&solved(gold), answer, None),
        Mode::Compat => compat::verify(gold, answer),
    }
}

/// Returns the answer of a label that is a complete solution: GSM8K's last line, or the last box if it is no part of a
/// formula. Returns other labels unchanged.
pub(crate) fn solved(label: &str) -> Cow<'_, str> {
    if let Some((_, last)) = label.rsplit_once("\n#### ") {
        return last.into();
    }
    let is_whole = |&(_, begin, end): &(&str, usize, usize)| {
        let before = label[..begin].trim_end_matches(|c: char| c.is_whitespace() || c == '$');
        let before = before.trim_end_matches("\\(").trim_end_matches("\\[").trim_end();
        let behind = label.get(end..).unwrap_or("?");
        let closes = ["$", "\\)", "\\]", "\n"].iter().any(|mark| behind.trim_start_matches(' ').starts_with(mark));
        (before.is_empty() || before.ends_with(|c: char| c.is_alphabetic() || ":=.,".contains(c)))
            && (closes || behind.trim_start().is_empty() || behind.trim_start().starts_with(['.', ',', ';']))
    };
    let is_solution = outer_boxes(label).last().is_some_and(is_whole);
    boxes(label).filter(|_| is_solution).unwrap_or(label.into())
}

/// Compares by the strict rules. An expression that stands in `question` is no answer if the gold answer is a number.
pub(crate) fn strict(gold: &str, answer: &str, question: Option<&str>) -> Verdict {
    let steps = Steps::new(BUDGET);
    let (gold, answer) = (&*chained(gold), &*chained(answer));
    let (gold, answer) = (&*normalise(gold), &*normalise(answer));
    let found = locate(answer, &steps);
    if gold.len() > MAX_ANSWER || found.text.len() > MAX_ANSWER {
        let equal = gold == found.text;
        let why = if equal { "same text" } else { "too long to be an answer" };
        let shown = |t: &str| t.chars().take(200).collect();
        let (gold_parsed, answer_parsed) = (shown(gold), shown(&found.text));
        return Verdict { equal, gold_parsed, answer_parsed, why, steps: steps.taken() };
    }
    let (gold_text, answer_text) = (bare(gold), bare(&found.text));
    let (clause, value) = (&*found.clause, found.value);
    let sides = Sides { gold: &gold_text, answer: &answer_text, value, clause, question, steps: &steps };
    let Comparison { equal, why } = sides.decide();
    // A calculation that also states its result is an answer: "18 = 17 + 1".
    let is_stated = || {
        let sides = [answer, &found.text].into_iter().flat_map(|text| text.split('='));
        sides.flat_map(|side| side.split(". ")).any(|text| bare(text) == gold_text)
    };
    let (equal, why) = if why == UNEVALUATED && is_stated() { (true, "equal numbers") } else { (equal, why) };
    // A full stop inside an answer ends no sentence if the label has it, too: "St. Louis".
    let (equal, why) = if !equal && bare(answer) == gold_text { (true, "same text") } else { (equal, why) };
    Verdict { equal, gold_parsed: gold_text, answer_parsed: answer_text, why, steps: steps.taken() }
}

/// The gold answer and the model's answer, both normalised and without enclosing marks.
struct Sides<'a> {
    gold: &'a str,
    answer: &'a str,
    /// Parsed value of the answer, if finding the answer already required parsing it.
    value: Option<Value>,
    /// The sentence or the mark in which the answer was found.
    clause: &'a str,
    /// The question, if it is known and lists no options.
    question: Option<&'a str>,
    steps: &'a Steps,
}

impl Sides<'_> {
    fn decide(&self) -> Comparison {
        if let Some(comparison) = self.polar().or_else(|| self.choice()) {
            return comparison;
        }
        let found = self.compare(self.gold);
        match words::doubt(self.gold, self.answer, self.clause) {
            Some(why) if found.equal => no(why),
            _ => found,
        }
    }

    /// Compares yes/no and true/false answers: the gold answer is one of these words, and the answer begins with one.
    fn polar(&self) -> Option<Comparison> {
        let gold = words::polar(self.gold)?;
        // "True" and "yes" answer the same question.
        let affirms = |word: &str| matches!(word, "yes" | "true");
        let whole = words::polar_answer(self.clause);
        if whole.is_none() && words::doubt(self.gold, self.answer, self.clause).is_some() {
            return Some(no("the text around the answer denies it"));
        }
        match words::polar_answer(self.answer).or(whole)? {
            Some(answer) => {
                Some(outcome(affirms(answer) == affirms(gold), "equal words", "yes or true is not no or false"))
            }
            None => Some(no("neither yes nor no")),
        }
    }

    /// Compares multiple-choice answers. The gold answer names one choice, several choices, or a choice with its text.
    fn choice(&self) -> Option<Comparison> {
        let verdict = |same: bool| Some(outcome(same, "same choice", "another choice"));
        if let Some(letter) = choice::letter(self.gold) {
            let named = choice::named_letter(self.answer).or_else(|| choice::named_letter(self.clause));
            return match named {
                Some(named) => verdict(named == letter),
                None => Some(no("no choice named")),
            };
        }
        if let (Some(a), Some(b)) = (choice::letters(self.gold), choice::letters(self.answer)) {
            // Separated letters may stand in any order. Letters without a separator form a word, so their order counts.
            let word = |t: &str| !t.contains(|c: char| !c.is_alphabetic());
            let sorted = |mut l: Vec<char>| {
                l.sort_unstable();
                l
            };
            let same = a == b || (!(word(self.gold) && word(self.answer)) && sorted(a) == sorted(b));
            return verdict(same);
        }
        if choice::letters(self.gold).is_some() && self.answer.contains(" or ") {
            return verdict(false);
        }
        // "F - mg" is a formula.
        let is_option = |_: &_| self.gold.get(1..4) != Some(" - ") && question::options(self.gold).is_empty();
        if let Some((letter, text)) = choice::labelled(self.gold).filter(is_option) {
            let named = choice::letter(self.answer).or_else(|| choice::labelled(self.answer).map(|l| l.0));
            return match named {
                Some(named) => verdict(named == letter),
                None if self.answer.is_empty() => None,
                None => Some(self.compare(&bare(text))),
            };
        }
        None
    }

    /// Compares the answer with the given gold answer as a value, as words, or as a formula.
    fn compare(&self, gold: &str) -> Comparison {
        let (answer, steps) = (self.answer, self.steps);
        if gold.is_empty() || answer.is_empty() {
            return outcome(gold == answer, "both empty", "no answer");
        }
        if gold == answer {
            return yes("same text");
        }
        if same_notation(gold, answer) {
            return yes("same notation");
        }
        if let Some(same) = same_roman(gold, answer) {
            return outcome(same, "the same Roman numeral", "different Roman numerals");
        }
        let mut x = value::parse(gold, true, steps);
        let mut y = self.value.clone().unwrap_or_else(|| value::parse(answer, true, steps));
        // "3 to 5" is a range, unless the text calls it a ratio.
        let ratio = |t: &str| t.split(|c: char| !c.is_alphabetic()).any(|w| matches!(w, "ratio" | "odds"));
        if ratio(gold) || ratio(self.clause) {
            (x, y) = (x.into_ratio(), y.into_ratio());
        }
        let comparison = value::equal(&x, &y, steps);
        if comparison.equal {
            let calculated = value::is_calculation(&x, &y, answer, self.question, steps);
            return if calculated { no(UNEVALUATED) } else { comparison };
        }
        // These are equal as words, although they parse as mathematics: "1st place" and "first place".
        if words::are_phrases(gold, answer) && words::same(gold, answer) {
            return yes("equal words");
        }
        if let (Some(a), Some(b)) = (words::formula(gold), words::formula(answer))
            && a == b
        {
            return yes("the same formula");
        }
        if let Some(why) = other_readings(gold, &x, answer, &y, steps) {
            return yes(why);
        }
        if steps.exhausted() { no("too much work to compare") } else { comparison }
    }
}

/// Returns true if the texts are equal without white space. White space between two numbers counts, because it
/// separates them.
fn same_notation(a: &str, b: &str) -> bool {
    let compact = |t: &str| t.split_whitespace().collect::<String>();
    let digit = |c: char| c.is_ascii_digit();
    let parted = |t: &str| {
        t.split_whitespace().zip(t.split_whitespace().skip(1)).any(|(a, b)| a.ends_with(digit) && b.starts_with(digit))
    };
    let spaced = parted(a) || parted(b) || words::are_phrases(a, b);
    (a.contains('\\') || !spaced) && compact(a) == compact(b)
}

/// Compares Roman numerals with each other or with a number in digits. Without this rule, XI and IX would be equal
/// products of letters. Returns `None` if neither text is a Roman numeral.
fn same_roman(a: &str, b: &str) -> Option<bool> {
    let number = |t: &str| words::roman(t).or_else(|| t.parse().ok());
    let one = words::roman(a).or_else(|| words::roman(b))?;
    Some(one == number(a)? && one == number(b)?)
}

/// Converts a number with a decimal comma or with points or spaces between groups to English notation: `1.234,5`
/// becomes `1234.5`.
fn european(text: &str) -> Option<String> {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    // A unit or a currency around the number stays.
    let from = text.find(|c: char| c.is_ascii_digit() || c == '-')?;
    let to = text.rfind(|c: char| c.is_ascii_digit())? + 1;
    let (head, tail) = (text.get(..from)?, text.get(to..)?);
    let text = text.get(from..to)?;
    let around = |t: &str| t.chars().all(|c| c.is_alphabetic() || matches!(c, ' ' | '%' | '$' | '\\') || !c.is_ascii());
    if !around(head) || !around(tail) {
        return None;
    }
    let (sign, plain) = text.strip_prefix('-').map_or(("", text), |t| ("-", t));
    let (whole, fraction) = plain.split_once(',').map_or((plain, None), |(w, f)| (w, Some(f)));
    let groups: Vec<&str> = whole.split(['.', ' ']).collect();
    let grouped = groups.len() > 1 && groups[0].len() <= 3 && groups[1..].iter().all(|g| g.len() == 3);
    let sure = match fraction {
        // A single point before three digits is a decimal point. Several points separate groups.
        None => groups.len() > 2,
        Some(f) => digits(f) && (grouped || f.len() != 3),
    };
    let known = groups.iter().all(|g| digits(g)) && (groups.len() == 1 || grouped) && sure;
    let point = fraction.map(|f| format!(".{f}")).unwrap_or_default();
    known.then(|| format!("{head}{sign}{}{point}{tail}", groups.concat()))
}

/// Writes a chain of equations over several lines as one: `S &= 23\cdot 22 \\ &= 506` becomes `S = 23\cdot 22 = 506`.
fn chained(text: &str) -> Cow<'_, str> {
    static NEXT: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\\\\\s*&?\s*=|&\s*=").expect("a fixed pattern"));
    static FRAME: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\\(begin|end)\{(aligned|align\*?|split|gathered)\}").expect("a fixed pattern"));
    if !text.contains('=') || !NEXT.is_match(text) {
        return Cow::Borrowed(text);
    }
    let joined = FRAME.replace_all(text, "").into_owned();
    let joined = NEXT.replace_all(joined.trim_end_matches([' ', '\n', '\\']), "=").into_owned();
    // A line without an equals sign at its beginning is another equation.
    if joined.contains("\\\\") || joined.contains('&') { Cow::Borrowed(text) } else { Cow::Owned(joined) }
}

/// Returns the coordinates of a point behind its letter: `P(5, -2)`.
fn without_letter(text: &str) -> Option<&str> {
    let rest = text.strip_prefix(|c: char| c.is_ascii_uppercase())?.trim_start_matches('\'').trim_start();
    let inner = rest.strip_prefix('(')?.strip_suffix(')')?;
    (inner.contains(',') && !inner.contains(['(', ')', '='])).then_some(rest)
}

/// Returns the number in brackets behind the same number in words: `two (2)`.
fn said_twice<'a>(text: &'a str, steps: &Steps) -> Option<&'a str> {
    let (words, number) = text.strip_suffix(')')?.split_once(" (")?;
    let digits = |text: &str| text.contains(|c: char| c.is_ascii_digit());
    let same =
        |a: &str, b: &str| value::equal(&value::parse(a, true, steps), &value::parse(b, true, steps), steps).equal;
    (!digits(words) && digits(number) && same(words, number)).then_some(number)
}

/// Returns true for an amount in two units, the larger one first: `4 dollars and 80 cents`.
fn in_two_units(text: &str, steps: &Steps) -> bool {
    let Some((large, small)) = text.split_once(" and ") else { return false };
    let size = |text: &str| match value::parse(text, true, steps) {
        Value::Scalar(_, Some(Unit::Measure(dimension, size))) => Some((dimension, size)),
        _ => None,
    };
    size(large).zip(size(small)).is_some_and(|(large, small)| large.0 == small.0 && large.1 > small.1)
}

/// Tries other readings: a comma between digits as a decimal point, a point without its letter, a number that is given in
/// words and digits, the sign of the yen as that of the yuan, an amount in two units, and letters directly behind a number
/// as a unit if the other answer has one. Returns the reason if such a reading makes the answers equal.
fn other_readings(gold: &str, x: &Value, answer: &str, y: &Value, steps: &Steps) -> Option<&'static str> {
    for (text, other) in [(gold, y), (answer, x)] {
        let equals = |reading: String| value::equal(&value::parse(&reading, true, steps), other, steps).equal;
        if european(text).is_some_and(equals) {
            return Some("equal with a decimal comma");
        }
        if without_letter(text).is_some_and(|reading| equals(reading.to_owned())) {
            return Some("equal without the name of the point");
        }
        if said_twice(text, steps).is_some_and(|reading| equals(reading.to_owned())) {
            return Some("equal numbers");
        }
        if text.contains(['\u{a5}', '\u{ffe5}']) && equals(text.replace(['\u{a5}', '\u{ffe5}'], " ") + " yuan") {
            return Some("equal amounts with a unit");
        }
        if in_two_units(text, steps) && equals(text.replace(" and ", " ")) {
            return Some("equal amounts with a unit");
        }
        let measured = matches!(other.unnamed(), Value::Scalar(_, Some(_)));
        if measured && with_space(text).is_some_and(equals) {
            return Some("equal amounts with a unit");
        }
    }
    None
}

/// Puts a space between a number and the letters directly behind it: `5m/s` becomes `5 m/s`.
fn with_space(text: &str) -> Option<String> {
    let joint = |pair: &[u8]| (pair[0].is_ascii_digit() || pair[0] == b'}') && pair[1].is_ascii_alphabetic();
    let at = text.as_bytes().windows(2).position(joint)?;
    Some(format!("{} {}", &text[..=at], &text[at + 1..]))
}

//! Whether an answer says the same as the gold answer: find the answer in its text, bring both into one notation, read
//! each once, compare by kind.
//!
//! An answer is right when it is wholly understood: what stands beside its value and is not understood refuses it.

use crate::Mode;
use crate::locate::{MAX_ANSWER, bare, locate};
use crate::normalise::normalise;
use crate::steps::{BUDGET, Steps, Verdict};
use crate::value::comparison::{no, outcome, yes};
use crate::value::{self, Comparison, Value};
use crate::{choice, compat, question, words};

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
    let sides = Sides { gold: &gold_text, answer: &answer_text, value, clause, steps: &steps };
    let Comparison { equal, why } = sides.decide();
    Verdict { equal, gold_parsed: gold_text, answer_parsed: answer_text, why, steps: steps.taken() }
}

/// Both answers in one notation, without what only encloses them.
struct Sides<'a> {
    gold: &'a str,
    answer: &'a str,
    /// The answer's value, where it was read to be found.
    value: Option<Value>,
    /// The sentence or the mark in which the answer was found.
    clause: &'a str,
    steps: &'a Steps,
}

impl Sides<'_> {
    fn decide(&self) -> Comparison {
        if let Some(told) = self.polar().or_else(|| self.choice()) {
            return told;
        }
        let found = self.compare(self.gold);
        match words::doubt(self.gold, self.answer, self.clause) {
            Some(why) if found.equal => no(why),
            _ => found,
        }
    }

    /// A gold answer of yes or no, true or false, and an answer that begins with one of them.
    fn polar(&self) -> Option<Comparison> {
        let gold = words::polar(self.gold)?;
        let whole = words::polar_answer(self.clause);
        if whole.is_none() && words::doubt(self.gold, self.answer, self.clause).is_some() {
            return Some(no("denied beside the answer"));
        }
        match words::polar_answer(self.answer).or(whole)? {
            Some(said) => Some(outcome(said == gold, "equal words", "the opposite")),
            None => Some(no("neither yes nor no")),
        }
    }

    /// A gold answer that names one choice, several, or one with its text.
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
            // As a list they may stand in any order; run together they are a word.
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
        if let Some((letter, text)) = choice::labelled(self.gold).filter(|_| question::options(self.gold).is_empty()) {
            let named = choice::letter(self.answer).or_else(|| choice::labelled(self.answer).map(|l| l.0));
            return match named {
                Some(named) => verdict(named == letter),
                None if self.answer.is_empty() => None,
                None => Some(self.compare(&bare(text))),
            };
        }
        None
    }

    /// Compares the answer with a gold answer.
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
        // "3 to 5" is a range, but where a ratio is told.
        let ratio = |t: &str| t.split(|c: char| !c.is_alphabetic()).any(|w| matches!(w, "ratio" | "odds"));
        if ratio(gold) || ratio(self.clause) {
            (x, y) = (x.into_ratio(), y.into_ratio());
        }
        let comparison = value::equal(&x, &y, steps);
        if comparison.equal {
            return comparison;
        }
        // "1st place" and "first place"; words that happen to read as mathematics.
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

/// True for the same signs, wherever white space stands; it parts numbers.
fn same_notation(a: &str, b: &str) -> bool {
    let compact = |t: &str| t.split_whitespace().collect::<String>();
    let digit = |c: char| c.is_ascii_digit();
    let parted = |t: &str| {
        t.split_whitespace().zip(t.split_whitespace().skip(1)).any(|(a, b)| a.ends_with(digit) && b.starts_with(digit))
    };
    let spaced = parted(a) || parted(b) || words::are_phrases(a, b);
    (a.contains('\\') || !spaced) && compact(a) == compact(b)
}

/// Roman numerals beside each other and beside digits: XI and IX are no products.
fn same_roman(a: &str, b: &str) -> Option<bool> {
    let number = |t: &str| words::roman(t).or_else(|| t.parse().ok());
    let one = words::roman(a).or_else(|| words::roman(b))?;
    Some(one == number(a)? && one == number(b)?)
}

/// A number with a decimal comma and points or spaces between groups, the English way: `1.234,5` as `1234.5`.
fn european(text: &str) -> Option<String> {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    // A unit or a currency around it stays.
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
        // One point before three digits is a decimal point, several are not.
        None => groups.len() > 2,
        Some(f) => digits(f) && (grouped || f.len() != 3),
    };
    let known = groups.iter().all(|g| digits(g)) && (groups.len() == 1 || grouped) && sure;
    let point = fraction.map(|f| format!(".{f}")).unwrap_or_default();
    known.then(|| format!("{head}{sign}{}{point}{tail}", groups.concat()))
}

/// Commas between groups of three digits may part members, and a comma between digits may be a decimal point.
fn other_readings(gold: &str, x: &Value, answer: &str, y: &Value, steps: &Steps) -> Option<&'static str> {
    let is_list = |v: &Value| matches!(v, Value::List(_) | Value::Set(_) | Value::Tuple(_));
    for (text, other) in [(gold, y), (answer, x)] {
        if text.contains(',') && is_list(other) {
            let value = value::parse(text, false, steps);
            if is_list(&value) && value::equal(&value, other, steps).equal {
                return Some("equal members");
            }
        }
        if let Some(plain) = european(text)
            && value::equal(&value::parse(&plain, true, steps), other, steps).equal
        {
            return Some("equal with a decimal comma");
        }
    }
    None
}

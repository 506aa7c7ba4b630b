//! Equality as the published scorer's math library has it: where it looks for an answer in a text, how it rewrites
//! a formula before it reads it, and how it rounds. Its flaws are kept, so that published figures can be reproduced:
//! units are cut off and never compared, `1e3` is 1, LaTeX outside marks is not read, small numbers are rounded to
//! six places, and a number is taken from anywhere in the text when a formula cannot be read.

mod find;
mod grade;
mod latex;

use num_bigint::BigInt;

use super::math::{self, BUDGET, Expr, Rational, Steps, Unit, Value};
use super::verify::Verdict;
use find::{Finder, Found};
use grade::Read;

/// What was read: an expression, and the text it may be compared by.
#[derive(Default)]
struct Parsed {
    value: Option<Read>,
    text: Option<String>,
}

/// Compares as the published scorer does.
pub fn verify(gold: &str, answer: &str) -> Verdict {
    let steps = Steps::new(BUDGET);
    let (g, a) = (parse(gold, &steps), parse(answer, &steps));
    let (equal, why) = compare(&g, &a, &steps);
    let shown = |p: Parsed| p.text.unwrap_or_default();
    Verdict { equal, gold_parsed: shown(g), answer_parsed: shown(a), why, steps: steps.taken() }
}

fn compare(gold: &Parsed, answer: &Parsed, steps: &Steps) -> (bool, &'static str) {
    if gold.text.is_none() || answer.text.is_none() {
        return (false, "nothing to compare");
    }
    if let (Some(x), Some(y)) = (&gold.value, &answer.value)
        && grade::equal(x, y, steps)
    {
        return (true, "equal values");
    }
    let same = gold.text == answer.text && gold.text.as_ref().is_some_and(|t| !t.is_empty());
    (same, if same { "same text" } else { "different values" })
}

fn parse(text: &str, steps: &Steps) -> Parsed {
    let mut first = None;
    let finder = Finder::new(text);
    for rank in find::RANKS {
        for (_, _, found) in finder.matches(rank) {
            let read = match found {
                Found::Number(integer, decimals, percent) => number(integer, decimals, percent),
                Found::Arithmetic(source) => Parsed { value: arithmetic(source, steps), text: Some(source.to_owned()) },
                Found::Boxed(content) => formula(content, false, true, steps),
                Found::Formulas(list) => joined(&list, steps),
            };
            first = first.or(read.text.filter(|t| !t.is_empty()));
            if read.value.is_some() {
                return Parsed { value: read.value, text: first };
            }
        }
    }
    Parsed { value: None, text: first }
}

/// Formulas joined by commas and words: a set when all of them can be read, else the first.
fn joined(list: &[(&str, bool)], steps: &Steps) -> Parsed {
    let mut parts: Vec<Parsed> =
        list.iter().map(|(content, percent)| formula(content, *percent, false, steps)).collect();
    if parts.len() > 1 && parts.iter().all(|p| p.value.is_some()) {
        let mut members = Vec::new();
        let mut texts = Vec::new();
        for p in parts {
            match p.value.map(|r| r.value) {
                Some(Value::Set(items) | Value::List(items)) => members.extend(items),
                Some(v) => members.push(v),
                None => {}
            }
            texts.extend(p.text);
        }
        return Parsed { value: Some(Read::set(members)), text: Some(texts.join(" and ")) };
    }
    parts.swap_remove(0)
}

fn formula(content: &str, percent: bool, last_box: bool, steps: &Steps) -> Parsed {
    let source = latex::normal(content, last_box);
    let mut value = grade::read(&source, steps);
    if let Some(Read { value: Value::Scalar(_, unit @ None), .. }) = &mut value
        && percent
    {
        *unit = Some(Unit::Percent);
    }
    Parsed { value, text: Some(source) }
}

/// A number in plain text: groups lose their separators, a decimal comma becomes a point.
fn number(integer: &str, decimals: &str, percent: bool) -> Parsed {
    let digits: String = integer.chars().filter(|c| !matches!(c, ',' | ' ')).collect();
    let digits = digits.trim_start_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    let decimals = decimals.replace(',', ".");
    let text = format!("{digits}{decimals}");
    let value = rational(digits, decimals.trim_start_matches('.')).map(|value| {
        // Rounded to six places where it meets anything else.
        let decimals = (!decimals.is_empty()).then_some(6);
        Read::number(Value::Scalar(Expr::Num { value, decimals }, percent.then_some(Unit::Percent)))
    });
    Parsed { value, text: Some(text) }
}

fn rational(digits: &str, fraction: &str) -> Option<Rational> {
    const MAX_DIGITS: usize = 1_000;
    if digits.len() + fraction.len() > MAX_DIGITS {
        return None;
    }
    let value = format!("{digits}{fraction}").parse::<BigInt>().ok()?;
    Some(Rational::new(value, BigInt::from(10).pow(fraction.len() as u32)))
}

/// Plain arithmetic, where it is arithmetic: no two numbers side by side, no point or sign at its end.
fn arithmetic(source: &str, steps: &Steps) -> Option<Read> {
    let numeric = |c: char| c.is_ascii_digit() || c == '.';
    let words: Vec<&str> = source.split_whitespace().collect();
    let side_by_side = words.windows(2).any(|w| w[0].ends_with(numeric) && w[1].starts_with(numeric));
    let cut_off = source.strip_suffix('.').is_some_and(|s| !s.ends_with(|c: char| c.is_ascii_digit()));
    if cut_off || side_by_side || source.contains(['\u{d7}', '\u{f7}']) || source.contains(")(") {
        return None;
    }
    // A full stop behind a number makes it a decimal.
    let stop = if source.ends_with('.') { "0" } else { "" };
    match math::parse(&format!("{source}{stop}").replace('^', "**"), false, steps) {
        Value::Scalar(e, None) => Some(Read::number(Value::Scalar(e, None))),
        _ => None,
    }
}

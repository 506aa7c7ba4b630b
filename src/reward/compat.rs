//! Equality as the published scorer's math library has it, for numbers and simple expressions: what it reads out
//! of plain text, which LaTeX it sees, and how it rounds. Its flaws are kept, so that published figures can be
//! reproduced: units are dropped, `1e3` is 1, LaTeX outside dollar signs is not read.

use std::sync::LazyLock;

use num_bigint::BigInt;
use regex::Regex;

use super::math::{self, BUDGET, Rational, Steps, Unit, Value};
use super::verify::Verdict;
use super::{extract, python};

/// A number in plain text; thousands by comma or space, a decimal comma, a currency sign before, percent after.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    let number = r"-?[0-9]{1,3}(?:[ ,][0-9]{3})+(?:\.[0-9]+)?|-?[0-9]+[.,][0-9]+|\.[0-9]+|-?[0-9]+";
    Regex::new(&format!(r"^[$\u{{20ac}}\u{{a3}}]?({number})(\s*(?:%|percent|percentage|pct))?"))
        .expect("a fixed pattern")
});

/// Arithmetic in plain text.
static ARITHMETIC: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[-(]?[0-9][0-9.\s+\-*/^()x]*[+\-*/^x][0-9.\s+\-*/^()x]*").expect("a fixed pattern"));

/// Formulas between LaTeX marks, and fractions of plain numbers.
static FORMULAS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let patterns = [
        r"(?s)\$\$(.+?)\$\$",
        r"(?s)\\\[(.+?)\\\]",
        r"(?:^|[^0-9\\$])\$([^$\n]+)\$",
        r"\\\(([^\n]+?)\\\)",
        r"(-?\\frac\{-?[0-9.]+\}\{-?[0-9.]+\})",
    ];
    patterns.iter().map(|p| Regex::new(p).expect("a fixed pattern")).collect()
});

/// Unit words that are cut off the end of a formula.
static UNIT: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:\\,|\\ |\s)*\\(?:text|mathrm|mbox)\{[^{}]*\}(?:\^\{?[0-9]\}?)?\s*$").expect("a fixed pattern")
});

/// What was read: an expression, and the text it may be compared by.
#[derive(Default)]
struct Parsed {
    value: Option<Value>,
    text: Option<String>,
}

/// Compares as the published scorer does.
pub fn verify(gold: &str, answer: &str) -> Verdict {
    let (g, a) = (parse(gold), parse(answer));
    let shown = |p: &Parsed| p.text.clone().unwrap_or_default();
    let verdict = |equal, why| Verdict { equal, gold_parsed: shown(&g), answer_parsed: shown(&a), why, steps: 0 };
    if g.text.is_none() || a.text.is_none() {
        return verdict(false, "nothing to compare");
    }
    if let (Some(x), Some(y)) = (&g.value, &a.value)
        && equal(x, y)
    {
        return verdict(true, "equal values");
    }
    let same = g.text == a.text && g.text.as_ref().is_some_and(|t| !t.is_empty());
    verdict(same, if same { "same text" } else { "different values" })
}

/// A match in the text: its end, its start, what it says.
type Match = (usize, usize, Parsed);

fn parse(text: &str) -> Parsed {
    if let Some(content) = extract::boxes(text).into_iter().find(|b| !b.is_empty()) {
        let parsed = formula(content);
        if parsed.value.is_some() {
            return parsed;
        }
    }
    let mut matches = Vec::new();
    for pattern in FORMULAS.iter() {
        for found in pattern.captures_iter(text) {
            if let (Some(all), Some(content)) = (found.get(0), found.get(1)) {
                matches.push((all.end(), content.start(), formula(content.as_str())));
            }
        }
    }
    plain(text, &NUMBER, &mut matches, |found, _| {
        let digits = found.get(1)?.as_str();
        let value = number(digits)?;
        let percent = found.get(2).map(|_| Unit::Percent);
        Some(Parsed {
            value: Some(math::scalar(value, digits.contains(['.', ',']), percent)),
            text: Some(found.get(0)?.as_str().to_owned()),
        })
    });
    plain(text, &ARITHMETIC, &mut matches, |found, rest| {
        let all = found.get(0)?;
        let next = rest.chars().next();
        let bounded =
            all.as_str().ends_with(python::is_space) || next.is_none_or(|c| matches!(c, '.' | ',' | ':' | ')' | '$'));
        let source = all.as_str().trim();
        if !bounded || side_by_side(source) {
            return None;
        }
        match math::parse(source, true, &Steps::new(BUDGET)) {
            Value::Text(_) => None,
            value => Some(Parsed { value: Some(value), text: Some(source.to_owned()) }),
        }
    });
    // The rightmost, then the longest; the first that can be read wins, the first text of all is kept beside it.
    matches.sort_by_key(|m| (std::cmp::Reverse(m.0), m.1));
    let text = matches.iter().find_map(|m| m.2.text.clone());
    let value = matches.into_iter().find_map(|m| m.2.value);
    Parsed { value, text }
}

/// Matches of an anchored pattern after white space, an equals sign, bold marks or nothing.
fn plain(
    text: &str,
    pattern: &Regex,
    out: &mut Vec<Match>,
    read: impl Fn(&regex::Captures<'_>, &str) -> Option<Parsed>,
) {
    /// Characters of a match that are read at most: a number needs no more.
    const WINDOW: usize = 300;
    /// Characters at the end of a text that are searched: the rightmost match is the one that counts.
    const TAIL: usize = 4_000;
    let tail = text.char_indices().rev().nth(TAIL - 1).map_or(0, |(i, _)| i);
    let (mut skip, mut previous) = (0, ['\0', '\0']);
    for (at, c) in text[tail..].char_indices().map(|(i, c)| (tail + i, c)) {
        let begins = at == 0 || python::is_space(previous[1]) || previous[1] == '=' || previous == ['*', '*'];
        previous = [previous[1], c];
        if at < skip || !begins {
            continue;
        }
        let end = text[at..].char_indices().nth(WINDOW).map_or(text.len(), |(i, _)| at + i);
        let Some(found) = pattern.captures(&text[at..end]) else { continue };
        skip = at + found.get(0).map_or(0, |m| m.end());
        if let Some(parsed) = read(&found, &text[skip..]) {
            out.push((skip, at, parsed));
        }
    }
}

/// True when two numbers stand next to each other, which is no arithmetic.
fn side_by_side(text: &str) -> bool {
    let numeric = |c: char| c.is_ascii_digit() || c == '.';
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(2).any(|w| w[0].ends_with(numeric) && w[1].starts_with(numeric))
}

/// A formula's content: a box inside it, its unit cut off.
fn formula(content: &str) -> Parsed {
    let inner = extract::boxes(content).into_iter().next().unwrap_or(content);
    let source = python::strip(inner);
    let cut = UNIT.replace(source, "");
    let cut = if cut.is_empty() { source } else { cut.as_ref() };
    let value = match math::parse(cut, true, &Steps::new(BUDGET)) {
        Value::Text(_) => None,
        Value::Scalar(e, unit) => Some(Value::Scalar(e, unit.filter(|u| *u == Unit::Percent))),
        value => Some(value),
    };
    Parsed { value, text: Some(source.to_owned()) }
}

/// The number a plain text writes.
fn number(text: &str) -> Option<Rational> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |d| (true, d));
    let compact: String = digits.chars().filter(|&c| c != ' ').collect();
    let grouped = compact.split(',').skip(1).all(|g| g.split('.').next().is_some_and(|d| d.len() == 3));
    let plain = if compact.contains(',') && grouped && compact.split(',').next().is_some_and(|d| d.len() <= 3) {
        compact.replace(',', "")
    } else {
        compact.replace(',', ".")
    };
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    if whole.len() + fraction.len() > 1_000 {
        return None;
    }
    let value = format!("0{whole}{fraction}").parse::<BigInt>().ok()?;
    let value = Rational::new(value, BigInt::from(10).pow(fraction.len() as u32));
    Some(if negative { -value } else { value })
}

/// Equality of two values: decimals are rounded to six places first, whatever their size.
fn equal(gold: &Value, answer: &Value) -> bool {
    let steps = Steps::new(BUDGET);
    if let (Value::Scalar(a, u), Value::Scalar(b, v)) = (gold, answer)
        && let (Some(x), Some(y)) = (a.exact(&steps), b.exact(&steps))
    {
        let float = a.decimal().is_some() || b.decimal().is_some();
        let same = |x: &Rational, y: &Rational| x == y || (float && rounded(x) == rounded(y));
        let hundred = Rational::from_integer(100.into());
        return match (u.is_some(), v.is_some()) {
            (true, false) => same(&x, &y) || same(&(&x / &hundred), &y),
            (false, true) => same(&x, &y) || same(&x, &(&y / &hundred)),
            _ => same(&x, &y),
        };
    }
    math::equal(gold, answer, &steps).equal
}

fn rounded(x: &Rational) -> BigInt {
    (x * Rational::from_integer(BigInt::from(1_000_000))).round().to_integer()
}

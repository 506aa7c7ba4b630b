//! Equality as defined by the published scorer's math library: math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and
//! sympy 1.14, default settings. This module reproduces where the library searches for an answer in a text, how it
//! rewrites a formula before parsing, its grammar, and its rounding. Its defects are kept, so that published results
//! can be reproduced:
//!
//! - Units are cut off and never compared.
//! - `1e3` is 1.
//! - LaTeX outside marks is not parsed.
//! - Small numbers are rounded to six decimal places.
//! - `2 3` is a mixed number.
//! - If a formula does not parse, a number is taken from anywhere in the text.
//!
//! This module does not depend on the strict parser. It was tested on five lists of generated pairs with the library's
//! own verdicts. The lists have 7,299 pairs; half of them are `tests/data/compat-*.jsonl`. The first runs agreed on
//! 7,288 pairs.
//!
//! Not reproduced:
//! - Algebra. The library simplifies a difference; this module compares values at sample points. The library does not
//!   recognise some identities that the values show: the root of a square that is written as a polynomial, half-angle
//!   forms of the tangent, `arcsin x + arccos x`, sums of cosines that are rational, powers inside `|...|` inside a
//!   logarithm, derivatives of products with `e^x`.
//! - Rounding errors of decimal arithmetic in expressions with letters: for the library, `0.1x + 0.2x` is not `0.3x`.
//!   Arithmetic with infinity.
//! - The solver for equations, which may give up. This module finds roots numerically from sample points.
//! - The time limit. The library calls a pair unequal if it needs more than five seconds. Here, a budget of steps
//!   decides.
//! - Linear algebra by name (`rref`, `eig`, `svd`, `trace` and similar), sums of matrices, row operations above arrows,
//!   values "at" a bar, and unions and differences of sets that contain letters.
//! - "And" between numbers outside `\text`, limits from below, falling ends of intervals, indices of functions, the
//!   rounding of decimals to double precision, and the exponents inside a logarithm.
//! - Functions by `\operatorname`, exponents between the name of an unknown function and its bracket, `\frac{df}{dx}` for an
//!   expression `f`, integrals over infinite ranges, and closed intervals with equal ends.
//! - Long input. If a text has more than 50,000 bytes, only its end is searched. Formulas with more than 12,000 bytes
//!   or more than 30 levels of nesting are not parsed.

mod complex;
mod find;
mod functions;
mod grade;
mod grammar;
mod latex;
mod lex;
pub mod mcq;
mod number;
mod plain;
mod region;
mod sample;
mod signs;
mod terms;
mod token;
mod tree;

use super::steps::{BUDGET, Steps, Verdict};
use find::{Finder, Found};
use tree::{Tree, Value};

/// A parsed answer: its value, and the text by which it can also be compared.
#[derive(Default)]
struct Parsed {
    value: Option<Value>,
    text: Option<String>,
}

/// Compares two answers as the published scorer does.
pub fn verify(gold: &str, answer: &str) -> Verdict {
    let steps = Steps::new(BUDGET);
    let (g, a) = (parse(gold, &steps), parse(answer, &steps));
    let (equal, why) = compare(&g, &a, &steps);
    let shown = |p: Parsed| p.text.unwrap_or_default();
    Verdict { equal, gold_parsed: shown(g), answer_parsed: shown(a), why, steps: steps.taken() }
}

/// Compares a label with an answer as [`verify`] does. A side without anything to parse is compared as a text.
pub fn verify_or_text(gold: &str, answer: &str) -> bool {
    let steps = Steps::new(BUDGET);
    let read = |text: &str| {
        let parsed = parse(text, &steps);
        if parsed.text.is_some() { parsed } else { Parsed { value: None, text: Some(text.to_owned()) } }
    };
    compare(&read(gold), &read(answer), &steps).0
}

/// Returns the real numbers that a text may mean for the published scorer: its value, and the number as it is written. A
/// percentage has only the latter, because the library cannot convert it.
pub fn reals(text: &str) -> Vec<f64> {
    let steps = Steps::new(BUDGET);
    let parsed = parse(text, &steps);
    let value = match parsed.value {
        Some(Value::Tree(Tree::Percent(_))) | None => None,
        Some(Value::Tree(tree)) => sample::real_value(&tree, &steps),
        Some(_) => None,
    };
    let written = parsed.text.and_then(|text| text.parse().ok());
    value.into_iter().chain(written).filter(|value| value.is_finite()).collect()
}

fn compare(gold: &Parsed, answer: &Parsed, steps: &Steps) -> (bool, &'static str) {
    if gold.text.is_none() || answer.text.is_none() {
        return (false, "nothing to compare");
    }
    if let (Some(x), Some(y)) = (&gold.value, &answer.value)
        && grade::equal(x, y, steps) == Some(true)
    {
        return (true, "equal values");
    }
    let same = gold.text == answer.text && gold.text.as_ref().is_some_and(|t| !t.is_empty());
    (same, if same { "same text" } else { "different values" })
}

fn parse(text: &str, steps: &Steps) -> Parsed {
    let mut first = None;
    let finder = Finder::new(text);
    for (anchor, word) in find::ANCHORS {
        for (_, _, found) in finder.matches(anchor, word) {
            let read = match found {
                Found::Number(whole, decimals, percent) => {
                    let (value, text) = plain::number(whole, decimals, percent);
                    Parsed { value: value.map(Value::Tree), text: Some(text) }
                }
                Found::Arithmetic(source) => {
                    let value = plain::arithmetic(source, steps);
                    Parsed { value: value.map(Value::Tree), text: Some(source.to_owned()) }
                }
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

/// Combines formulas that are joined by commas and words. Returns a set if all of them parse, otherwise the first one.
fn joined(list: &[(&str, bool)], steps: &Steps) -> Parsed {
    let mut parts: Vec<Parsed> =
        list.iter().map(|(content, percent)| formula(content, *percent, false, steps)).collect();
    if parts.len() > 1 && parts.iter().all(|p| p.value.is_some()) {
        let (mut members, mut texts) = (Vec::new(), Vec::new());
        for p in parts {
            match p.value {
                Some(Value::Set(items)) if !items.is_empty() => members.extend(items),
                v => members.extend(v),
            }
            texts.extend(p.text);
        }
        return Parsed { value: Some(Value::Set(members)), text: Some(texts.join(" and ")) };
    }
    parts.swap_remove(0)
}

fn formula(content: &str, percent: bool, last_box: bool, steps: &Steps) -> Parsed {
    let source = latex::normal(content, last_box);
    let value = grammar::read(&source, steps).and_then(|v| match v {
        Value::Tree(t) if percent => Some(Value::Tree(Tree::Percent(Box::new(t)))),
        Value::Relation(..) | Value::Chain(_) if percent => None,
        v => Some(v),
    });
    Parsed { value, text: Some(source) }
}

//! Equality as the published scorer's math library has it (math-verify 0.9.0 with latex2sympy2_extended 1.11.0 and
//! sympy 1.14, default settings): where it looks for an answer in a text, how it rewrites a formula before it reads it,
//! its grammar, and how it rounds. Its flaws are kept, so that published figures can be reproduced: units are cut off
//! and never compared, `1e3` is 1, LaTeX outside marks is not read, small numbers are rounded to six places, `2 3` is a
//! mixed number, and a number is taken from anywhere in the text when a formula cannot be read.
//!
//! Nothing here depends on the strict reader. On five lists of pairs made for the purpose (7,299 in all, with the
//! library's own verdicts; half of them are `tests/data/compat-*.jsonl`) the first runs agreed on 7,288.
//!
//! Not reproduced:
//! - Algebra. Where the library simplifies a difference, values at sample points decide. It does not see some true
//!   identities that they show: the root of a square that is written as a polynomial, half-angle forms of the tangent,
//!   `arcsin x + arccos x`, sums of cosines that are rational, powers inside `|...|` inside a logarithm, derivatives of
//!   products with `e^x`.
//! - Residues of decimal arithmetic in expressions with letters (`0.1x + 0.2x` is not its `0.3x`), and arithmetic with
//!   infinity.
//! - Equations by their solutions: roots found from sample points stand for its solver, which may give up.
//! - The clock. What the library does not finish in five seconds is unequal there; here a budget of steps decides.
//! - Linear algebra by name (`rref`, `eig`, `svd` and so on), row operations above arrows, values "at" a bar,
//!   and unions and differences of sets with letters in them.
//! - Of texts over 50,000 bytes only the end is searched, and formulas over 12,000 bytes or deeper than 30 are not read.

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

/// What was read: a value, and the text it may be compared by.
#[derive(Default)]
struct Parsed {
    value: Option<Value>,
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
    for rank in find::RANKS {
        for (_, _, found) in finder.matches(rank) {
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

/// Formulas joined by commas and words: a set when all of them can be read, else the first.
fn joined(list: &[(&str, bool)], steps: &Steps) -> Parsed {
    let mut parts: Vec<Parsed> =
        list.iter().map(|(content, percent)| formula(content, *percent, false, steps)).collect();
    if parts.len() > 1 && parts.iter().all(|p| p.value.is_some()) {
        let mut members = Vec::new();
        let mut texts = Vec::new();
        for p in parts {
            match p.value {
                Some(Value::Set(items)) if !items.is_empty() => members.extend(items),
                Some(v) => members.push(v),
                None => {}
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

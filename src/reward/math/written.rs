//! Answers that are compared as they are written: words, lists of words, notation that is not understood.

use super::Steps;
use super::text::words;

/// Lists of words: "red, blue" and "blue and red"; an order of yes and no, true and false stays.
pub fn word_lists(a: &str, b: &str) -> bool {
    let members = |t: &str| -> Vec<String> {
        t.replace(" and ", ",").replace(" & ", ",").split([',', ';']).map(words).filter(|w| !w.is_empty()).collect()
    };
    let (mut x, mut y) = (members(a), members(b));
    let told = |l: &[String]| l.iter().any(|w| matches!(w.as_str(), "true" | "false" | "yes" | "no"));
    if !told(&x) && !told(&y) {
        x.sort();
        y.sort();
    }
    x.len() > 1 && x == y
}

/// The operands of one operation whose order does not matter, sorted: unions, intersections, "and" and "or".
pub(super) fn operands(text: &str, steps: &Steps) -> Option<(String, Vec<String>)> {
    let signs = notation(text, steps);
    if signs.contains(['(', '[', '{']) {
        return None;
    }
    let op = ["cup", "cap", "lor", "land"].into_iter().find(|op| signs.split(' ').any(|s| s == *op))?;
    let mut parts: Vec<String> = signs.split(&format!(" {op} ")).map(|p| p.trim().to_owned()).collect();
    parts.sort();
    let simple = parts.iter().all(|p| !p.contains(' '));
    simple.then(|| (op.to_owned(), parts))
}

/// True for a text with signs in it that words do not have.
pub(super) fn is_notation(text: &str) -> bool {
    text.contains(['\\', '^', '_', '|', '!', '<', '>', '='])
        || text.chars().any(|c| !c.is_ascii() && !c.is_alphabetic())
}

/// The signs of a text, one way to write each.
pub(super) fn notation(text: &str, steps: &Steps) -> String {
    match super::lex::lex(text, true, steps) {
        Some(tokens) => {
            // Braces around one sign say nothing.
            let brace = |n: usize, c: char| super::scalar::is(tokens.get(n), c);
            let idle = |n: usize| (brace(n, '{') && brace(n + 2, '}')) || (n > 1 && brace(n, '}') && brace(n - 2, '{'));
            let kept = tokens.iter().enumerate().filter(|(n, _)| !idle(*n));
            kept.map(|(_, t)| super::scalar::shown(&t.tok) + " ").collect()
        }
        None => text.split_whitespace().collect(),
    }
}

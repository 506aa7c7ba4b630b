//! Notation that is not understood, compared as it is written.

use super::Steps;

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

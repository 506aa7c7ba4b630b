//! Parses numbers and arithmetic outside formulas by the rules of Python.

use super::number;
use super::tree::{Tree, integer, negative, power, product, sum};
use crate::steps::Steps;

/// Maximum nesting of brackets.
const MAX_DEPTH: usize = 30;

/// Parses a number in plain text: removes the separators of groups and replaces a decimal comma by a point. Returns the
/// value and the resulting text.
pub(super) fn number(whole: &str, decimals: &str, percent: bool) -> (Option<Tree>, String) {
    let digits: String = whole.chars().filter(|c| !matches!(c, ',' | ' ')).collect();
    let digits = digits.trim_start_matches('0');
    let digits = if digits.is_empty() { "0" } else { digits };
    let text = format!("{digits}{}", decimals.replace(',', "."));
    let value = match text.strip_prefix('-') {
        Some(positive) => number::read(positive).map(negative),
        None => number::read(&text),
    };
    (value.map(|v| if percent { Tree::Percent(Box::new(v)) } else { v }), text)
}

/// Computes arithmetic with `+ - * / **` and brackets. Returns `None` if Python raises an error.
pub(super) fn arithmetic(source: &str, steps: &Steps) -> Option<Tree> {
    let source = source.replace('^', "**");
    steps.spend(source.len() as u64)?;
    let mut parser = Parser { rest: &source, steps };
    let value = parser.sum(0)?;
    parser.rest.trim().is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
    steps: &'a Steps,
}

impl Parser<'_> {
    fn take(&mut self, sign: &str) -> bool {
        let behind = self.rest.trim_start().strip_prefix(sign);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    fn sum(&mut self, depth: usize) -> Option<Tree> {
        let mut left = self.product(depth)?;
        loop {
            let minus = self.take("-");
            if !minus && !self.take("+") {
                return Some(left);
            }
            let right = self.product(depth)?;
            left = sum(left, if minus { product(integer(-1), right) } else { right });
        }
    }

    fn product(&mut self, depth: usize) -> Option<Tree> {
        let mut left = self.signed(depth)?;
        loop {
            // `signed` has already parsed a power (`**`).
            if self.take("/") {
                left = product(left, power(self.signed(depth)?, integer(-1)));
            } else if self.take("*") {
                left = product(left, self.signed(depth)?);
            } else {
                return Some(left);
            }
        }
    }

    fn signed(&mut self, depth: usize) -> Option<Tree> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.steps.spend(2)?;
        if self.take("-") {
            return self.signed(depth + 1).map(negative);
        }
        let base = self.atom(depth)?;
        if self.take("**") {
            return Some(power(base, self.signed(depth + 1)?));
        }
        Some(base)
    }

    fn atom(&mut self, depth: usize) -> Option<Tree> {
        if self.take("(") {
            let inner = self.sum(depth + 1)?;
            return self.take(")").then_some(inner);
        }
        let rest = self.rest.trim_start();
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let text = &rest[..end];
        self.rest = &rest[end..];
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let empty = whole.is_empty() && decimals.is_empty();
        // Python rejects a nonzero integer with a leading zero.
        let octal = !text.contains('.') && whole.len() > 1 && whole.starts_with('0') && whole.contains(|c| c != '0');
        if empty || octal || decimals.contains('.') {
            return None;
        }
        if text.contains('.') {
            return number::read(&format!("{whole}.{}", if decimals.is_empty() { "0" } else { decimals }));
        }
        number::read(whole)
    }
}

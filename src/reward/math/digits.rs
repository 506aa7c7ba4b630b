//! Numbers as they are written: groups, points, repeating digits, exponents.

use super::lex::{Lexer, Tok, Token};

impl Lexer<'_> {
    pub(super) fn number(&mut self) {
        let mut text = self.take_while(|c| c.is_ascii_digit());
        if (1..=3).contains(&text.len()) && !text.starts_with('0') {
            // The Indian way: 1,00,000.
            while self.peek(0) == ',' && self.separator().is_some() && self.in_pairs() {
                self.at += 1;
                text += &self.take_while(|c| c.is_ascii_digit());
            }
            while let Some(n) = self.separator().filter(|&n| self.triple(n)) {
                self.at += n;
                text += &self.take_while(|c| c.is_ascii_digit());
            }
        }
        while self.peek(0) == '\u{1}' && self.peek(1).is_ascii_digit() {
            self.at += 1;
            text += &self.take_while(|c| c.is_ascii_digit());
        }
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            self.at += 1;
            text = format!("{text}.{}", self.take_while(|c| c.is_ascii_digit()));
            // Groups behind the point.
            while self.peek(0) == '\\' && self.peek(1) == ',' && self.triple(2) {
                self.at += 2;
                text += &self.take_while(|c| c.is_ascii_digit());
            }
        } else if self.peek(0) == '.' && self.repeating(1).is_some() {
            self.at += 1;
            text.push('.');
        } else if self.peek(0) == '.' && !self.peek(1).is_alphabetic() && self.peek(1) != '.' && self.peek(1) != '\\' {
            self.at += 1;
        }
        if text.contains('.') {
            if let Some((digits, length)) = self.repeating(0) {
                self.at += length;
                text = format!("{text}({digits}");
            } else if let Some(length) = self.dots() {
                self.at += length;
                if let Some(digits) = period(&text) {
                    text = format!("{text}({digits}");
                }
            }
        }
        // 1\text{E}3
        let upright: String = self.chars[self.at..].iter().take(8).collect();
        if let Some(mark) = ["\\text{E}", "\\mathrm{E}", "\\text{e}"].into_iter().find(|m| upright.starts_with(m))
            && matches!(self.peek(mark.len()), '0'..='9' | '+' | '-')
        {
            self.at += mark.len() - 1;
        }
        // 1e3 and 1E-3, when the letter stands between digits.
        if matches!(self.peek(0), 'e' | 'E') || (self.peek(0) == '}' && upright.starts_with("\\text{")) {
            let sign = usize::from(matches!(self.peek(1), '+' | '-'));
            let digits = (0..8).take_while(|&k| self.peek(1 + sign + k).is_ascii_digit()).count();
            if digits > 0 && digits < 6 && !self.peek(1 + sign + digits).is_alphabetic() {
                text.push('e');
                text.extend((1..=sign + digits).map(|k| self.peek(k)));
                self.at += 1 + sign + digits;
            }
        }
        self.push(Tok::Num(text));
    }

    /// True when exactly three digits stand `ahead`, and no more.
    pub(super) fn triple(&self, ahead: usize) -> bool {
        (0..3).all(|k| self.peek(ahead + k).is_ascii_digit()) && !self.peek(ahead + 3).is_ascii_digit()
    }

    /// True for a comma before a group of two digits, further such groups, and at last one of three.
    pub(super) fn in_pairs(&self) -> bool {
        let digits = |at: usize| (0..4).take_while(|&k| self.peek(at + k).is_ascii_digit()).count();
        let mut at = 0;
        while self.peek(at) == ',' && digits(at + 1) == 2 {
            at += 3;
        }
        at > 0 && self.peek(at) == ',' && digits(at + 1) == 3
    }

    /// Characters that separate groups of digits here: `1,000`, `1 000`, `1\,000`.
    pub(super) fn separator(&self) -> Option<usize> {
        match (self.peek(0), self.peek(1)) {
            ('\u{1}', _) => Some(1),
            (',', _) if self.grouped && self.depth == 0 && !self.in_set() => Some(1),
            (' ', d) if self.grouped && d.is_ascii_digit() && self.depth == 0 => Some(1),
            ('\\', ',' | ' ' | ';' | ':') => Some(2),
            ('_' | '\'', d) if d.is_ascii_digit() && self.triple(1) => Some(1),
            _ => None,
        }
    }

    pub(super) fn in_set(&self) -> bool {
        let escaped = |t: &&Token| matches!(&t.tok, Tok::Cmd(c) if c == "{" || c == "}");
        self.out.iter().rev().find(escaped).is_some_and(|t| t.tok == Tok::Cmd("{".into()))
    }

    /// Digits that repeat for ever, `\overline{36}`, `(36)`, and how long they are written.
    pub(super) fn repeating(&self, ahead: usize) -> Option<(String, usize)> {
        let rest = &self.chars[(self.at + ahead).min(self.chars.len())..];
        if let Some(found) = dotted(rest) {
            return Some(found);
        }
        let opens = |mark: &str| rest.len() > mark.len() && mark.chars().zip(rest).all(|(a, b)| a == *b);
        let (mark, close) = [("\\overline{", '}'), ("\\bar{", '}'), ("\\dot{", '}'), ("(", ')')]
            .into_iter()
            .find(|(mark, _)| opens(mark))?;
        let digits: String = rest[mark.len()..].iter().take(60).take_while(|c| c.is_ascii_digit()).collect();
        let end = mark.len() + digits.len();
        (!digits.is_empty() && rest.get(end) == Some(&close)).then_some((digits, end + 1))
    }

    /// Dots that say that digits go on.
    pub(super) fn dots(&self) -> Option<usize> {
        let rest = &self.chars[self.at..];
        ["...", "\\ldots", "\\dots", "\\cdots"]
            .into_iter()
            .find(|mark| rest.len() >= mark.len() && mark.chars().zip(rest).all(|(a, b)| a == *b))
            .map(str::len)
    }
}

/// Digits between dots that repeat, `\dot{1}4\dot{2}`, and how long they are written.
fn dotted(rest: &[char]) -> Option<(String, usize)> {
    let text: String = rest.iter().take(80).collect();
    let dot = |t: &str| {
        let t = t.strip_prefix("\\dot")?;
        let inner = t.strip_prefix('{').map_or(t.get(..1), |t| t.get(..1).filter(|_| t.get(1..2) == Some("}")))?;
        let length = if t.starts_with('{') { 7 } else { 5 };
        inner.bytes().all(|b| b.is_ascii_digit()).then(|| (inner.to_owned(), length))
    };
    let (mut digits, mut at) = dot(&text)?;
    while text[at..].starts_with(|c: char| c.is_ascii_digit()) {
        digits.push_str(&text[at..at + 1]);
        at += 1;
    }
    let (last, length) = dot(&text[at..])?;
    Some((digits + &last, at + length))
}

/// The digits that repeat at the end of a decimal that goes on: three times one digit, twice a longer block.
fn period(number: &str) -> Option<&str> {
    let (_, digits) = number.split_once('.')?;
    (1..=digits.len() / 2).find_map(|n| {
        let block = &digits[digits.len() - n..];
        let times = if n == 1 { 3 } else { 2 };
        digits.ends_with(&block.repeat(times)).then_some(block)
    })
}

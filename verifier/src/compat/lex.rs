//! Splits a rewritten formula into the tokens of the published grammar. The longest token wins.

use super::signs::{ACCENTS, COMMANDS, DEGREE, TRANSPOSE, WORDS, greek, sign};
use super::token::{Kind, Token};
use crate::steps::Steps;

/// Maximum length in bytes of a formula that is parsed.
const MAX_BYTES: usize = 12_000;

fn is_white(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Returns the tokens of a formula, or `None` if the grammar has no token for a character.
pub(super) fn lex(source: &str, steps: &Steps) -> Option<Vec<Token>> {
    if source.len() > MAX_BYTES {
        return None;
    }
    steps.spend(source.len() as u64)?;
    let mut out = Vec::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if is_white(c) {
            rest = &rest[1..];
            continue;
        }
        let (length, token) = next(rest, c)?;
        rest = &rest[length..];
        out.extend(token);
    }
    Some(out)
}

/// Returns the length of the first token, and the token unless it is skipped.
fn next(rest: &str, c: char) -> Option<(usize, Option<Token>)> {
    let token = |length: usize, kind: Kind, text: &str| Some((length, Some(Token { kind, text: text.to_owned() })));
    if c.is_ascii_digit() || c == '.' {
        return number(rest);
    }
    if c == '\\' {
        return command(rest);
    }
    if c == '^' {
        for (list, text) in [(&TRANSPOSE[..], "^T"), (&DEGREE[..], "degree")] {
            if let Some(found) = list.iter().filter(|t| rest.starts_with(**t)).max_by_key(|t| t.len()) {
                return token(found.len(), Kind::Sign, text);
            }
        }
    }
    if c.is_ascii_alphabetic() {
        return letter(rest, c);
    }
    for (text, sign) in [("!==", "!="), ("!=", "!="), ("==", "=="), ("<=", "<="), (">=", ">="), ("~=", "~")] {
        if rest.starts_with(text) && !rest.starts_with("<=>") {
            return token(text.len(), Kind::Relation, sign);
        }
    }
    if rest.starts_with("<->") || rest.starts_with("<=>") {
        return None;
    }
    if let Some(name) = greek(c) {
        return token(c.len_utf8(), Kind::Greek, name);
    }
    let (kind, text) = sign(c)?;
    token(c.len_utf8(), kind, text)
}

/// Reads a number with its exponent or percent sign.
fn number(rest: &str) -> Option<(usize, Option<Token>)> {
    let digits = |s: &str| s.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(rest);
    let mut end = whole;
    if rest[end..].starts_with('.') {
        let decimals = digits(&rest[end + 1..]);
        if decimals > 0 {
            end += 1 + decimals;
        }
    }
    if end == 0 {
        return None;
    }
    let token = |length: usize, kind: Kind| {
        Some((length, Some(Token { kind, text: rest[..if kind == Kind::Percent { end } else { length }].to_owned() })))
    };
    if let Some(exponent) = rest[end..].strip_prefix('E') {
        let signed = usize::from(exponent.starts_with(['+', '-', '\u{2212}']));
        let from = exponent.chars().take(signed).map(char::len_utf8).sum::<usize>();
        let digits = digits(&exponent[from..]);
        if digits > 0 {
            return token(end + 1 + from + digits, Kind::Power);
        }
    }
    let behind = rest[end..].strip_prefix(is_white).unwrap_or(&rest[end..]);
    for sign in ["\\%", "%"] {
        if let Some(after) = behind.strip_prefix(sign) {
            return token(rest.len() - after.len(), Kind::Percent);
        }
    }
    token(end, Kind::Number)
}

/// Reads a letter, a word of the grammar, or a differential.
fn letter(rest: &str, c: char) -> Option<(usize, Option<Token>)> {
    let token = |length: usize, kind: Kind, text: &str| Some((length, Some(Token { kind, text: text.to_owned() })));
    let word = WORDS.split_whitespace().filter(|w| rest.starts_with(w)).map(|w| w.len()).max().unwrap_or(0);
    if c == 'd' {
        let behind = rest[1..].trim_start_matches(is_white);
        let from = rest.len() - behind.len();
        let name = match behind.strip_prefix('\\') {
            Some(command) => {
                let letters = command.bytes().take_while(u8::is_ascii_alphabetic).count();
                &behind[..if letters > 0 { letters + 1 } else { 0 }]
            }
            None => &behind[..usize::from(behind.starts_with(|c: char| c.is_ascii_alphabetic()))],
        };
        if !name.is_empty() && from + name.len() >= word {
            return token(from + name.len(), Kind::Differential, name.trim_start_matches('\\'));
        }
    }
    if word > 0 {
        // The token exists, but no rule accepts it.
        return token(word, Kind::Sign, &rest[..word]);
    }
    let kind = match c {
        'e' => Kind::Euler,
        'E' => Kind::CapitalE,
        _ => Kind::Letter,
    };
    token(1, kind, &rest[..1])
}

/// Reads a command: the longest one that matches, even if the name continues after it.
fn command(rest: &str) -> Option<(usize, Option<Token>)> {
    let name = &rest[1..];
    let mut best: Option<(usize, Option<(Kind, String)>)> = None;
    if let Some((command, token)) = COMMANDS.iter().find(|(c, _)| c.is_ascii() && name.starts_with(c)) {
        // A space after a symbol is part of it.
        let symbol = matches!(token, Some((Kind::Greek | Kind::Other, _)));
        let length = command.len() + usize::from(symbol && name[command.len()..].starts_with(' '));
        best = Some((length, token.map(|(kind, text)| (kind, text.to_owned()))));
    }
    let mut offer = |length: usize, kind: Kind, text: String| {
        if best.as_ref().is_none_or(|b| length > b.0) {
            best = Some((length, Some((kind, text))));
        }
    };
    for a in ACCENTS.split_whitespace().filter(|a| name.starts_with(a)) {
        let behind = &name[a.len()..];
        let braced = behind.strip_prefix(is_white).unwrap_or(behind);
        if let Some(text) = braced.strip_prefix('{')
            && let Some(end) = text.find('}')
        {
            offer(name.len() - text.len() + end + 1, Kind::Accent, format!("{a}{{{}", &text[..end]));
        }
    }
    for kind in ["matrix", "pmatrix", "bmatrix", "vmatrix", "array"] {
        let sign = if kind == "vmatrix" { "determinant" } else { "rows" };
        for (edge, token) in [("begin", Kind::Open), ("end", Kind::Close)] {
            let Some(behind) = name.strip_prefix(edge).and_then(|n| n.strip_prefix('{')) else { continue };
            let Some(mut behind) = behind.strip_prefix(kind).and_then(|n| n.strip_prefix('}')) else { continue };
            if kind == "array" && edge == "begin" {
                let Some(columns) = behind.strip_prefix('{') else { continue };
                let Some(after) = columns.trim_start_matches(['c', 'l', 'r']).strip_prefix('}') else { continue };
                behind = after;
            }
            offer(name.len() - behind.len(), token, format!("{sign} {}", kind == "array"));
        }
    }
    let (length, found) = best?;
    Some((length + 1, found.map(|(kind, text)| Token { kind, text })))
}

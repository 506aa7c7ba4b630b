//! Intervals with outward brackets, `]a, b[`, as `(a, b)`.

use super::lex::{Tok, Token};
use super::parse::nesting;
use super::scalar::is;

/// Most tokens inside an interval.
const MAX_PARTS: usize = 200;

/// The tokens with outward brackets turned into round ones; `None` when there are none, or when the brackets match
/// the common way already.
pub(super) fn inward(tokens: &[Token]) -> Option<Vec<Token>> {
    let mut depth = 0;
    let crossed = tokens.iter().any(|t| {
        depth += nesting(&t.tok);
        depth < 0
    });
    if !crossed && depth == 0 {
        return None;
    }
    let (mut out, mut at, mut turned) = (tokens.to_vec(), 0, false);
    while at < tokens.len() {
        let Some(close) = interval(tokens, at) else {
            at += 1;
            continue;
        };
        if is(tokens.get(at), ']') {
            out[at].tok = Tok::Sym('(');
            turned = true;
        }
        if is(tokens.get(close), '[') {
            out[close].tok = Tok::Sym(')');
            turned = true;
        }
        at = close + 1;
    }
    turned.then_some(out)
}

/// Where the interval that opens at `open` closes: two parts between square brackets of any direction.
fn interval(tokens: &[Token], open: usize) -> Option<usize> {
    if !(is(tokens.get(open), '[') || is(tokens.get(open), ']') || is(tokens.get(open), '(')) {
        return None;
    }
    let (mut level, mut comma) = (0, None);
    for (at, t) in tokens.iter().enumerate().skip(open + 1).take(MAX_PARTS) {
        match &t.tok {
            Tok::Sym('[' | ']') if level == 0 => return comma.filter(|c| c + 1 < at).map(|_| at),
            Tok::Sym(')') if level == 0 => return comma.filter(|c| c + 1 < at).map(|_| at),
            Tok::Sym(',' | ';') if level == 0 => {
                if comma.replace(at).is_some() || at == open + 1 {
                    return None;
                }
            }
            t => level += nesting(t),
        }
    }
    None
}

//! Intervals with outward brackets, `]a, b[`, as `(a, b)`; remarks in brackets.

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

/// The tokens before a remark in brackets on a root or a curve: "x = 2 (double root)".
pub(super) fn without_remark(tokens: &[Token]) -> Option<&[Token]> {
    const REMARKS: [&str; 18] = [
        "double",
        "triple",
        "repeated",
        "root",
        "roots",
        "multiplicity",
        "twice",
        "slant",
        "oblique",
        "vertical",
        "horizontal",
        "asymptote",
        "simple",
        "of",
        "with",
        "constant",
        "order",
        "counted",
    ];
    let close = tokens.last().filter(|t| is(Some(t), ')'))?;
    let open = tokens.iter().rposition(|t| is(Some(t), '('))?;
    let inner = &tokens[open + 1..tokens.len() - 1];
    let remark = |t: &Token| match &t.tok {
        Tok::Text(w) | Tok::Word(w) => {
            w.split_whitespace().all(|w| REMARKS.contains(&w.to_lowercase().as_str()) || w.parse::<u8>().is_ok())
        }
        Tok::Num(_) => true,
        _ => false,
    };
    let said = inner.iter().any(|t| matches!(t.tok, Tok::Text(_) | Tok::Word(_)));
    (open > 0 && said && !close.spaced && inner.iter().all(remark)).then(|| &tokens[..open])
}

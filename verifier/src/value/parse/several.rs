//! Parses lists: several values, systems of equations, and the conditions after them.

use crate::lexicon::{self, Kind};
use crate::value::lex::{Tok, Token, shown};
use crate::value::parse::{MAX_ITEMS, Reader, is_kind, is_word, names, one_or_list, split};
use crate::value::region::Region;
use crate::value::{Value, family};

impl Reader<'_> {
    pub(crate) fn list(&self, tokens: &[Token], parts: Vec<&[Token]>, depth: usize) -> Option<Value> {
        // A semicolon separates more strongly than a comma.
        let coarse = split(tokens, |t| *t == Tok::Sym(';'))?;
        let parts = if coarse.len() > 1 && coarse.len() < parts.len() { coarse } else { parts };
        // "a, b, and c" has an empty part before its "and".
        let filled: Vec<&[Token]> = parts.into_iter().filter(|p| !p.is_empty()).collect();
        if filled.len() > MAX_ITEMS {
            return None;
        }
        let mut items: Vec<Value> = Vec::new();
        for part in &filled {
            // "k \in \mathbb{Z}" after a family of solutions only describes k.
            let member = split(part, names("in"))?;
            let condition = is_kind(&part[0].tok, Kind::Condition);
            let whole = member.len() == 2
                && member[1].len() == 1
                && matches!(&member[1][0].tok, Tok::Cmd(c) if c.starts_with("mathbb"));
            if !items.is_empty() && (condition || whole) {
                let counts = matches!(&member.last()?.first()?.tok, Tok::Cmd(c) if c == "mathbbZ");
                let name = member[0].last().map(|t| shown(&t.tok)).unwrap_or_default();
                if counts && member.len() == 2 {
                    items = items.into_iter().map(|v| self.repeated(v, &name)).collect();
                }
                continue;
            }
            match self.value(part, depth + 1)? {
                // A plus-minus sign gives two values at once.
                Value::List(inner) => items.extend(inner),
                item => items.push(item),
            }
        }
        if items.len() > 1 && items.iter().all(|v| matches!(v, Value::Region(_))) {
            let words = |w: &str| {
                let sign = |t: &Tok| matches!(t, Tok::Cmd(c) if c.strip_prefix('l') == Some(w));
                tokens.iter().any(|t| is_word(&t.tok, &[w]) || sign(&t.tok))
            };
            let regions: Vec<Region> =
                items.iter().filter_map(|v| if let Value::Region(r) = v { Some(r.clone()) } else { None }).collect();
            // Bounds on different variables are a system and not one set.
            let first = regions[0].variable.clone();
            if regions.iter().all(|r| r.variable == first) {
                let both = || regions[1..].iter().try_fold(regions[0].clone(), |a, b| a.intersection(b, self.steps));
                let either = || regions[1..].iter().cloned().fold(regions[0].clone(), Region::union);
                let joined = if words("or") || first.is_none() {
                    either()
                } else {
                    both().filter(|r| words("and") || !r.is_empty(self.steps)).unwrap_or_else(either)
                };
                return Some(Value::Region(joined));
            }
        }
        one_or_list(items)
    }

    /// Converts a value with a letter that stands for every whole number to a family.
    pub(crate) fn repeated(&self, value: Value, name: &str) -> Value {
        match &value {
            Value::Scalar(e, None) => match family::family(e, name, self.steps) {
                Some((first, step)) => Value::Family(first, step),
                None => value,
            },
            Value::Assignment(x, inner) if x != name => {
                Value::Assignment(x.clone(), Box::new(self.repeated((**inner).clone(), name)))
            }
            _ => value,
        }
    }
}

/// Returns the direction that a word describes.
fn side(token: &Token) -> Option<&'static str> {
    let (Tok::Word(w) | Tok::Text(w)) = &token.tok else { return None };
    lexicon::look(Kind::Way, w.trim())
}

impl Reader<'_> {
    /// Parses `20% decrease`, `a decrease of 20%`, `3 units to the left`.
    pub(crate) fn sided(&self, tokens: &[Token], depth: usize) -> Option<Value> {
        let numbered = |part: &[Token]| part.iter().any(|t| matches!(t.tok, Tok::Num(_)));
        let (part, name) = match tokens {
            [inner @ .., to, the, last] if is_word(&to.tok, &["to"]) && is_word(&the.tok, &["the"]) => {
                (inner, side(last)?)
            }
            [article, name, of, inner @ ..] if is_word(&article.tok, &["a", "an"]) && is_word(&of.tok, &["of"]) => {
                (inner, side(name)?)
            }
            [name, of, inner @ ..] if is_word(&of.tok, &["of"]) => (inner, side(name)?),
            [article, inner @ .., last] if is_word(&article.tok, &["a", "an"]) => (inner, side(last)?),
            [inner @ .., last] => (inner, side(last)?),
            _ => return None,
        };
        // "12 or more" is a bound.
        let open = |t: &Token| side(t).is_some() || is_word(&t.tok, &["or", "and"]);
        if !numbered(part) || part.last().is_some_and(open) {
            return None;
        }
        let value = self.value(part, depth + 1)?;
        matches!(value, Value::Scalar(..)).then(|| Value::Sided(name, Box::new(value)))
    }
}

/// Maximum length in bytes of a text that is searched for spoken notation.
const MAX_BYTES: usize = 300;

/// Replaces spoken notation by signs. Returns `None` if the text contains none.
pub(crate) fn signs(text: &str) -> Option<String> {
    if text.len() > MAX_BYTES {
        return None;
    }
    let (mut out, mut at) = (String::new(), 0);
    for (from, to) in lexicon::find(Kind::Spoken, text) {
        let sign = lexicon::look(Kind::Spoken, &text[from..to])?;
        out.extend([&text[at..from], " ", sign, " "]);
        at = to;
    }
    (at > 0).then(|| out + &text[at..])
}

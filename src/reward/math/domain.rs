//! What the letters of an answer stand for: "where k is any integer", `(t \in \mathbb{R})`, "for arbitrary constants A
//! and B", `n = 0, \pm 1, \pm 2, \dots`.
//!
//! ```text
//! clauses := clause (sep? clause)*         sep := ',' | ';' | ':' | 'and'
//! clause  := '(' clauses ')' | intro* body intro := 'where' | 'for' | 'with' | ...
//! body    := names 'in' set | names filler* kind | filler* kind filler* names | names '=' counted
//! names   := name ((',' | 'and') name)*    a letter, with or without an index
//! counted := whole numbers and plus-minus signs, with dots on one side, on both, between or nowhere
//! ```

use super::lex::{Tok, Token};
use super::parse::{nesting, split};
use super::scalar::{GREEK, is, is_cmd, shown};

/// What a letter stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Domain {
    /// Any whole number.
    Whole,
    /// Whole numbers from this one on.
    From(i64),
    /// Whole numbers from one to another.
    Range(i64, i64),
    /// Any real number.
    Real,
}

/// Letters and what they stand for.
pub(super) type Domains = Vec<(String, Domain)>;

/// Most tokens of the clauses behind an answer.
const MAX_TOKENS: usize = 48;

const INTRO: [&str; 13] =
    ["where", "for", "with", "such", "that", "as", "when", "here", "over", "given", "and", "let", "in"];

const FILLER: [&str; 33] = [
    "is",
    "are",
    "be",
    "being",
    "can",
    "may",
    "ranges",
    "range",
    "ranging",
    "runs",
    "run",
    "running",
    "varies",
    "over",
    "through",
    "across",
    "denotes",
    "denote",
    "an",
    "a",
    "any",
    "all",
    "every",
    "each",
    "the",
    "arbitrary",
    "some",
    "takes",
    "values",
    "value",
    "of",
    "set",
    "in",
];

/// The words of a domain, the longer before those they begin with.
const KINDS: [(&[&str], Domain); 28] = [
    (&["arbitrary", "real", "constant"], Domain::Real),
    (&["arbitrary", "real", "number"], Domain::Real),
    (&["arbitrary", "constant"], Domain::Real),
    (&["arbitrary", "integer"], Domain::Whole),
    (&["non", "-", "negative", "integer"], Domain::From(0)),
    (&["nonnegative", "integer"], Domain::From(0)),
    (&["positive", "integer"], Domain::From(1)),
    (&["positive", "whole", "number"], Domain::From(1)),
    (&["natural", "number"], Domain::From(1)),
    (&["whole", "number"], Domain::Whole),
    (&["integer", "value"], Domain::Whole),
    (&["integer", "parameter"], Domain::Whole),
    (&["integer"], Domain::Whole),
    (&["real", "number"], Domain::Real),
    (&["real", "constant"], Domain::Real),
    (&["real", "parameter"], Domain::Real),
    (&["real", "value"], Domain::Real),
    (&["real", "scalar"], Domain::Real),
    (&["real"], Domain::Real),
    (&["constant", "of", "integration"], Domain::Real),
    (&["integration", "constant"], Domain::Real),
    (&["free", "parameter"], Domain::Real),
    (&["free", "variable"], Domain::Real),
    (&["free"], Domain::Real),
    (&["constant"], Domain::Real),
    (&["parameter"], Domain::Real),
    (&["scalar"], Domain::Real),
    (&["arbitrary"], Domain::Real),
];

/// The tokens with text set in upright letters taken apart where it speaks of domains.
pub(super) fn spelled(tokens: &[Token]) -> Vec<Token> {
    let mut out = Vec::with_capacity(tokens.len());
    for t in tokens {
        let Tok::Text(text) = &t.tok else {
            out.push(t.clone());
            continue;
        };
        let words: Vec<&str> = text.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        let speaks = |w: &&str| {
            let w = w.to_ascii_lowercase();
            let kind = |k: &str| k == w || w.strip_suffix('s') == Some(k);
            w.chars().count() == 1
                || INTRO.contains(&w.as_str())
                || FILLER.contains(&w.as_str())
                || KINDS.iter().any(|(k, _)| k.iter().any(|k| kind(k)))
        };
        // A lone letter in another face keeps its face.
        if words.iter().all(speaks) && words.iter().any(|w| w.len() > 1) {
            out.extend(words.iter().map(|w| Token { tok: Tok::Word((*w).to_owned()), spaced: true }));
        } else {
            out.push(t.clone());
        }
    }
    out
}

/// The answer before its clauses, and what they say; also with the clauses in front: "for any integer k, ...".
pub(super) fn stated(tokens: &[Token]) -> Option<(&[Token], Domains)> {
    let mut level = 0;
    for at in 0..tokens.len() {
        let t = &tokens[at];
        let opens = level == 0 && (is(Some(t), '(') || is(Some(t), '[') || intro(t) || is_separator(t));
        level += nesting(&t.tok);
        if at > 0 && (opens || (level == 0 && named(tokens, at).is_some())) && tokens.len() - at <= MAX_TOKENS {
            let clause = &tokens[at..];
            // x (k in Z) and x, k in Z; k n in Z is a product.
            let parted = opens || t.spaced;
            if parted && let Some(domains) = clauses(clause) {
                return Some((&tokens[..at], domains));
            }
        }
    }
    let cut = tokens.iter().take(MAX_TOKENS).position(|t| is(Some(t), ',') || is(Some(t), ':'))?;
    let domains = clauses(&tokens[..cut]).filter(|_| intro(&tokens[0]))?;
    (cut + 1 < tokens.len()).then(|| (&tokens[cut + 1..], domains))
}

fn lower(t: &Token) -> Option<String> {
    match &t.tok {
        Tok::Word(w) | Tok::Text(w) => Some(w.trim().to_ascii_lowercase()),
        _ => None,
    }
}

fn intro(t: &Token) -> bool {
    lower(t).is_some_and(|w| INTRO.contains(&w.as_str())) || is_cmd(Some(t), "forall")
}

fn is_separator(t: &Token) -> bool {
    matches!(t.tok, Tok::Sym(',' | ';' | ':')) || lower(t).is_some_and(|w| w == "and")
}

/// All of `tokens` as clauses.
pub(super) fn clauses(tokens: &[Token]) -> Option<Domains> {
    let mut tokens = tokens;
    while let [first, rest @ ..] = tokens
        && (is_separator(first) || intro(first))
    {
        tokens = rest;
    }
    while let [rest @ .., last] = tokens
        && matches!(last.tok, Tok::Sym(',' | ';' | ':' | '.'))
    {
        tokens = rest;
    }
    if let [open, inner @ .., close] = tokens
        && ((is(Some(open), '(') && is(Some(close), ')')) || (is(Some(open), '[') && is(Some(close), ']')))
    {
        return clauses(inner);
    }
    if tokens.is_empty() || tokens.len() > MAX_TOKENS {
        return None;
    }
    if let Some(found) = body(tokens) {
        return Some(found);
    }
    // Several clauses: the shortest first one whose rest is clauses, too.
    (1..tokens.len()).filter(|&n| is_separator(&tokens[n]) || intro(&tokens[n])).find_map(|n| {
        let mut found = body(&tokens[..n])?;
        found.extend(clauses(&tokens[n + 1..])?);
        Some(found)
    })
}

fn body(tokens: &[Token]) -> Option<Domains> {
    // 0 \le k \le 4
    if let [low, less, rest @ ..] = tokens
        && let Some((names, used)) = named(rest, 0)
        && let [more, high] = &rest[used..]
        && let (Tok::Num(low), Tok::Num(high)) = (&low.tok, &high.tok)
    {
        let open = |t: &Token| match &t.tok {
            Tok::Cmd(c) if c == "le" => Some(0),
            Tok::Sym('<') => Some(1),
            _ => None,
        };
        let range = Domain::Range(low.parse::<i64>().ok()? + open(less)?, high.parse::<i64>().ok()? - open(more)?);
        return Some(names.into_iter().map(|n| (n, range)).collect());
    }
    if let Some((names, used)) = named(tokens, 0) {
        let rest = &tokens[used..];
        let domain = match rest {
            [] => return None,
            [first, set @ ..] if is_cmd(Some(first), "in") || (is_word(first, "in") && !filler(set)) => set_of(set),
            [first, list @ ..] if is(Some(first), '=') => counted(list),
            [sign, Token { tok: Tok::Num(n), .. }]
                if names.iter().all(|n| matches!(n.as_str(), "n" | "k" | "m" | "i" | "j")) =>
            {
                match &sign.tok {
                    Tok::Cmd(c) if c == "ge" => n.parse().ok().map(Domain::From),
                    Tok::Sym('>') => n.parse().ok().map(|n: i64| Domain::From(n + 1)),
                    _ => None,
                }
            }
            _ => kind(rest).filter(|(_, used)| *used == rest.len()).map(|(d, _)| d),
        };
        if let Some(domain) = domain {
            return Some(names.into_iter().map(|n| (n, domain)).collect());
        }
    }
    let (domain, used) = kind(tokens)?;
    let mut at = used;
    while tokens.get(at).is_some_and(|t| is_filler(t) && named(tokens, at).is_none_or(|(_, n)| at + n < tokens.len())) {
        at += 1;
    }
    let (names, n) = named(tokens, at)?;
    (at + n == tokens.len()).then(|| names.into_iter().map(|n| (n, domain)).collect())
}

fn is_word(t: &Token, word: &str) -> bool {
    lower(t).is_some_and(|w| w == word)
}

fn is_filler(t: &Token) -> bool {
    lower(t).is_some_and(|w| FILLER.contains(&w.as_str()))
}

fn filler(tokens: &[Token]) -> bool {
    tokens.first().is_some_and(is_filler)
}

/// Words of a domain after fillers, and how many tokens they take.
pub(super) fn kind(tokens: &[Token]) -> Option<(Domain, usize)> {
    let fillers = tokens.iter().take_while(|t| is_filler(t)).count();
    let longest = KINDS.iter().map(|k| k.0.len()).max()?;
    let words = tokens.iter().take(fillers + longest).map(|t| lower(t).unwrap_or_else(|| shown(&t.tok)));
    let said: Vec<String> = words.collect();
    let fits = |(said, word): (&String, &&str)| said == word || said.strip_suffix('s') == Some(word);
    (0..=fillers).find_map(|from| {
        let begins = |kind: &[&str]| said.len() >= from + kind.len() && said[from..].iter().zip(kind).all(fits);
        KINDS.iter().find(|k| begins(k.0)).map(|k| (k.1, from + k.0.len()))
    })
}

/// Names at this place, and how many tokens they take.
fn named(tokens: &[Token], from: usize) -> Option<(Vec<String>, usize)> {
    let one = |at: usize| -> Option<(String, usize)> {
        let name = match &tokens.get(at)?.tok {
            Tok::Word(w) if w.chars().count() == 1 => w.clone(),
            Tok::Cmd(c) if GREEK.contains(&c.as_str()) => c.clone(),
            _ => return None,
        };
        if !is(tokens.get(at + 1), '_') {
            return Some((name, 1));
        }
        let braced = usize::from(is(tokens.get(at + 2), '{'));
        let Tok::Num(n) = &tokens.get(at + 2 + braced)?.tok else { return None };
        if braced == 1 && !is(tokens.get(at + 4), '}') {
            return None;
        }
        Some((format!("{name}_{n}"), 3 + 2 * braced))
    };
    let (first, mut used) = one(from)?;
    let mut names = vec![first];
    while let Some(t) = tokens.get(from + used)
        && (is(Some(t), ',') || is_word(t, "and"))
    {
        let skip = 1 + usize::from(tokens.get(from + used + 1).is_some_and(|t| is_word(t, "and")));
        let Some((next, n)) = one(from + used + skip) else { break };
        // In "k, k in Z" the first belongs to what stands before.
        if names.contains(&next) {
            return None;
        }
        names.push(next);
        used += skip + n;
    }
    Some((names, used))
}

/// `\mathbb{Z}`, `\mathbb{Z}_{\ge 0}`, "the integers", `\{0, 1, 2, \dots\}`.
fn set_of(tokens: &[Token]) -> Option<Domain> {
    if let Some((domain, used)) = kind(tokens) {
        return (used == tokens.len()).then_some(domain);
    }
    if let [open, inner @ .., close] = tokens
        && is_cmd(Some(open), "{")
        && is_cmd(Some(close), "}")
    {
        return counted(inner);
    }
    let (first, marks) = tokens.split_first()?;
    let Tok::Cmd(c) = &first.tok else {
        return matches!(&first.tok, Tok::Word(w) if w == "Z" && marks.is_empty()).then_some(Domain::Whole);
    };
    let said: String = marks.iter().map(|t| shown(&t.tok)).filter(|t| t != "{" && t != "}").collect();
    match (c.as_str(), said.as_str()) {
        ("mathbbZ", "") => Some(Domain::Whole),
        ("mathbbN", "_0") | ("mathbbZ", "_ge0" | "^ge0" | "^+_0" | "_0^+") => Some(Domain::From(0)),
        ("mathbbN", "" | "^*" | "^+") | ("mathbbZ", "^+" | "_+" | "_>0" | "_ge1") => Some(Domain::From(1)),
        ("mathbbR", "") => Some(Domain::Real),
        _ => None,
    }
}

/// `0, \pm 1, \pm 2, \dots`, `\dots, -1, 0, 1, \dots`, `1, 2, 3, \dots`
fn counted(tokens: &[Token]) -> Option<Domain> {
    let parts: Vec<&[Token]> = split(tokens, |t| *t == Tok::Sym(','))?.into_iter().filter(|p| !p.is_empty()).collect();
    let dots = |p: &[Token]| matches!(p, [t] if is_cmd(Some(t), "dots"));
    let (last, mut rest) = parts.split_last()?;
    // 0, 1, 2 and 0, 1, \dots, 5
    let end = match last {
        [Token { tok: Tok::Num(n), .. }] => Some(n.parse::<i64>().ok()?),
        last if dots(last) => None,
        _ => return None,
    };
    if let [inner @ .., gap] = rest
        && end.is_some()
        && dots(gap)
    {
        rest = inner;
    } else if end.is_some() {
        rest = &parts;
    }
    let both = rest.first().is_some_and(|p| dots(p));
    let numbers = if both { &rest[1..] } else { rest };
    let (mut values, mut signed) = (Vec::new(), false);
    for p in numbers {
        let (sign, n) = match p {
            [Token { tok: Tok::Num(n), .. }] => (1, n),
            [minus, Token { tok: Tok::Num(n), .. }] if is(Some(minus), '-') => (-1, n),
            [pm, Token { tok: Tok::Num(n), .. }] if is_cmd(Some(pm), "pm") => {
                signed = true;
                (1, n)
            }
            _ => return None,
        };
        values.push(sign * n.parse::<i64>().ok()?);
    }
    let steady = values.len() >= 2 && values.windows(2).all(|w| w[1] == w[0] + 1);
    if let Some(end) = end {
        let first = *values.first()?;
        return (steady && !signed && !both && first <= end).then_some(Domain::Range(first, end));
    }
    match (steady, signed, values.first()?) {
        (true, true, 0) => Some(Domain::Whole),
        (true, false, _) if both => Some(Domain::Whole),
        (true, false, &n) => Some(Domain::From(n)),
        _ => None,
    }
}

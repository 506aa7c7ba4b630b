//! The unit that words and signs behind a number say.
//!
//! ```text
//! unit   := factor (('*' | '-')? factor)* (('/' | 'per') factor (('*' | '-')? factor)*)*   what follows '/' is under it
//! factor := ('square' | 'cubic') factor | name power? | '(' unit ')' power? | number
//! power  := '^' integer | digits right behind a name | 'squared' | 'cubed'
//! name   := up to four words of a known unit, or words for what is counted
//! ```

use super::expr::{Expr, number};
use super::lex::{Tok, Token};
use super::parse::{Reader, Value};
use super::pieces::{Piece, fraction, pieces, sign};
use super::scalar::{GREEK, is, is_cmd, scalar};
use super::unit::{self, Measure, Reading, Unit};
use super::{Rational, Steps};

/// Words behind a unit that do not change it.
pub(super) const IDLE: [&str; 19] = [
    "long",
    "wide",
    "tall",
    "high",
    "deep",
    "thick",
    "away",
    "apart",
    "each",
    "total",
    "altogether",
    "old",
    "ago",
    "in",
    "length",
    "width",
    "height",
    "distance",
    "back",
];

/// Largest power of a unit.
pub(super) const MAX_POWER: i32 = 12;
/// Longest number before a unit, in tokens.
const MAX_AMOUNT: usize = 60;
/// Most pieces of one unit.
pub(super) const MAX_PIECES: usize = 40;
/// Most words of one name.
const MAX_WORDS: usize = 4;

/// The unit that `rest`, all that follows, says; `None` when it says something else. Without a number before it
/// only words in `\text` are a unit.
pub(super) fn trailing(rest: &[Token], after_number: bool) -> Option<Unit> {
    let idle = |t: &Token| matches!(&t.tok, Tok::Word(w) | Tok::Text(w) if IDLE.contains(&w.trim()));
    let mut rest = rest;
    // 7 meters long, but 5 in.
    while let [inner @ .., last] = rest
        && !inner.is_empty()
        && idle(last)
        && matches!(&last.tok, Tok::Word(w) | Tok::Text(w) if w.trim() != "in" || inner.iter().any(idle))
    {
        rest = inner;
    }
    // Three eighths of a turn.
    let word = |t: Option<&Token>, words: &[&str]| matches!(t.map(|t| &t.tok), Some(Tok::Word(w) | Tok::Text(w)) if words.contains(&w.trim()));
    if word(rest.first(), &["of"]) && word(rest.get(1), &["a", "an", "one"]) {
        return trailing(rest.get(2..)?, after_number).filter(|u| !matches!(u, Unit::Word(_)));
    }
    // 8 hours to finish, 5 kg of rice: what follows a known unit says what it is for.
    let first_known = matches!(&rest.first()?.tok, Tok::Word(w) | Tok::Text(w) if unit::known(w.trim()));
    let purpose = |t: &Token| matches!(&t.tok, Tok::Word(w) if ["to", "for", "before", "after", "until", "of", "from"].contains(&w.as_str()));
    let mercury = |at: usize| word(rest.get(at + 1), &["mercury", "Hg", "water", "arc", "TNT"]);
    if first_known && let Some(at) = rest.iter().position(purpose).filter(|at| !mercury(*at)) {
        rest = &rest[..at];
    }
    // No unit is as long, and this is tried at every factor.
    if rest.len() > MAX_PIECES || !begins(rest, after_number) {
        return None;
    }
    // 1st and 2nd are no stones.
    if let [Token { tok: Tok::Word(w), .. }] = rest
        && matches!(w.as_str(), "th" | "st" | "nd" | "rd")
    {
        return Some(Unit::Word(w.clone()));
    }
    said(&pieces(rest)?)
}

/// The unit that all of `rest` says, where every word of it is known: also one that reads as a product of letters.
pub(super) fn sure(rest: &[Token]) -> Option<Measure> {
    let pieces = pieces(rest)?;
    let mut parser = Units { pieces: &pieces, at: 0, known: false, unknown: false };
    let measure = parser.product(0)?;
    (parser.at == pieces.len() && parser.known && !parser.unknown).then_some(measure)
}

/// An amount whose unit may read as letters: `5m`, `15 N m`, `9.8m/s^2`. Nothing where anything else is in it.
pub(super) fn amount(tokens: &[Token], steps: &Steps) -> Option<Value> {
    let tokens = match tokens.iter().rposition(|t| is(Some(t), '=') || is_cmd(Some(t), "approx")) {
        Some(at) => &tokens[at + 1..],
        None => tokens,
    };
    // The longest unit: 5 N m is no 5 N times m.
    (1..tokens.len().min(MAX_AMOUNT)).find_map(|at| {
        let begins = matches!(&tokens[at].tok, Tok::Word(_) | Tok::Text(_) | Tok::Cmd(_) | Tok::Sym('%' | '^' | '{'));
        // 60 1/s
        let one =
            tokens[at].spaced && matches!(&tokens[at].tok, Tok::Num(n) if n == "1") && is(tokens.get(at + 1), '/');
        let unit = (begins || one).then(|| sure(&tokens[at + usize::from(one)..]))??;
        let number = scalar(&tokens[..at], steps).filter(|e| !e.has_variables())?;
        Some(Value::Scalar(number, Some(Unit::Measure(unit))))
    })
}

/// True when all the tokens are a known unit.
pub(super) fn is_unit(tokens: &[Token]) -> bool {
    sure(tokens).is_some() || trailing(tokens, true).is_some_and(|u| !matches!(u, Unit::Word(_)))
}

/// The unit that a phrase says: "metres per second squared".
pub(super) fn phrase(text: &str) -> Option<Unit> {
    said(&pieces(&[Token { tok: Tok::Text(text.to_owned()), spaced: true }])?)
}

fn begins(rest: &[Token], after_number: bool) -> bool {
    let Some(first) = rest.first() else { return false };
    match &first.tok {
        Tok::Text(t) => !super::function::is_function(t.trim()) || t.trim() == "min",
        Tok::Word(w) if matches!(w.as_str(), "k" | "M" | "m" | "G") && is_cmd(rest.get(1), "Omega") => after_number,
        Tok::Word(w) => after_number && begins_unit(w, first.spaced, rest.len()),
        Tok::Cmd(c) if c == "frac" => fraction(rest).is_some_and(|(over, under, _)| {
            let faced = rest.iter().any(|t| matches!(t.tok, Tok::Text(_))) || over.len() == 1;
            faced && sure(over).is_some() && sure(under).is_some()
        }),
        Tok::Cmd(c) => c == "circ" || (sign(c).is_some() && after_number),
        Tok::Sym(c) => {
            matches!(c, '%' | '^')
                // 6e23 /mol
                || (*c == '/' && first.spaced && after_number && sure(rest).is_some())
                || unit::CURRENCIES.iter().any(|m| m.0 == *c)
                || (*c == '*' && matches!(rest.get(1).map(|t| &t.tok), Some(Tok::Text(_))))
        }
        Tok::Num(_) => false,
    }
}

/// The unit that pieces say.
fn said(pieces: &[Piece]) -> Option<Unit> {
    if let [Piece::Name(_), ..] = pieces
        && pieces.len() <= MAX_WORDS
        && let Some(names) = pieces
            .iter()
            .map(|p| if let Piece::Name(n) = p { Some(n.as_str()) } else { None })
            .collect::<Option<Vec<_>>>()
    {
        let name = names.join(" ");
        if let Some(unit) = unit::named(&name) {
            return Some(unit);
        }
    }
    let mut parser = Units { pieces, at: 0, known: false, unknown: false };
    let measure = parser.product(0)?;
    if parser.at < pieces.len() || pieces.is_empty() {
        return None;
    }
    // 60 degrees times n: a letter is no thing.
    let letter = |r: &Reading| r.things.iter().any(|t| t.0.chars().count() == 1 && t.0 != "$");
    if parser.known && measure.0.iter().any(letter) {
        return None;
    }
    // Only words: what is counted.
    if !parser.known
        && let [Reading { things, .. }] = measure.0.as_slice()
        && let [(name, 1)] = things.as_slice()
    {
        return Some(Unit::Word(name.clone()));
    }
    (measure != Measure::one()).then_some(Unit::Measure(measure))
}

/// Reads pieces as a product of units.
struct Units<'a> {
    pieces: &'a [Piece],
    at: usize,
    /// A known unit was met.
    known: bool,
    /// A word was met that is no unit.
    unknown: bool,
}

impl Units<'_> {
    fn product(&mut self, depth: usize) -> Option<Measure> {
        let (mut total, mut over) = (Measure::one(), 1i8);
        if depth > 8 {
            return None;
        }
        while let Some(piece) = self.pieces.get(self.at) {
            match piece {
                Piece::Times => self.at += 1,
                Piece::Over => {
                    self.at += 1;
                    over = -1;
                }
                Piece::Close if depth > 0 => break,
                Piece::Close | Piece::Power(_) => return None,
                Piece::Number(n) => {
                    self.at += 1;
                    total = total.scaled(&n.pow(i32::from(over)));
                }
                Piece::Open => {
                    self.at += 1;
                    let inner = self.product(depth + 1)?;
                    (self.pieces.get(self.at) == Some(&Piece::Close)).then_some(())?;
                    self.at += 1;
                    let power = self.power()?;
                    total = total.times(&inner.0, over * power)?;
                }
                Piece::Name(_) => {
                    let (factor, power) = self.factor()?;
                    total = total.times(&factor, over.checked_mul(power)?)?;
                }
            }
        }
        Some(total)
    }

    /// Powers behind a name or a bracket.
    fn power(&mut self) -> Option<i8> {
        let mut power = 1i8;
        while let Some(Piece::Power(n)) = self.pieces.get(self.at) {
            self.at += 1;
            power = power.checked_mul(i8::try_from(*n).ok()?)?;
        }
        (i32::from(power).abs() <= MAX_POWER).then_some(power)
    }

    /// A name with its power.
    fn factor(&mut self) -> Option<(Vec<Reading>, i8)> {
        let Piece::Name(name) = self.pieces.get(self.at)? else { return None };
        let lower = name.to_lowercase();
        let times = match lower.trim_end_matches('.') {
            "square" | "sq" => 2,
            "cubic" | "cu" => 3,
            _ => 1,
        };
        if times > 1 && matches!(self.pieces.get(self.at + 1), Some(Piece::Name(_))) {
            self.at += 1;
            let (readings, power) = self.factor()?;
            return Some((readings, power.checked_mul(times)?));
        }
        // The longest name that is known; a hyphen may join its words.
        let (mut joined, mut longest) = (String::new(), None);
        let mut at = self.at;
        for n in 0..MAX_WORDS {
            if n > 0 && self.pieces.get(at) == Some(&Piece::Times) {
                at += 1;
            }
            let Some(Piece::Name(next)) = self.pieces.get(at) else { break };
            at += 1;
            if n > 0 {
                joined.push(' ');
            }
            joined.push_str(next);
            if let Some(found) = unit::readings(&joined) {
                longest = Some((found, at));
            }
        }
        if let Some((found, at)) = longest {
            self.at = at;
            self.known = true;
            return Some((found, self.power()?));
        }
        // Words for what is counted, up to the next unit.
        self.unknown = true;
        let mut words: Vec<&str> = Vec::new();
        while let Some(Piece::Name(next)) = self.pieces.get(self.at) {
            if !words.is_empty() && unit::known(next) {
                break;
            }
            words.push(next);
            self.at += 1;
        }
        let name = words.iter().map(|w| unit::singular(w)).collect::<Vec<_>>().join(" ");
        (!name.is_empty()).then_some(())?;
        Some((vec![Reading::thing(&name)], self.power()?))
    }
}

/// Whether a word after a number begins its unit, and is no variable or function.
fn begins_unit(word: &str, spaced: bool, words: usize) -> bool {
    if (super::function::is_function(word) && word != "min")
        || GREEK.contains(&word)
        || matches!(word, "sqrt" | "pi" | "infinity" | "and" | "or")
    {
        return false;
    }
    // No letters of mathematics.
    if word.chars().any(|c| unit::is_dense(c) || ('\u{400}'..'\u{500}').contains(&c)) {
        return true;
    }
    let letters = word.chars().count();
    if letters == 1 {
        // 5 m, but not 5 x, and not 5m.
        return spaced
            && words <= 16
            && matches!(
                word,
                "m" | "g"
                    | "s"
                    | "h"
                    | "L"
                    | "l"
                    | "N"
                    | "J"
                    | "W"
                    | "V"
                    | "K"
                    | "A"
                    | "C"
                    | "F"
                    | "T"
                    | "M"
                    | "\u{c5}"
                    | "\u{3a9}"
            )
            && words != 2;
    }
    unit::is_sign(word)
        || letters >= 4
        || (letters == 3 && (spaced || unit::known(word)))
        || (spaced && (unit::known(word) || words > 1 || matches!(word, "th" | "st" | "nd" | "rd")))
        || matches!(word, "th" | "st" | "nd" | "rd" | "am" | "pm" | "AM" | "PM")
}

impl Reader<'_> {
    /// Feet and inches by their marks: `5'6"`, `5' 6 1/2''`, `66''`.
    pub(super) fn feet(&self, tokens: &[Token]) -> Option<Value> {
        let mark = |t: &Token| is(Some(t), '\'');
        let [Token { tok: Tok::Num(_), .. }, .., last] = tokens else { return None };
        if !mark(last) || tokens.iter().any(|t| is_cmd(Some(t), "circ")) {
            return None;
        }
        let first = tokens.iter().position(mark)?;
        let double = tokens.get(first + 1).is_some_and(mark);
        // One mark: feet or minutes of arc; two: inches or seconds.
        if first + 1 + usize::from(double) == tokens.len() {
            let (length, arc) = if double { ("in", "arcsec") } else { ("ft", "arcmin") };
            let both = [unit::readings(length)?, unit::readings(arc)?].concat();
            return Some(Value::Scalar(scalar(&tokens[..first], self.steps)?, Some(Unit::Measure(Measure(both)))));
        }
        let foot = |n: i64| Rational::new((n * 254).into(), 10_000.into());
        let mut terms = Vec::new();
        let mut rest = tokens;
        if !double {
            terms.push(Expr::Mul(vec![scalar(&tokens[..first], self.steps)?, number(foot(12))]));
            rest = &tokens[first + 1..];
            if let [dash, inner @ ..] = rest
                && is(Some(dash), '-')
            {
                rest = inner;
            }
        }
        if let [inches @ .., a, b] = rest {
            if !mark(a) || !mark(b) || inches.iter().any(mark) {
                return None;
            }
            terms.push(Expr::Mul(vec![scalar(inches, self.steps)?, number(foot(1))]));
        } else if !rest.is_empty() {
            return None;
        }
        Some(Value::Scalar(Expr::Add(terms), Some(unit::named("m")?)))
    }
}

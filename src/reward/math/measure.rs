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
const MAX_POWER: i32 = 12;
/// Longest number before a unit, in tokens.
const MAX_AMOUNT: usize = 60;
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
    if !begins(rest, after_number) {
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
    let mut parser = Units { pieces: &pieces, at: 0, known: true, unknown: false };
    let measure = parser.product(0)?;
    (parser.at == pieces.len() && !parser.unknown && measure != Measure::one()).then_some(measure)
}

/// An amount whose unit may read as letters: `5m`, `15 N m`, `9.8m/s^2`. Nothing where anything else is in it.
pub(super) fn amount(tokens: &[Token], steps: &Steps) -> Option<Value> {
    let tokens = match tokens.iter().rposition(|t| is(Some(t), '=') || is_cmd(Some(t), "approx")) {
        Some(at) => &tokens[at + 1..],
        None => tokens,
    };
    // The longest unit: 5 N m is no 5 N times m.
    (1..tokens.len().min(MAX_AMOUNT)).find_map(|at| {
        let begins = matches!(&tokens[at].tok, Tok::Word(_) | Tok::Text(_) | Tok::Cmd(_) | Tok::Sym('%' | '^'));
        let unit = begins.then(|| sure(&tokens[at..]))??;
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
                || unit::CURRENCIES.iter().any(|m| m.0 == *c)
                || (*c == '*' && matches!(rest.get(1).map(|t| &t.tok), Some(Tok::Text(_))))
        }
        Tok::Num(_) => false,
    }
}

/// A command that is the sign of a unit.
fn sign(command: &str) -> Option<&'static str> {
    Some(match command {
        "circ" => "\u{b0}",
        "mu" | "micro" | "textmu" => "\u{b5}",
        "Omega" | "ohm" | "textohm" => "\u{3a9}",
        "AA" | "angstrom" => "\u{c5}",
        "celsius" | "textcelsius" | "degreeCelsius" => "\u{b0}C",
        "fahrenheit" | "degreeFahrenheit" => "\u{b0}F",
        "permil" | "perthousand" | "textperthousand" => "\u{2030}",
        "euro" | "EUR" | "texteuro" => "euro",
        "pounds" | "textsterling" => "pounds sterling",
        "yen" | "textyen" => "yen",
        "cent" | "textcent" => "cent",
        "arcminute" => "arcmin",
        "arcsecond" => "arcsec",
        "ell" => "L",
        _ => return None,
    })
}

/// What a unit is written with.
#[derive(Clone, PartialEq, Debug)]
enum Piece {
    Name(String),
    Number(Rational),
    Power(i32),
    Times,
    Over,
    Open,
    Close,
}

/// Over, under and the rest of a fraction.
fn fraction(tokens: &[Token]) -> Option<(&[Token], &[Token], &[Token])> {
    let group = |tokens: &[Token]| {
        let mut level = 0;
        for (i, t) in tokens.iter().enumerate() {
            level += i32::from(is(Some(t), '{')) - i32::from(is(Some(t), '}'));
            if level == 0 {
                return (i > 0).then_some(i);
            }
        }
        None
    };
    let over = group(tokens.get(1..)?)? + 1;
    let under = group(tokens.get(over + 1..)?)? + over + 1;
    Some((&tokens[2..over], &tokens[over + 2..under], &tokens[under + 1..]))
}

/// The pieces of a unit; `None` for what no unit is written with.
fn pieces(tokens: &[Token]) -> Option<Vec<Piece>> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(t) = tokens.get(at) {
        at += 1;
        match &t.tok {
            Tok::Word(w) => word(&mut out, w, t.spaced),
            Tok::Text(text) => words(&mut out, text)?,
            Tok::Cmd(c) if c == "frac" => {
                let (over, under, rest) = fraction(&tokens[at - 1..])?;
                out.extend([vec![Piece::Open], pieces(over)?, vec![Piece::Close, Piece::Over, Piece::Open]].concat());
                out.extend([pieces(under)?, vec![Piece::Close]].concat());
                at = tokens.len() - rest.len();
            }
            Tok::Cmd(c) if c == "circ" => {
                // Degrees Celsius, in Unicode or after the sign.
                match tokens.get(at).map(|t| &t.tok) {
                    Some(Tok::Word(w) | Tok::Text(w)) if unit::known(&format!("\u{b0}{}", w.trim())) => {
                        at += 1;
                        out.push(Piece::Name(format!("\u{b0}{}", w.trim())));
                    }
                    Some(Tok::Word(w) | Tok::Text(w)) if unit::known(&format!("degree {}", w.trim())) => {
                        at += 1;
                        out.push(Piece::Name(format!("degree {}", w.trim())));
                    }
                    // Braces around the letter.
                    Some(Tok::Sym('{' | '}')) if at < tokens.len() => {
                        let letter = tokens[at..].iter().find(|t| !matches!(t.tok, Tok::Sym('{' | '}')));
                        match letter.map(|t| &t.tok) {
                            Some(Tok::Word(w) | Tok::Text(w)) if unit::known(&format!("\u{b0}{}", w.trim())) => {
                                out.push(Piece::Name(format!("\u{b0}{}", w.trim())));
                                at = tokens.len()
                                    - tokens[at..].iter().rev().take_while(|t| *t != letter.unwrap_or(t)).count();
                            }
                            _ => out.push(Piece::Name("\u{b0}".to_owned())),
                        }
                    }
                    _ => out.push(Piece::Name("\u{b0}".to_owned())),
                }
            }
            Tok::Cmd(c) => word(&mut out, sign(c)?, t.spaced),
            Tok::Sym('/') => out.push(Piece::Over),
            Tok::Sym('*') => out.push(Piece::Times),
            Tok::Sym('(') => out.push(Piece::Open),
            Tok::Sym(')') => out.push(Piece::Close),
            Tok::Sym('{' | '}') => {}
            Tok::Sym('-') => out.push(Piece::Times),
            Tok::Sym('%') => out.push(Piece::Name("%".to_owned())),
            Tok::Sym('^') if is_cmd(tokens.get(at), "circ") || is_cmd(tokens.get(at + 1), "circ") => {}
            Tok::Sym('^') => {
                while is(tokens.get(at), '{') || is(tokens.get(at), '(') {
                    at += 1;
                }
                let negative = is(tokens.get(at), '-');
                at += usize::from(negative || is(tokens.get(at), '+'));
                let Some(Tok::Num(n)) = tokens.get(at).map(|t| &t.tok) else { return None };
                at += 1;
                let n: i32 = n.parse().ok().filter(|n| *n <= MAX_POWER)?;
                // A bracket of the power closes here.
                at += usize::from(is(tokens.get(at), ')') && !out.contains(&Piece::Open));
                out.push(Piece::Power(if negative { -n } else { n }));
            }
            Tok::Sym(c) => {
                let (_, name) = unit::CURRENCIES.iter().find(|m| m.0 == *c)?;
                out.push(Piece::Name((*name).to_owned()));
            }
            Tok::Num(n) if !t.spaced && matches!(out.last(), Some(Piece::Name(_))) => {
                out.push(Piece::Power(n.parse().ok().filter(|n| *n <= MAX_POWER)?));
            }
            Tok::Num(n) if matches!(out.last(), Some(Piece::Over)) => {
                out.push(Piece::Number(super::numeral::number(n).and_then(|e| match e {
                    Expr::Num { value, .. } if value > Rational::from_integer(0.into()) => Some(value),
                    _ => None,
                })?));
            }
            Tok::Num(_) => return None,
        }
    }
    Some(out)
}

/// One word: a sign joins the letter that belongs to it.
fn word(out: &mut Vec<Piece>, word: &str, spaced: bool) {
    if word.chars().any(unit::is_dense) {
        match unit::english(word) {
            // Words that only mark a count.
            Some(words) if words.is_empty() => out.push(Piece::Name("unit".to_owned())),
            Some(words) => words.into_iter().for_each(|w| self::word(out, w, true)),
            None => out.push(Piece::Name(word.to_owned())),
        }
        return;
    }
    match word {
        "per" => out.push(Piece::Over),
        "cent" | "mille" | "mil" | "mill" if out.last() == Some(&Piece::Over) => {
            out.pop();
            out.push(Piece::Name(format!("per {word}")));
        }
        // Per thousand inhabitants.
        w if out.last() == Some(&Piece::Over) && super::number_words::scale(w).is_some() => {
            let n = super::number_words::scale(w).unwrap_or(1);
            out.push(Piece::Number(Rational::from_integer(n.into())));
        }
        "each" | "every" if !out.is_empty() => out.push(Piece::Over),
        // A dollar a day.
        "a" | "an" if matches!(out.last(), Some(Piece::Name(_))) => out.push(Piece::Over),
        "a" | "an" | "the" if matches!(out.last(), Some(Piece::Over)) => {}
        "squared" => out.push(Piece::Power(2)),
        "cubed" => out.push(Piece::Power(3)),
        w => {
            if let Some(Piece::Name(last)) = out.last_mut()
                && !(spaced && w != "\u{3a9}")
                && (last == "\u{b5}" || (w == "\u{3a9}" && matches!(last.as_str(), "k" | "M" | "m" | "G" | "\u{b5}")))
            {
                last.push_str(w);
            } else if let Some(Piece::Name(last)) = out.last_mut()
                && last == "\u{b5}"
            {
                last.push_str(w);
            } else {
                out.push(Piece::Name(w.to_owned()));
            }
        }
    }
}

/// The words and signs of a text.
fn words(out: &mut Vec<Piece>, text: &str) -> Option<()> {
    let chars: Vec<char> = text.chars().collect();
    let mut at = 0;
    let mut spaced = true;
    while let Some(&c) = chars.get(at) {
        let run = |keep: &dyn Fn(char) -> bool| chars[at..].iter().take_while(|c| keep(**c)).collect::<String>();
        match c {
            c if c.is_alphabetic()
                || matches!(c, '\u{b0}' | '\u{2103}' | '\u{2109}' | '$' | '\'' | '"')
                || unit::CURRENCIES.iter().any(|m| m.0 == c) =>
            {
                let name = run(&|c: char| {
                    c.is_alphabetic()
                        || matches!(c, '\u{b0}' | '\u{2103}' | '\u{2109}' | '$' | '\'' | '"')
                        || unit::CURRENCIES.iter().any(|m| m.0 == c)
                });
                at += name.chars().count();
                let plain = match unit::CURRENCIES.iter().find(|m| name.starts_with(m.0)) {
                    Some((_, currency)) if name.chars().count() == 1 => currency,
                    _ => name.as_str(),
                };
                // The degree sign stands apart from its letter.
                if let Some(Piece::Name(last)) = out.last_mut()
                    && last == "\u{b0}"
                    && unit::known(&format!("\u{b0}{plain}"))
                {
                    last.push_str(plain);
                } else {
                    word(out, plain, spaced);
                }
                spaced = false;
                continue;
            }
            c if c.is_ascii_digit() => {
                let digits = run(&|c: char| c.is_ascii_digit());
                at += digits.len();
                let n: i32 = digits.parse().ok()?;
                match out.last() {
                    Some(Piece::Power(p)) if *p == 0 || *p == i32::MIN => {
                        let sign = if *p == 0 { 1 } else { -1 };
                        out.pop();
                        out.push(Piece::Power(sign * Some(n).filter(|n| *n <= MAX_POWER)?));
                    }
                    Some(Piece::Name(_)) => out.push(Piece::Power(Some(n).filter(|n| *n <= MAX_POWER)?)),
                    Some(Piece::Over) if n > 0 => out.push(Piece::Number(Rational::from_integer(n.into()))),
                    _ => return None,
                }
                continue;
            }
            '/' => out.push(Piece::Over),
            '*' | '\u{b7}' | '\u{22c5}' | '\u{d7}' => out.push(Piece::Times),
            // The digits follow.
            '^' => out.push(Piece::Power(0)),
            '-' | '\u{2212}' => match out.last() {
                Some(Piece::Power(0)) => {
                    out.pop();
                    out.push(Piece::Power(i32::MIN));
                }
                Some(Piece::Name(_)) if chars.get(at + 1).is_some_and(char::is_ascii_digit) => {
                    out.push(Piece::Power(i32::MIN))
                }
                _ => out.push(Piece::Times),
            },
            '(' => out.push(Piece::Open),
            ')' => out.push(Piece::Close),
            '%' | '\u{2030}' => out.push(Piece::Name(c.to_string())),
            ' ' | '{' | '}' | '.' | ',' | '~' => {}
            _ => return None,
        }
        spaced = matches!(c, ' ' | '~');
        at += 1;
    }
    // A power sign with nothing behind it.
    (!out.iter().any(|p| matches!(p, Piece::Power(0 | i32::MIN)))).then_some(())
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
        let (last, head) = words.split_last()?;
        let mut name = head.iter().map(|w| w.to_lowercase() + " ").collect::<String>();
        name.push_str(&unit::singular(last));
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

//! The pieces that units are written with: words, signs, powers, fractions, in LaTeX and plain text.

use super::Rational;
use super::expr::Expr;
use super::lex::{Tok, Token};
use super::measure::{MAX_PIECES, MAX_POWER};
use super::scalar::{is, is_cmd};
use super::unit;

/// A command that is the sign of a unit.
pub(super) fn sign(command: &str) -> Option<&'static str> {
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
pub(super) enum Piece {
    /// A word or a sign.
    Name(String),
    /// A factor under the line.
    Number(Rational),
    /// A power of what stands before it.
    Power(i32),
    /// A product.
    Times,
    /// What follows is under the line.
    Over,
    /// A bracket opens.
    Open,
    /// A bracket closes.
    Close,
}

/// Over, under and the rest of a fraction.
pub(super) fn fraction(tokens: &[Token]) -> Option<(&[Token], &[Token], &[Token])> {
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
pub(super) fn pieces(tokens: &[Token]) -> Option<Vec<Piece>> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(t) = tokens.get(at) {
        at += 1;
        if out.len() > MAX_PIECES {
            return None;
        }
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
            // s-1
            Tok::Sym('-')
                if !t.spaced
                    && matches!(out.last(), Some(Piece::Name(_)))
                    && matches!(tokens.get(at), Some(Token { tok: Tok::Num(_), spaced: false })) =>
            {
                let Some(Tok::Num(n)) = tokens.get(at).map(|t| &t.tok) else { return None };
                at += 1;
                out.push(Piece::Power(-n.parse().ok().filter(|n: &i32| *n <= MAX_POWER)?));
            }
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
        w if out.last() == Some(&Piece::Over)
            && let Some(n) = super::number_words::scale(w) =>
        {
            out.push(Piece::Number(Rational::from_integer(n)));
        }
        "each" | "every" if !out.is_empty() => out.push(Piece::Over),
        // A dollar a day.
        "a" | "an" if matches!(out.last(), Some(Piece::Name(_))) => out.push(Piece::Over),
        "a" | "an" | "the" if matches!(out.last(), Some(Piece::Over)) => {}
        "hourly" | "daily" | "weekly" | "monthly" | "yearly" | "annually" | "annual" if !out.is_empty() => {
            let unit = match word {
                "hourly" => "hour",
                "daily" => "day",
                "weekly" => "week",
                "monthly" => "month",
                _ => "year",
            };
            out.extend([Piece::Over, Piece::Name(unit.to_owned())]);
        }
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
    if chars.len() > MAX_PIECES * 8 {
        return None;
    }
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

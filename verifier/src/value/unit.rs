//! Parses the unit that words and signs after a number describe.

use crate::lexicon::{self, AXES, Dimension, Kind};
use crate::normalise::is_han;
use crate::steps::Rational;
use crate::value::expr::is_function;
use crate::value::lex::{Tok, Token, is, is_cmd};

/// The unit of an amount.
#[derive(Clone, PartialEq, Debug)]
pub enum Unit {
    /// Percent.
    Percent,
    /// Degrees of arc.
    Degree,
    /// A measure: its dimension and its size in SI units.
    Measure(Dimension, Rational),
    /// A temperature: the zero of its scale and the size of its degree, both in kelvins.
    Temperature(Rational, Rational),
    /// A currency.
    Money(&'static str),
    /// A number base: the digits as written, and the base.
    Base(String, u32),
    /// A position in a sequence: first, 2nd.
    Ordinal,
    /// Counted things, in lower-case words: apples, pages per minute.
    Thing(String),
}

/// Index of the power of dollars in a dimension.
const MONEY: usize = 10;
/// Index of the power of angle in a dimension.
const ANGLE: usize = 7;
/// Maximum number of tokens of a unit.
const MAX_TOKENS: usize = 24;
/// Maximum number of words for counted things.
const MAX_WORDS: usize = 5;

impl Unit {
    /// Returns the unit of one dollar.
    pub(crate) fn dollar() -> Unit {
        let mut dimension = [0; AXES.len()];
        dimension[MONEY] = 1;
        Unit::Measure(dimension, Rational::from_integer(1.into()))
    }

    /// Returns the currency for a sign, a code or a name.
    pub(crate) fn money(name: &str) -> Option<Unit> {
        let one = |money| if money == "dollar" { Unit::dollar() } else { Unit::Money(money) };
        lexicon::currency(name).map(one)
    }

    /// Returns true for an angle in radians or a similar unit.
    pub(crate) fn is_angle(&self) -> bool {
        matches!(self, Unit::Measure(d, _) if d[ANGLE] == 1 && d.iter().filter(|p| **p != 0).count() == 1)
    }

    /// Returns true for dollars and cents, and for units that are plain numbers, such as parts per million.
    pub(crate) fn is_number(&self) -> bool {
        matches!(self, Unit::Measure(d, _) if d.iter().enumerate().all(|(n, p)| *p == i8::from(n == MONEY)) || d.iter().all(|p| *p == 0))
    }

    /// Returns true for the word "unit" and its powers, which do not give a size.
    pub(crate) fn is_silent(&self) -> bool {
        let plain = |t: &str| matches!(t, "unit" | "square unit" | "cubic unit" | "sq unit" | "unit^2" | "unit^3");
        matches!(self, Unit::Thing(t) if plain(&t.replace("units", "unit")))
    }

    /// Returns the unit for a sign or a name.
    pub(crate) fn named(name: &str) -> Option<Unit> {
        let known = lexicon::unit(name)?;
        Some(match known.name {
            "percent" | "percentage point" => Unit::Percent,
            "degree" => Unit::Degree,
            _ => match known.zero {
                Some(zero) => Unit::Temperature(zero, known.size),
                None if known.pi == 0 => Unit::Measure(known.dimension, known.size),
                None => return None,
            },
        })
    }
}

/// One word or sign of a unit, and its power.
struct Part {
    name: String,
    power: i32,
}

/// The parts of a unit read so far.
struct Parts {
    parts: Vec<Part>,
    /// Sign of the power of the next part: -1 after "per" or a slash, otherwise 1.
    over: i32,
}

impl Parts {
    fn push(&mut self, name: String) {
        self.parts.push(Part { name, power: self.over });
    }

    /// Adds a word. The word is joined to the preceding word if that word is "square" or "cubic", if neither word is a
    /// unit, or if both together are one unit.
    fn word(&mut self, text: &str) {
        let known = |t: &str| lexicon::unit(t).is_some();
        let joined = self.parts.last_mut().filter(|p| {
            let last = p.name.to_lowercase();
            let power = matches!(last.as_str(), "square" | "sq" | "sq." | "cubic" | "cu" | "cu." | "平方" | "立方");
            p.power == self.over && (power || (!known(&p.name) && !known(text)) || known(&format!("{} {text}", p.name)))
        });
        match joined {
            Some(part) => {
                part.name.push(' ');
                part.name.push_str(text);
            }
            None => self.push(text.to_owned()),
        }
    }

    fn raise(&mut self, power: i32) -> Option<()> {
        self.parts.last_mut()?.power *= power;
        (power.abs() < 10).then_some(())
    }

    /// Reads the words of a `\text`: `m/s^2`, `kg m2`, `pages per minute`.
    fn text(&mut self, text: &str) -> Option<()> {
        let plain = text.replace('/', " / ").replace('%', " % ").replace(['^', '*', '{', '}', '(', ')', ','], " ");
        for word in plain.split_whitespace() {
            match word {
                "per" | "/" => self.over = -1,
                w => {
                    // A word with a power: m2, m^2, s-1.
                    let letters = w.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
                    let power = &w[letters.len()..];
                    if letters.is_empty() {
                        self.raise(power.parse().ok()?)?;
                    } else {
                        self.word(letters);
                        if !power.trim_matches('-').is_empty() {
                            self.raise(power.parse().ok()?)?;
                        }
                    }
                }
            }
        }
        Some(())
    }

    /// Reads a sign of a unit, which begins at token `at`. Returns the number of tokens used.
    fn sign(&mut self, rest: &[Token], at: usize) -> Option<usize> {
        let word = |n: usize| match rest.get(n).map(|t| &t.tok) {
            Some(Tok::Word(w) | Tok::Text(w)) => Some(w.trim()),
            _ => None,
        };
        let mut used = 1;
        match &rest[at].tok {
            Tok::Cmd(c) if c == "circ" => {
                match word(at + 1).filter(|w| lexicon::unit(&format!("degree {w}")).is_some()) {
                    Some(scale) => {
                        self.push(format!("degree {scale}"));
                        used = 2;
                    }
                    None => self.word("degree"),
                }
            }
            // A prefix joins the sign after it.
            Tok::Cmd(c) if c == "mu" => {
                let ohm = is_cmd(rest.get(at + 1), "Omega").then_some("\u{3a9}");
                self.push(format!("\u{b5}{}", word(at + 1).or(ohm)?));
                used = 2;
            }
            Tok::Cmd(c) if c == "Omega" => {
                match self.parts.last_mut().filter(|p| matches!(p.name.as_str(), "k" | "M" | "m")) {
                    Some(part) => part.name.push('\u{3a9}'),
                    None => self.push("\u{3a9}".to_owned()),
                }
            }
            Tok::Sym('/') => self.over = -1,
            Tok::Sym('*' | '{' | '}' | '(' | ')' | '-') => {}
            Tok::Sym('^') if is_cmd(rest.get(at + 1), "circ") || is_cmd(rest.get(at + 2), "circ") => {}
            Tok::Sym('^') => {
                let mut to = at + 1;
                while is(rest.get(to), '{') || is(rest.get(to), '(') {
                    to += 1;
                }
                let negative = is(rest.get(to), '-');
                to += usize::from(negative);
                let Some(Tok::Num(n)) = rest.get(to).map(|t| &t.tok) else { return None };
                let n: i32 = n.parse().ok()?;
                self.raise(if negative { -n } else { n })?;
                used = to + 1 - at;
            }
            Tok::Sym(c) if *c == '%' || lexicon::currency(&c.to_string()).is_some() => self.word(&c.to_string()),
            Tok::Num(n) if !rest[at].spaced && !self.parts.is_empty() => self.raise(n.parse().ok()?)?,
            _ => return None,
        }
        Some(used)
    }

    /// Combines all parts into one unit. Returns `None` for words that are neither a unit nor a countable thing.
    fn unit(&self) -> Option<Unit> {
        if let [Part { name, power: 1 }] = self.parts.as_slice() {
            if let Some(unit) = Unit::named(name) {
                return Some(unit);
            }
            if matches!(name.as_str(), "st" | "nd" | "rd" | "th") {
                return Some(Unit::Ordinal);
            }
            if let Some(money) = Unit::money(name) {
                return Some(money);
            }
        }
        if let Some(measure) = self.measure() {
            return Some(measure);
        }
        let words: Option<Vec<String>> = self
            .parts
            .iter()
            .map(|p| {
                // Unit names are canonical here, too: "minutes" and "min" are equal in "pages per minute".
                let name = lexicon::unit(&p.name).map(|u| u.name.to_owned()).or_else(|| thing(&p.name))?;
                Some(if p.power == 1 { name } else { format!("{name}^{}", p.power) })
            })
            .collect();
        words.filter(|w| !w.is_empty()).map(|w| Unit::Thing(w.join(" ")))
    }

    fn measure(&self) -> Option<Unit> {
        let (mut dimension, mut size) = ([0i8; AXES.len()], Rational::from_integer(1.into()));
        for part in &self.parts {
            // Powers as words: square meters, cubic feet.
            let (first, rest) = part.name.split_once(' ').unwrap_or(("", &part.name));
            let (name, power) = match first.to_lowercase().as_str() {
                "square" | "sq" | "sq." | "平方" => (rest, 2),
                "cubic" | "cu" | "cu." | "立方" => (rest, 3),
                _ => (part.name.as_str(), 1),
            };
            let known = lexicon::unit(name).filter(|u| u.pi == 0)?;
            let power = power * part.power;
            if power.abs() > 9 {
                return None;
            }
            for (total, one) in dimension.iter_mut().zip(known.dimension) {
                *total = total.saturating_add(one.saturating_mul(power as i8));
            }
            size *= known.size.pow(power);
        }
        (!self.parts.is_empty()).then_some(Unit::Measure(dimension, size))
    }
}

/// Returns the words that name a counted or measured thing, in lower case. Returns `None` if a word has
/// another role, such as a negation or a month.
pub(crate) fn thing(words: &str) -> Option<String> {
    use Kind::*;
    let more = [Denial, Modifier, Joint, Reason, Way, Shows, Cardinal, Scale, Option, Month];
    let says_more = |w: &str| more.iter().any(|kind| lexicon::is(*kind, w));
    let kept: Vec<&str> = words.split_whitespace().filter(|w| !lexicon::is(Idle, w)).collect();
    let plain = |w: &&str| {
        (w.chars().count() > 1 || (w.starts_with(is_han) && !"多余半".contains(*w)))
            && w.chars().all(|c| c.is_alphabetic() || c == '-')
            && !says_more(w)
    };
    if kept.is_empty() || kept.len() > MAX_WORDS || !kept.iter().all(plain) {
        return None;
    }
    Some(kept.join(" ").to_lowercase())
}

/// Returns true for countable things in the plural: apples, people.
pub(crate) fn is_plural(thing: &str) -> bool {
    let last = thing.rsplit(' ').next().unwrap_or(thing);
    let irregular = matches!(last, "people" | "men" | "women" | "children") || last.starts_with(is_han);
    !thing.contains('^') && ((last.ends_with('s') && !last.ends_with("ss") && last.len() > 3) || irregular)
}

/// Parses `rest`, all remaining tokens, as a unit. Returns `None` if it is something else. Without a number before it,
/// only words in `\text` are a unit.
pub(crate) fn trailing(rest: &[Token], after_number: bool) -> Option<Unit> {
    let rest = without_idle(rest);
    if rest.len() > MAX_TOKENS || !begins(rest, after_number) {
        return None;
    }
    // Drops a purpose after the unit: 8 hours to finish.
    if let Some(at) = rest.iter().position(|t| matches!(&t.tok, Tok::Word(w) if w == "to")).filter(|&at| at > 0) {
        let plain = |t: &Token| matches!(&t.tok, Tok::Word(w) if ![Kind::Way, Kind::Cardinal].iter().any(|k| lexicon::is(*k, w)));
        return if rest[at + 1..].iter().all(plain) { trailing(&rest[..at], after_number) } else { None };
    }
    let (mut parts, mut at) = (Parts { parts: Vec::new(), over: 1 }, 0);
    while let Some(t) = rest.get(at) {
        match &t.tok {
            Tok::Word(w) if matches!(w.as_str(), "per" | "a" | "an" | "pro" | "每") => parts.over = -1,
            Tok::Word(w) => parts.word(w),
            Tok::Text(text) => parts.text(text)?,
            _ => at += parts.sign(rest, at)? - 1,
        }
        at += 1;
    }
    parts.unit()
}

/// Removes words at the end that do not change a unit: 7 meters long, 24 in total.
fn without_idle(mut rest: &[Token]) -> &[Token] {
    let idle = |t: &Token| matches!(&t.tok, Tok::Word(w) | Tok::Text(w) if lexicon::is(Kind::Idle, w));
    let within = |t: &Token| matches!(&t.tok, Tok::Word(w) | Tok::Text(w) if w.trim() == "in");
    let mut any = false;
    while let [inner @ .., last] = rest
        && !inner.is_empty()
        && (idle(last) || (any && within(last)))
    {
        (rest, any) = (inner, true);
    }
    rest
}

/// Returns true if a unit can begin here.
fn begins(rest: &[Token], after_number: bool) -> bool {
    let Some(first) = rest.first() else { return false };
    match &first.tok {
        Tok::Text(_) => true,
        Tok::Word(w) if matches!(w.as_str(), "k" | "M" | "m") && is_cmd(rest.get(1), "Omega") => after_number,
        Tok::Word(w) => after_number && begins_unit(w, first.spaced, rest.len()),
        Tok::Cmd(c) => c == "circ" || (matches!(c.as_str(), "mu" | "Omega") && after_number),
        Tok::Sym('*') => matches!(rest.get(1).map(|t| &t.tok), Some(Tok::Text(_))),
        Tok::Sym(c) => matches!(c, '%' | '^') || lexicon::currency(&c.to_string()).is_some(),
        Tok::Num(_) => false,
    }
}

/// Returns true if a word after a number begins the unit of the number and is not a variable or a function.
fn begins_unit(word: &str, spaced: bool, words: usize) -> bool {
    let relation = matches!(word, "sqrt" | "pi" | "infinity" | "and" | "or" | "choose" | "mod");
    if (is_function(word) && word != "min") || lexicon::is(Kind::Greek, word) || relation {
        return false;
    }
    let known = || lexicon::unit(word).is_some() || lexicon::currency(word).is_some();
    match word.chars().count() {
        // "5 m" has a unit, "5 x" and "5m" do not.
        1 => word.starts_with(is_han) || (spaced && words <= 16 && words != 2 && "mgshLlNJWVKACFTM".contains(word)),
        2 if matches!(word, "st" | "nd" | "rd" | "th") => true,
        2 => lexicon::is_sign(word) || (spaced && (known() || words > 1)),
        3 => lexicon::is_sign(word) || spaced || known(),
        _ => true,
    }
}

//! Values written as JSON or as Python literals.

use crate::python;

/// Maximum depth of nested values.
const MAX_DEPTH: usize = 64;

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Literal {
    /// A text.
    Text(String),
    /// A number as it is written, and its value.
    Number(String, f64),
    /// `None`, `True` and `False`, as Python writes them.
    Word(&'static str),
    /// A list, a tuple or a set.
    List(Vec<Literal>),
    /// Keys with their values, in order.
    Object(Vec<(Literal, Literal)>),
}

impl Literal {
    /// Parses a text that consists of one value. JSON's escapes and Python's are both read.
    pub fn parse(text: &str) -> Option<Literal> {
        let mut reader = Reader { rest: text.trim() };
        let value = reader.value(0)?;
        reader.rest.trim().is_empty().then_some(value)
    }

    /// Returns the value as Python's `str` writes it; nested values as their parts.
    pub fn to_text(&self) -> String {
        match self {
            Literal::Text(text) | Literal::Number(text, _) => text.clone(),
            Literal::Word(word) => (*word).to_owned(),
            Literal::List(all) => all.iter().map(Literal::to_text).collect::<Vec<_>>().join(", "),
            Literal::Object(all) => {
                let pair = |(key, value): &(Literal, Literal)| format!("{}: {}", key.to_text(), value.to_text());
                all.iter().map(pair).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// Returns the number, also of a text that is one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Literal::Number(_, value) => Some(*value),
            Literal::Text(text) => python::strip(text).parse().ok(),
            Literal::Word("True") => Some(1.0),
            Literal::Word("False") => Some(0.0),
            _ => None,
        }
    }

    /// Returns the value of a key of an object; the last one if it is repeated.
    pub fn get(&self, key: &str) -> Option<&Literal> {
        let Literal::Object(all) = self else { return None };
        all.iter().rev().find(|(name, _)| matches!(name, Literal::Text(name) if name == key)).map(|(_, value)| value)
    }
}

/// Returns the items of a list as texts.
pub fn list(text: &str) -> Option<Vec<String>> {
    match Literal::parse(text)? {
        Literal::List(items) => Some(items.iter().map(Literal::to_text).collect()),
        _ => None,
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn take(&mut self, text: &str) -> bool {
        self.rest = self.rest.trim_start();
        let behind = self.rest.strip_prefix(text);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    fn value(&mut self, depth: usize) -> Option<Literal> {
        if depth > MAX_DEPTH {
            return None;
        }
        for (open, close) in [("[", "]"), ("(", ")")] {
            if self.take(open) {
                let (items, separated) = self.items(close, |reader| reader.value(depth + 1))?;
                // Brackets around one value without a comma only group it.
                return match <[Literal; 1]>::try_from(items) {
                    Ok([item]) if open == "(" && !separated => Some(item),
                    Ok(item) => Some(Literal::List(item.into())),
                    Err(items) => Some(Literal::List(items)),
                };
            }
        }
        if self.take("{") {
            return self.braces(depth);
        }
        if let Some(quote) = self.rest.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            return self.text(quote).map(Literal::Text);
        }
        for (word, other) in [("None", "null"), ("True", "true"), ("False", "false")] {
            if self.take(word) || self.take(other) {
                return Some(Literal::Word(word));
            }
        }
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.' | '_'));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        let value = number.parse().ok().filter(|value: &f64| value.is_finite())?;
        self.rest = rest;
        Some(Literal::Number(number.to_owned(), value))
    }

    /// Reads items up to `close`. Also returns whether a comma stands behind the last one.
    fn items<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<(Vec<T>, bool)> {
        let (mut items, mut separated) = (Vec::new(), false);
        while !self.take(close) {
            if !items.is_empty() && !separated {
                return None;
            }
            items.push(item(self)?);
            separated = self.take(",");
        }
        Some((items, separated))
    }

    fn braces(&mut self, depth: usize) -> Option<Literal> {
        let mut is_set = false;
        let (pairs, _) = self.items("}", |reader| {
            let key = reader.value(depth + 1)?;
            if reader.take(":") {
                return Some((key, Some(reader.value(depth + 1)?)));
            }
            is_set = true;
            Some((key, None))
        })?;
        if is_set {
            let keys = pairs.into_iter().map(|(key, value)| value.is_none().then_some(key));
            return keys.collect::<Option<_>>().map(Literal::List);
        }
        pairs.into_iter().map(|(key, value)| Some((key, value?))).collect::<Option<_>>().map(Literal::Object)
    }

    fn text(&mut self, quote: char) -> Option<String> {
        let (mut out, mut chars) = (String::new(), self.rest.char_indices().skip(1));
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[at + c.len_utf8()..];
                return Some(out);
            }
            if c != '\\' {
                out.push(c);
                continue;
            }
            let (_, escaped) = chars.next()?;
            match escaped {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'b' => out.push('\u{8}'),
                'f' => out.push('\u{c}'),
                'x' => out.push(char::from(code(&mut chars, 2)? as u8)),
                'u' => {
                    let mut units = vec![code(&mut chars, 4)?];
                    if (0xD800..0xDC00).contains(&units[0]) {
                        chars.nth(1)?;
                        units.push(code(&mut chars, 4)?);
                    }
                    out.push_str(&String::from_utf16(&units).ok()?);
                }
                c if matches!(c, '"' | '\'' | '\\' | '/') => out.push(c),
                c => out.extend(['\\', c]),
            }
        }
        None
    }
}

/// Reads hexadecimal digits.
fn code(chars: &mut impl Iterator<Item = (usize, char)>, digits: usize) -> Option<u16> {
    let hex: String = chars.take(digits).map(|(_, c)| c).collect();
    u16::from_str_radix(&hex, 16).ok()
}

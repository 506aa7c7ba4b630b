//! Parses values like Python's `ast.literal_eval` and formats them like `str`. Columns of published data sets contain
//! lists in this form. Bytes are not supported.

use serde_json::Value;

use super::{exact, repr};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `None`, `True`, `False` or a number, as Python writes it.
    Plain(String),
    /// A string.
    Text(String),
    /// A list, tuple or set, with its brackets.
    Many(Vec<Literal>, [&'static str; 2]),
    /// A dictionary that is not empty.
    Map(Vec<(Literal, Literal)>),
    /// An expression that is not a literal, such as a name, a call or a sum.
    Other,
}

/// Maximum nesting depth.
const DEEPEST: usize = 64;

/// Parses one value. Spaces around it are allowed. The error is the name of the exception that Python raises: a
/// `SyntaxError` if the text is not an expression, and a `ValueError` if the expression would have to be evaluated.
pub fn eval(text: &str) -> Result<Literal, &'static str> {
    let mut reader = Reader { rest: text.trim_start_matches([' ', '\t']), depth: 0 };
    let value = reader.tuple("").filter(|_| !text.trim().is_empty()).ok_or("SyntaxError")?;
    if value.is_other() { Err("ValueError") } else { Ok(value) }
}

impl Literal {
    /// Formats the value like `str(value)`.
    pub fn str(&self) -> String {
        match self {
            Literal::Text(text) => text.clone(),
            other => other.repr(),
        }
    }

    fn repr(&self) -> String {
        match self {
            Literal::Plain(plain) => plain.clone(),
            Literal::Text(text) => quoted(text),
            Literal::Many(values, [open, close]) => {
                let inside: Vec<String> = values.iter().map(Literal::repr).collect();
                let comma = if *open == "(" && values.len() == 1 { "," } else { "" };
                format!("{open}{}{comma}{close}", inside.join(", "))
            }
            Literal::Map(pairs) => {
                let pairs: Vec<String> =
                    pairs.iter().map(|(key, value)| format!("{}: {}", key.repr(), value.repr())).collect();
                format!("{{{}}}", pairs.join(", "))
            }
            Literal::Other => String::new(),
        }
    }

    /// Returns the value as JSON. The keys of dictionaries become texts.
    pub fn json(&self) -> Value {
        match self {
            Literal::Plain(plain) => exact::from_str(&plain.to_lowercase()).unwrap_or_default(),
            Literal::Text(text) => Value::String(text.clone()),
            Literal::Many(values, ["{", _]) if values.is_empty() => Value::Object(serde_json::Map::new()),
            Literal::Many(values, _) => values.iter().map(Literal::json).collect(),
            Literal::Map(pairs) => pairs.iter().map(|(key, value)| (key.str(), value.json())).collect(),
            Literal::Other => Value::Null,
        }
    }

    fn is_other(&self) -> bool {
        match self {
            Literal::Other => true,
            Literal::Many(values, _) => values.iter().any(Literal::is_other),
            Literal::Map(pairs) => pairs.iter().any(|(key, value)| key.is_other() || value.is_other()),
            _ => false,
        }
    }
}

/// Quotes a string like `repr`.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// Names that are literals.
const CONSTANTS: [&str; 3] = ["None", "True", "False"];

/// Binary operators, longest first.
const OPERATORS: [&str; 12] = ["**", "//", "==", "<=", ">=", "+", "-", "*", "/", "%", "<", ">"];

struct Reader<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.spaces();
        let found = self.rest.strip_prefix(token);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    /// Parses values up to `close`, or up to the end of the text if `close` is empty. The bool is true if there was a
    /// comma between or after them.
    fn list(&mut self, close: &str) -> Option<(Vec<Literal>, bool)> {
        let (mut values, mut comma) = (Vec::new(), false);
        while !self.ends(close) {
            if !values.is_empty() {
                if !self.eat(",") {
                    return None;
                }
                comma = true;
                if self.ends(close) {
                    break;
                }
            }
            values.push(self.sum()?);
        }
        Some((values, comma))
    }

    /// Reads `close`. If it is empty, returns true at the end of the text.
    fn ends(&mut self, close: &str) -> bool {
        self.eat(close) && (!close.is_empty() || self.rest.is_empty())
    }

    /// Parses a tuple up to `close`. A single value without a comma after it is that value.
    fn tuple(&mut self, close: &str) -> Option<Literal> {
        let (mut values, comma) = self.list(close)?;
        if values.len() == 1 && !comma { values.pop() } else { Some(Literal::Many(values, ["(", ")"])) }
    }

    /// Parses a set or a dictionary up to its end.
    fn braces(&mut self) -> Option<Literal> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        while !self.eat("}") {
            if !keys.is_empty() {
                if !self.eat(",") {
                    return None;
                }
                if self.eat("}") {
                    break;
                }
            }
            keys.push(self.sum()?);
            if self.eat(":") {
                values.push(self.sum()?);
            }
        }
        match values.len() {
            0 => Some(Literal::Many(keys, ["{", "}"])),
            len if len == keys.len() => Some(Literal::Map(keys.into_iter().zip(values).collect())),
            _ => None,
        }
    }

    fn sum(&mut self) -> Option<Literal> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return None;
        }
        let mut value = self.value()?;
        while OPERATORS.iter().any(|operator| self.eat(operator)) {
            self.value()?;
            value = Literal::Other;
        }
        self.depth -= 1;
        Some(value)
    }

    fn value(&mut self) -> Option<Literal> {
        self.spaces();
        let mut value = if self.eat("-") {
            match self.value()? {
                Literal::Plain(number) if number.starts_with(|c: char| c.is_ascii_digit()) => {
                    Literal::Plain(format!("-{number}"))
                }
                _ => Literal::Other,
            }
        } else if self.eat("+") {
            self.value()?
        } else if self.eat("[") {
            Literal::Many(self.list("]")?.0, ["[", "]"])
        } else if self.eat("(") {
            self.tuple(")")?
        } else if self.eat("{") {
            self.braces()?
        } else if self.rest.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
            self.number()?
        } else {
            self.word()?
        };
        // A value that is called, indexed or followed by an attribute is not a literal.
        loop {
            let found = if self.eat("(") {
                self.list(")").map(drop)
            } else if self.eat("[") {
                self.list("]").map(drop)
            } else if self.eat(".") {
                self.name().map(drop)
            } else {
                return Some(value);
            };
            found?;
            value = Literal::Other;
        }
    }

    fn number(&mut self) -> Option<Literal> {
        let bytes = self.rest.as_bytes();
        let sign = |i: usize| matches!(bytes[i], b'+' | b'-') && matches!(bytes[i - 1], b'e' | b'E');
        let part = |i: usize| bytes[i].is_ascii_alphanumeric() || b"._".contains(&bytes[i]) || (i > 0 && sign(i));
        let end = (0..bytes.len()).find(|&i| !part(i)).unwrap_or(bytes.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        let digits = number.replace('_', "");
        if let Ok(whole) = digits.parse::<u128>() {
            // A number with a leading zero is invalid, unless it is zero.
            let zero = whole == 0 || !digits.starts_with('0');
            return zero.then(|| Literal::Plain(whole.to_string()));
        }
        let plain = digits.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
        let float: f64 = digits.parse().ok().filter(|_| plain)?;
        Some(Literal::Plain(repr(float)))
    }

    fn name(&mut self) -> Option<&'a str> {
        self.spaces();
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return None;
        }
        self.rest = rest;
        Some(name)
    }

    /// Parses a name, or a string with its prefix. Adjacent strings are joined.
    fn word(&mut self) -> Option<Literal> {
        let mut text: Option<String> = None;
        loop {
            self.spaces();
            let at = self.rest;
            let prefix = self.name().unwrap_or_default();
            let raw = prefix.eq_ignore_ascii_case("r");
            if !self.rest.starts_with(['\'', '"']) {
                return match text {
                    Some(text) => {
                        self.rest = at;
                        Some(Literal::Text(text))
                    }
                    None if prefix.is_empty() => None,
                    None if CONSTANTS.contains(&prefix) => Some(Literal::Plain(prefix.to_owned())),
                    None => Some(Literal::Other),
                };
            }
            if !prefix.is_empty() && !raw && !prefix.eq_ignore_ascii_case("u") {
                return None;
            }
            text.get_or_insert_default().push_str(&self.string(raw)?);
        }
    }

    fn string(&mut self, raw: bool) -> Option<String> {
        let one = &self.rest[..1];
        let three = one.repeat(3);
        let quote = if self.rest.starts_with(&three) { three.as_str() } else { one };
        let mut rest = &self.rest[quote.len()..];
        let mut out = String::new();
        loop {
            if let Some(after) = rest.strip_prefix(quote) {
                self.rest = after;
                return Some(out);
            }
            let c = rest.chars().next()?;
            rest = &rest[c.len_utf8()..];
            match c {
                '\n' if quote.len() == 1 => return None,
                '\\' if raw => {
                    let next = rest.chars().next()?;
                    out.extend(['\\', next]);
                    rest = &rest[next.len_utf8()..];
                }
                '\\' => rest = escape(rest, &mut out)?,
                c => out.push(c),
            }
        }
    }
}

/// Parses an escape sequence after its backslash and appends the result to `out`. Returns the rest of the text.
fn escape<'a>(rest: &'a str, out: &mut String) -> Option<&'a str> {
    let c = rest.chars().next()?;
    let after = &rest[c.len_utf8()..];
    let code = |digits: usize| {
        let text = after.get(..digits)?;
        char::from_u32(u32::from_str_radix(text, 16).ok()?).map(|c| (c, &after[digits..]))
    };
    let (c, after) = match c {
        '\n' => return Some(after),
        'n' => ('\n', after),
        't' => ('\t', after),
        'r' => ('\r', after),
        'a' => ('\u{7}', after),
        'b' => ('\u{8}', after),
        'f' => ('\u{c}', after),
        'v' => ('\u{b}', after),
        '\\' | '\'' | '"' => (c, after),
        'x' => code(2)?,
        'u' => code(4)?,
        'U' => code(8)?,
        '0'..='7' => {
            let end = rest.find(|c| !('0'..='7').contains(&c)).unwrap_or(rest.len()).min(3);
            (char::from_u32(u32::from_str_radix(&rest[..end], 8).ok()?)?, &rest[end..])
        }
        // Before any other character, a backslash stands for itself.
        c => {
            out.push('\\');
            (c, after)
        }
    };
    out.push(c);
    Some(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_and_written_as_python_does() {
        for (text, want) in [
            ("['7', '8']", "['7', '8']"),
            ("[7, 12.5, -3, None]", "[7, 12.5, -3, None]"),
            (r#"["It's", 'a "b"', "it's \"c\""]"#, r#"["It's", 'a "b"', 'it\'s "c"']"#),
            (r"['\\frac{1}{7}', '\n', r'\n', 'a' 'b', 'é\x41B\0']", r"['\\frac{1}{7}', '\n', '\\n', 'ab', 'éAB\x00']"),
            (" (1, ('a',), [], True) ", "(1, ('a',), [], True)"),
            ("1e3", "1000.0"),
            ("'x' , ", "('x',)"),
            ("1_000", "1000"),
            ("{'a': [1, {2: None}], 'b' : 'c',}", "{'a': [1, {2: None}], 'b': 'c'}"),
            ("{1, 2,}", "{1, 2}"),
        ] {
            assert_eq!(eval(text).map(|v| v.repr()), Ok(want.to_owned()), "{text}");
        }
        assert_eq!(eval("'\\d'").map(|v| v.str()), Ok("\\d".to_owned()));
    }

    #[test]
    fn what_is_no_literal_is_told_from_what_is_no_expression() {
        for text in ["A, B", "(1+2)", "__import__('os').system('x')", "[a]", "x[0]", "-'a'", "{}.get(1)"] {
            assert_eq!(eval(text), Err("ValueError"), "{text}");
        }
        for text in
            ["not a list", "['a', 'b'", "", "[1 2]", "'a", "'a\nb'", "01", "[,]", "1..", "b c", "{'a': 1, 2}", "{,}"]
        {
            assert_eq!(eval(text), Err("SyntaxError"), "{text}");
        }
        assert!(eval(&"[".repeat(100_000)).is_err());
    }
}

//! Writes JSON as Python's `json.dumps` does, because chat templates print tools and arguments with it.

use std::fmt::Write;

use serde_json::{Number, Value};

/// Arguments of `json.dumps`.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// True to write non-ASCII characters as `\uXXXX`.
    pub ensure_ascii: bool,
    /// True to sort object keys in ascending order.
    pub sort_keys: bool,
    /// Indentation of each level, with one item per line; `None` writes everything on one line.
    pub indent: Option<String>,
    /// Separators between items and between key and value. `None` uses Python's defaults.
    pub separators: Option<(String, String)>,
}

/// Returns the text that Python writes for `value`.
pub fn dumps(value: &Value, style: &Style) -> String {
    let item = if style.indent.is_some() { "," } else { ", " };
    let separators = style.separators.clone().unwrap_or((item.to_owned(), ": ".to_owned()));
    let mut writer = Writer { out: String::new(), style, item: separators.0, key: separators.1, depth: 0 };
    writer.value(value);
    writer.out
}

struct Writer<'a> {
    out: String,
    style: &'a Style,
    item: String,
    key: String,
    depth: usize,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.out.push_str("null"),
            Value::Bool(true) => self.out.push_str("true"),
            Value::Bool(false) => self.out.push_str("false"),
            Value::Number(n) => self.out.push_str(&number(n)),
            Value::String(s) => self.string(s),
            Value::Array(items) => self.items('[', ']', items, |w, item| w.value(item)),
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                if self.style.sort_keys {
                    entries.sort_by_key(|(k, _)| k.as_str());
                }
                self.items('{', '}', &entries, |w, (key, value)| {
                    w.string(key);
                    w.out.push_str(&w.key.clone());
                    w.value(value);
                });
            }
        }
    }

    fn items<T>(&mut self, open: char, close: char, items: &[T], each: impl Fn(&mut Self, &T)) {
        self.out.push(open);
        self.depth += 1;
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out.push_str(&self.item.clone());
            }
            self.new_line();
            each(self, item);
        }
        self.depth -= 1;
        if !items.is_empty() {
            self.new_line();
        }
        self.out.push(close);
    }

    fn new_line(&mut self) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            self.out.push_str(&indent.repeat(self.depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if c < ' ' || (self.style.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(self.out, "\\u{unit:04x}").expect("writing to a string");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

/// Formats a number as Python does.
pub fn number(n: &Number) -> String {
    n.as_f64().filter(|_| n.is_f64()).map_or_else(|| n.to_string(), repr)
}

/// Formats a float as Python's `repr` does.
pub fn repr(x: f64) -> String {
    // Uses the shortest digits that parse to the same value. Python writes an exponent below 1e-4 and from 1e16 on.
    let scientific = format!("{x:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(e) if (-4..16).contains(&e) => {
            let plain = x.to_string();
            if plain.contains('.') { plain } else { format!("{plain}.0") }
        }
        Ok(e) => format!("{digits}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs()),
        Err(_) => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (x, expected) in [
            (1.0, "1.0"),
            (-0.5, "-0.5"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.25e-7, "1.25e-07"),
        ] {
            assert_eq!(dumps(&Value::from(x), &Style::default()), expected);
        }
        assert_eq!(dumps(&Value::from(u64::MAX), &Style::default()), "18446744073709551615");
    }

    #[test]
    fn layout_is_pythons() {
        let value = serde_json::json!({"b": [1, "\u{e9}\u{1f600}\n\u{1}"], "a": {}, "c": []});
        let plain = "{\"b\": [1, \"\u{e9}\u{1f600}\\n\\u0001\"], \"a\": {}, \"c\": []}";
        assert_eq!(dumps(&value, &Style::default()), plain);
        let ascii = Style { ensure_ascii: true, sort_keys: true, ..Style::default() };
        assert_eq!(dumps(&value, &ascii), r#"{"a": {}, "b": [1, "\u00e9\ud83d\ude00\n\u0001"], "c": []}"#);
        let indented = Style { indent: Some("  ".to_owned()), ..Style::default() };
        assert_eq!(dumps(&serde_json::json!({"a": [1, 2]}), &indented), "{\n  \"a\": [\n    1,\n    2\n  ]\n}");
    }
}

//! Parses JSON with all digits of its integers. An integer that fits neither `i64` nor `u64` becomes a text, because
//! `serde_json` rounds it to a float. (Its feature `arbitrary_precision` changes numbers in the whole program.)

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Result, Value};

/// Parses a JSON text.
pub fn from_str(text: &str) -> Result<Value> {
    let value = serde_json::from_str(text)?;
    if is_rounded(&value) { serde_json::from_str(&quoted(text)) } else { Ok(value) }
}

/// Returns true if a value may contain an integer that was rounded to a float.
pub fn is_rounded(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64() && number.as_f64().is_some_and(|x| x.abs() >= i64::MAX as f64),
        Value::Array(list) => list.iter().any(is_rounded),
        Value::Object(map) => map.values().any(is_rounded),
        _ => false,
    }
}

/// Puts the integers of a JSON text that fit neither `i64` nor `u64` into quotes.
pub fn quoted(text: &str) -> Cow<'_, str> {
    static TOKENS: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#""(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*"#).ok());
    let Some(tokens) = &*TOKENS else { return text.into() };
    tokens.replace_all(text, |token: &Captures| {
        let token = &token[0];
        let is_integer = token.bytes().skip(1).all(|byte| byte.is_ascii_digit()) && !token.starts_with('"');
        let fits = || token.parse::<i64>().is_ok() || token.parse::<u64>().is_ok();
        if is_integer && !fits() { format!("\"{token}\"") } else { token.to_owned() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_any_length_keep_their_digits_and_other_numbers_stay_numbers() {
        let text = r#"{"a": [123456789012345678901234567890, -9223372036854775809], "b": "1\"23456789012345678901234",
            "c": 1e30, "d": 18446744073709551615, "e": 18446744073709551616, "f": 0.1}"#;
        let value = from_str(text).unwrap();
        let want = serde_json::json!({"a": ["123456789012345678901234567890", "-9223372036854775809"],
            "b": "1\"23456789012345678901234", "c": 1e30, "d": u64::MAX, "e": "18446744073709551616", "f": 0.1});
        assert_eq!(value, want);
        assert_eq!(quoted("[1, 2.5, \"\\\\\"]"), "[1, 2.5, \"\\\\\"]");
    }
}

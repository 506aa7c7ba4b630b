//! Parses JSON with all digits of its integers. An integer that fits neither `i64` nor `u64` becomes a text, because
//! `serde_json` rounds it to a float. (Its feature `arbitrary_precision` changes numbers in the whole program.)

use std::borrow::Cow;

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
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        let start = at;
        at += 1;
        match bytes[start] {
            b'"' => {
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                at += bytes[at..]
                    .iter()
                    .take_while(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
                    .count();
                let token = &text[start..at];
                let is_integer = token.bytes().skip(1).all(|byte| byte.is_ascii_digit());
                if is_integer && token.len() > 18 && token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
                    out.push_str(&format!("{}\"{token}\"", &text[copied..start]));
                    copied = at;
                }
            }
            _ => {}
        }
    }
    if copied == 0 { text.into() } else { (out + &text[copied..]).into() }
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
        assert!(matches!(quoted("[1, 2.5, \"\\\\\"]"), Cow::Borrowed(_)));
    }
}

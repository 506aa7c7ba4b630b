//! Reads the fields of a request one by one. Each error names the field. A field that nobody reads is an error, so no
//! field is ignored in silence.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::errors::{Api, ApiError};

/// The fields of a JSON object that are not read yet. A field that is `null` counts as absent.
pub struct Fields {
    map: Map<String, Value>,
    /// Name of the object in errors, for example `sampling_params.`.
    prefix: String,
}

impl Fields {
    /// Reads an object. `place` names it in errors; empty for the request itself.
    pub fn new(value: Value, place: &str) -> Api<Fields> {
        let Value::Object(map) = value else {
            return Err(ApiError::field(if place.is_empty() { "body" } else { place }, kind(&value), "an object"));
        };
        Ok(Fields { map, prefix: if place.is_empty() { String::new() } else { format!("{place}.") } })
    }

    /// Returns the name of a field in errors.
    pub fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    /// Takes a field of any type.
    pub fn take(&mut self, field: &str) -> Option<Value> {
        self.map.shift_remove(field).filter(|value| !value.is_null())
    }

    /// Takes a field and converts it. `expected` describes valid values.
    pub fn read<T>(&mut self, field: &str, expected: &str, convert: impl Fn(&Value) -> Option<T>) -> Api<Option<T>> {
        let Some(value) = self.take(field) else { return Ok(None) };
        convert(&value).map(Some).ok_or_else(|| ApiError::field(self.name(field), short(&value), expected))
    }

    /// Takes a string.
    pub fn string(&mut self, field: &str) -> Api<Option<String>> {
        self.read(field, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// Takes a boolean.
    pub fn bool(&mut self, field: &str, default: bool) -> Api<bool> {
        Ok(self.read(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    /// Takes a whole number.
    pub fn count(&mut self, field: &str, range: RangeInclusive<u64>) -> Api<Option<u64>> {
        let expected = match *range.end() {
            u64::MAX => format!("a whole number from {}", range.start()),
            end => format!("a whole number from {} to {end}", range.start()),
        };
        self.read(field, &expected, |value| value.as_u64().filter(|n| range.contains(n)))
    }

    /// Takes a number.
    pub fn number(&mut self, field: &str, default: f32, range: RangeInclusive<f64>) -> Api<f32> {
        let (from, to) = (*range.start(), *range.end());
        let is_open = from == f64::from(f32::MIN_POSITIVE);
        let expected =
            if is_open { format!("a number above 0, up to {to}") } else { format!("a number from {from} to {to}") };
        let number = |value: &Value| value.as_f64().filter(|x| range.contains(x)).map(|x| x as f32);
        Ok(self.read(field, &expected, number)?.unwrap_or(default))
    }

    /// Takes a list of token ids below `vocab_size`.
    pub fn ids(&mut self, field: &str, vocab_size: usize) -> Api<Option<Vec<u32>>> {
        let expected = format!("a list of token ids below {vocab_size}");
        self.read(field, &expected, |value| ids(value, vocab_size))
    }

    /// Takes an object.
    pub fn object(&mut self, field: &str) -> Api<Option<Fields>> {
        let name = self.name(field);
        self.take(field).map(|value| Fields::new(value, &name)).transpose()
    }

    /// Takes fields that are supported with one value only. `why` explains why.
    pub fn only(&mut self, fields: &[(&str, Value)], why: &str) -> Api<()> {
        for (field, value) in fields {
            if let Some(found) = self.take(field).filter(|found| !equal(found, value)) {
                return Err(ApiError::field(self.name(field), short(&found), format!("{value} ({why})")));
            }
        }
        Ok(())
    }

    /// Takes fields that have no effect on the answer, whatever their value.
    pub fn without_effect(&mut self, fields: &[&str]) {
        fields.iter().for_each(|field| drop(self.take(field)));
    }

    /// Returns an error if a field was not read.
    pub fn end(self) -> Api<()> {
        match self.map.iter().find(|(_, value)| !value.is_null()) {
            Some((field, _)) => {
                let name = self.name(field);
                Err(ApiError::field(name, "a field that is not supported", "the fields listed in docs/user/serving.md"))
            }
            None => Ok(()),
        }
    }
}

/// Returns the token ids of a list, or `None` if it contains something else or an id of at least `vocab_size`.
pub fn ids(value: &Value, vocab_size: usize) -> Option<Vec<u32>> {
    let id = |id: &Value| id.as_u64().filter(|&id| id < vocab_size as u64).map(|id| id as u32);
    value.as_array()?.iter().map(id).collect()
}

fn equal(a: &Value, b: &Value) -> bool {
    a == b || (a.is_number() && a.as_f64() == b.as_f64())
}

/// Returns a value as text for an error, shortened.
pub fn short(value: &Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        Value::Array(_) | Value::Object(_) => return kind(value).to_owned(),
        other => other.to_string(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

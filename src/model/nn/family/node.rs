//! Reads the values of `config.json`. Errors name the file and the JSON pointer.

use serde_json::{Map, Value};

use omr_base::error::{Error, Result};

/// Upper limits for the number of layers in a stack and for all other sizes. Both are far above any model, and low enough
/// that no product of sizes overflows.
const MOST_LAYERS: usize = 1 << 10;
const LARGEST: usize = 1 << 24;

/// An object of the file with its JSON pointer.
#[derive(Clone)]
pub struct Node<'a> {
    place: String,
    map: &'a Map<String, Value>,
}

impl<'a> Node<'a> {
    /// Returns the node of a whole file. `place` names the file in errors.
    pub fn root(value: &'a Value, place: &str) -> Result<Node<'a>> {
        let map = value.as_object().ok_or_else(|| Error::input(place, kind(value), "an object"))?;
        Ok(Node { place: format!("{place} "), map })
    }

    /// Returns the place of a key for errors.
    pub fn at(&self, key: &str) -> String {
        format!("{}/{key}", self.place)
    }

    /// Returns the value of a key, unless it is null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// Returns true if a key has a value.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Returns the object under a key.
    pub fn child(&self, key: &str) -> Result<Option<Node<'a>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| Error::input(self.at(key), kind(value), "an object"))?;
        Ok(Some(Node { place: self.at(key), map }))
    }

    /// Reads a positive count or an id.
    pub fn usize(&self, key: &str, default: Option<usize>) -> Result<usize> {
        let Some(value) = self.get(key) else {
            return default.ok_or_else(|| Error::input(self.at(key), "nothing", "a number"));
        };
        let most = if matches!(key, "num_hidden_layers" | "depth") { MOST_LAYERS } else { LARGEST };
        let sane = value.as_u64().filter(|&n| n <= most as u64 && (n > 0 || key.ends_with("_id")));
        let expected = || format!("a whole number from 1 to {most}");
        sane.map(|n| n as usize).ok_or_else(|| Error::input(self.at(key), value.to_string(), expected()))
    }

    /// Reads an id or a list of ids below `vocab_size`; an empty list if there is none.
    pub fn ids(&self, key: &str, vocab_size: usize) -> Result<Vec<u32>> {
        let list = match self.get(key) {
            Some(Value::Array(list)) => &list[..],
            one => one.map_or(&[][..], std::slice::from_ref),
        };
        let id = |value: &Value| {
            let id = value.as_u64().filter(|&id| id < vocab_size as u64).map(|id| id as u32);
            let expected = || format!("a whole number below vocab_size, {vocab_size}, or a list of them");
            id.ok_or_else(|| Error::input(self.at(key), value.to_string(), expected()))
        };
        list.iter().map(id).collect()
    }

    /// Returns the keys of the object.
    pub fn keys(&self) -> impl Iterator<Item = &'a String> {
        self.map.keys()
    }

    /// Reads a positive number.
    pub fn f64(&self, key: &str, default: Option<f64>) -> Result<f64> {
        let Some(value) = self.get(key) else {
            return default.ok_or_else(|| Error::input(self.at(key), "nothing", "a positive number"));
        };
        let sane = value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
        sane.ok_or_else(|| Error::input(self.at(key), value.to_string(), "a positive number"))
    }

    /// Reads true or false.
    pub fn bool(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| Error::input(self.at(key), value.to_string(), "true or false"))
    }

    /// Reads a list of whole numbers.
    pub fn list(&self, key: &str, default: Option<&[usize]>) -> Result<Vec<usize>> {
        let expected = format!("a list of whole numbers from 0 to {LARGEST}");
        let wrong = |found: String| Error::input(self.at(key), found, &*expected);
        let Some(value) = self.get(key) else {
            return default.map(<[usize]>::to_vec).ok_or_else(|| wrong("nothing".into()));
        };
        let all = value
            .as_array()
            .map(|a| a.iter().map(|n| n.as_u64().filter(|n| *n <= LARGEST as u64)).collect::<Option<Vec<u64>>>());
        let all = all.flatten().ok_or_else(|| wrong(value.to_string()))?;
        Ok(all.into_iter().map(|n| n as usize).collect())
    }

    /// Errors if a key has a value that is not one of `valid`.
    pub fn one_of(&self, key: &str, valid: &[&str]) -> Result<()> {
        let wrong = self.get(key).filter(|value| !valid.iter().any(|valid| *value == valid));
        let Some(value) = wrong else { return Ok(()) };
        Err(Error::input(self.at(key), value.to_string(), valid.join(" or ")))
    }

    /// Errors with what was found and expected unless `holds` is true.
    pub fn require(&self, key: &str, found: impl ToString, holds: bool, expected: &str) -> Result<()> {
        if holds { Ok(()) } else { Err(Error::input(self.at(key), found.to_string(), expected)) }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

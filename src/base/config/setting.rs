//! A single config key: how it is read, written, checked and described.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::table::entries;
use super::{MOST_SEQUENCES, MOST_STEPS};
use crate::error::{Error, Result};
use crate::secrets;

/// Returns `path.name`, or `name` if `path` is empty.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Constraint on the numbers or texts of a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Every value of the type.
    Any,
    /// At least this number.
    AtLeast(f64),
    /// More than this number.
    Above(f64),
    /// Between the two numbers, both included.
    Within(f64, f64),
    /// A text or list that is not empty.
    NotEmpty,
}

impl Rule {
    /// Updates of a run, and intervals of them.
    pub const STEPS: Rule = Rule::Within(1.0, MOST_STEPS);
    /// Sequences of a batch, and requests at once.
    pub const SEQUENCES: Rule = Rule::Within(1.0, MOST_SEQUENCES);
    /// Tokens of a sequence or of a pass, at most 2^20.
    pub const TOKENS: Rule = Rule::Within(1.0, 1_048_576.0);
    /// Blocks of the KV cache, at most 2^22.
    pub const BLOCKS: Rule = Rule::Within(1.0, 4_194_304.0);
    /// Pixels of an image, at most 2^30.
    pub const PIXELS: Rule = Rule::Within(784.0, 1_073_741_824.0);

    /// Describes what the rule allows. Empty if it allows every value.
    pub fn words(self) -> String {
        match self {
            Rule::Any => String::new(),
            Rule::AtLeast(low) => format!("{low} or more"),
            Rule::Above(low) => format!("more than {low}"),
            Rule::Within(low, high) if low == high => low.to_string(),
            Rule::Within(low, high) => format!("a number from {low} to {high}"),
            Rule::NotEmpty => "not empty".to_owned(),
        }
    }

    /// Returns `None` if the value satisfies the rule, otherwise a description of the expected value.
    fn broken_by(self, value: &Value) -> Option<String> {
        let number = value.as_f64();
        match (self, value) {
            (Rule::Any, _) | (_, Value::Null) => None,
            (Rule::NotEmpty, Value::String(s)) => s.is_empty().then(|| "a non-empty text".to_owned()),
            (Rule::NotEmpty, Value::Array(a)) => a.is_empty().then(|| "at least one entry".to_owned()),
            (Rule::NotEmpty, _) => None,
            (_, Value::Array(list)) => list.iter().find_map(|v| self.broken_by(v)),
            (Rule::AtLeast(low), _) => number.filter(|n| *n < low).map(|_| self.words()),
            (Rule::Above(low), _) => number.filter(|n| *n <= low).map(|_| self.words()),
            (Rule::Within(low, high), _) => number.filter(|n| *n < low || *n > high).map(|_| self.words()),
        }
    }

    /// Adds the rule to a JSON schema.
    pub(super) fn limit(self, schema: &mut Value) {
        match self {
            Rule::Any => {}
            Rule::AtLeast(low) => schema["minimum"] = low.into(),
            Rule::Above(low) => schema["exclusiveMinimum"] = low.into(),
            Rule::Within(low, high) => (schema["minimum"], schema["maximum"]) = (low.into(), high.into()),
            Rule::NotEmpty => (schema["minLength"], schema["minItems"]) = (1.into(), 1.into()),
        }
    }
}

/// Permission to change a key when a run is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safe {
    /// Not allowed, because the result would change.
    No,
    /// Allowed, because the key does not affect the weights.
    Yes,
    /// Allowed if the value increases, as for the number of steps.
    WhenMore,
}

/// Properties of a key other than its type, default and description.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meta {
    /// Allowed values.
    pub rule: Rule,
    /// Names of the key in other systems, separated by `; `: the system, the name, and in parentheses what differs.
    pub name: &'static str,
    /// Value used by the published recipe.
    pub published: &'static str,
    /// Heading of the group that begins with this key in the list of `omr config`. Empty if the key is in the same group as
    /// the one before.
    pub group: &'static str,
    /// Permission to change the key on resume.
    pub safe: Safe,
    /// Value, as YAML, with which a run continues if its `config.yaml` is older than the key. `None` is the default.
    pub older: Option<&'static str>,
}

impl Meta {
    /// Properties of a key that exists only in omr and has no published value.
    pub const NONE: Meta = Meta { rule: Rule::Any, name: "", published: "", group: "", safe: Safe::No, older: None };
}

/// A key as `omr config` lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Dotted path. `[]` stands for the index of a list.
    pub path: String,
    /// Type in words.
    pub kind: String,
    /// Default as YAML.
    pub default: String,
    /// Description of the key.
    pub meaning: String,
    /// The other properties of the key.
    pub meta: Meta,
}

/// Origin of a config value, for messages.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The config file, if there is one.
    pub file: Option<PathBuf>,
    /// Dotted paths of the keys given on the command line.
    pub overridden: BTreeSet<String>,
}

impl Place {
    /// Returns the origin of the key `path`: `FILE: key`, or `command line: key` if the command line sets the key. If
    /// there is no file, returns `command line: key` if the command line sets any key, and `key` otherwise.
    pub fn of(&self, path: &str) -> String {
        if self.file.is_none() && self.overridden.is_empty() {
            return path.to_owned();
        }
        format!("{}: {path}", self.origin(path))
    }

    /// Errors unless `is_right`: the key `path` has the value `found`, which other keys do not allow.
    pub(super) fn check(&self, is_right: bool, path: &str, found: impl ToString, expected: &str) -> Result<()> {
        if is_right { Ok(()) } else { Err(Error::input(self.of(path), found.to_string(), expected)) }
    }

    /// Errors if the keys `top_k` and `top_p` of the group `path` sample from no token.
    pub(super) fn check_sampling(&self, path: &str, top_k: i64, top_p: f64) -> Result<()> {
        self.check(top_k != 0, &join(path, "top_k"), 0, "-1 (all tokens) or 1 and more")?;
        self.check(top_p != 0.0, &join(path, "top_p"), 0, "more than 0")
    }

    /// Returns the file, or `command line` if the command line sets the key `path`.
    pub fn origin(&self, path: &str) -> String {
        let typed = |o: &String| o == path || path.starts_with(&format!("{o}.")) || o.starts_with(&format!("{path}."));
        let file = self.file.as_ref().filter(|_| !self.overridden.iter().any(typed));
        file.map_or("command line".to_owned(), |file| file.display().to_string())
    }
}

/// A config value that is read from JSON and written to JSON.
pub trait Setting {
    /// Sets this setting from the JSON `value`. If `value` is an object, keys that are missing in it keep their old
    /// values. After an error, this setting must not be used.
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()>;
    /// Returns this setting as JSON.
    fn write(&self) -> Value;
    /// Returns the type in words.
    fn kind(&self) -> String;
    /// Returns the JSON schema of the values that a file may contain.
    fn schema(&self) -> Value {
        json!({})
    }
    /// Returns true if `value` sets nothing where the setting is optional: null, or an empty text for a path.
    fn is_unset(value: &Value) -> bool
    where
        Self: Sized,
    {
        value.is_null()
    }
    /// Appends the keys under `path`, with this value as their default.
    fn describe(&self, path: &str, meaning: &str, meta: Meta, out: &mut Vec<Key>) {
        let default = crate::config::describe::inline(&self.write());
        out.push(Key { path: path.to_owned(), kind: self.kind(), default, meaning: meaning.to_owned(), meta });
    }
    /// Checks this value, found at `path`, against `rule`.
    fn check(&self, place: &Place, path: &str, rule: Rule) -> Result<()> {
        let value = self.write();
        let Some(expected) = rule.broken_by(&value) else { return Ok(()) };
        Err(Error::input(place.of(path), crate::config::describe::inline(&value), expected))
    }
}

fn wrong<T: Setting>(wanted: &T, place: &Place, path: &str, value: &Value) -> Error {
    Error::input(place.of(path), crate::config::describe::inline(value), wanted.kind())
}

/// Stores `read` in `wanted`. Returns an error with the expected type if `read` is `None`.
fn put<T: Setting>(wanted: &mut T, place: &Place, path: &str, value: &Value, read: Option<T>) -> Result<()> {
    *wanted = read.ok_or_else(|| wrong(wanted, place, path, value))?;
    Ok(())
}

/// Implements [`Setting`] for types of one value, each with its name in words, its JSON types, a function that reads it
/// and, if it differs from null, a function that returns true for no value.
macro_rules! values {
    ($($ty:ty: $kind:literal, $json:expr, $read:expr $(, unset: $unset:expr)?;)+) => { $(
        impl Setting for $ty {
            fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
                put(self, place, path, value, $read(value))
            }
            fn write(&self) -> Value {
                serde_json::to_value(self).unwrap_or_default()
            }
            fn kind(&self) -> String {
                $kind.to_owned()
            }
            fn schema(&self) -> Value {
                json!({ "type": $json })
            }
            $( fn is_unset(value: &Value) -> bool {
                $unset(value)
            } )?
        }
    )+ };
}

values! {
    usize: "a whole number, 0 to 2^40", "integer", count;
    u64: "a whole number, 0 or more", "integer", whole;
    u32: "a whole number, 0 or more", "integer", whole;
    i64: "a whole number, at most 2^40", "integer", count;
    f64: "a number", "number", |value: &Value| value.as_f64().filter(|number| number.is_finite());
    bool: "true or false", "boolean", Value::as_bool;
    String: "a text", ["string", "number"], text;
    PathBuf: "a path", ["string", "number"], |value: &Value| text(value).map(PathBuf::from), unset: |value: &Value| value.is_null() || value == "";
}

/// Reads a count. Products of two or three counts stay below 2^64, or are checked where they are computed.
fn count<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    whole::<i128>(value).filter(|number| *number <= 1 << 40).and_then(|number| T::try_from(number).ok())
}

/// Reads a whole number. 1e3 is accepted, although YAML parses it as a float.
fn whole<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    let float = value.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15);
    let whole = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from)).or(float.map(|f| f as i128));
    whole.and_then(|number| T::try_from(number).ok())
}

/// Reads a text. Numbers are accepted, because a model may be named 2024, which YAML parses as a number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        _ => None,
    }
}

/// A text that is read but never written, so that API keys do not reach run directories and logs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Option<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(..)" } else { "Secret(none)" })
    }
}

impl Setting for Secret {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        // The error must not quote the value.
        let found = || Error::input(place.of(path), "something else (not shown)", self.kind());
        let read = if value.is_null() { None } else { Some(text(value).ok_or_else(found)?) };
        read.iter().for_each(|secret| secrets::keep(secret));
        self.0 = read;
        Ok(())
    }
    fn write(&self) -> Value {
        Value::Null
    }
    fn kind(&self) -> String {
        "a text, never written to disk".to_owned()
    }
}

impl<T: Setting + Default> Setting for Option<T> {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        if T::is_unset(value) {
            *self = None;
            return Ok(());
        }
        self.get_or_insert_default().set(place, path, value)
    }
    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, Setting::write)
    }
    fn kind(&self) -> String {
        format!("{} or null", T::default().kind())
    }
    fn schema(&self) -> Value {
        json!({ "anyOf": [T::default().schema(), { "type": "null" }] })
    }
    fn describe(&self, path: &str, meaning: &str, meta: Meta, out: &mut Vec<Key>) {
        describe_with_entries::<T>(self, path, path, meaning, meta, out);
    }
}

impl<T: Setting + Default> Setting for Vec<T> {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        let entry = |path: &str, value: &Value| {
            let mut entry = T::default();
            entry.set(place, path, value).map(|()| entry)
        };
        *self = match value {
            Value::Array(list) => {
                list.iter().enumerate().map(|(i, v)| entry(&format!("{path}.{i}"), v)).collect::<Result<_>>()?
            }
            value if T::is_unset(value) => Vec::new(),
            // A single entry may be written without a list.
            one => vec![entry(path, one).map_err(|error| match one {
                Value::Object(_) => error,
                _ => wrong(self, place, path, value),
            })?],
        };
        Ok(())
    }
    fn write(&self) -> Value {
        Value::Array(self.iter().map(Setting::write).collect())
    }
    fn kind(&self) -> String {
        format!("a list: {}", T::default().kind())
    }
    fn schema(&self) -> Value {
        let entry = T::default().schema();
        json!({ "anyOf": [{ "type": "array", "items": entry }, entry, { "type": "null" }] })
    }
    fn describe(&self, path: &str, meaning: &str, meta: Meta, out: &mut Vec<Key>) {
        describe_with_entries::<T>(self, path, &format!("{path}[]"), meaning, meta, out);
    }
}

/// Groups of keys under names that the user chooses.
impl<T: Setting + Default> Setting for BTreeMap<String, T> {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        let mut groups = entries(place, path, value)?.into_iter().flatten();
        groups.try_for_each(|(name, value)| self.entry(name.clone()).or_default().set(place, &join(path, name), value))
    }
    fn write(&self) -> Value {
        self.iter().map(|(name, group)| (name.clone(), group.write())).collect()
    }
    fn kind(&self) -> String {
        format!("names, each with {}", T::default().kind())
    }
    fn schema(&self) -> Value {
        json!({ "type": ["object", "null"], "additionalProperties": T::default().schema() })
    }
}

/// Appends the key of `value`, an option or a list with entries of type `T`. Then appends the keys of `T` under
/// `inner`.
fn describe_with_entries<T: Setting + Default>(
    value: &dyn Setting,
    path: &str,
    inner: &str,
    meaning: &str,
    meta: Meta,
    out: &mut Vec<Key>,
) {
    let default = crate::config::describe::inline(&value.write());
    out.push(Key { path: path.to_owned(), kind: value.kind(), default, meaning: meaning.to_owned(), meta });
    let mut keys = Vec::new();
    T::default().describe(inner, "", Meta::NONE, &mut keys);
    out.extend(keys.into_iter().filter(|key| key.path != inner));
}

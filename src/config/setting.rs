//! One key: how it is read, written, checked and described; and the macros that declare keys.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// Which numbers or texts a key admits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Whatever the type admits.
    Any,
    /// At least this.
    AtLeast(f64),
    /// More than this.
    Above(f64),
    /// Between the two, both included.
    Within(f64, f64),
    /// A text or list that is not empty.
    NotEmpty,
}

impl Rule {
    /// `None` when the value keeps the rule, else what was expected.
    fn broken_by(self, value: &Value) -> Option<String> {
        let number = value.as_f64();
        match (self, value) {
            (Rule::Any, _) | (_, Value::Null) => None,
            (Rule::NotEmpty, Value::String(s)) => s.is_empty().then(|| "a text that is not empty".to_owned()),
            (Rule::NotEmpty, Value::Array(a)) => a.is_empty().then(|| "at least one entry".to_owned()),
            (Rule::NotEmpty, _) => None,
            (_, Value::Array(list)) => list.iter().find_map(|v| self.broken_by(v)),
            (Rule::AtLeast(low), _) => number.is_some_and(|n| n < low).then(|| format!("{low} or more")),
            (Rule::Above(low), _) => number.is_some_and(|n| n <= low).then(|| format!("more than {low}")),
            (Rule::Within(low, high), _) => {
                number.is_some_and(|n| n < low || n > high).then(|| format!("a number from {low} to {high}"))
            }
        }
    }
}

/// May this key differ when a run goes on where it stopped?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safe {
    /// No: the result would be another one.
    No,
    /// Yes: it changes no weight.
    Yes,
    /// Only upwards: more steps.
    WhenMore,
}

/// What a key's table line says besides type, default and meaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Meta {
    /// Admitted values.
    pub rule: Rule,
    /// The key's name in verl, lmms-engine or the Hugging Face trainer, with the system in front.
    pub name: &'static str,
    /// The value the published recipe used.
    pub published: &'static str,
    /// May differ on resume.
    pub safe: Safe,
}

impl Meta {
    /// A key of our own with no published value.
    pub const NONE: Meta = Meta { rule: Rule::Any, name: "", published: "", safe: Safe::No };
}

/// One key as `omr config` lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Dotted path; `[]` stands for a list's index.
    pub path: String,
    /// Type in words.
    pub kind: String,
    /// Default as YAML.
    pub default: String,
    /// What it does.
    pub meaning: String,
    /// The rest of its table line.
    pub meta: Meta,
}

/// Where a value came from, for messages.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The config file, when there is one.
    pub file: Option<PathBuf>,
    /// Dotted paths given on the command line.
    pub overridden: BTreeSet<String>,
    /// All keys of this kind of config, for hints.
    pub known: Vec<String>,
}

impl Place {
    /// `FILE: key`, or `command line: key` when an override set it.
    pub fn of(&self, path: &str) -> String {
        let typed = |o: &String| o == path || path.starts_with(&format!("{o}.")) || o.starts_with(&format!("{path}."));
        match &self.file {
            Some(file) if !self.overridden.iter().any(typed) => format!("{}: {path}", file.display()),
            None if self.overridden.is_empty() => path.to_owned(),
            _ => format!("command line: {path}"),
        }
    }
}

/// A value that can be read from and written to a settings tree.
pub trait Setting: Sized + Clone {
    /// Reads `value`; keys a mapping leaves out keep what they have in `base`.
    fn read(place: &Place, path: &str, value: &Value, base: &Self) -> Result<Self>;
    /// The value as a tree.
    fn write(&self) -> Value;
    /// The type in words.
    fn kind() -> String;
    /// Appends the keys under `path` with this value as their default.
    fn describe(&self, path: &str, meaning: &str, meta: Meta, out: &mut Vec<Key>) {
        let default = crate::config::source::inline(&self.write());
        out.push(Key { path: path.to_owned(), kind: Self::kind(), default, meaning: meaning.to_owned(), meta });
    }
    /// Checks `rule` for this value at `path`.
    fn check(&self, place: &Place, path: &str, rule: Rule) -> Result<()> {
        let value = self.write();
        match rule.broken_by(&value) {
            Some(expected) => Err(Error::input(place.of(path), crate::config::source::inline(&value), expected)),
            None => Ok(()),
        }
    }
}

fn wrong<T: Setting>(place: &Place, path: &str, value: &Value) -> Error {
    Error::input(place.of(path), crate::config::source::inline(value), T::kind())
}

macro_rules! whole_number {
    ($($ty:ty),*) => { $(
        impl Setting for $ty {
            fn read(place: &Place, path: &str, value: &Value, _: &Self) -> Result<Self> {
                // 1e3 is a whole number too, whatever YAML calls it.
                let float = value.as_f64().filter(|f| f.fract() == 0.0 && f.abs() < 9e15);
                let whole = value.as_i64().map(i128::from).or(value.as_u64().map(i128::from)).or(float.map(|f| f as i128));
                whole.and_then(|n| <$ty>::try_from(n).ok()).ok_or_else(|| wrong::<Self>(place, path, value))
            }
            fn write(&self) -> Value {
                Value::Number(Number::from(*self))
            }
            fn kind() -> String {
                let sign = if <$ty>::MIN == 0 { "a whole number, 0 or more" } else { "a whole number" };
                sign.to_owned()
            }
        }
    )* };
}
whole_number!(usize, u64, u32, i64);

impl Setting for f64 {
    fn read(place: &Place, path: &str, value: &Value, _: &Self) -> Result<Self> {
        value.as_f64().filter(|f| f.is_finite()).ok_or_else(|| wrong::<Self>(place, path, value))
    }
    fn write(&self) -> Value {
        Number::from_f64(*self).map_or(Value::Null, Value::Number)
    }
    fn kind() -> String {
        "a number".to_owned()
    }
}

impl Setting for bool {
    fn read(place: &Place, path: &str, value: &Value, _: &Self) -> Result<Self> {
        value.as_bool().ok_or_else(|| wrong::<Self>(place, path, value))
    }
    fn write(&self) -> Value {
        Value::Bool(*self)
    }
    fn kind() -> String {
        "true or false".to_owned()
    }
}

impl Setting for String {
    fn read(place: &Place, path: &str, value: &Value, _: &Self) -> Result<Self> {
        match value {
            Value::String(s) => Ok(s.clone()),
            // A model may be called 7b or 2024: YAML reads the latter as a number.
            Value::Number(n) => Ok(n.to_string()),
            _ => Err(wrong::<Self>(place, path, value)),
        }
    }
    fn write(&self) -> Value {
        Value::String(self.clone())
    }
    fn kind() -> String {
        "a text".to_owned()
    }
}

impl Setting for PathBuf {
    fn read(place: &Place, path: &str, value: &Value, _: &Self) -> Result<Self> {
        String::read(place, path, value, &String::new())
            .map(|s| PathBuf::from(Path::new(&s)))
            .map_err(|_| wrong::<Self>(place, path, value))
    }
    fn write(&self) -> Value {
        Value::String(self.display().to_string())
    }
    fn kind() -> String {
        "a path".to_owned()
    }
}

/// A text that is read but never written: keys of servers stay out of run directories and logs.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(pub Option<String>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Secret(..)" } else { "Secret(none)" })
    }
}

impl Setting for Secret {
    fn read(place: &Place, path: &str, value: &Value, _: &Self) -> Result<Self> {
        Ok(Secret(Option::<String>::read(place, path, value, &None)?))
    }
    fn write(&self) -> Value {
        Value::Null
    }
    fn kind() -> String {
        "a text, never written to disk".to_owned()
    }
}

impl<T: Setting + Default> Setting for Option<T> {
    fn read(place: &Place, path: &str, value: &Value, base: &Self) -> Result<Self> {
        if value.is_null() {
            return Ok(None);
        }
        T::read(place, path, value, &base.clone().unwrap_or_default()).map(Some)
    }
    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, Setting::write)
    }
    fn kind() -> String {
        format!("{} or null", T::kind())
    }
    fn describe(&self, path: &str, meaning: &str, meta: Meta, out: &mut Vec<Key>) {
        let default = crate::config::source::inline(&self.write());
        out.push(Key { path: path.to_owned(), kind: Self::kind(), default, meaning: meaning.to_owned(), meta });
        describe_children::<T>(path, out);
    }
}

impl<T: Setting + Default> Setting for Vec<T> {
    fn read(place: &Place, path: &str, value: &Value, _: &Self) -> Result<Self> {
        match value {
            Value::Array(list) => {
                list.iter().enumerate().map(|(i, v)| T::read(place, &format!("{path}.{i}"), v, &T::default())).collect()
            }
            Value::Null => Ok(Vec::new()),
            // One entry need not be written as a list.
            one => T::read(place, path, one, &T::default()).map(|t| vec![t]).map_err(|error| match one {
                Value::Object(_) => error,
                _ => wrong::<Self>(place, path, value),
            }),
        }
    }
    fn write(&self) -> Value {
        Value::Array(self.iter().map(Setting::write).collect())
    }
    fn kind() -> String {
        format!("a list: {}", T::kind())
    }
    fn describe(&self, path: &str, meaning: &str, meta: Meta, out: &mut Vec<Key>) {
        let default = crate::config::source::inline(&self.write());
        out.push(Key { path: path.to_owned(), kind: Self::kind(), default, meaning: meaning.to_owned(), meta });
        describe_children::<T>(&format!("{path}[]"), out);
    }
}

fn describe_children<T: Setting + Default>(path: &str, out: &mut Vec<Key>) {
    let mut inner = Vec::new();
    T::default().describe(path, "", Meta::NONE, &mut inner);
    out.extend(inner.into_iter().filter(|key| key.path != path));
}

/// An unknown key at `path`, with the nearest known one.
pub(crate) fn unknown_key(place: &Place, path: &str, siblings: &[&str]) -> Error {
    let last = path.rsplit('.').next().unwrap_or(path);
    let near = crate::config::nearest(last, siblings.iter().copied()).map(str::to_owned).or_else(|| {
        // Perhaps the right key in the wrong place.
        let elsewhere = place.known.iter().filter(|known| known.rsplit('.').next() == Some(last)).cloned();
        Some(elsewhere.collect::<Vec<_>>().join(" or ")).filter(|names| !names.is_empty())
    });
    let found = format!("the unknown key {last}");
    let expected =
        if siblings.len() <= 6 { format!("one of {}", siblings.join(", ")) } else { "a known one".to_owned() };
    let not_meant = ["lora", "peft", "quant", "load_in_"].iter().any(|word| last.to_ascii_lowercase().contains(word));
    let hint = match near {
        None if not_meant => "omr trains all weights: LoRA and quantised weights are not meant".to_owned(),
        None => "`omr config` lists all keys".to_owned(),
        Some(near) => format!("did you mean {near}?"),
    };
    Error::input_hint(place.of(path), found, expected, hint)
}

/// The entries of a group, or an error that names it.
pub(crate) fn entries<'a>(place: &Place, path: &str, value: &'a Value) -> Result<Option<&'a Map<String, Value>>> {
    match value {
        Value::Object(map) => Ok(Some(map)),
        Value::Null => Ok(None),
        other => {
            let found = crate::config::source::inline(other);
            let name = if path.is_empty() { "the config" } else { path };
            Err(Error::input(place.of(name), found, "keys with values"))
        }
    }
}

/// `path.name`, or `name` at the root.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Declares a group of keys: the struct, its defaults, reader, writer and listing from one table.
/// A line: `/// meaning`, then `name: type = default`, then any of `rule:`, `name:`, `published:`, `safe:`.
/// `struct Group or key`: a plain text in place of the group stands for that key alone.
macro_rules! settings {
    ($(#[$outer:meta])* pub struct $group:ident $(or $short:ident)? {
        $( $(#[doc = $doc:literal])+ $field:ident : $ty:ty = $default:expr $(, $meta:ident : $set:expr)* ; )+
    }) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $group { $( $(#[doc = $doc])+ pub $field: $ty, )+ }

        impl Default for $group {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl $crate::config::Setting for $group {
            fn read(
                place: &$crate::config::Place,
                path: &str,
                value: &serde_json::Value,
                base: &Self,
            ) -> $crate::error::Result<Self> {
                use $crate::config::setting::{entries, join, unknown_key};
                let mut group = base.clone();
                $(
                    let alone = serde_json::json!({ stringify!($short): value });
                    let value = if value.is_string() { &alone } else { value };
                )?
                if let Some(map) = entries(place, path, value)? {
                    for (name, value) in map {
                        let path = join(path, name);
                        match name.as_str() {
                            $( stringify!($field) => {
                                group.$field = <$ty as $crate::config::Setting>::read(place, &path, value, &base.$field)?;
                            } )+
                            _ => return Err(unknown_key(place, &path, &[$( stringify!($field) ),+])),
                        }
                    }
                }
                $( {
                    #[allow(clippy::needless_update)]
                    let meta = $crate::config::Meta { $( $meta: $set, )* ..$crate::config::Meta::NONE };
                    $crate::config::Setting::check(&group.$field, place, &join(path, stringify!($field)), meta.rule)?;
                } )+
                Ok(group)
            }

            fn write(&self) -> serde_json::Value {
                let mut map = serde_json::Map::new();
                $( map.insert(stringify!($field).to_owned(), $crate::config::Setting::write(&self.$field)); )+
                serde_json::Value::Object(map)
            }

            fn kind() -> String {
                concat!($(stringify!($short), " alone, or ",)? "keys with values").to_owned()
            }

            fn describe(
                &self,
                path: &str,
                _: &str,
                _: $crate::config::Meta,
                out: &mut Vec<$crate::config::Key>,
            ) {
                use $crate::config::setting::join;
                $( {
                    #[allow(clippy::needless_update)]
                    let meta = $crate::config::Meta { $( $meta: $set, )* ..$crate::config::Meta::NONE };
                    let meaning = concat!($($doc),+).trim();
                    $crate::config::Setting::describe(&self.$field, &join(path, stringify!($field)), meaning, meta, out);
                } )+
            }
        }
    };
}

/// Declares a key's closed set of names.
macro_rules! choice {
    ($(#[$outer:meta])* pub enum $name:ident { $( $(#[doc = $doc:literal])+ $variant:ident = $text:literal, )+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[doc = $doc])+ $variant, )+ }

        impl $name {
            /// The name in a config.
            pub fn name(self) -> &'static str {
                match self { $( $name::$variant => $text, )+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                match text {
                    $( $text => Ok($name::$variant), )+
                    _ => {
                        let names = [$( $text ),+];
                        let place = stringify!($name).to_lowercase();
                        let expected = format!("one of {}", names.join(", "));
                        Err(match $crate::config::nearest(text, names) {
                            Some(near) => $crate::error::Error::input_hint(
                                place, text, expected, format!("did you mean {near}?")),
                            None => $crate::error::Error::input(place, text, expected),
                        })
                    }
                }
            }
        }

        impl $crate::config::Setting for $name {
            fn read(
                place: &$crate::config::Place,
                path: &str,
                value: &serde_json::Value,
                _: &Self,
            ) -> $crate::error::Result<Self> {
                let text = value.as_str().unwrap_or_default();
                text.parse().map_err(|error| match error {
                    $crate::error::Error::Input { expected, hint, .. } => $crate::error::Error::Input {
                        place: place.of(path),
                        found: $crate::config::source::inline(value),
                        expected,
                        hint,
                    },
                    other => other,
                })
            }

            fn write(&self) -> serde_json::Value {
                serde_json::Value::String(self.name().to_owned())
            }

            fn kind() -> String {
                [$( $text ),+].join(" | ")
            }
        }
    };
}

//! Groups of config keys: how they are read, written and described, and the macros that declare them.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

pub(crate) use super::setting::join;
use super::{Key, Meta, Place, Setting};
use crate::error::{Error, Result};
use crate::secrets;

/// A key of a group, with a reference to its value.
pub struct Line<'a> {
    /// Name of the key within the group.
    pub name: &'static str,
    /// Description of the key.
    pub meaning: &'static str,
    /// The other properties of the key.
    pub meta: Meta,
    /// Value of the key.
    pub value: &'a mut dyn Setting,
}

/// A group of keys that is declared with `settings!`.
pub trait Table: Clone {
    /// Name of the key that a string in place of the group sets. `None` if such a string is invalid.
    const SHORT: Option<&'static str>;
    /// Returns the keys of the group, in the order of their declaration.
    fn lines(&mut self) -> Vec<Line<'_>>;
}

/// Removes the key `name` from the `lines` of a shared table and returns it. A name in other systems and a published
/// value in `meta` replace those of the shared table. The group is that of `meta`. All other properties stay as the shared
/// table declares them.
pub(crate) fn shared<'a>(lines: &mut Vec<Line<'a>>, name: &str, meta: Meta) -> Option<Line<'a>> {
    let line = lines.swap_remove(lines.iter().position(|line| line.name == name)?);
    let either = |own: &'static str, shared| if own.is_empty() { shared } else { own };
    let (name, published) = (either(meta.name, line.meta.name), either(meta.published, line.meta.published));
    Some(Line { meta: Meta { name, published, group: meta.group, ..line.meta }, ..line })
}

impl<T: Table> Setting for T {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        let alone = T::SHORT.filter(|_| value.is_string()).map(|short| json!({ short: value }));
        let mut lines = self.lines();
        for (name, value) in entries(place, path, alone.as_ref().unwrap_or(value))?.into_iter().flatten() {
            let path = join(path, name);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.value.set(place, &path, value)?,
                // `load` has already reported all unknown keys of a file.
                None => {
                    let known: Vec<&str> = lines.iter().map(|line| line.name).collect();
                    let (found, expected) = (format!("the unknown key {name}"), format!("one of {}", known.join(", ")));
                    return Err(Error::input(place.of(&path), found, expected));
                }
            }
        }
        lines.iter().try_for_each(|line| line.value.check(place, &join(path, line.name), line.meta.rule))
    }
    fn is_unset(value: &Value) -> bool {
        value.is_null() || T::SHORT == Some("path") && value == ""
    }
    fn write(&self) -> Value {
        let mut tree = json!({});
        for line in self.clone().lines() {
            // Secrets in a URL and keys of services are sent to servers, but they are never written to a file. They do not
            // affect results.
            let hide = if line.name == "base_url" { secrets::without_credentials } else { secrets::without_keys };
            tree[line.name] = hidden(line.value.write(), hide);
        }
        tree
    }
    fn kind(&self) -> String {
        T::SHORT.map_or(String::new(), |short| format!("{short} alone, or ")) + "keys with values"
    }
    fn describe(&self, path: &str, _: &str, meta: Meta, out: &mut Vec<Key>) {
        let first = out.len();
        for line in self.clone().lines() {
            line.value.describe(&join(path, line.name), line.meaning, line.meta, out);
        }
        if let Some(key) = out.get_mut(first).filter(|key| key.meta.group.is_empty()) {
            key.meta.group = meta.group;
        }
    }
    fn schema(&self) -> Value {
        let mut keys = json!({});
        for line in self.clone().lines() {
            let mut schema = line.value.schema();
            line.meta.rule.limit(&mut schema);
            schema["description"] = line.meaning.into();
            schema["default"] = line.value.write();
            keys[line.name] = schema;
        }
        let alone = T::SHORT.map(|_| "string");
        let types: Vec<&str> = ["object", "null"].into_iter().chain(alone).collect();
        json!({ "type": types, "properties": keys, "additionalProperties": false })
    }
}

/// Applies `hide` to a text or to the texts of a list.
fn hidden(value: Value, hide: fn(&str) -> Cow<'_, str>) -> Value {
    match value {
        Value::String(text) => hide(&text).into(),
        Value::Array(list) => list.into_iter().map(|value| hidden(value, hide)).collect(),
        value => value,
    }
}

/// Returns the entries of the group at `path`, or `None` for null. Any other value gives an error that names `path`.
pub(crate) fn entries<'a>(place: &Place, path: &str, value: &'a Value) -> Result<Option<&'a Map<String, Value>>> {
    match value {
        Value::Object(map) => Ok(Some(map)),
        Value::Null => Ok(None),
        other => {
            let found = crate::config::describe::inline(other);
            let (name, example) = match path {
                "" => ("the config", ", such as `seed: 7` with a space after the colon"),
                path => (path, ""),
            };
            Err(Error::input(place.of(name), found, format!("keys with values{example}")))
        }
    }
}

/// Returns the group `name` of `tree`. Creates the group if it is missing or null. Returns `None` if `tree` contains
/// another value under this name.
pub(crate) fn group<'a>(tree: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let group = tree.entry(name).or_insert(Value::Null);
    if group.is_null() {
        *group = json!({});
    }
    group.as_object_mut()
}

/// Declares a group of keys. From one table it generates the struct, its defaults and its [`Table`] implementation.
///
/// - A line of the table declares a key: `/// description`, then `name: type = default`, then any of `rule:`, `name:`,
///   `published:`, `group:`, `safe:` and `older:`.
/// - `struct Group or key`: a string in place of the group sets this key.
/// - `struct Group with member: Shared`: the struct also has a field `member` with the values of the table `Shared`.
///   Several such fields are possible.
/// - The line `member.key` adds one key of `Shared` to the group. `= (default)`, `name:` and `published:` may follow.
///   All other properties come from `Shared`. Keys of `Shared` without a line are not keys of the group.
/// - The line `..member { key, key }` adds keys of `Shared` unchanged, and `..member` adds all of them.
macro_rules! settings {
    ($(#[$outer:meta])* pub struct $group:ident $(or $short:ident)? $(with $($member:ident : $shared:ty),+)? {
        $(
            $( .. $whole:ident $( { $($each:ident),+ } )? )?
            $( $owner:ident . $key:ident $(= ( $given:expr ))? )?
            $( $(#[doc = $doc:literal])+ $field:ident : $ty:ty = $default:expr )?
            $(, $meta:ident : $set:expr)* ;
        )+
    }) => {
        $(#[$outer])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $group {
            $( $( $(#[doc = $doc])+ pub $field: $ty, )? )+
            $( $( #[doc = concat!("The keys of [`", stringify!($shared), "`].")] pub $member: $shared, )+ )?
        }

        impl Default for $group {
            fn default() -> Self {
                #[allow(unused_mut)]
                let mut group = Self { $( $( $field: $default, )? )+ $( $( $member: <$shared>::default(), )+ )? };
                $( $( $( group.$owner.$key = $given; )? )? )+
                group
            }
        }

        impl $crate::config::table::Table for $group {
            const SHORT: Option<&'static str> = [$( Some(stringify!($short)), )? None][0];

            fn lines(&mut self) -> Vec<$crate::config::table::Line<'_>> {
                let mut lines = Vec::new();
                $( $( let mut $member = $crate::config::table::Table::lines(&mut self.$member); )+ )?
                $( {
                    #[allow(unused, clippy::needless_update)]
                    let meta = $crate::config::Meta { $( $meta: $set, )* ..$crate::config::Meta::NONE };
                    $(
                        let keys: &[&str] = &[$( $( stringify!($each) ),+ )?];
                        lines.extend(keys.iter().filter_map(|key| $crate::config::table::shared(&mut $whole, key, meta)));
                        if keys.is_empty() {
                            lines.append(&mut $whole);
                        }
                    )?
                    $( lines.extend($crate::config::table::shared(&mut $owner, stringify!($key), meta)); )?
                    $(
                        let (name, meaning) = (stringify!($field).trim_start_matches("r#"), concat!($($doc),+).trim());
                        lines.push($crate::config::table::Line { name, meaning, meta, value: &mut self.$field });
                    )?
                } )+
                lines
            }
        }
    };
}

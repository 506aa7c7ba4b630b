//! Groups of config keys: how they are read, written and described, and the macros that declare them.

use serde_json::{Map, Value, json};

use super::{Key, Meta, Place, Setting};
use crate::error::{Error, Result};
use crate::secrets;

/// A key of a group, with the value behind it.
pub struct Line<'a> {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub meaning: &'static str,
    /// The rest of its table line.
    pub meta: Meta,
    /// What is read, written and described under it.
    pub value: &'a mut dyn Setting,
}

/// A group of keys, as `settings!` declares it.
pub trait Table: Clone {
    /// The key that a plain text in place of the group stands for.
    const SHORT: Option<&'static str>;
    /// Its keys, in their order.
    fn lines(&mut self) -> Vec<Line<'_>>;
}

/// Takes the key `name` out of a shared table's `lines`: what it admits and may is the shared table's, its name elsewhere
/// and published value are those of `meta`.
pub(crate) fn shared<'a>(lines: &mut Vec<Line<'a>>, name: &str, meta: Meta) -> Option<Line<'a>> {
    let line = lines.swap_remove(lines.iter().position(|line| line.name == name)?);
    Some(Line { meta: Meta { name: meta.name, published: meta.published, ..line.meta }, ..line })
}

impl<T: Table> Setting for T {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        let alone = T::SHORT.filter(|_| value.is_string()).map(|short| json!({ short: value }));
        let mut lines = self.lines();
        for (name, value) in entries(place, path, alone.as_ref().unwrap_or(value))?.into_iter().flatten() {
            let path = join(path, name);
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.value.set(place, &path, value)?,
                None => {
                    let siblings: Vec<&str> = lines.iter().map(|line| line.name).collect();
                    return Err(unknown_key(place, &path, &siblings));
                }
            }
        }
        lines.iter().try_for_each(|line| line.value.check(place, &join(path, line.name), line.meta.rule))
    }
    fn write(&self) -> Value {
        let mut tree = json!({});
        for line in self.clone().lines() {
            // User name and password in an address are sent to the server but never written. They do not affect
            // results.
            tree[line.name] = match line.value.write() {
                Value::Array(urls) if line.name == "base_url" => urls.iter().map(without_userinfo).collect(),
                value => value,
            };
        }
        tree
    }
    fn kind(&self) -> String {
        T::SHORT.map_or(String::new(), |short| format!("{short} alone, or ")) + "keys with values"
    }
    fn describe(&self, path: &str, _: &str, _: Meta, out: &mut Vec<Key>) {
        for line in self.clone().lines() {
            line.value.describe(&join(path, line.name), line.meaning, line.meta, out);
        }
    }
}

fn without_userinfo(url: &Value) -> Value {
    secrets::without_userinfo(url.as_str().unwrap_or_default()).into()
}

/// An unknown key at `path`, with the nearest known one.
pub(crate) fn unknown_key(place: &Place, path: &str, siblings: &[&str]) -> Error {
    let last = path.rsplit('.').next().unwrap_or(path);
    let near = crate::config::said::nearest(last, siblings.iter().copied()).map(str::to_owned).or_else(|| {
        // The key may exist in another group.
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
            let found = crate::config::said::inline(other);
            let name = if path.is_empty() { "the config" } else { path };
            Err(Error::input(place.of(name), found, "keys with values"))
        }
    }
}

/// `path.name`, or `name` at the root.
pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Returns the group `name` of `tree`, made where it is missing or null; none where something else is there.
pub(crate) fn group<'a>(tree: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    let group = tree.entry(name).or_insert(Value::Null);
    if group.is_null() {
        *group = json!({});
    }
    group.as_object_mut()
}

/// Declares a group of keys: the struct, its defaults and its lines, from one table.
/// A line: `/// meaning`, then `name: type = default`, then any of `rule:`, `name:`, `published:`, `safe:`.
/// `struct Group or key`: a plain text in place of the group stands for that key alone.
/// `struct Group with member: Shared`: the group has keys of the table `Shared` among its own, and the struct a `member`
/// with their values; there may be several such members. A line: `member.key = default`, then any of `name:`,
/// `published:`; type, meaning and rule are the shared table's. Keys of it without a line are none of the group's.
/// `..member;` in front of the lines stands for all keys of that table, as they are.
macro_rules! settings {
    ($(#[$outer:meta])* pub struct $group:ident $(or $short:ident)? $(with $($member:ident : $shared:ty),+)? {
        $( .. $all:ident ; )?
        $(
            $( $owner:ident . $key:ident )? $( $(#[doc = $doc:literal])+ $field:ident : $ty:ty )?
            = $default:expr $(, $meta:ident : $set:expr)* ;
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
                $( $( group.$owner.$key = $default; )? )+
                group
            }
        }

        impl $crate::config::table::Table for $group {
            const SHORT: Option<&'static str> = [$( Some(stringify!($short)), )? None][0];

            fn lines(&mut self) -> Vec<$crate::config::table::Line<'_>> {
                let mut lines = Vec::new();
                $( $( let mut $member = $crate::config::table::Table::lines(&mut self.$member); )+ )?
                $( lines.append(&mut $all); )?
                $( {
                    #[allow(clippy::needless_update)]
                    let meta = $crate::config::Meta { $( $meta: $set, )* ..$crate::config::Meta::NONE };
                    $(
                        let (name, meaning) = (stringify!($field).trim_start_matches("r#"), concat!($($doc),+).trim());
                        lines.push($crate::config::table::Line { name, meaning, meta, value: &mut self.$field });
                    )?
                    $( lines.extend($crate::config::table::shared(&mut $owner, stringify!($key), meta)); )?
                } )+
                lines
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

        choice_setting!($name);

        impl $crate::config::Choice for $name {
            const TYPE: &'static str = stringify!($name);
            const ALL: &'static [(&'static str, Self)] = &[$( ($text, $name::$variant) ),+];
        }

        impl std::str::FromStr for $name {
            type Err = $crate::error::Error;

            fn from_str(text: &str) -> $crate::error::Result<Self> {
                $crate::config::choose(text)
            }
        }
    };
}

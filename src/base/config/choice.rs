//! Config values that are chosen from a closed set of names.

use omr_verify::{Format, Mode};
use serde_json::Value;

use super::Place;
use super::describe::inline;
use crate::choice::{BaseFormat, Dtype, KlLossType, LossAggMode, LossMode, Names, named};
use crate::error::{Error, Result};

/// A type whose values have names in a config.
pub trait Choice: Copy + 'static {
    /// Name of the type.
    const TYPE: &'static str;
    /// The values, each with its name.
    const ALL: Names<Self>;
    /// Further names that are read, but never written.
    const ALIASES: Names<Self> = &[];
}

impl Choice for Mode {
    const TYPE: &'static str = "Mode";
    const ALL: Names<Mode> = &[(Mode::Strict.name(), Mode::Strict), (Mode::Compat.name(), Mode::Compat)];
}

impl Choice for Format {
    const TYPE: &'static str = "Format";
    const ALL: Names<Format> = &[
        (Format::ThinkAnswerBoxed.name(), Format::ThinkAnswerBoxed),
        (Format::ThinkAnswer.name(), Format::ThinkAnswer),
        (Format::ThinkBoxed.name(), Format::ThinkBoxed),
    ];
}

/// Returns the value whose name is `text`.
///
/// # Errors
/// If no value has this name.
pub fn choose<T: Choice>(text: &str) -> Result<T> {
    named(T::TYPE, T::ALL, T::ALIASES, text)
}

/// Implements [`Setting`](super::Setting) for a [`Choice`]: reading, writing and the list of names.
macro_rules! choice_setting {
    ($name:ty) => {
        impl $crate::config::Setting for $name {
            fn set(
                &mut self,
                place: &$crate::config::Place,
                path: &str,
                value: &serde_json::Value,
            ) -> $crate::error::Result<()> {
                *self = $crate::config::choice::read(place, path, value)?;
                Ok(())
            }

            fn write(&self) -> serde_json::Value {
                serde_json::Value::String(self.name().to_owned())
            }

            fn kind(&self) -> String {
                $crate::config::choice::names::<$name>().join(" | ")
            }

            fn schema(&self) -> serde_json::Value {
                let aliases = <$name as $crate::config::Choice>::ALIASES.iter().map(|(name, _)| *name);
                serde_json::json!({ "enum": $crate::config::choice::names::<$name>().into_iter().chain(aliases).collect::<Vec<_>>() })
            }
        }
    };
}

/// Declares a [`choice!`](crate::choice::choice) that is the value of a key.
macro_rules! choice {
    ($(#[$outer:meta])* pub enum $name:ident $values:tt) => {
        $crate::choice::choice! { $(#[$outer])* pub enum $name $values }
        choice_of!($name);
    };
}

/// Makes the type of a [`choice!`](crate::choice::choice) the value of a key.
macro_rules! choice_of {
    ($name:ident) => {
        impl $crate::config::Choice for $name {
            const TYPE: &'static str = stringify!($name);
            const ALL: $crate::choice::Names<Self> = $name::ALL;
            const ALIASES: $crate::choice::Names<Self> = $name::ALIASES;
        }
        choice_setting!($name);
    };
}

choice_of!(BaseFormat);
choice_of!(Dtype);
choice_of!(KlLossType);
choice_of!(LossAggMode);
choice_of!(LossMode);
choice_setting!(Mode);
choice_setting!(Format);

/// Returns the names of all values.
pub fn names<T: Choice>() -> Vec<&'static str> {
    T::ALL.iter().map(|(name, _)| *name).collect()
}

/// Reads the value of the key at `path`.
pub fn read<T: Choice>(place: &Place, path: &str, value: &Value) -> Result<T> {
    choose(value.as_str().unwrap_or_default()).map_err(|error| match error {
        Error::Input { expected, hint, .. } => {
            Error::Input { place: place.of(path), found: inline(value), expected, hint }
        }
        other => other,
    })
}

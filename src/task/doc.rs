//! A row of a published data set, and what a benchmark makes of it.

use serde_json::{Map, Value};

use super::crash::{Checked, Crash, Stage};
use crate::data::ImageSource;
use crate::text::{Part, repr};

/// A row of a data set.
#[derive(Clone, Debug)]
pub struct Doc {
    /// Its number over all files, from 0.
    pub index: usize,
    /// The columns that are not null, pictures aside.
    pub fields: Map<String, Value>,
    /// File and row.
    pub place: String,
    /// What it is about, where it says.
    pub subject: Option<String>,
    /// Columns of pictures; none where an empty text says so.
    pub pictures: Vec<(String, Option<ImageSource>)>,
}

impl Doc {
    /// A column; null where it is not there.
    pub fn value(&self, column: &str) -> &Value {
        self.fields.get(column).unwrap_or(&Value::Null)
    }

    /// A column as Python's `str` writes it.
    pub fn written(&self, column: &str) -> String {
        written(self.value(column))
    }

    /// A column that must hold text; `class` is what Python raises where it does not.
    pub fn text(&self, column: &str, class: &'static str) -> Checked<&str> {
        match self.value(column) {
            Value::String(text) => Ok(text),
            other => Err(Crash::new(Stage::Messages, class, format!("{} in `{column}`", written(other)), "text")),
        }
    }

    /// The right answer: a column that must hold text.
    pub fn gold(&self, column: &str) -> Checked<String> {
        match self.value(column) {
            Value::String(text) => Ok(text.clone()),
            other => {
                let found = format!("{} in `{column}`", written(other));
                Err(Crash::new(Stage::ProcessResults, "AttributeError", found, "the right answer as text"))
            }
        }
    }

    /// The picture of a column.
    pub fn picture(&self, column: &str) -> Checked<ImageSource> {
        let found = self.pictures.iter().find(|(name, _)| name == column).and_then(|(_, picture)| picture.clone());
        let missing = || Crash::new(Stage::Messages, "AttributeError", format!("no picture in `{column}`"), "one");
        found.ok_or_else(missing)
    }

    /// Whether a column of pictures says, with an empty text, that there is none.
    pub fn has_no_picture(&self, column: &str) -> bool {
        self.pictures.iter().any(|(name, picture)| name == column && picture.is_none())
    }
}

/// A value as Python's `str` writes it.
pub fn written(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(n) => n.as_f64().filter(|_| n.is_f64()).map_or_else(|| n.to_string(), repr),
        other => other.to_string(),
    }
}

/// What a benchmark makes of a row.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// The user's message.
    pub parts: Vec<Part>,
    /// Its pictures, in order.
    pub images: Vec<ImageSource>,
    /// What a judge is told was asked; nothing where none is told.
    pub question: Option<String>,
    /// The right answer as the data set has it.
    pub target: Value,
    /// The right answer as it is scored.
    pub gold: String,
    /// Columns that scores need.
    pub extra: Map<String, Value>,
    /// What the question shares with others; see [`super::Counted`].
    pub cluster: Option<String>,
}

impl Prompt {
    /// A picture and a text below it; a judge is told `question`.
    pub fn picture_then_text(picture: ImageSource, text: impl Into<String>, question: impl Into<String>) -> Prompt {
        let parts = vec![Part::Image, Part::Text(text.into())];
        Prompt { parts, images: vec![picture], question: Some(question.into()), ..Prompt::default() }
    }

    /// With the right answer, which is scored as it stands.
    pub fn with_gold(self, doc: &Doc, column: &str) -> Checked<Prompt> {
        Ok(Prompt { target: doc.value(column).clone(), gold: doc.gold(column)?, ..self })
    }
}

/// The letter of an option, from A; past Z the characters that follow it.
pub fn letter(index: usize) -> char {
    char::from_u32('A' as u32 + index as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

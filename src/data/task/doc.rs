//! A row of a published data set, and the prompt that a benchmark makes from it.

use serde_json::{Map, Value};

use super::crash::{Crash, PublishedResult, Stage};
use crate::rows::ImageSource;
use crate::text::{Part, number};

/// A row of a data set.
#[derive(Clone, Debug)]
pub struct Doc {
    /// Number of the row over all files, from 0.
    pub index: usize,
    /// Columns that are not null, without images.
    pub fields: Map<String, Value>,
    /// File and row, for error messages.
    pub place: String,
    /// Subject of the question, if the row contains one.
    pub subject: Option<String>,
    /// Image columns. The value is `None` if an empty text marks that there is no image.
    pub images: Vec<(String, Option<ImageSource>)>,
}

impl Doc {
    /// Returns a column, or null if it is missing.
    pub fn value(&self, column: &str) -> &Value {
        self.fields.get(column).unwrap_or(&Value::Null)
    }

    /// Returns a column formatted like Python's `str`.
    pub fn written(&self, column: &str) -> String {
        written(self.value(column))
    }

    /// Returns a column that must contain text. `class` is the exception that Python raises otherwise.
    pub fn text(&self, column: &str, class: &'static str) -> PublishedResult<&str> {
        self.string(column, Stage::Messages, class, "text")
    }

    /// Returns the correct answer from a column that must contain text.
    pub fn gold(&self, column: &str) -> PublishedResult<String> {
        self.string(column, Stage::ProcessResults, "AttributeError", "the right answer as text").map(str::to_owned)
    }

    fn string(&self, column: &str, stage: Stage, class: &'static str, expected: &str) -> PublishedResult<&str> {
        let value = self.value(column);
        value.as_str().ok_or_else(|| Crash::new(stage, class, format!("{} in `{column}`", written(value)), expected))
    }

    /// Returns the image of a column.
    pub fn image(&self, column: &str) -> PublishedResult<ImageSource> {
        let found = self.images.iter().find(|(name, _)| name == column).and_then(|(_, image)| image.clone());
        let missing = || Crash::new(Stage::Messages, "AttributeError", format!("no image in `{column}`"), "one");
        found.ok_or_else(missing)
    }
}

/// Formats a value like Python's `str`.
pub fn written(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(n) => number(n),
        other => other.to_string(),
    }
}

/// The prompt that a benchmark makes from a row.
#[derive(Clone, Debug, Default)]
pub struct Prompt {
    /// Content of the user message.
    pub parts: Vec<Part>,
    /// Images of the message, in order.
    pub images: Vec<ImageSource>,
    /// Question as the judge receives it. `None` if the judge receives no question.
    pub question: Option<String>,
    /// Correct answer as stored in the data set.
    pub target: Value,
    /// Correct answer as used for scoring.
    pub gold: String,
    /// Columns that the scores need.
    pub extra: Map<String, Value>,
    /// Cluster of the question, see [`super::Counted`].
    pub cluster: Option<String>,
}

impl Prompt {
    /// Makes a prompt of an image followed by a text. A judge receives `question`.
    pub fn image_then_text(image: ImageSource, text: impl Into<String>, question: impl Into<String>) -> Prompt {
        let parts = vec![Part::Image, Part::Text(text.into())];
        Prompt { parts, images: vec![image], question: Some(question.into()), ..Prompt::default() }
    }

    /// Adds the correct answer from `column`, which is used for scoring without changes.
    pub fn with_gold(self, doc: &Doc, column: &str) -> PublishedResult<Prompt> {
        Ok(Prompt { target: doc.value(column).clone(), gold: doc.gold(column)?, ..self })
    }
}

/// Returns the letter of an option, starting at A. The options after Z have the Unicode characters that follow Z.
pub fn letter(index: usize) -> char {
    char::from_u32('A' as u32 + index as u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

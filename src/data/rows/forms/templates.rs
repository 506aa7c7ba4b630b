//! The keys `prompt` and `gold` of a data set's entry: the question and the label of a row, made from its columns.

use serde_json::{Map, Value};

use super::fields::{RowContext, misfit, role};
use crate::rows::bad_row::{BadRow, Reason, RowResult};
use crate::text::RowPrompt;
use omr_base::config::DatasetConfig;
use omr_base::error::{Error, Result};

/// Field of a row that contains the columns that the templates read or the row keeps, with their names and values in the file. No column
/// has this name, because it is no text that a file can hold.
pub const COLUMNS: &str = "\0columns";

/// Canonical names of the columns that `prompt` replaces.
const QUESTIONS: [&str; 10] =
    ["messages", "conversations", "texts", "prompt", "instruction", "input", "history", "problem", "question", "hint"];
/// Canonical names of the columns that `gold` replaces.
const LABELS: [&str; 5] = ["answer", "ground_truth", "solution", "answers", "reward_model"];

/// The templates of an entry.
#[derive(Debug)]
pub struct Templates {
    prompt: Option<RowPrompt>,
    gold: Option<Gold>,
}

#[derive(Debug)]
enum Gold {
    Column(String),
    Template(Box<RowPrompt>),
}

impl Templates {
    /// Compiles the templates of an entry. Errors name the data set and the key.
    pub fn of(entry: &DatasetConfig) -> Result<Templates> {
        let compile = |source: &String, key: &str| RowPrompt::new(source, &format!("{}: {key}", entry.path.display()));
        let prompt = entry.prompt.as_ref().filter(|_| !entry.is_multiple_choice());
        if let Some(word) = prompt.filter(|text| !text.contains(char::is_whitespace) && !text.contains('{')) {
            let place = format!("{}: prompt", entry.path.display());
            return Err(Error::input(place, word, "multiple_choice, or a Jinja template such as \"{{ question }}\""));
        }
        let gold = entry.gold.as_ref().map(|gold| match gold.contains("{{") || gold.contains("{%") {
            true => compile(gold, "gold").map(|template| Gold::Template(Box::new(template))),
            false => Ok(Gold::Column(gold.clone())),
        });
        Ok(Templates { prompt: prompt.map(|source| compile(source, "prompt")).transpose()?, gold: gold.transpose()? })
    }

    /// Returns the columns that the templates read.
    pub fn columns(&self) -> Vec<String> {
        let mut columns = self.prompt.as_ref().map_or(Vec::new(), RowPrompt::columns);
        match &self.gold {
            Some(Gold::Column(name)) => columns.push(name.clone()),
            Some(Gold::Template(template)) => columns.extend(template.columns()),
            None => {}
        }
        columns
    }

    /// Returns true if the entry has a template for the question.
    pub fn makes_question(&self) -> bool {
        self.prompt.is_some()
    }

    /// Replaces the question and the label in the fields of a row, and returns its [`COLUMNS`]. Returns an error if a
    /// template fails, if the column of the label is missing, or if the row is a conversation with answers, which one
    /// question cannot replace.
    pub fn apply(&self, fields: &mut Map<String, Value>, at: &RowContext) -> RowResult<Map<String, Value>> {
        // The templates may read no column, or none that this row has.
        let columns = if let Some(Value::Object(columns)) = fields.remove(COLUMNS) { columns } else { Map::new() };
        let render = |template: &RowPrompt, others: &Map<String, Value>| {
            template.render(&columns, others, &at.place).map_err(BadRow::of(Reason::WrongColumns))
        };
        if let Some(template) = &self.prompt {
            let text = render(template, fields)?;
            for name in QUESTIONS {
                if fields.remove(name).is_some_and(|value| has_answers(&value)) {
                    let found = format!("a conversation with answers in `{name}`");
                    let expected = "no key `prompt`, which makes one question of a row";
                    return Err(misfit(&at.place, found, expected));
                }
            }
            for name in ["completion", "output"] {
                if let Some(response) = fields.remove(name) {
                    fields.entry("response").or_insert(response);
                }
            }
            fields.insert("question".to_owned(), text.trim().into());
        }
        let gold = match &self.gold {
            None => return Ok(columns),
            Some(Gold::Template(template)) => Value::from(render(template, fields)?.trim()),
            Some(Gold::Column(name)) => columns.get(name).cloned().ok_or_else(|| {
                let names: Vec<&str> = columns.keys().chain(fields.keys()).map(String::as_str).collect();
                misfit(&at.place, format!("columns {}", names.join(", ")), &format!("`{name}`, which `gold` names"))
            })?,
        };
        LABELS.iter().for_each(|name| drop(fields.remove(*name)));
        // A list contains several right answers.
        fields.insert(if gold.is_array() { "answers" } else { "answer" }.to_owned(), gold);
        Ok(columns)
    }
}

/// Returns true if a value is a list of messages with one of the assistant.
fn has_answers(value: &Value) -> bool {
    let is_answer = |m: &Value| matches!(role(m), Some("assistant" | "gpt")) || m.get("assistant").is_some();
    value.as_array().is_some_and(|list| list.iter().any(is_answer))
}

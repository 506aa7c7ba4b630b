//! Columns that belong to the question or the answer of a row, and that no form reads. A row with a value in one of them
//! is refused, because without the value it trains another task.

use serde_json::{Map, Value};

use super::choices::{OPTIONS, label};
use super::fields::{RowContext, misfit, plain, texts};
use super::table::{CHOSEN, NO_PREFERENCES};
use super::templates::COLUMNS;
use crate::rows::{Row, RowResult, text_of};
use crate::text::Message;

const QUESTION: &[&str] = &["system", "user"];

const SECOND_IMAGES: [&str; 8] = ["image_2", "image_3", "image_4", "image_5", "image_6", "image_7", "image2", "image3"];

/// TRL's and ms-swift's name of a boolean that says whether the answer is good. Other values are no part of the answer.
const KTO_LABEL: &str = "label";

/// verl's names of the agent of a row, and of the one that answers once.
const AGENT: &str = "agent_name";
const SINGLE_TURN: &str = "single_turn_agent";

/// Fields of verl's `extra_info` that make a row another task.
pub const OF_EXTRA: [&str; 3] = ["tools_kwargs", "interaction_kwargs", AGENT];

/// Sizes of a single image or video, which Qwen's tools read.
const SIZES: [&str; 5] = ["min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width"];

/// Number of words from which an unread text may belong to the question.
const WORDS: usize = 5;

/// Names of columns that are not read (or of fields of a message), a description of what is expected instead, and the
/// roles of the messages that may already contain the values. Such a row is complete.
const UNREAD: &[(&[&str], &str, &[&str])] = &[
    (&OPTIONS, "the key `prompt: multiple_choice` in the entry, or a template `prompt` that reads it", QUESTION),
    (&["A", "B", "C", "D"], "a template `prompt`, such as '{{ question }} A. {{ A }} B. {{ B }}'", QUESTION),
    (&["context"], "a template `prompt` that reads it", QUESTION),
    (&SECOND_IMAGES, "a list of all images in one column", &[]),
    (&["videos", "video"], "frames in the messages: video files are not supported", &[]),
    (&["audios", "audio"], "no audio, which is not supported", &[]),
    (&["objects"], "coordinates in the text: `objects` is not supported", QUESTION),
    (&["tools"], "a description in the system message: tools are not supported", QUESTION),
    (&["chat_template_kwargs"], "the key chat_template_kwargs of the config, for all rows", &[]),
    (&["tools_kwargs", "tool_calls"], "no tools, which are not supported", &[]),
    (&[AGENT, "interaction_kwargs"], "no agents, which are not supported: a row is one question", &[]),
    (&["loss_weight", "loss_scale"], "`loss`, `weight` or `loss_weight` (0 or 1) in a message", &[]),
    (&[CHOSEN], NO_PREFERENCES, &["assistant"]),
    (&["kto_tag", KTO_LABEL, "rejected_response"], NO_PREFERENCES, &[]),
];

/// Returns the name of a column of the table.
pub fn name(column: &str) -> Option<&'static str> {
    names().find(|name| *name == column)
}

/// Returns all columns of the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    UNREAD.iter().flat_map(|(columns, ..)| *columns).copied()
}

/// A value that is not read, although it may belong to the question or the answer.
pub struct Unread {
    /// Name of its column or field.
    name: String,
    /// Place in the row.
    place: String,
    /// Description of what is expected instead.
    instead: &'static str,
}

impl Unread {
    /// Describes the field `name` of the message, part or image `within`.
    pub fn field(name: &str, within: &str) -> Unread {
        let known = UNREAD.iter().find(|(columns, ..)| columns.contains(&name)).map(|(_, instead, _)| *instead);
        let instead = match known {
            Some(instead) => instead,
            None if SIZES.contains(&name) => "image_min_pixels and image_max_pixels of the config instead",
            None => "no field that may change what is trained",
        };
        let dot = if within.is_empty() { "" } else { "." };
        Unread { name: name.to_owned(), place: format!("`{within}{dot}{name}`"), instead }
    }

    /// Returns the column `name` if it has a value that is not read. `within` names the message or column that has the
    /// field, or is empty for the columns of the row, which are `row`.
    pub fn column(
        name: &str,
        within: &str,
        value: &Value,
        row: &Map<String, Value>,
        messages: &[Message],
    ) -> Option<Unread> {
        let (_, _, roles) = UNREAD.iter().find(|(columns, ..)| columns.contains(&name))?;
        let values: Vec<String> = texts(value).into_iter().filter(|text| !text.is_empty()).collect();
        // The bytes of an image are no text, so a struct with a path counts as a value even if the path is null.
        let is_empty = values.is_empty() && value.get("path").is_none();
        if is_empty || (name == KTO_LABEL && !value.is_boolean()) || (name == AGENT && value == SINGLE_TURN) {
            return None;
        }
        let said = messages.iter().filter(|message| roles.contains(&message.role.as_str()));
        let said = said.map(text_of).collect::<Vec<_>>().join("\n");
        let is_place = OPTIONS.contains(&name) && is_place(row, &values);
        let is_said = !values.is_empty() && !is_place && occur(&said, &values);
        (!is_said).then(|| Unread::field(name, within))
    }
}

/// Returns an error that lists all values that are not read, unless the entry ignores them.
pub fn refuse(mut unread: Vec<Unread>, at: &RowContext) -> RowResult<()> {
    unread.retain(|unread| !at.entry.columns.unused.contains(&unread.name));
    if unread.is_empty() {
        return Ok(());
    }
    let listed = |of: &dyn Fn(&Unread) -> String, between: &str| {
        let mut all: Vec<String> = Vec::new();
        for text in unread.iter().map(of) {
            if !all.contains(&text) {
                all.push(text);
            }
        }
        all.join(between)
    };
    let [places, instead, names] = [
        listed(&|unread| unread.place.clone(), ", "),
        listed(&|unread| unread.instead.to_owned(), "; "),
        listed(&|unread| format!("{}: ''", unread.name), ", "),
    ];
    let (is, it) = if unread.len() == 1 { ("is", "it") } else { ("are", "them") };
    let expected = format!("{instead}; `columns: {{{names}}}` in the entry ignores {it}");
    Err(misfit(&at.place, format!("a value in {places}, which {is} not read"), &expected))
}

/// Returns the text of a column that no form reads, if it has several words or lines that no message contains, and does
/// not repeat the question.
pub fn text(column: &str, value: &Value, row: &Row) -> Option<String> {
    let is_text =
        value.is_string() || value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(Value::is_string));
    if !is_text || column == COLUMNS || name(column).is_some() {
        return None;
    }
    let text =
        value.as_array().map_or_else(|| plain(value), |list| list.iter().map(plain).collect::<Vec<_>>().join("\n"));
    let is_long = text.split_whitespace().count() >= WORDS || text.trim().contains('\n');
    let (found, question) = (words(&text), words(&row.question()));
    let said = row.trained_messages().iter().map(text_of).collect::<Vec<_>>().join("\n");
    let repeats = words(&said).contains(&found) || (question.len() > 1 && found.contains(&question));
    (is_long && found.len() > 1 && !repeats).then_some(text)
}

/// Returns true if the label is the place of an option and not its text.
fn is_place(row: &Map<String, Value>, options: &[String]) -> bool {
    let text = label(row).map_or(String::new(), |(_, value)| plain(value).trim().to_owned());
    !options.contains(&text) && text.parse::<usize>().is_ok_and(|place| place <= options.len())
}

/// Returns true if the words of `parts` occur in `text`, in this order.
fn occur(text: &str, parts: &[String]) -> bool {
    let text = words(text);
    let mut rest = text.as_str();
    parts.iter().map(|part| words(part)).all(|part| {
        let end = rest.find(&part).map(|start| start + part.len() - 1);
        rest = &rest[end.unwrap_or(0)..];
        end.is_some() && part.len() > 1
    })
}

/// Returns the words of a text, with a space on each side of each.
fn words(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.fold(" ".to_owned(), |text, word| text + word + " ")
}

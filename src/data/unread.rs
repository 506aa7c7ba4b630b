//! Columns that belong to the question or the answer of a row, and that no form reads. A row with a value in one of them
//! is refused, because without the value it trains another task.

use serde_json::{Map, Value};

use crate::data::choices::{OPTIONS, label};
use crate::data::fields::{RowContext, misfit, plain, texts};
use crate::data::forms::{CHOSEN, NO_PREFERENCES};
use crate::data::{RowResult, text_of};
use crate::text::Message;

/// Columns that are not read.
struct Unread {
    /// Names of the columns, or of fields of a message.
    columns: &'static [&'static str],
    /// Description of what is expected instead.
    instead: &'static str,
    /// Roles of the messages that may already contain the values. Such a row is complete.
    within: &'static [&'static str],
}

const QUESTION: &[&str] = &["system", "user"];

const fn unread(columns: &'static [&'static str], instead: &'static str, within: &'static [&'static str]) -> Unread {
    Unread { columns, instead, within }
}

const SECOND_IMAGES: [&str; 8] = ["image_2", "image_3", "image_4", "image_5", "image_6", "image_7", "image2", "image3"];

const UNREAD: &[Unread] = &[
    unread(&OPTIONS, "the key `prompt: multiple_choice` in the entry, or a template `prompt` that reads it", QUESTION),
    unread(&SECOND_IMAGES, "a list of all images in one column", &[]),
    unread(&["videos", "video"], "frames in the messages: video files are not supported", &[]),
    unread(&["audios", "audio"], "no audio, which is not supported", &[]),
    unread(&["objects"], "coordinates in the text: `objects` is not supported", QUESTION),
    unread(&["tools"], "a description in the system message: tools are not supported", QUESTION),
    unread(&["tools_kwargs", "tool_calls"], "no tools, which are not supported", &[]),
    unread(&["loss_weight", "loss_scale"], "`loss`, `weight` or `loss_weight` (0 or 1) in a message", &[]),
    unread(&[CHOSEN], NO_PREFERENCES, &["assistant"]),
];

/// Returns the name of a column of the table.
pub fn name(column: &str) -> Option<&'static str> {
    names().find(|name| *name == column)
}

/// Returns all columns of the table.
pub fn names() -> impl Iterator<Item = &'static str> {
    UNREAD.iter().flat_map(|unread| unread.columns).copied()
}

/// Returns an error if the field `name` has a value that is not read. `within` names the message that has the field, or
/// is empty for the columns of the row, which are `row`.
pub fn refuse(
    name: &str,
    within: &str,
    value: &Value,
    row: &Map<String, Value>,
    messages: &[Message],
    at: &RowContext,
) -> RowResult<()> {
    let unread = UNREAD.iter().find(|unread| unread.columns.contains(&name));
    let Some(unread) = unread.filter(|_| !at.entry.columns.unused.iter().any(|unused| unused == name)) else {
        return Ok(());
    };
    let values: Vec<String> = texts(value).into_iter().filter(|text| !text.is_empty()).collect();
    // The bytes of an image are no text, so a struct with a path counts as a value even if the path is null.
    if values.is_empty() && value.get("path").is_none() {
        return Ok(());
    }
    let said = messages.iter().filter(|message| unread.within.contains(&message.role.as_str()));
    let said = said.map(text_of).collect::<Vec<_>>().join("\n");
    let is_place = OPTIONS.contains(&name) && is_place(row, &values);
    if !values.is_empty() && !is_place && occur(&said, &values) {
        return Ok(());
    }
    let dot = if within.is_empty() { "" } else { "." };
    let expected = format!("{}; `columns: {{{name}: ''}}` in the entry ignores it", unread.instead);
    Err(misfit(&at.place, format!("a value in `{within}{dot}{name}`, which is not read"), &expected))
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

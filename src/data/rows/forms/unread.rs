//! Columns that belong to the question or the answer of a row, and that no form reads. A row with a value in one of them
//! is refused, because without the value it trains another task.

use serde_json::{Map, Value};

use super::choices::{OPTIONS, label};
use super::fields::{RowContext, misfit, plain, texts};
use super::table::{CHOSEN, NO_PREFERENCES};
use crate::rows::{RowResult, text_of};
use crate::text::Message;

const QUESTION: &[&str] = &["system", "user"];

const SECOND_IMAGES: [&str; 8] = ["image_2", "image_3", "image_4", "image_5", "image_6", "image_7", "image2", "image3"];

/// TRL's and ms-swift's name of a boolean that says whether the answer is good. Other values are no part of the answer.
const KTO_LABEL: &str = "label";

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
    let unread = UNREAD.iter().find(|(columns, ..)| columns.contains(&name));
    let Some((_, instead, roles)) = unread.filter(|_| !at.entry.columns.unused.iter().any(|unused| unused == name))
    else {
        return Ok(());
    };
    let values: Vec<String> = texts(value).into_iter().filter(|text| !text.is_empty()).collect();
    // The bytes of an image are no text, so a struct with a path counts as a value even if the path is null.
    if (values.is_empty() && value.get("path").is_none()) || (name == KTO_LABEL && !value.is_boolean()) {
        return Ok(());
    }
    let said = messages.iter().filter(|message| roles.contains(&message.role.as_str()));
    let said = said.map(text_of).collect::<Vec<_>>().join("\n");
    let is_place = OPTIONS.contains(&name) && is_place(row, &values);
    if !values.is_empty() && !is_place && occur(&said, &values) {
        return Ok(());
    }
    let dot = if within.is_empty() { "" } else { "." };
    let expected = format!("{}; `columns: {{{name}: ''}}` in the entry ignores it", instead);
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

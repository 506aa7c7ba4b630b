//! Reads single values from the JSON fields of a row. Every error names the row.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::reward::PLAIN_LABEL;
use crate::rows::bad_row::{BadRow, Reason, RowResult};
use crate::rows::files::content::Content;
use crate::rows::files::folder::{Folder, base64};
use crate::rows::files::paths::is_image_file;
use crate::rows::readers::json::Layout;
use crate::text::exact;
use crate::text::literal::{Literal, eval};
use omr_base::config::DatasetConfig;
use omr_base::error::{Error, Result};

/// One entry of an `images` column as stored in the file.
#[derive(Clone, Debug, Default)]
pub struct RawImage {
    /// Encoded image.
    pub bytes: Option<Arc<[u8]>>,
    /// Name of the image if `bytes` are given, otherwise its url.
    pub path: Option<String>,
    /// Fields of its struct that have a value and are not read.
    pub unread: Vec<String>,
}

/// Fields of messages, parts and images that do not change what is trained. They are not read.
const HARMLESS: &str = "id ids uuid name index source time date timestamp created created_at updated_at create_time detail \
    update_time file_name filename width height";

/// Returns true if a field of a message, part or image does not change what is trained.
pub(crate) fn is_harmless(name: &str) -> bool {
    HARMLESS.split(' ').any(|known| known == name)
}

/// A value that was found, and a description of what is expected instead.
pub(crate) type Misfit = (String, &'static str);
type Judged<T> = std::result::Result<T, Misfit>;

/// Fields of a row with canonical names, and the entries of its image column if they were read separately.
pub type Fields = (Map<String, Value>, Option<Vec<RawImage>>);

/// Context that a row is read in.
#[derive(Clone, Debug)]
pub struct RowContext<'a> {
    /// Folders in which image urls are resolved.
    pub folder: &'a Folder,
    /// Entry of the data set.
    pub entry: &'a DatasetConfig,
    /// Name of the data set.
    pub dataset: &'a str,
    /// Stem of the file name.
    pub file: &'a str,
    /// Number of the row in its file, from 0.
    pub index: usize,
    /// `FILE row N`, for error messages.
    pub place: String,
}

impl RawImage {
    /// Returns the images of a value: a struct of `bytes` in base64 and `path`, a url, or a list of these, which may also
    /// be a text. An empty text is no image.
    pub(crate) fn all(value: &Value) -> Judged<Vec<RawImage>> {
        match value {
            Value::Null => Ok(Vec::new()),
            Value::Array(list) => {
                Ok(list.iter().map(RawImage::one).collect::<Judged<Vec<_>>>()?.into_iter().flatten().collect())
            }
            Value::String(text) if begins_listed(text) => RawImage::all(&listed(text).ok_or_else(|| unlisted(text))?),
            one => Ok(RawImage::one(one)?.into_iter().collect()),
        }
    }

    /// Returns the image of a struct or url, or `None` for an empty text.
    pub(crate) fn one(value: &Value) -> Judged<Option<RawImage>> {
        let mut image = RawImage::default();
        match value {
            Value::Null => {}
            Value::String(url) if url.trim().is_empty() => return Ok(None),
            Value::String(url) => image.path = Some(url.clone()),
            Value::Object(map) => {
                let text = |name: &str| map.get(name).and_then(Value::as_str);
                let bytes = text("bytes")
                    .map(|text| base64(text).map_err(|e| (format!("bytes that are no base64 ({e})"), "base64")));
                image.bytes = bytes.transpose()?.map(Into::into);
                image.path = ["path", "image", "url"]
                    .into_iter()
                    .filter_map(text)
                    .find(|path| !path.is_empty())
                    .map(str::to_owned);
                let is_read =
                    |name: &str| ["type", "bytes", "path", "image", "url"].contains(&name) && map[name].is_string();
                let unread = map.iter().filter(|(name, value)| !is_read(name) && is_field(name, value));
                image.unread = unread.map(|(name, _)| name.clone()).collect();
            }
            other => return Err((format!("{} in `images`", kind(other)), "structs of `bytes` and `path`, or URLs")),
        }
        Ok(Some(image))
    }

    /// Returns true if the bytes begin like an image, or the path has the ending of one.
    pub(crate) fn is_image(&self) -> bool {
        match (&self.bytes, &self.path) {
            (Some(bytes), _) => ::image::guess_format(bytes).is_ok(),
            (None, Some(path)) => path.starts_with("data:image/") || is_image_file(Path::new(path)),
            (None, None) => false,
        }
    }
}

/// Returns true if a value is an image or a list of images: paths, or structs of `bytes` and `path`.
pub(crate) fn shows_images(value: &Value) -> bool {
    match value {
        Value::String(path) => RawImage { path: Some(path.clone()), ..RawImage::default() }.is_image(),
        Value::Array(list) => !list.is_empty() && list.iter().all(shows_images),
        Value::Object(map) => {
            let named = |name: &str| map.get(name).and_then(Value::as_str);
            named("bytes").is_some() || named("path").is_some_and(|path| is_image_file(Path::new(path)))
        }
        _ => false,
    }
}

/// Number of rows of a JSON file that are read to list its columns.
pub const LOOKED_AT: usize = 1000;

/// Returns the names and types of the columns in the first `rows` rows of a JSON file, in order of appearance.
pub fn json_columns(file: &Content, layout: Layout, rows: usize) -> Result<Vec<(String, String)>> {
    let mut columns: Vec<(String, Vec<&str>)> = Vec::new();
    layout.read(file, rows, |_, fields| {
        for (name, value) in fields.unwrap_or_default() {
            let kind = kind(&value);
            match columns.iter_mut().find(|(known, _)| *known == name) {
                Some((_, kinds)) if kinds.contains(&kind) => {}
                Some((_, kinds)) => kinds.push(kind),
                None => columns.push((name, vec![kind])),
            }
        }
        Ok(())
    })?;
    Ok(columns.into_iter().map(|(name, kinds)| (name, kinds.join(" or "))).collect())
}

/// Returns true if a field of a message, part or image that nothing reads has a value that may matter.
pub(crate) fn is_field(name: &str, value: &Value) -> bool {
    !is_harmless(name) && leaves(value).iter().any(|text| !text.is_empty())
}

/// Parses a list or a struct that is stored as text, in JSON or as Python writes it.
pub(crate) fn listed(text: &str) -> Option<Value> {
    if !text.trim_start().starts_with(['[', '{']) {
        return None;
    }
    let value = exact::from_str(text).ok().or_else(|| Some(eval(text).ok()?.json()));
    value.filter(|value| value.is_array() || value.is_object())
}

/// Returns true if a text begins like a list or a struct of texts, lists or structs.
pub(crate) fn begins_listed(text: &str) -> bool {
    let inside = text.trim_start().strip_prefix(['[', '{']);
    inside.is_some_and(|inside| inside.trim_start().starts_with(['"', '\'', '[', '{', ']', '}']))
}

/// Returns true if a text begins like a list of messages.
pub(crate) fn begins_like_messages(text: &str) -> bool {
    let named = |key: &str| text.contains(&format!("\"{key}\"")) || text.contains(&format!("'{key}'"));
    let is_list = || text.trim_start()[1..].trim_start().starts_with('{');
    let keys = [["role", "content"], ["from", "value"], ["user", "assistant"], ["human", "assistant"]];
    text.trim_start().starts_with('[') && is_list() && keys.iter().any(|keys| keys.iter().all(|key| named(key)))
}

/// Returns the misfit of a text that begins like a list and is none.
pub(crate) fn unlisted(text: &str) -> Misfit {
    (format!("a text that begins like a list and is none: {}", shown(text)), "a list in JSON or as Python writes it")
}

/// Returns the first 200 characters of a value for a message.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}... ({} characters)", &text[..end], text.chars().count()),
        None => text.to_owned(),
    }
}

/// Parses a struct, or a list of structs, that is stored as text; returns any other value unchanged.
pub(crate) fn structured(value: Value) -> Value {
    match value.as_str().and_then(listed) {
        Some(Value::Object(map)) => Value::Object(map),
        Some(Value::Array(list)) if list.first().is_some_and(Value::is_object) => Value::Array(list),
        _ => value,
    }
}

/// Returns the texts and numbers in a value, in order and trimmed, without the roles of messages. Null becomes an empty
/// text. A list may be text in JSON or as Python writes it, a struct only in JSON.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    match value.as_str().map(eval) {
        Some(Ok(Literal::Many(list, ["[", _]))) if !list.iter().any(|item| matches!(item, Literal::Map(_))) => {
            list.iter().map(|item| item.str().trim().to_owned()).collect()
        }
        _ => leaves(&structured(value.clone())),
    }
}

fn leaves(value: &Value) -> Vec<String> {
    match value {
        Value::Null => vec![String::new()],
        Value::Array(list) => list.iter().flat_map(leaves).collect(),
        Value::Object(map) => {
            let contents = map.iter().filter(|(key, _)| *key != "role" && *key != "from");
            contents.flat_map(|(_, value)| leaves(value)).collect()
        }
        other => vec![plain(other).trim().to_owned()],
    }
}

/// Returns the field `key` unless it is missing or null.
pub(crate) fn given<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.get(key).filter(|v| !v.is_null())
}

/// Returns the field `key` of a struct unless it is missing or null.
pub(crate) fn given_in<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|v| !v.is_null())
}

/// Returns the role of a message.
pub(crate) fn role(message: &Value) -> Option<&str> {
    given_in(message, "role").or_else(|| given_in(message, "from"))?.as_str()
}

pub(crate) fn string<'a>(at: &RowContext, name: &str, value: &'a Value) -> RowResult<&'a str> {
    value.as_str().ok_or_else(|| wrong(at, name, value, "a string"))
}

/// Converts a string, number or bool, or a list with exactly one of them, to text.
pub(crate) fn scalar(at: &RowContext, name: &str, value: &Value) -> RowResult<String> {
    match value {
        Value::Array(list) if list.len() == 1 => scalar(at, name, &list[0]),
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(plain(value)),
        other => Err(wrong(at, name, other, PLAIN_LABEL)),
    }
}

/// Returns a string without quotes, and any other value as JSON.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Creates the error of a value with a wrong type.
pub(crate) fn wrong(at: &RowContext, name: &str, value: &Value, expected: &str) -> BadRow {
    misfit(&at.place, format!("{} in `{name}`", kind(value)), expected)
}

/// Creates the error of columns that cannot be read as a row.
pub(crate) fn misfit(place: &str, found: impl Into<String>, expected: &str) -> BadRow {
    BadRow::of(Reason::WrongColumns)(Error::input(place, found, expected))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a bool",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a struct",
    }
}

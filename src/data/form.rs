//! Converts the supported row formats to one [`Row`]. A row's question is in the column `messages`, `conversations`,
//! `prompt`, `problem` or `question`. The input is JSON fields and an image column.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::data::bad_row::{BadRow, Reason, RowResult};
use crate::data::folder::{Folder, decode_data_url};
use crate::data::json::Layout;
use crate::data::{ImageSource, Row};
use crate::error::{Error, Result};
use crate::text::{Message, Part};

/// Names of the question columns. A row needs one of them.
pub const QUESTIONS: &str =
    "one of `messages`, `conversations`, `prompt`, `problem`, `question` (or set `columns` in the dataset's entry)";

/// Default number of frames per second, for a video part without `fps`.
const DEFAULT_FPS: f64 = 2.0;
/// Minimum and maximum of `fps`.
const MIN_FPS: f64 = 0.001;
const MAX_FPS: f64 = 1000.0;

/// Marks the position of an image in a text.
pub const IMAGE_MARKER: &str = "<image>";

/// One entry of an `images` column as stored in the file.
#[derive(Clone, Debug, Default)]
pub struct RawImage {
    /// Encoded image.
    pub bytes: Option<Arc<[u8]>>,
    /// Name of the image if `bytes` are given, otherwise its url.
    pub path: Option<String>,
}

/// Context that a row is read in.
#[derive(Clone, Debug)]
pub struct RowContext<'a> {
    /// Folder in which image urls are resolved.
    pub folder: &'a Folder,
    /// Name of the data set.
    pub dataset: &'a str,
    /// Stem of the file name.
    pub file: &'a str,
    /// Number of the row in its file, from 0.
    pub index: usize,
    /// `FILE row N`, for error messages.
    pub place: String,
}

/// Reads a row. `images` are the entries of the image column; `fields` holds the other columns.
///
/// Returns an error that names the row if a column is missing or has a wrong type, if a role or part type is unknown,
/// if the number of images does not match the markers, or if an image is outside the data folder.
pub fn read_row(mut fields: Map<String, Value>, images: Vec<RawImage>, at: &RowContext) -> RowResult<Row> {
    let mut extra = match fields.remove("extra_info").map(structured) {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map.into_iter().filter(|(_, v)| !v.is_null()).collect(),
        Some(other) => return Err(wrong(at, "extra_info", &other, "a struct, or a struct as JSON text")),
    };
    let mut found = Found { at, by_url: Vec::new(), by_part: 0, marks: 0, frames: Vec::new() };
    let question = ["messages", "conversations", "prompt", "problem", "question"];
    let Some((name, value)) = question.into_iter().find_map(|name| Some((name, given(&fields, name)?.clone()))) else {
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        return Err(misfit(&at.place, format!("columns {}", names.join(", ")), QUESTIONS));
    };
    let value = match structured(value) {
        Value::String(text) if name != "messages" && name != "conversations" => {
            serde_json::json!([{"role": "user", "content": text}])
        }
        other => other,
    };
    let mut messages = found.messages(name, &value)?;
    let marked = found.marks + found.by_part + found.by_url.len() > 0;
    let frames = std::mem::take(&mut found.frames);
    let images = if marked || ["messages", "prompt"].contains(&name) {
        found.place_images(&mut messages, images)?
    } else {
        found.in_front(&mut messages, images)?
    };
    let images = in_order(&messages, images, frames);
    if let Some(system) = given(&fields, "system").map(|value| string(at, "system", value)).transpose()? {
        if messages.iter().any(|message| message.role == "system") {
            return Err(misfit(
                &at.place,
                format!("a column `system` and a system message in `{name}`"),
                "only one of them",
            ));
        }
        // LLaMA-Factory writes an empty string for a missing system prompt.
        messages.splice(0..0, (!system.is_empty()).then(|| Message::text("system", system)));
    }

    let mut ground_truth = match fields.remove("reward_model").filter(|v| !v.is_null()).map(structured) {
        None => None,
        Some(Value::Object(map)) => match map.get("ground_truth") {
            None | Some(Value::Null) => None,
            Some(value) => Some(scalar(at, "reward_model.ground_truth", value)?),
        },
        Some(other) => return Err(wrong(at, "reward_model", &other, "a struct with a field `ground_truth`")),
    };
    if let Some(answer) = given(&fields, "answer").or_else(|| given(&fields, "ground_truth")) {
        let answer = scalar(at, "answer", answer)?;
        extra.entry("answer").or_insert_with(|| Value::String(answer.clone()));
        ground_truth.get_or_insert(answer);
    }
    // Other fields of a row are kept in `extra`. OpenMMReasoner's difficulty sampler reads `avg_reward` there.
    if let Some(reward) = given(&fields, "avg_reward") {
        extra.entry("avg_reward").or_insert_with(|| reward.clone());
    }
    let index = extra.get("index").cloned();
    let id = match given(&fields, "id").or_else(|| given(&fields, "ids")) {
        Some(value) => scalar(at, "id", value)?,
        None => format!("{}-{}", at.file, index.map_or_else(|| at.index.to_string(), |i| plain(&i))),
    };
    let data_source = match given(&fields, "data_source") {
        Some(value) => string(at, "data_source", value)?.to_owned(),
        None => at.dataset.to_owned(),
    };
    Ok(Row { id, messages, images, data_source, ground_truth, extra, place: at.place.clone() })
}

/// Reads the entries of an `images` value in JSON: structs with base64 `bytes` and `path`, plain urls, or a single one
/// of these.
pub fn json_images(value: &Value, at: &RowContext) -> RowResult<Vec<RawImage>> {
    let one = |value: &Value| match value {
        Value::String(url) => Ok(RawImage { bytes: None, path: Some(url.clone()) }),
        Value::Object(map) => {
            let bytes = match map.get("bytes") {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(base64(at, text)?.into()),
                Some(other) => return Err(wrong(at, "images.bytes", other, "base64 text")),
            };
            let path = map.get("path").and_then(Value::as_str).map(str::to_owned);
            Ok(RawImage { bytes, path })
        }
        other => Err(wrong(at, "images", other, "structs of `bytes` and `path`, or URLs")),
    };
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => list.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

struct Found<'a> {
    at: &'a RowContext<'a>,
    /// Images given by a url inside the messages, in order.
    by_url: Vec<ImageSource>,
    /// Number of image parts without a url. Each stands for the next entry of the image column.
    by_part: usize,
    marks: usize,
    /// Frames of all videos, in order.
    frames: Vec<ImageSource>,
}

impl Found<'_> {
    fn messages(&mut self, column: &str, value: &Value) -> RowResult<Vec<Message>> {
        let at = self.at;
        let Value::Array(list) = value else { return Err(wrong(at, column, value, "a list of {role, content}")) };
        if list.is_empty() {
            return Err(misfit(&at.place, format!("an empty `{column}`"), "at least one message"));
        }
        list.iter().enumerate().map(|(i, message)| self.message(&format!("{column}[{i}]"), message)).collect()
    }

    fn message(&mut self, name: &str, message: &Value) -> RowResult<Message> {
        let at = self.at;
        let role = given_in(message, "role").or_else(|| given_in(message, "from")).unwrap_or(&Value::Null);
        let role = match string(at, &format!("{name}.role"), role)? {
            "human" => "user",
            "gpt" => "assistant",
            role @ ("system" | "user" | "assistant") => role,
            other => return Err(misfit(&at.place, format!("role {other:?} in {name}"), "system, user or assistant")),
        };
        let content = given_in(message, "content").or_else(|| given_in(message, "value")).unwrap_or(&Value::Null);
        let content = match content {
            Value::String(text) => vec![Part::Text(text.clone())],
            Value::Array(parts) => {
                let part = |(j, p)| self.part(&format!("{name}.content[{j}]"), p);
                parts.iter().enumerate().map(part).collect::<RowResult<Vec<_>>>()?
            }
            other => return Err(wrong(at, &format!("{name}.content"), other, "a string or a list of parts")),
        };
        if role != "assistant" {
            let texts = content.iter().filter_map(|p| if let Part::Text(t) = p { Some(t) } else { None });
            self.marks += texts.map(|t| t.matches(IMAGE_MARKER).count()).sum::<usize>();
        }
        let masked = !self.is_trained(name, message, role)?;
        Ok(Message { role: role.to_owned(), content, masked })
    }

    /// Reads the `loss` (bool, 0 or 1) and `weight` (0 or 1) of a message. Only assistant turns can be trained.
    fn is_trained(&self, name: &str, message: &Value, role: &str) -> RowResult<bool> {
        let mut trained = None;
        for key in ["loss", "weight"] {
            let Some(value) = given_in(message, key) else { continue };
            let wrong =
                |expected| misfit(&self.at.place, format!("{key} {value} in {name}, which has role {role}"), expected);
            let number = value.as_f64().filter(|number| [0.0, 1.0].contains(number)).map(|number| number == 1.0);
            let is_true = value.as_bool().filter(|_| key == "loss").or(number).ok_or_else(|| wrong("0 or 1"))?;
            if is_true && role != "assistant" {
                return Err(wrong("0: only turns of the assistant can be trained on"));
            }
            if trained.is_some_and(|trained| trained != is_true) {
                return Err(wrong("the same value as `loss` of this message"));
            }
            trained = Some(is_true);
        }
        Ok(trained.unwrap_or(true) || role != "assistant")
    }

    fn part(&mut self, name: &str, part: &Value) -> RowResult<Part> {
        let at = self.at;
        if let Value::String(text) = part {
            return Ok(Part::Text(text.clone()));
        }
        match string(at, &format!("{name}.type"), part.get("type").unwrap_or(&Value::Null))? {
            "text" => {
                let text = string(at, &format!("{name}.text"), part.get("text").unwrap_or(&Value::Null))?;
                Ok(Part::Text(text.to_owned()))
            }
            kind @ ("image_url" | "image") => {
                let value = given_in(part, "image_url").or_else(|| given_in(part, "image"));
                match value.map(|v| v.get("url").unwrap_or(v)) {
                    Some(Value::String(url)) => self.by_url.push(resolve(at, url)?),
                    None if kind == "image" => self.by_part += 1,
                    _ => return Err(misfit(&at.place, format!("{name} without a URL"), "image_url.url")),
                }
                Ok(Part::Image)
            }
            "video" => self.video(name, part),
            other => Err(misfit(&at.place, format!("part type {other:?} in {name}"), "text, image_url or video")),
        }
    }

    /// Reads a part `{type: video, video: [frames], fps}`.
    fn video(&mut self, name: &str, part: &Value) -> RowResult<Part> {
        let at = self.at;
        let frames = match given_in(part, "video") {
            Some(frames @ Value::Array(_)) => json_images(frames, at)?,
            Some(other) => {
                return Err(wrong(at, &format!("{name}.video"), other, "a list of frames in the form of `images`"));
            }
            None => Vec::new(),
        };
        if frames.is_empty() {
            return Err(misfit(&at.place, format!("{name} is a video without frames"), "a list of images in `video`"));
        }
        let fps = given_in(part, "fps").or_else(|| given_in(part, "sample_fps"));
        let sensible = |fps: &f64| (MIN_FPS..=MAX_FPS).contains(fps);
        let fps = fps.map_or(Ok(DEFAULT_FPS), |fps| {
            let wrong = || misfit(&at.place, format!("{name}.fps {fps}"), "a number from 0.001 to 1000");
            fps.as_f64().filter(sensible).ok_or_else(wrong)
        })?;
        let part = Part::Video { frames: frames.len(), fps };
        for frame in frames {
            self.frames.push(source(at, frame)?);
        }
        Ok(part)
    }

    /// Puts images that no marker refers to in front of the first question.
    fn in_front(self, messages: &mut [Message], column: Vec<RawImage>) -> RowResult<Vec<ImageSource>> {
        let at = self.at;
        if let (Some(first), false) = (messages.iter_mut().find(|m| m.role == "user"), column.is_empty()) {
            first.content.splice(0..0, column.iter().map(|_| Part::Image));
            return column.into_iter().map(|raw| source(at, raw)).collect();
        }
        self.place_images(messages, column)
    }

    /// Assigns the images to their positions in the messages. If there is an image column, its entries belong to the
    /// markers and the image parts without a url, in reading order. Otherwise the urls keep their positions, or replace
    /// the markers if there are as many markers as urls.
    fn place_images(self, messages: &mut [Message], column: Vec<RawImage>) -> RowResult<Vec<ImageSource>> {
        let at = self.at;
        let places = self.marks + self.by_part;
        let pictures = self.by_url.len() + column.len();
        let wrong_count = || {
            let found = format!("{places} image placeholders ({IMAGE_MARKER} or image parts) for {pictures} images");
            BadRow::of(Reason::WrongImageCount)(Error::input(&at.place, found, "one placeholder per image"))
        };
        if !column.is_empty() {
            if !self.by_url.is_empty() || places != pictures {
                return Err(wrong_count());
            }
            split_marks(messages);
            return column.into_iter().map(|raw| source(at, raw)).collect();
        }
        if places == 0 {
            return Ok(self.by_url);
        }
        if self.by_part > 0 || self.marks != pictures {
            return Err(wrong_count());
        }
        for message in messages.iter_mut() {
            message.content.retain(|p| !matches!(p, Part::Image));
        }
        split_marks(messages);
        Ok(self.by_url)
    }
}

/// Returns images and video frames in the order of the parts of `messages`.
fn in_order(messages: &[Message], pictures: Vec<ImageSource>, frames: Vec<ImageSource>) -> Vec<ImageSource> {
    if frames.is_empty() {
        return pictures;
    }
    let (mut pictures, mut frames) = (pictures.into_iter(), frames.into_iter());
    let mut all = Vec::new();
    for part in messages.iter().flat_map(|message| &message.content) {
        match part {
            Part::Text(_) => {}
            Part::Image => all.extend(pictures.next()),
            Part::Video { frames: count, .. } => all.extend(frames.by_ref().take(*count)),
        }
    }
    all
}

fn source(at: &RowContext, raw: RawImage) -> RowResult<ImageSource> {
    match raw {
        RawImage { bytes: Some(bytes), path } => Ok(ImageSource::Bytes { bytes, path }),
        RawImage { bytes: None, path: Some(url) } => resolve(at, &url),
        RawImage { bytes: None, path: None } => {
            Err(misfit(&at.place, "an image without bytes and path", "`bytes` or `path`"))
        }
    }
}

fn resolve(at: &RowContext, url: &str) -> RowResult<ImageSource> {
    let reason = if url.starts_with("data:") { Reason::BrokenImage } else { Reason::MissingImage };
    at.folder.resolve(url, &at.place).map_err(BadRow::of(reason))
}

fn base64(at: &RowContext, text: &str) -> RowResult<Vec<u8>> {
    decode_data_url(&format!(";base64,{text}"), &at.place).map_err(BadRow::of(Reason::BrokenImage))
}

fn misfit(place: &str, found: impl Into<String>, expected: &str) -> BadRow {
    BadRow::of(Reason::WrongColumns)(Error::input(place, found, expected))
}

fn split_marks(messages: &mut [Message]) {
    for message in messages.iter_mut().filter(|m| m.role != "assistant") {
        let mut content = Vec::with_capacity(message.content.len());
        for part in message.content.drain(..) {
            match part {
                Part::Text(text) if text.contains(IMAGE_MARKER) => {
                    for (i, piece) in text.split(IMAGE_MARKER).enumerate() {
                        if i > 0 {
                            content.push(Part::Image);
                        }
                        if !piece.is_empty() {
                            content.push(Part::Text(piece.to_owned()));
                        }
                    }
                }
                part => content.push(part),
            }
        }
        message.content = content;
    }
}

/// Parses a list or struct that is stored as JSON text; returns any other value unchanged.
fn structured(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Value::Object(map),
        Ok(Value::Array(list)) if list.first().is_some_and(Value::is_object) => Value::Array(list),
        _ => value,
    }
}

/// Number of rows of a JSON file that are read to list its columns.
pub const LOOKED_AT: usize = 1000;

/// Returns the names and types of the columns in the first `rows` rows of a JSON file, in order of appearance.
pub fn json_columns(path: &Path, layout: Layout, rows: usize) -> Result<Vec<(String, String)>> {
    let mut columns: Vec<(String, Vec<&str>)> = Vec::new();
    layout.read(path, rows, |_, fields| {
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

fn given<'a>(fields: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    fields.get(key).filter(|v| !v.is_null())
}

fn given_in<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|v| !v.is_null())
}

fn string<'a>(at: &RowContext, name: &str, value: &'a Value) -> RowResult<&'a str> {
    value.as_str().ok_or_else(|| wrong(at, name, value, "a string"))
}

/// Converts a string, number or bool to text.
fn scalar(at: &RowContext, name: &str, value: &Value) -> RowResult<String> {
    match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(plain(value)),
        other => Err(wrong(at, name, other, "a string or a number")),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn wrong(at: &RowContext, name: &str, value: &Value, expected: &str) -> BadRow {
    misfit(&at.place, format!("{} in `{name}`", kind(value)), expected)
}

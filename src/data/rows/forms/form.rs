//! Converts the fields of a row to a [`Row`]. The table in `forms.rs` says which columns the turns come from; this file
//! reads the messages and assigns the images to their places.

use serde_json::{Map, Value};

use super::answer::{between, take_answers};
use super::fields::{
    RawImage, RowContext, given, given_in, is_field, misfit, plain, role, scalar, shown, string, structured, wrong,
};
use super::unread::{self, Unread};
use super::{choices, table};
use crate::reward::typed;
use crate::rows::files::folder::base64;
use crate::rows::{BadRow, ImageSource, Reason, Row, RowResult, text_of};
use crate::text::{Message, Part};
use omr_base::error::Error;

/// Default number of frames per second, for a video part without `fps`.
const DEFAULT_FPS: f64 = 2.0;
/// Minimum and maximum of `fps`.
const MIN_FPS: f64 = 0.001;
const MAX_FPS: f64 = 1000.0;

/// Length in bytes of a url up to which it is no image in and is printed as a whole.
const LONG_URL: usize = 200;

/// Marks the position of an image in a text.
pub const IMAGE_MARKER: &str = "<image>";

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
    if at.entry.is_multiple_choice() {
        choices::apply(&mut fields, at)?;
    }
    // These fields belong to the question and the label before the entry replaced them.
    if at.entry.prompt.is_some() {
        extra.remove("question");
    }
    if at.entry.gold.is_some() {
        extra.remove("answer");
    }
    take_answers(&mut fields, &mut extra, at)?;
    let form = table::of(&fields, at)?;
    let mut found = Found {
        at,
        by_url: Vec::new(),
        by_part: 0,
        marks: 0,
        literal: Vec::new(),
        frames: Vec::new(),
        unread: Vec::new(),
    };
    images.iter().for_each(|image| found.skip("images", &image.unread));
    let turns = form.messages(&fields, at)?;
    // TRL puts unmarked images into the first user message if its content is a text.
    let asked = turns.iter().find(|(_, turn)| !matches!(role(turn), Some("system" | "assistant" | "gpt")));
    let is_text = asked.is_none_or(|(_, turn)| content(turn).is_none_or(Value::is_string));
    let mut messages: Vec<Message> =
        turns.iter().map(|(name, turn)| found.message(name, turn)).collect::<RowResult<_>>()?;
    let marked = found.marks + found.by_part + found.by_url.len() > 0;
    if !marked && !images.is_empty() && messages.iter().any(|message| has_other_mark(&text_of(message), images.len())) {
        let expected = format!(
            "`{IMAGE_MARKER}` at the place of each image, for example by a template in the entry: \
             prompt: \"{{{{ question | replace('<image 1>', '{IMAGE_MARKER}') }}}}\""
        );
        return Err(misfit(&at.place, "other image marks, such as `<image 1>` or `<ImageHere>`", &expected));
    }
    let (frames, unread) = (std::mem::take(&mut found.frames), std::mem::take(&mut found.unread));
    let images = match marked || !is_text {
        true => found.place_images(&mut messages, images)?,
        false => found.in_front(&mut messages, images)?,
    };
    let images = in_order(&messages, images, frames);
    if let Some(system) = given(&fields, "system").map(|value| string(at, "system", value)).transpose()? {
        if messages.iter().any(|message| message.role == "system") {
            let found = format!("a column `system` and a system message in `{}`", turns[0].0);
            return Err(misfit(&at.place, found, "only one of them"));
        }
        // LLaMA-Factory writes an empty string for a missing system prompt.
        messages.splice(0..0, (!system.is_empty()).then(|| Message::text("system", system)));
    }
    if let Some(system) = at.entry.system_prompt.as_ref().filter(|text| !text.is_empty())
        && messages.iter().all(|message| message.role != "system")
    {
        messages.insert(0, Message::text("system", system.clone()));
    }
    // verl keeps the tools and the agent of a row there.
    let extras = extra.iter().filter(|(name, _)| unread::OF_EXTRA.contains(&name.as_str()));
    let columns = fields
        .iter()
        .map(|(name, value)| ("", name, value))
        .chain(extras.map(|(name, value)| ("extra_info", name, value)));
    let columns = columns.filter_map(|(within, name, value)| Unread::column(name, within, value, &fields, &messages));
    unread::refuse(columns.chain(unread).collect(), at)?;
    let (ground_truth, label) = label(&mut fields, &mut extra, at)?;
    keep_reward_fields(&fields, &mut extra, at)?;
    let index = extra.get("index").cloned();
    let id = match given(&fields, "id").or_else(|| given(&fields, "ids")) {
        Some(value) => scalar(at, "id", value)?,
        None => format!("{}-{}", at.file, index.map_or_else(|| at.index.to_string(), |i| plain(&i))),
    };
    let data_source = match given(&fields, "data_source") {
        Some(value) => string(at, "data_source", value)?.to_owned(),
        None => at.dataset.to_owned(),
    };
    let reply = form.reply(&fields, at)?;
    let place = at.place.clone();
    let (columns, form) = (Map::new(), form.name);
    let row = Row { id, messages, images, data_source, ground_truth, label, reply, extra, place, ..Row::default() };
    Ok(Row { columns, form, ..row })
}

/// Copies the columns about the reward to `extra`.
fn keep_reward_fields(fields: &Map<String, Value>, extra: &mut Map<String, Value>, at: &RowContext) -> RowResult<()> {
    // Other fields of a row are kept in `extra`. OpenMMReasoner's difficulty sampler reads `avg_reward` there.
    for name in ["avg_reward", "pass_rate"] {
        if let Some(reward) = given(fields, name) {
            extra.entry(name).or_insert_with(|| reward.clone());
        }
    }
    let named = [(typed::REWARD_TYPE, &at.entry.columns.reward_type), (typed::DOMAIN, &at.entry.columns.domain)];
    for (name, column) in named {
        // A column that the entry does not name may have another meaning.
        if let Some(value) = given(fields, name).filter(|value| column.is_some() || value.is_string()) {
            extra.insert(name.to_owned(), string(at, name, value)?.into());
        }
    }
    Ok(())
}

/// Field of `extra_info` with the label of a row that omr wrote, if it is a list or a struct.
pub const WRITTEN_LABEL: &str = "reward_model.ground_truth";

/// Label of a row as text, if it has one, and as [`Row::label`].
type Label = (Option<String>, Value);

/// Returns the label: `reward_model.ground_truth`, or the first of the columns [`table::LABEL`]. An empty text is no
/// label. A struct becomes JSON, and so does a list, unless it may be a list of right answers.
fn label(fields: &mut Map<String, Value>, extra: &mut Map<String, Value>, at: &RowContext) -> RowResult<Label> {
    let nested = |value: &Value| value.is_object() || value.is_array();
    let read = |name: &str, value: &Value| match scalar(at, name, value) {
        Ok(text) => Ok((text, Value::Null)),
        // In `answer`, a list of texts or numbers is several right answers, which only the entry can say.
        Err(bad)
            if !name.ends_with("ground_truth") && value.as_array().is_some_and(|list| !list.iter().any(nested)) =>
        {
            Err(bad)
        }
        Err(_) => Ok((value.to_string(), value.clone())),
    };
    let mut ground_truth = match fields.remove("reward_model").filter(|v| !v.is_null()).map(structured) {
        None => None,
        Some(Value::Object(map)) => {
            given(&map, "ground_truth").map(|label| read("reward_model.ground_truth", label)).transpose()?
        }
        Some(other) => return Err(wrong(at, "reward_model", &other, "a struct with a field `ground_truth`")),
    };
    if let Some((name, answer)) = table::LABEL.iter().find_map(|name| Some((*name, given(fields, name)?))) {
        let (mut answer, label) = read(name, answer)?;
        // A solution in the recipe's format contains the answer.
        if let Some(inner) = between(&answer, "<answer>", "</answer>").filter(|_| name == "solution") {
            answer = inner.trim().to_owned();
        }
        let as_given = || if label.is_null() { Value::String(answer.clone()) } else { label.clone() };
        extra.entry("answer").or_insert_with(as_given);
        ground_truth.get_or_insert((answer, label));
    }
    let (text, label) = ground_truth.unzip();
    let label = extra.remove(WRITTEN_LABEL).or(label).unwrap_or_default();
    Ok((text.filter(|text| !text.trim().is_empty()), label))
}

/// Reads the entries of an `images` value in JSON: structs with base64 `bytes` and `path`, plain urls, or a single one
/// of these.
pub fn json_images(value: &Value, at: &RowContext) -> RowResult<Vec<RawImage>> {
    RawImage::all(value).map_err(|(found, expected)| misfit(&at.place, found, expected))
}

struct Found<'a> {
    at: &'a RowContext<'a>,
    /// Images inside the messages, in order.
    by_url: Vec<RawImage>,
    /// Number of image parts without a url. Each stands for the next entry of the image column.
    by_part: usize,
    marks: usize,
    /// True for each message whose images are parts, so that a mark in its texts is text.
    literal: Vec<bool>,
    /// Frames of all videos, in order.
    frames: Vec<ImageSource>,
    /// Fields that are not read.
    unread: Vec<Unread>,
}

impl Found<'_> {
    /// Records the fields of `within` that are not read.
    fn skip<'a>(&mut self, within: &str, names: impl IntoIterator<Item = &'a String>) {
        self.unread.extend(names.into_iter().map(|name| Unread::field(name, within)));
    }

    /// Records the fields of a message or part that have a value and are not in the set of those that are read.
    fn close(&mut self, within: &str, value: &Value, is_read: impl Fn(&str, &Value) -> bool) {
        let others = value.as_object().into_iter().flatten();
        let others = others.filter(|(name, value)| !is_read(name, value) && is_field(name, value));
        self.skip(within, others.map(|(name, _)| name));
    }

    fn message(&mut self, name: &str, message: &Value) -> RowResult<Message> {
        let at = self.at;
        let role = given_in(message, "role").or_else(|| given_in(message, "from")).unwrap_or(&Value::Null);
        let role = match string(at, &format!("{name}.role"), role)? {
            "human" => "user",
            "gpt" => "assistant",
            role @ ("system" | "user" | "assistant") => role,
            other => {
                let expected = "system, user or assistant: turns of tools are not supported";
                return Err(misfit(&at.place, format!("role {:?} in {name}", shown(other)), expected));
            }
        };
        let thinking = table::REASONING.iter().find_map(|field| Some((*field, given_in(message, field)?)));
        let thinking = thinking.filter(|_| role == "assistant");
        let mut content = match content(message).unwrap_or(&Value::Null) {
            Value::String(text) => vec![Part::Text(text.clone())],
            Value::Array(parts) => {
                let part = |(j, p)| self.part(&format!("{name}.content[{j}]"), p);
                parts.iter().enumerate().map(part).collect::<RowResult<Vec<_>>>()?
            }
            other => return Err(wrong(at, &format!("{name}.content"), other, "a string or a list of parts")),
        };
        if let Some(Part::Text(answer)) = content.first_mut() {
            *answer = table::with_thinking(thinking, at, std::mem::take(answer))?;
        }
        let (text, reasons) = (self::content(message), thinking.map(|(_, thinking)| thinking));
        self.close(name, message, |field, value| match field {
            "role" | "from" => true,
            "content" | "value" => text.is_some_and(|text| std::ptr::eq(value, text) || value == text),
            _ if table::REASONING.contains(&field) => Some(value) == reasons,
            _ => table::LOSS.contains(&field),
        });
        let literal = content.iter().any(|part| !matches!(part, Part::Text(_)));
        self.literal.push(literal);
        if role != "assistant" && !literal {
            self.marks += content.iter().filter_map(Part::text).map(|t| t.matches(IMAGE_MARKER).count()).sum::<usize>();
        }
        let masked = !self.is_trained(name, message, role)?;
        Ok(Message { role: role.to_owned(), content, masked })
    }

    /// Reads the fields [`table::LOSS`] of a message: a bool, 0 or 1. Only assistant turns can be trained.
    fn is_trained(&self, name: &str, message: &Value, role: &str) -> RowResult<bool> {
        let mut trained = None;
        let fields = message.as_object().into_iter().flatten();
        for (key, value) in fields.filter(|(key, value)| table::LOSS.contains(&key.as_str()) && !value.is_null()) {
            let wrong = |expected| {
                misfit(
                    &self.at.place,
                    format!("{key} {} in {name}, which has role {role}", shown(&value.to_string())),
                    expected,
                )
            };
            let number = value.as_f64().filter(|number| [0.0, 1.0].contains(number)).map(|number| number == 1.0);
            let is_true = value
                .as_bool()
                .filter(|_| !table::WEIGHTS.contains(&key.as_str()))
                .or(number)
                .ok_or_else(|| wrong("0 or 1"))?;
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
                let text = given_in(part, "text").or_else(|| given_in(part, "value")).unwrap_or(&Value::Null);
                self.close(name, part, |field, value| field == "type" || value == text);
                let text = string(at, &format!("{name}.text"), text)?;
                Ok(Part::Text(text.to_owned()))
            }
            kind @ ("image_url" | "image") => {
                // LLaMA-Factory v1 has the url in `value`, transformers in `url` or `path`.
                let keys = ["image_url", "image", "value", "url", "path"];
                let value = keys.iter().find_map(|key| Some((*key, given_in(part, key)?)));
                self.close(name, part, |field, other| {
                    field == "type" || value.is_some_and(|(_, value)| value == other)
                });
                let misfit =
                    |(found, expected): (String, &str)| misfit(&at.place, format!("{found} in {name}"), expected);
                let image = value.map(|(_, value)| RawImage::one(value)).transpose().map_err(misfit)?;
                if let (Some((key, _)), Some(Some(image))) = (value, &image) {
                    self.skip(&format!("{name}.{key}"), &image.unread);
                }
                match image.map(Option::unwrap_or_default) {
                    Some(image) if image.bytes.is_some() || image.path.is_some() => self.by_url.push(image),
                    None if kind == "image" => self.by_part += 1,
                    _ => return Err(misfit((format!("{kind} without a URL"), "image_url.url"))),
                }
                Ok(Part::Image)
            }
            "video" => self.video(name, part),
            other => {
                Err(misfit(&at.place, format!("part type {:?} in {name}", shown(other)), "text, image_url or video"))
            }
        }
    }

    /// Reads a part `{type: video, video: [frames], fps}`.
    fn video(&mut self, name: &str, part: &Value) -> RowResult<Part> {
        let at = self.at;
        self.close(name, part, |field, _| ["type", "video", "fps", "sample_fps"].contains(&field));
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
            let wrong =
                || misfit(&at.place, format!("{name}.fps {}", shown(&fps.to_string())), "a number from 0.001 to 1000");
            fps.as_f64().filter(sensible).ok_or_else(wrong)
        })?;
        let part = Part::Video { frames: frames.len(), fps };
        for frame in frames {
            self.skip(&format!("{name}.video"), &frame.unread);
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
    /// the markers if there are as many markers as urls. A column that lists the urls of the messages once more, as in
    /// Vero, adds nothing but the images' bytes.
    fn place_images(self, messages: &mut [Message], column: Vec<RawImage>) -> RowResult<Vec<ImageSource>> {
        let at = self.at;
        let places = self.marks + self.by_part;
        let repeats = places == 0 && !column.is_empty() && self.are_urls_of(&column);
        let images = if repeats { 0 } else { self.by_url.len() } + column.len();
        let wrong_count = || {
            let found = format!("{places} image placeholders ({IMAGE_MARKER} or image parts) for {images} images");
            BadRow::of(Reason::WrongImageCount)(Error::input(&at.place, found, "one placeholder per image"))
        };
        if !column.is_empty() {
            if !repeats && (!self.by_url.is_empty() || places != images) {
                return Err(wrong_count());
            }
            split_marks(messages, &self.literal);
            return column.into_iter().map(|raw| source(at, raw)).collect();
        }
        if places > 0 {
            if self.by_part > 0 || self.marks != images {
                return Err(wrong_count());
            }
            for message in messages.iter_mut() {
                message.content.retain(|p| !matches!(p, Part::Image));
            }
            split_marks(messages, &self.literal);
        }
        self.by_url.into_iter().map(|raw| source(at, raw)).collect()
    }

    /// Returns true if the entries of the image column are the urls of the messages, in the same order.
    fn are_urls_of(&self, column: &[RawImage]) -> bool {
        let same = |(own, raw): (&RawImage, &RawImage)| raw.path.is_none() || raw.path == own.path;
        self.by_url.len() == column.len() && self.by_url.iter().zip(column).all(same)
    }
}

/// Returns the content of a message.
fn content(message: &Value) -> Option<&Value> {
    given_in(message, "content").or_else(|| given_in(message, "value"))
}

/// Returns images and video frames in the order of the parts of `messages`.
fn in_order(messages: &[Message], images: Vec<ImageSource>, frames: Vec<ImageSource>) -> Vec<ImageSource> {
    if frames.is_empty() {
        return images;
    }
    let (mut images, mut frames) = (images.into_iter(), frames.into_iter());
    let mut all = Vec::new();
    for part in messages.iter().flat_map(|message| &message.content) {
        match part {
            Part::Text(_) => {}
            Part::Image => all.extend(images.next()),
            Part::Video { frames: count, .. } => all.extend(frames.by_ref().take(*count)),
        }
    }
    all
}

fn source(at: &RowContext, raw: RawImage) -> RowResult<ImageSource> {
    match raw {
        RawImage { bytes: Some(bytes), path, .. } => Ok(ImageSource::Bytes { bytes, path }),
        RawImage { bytes: None, path: Some(url), .. } => resolve(at, &url),
        RawImage { bytes: None, path: None, .. } => {
            Err(misfit(&at.place, "an image without bytes and path", "`bytes` or `path`"))
        }
    }
}

/// Returns the image of a url, or of base64 text without the beginning `data:` of a url.
fn resolve(at: &RowContext, url: &str) -> RowResult<ImageSource> {
    let reason = if url.starts_with("data:") { Reason::BrokenImage } else { Reason::MissingImage };
    let is_long = url.len() > LONG_URL;
    if let Some(bytes) = base64(url).ok().filter(|bytes| is_long && ::image::guess_format(bytes).is_ok()) {
        return Ok(ImageSource::Bytes { bytes: bytes.into(), path: None });
    }
    let found = at.folder.resolve(url, &at.place);
    if is_long && reason == Reason::MissingImage && found.is_err() {
        let expected = "the path of a file, or an image in base64";
        return Err(BadRow::of(reason)(Error::input(&at.place, format!("image {:?}", shown(url)), expected)));
    }
    found.map_err(BadRow::of(reason))
}

/// Returns true if a text has a mark such as `<image 1>` (MMMU), `<ImageHere>` (InternLM-XComposer), a model's own tokens
/// for images, or beside several images `<image1>` or `<image_1>`. MathVision's `<image1>` names its only image.
fn has_other_mark(text: &str, images: usize) -> bool {
    let own = ["<ImageHere>", "<|image", "<|vision"];
    let numbered: &[&str] = if images > 1 { &["<image ", "<image_", "<image"] } else { &["<image "] };
    let is_number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let has = |mark: &&str| text.split(mark).skip(1).any(is_number);
    own.iter().any(|mark| text.contains(mark)) || numbered.iter().any(has)
}

/// Replaces the marks in the texts of messages by images, except in `literal` messages.
fn split_marks(messages: &mut [Message], literal: &[bool]) {
    let marked = messages.iter_mut().zip(literal).filter(|(m, literal)| m.role != "assistant" && !**literal);
    for (message, _) in marked {
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

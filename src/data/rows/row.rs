//! Rows and samples: one record of a data set before and after tokenization.

use std::borrow::Cow;
use std::io::{self, Cursor, Read as _, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::files::stamp::{self, short};
use super::files::zipped::{Archive, within};
use crate::image::{self, Decoding, Header, ImageInput, Limits, Refused, Rgb};
use crate::reward::{Item, typed};
use crate::rows::bad_row::{BadRow, Reason, RowResult};
use crate::text::{Message, Part};
use omr_base::config::ImageAlpha;
use omr_base::error::{Error, Result};
use omr_base::files;

/// Name of the form of rows with a prompt and no answer.
pub(super) const PROMPT: &str = "prompt (verl, TRL)";

/// One row of data, in SFT or RL form.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Id of the row. Several rows may have the same id, for example rows with different answers to one question.
    pub id: String,
    /// Messages of the conversation. In SFT form the last one is the assistant's answer, in RL form the user's
    /// question.
    pub messages: Vec<Message>,
    /// Images and frames of videos, in the order of the messages' parts.
    pub images: Vec<ImageSource>,
    /// Source of the row (verl's `data_source`; the name of the data set if the row has none).
    pub data_source: String,
    /// Label as text, if the row has one: of a list or a struct, its JSON.
    pub ground_truth: Option<String>,
    /// Label as the row has it, if it is a list or a struct, which only a reward program can use; otherwise null.
    pub label: Value,
    /// Answer that SFT trains on if the messages have none: the label of a row with a question and an answer.
    pub reply: Option<String>,
    /// `extra_info`: index, question, answer, split and any other fields of the row.
    pub extra: Map<String, Value>,
    /// Columns with their names and values in the file, without images, if the reader of the row keeps them.
    pub columns: Map<String, Value>,
    /// File and row, for messages to the user.
    pub place: String,
    /// Name of the form that the row was read in; empty if it was not read from a data set.
    pub form: &'static str,
    /// True for a row of [`Row::of_turn`]: only the last message is trained, after the prompt that a sampler sees.
    pub only_last: bool,
}

impl Row {
    /// Returns the conversation that SFT trains on: the messages, and `reply` if they do not end with an answer.
    pub fn trained_messages(&self) -> Cow<'_, [Message]> {
        let is_open = self.messages.last().is_some_and(|last| last.role != "assistant");
        let Some(reply) = self.reply.as_ref().filter(|_| is_open) else { return Cow::Borrowed(&self.messages) };
        let answer = Message::text("assistant", reply.clone());
        Cow::Owned(self.messages.iter().cloned().chain([answer]).collect())
    }

    /// Returns true if the conversation that SFT trains on ends with an assistant message that has text.
    pub fn is_answered(&self) -> bool {
        // A model continues the assistant's turn at the end of a prompt. SFT has no answer in it.
        let has_prompt = self.form == PROMPT && self.messages.last().is_some_and(|last| last.role == "assistant");
        let is_answer = |m: &Message| m.role == "assistant" && !text_of(m).trim().is_empty();
        !has_prompt && self.trained_messages().last().is_some_and(is_answer)
    }

    /// Returns the domain of the row, if it has one.
    pub fn domain(&self) -> Option<&str> {
        typed::name(&self.extra, typed::DOMAIN)
    }

    /// Returns the row that trains only the last of its first `messages` messages. With 0, returns the row itself.
    pub fn of_turn(self, messages: usize) -> Row {
        if messages == 0 {
            return self;
        }
        let place = format!("{}, message {messages}", self.place);
        let messages = self.trained_messages()[..messages].to_vec();
        let count = messages.iter().flat_map(|message| &message.content).filter_map(span).map(|(len, _)| len).sum();
        let mut row = Row { messages, place, reply: None, only_last: true, ..self };
        row.images.truncate(count);
        row
    }

    /// Returns the images and videos, in the order of the messages' parts. Images without a part come last.
    pub fn media(&self) -> Vec<Media<'_>> {
        let mut from = 0;
        let medium = |(len, fps): (usize, Option<f64>)| {
            from += len;
            match fps {
                None => Media::Image(&self.images[from - 1]),
                Some(fps) => Media::Video { frames: &self.images[from - len..from], fps },
            }
        };
        self.spans().into_iter().map(medium).collect()
    }

    /// Returns, for each entry of [`Row::media`], its number of entries in `images` and, for a video, the frames per
    /// second.
    pub fn spans(&self) -> Vec<(usize, Option<f64>)> {
        let (mut spans, mut left) = (Vec::new(), self.images.len());
        for (len, fps) in self.messages.iter().flat_map(|message| &message.content).filter_map(span) {
            if len <= left {
                spans.push((len, fps));
                left -= len;
            }
        }
        spans.extend((0..left).map(|_| (1, None)));
        spans
    }

    /// Returns the row with the bytes of its images embedded. The row is bad if an image file cannot be read.
    pub fn embedded(mut self) -> RowResult<Row> {
        for image in &mut self.images {
            if !matches!(image, ImageSource::Bytes { .. }) {
                let (held, _) = image.held(&self.place).map_err(BadRow::of(Reason::MissingImage))?;
                *image = held;
            }
        }
        Ok(self)
    }

    /// Returns a hash of the question: the messages, and the images as encoded. Returns an error if an image file
    /// cannot be read.
    pub fn content(&self) -> Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        let mut add = |kind: u8, bytes: &[u8]| {
            hasher.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        for message in &self.messages {
            add(0, message.role.as_bytes());
            for part in &message.content {
                match part {
                    Part::Text(text) => add(1, text.as_bytes()),
                    Part::Image => add(2, &[]),
                    Part::Video { frames, fps } => {
                        add(3, &(*frames as u64).to_le_bytes());
                        add(5, &fps.to_le_bytes());
                    }
                }
            }
        }
        for image in &self.images {
            add(4, &image.bytes(&self.place)?);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Returns `extra`, for a reward of places in an image with `image_sizes`: width and height of each image.
    pub fn extra_info(&self) -> Map<String, Value> {
        let mut extra = self.extra.clone();
        if typed::is_of_places(&extra) && !extra.contains_key(typed::SIZES) {
            let sizes = self.images.iter().map(|image| image.header(&self.place).ok().map(|header| header.size));
            let sizes = sizes.collect::<Option<Vec<_>>>().filter(|sizes| !sizes.is_empty());
            extra.extend(sizes.map(|sizes| (typed::SIZES.to_owned(), json!(sizes))));
        }
        extra
    }

    /// Returns the information that a scorer receives, except the text of the label and the question.
    pub fn item(&self) -> Item {
        let (label, data_source, extra_info) = (self.label.clone(), self.data_source.clone(), self.extra_info());
        let (columns, place) = (self.columns.clone(), self.place.clone());
        Item { label, data_source, extra_info, columns, place, ..Item::default() }
    }

    /// Returns the messages that a model answers: all messages before the final assistant turn, if the row has one. If that
    /// turn is the end of a prompt, it belongs to the messages, and the answer continues it, as in TRL.
    pub fn prompt(&self) -> &[Message] {
        match self.messages.split_last() {
            Some((last, before)) if last.role == "assistant" && self.form != PROMPT => before,
            _ => &self.messages,
        }
    }

    /// Returns the total length in bytes of the messages' texts.
    pub fn text_len(&self) -> usize {
        self.messages.iter().flat_map(|m| &m.content).filter_map(Part::text).map(str::len).sum()
    }

    /// Returns the total size in bytes of the images that are in memory.
    pub fn image_bytes(&self) -> usize {
        self.images.iter().map(ImageSource::embedded).sum()
    }

    /// Returns the question: the field `question` of `extra`, or the text of the user's messages without images.
    pub fn question(&self) -> String {
        if let Some(q) = self.extra.get("question").and_then(|q| q.as_str()) {
            return q.to_owned();
        }
        let texts: Vec<String> = self.messages.iter().filter(|m| m.role == "user").map(text_of).collect();
        texts.join("\n").trim().to_owned()
    }
}

/// Returns the number of images of a part and, for a video, the frames per second. `None` for text.
fn span(part: &Part) -> Option<(usize, Option<f64>)> {
    match *part {
        Part::Text(_) => None,
        Part::Image => Some((1, None)),
        Part::Video { frames, fps } => Some((frames, Some(fps))),
    }
}

/// An image or a video of a row.
#[derive(Clone, Copy, Debug)]
pub enum Media<'a> {
    /// An image.
    Image(&'a ImageSource),
    /// A video.
    Video {
        /// Frames, as images.
        frames: &'a [ImageSource],
        /// Frames per second.
        fps: f64,
    },
}

/// Returns the text parts of a message, joined.
pub fn text_of(message: &Message) -> String {
    message.content.iter().filter_map(Part::text).collect()
}

/// Location of a row's image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// An entry of the `images` column.
    Bytes {
        /// Encoded image.
        bytes: Arc<[u8]>,
        /// Name that the column gives, if any.
        path: Option<String>,
    },
    /// A file inside the data folder.
    File {
        /// Url as written in the row.
        url: String,
        /// Resolved path, checked to be inside the data folder.
        file: PathBuf,
    },
    /// A member of the zip file that serves as the data folder.
    Zipped {
        /// Url as written in the row.
        url: String,
        /// The zip file.
        archive: Arc<Archive>,
        /// Number of the member.
        index: usize,
    },
}

impl ImageSource {
    /// Returns the number of image bytes that are in memory: 0 for a file and for a member of a zip file.
    pub fn embedded(&self) -> usize {
        if let ImageSource::Bytes { bytes, .. } = self { bytes.len() } else { 0 }
    }

    /// Returns the encoded image. `place` names the row.
    pub fn bytes(&self, place: &str) -> Result<Arc<[u8]>> {
        match self {
            ImageSource::Bytes { bytes, .. } => Ok(bytes.clone()),
            ImageSource::File { file, .. } => {
                let len = std::fs::metadata(file).map(|file| file.len());
                let bytes = len.and_then(within).and_then(|()| files::read(file));
                Ok(bytes.map_err(|e| Error::of_row(place, file, READABLE, e))?.into())
            }
            ImageSource::Zipped { archive, index, .. } => {
                let unreadable = |e| Error::of_row(&self.place(place), &archive.path, READABLE, e);
                Ok(archive.read(*index).map_err(unreadable)?.into())
            }
        }
    }

    /// Returns the name that the row gives to the image.
    pub fn name(&self) -> Option<&str> {
        match self {
            ImageSource::Bytes { path, .. } => path.as_deref(),
            ImageSource::File { url, .. } | ImageSource::Zipped { url, .. } => Some(url),
        }
    }

    /// Returns the decoded image. Errors name `place` and the image, if it has a name.
    pub fn decode(&self, place: &str) -> Result<Rgb> {
        self.decode_then(place, ImageAlpha::Drop, |_, image| image)
    }

    /// Decodes the image with this treatment of alpha and of 16 bits, and calls `then` with the encoded bytes and the image; see
    /// [`image::decode_then`]. Errors name `place` and the image, if it has a name.
    pub fn decode_then<T>(
        &self,
        place: &str,
        decoding: impl Into<Decoding>,
        then: impl FnOnce(&[u8], Rgb) -> T,
    ) -> Result<T> {
        let bytes = self.bytes(place)?;
        image::decode_then(&bytes, &Limits::default(), decoding, &self.place(place), |image| then(&bytes, image))
    }

    /// Reads only the header of the image. The row is bad if the header cannot be read or the size is not supported.
    pub fn header(&self, place: &str) -> RowResult<Header> {
        let (limits, name) = (Limits::default(), self.place(place));
        let broken = BadRow::of(Reason::BrokenImage);
        let of_all = || image::header(Cursor::new(self.bytes(place).map_err(Refused::Broken)?), &limits, &name);
        let read = match self {
            ImageSource::File { file, .. } => {
                let opened = files::open(file).map_err(|e| Error::of_row(place, file, READABLE, e));
                image::header(opened.map_err(broken)?, &limits, &name)
            }
            // The first bytes contain the header of nearly every image.
            ImageSource::Zipped { archive, index, .. } => match archive.start(*index) {
                Ok(start) => image::header(Cursor::new(start), &limits, &name).or_else(|_| of_all()),
                Err(_) => of_all(),
            },
            ImageSource::Bytes { .. } => of_all(),
        };
        read.map_err(|refused| match refused {
            Refused::Broken(error) => broken(error),
            Refused::Size(error) => BadRow::of(Reason::WrongImageSize)(error),
        })
    }

    /// Returns a stamp that shows whether an image file is still the same. A file is identified by its size and its
    /// first and last bytes, a member of a zip file by its size and checksum, an embedded image by a hash of its bytes.
    pub fn stamp(&self, place: &str) -> Result<u64> {
        let (file, stamp) = match self {
            ImageSource::Bytes { bytes, .. } => return Ok(stamp::of_embedded(bytes)),
            ImageSource::File { file, .. } => (file, files::open(file).and_then(ends)),
            ImageSource::Zipped { archive, index, .. } => (&archive.path, archive.stamp(*index)),
        };
        stamp.map_err(|e| Error::of_row(place, file, READABLE, e))
    }

    /// Returns the image with its bytes in memory, and the [`ImageSource::stamp`] computed from these bytes.
    pub fn held(&self, place: &str) -> Result<(ImageSource, u64)> {
        let bytes = self.bytes(place)?;
        let stamp = match self {
            ImageSource::File { file, .. } => ends(Cursor::new(&bytes)).map_err(Error::io(file))?,
            _ => self.stamp(place)?,
        };
        Ok((ImageSource::Bytes { bytes, path: self.name().map(str::to_owned) }, stamp))
    }

    /// Returns the row's place and the image's name, if it has one.
    pub fn place(&self, row: &str) -> String {
        if let Some(name) = self.name() { format!("{row}, image {name}") } else { row.to_owned() }
    }
}

/// Expected value in the error of an image that cannot be read.
const READABLE: &str = "a readable image file";

/// Number of bytes at each end of a file that its stamp covers.
const ENDS: u64 = 4096;

/// Returns a hash of a file's size and of its first and last bytes.
fn ends(mut file: impl io::Read + Seek) -> io::Result<u64> {
    let (len, mut hasher) = (file.seek(SeekFrom::End(0))?, blake3::Hasher::new());
    hasher.update(&len.to_le_bytes());
    for start in [0, len.saturating_sub(ENDS)] {
        file.seek(SeekFrom::Start(start))?;
        hasher.update_reader(file.by_ref().take(ENDS))?;
    }
    Ok(short(&hasher.finalize()))
}

/// A training sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Token ids with every image expanded to its visual tokens.
    pub input_ids: Vec<u32>,
    /// `loss_mask[t]` is true if the prediction of token t is trained.
    pub loss_mask: Vec<bool>,
    /// Images and videos, in order.
    pub images: Vec<Arc<ImageInput>>,
}

/// A prompt, ready for generation.
#[derive(Clone, Debug)]
pub struct EncodedPrompt {
    /// Token ids with every image expanded; ends with the opening of the assistant's turn.
    pub ids: Vec<u32>,
    /// Images and videos, in order.
    pub images: Vec<Arc<ImageInput>>,
}

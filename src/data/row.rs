//! Rows and samples: what a line of data is before and after it becomes tokens.

use std::io::{self, Cursor, Read as _, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;

use crate::data::bad::{Bad, Read, Reason};
use crate::data::stamp::short;
use crate::data::zipped::{Archive, within};
use crate::error::{Error, Result};
use crate::files;
use crate::image::{self, ImageInput, Limits, Refused, Rgb};
use crate::reward::Item;
use crate::text::{Message, Part};

/// One row of data, in SFT or RL form.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Names the row; several rows may share one (several kept answers to one question).
    pub id: String,
    /// The conversation. In SFT form it ends with the assistant's answer, in RL form with the user's question.
    pub messages: Vec<Message>,
    /// The pictures and the frames of videos, in the order of the messages' parts.
    pub images: Vec<ImageSource>,
    /// Where the row came from (verl's `data_source`; the file's stem when the row does not say).
    pub data_source: String,
    /// The label, where the row has one.
    pub ground_truth: Option<String>,
    /// `extra_info`: index, question, answer, split and whatever else the row carries.
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// File and row, for messages to the user.
    pub place: String,
}

impl Row {
    /// Its pictures and videos, in the order of the messages' parts. Pictures that have no part come last.
    pub fn media(&self) -> Vec<Media<'_>> {
        let mut from = 0;
        let medium = |(len, fps): (usize, Option<f64>)| {
            from += len;
            match fps {
                None => Media::Picture(&self.images[from - 1]),
                Some(fps) => Media::Video { frames: &self.images[from - len..from], fps },
            }
        };
        self.spans().into_iter().map(medium).collect()
    }

    /// Of each of [`Row::media`]: how many of the pictures are its own, and of a video the frames that show one second.
    pub fn spans(&self) -> Vec<(usize, Option<f64>)> {
        let (mut spans, mut left) = (Vec::new(), self.images.len());
        for part in self.messages.iter().flat_map(|message| &message.content) {
            let (len, fps) = match *part {
                Part::Text(_) => continue,
                Part::Image => (1, None),
                Part::Video { frames, fps } => (frames, Some(fps)),
            };
            if len <= left {
                spans.push((len, fps));
                left -= len;
            }
        }
        spans.extend((0..left).map(|_| (1, None)));
        spans
    }

    /// The row with its pictures' bytes in it. Bad where a picture's file cannot be read.
    pub fn embedded(mut self) -> Read<Row> {
        for image in &mut self.images {
            if !matches!(image, ImageSource::Bytes { .. }) {
                let (held, _) = image.held(&self.place).map_err(Bad::of(Reason::MissingImage))?;
                *image = held;
            }
        }
        Ok(self)
    }

    /// A hash of what the row asks: its messages, and its pictures as they are encoded. Errors when a picture's file cannot
    /// be read.
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

    /// What is known of it to whoever scores an answer, but for label and question.
    pub fn item(&self) -> Item {
        let (data_source, extra_info, place) = (self.data_source.clone(), self.extra.clone(), self.place.clone());
        Item { data_source, extra_info, place, ..Item::default() }
    }

    /// Bytes of its messages' texts.
    pub fn text_len(&self) -> usize {
        self.messages.iter().flat_map(|m| &m.content).filter_map(Part::text).map(str::len).sum()
    }

    /// The text of the user's messages, without images.
    pub fn question(&self) -> String {
        if let Some(q) = self.extra.get("question").and_then(|q| q.as_str()) {
            return q.to_owned();
        }
        let texts: Vec<String> = self.messages.iter().filter(|m| m.role == "user").map(text_of).collect();
        texts.join("\n").trim().to_owned()
    }
}

/// A picture or video of a row.
#[derive(Clone, Copy, Debug)]
pub enum Media<'a> {
    /// A picture.
    Picture(&'a ImageSource),
    /// A video.
    Video {
        /// Its frames, as pictures.
        frames: &'a [ImageSource],
        /// Frames that show one second.
        fps: f64,
    },
}

/// The text parts of a message, joined.
pub fn text_of(message: &Message) -> String {
    let parts = message.content.iter().filter_map(|p| match p {
        Part::Text(t) => Some(t.as_str()),
        _ => None,
    });
    parts.collect()
}

/// Where a row's picture is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// An entry of the `images` column.
    Bytes {
        /// The encoded picture.
        bytes: Arc<[u8]>,
        /// The name the column gives it.
        path: Option<String>,
    },
    /// A file inside the data folder.
    File {
        /// As written in the row.
        url: String,
        /// Resolved and checked to be inside the data folder.
        file: PathBuf,
    },
    /// A member of the zip file that is the data folder.
    Zipped {
        /// As written in the row.
        url: String,
        /// The zip file.
        archive: Arc<Archive>,
        /// The member's number.
        index: usize,
    },
}

impl ImageSource {
    /// Bytes it holds in memory.
    pub fn embedded(&self) -> usize {
        match self {
            ImageSource::Bytes { bytes, .. } => bytes.len(),
            ImageSource::File { .. } | ImageSource::Zipped { .. } => 0,
        }
    }

    /// The encoded picture. `place` names the row.
    pub fn bytes(&self, place: &str) -> Result<Arc<[u8]>> {
        match self {
            ImageSource::Bytes { bytes, .. } => Ok(bytes.clone()),
            ImageSource::File { file, .. } => {
                let len = std::fs::metadata(file).map(|file| file.len());
                let bytes = len.and_then(within).and_then(|()| files::read(file));
                let bytes = bytes.map_err(|e| Error::of_row(place, file, READABLE, e))?;
                Ok(bytes.into())
            }
            ImageSource::Zipped { archive, index, .. } => {
                let bytes = archive.read(*index);
                let bytes = bytes.map_err(|e| Error::of_row(&self.place(place), &archive.path, READABLE, e))?;
                Ok(bytes.into())
            }
        }
    }

    /// The name that the row gives it.
    pub fn name(&self) -> Option<&str> {
        match self {
            ImageSource::Bytes { path, .. } => path.as_deref(),
            ImageSource::File { url, .. } | ImageSource::Zipped { url, .. } => Some(url),
        }
    }

    /// The decoded picture. Errors name `place` and, where it has a name, the picture.
    pub fn decode(&self, place: &str) -> Result<Rgb> {
        self.decode_then(place, |picture| picture)
    }

    /// [`ImageSource::decode`], and `then` with the picture, as [`image::decode_then`].
    pub fn decode_then<T>(&self, place: &str, then: impl FnOnce(Rgb) -> T) -> Result<T> {
        self.decode_with(place, |_, picture| then(picture))
    }

    /// The same, `then` with the encoded bytes, too.
    pub fn decode_with<T>(&self, place: &str, then: impl FnOnce(&[u8], Rgb) -> T) -> Result<T> {
        let bytes = self.bytes(place)?;
        image::decode_then(&bytes, &Limits::default(), &self.place(place), |picture| then(&bytes, picture))
    }

    /// Width and height of the upright picture, from its header alone.
    pub fn size(&self, place: &str) -> std::result::Result<[u32; 2], Refused> {
        let (limits, name) = (Limits::default(), self.place(place));
        match self {
            ImageSource::Bytes { bytes, .. } => image::size(std::io::Cursor::new(bytes), &limits, &name),
            ImageSource::File { file, .. } => {
                let opened = files::open(file).map_err(|e| Error::of_row(place, file, READABLE, e));
                let opened = opened.map_err(Refused::Broken)?;
                image::size(opened, &limits, &name)
            }
            ImageSource::Zipped { archive, index, .. } => {
                // The beginning holds the header of nearly every picture.
                let start = archive.start(*index).map_err(|e| Error::of_row(&name, &archive.path, READABLE, e));
                match image::size(Cursor::new(start.map_err(Refused::Broken)?), &limits, &name) {
                    Err(Refused::Broken(_)) => {
                        let bytes = self.bytes(place).map_err(Refused::Broken)?;
                        image::size(std::io::Cursor::new(bytes), &limits, &name)
                    }
                    read => read,
                }
            }
        }
    }

    /// Tells whether a picture is still the one it was: of a file by its size and its first and last bytes, of a member of a
    /// zip file by its size and checksum. 0 for a picture that stands in its row.
    pub fn stamp(&self, place: &str) -> Result<u64> {
        let (file, stamp) = match self {
            ImageSource::Bytes { .. } => return Ok(0),
            ImageSource::File { file, .. } => (file, files::open(file).and_then(ends)),
            ImageSource::Zipped { archive, index, .. } => (&archive.path, archive.stamp(*index)),
        };
        stamp.map_err(|e| Error::of_row(place, file, READABLE, e))
    }

    /// The picture with its bytes in memory, and its [`ImageSource::stamp`] by these.
    pub fn held(&self, place: &str) -> Result<(ImageSource, u64)> {
        let bytes = self.bytes(place)?;
        let stamp = match self {
            ImageSource::File { file, .. } => ends(Cursor::new(&bytes)).map_err(Error::io(file))?,
            _ => self.stamp(place)?,
        };
        Ok((ImageSource::Bytes { bytes, path: self.name().map(str::to_owned) }, stamp))
    }

    /// The row's place and, where it has a name, the picture's.
    pub fn place(&self, row: &str) -> String {
        match self.name() {
            Some(name) => format!("{row}, image {name}"),
            None => row.to_owned(),
        }
    }
}

/// What was expected where a picture cannot be read.
const READABLE: &str = "a readable image file";

/// Bytes at either end of a file that it is known by.
const ENDS: u64 = 4096;

/// A hash of a file's size and of its first and last bytes.
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
    /// `loss_mask[t]`: token t is a target (the prediction of it is trained).
    pub loss_mask: Vec<bool>,
    /// The pictures and videos, in order.
    pub images: Vec<Arc<ImageInput>>,
}

/// A prompt, ready for generation.
#[derive(Clone, Debug)]
pub struct EncodedPrompt {
    /// Token ids with every image expanded, the assistant's turn opened.
    pub ids: Vec<u32>,
    /// The pictures and videos, in order.
    pub images: Vec<Arc<ImageInput>>,
}

//! Rows and samples: what a line of data is before and after it becomes tokens.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::image::{self, ImageInput, Limits, Rgb};
use crate::text::Message;

/// One row of data, in SFT or RL form.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Names the row; several rows may share one (several kept answers to one question).
    pub id: String,
    /// The conversation. In SFT form it ends with the assistant's answer, in RL form with the user's question.
    pub messages: Vec<Message>,
    /// The pictures, in the order of the messages' image parts.
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
    /// The text of the user's messages, without images.
    pub fn question(&self) -> String {
        if let Some(q) = self.extra.get("question").and_then(|q| q.as_str()) {
            return q.to_owned();
        }
        let texts: Vec<String> = self.messages.iter().filter(|m| m.role == "user").map(text_of).collect();
        texts.join("\n").trim().to_owned()
    }
}

/// The text parts of a message, joined.
pub fn text_of(message: &Message) -> String {
    let parts = message.content.iter().filter_map(|p| match p {
        crate::text::Part::Text(t) => Some(t.as_str()),
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
}

impl ImageSource {
    /// The encoded picture. `place` names the row.
    pub fn bytes(&self, place: &str) -> Result<Arc<[u8]>> {
        match self {
            ImageSource::Bytes { bytes, .. } => Ok(bytes.clone()),
            ImageSource::File { file, .. } => {
                let bytes = std::fs::read(file).map_err(|e| {
                    Error::input(place, format!("image {} ({e})", file.display()), "a readable image file")
                })?;
                Ok(bytes.into())
            }
        }
    }

    /// The decoded picture. Errors name `place` and, where it has a name, the picture.
    pub fn decode(&self, place: &str) -> Result<Rgb> {
        image::decode(&self.bytes(place)?, &Limits::default(), &self.place(place))
    }

    /// The row's place and, where it has a name, the picture's.
    pub fn place(&self, row: &str) -> String {
        match self {
            ImageSource::Bytes { path: Some(name), .. } | ImageSource::File { url: name, .. } => {
                format!("{row}, image {name}")
            }
            ImageSource::Bytes { path: None, .. } => row.to_owned(),
        }
    }
}

/// A training sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The row's id.
    pub id: String,
    /// Token ids with every image expanded to its visual tokens.
    pub input_ids: Vec<u32>,
    /// `loss_mask[t]`: token t is a target (the prediction of it is trained).
    pub loss_mask: Vec<bool>,
    /// The pictures, in order.
    pub images: Vec<Arc<ImageInput>>,
}

/// A prompt, ready for generation.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// Token ids with every image expanded, the assistant's turn opened.
    pub ids: Vec<u32>,
    /// The pictures, in order.
    pub images: Vec<Arc<ImageInput>>,
}

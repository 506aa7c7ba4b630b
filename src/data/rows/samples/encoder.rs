//! Converts rows to tokens and images for one model, and measures rows beforehand. Both use the same code, so an index
//! cannot differ from the samples that are made later.

use std::path::Path;
use std::sync::Arc;

use super::sample::{for_images, media, per_sample, prompt_tokens, same_size, sft_tokens};
use crate::image::{Grid, Header, ImageInput, Processor};
use crate::reward::typed::REWARD_TYPE;
use crate::reward::{Item, RIGHT_ANSWERS, Scorer};
use crate::rows::files::stamp::combined;
use crate::rows::index::grids;
use crate::rows::{BadRow, EncodedPrompt, ImageSource, Media, Reason, Row, RowResult, Sample, short};
use crate::text::{Chat, ChatConfig};
use omr_base::config::ImageConfig;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::base_model;

/// Purpose of the rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EncodingPurpose {
    /// Training: the last message is the answer.
    Train,
    /// Prompting: the model generates the answer, and the row needs a label.
    Ask,
}

/// Tokenizer, chat template, image processor and vocabulary size of a model.
#[derive(Clone)]
pub struct Encoder {
    /// Tokenizer and chat template.
    pub chat: Chat,
    /// Image processor, which determines the size of images. `None` for a text model.
    pub processor: Option<Processor>,
    /// Number of token ids.
    pub vocab_size: usize,
    /// Purpose of the rows.
    pub purpose: EncodingPurpose,
    /// True if the newline after an assistant's turn is trained.
    pub newline: bool,
    /// Scorer that must be able to use the labels of prompts. `None` accepts any label.
    pub scorer: Option<Arc<Scorer>>,
    /// Text that identifies the encoder. Encoders that produce different tokens from a row have different keys.
    pub key: String,
}

/// Measurements of a row that need no decoded image.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measured {
    /// Number of tokens, with images expanded.
    pub tokens: usize,
    /// Number of tokens whose prediction is trained.
    pub targets: usize,
    /// Name of the form that the row was read in.
    pub form: &'static str,
    /// Number of messages, with the answer that is trained.
    pub turns: usize,
    /// Number of images, including the frames of videos.
    pub images: usize,
    /// Patch grid of each image and video.
    pub grids: Vec<Grid>,
    /// Stamp of the file or files of each image and video, in the order of `grids`.
    pub stamps: Vec<u64>,
    /// True if an image is a JPEG.
    pub has_jpeg: bool,
    /// Hash of the tokens and targets (training), or of the tokens and the label (prompting).
    pub hash: u64,
}

impl Encoder {
    /// Loads the encoder of a model directory. `images` are the settings of
    /// images.
    pub fn load(dir: &Path, config: &ChatConfig, purpose: EncodingPurpose, images: &ImageConfig) -> Result<Encoder> {
        let chat = Chat::load(dir, config)?;
        let processor = Processor::of_model(dir, config.media, images)?;
        let vocab_size = config.vocab_size;
        let mut hasher = blake3::Hasher::new();
        let tokenizer = base_model::holder(dir, "tokenizer.json")?;
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let path = tokenizer.join(name);
            if path.exists() {
                hasher.update(&files::read(&path).map_err(Error::io(&path))?);
            }
        }
        hasher.update(chat.template.source().as_bytes());
        let images = processor.as_ref().map_or_else(String::new, |processor| format!("{processor:?}"));
        let key = format!("{} {images} {vocab_size}", hasher.finalize().to_hex());
        Ok(Encoder { chat, processor, vocab_size, purpose, newline: false, scorer: None, key })
    }

    /// Returns an encoder that trains the newline after each turn if `newline` is true.
    pub fn with_newline(mut self, newline: bool) -> Encoder {
        self.key += if newline { " newline" } else { "" };
        Encoder { newline, ..self }
    }

    /// Returns an encoder for which a row is bad if the rule of its reward type cannot use its label.
    pub fn scored_by(mut self, scorer: Arc<Scorer>) -> Encoder {
        self.key += &scorer.label_rules();
        Encoder { scorer: Some(scorer), ..self }
    }

    /// Returns an encoder with these variables of the chat template.
    pub fn with_variables(self, variables: &serde_json::Map<String, serde_json::Value>) -> Result<Encoder> {
        if variables.is_empty() {
            return Ok(self);
        }
        let key = format!("{} {variables:?}", self.key);
        Ok(Encoder { chat: self.chat.with_variables(variables)?, key, ..self })
    }

    /// Measures a row: encodes its text and reads the headers of its images.
    pub fn measure(&self, row: &Row) -> RowResult<Measured> {
        let (mut grids, mut stamps) = (Vec::with_capacity(row.images.len()), Vec::with_capacity(row.images.len()));
        let mut has_jpeg = false;
        let processor = for_images(row, self.processor.as_ref()).map_err(BadRow::of(Reason::NoVisionTower))?;
        for (medium, processor) in row.media().into_iter().zip(processor.into_iter().cycle()) {
            let frames = match medium {
                Media::Image(image) => std::slice::from_ref(image),
                Media::Video { frames, .. } => frames,
            };
            let (mut grid, stamp) = measure_frames(row, processor, frames, &mut has_jpeg)?;
            if let Media::Video { .. } = medium {
                grid = Grid::video(frames.len(), grid.h, grid.w).ok_or_else(|| {
                    let found = format!("a video of {} frames", frames.len());
                    BadRow::of(Reason::WrongImageSize)(Error::input(&row.place, found, "fewer than 65,536 frames"))
                })?;
            }
            grids.push(grid);
            stamps.push(stamp);
        }
        let (ids, mask) = self.tokens(row, &grids)?;
        self.check_label(row).map_err(BadRow::of(Reason::WrongLabel))?;
        let targets = mask.iter().skip(1).filter(|&&target| target).count();
        let turns = match self.purpose {
            EncodingPurpose::Train => row.trained_messages().len(),
            EncodingPurpose::Ask => row.messages.len(),
        };
        let (form, images, hash) = (row.form, row.images.len(), hash(row, &ids, &mask));
        Ok(Measured { tokens: ids.len(), targets, form, turns, images, grids, stamps, has_jpeg, hash })
    }

    /// Measures each sample of a row. Returns each with its argument of [`Row::of_turn`]: 0 for the only sample of a row.
    pub fn measure_samples(&self, row: &Row) -> RowResult<Vec<(usize, Measured)>> {
        let bad = match self.measure(row) {
            Ok(measured) => return Ok(vec![(0, measured)]),
            Err(bad) if self.purpose == EncodingPurpose::Ask || bad.reason != Reason::WrongText => return Err(bad),
            Err(bad) => bad,
        };
        let rows = per_sample(row, &self.chat).map_err(BadRow::of(Reason::WrongText))?;
        match rows.iter().all(|row| row.only_last) {
            true => rows.iter().map(|row| Ok((row.messages.len(), self.measure(row)?))).collect(),
            false => Err(bad),
        }
    }

    /// Converts a row to a training sample. Also returns the hash that [`Encoder::measure`] computes.
    pub fn sample(&self, row: &Row) -> RowResult<(Sample, u64)> {
        let images = self.media(row)?;
        let (input_ids, loss_mask) = self.tokens(row, &grids(&images))?;
        let hash = hash(row, &input_ids, &loss_mask);
        Ok((Sample { input_ids, loss_mask, images }, hash))
    }

    /// Converts a row to a prompt. Also returns the hash that [`Encoder::measure`] computes.
    pub fn prompt(&self, row: &Row) -> RowResult<(EncodedPrompt, u64)> {
        let (Sample { input_ids: ids, images, .. }, hash) = self.sample(row)?;
        Ok((EncodedPrompt { ids, images }, hash))
    }

    /// Returns an error if the rule of the row's reward type cannot use the label. Only the index needs it: the prompts of
    /// a run are rows of its index.
    fn check_label(&self, row: &Row) -> Result<()> {
        let is_plain = !row.extra.contains_key(REWARD_TYPE) && row.label.is_null();
        let scorer = self.scorer.as_ref().filter(|_| !is_plain);
        let (Some(scorer), Some(label)) = (scorer, &row.ground_truth) else { return Ok(()) };
        scorer.check_label(&Item { ground_truth: label.clone(), ..row.item() })
    }

    fn media(&self, row: &Row) -> RowResult<Vec<Arc<ImageInput>>> {
        for_images(row, self.processor.as_ref()).map_err(BadRow::of(Reason::NoVisionTower))?;
        media(row, self.processor.as_ref()).map_err(BadRow::of(Reason::BrokenImage))
    }

    fn tokens(&self, row: &Row, grids: &[Grid]) -> RowResult<(Vec<u32>, Vec<bool>)> {
        let wrong = BadRow::of(Reason::WrongText);
        if self.purpose == EncodingPurpose::Ask && row.ground_truth.is_none() {
            let expected = "reward_model.ground_truth, or a column `answer`, that is not empty";
            return Err(BadRow::of(Reason::NoGroundTruth)(Error::input(&row.place, "no ground truth", expected)));
        }
        let (ids, mask) = match self.purpose {
            EncodingPurpose::Train => sft_tokens(row, &self.chat, self.newline, grids).map_err(wrong)?,
            EncodingPurpose::Ask => (prompt_tokens(row, &self.chat, grids).map_err(wrong)?, Vec::new()),
        };
        let wrong_id = ids.iter().copied().find(|&id| id as usize >= self.vocab_size);
        let Some(id) = wrong_id else { return Ok((ids, mask)) };
        let expected = format!("ids below vocab_size {}", self.vocab_size);
        Err(wrong(Error::input(&row.place, format!("token {id}"), expected)))
    }
}

/// Returns the patch grid of an image, or of one frame of a video, and the combined stamp of the files. Sets
/// `has_jpeg` if a file is a JPEG.
fn measure_frames(
    row: &Row,
    processor: &Processor,
    frames: &[ImageSource],
    has_jpeg: &mut bool,
) -> RowResult<(Grid, u64)> {
    let wrong_size = BadRow::of(Reason::WrongImageSize);
    let (mut first, mut stamps) = (None, Vec::with_capacity(frames.len()));
    for image in frames {
        stamps.push(image.stamp(&row.place).map_err(BadRow::of(Reason::MissingImage))?);
        let Header { size, is_jpeg } = image.header(&row.place)?;
        *has_jpeg |= is_jpeg;
        same_size(&mut first, size).map_err(|e| wrong_size(e.within(&image.place(&row.place))))?;
    }
    let (Some([width, height]), Some(image)) = (first, frames.first()) else {
        return Err(wrong_size(Error::input(&row.place, "a video without frames", "at least one frame")));
    };
    let expected = "an image with fewer than 65,536 patches per side";
    let grid = processor.grid(width, height).and_then(|grid| match grid.map(u16::try_from) {
        [Ok(h), Ok(w)] => Ok(Grid::image(h, w)),
        _ => Err(Error::input("image", format!("{width} x {height} pixels"), expected)),
    });
    Ok((grid.map_err(|e| wrong_size(e.within(&image.place(&row.place))))?, combined(&stamps)))
}

fn hash(row: &Row, ids: &[u32], mask: &[bool]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytemuck::cast_slice(ids));
    hasher.update(bytemuck::cast_slice(mask));
    // A prompt's answers are compared with the label. A training sample already has the answer among its tokens.
    if mask.is_empty() {
        hasher.update(row.ground_truth.as_deref().unwrap_or_default().as_bytes());
        if let Some(answers) = row.extra.get(RIGHT_ANSWERS) {
            hasher.update(answers.to_string().as_bytes());
        }
    }
    short(&hasher.finalize())
}

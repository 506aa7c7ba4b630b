//! How rows become what one model takes, and what is known of them before: both from the same code, so that an index
//! and what is later made by it cannot differ.

use std::path::Path;

use crate::data::bad::{Bad, Read, Reason};
use crate::data::index::grids;
use crate::data::sample::{media, prompt_tokens, same_size, sft_tokens};
use crate::data::stamp::{combined, short};
use crate::data::{EncodedPrompt, ImageSource, Media, Row, Sample};
use crate::error::{Error, Result};
use crate::files;
use crate::image::{Grid, Processor, Refused};
use crate::text::Chat;

/// What rows are for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Trained on: the last message is the answer.
    Train,
    /// Asked: a label is needed.
    Ask,
}

/// A model's tokenizer and template, image processor and vocabulary.
#[derive(Clone)]
pub struct Encoder {
    /// Tokenizer and template.
    pub chat: Chat,
    /// Sizes of pictures.
    pub processor: Processor,
    /// Ids there are.
    pub vocab_size: usize,
    /// What rows are for.
    pub purpose: Use,
    /// Tells two encoders apart that make different tokens of a row.
    pub key: String,
}

/// What is known of a row without decoding its pictures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measured {
    /// Tokens, pictures expanded.
    pub tokens: usize,
    /// Tokens whose prediction is trained.
    pub targets: usize,
    /// Messages.
    pub turns: usize,
    /// Its pictures, and the frames of its videos.
    pub pictures: usize,
    /// Patches of each picture and video.
    pub grids: Vec<Grid>,
    /// What the picture files of each are known by, in the order of `grids`.
    pub stamps: Vec<u64>,
    /// Of its tokens and targets, or of its tokens and label.
    pub hash: u64,
}

impl Encoder {
    /// Of a model directory; pictures are resized to within these pixels, where they are given.
    pub fn load(dir: &Path, purpose: Use, vocab_size: usize, pixels: [Option<usize>; 2]) -> Result<Encoder> {
        let chat = Chat::load(dir)?;
        let processor = Processor::load(dir)?.within(pixels[0], pixels[1]);
        let mut hasher = blake3::Hasher::new();
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let path = dir.join(name);
            if path.exists() {
                hasher.update(&files::read(&path).map_err(Error::io(&path))?);
            }
        }
        hasher.update(chat.template.source().as_bytes());
        let key = format!("{} {processor:?} {vocab_size}", hasher.finalize().to_hex());
        Ok(Encoder { chat, processor, vocab_size, purpose, key })
    }

    /// Measures a row: its text encoded, of its pictures the headers read.
    pub fn measure(&self, row: &Row) -> Read<Measured> {
        let (mut grids, mut stamps) = (Vec::with_capacity(row.images.len()), Vec::with_capacity(row.images.len()));
        for medium in row.media() {
            let (grid, stamp) = match medium {
                Media::Picture(image) => self.measure_frames(row, std::slice::from_ref(image))?,
                Media::Video { frames, .. } => {
                    let (Grid { h, w, .. }, stamp) = self.measure_frames(row, frames)?;
                    let grid = Grid::video(frames.len(), h, w).ok_or_else(|| {
                        let found = format!("a video of {} frames", frames.len());
                        Bad::of(Reason::WrongImageSize)(Error::input(&row.place, found, "fewer than 65,536"))
                    })?;
                    (grid, stamp)
                }
            };
            grids.push(grid);
            stamps.push(stamp);
        }
        let (ids, mask) = self.tokens(row, &grids)?;
        let targets = mask.iter().skip(1).filter(|&&target| target).count();
        let (turns, pictures, hash) = (row.messages.len(), row.images.len(), hash(row, &ids, &mask));
        Ok(Measured { tokens: ids.len(), targets, turns, pictures, grids, stamps, hash })
    }

    /// The size of a picture, or of one of the frames of a video, and what their files are known by.
    fn measure_frames(&self, row: &Row, frames: &[ImageSource]) -> Read<(Grid, u64)> {
        let wrong_size = Bad::of(Reason::WrongImageSize);
        let (mut first, mut stamps) = (None, Vec::with_capacity(frames.len()));
        for image in frames {
            stamps.push(image.stamp(&row.place).map_err(Bad::of(Reason::MissingImage))?);
            let size = image.size(&row.place).map_err(|refused| match refused {
                Refused::Broken(error) => Bad::of(Reason::BrokenImage)(error),
                Refused::Size(error) => wrong_size(error),
            })?;
            same_size(&mut first, size).map_err(|e| wrong_size(e.within(&image.place(&row.place))))?;
        }
        let (Some([width, height]), Some(image)) = (first, frames.first()) else {
            return Err(wrong_size(Error::input(&row.place, "a video without frames", "at least one")));
        };
        let grid = self.processor.grid(width, height).and_then(|grid| match grid.map(u16::try_from) {
            [Ok(h), Ok(w)] => Ok(Grid::picture(h, w)),
            _ => Err(Error::input("picture", format!("{width} x {height} pixels"), "fewer patches a side")),
        });
        Ok((grid.map_err(|e| wrong_size(e.within(&image.place(&row.place))))?, combined(&stamps)))
    }

    /// A row to train on, and the hash that [`Encoder::measure`] gave it.
    pub fn sample(&self, row: &Row) -> Read<(Sample, u64)> {
        let images = media(row, &self.processor).map_err(Bad::of(Reason::BrokenImage))?;
        let (input_ids, loss_mask) = self.tokens(row, &grids(&images))?;
        let hash = hash(row, &input_ids, &loss_mask);
        Ok((Sample { input_ids, loss_mask, images }, hash))
    }

    /// A row to ask, and the hash that [`Encoder::measure`] gave it.
    pub fn prompt(&self, row: &Row) -> Read<(EncodedPrompt, u64)> {
        let images = media(row, &self.processor).map_err(Bad::of(Reason::BrokenImage))?;
        let (ids, mask) = self.tokens(row, &grids(&images))?;
        let hash = hash(row, &ids, &mask);
        Ok((EncodedPrompt { ids, images }, hash))
    }

    fn tokens(&self, row: &Row, grids: &[Grid]) -> Read<(Vec<u32>, Vec<bool>)> {
        let wrong = Bad::of(Reason::WrongText);
        if self.purpose == Use::Ask && row.ground_truth.is_none() {
            let expected = "reward_model.ground_truth, or a column `answer`";
            return Err(Bad::of(Reason::NoGroundTruth)(Error::input(&row.place, "no ground truth", expected)));
        }
        let (ids, mask) = match self.purpose {
            Use::Train => sft_tokens(row, &self.chat, self.processor.merge_size, grids).map_err(wrong)?,
            Use::Ask => (prompt_tokens(row, &self.chat, self.processor.merge_size, grids).map_err(wrong)?, Vec::new()),
        };
        match ids.iter().find(|&&id| id as usize >= self.vocab_size) {
            None => Ok((ids, mask)),
            Some(id) => {
                let expected = format!("ids below vocab_size {}", self.vocab_size);
                Err(wrong(Error::input(&row.place, format!("token {id}"), expected)))
            }
        }
    }
}

fn hash(row: &Row, ids: &[u32], mask: &[bool]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bytemuck::cast_slice(ids));
    hasher.update(bytemuck::cast_slice(mask));
    // What a prompt is held against; a sample's answer stands among its tokens.
    if mask.is_empty() {
        hasher.update(row.ground_truth.as_deref().unwrap_or_default().as_bytes());
    }
    short(&hasher.finalize())
}

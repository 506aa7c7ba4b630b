//! Rows as a model sees them: the rendered conversation, with the trained tokens marked, and the images.

use super::found::{Show, has_answer};
use crate::image::Processor;
use crate::reward::typed;
use crate::rows::read::{RowFile, RowsLeft};
use crate::rows::samples::sample::per_sample;
use crate::rows::{Row, prompt, sft_sample};
use crate::text::Chat;
use omr_base::config::{DatasetConfig, ImageAlpha};
use omr_base::error::{Error, Result};

/// A row as a model sees it.
pub struct Preview {
    /// Id of the row.
    pub id: String,
    /// File and row.
    pub place: String,
    /// Name of the form that the row was read in.
    pub form: &'static str,
    /// Label, if the row has one.
    pub ground_truth: Option<String>,
    /// Reward type and domain, if the row has them, with the names of their fields.
    pub reward: Vec<(&'static str, String)>,
    /// Text of the tokens in order. Neighbouring pieces differ in whether they are trained.
    pub pieces: Vec<Piece>,
    /// Number of tokens, with images expanded.
    pub tokens: usize,
    /// Number of trained tokens; 0 for a prompt.
    pub targets: usize,
    /// True if a token that ends an answer is trained, so that a model learns to stop.
    pub ends: bool,
    /// Special tokens that are trained, except those that end a turn.
    pub tags: Vec<String>,
    /// Images as the page shows them; `None` for an image that cannot be shown.
    pub images: Vec<Option<String>>,
}

/// Text of consecutive tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// True if the tokens are trained.
    pub trained: bool,
    /// Text of the tokens. A run of image tokens is one token with its count.
    pub text: String,
}

/// Makes previews for a model.
pub struct Previewer {
    /// Tokenizer and chat template.
    pub chat: Chat,
    /// Image processor. `None` for a text model.
    pub processor: Option<Processor>,
    /// Converts an image for the page.
    pub show: Show,
}

impl Previewer {
    /// Returns the first `count` rows of a data set as the model sees them: the training samples of a row with an answer,
    /// the prompt of any other row. Returns an error that names the row if one cannot be used.
    pub fn rows(&self, entry: &DatasetConfig, count: usize) -> Result<Vec<Preview>> {
        let (mut found, mut left) = (Vec::new(), RowsLeft::default());
        let entry = DatasetConfig { limit: Some(count.min(entry.limit.unwrap_or(count))), ..entry.clone() };
        for file in RowFile::open(std::slice::from_ref(&entry))? {
            left.each(&file, |_, row| {
                let row = row.map_err(Error::from)?;
                let rows = if has_answer(&row) { per_sample(&row, &self.chat)? } else { vec![row] };
                for row in &rows {
                    found.push(of(row, self)?);
                }
                Ok(())
            })?;
        }
        Ok(found)
    }
}

fn of(row: &Row, Previewer { chat, processor, show }: &Previewer) -> Result<Preview> {
    let (ids, mask) = match has_answer(row) {
        true => sft_sample(row, chat, processor.as_ref()).map(|sample| (sample.input_ids, sample.loss_mask))?,
        false => prompt(row, chat, processor.as_ref()).map(|prompt| (prompt.ids, Vec::new()))?,
    };
    let field = |field| Some((field, typed::name(&row.extra, field)?.to_owned()));
    let decoding = processor.as_ref().map_or(ImageAlpha::Drop.into(), Processor::decoding);
    let images = row.images.iter().map(|image| image.decode_then(&row.place, decoding, show)).collect::<Result<_>>()?;
    Ok(Preview {
        id: row.id.clone(),
        place: row.place.clone(),
        form: row.form,
        ground_truth: row.ground_truth.clone(),
        reward: [typed::REWARD_TYPE, typed::DOMAIN].into_iter().filter_map(field).collect(),
        pieces: pieces(&ids, &mask, chat),
        tokens: ids.len(),
        tags: tags(&ids, &mask, chat),
        targets: mask.iter().filter(|&&trained| trained).count(),
        ends: chat.turn.ends_trained(&ids, &mask),
        images,
    })
}

/// Returns the special tokens among the trained ones, in the order in which they first occur.
fn tags(ids: &[u32], mask: &[bool], chat: &Chat) -> Vec<String> {
    let mut tags = Vec::new();
    for (&id, _) in ids.iter().zip(mask).filter(|(id, trained)| **trained && chat.tokenizer.is_special(**id)) {
        let tag = chat.tokenizer.token(id).filter(|tag| !chat.is_end(id) && !tags.contains(tag));
        tags.extend(tag);
    }
    tags
}

/// Decodes consecutive tokens that are all trained or all not. Tokens after the end of `mask` are not trained.
fn pieces(ids: &[u32], mask: &[bool], chat: &Chat) -> Vec<Piece> {
    let marked: Vec<(u32, bool)> =
        ids.iter().enumerate().map(|(i, &id)| (id, mask.get(i).copied().unwrap_or(false))).collect();
    let is_pad = |id: u32| chat.media.is_some_and(|media| media.is_placeholder(id));
    let text = |run: &[(u32, bool)]| -> String {
        let ids: Vec<u32> = run.iter().map(|(id, _)| *id).collect();
        let runs = ids.chunk_by(|a, b| if is_pad(*a) || is_pad(*b) { a == b } else { true });
        let text = |run: &[u32]| match run {
            [pad, _, ..] if is_pad(*pad) => format!("{} x {}", chat.tokenizer.decode(&run[..1], false), run.len()),
            run => chat.tokenizer.decode(run, false),
        };
        runs.map(text).collect()
    };
    marked.chunk_by(|a, b| a.1 == b.1).map(|run| Piece { trained: run[0].1, text: text(run) }).collect()
}

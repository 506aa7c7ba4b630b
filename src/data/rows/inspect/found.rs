//! Collects statistics in one pass over the rows. Each row is read once, and only a few numbers per row are kept.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::inspection::{DrawnRow, Inspection, show_row};
use super::kinds::kind;
use super::spread::Spread;
use crate::image::{Decoding, Processor, Rgb};
use crate::rows::chunks::Chunk;
use crate::rows::read::RowPosition;
use crate::rows::samples::sample::per_sample;
use crate::rows::{BadRow, ImageSource, Reason, Row, RowResult, Sample, prompt, sft_sample, short, text_of};
use crate::text::Chat;
use omr_base::config::ImageAlpha;
use omr_base::error::Result;
use omr_base::philox::{Purpose, Random};

/// Number of faults with different causes that are quoted in full; all others are only counted.
const QUOTED: usize = 5;

/// Options of an inspection.
pub struct Options<'a> {
    /// Model whose tokenizer counts the tokens.
    pub model: Option<&'a (Chat, Option<Processor>)>,
    /// Number of rows from the beginning that are kept as text.
    pub first: usize,
    /// Number of rows that are drawn at random and kept completely.
    pub random: usize,
    /// Seed of the random draw.
    pub seed: u64,
    /// Function that converts each image of the drawn rows to the text with which the HTML page shows it.
    pub shown: Option<Show>,
}

/// Function that converts an image, given its encoded bytes and its pixels, to the text with which an HTML page shows
/// it.
pub type Show = fn(&[u8], Rgb) -> Option<String>;

/// Measurements of one row.
struct InspectedRow {
    characters: u32,
    answer: Option<u32>,
    sizes: Vec<[u32; 2]>,
    tokens: Option<u32>,
    targets: usize,
}

/// Statistics collected so far.
#[derive(Default)]
pub(super) struct Statistics {
    /// Counts, faults and sample rows. The distributions and the drawn rows are added at the end.
    found: Inspection,
    /// First 8 bytes of the hash of each id.
    ids: Vec<u64>,
    images: Vec<u32>,
    sides: [Vec<u32>; 2],
    characters: Vec<u32>,
    answers: Vec<u32>,
    tokens: Vec<u32>,
    kinds: BTreeMap<&'static str, usize>,
    /// The rows with the smallest lots, by lot (a random number) and number of the row.
    drawn: BTreeMap<(u64, usize), Row>,
}

impl Statistics {
    /// Measures rows on all cores and counts them in order. Returns an error if the system failed to read one.
    pub(super) fn take(&mut self, rows: Chunk, options: &Options) -> Result<()> {
        let look = |(_, row): (RowPosition, RowResult<Row>)| match row {
            Ok(row) => {
                let looked = look(&row, options.model);
                (Some(row), looked)
            }
            Err(bad) => (None, Err(bad)),
        };
        let looked: Vec<_> = rows.into_par_iter().map(look).collect();
        for (row, looked) in looked {
            self.found.rows += 1;
            match looked {
                Ok(looked) => {
                    let (form, turns) = row.as_ref().map_or(("", 0), |row| (row.form, row.trained_messages().len()));
                    self.found.seen.count(form, turns, looked.sizes.len(), looked.targets);
                    self.characters.push(looked.characters);
                    self.answers.extend(looked.answer);
                    self.tokens.extend(looked.tokens);
                    self.sides[0].extend(looked.sizes.iter().map(|size| size[0]));
                    self.sides[1].extend(looked.sizes.iter().map(|size| size[1]));
                }
                Err(bad) => {
                    let BadRow { reason, error, .. } = bad.of_row()?;
                    *self.found.reasons.entry(reason).or_default() += 1;
                    let fault = error.to_string();
                    let is_new = !self.found.faults.iter().any(|quoted| cause(quoted) == cause(&fault));
                    if self.found.faults.len() < QUOTED && is_new {
                        self.found.faults.push(fault);
                    }
                }
            }
            if let Some(row) = row {
                self.count(row, options);
            }
        }
        Ok(())
    }

    fn count(&mut self, row: Row, options: &Options) {
        let found = &mut self.found;
        found.answered += usize::from(has_answer(&row));
        found.labelled += usize::from(row.ground_truth.is_some());
        self.ids.push(short(&blake3::hash(row.id.as_bytes())));
        self.images.push(row.images.len() as u32);
        if let Some(label) = &row.ground_truth {
            *self.kinds.entry(kind(label)).or_default() += 1;
        }
        if found.samples.len() < options.first {
            found.samples.push(show_row(&row));
        }
        // The random number that decides whether the row is drawn.
        let lot = Random::new(options.seed, Purpose::Shuffle, found.rows as u64).next_u64();
        self.drawn.insert((lot, found.rows), row);
        if self.drawn.len() > options.random {
            self.drawn.pop_last();
        }
    }

    pub(super) fn inspection(mut self, name: String, options: &Options) -> Inspection {
        self.ids.sort_unstable();
        let mut kinds: Vec<_> = self.kinds.into_iter().collect();
        kinds.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let mut drawn: Vec<_> = self.drawn.into_iter().collect();
        drawn.sort_by_key(|((_, number), _)| *number);
        Inspection {
            name,
            shared_ids: self.ids.chunk_by(|a, b| a == b).filter(|same| same.len() > 1).count(),
            images: Spread::of(self.images),
            image_sizes: self.sides.map(Spread::of),
            characters: Spread::of(self.characters),
            answer_characters: Spread::of(self.answers),
            tokens: options.model.map(|_| Spread::of(self.tokens)),
            kinds,
            drawn: drawn.into_iter().map(|(_, row)| drawn_row(row, options)).collect(),
            ..self.found
        }
    }
}

/// Returns the part of a fault after its row.
fn cause(fault: &str) -> &str {
    fault.split_once(": ").map_or(fault, |(_, cause)| cause)
}

/// Returns true if the conversation that SFT trains on ends with an answer.
pub(super) fn has_answer(row: &Row) -> bool {
    row.trained_messages().last().is_some_and(|last| last.role == "assistant")
}

/// Returns how a model's images are decoded.
fn decoding(model: Option<&(Chat, Option<Processor>)>) -> Decoding {
    let processor = model.and_then(|(_, processor)| processor.as_ref());
    processor.map_or(ImageAlpha::Drop.into(), Processor::decoding)
}

/// Converts the images of a drawn row, up to the first broken one.
fn drawn_row(row: Row, options: &Options) -> DrawnRow {
    let decoding = decoding(options.model);
    let shown =
        |show: Show| row.images.iter().map_while(|image| image.decode_then(&row.place, decoding, show).ok()).collect();
    let images = options.shown.map_or_else(Vec::new, shown);
    DrawnRow { row, images }
}

/// Measures a row.
fn look(row: &Row, model: Option<&(Chat, Option<Processor>)>) -> RowResult<InspectedRow> {
    let size = |image: &ImageSource| {
        image
            .decode_then(&row.place, decoding(model), |_, rgb| [rgb.width, rgb.height])
            .map_err(BadRow::of(Reason::BrokenImage))
    };
    let sizes = row.images.iter().map(size).collect::<RowResult<Vec<_>>>()?;
    let tokens = match model {
        None => Ok((None, 0)),
        Some((chat, processor)) if has_answer(row) => per_sample(row, chat).and_then(|rows| {
            let samples = rows.iter().map(|row| sft_sample(row, chat, processor.as_ref()));
            let samples = samples.collect::<Result<Vec<Sample>>>()?;
            let targets = |sample: &Sample| sample.loss_mask.iter().skip(1).filter(|&&target| target).count();
            let longest = samples.iter().map(|sample| sample.input_ids.len() as u32).max();
            Ok((longest, samples.iter().map(targets).sum()))
        }),
        Some((chat, processor)) => {
            prompt(row, chat, processor.as_ref()).map(|prompt| (Some(prompt.ids.len() as u32), 0))
        }
    };
    let (tokens, targets) = tokens.map_err(BadRow::of(Reason::WrongText))?;
    let characters = |message| text_of(message).chars().count() as u32;
    let trained = row.trained_messages();
    let answer = trained.last().filter(|_| has_answer(row)).map(characters);
    Ok(InspectedRow { characters: trained.iter().map(characters).sum(), answer, sizes, tokens, targets })
}

//! Collects statistics in one pass over the rows. Each row is read once, and only a few numbers per row are kept.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use rayon::prelude::*;

use super::inspection::{DrawnRow, Inspection, show_row};
use super::kinds::kind;
use super::spread::Spread;
use crate::config::ImageAlpha;
use crate::data::sample::per_sample;
use crate::data::{BadRow, ReadCounts, Reason, Row, RowResult, Sample, prompt, sft_sample, short, text_of};
use crate::error::Result;
use crate::image::{Processor, Rgb};
use crate::philox::{Purpose, Random};
use crate::text::Chat;

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
pub(super) struct Statistics<'a> {
    options: &'a Options<'a>,
    rows: usize,
    seen: ReadCounts,
    answered: usize,
    labelled: usize,
    /// First 8 bytes of the hash of each id.
    ids: Vec<u64>,
    images: Vec<u32>,
    sides: [Vec<u32>; 2],
    characters: Vec<u32>,
    answers: Vec<u32>,
    tokens: Vec<u32>,
    kinds: BTreeMap<&'static str, usize>,
    faults: Vec<String>,
    reasons: BTreeMap<Reason, usize>,
    samples: Vec<String>,
    drawn: BinaryHeap<Drawn>,
}

/// A row with its random number (`lot`). The rows with the smallest lots are kept.
struct Drawn {
    lot: u64,
    number: usize,
    row: DrawnRow,
}

impl PartialEq for Drawn {
    fn eq(&self, other: &Drawn) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Drawn {}

impl PartialOrd for Drawn {
    fn partial_cmp(&self, other: &Drawn) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Drawn {
    fn cmp(&self, other: &Drawn) -> std::cmp::Ordering {
        (self.lot, self.number).cmp(&(other.lot, other.number))
    }
}

impl<'a> Statistics<'a> {
    pub(super) fn new(options: &'a Options<'a>) -> Statistics<'a> {
        Statistics {
            options,
            rows: 0,
            seen: ReadCounts::default(),
            answered: 0,
            labelled: 0,
            ids: Vec::new(),
            images: Vec::new(),
            sides: Default::default(),
            characters: Vec::new(),
            answers: Vec::new(),
            tokens: Vec::new(),
            kinds: BTreeMap::new(),
            faults: Vec::new(),
            reasons: BTreeMap::new(),
            samples: Vec::new(),
            drawn: BinaryHeap::new(),
        }
    }

    /// Measures rows on all cores and counts them in order. Returns an error if the system failed to read one.
    pub(super) fn take(&mut self, rows: Vec<RowResult<Row>>) -> Result<()> {
        let (first, drawn) = (self.rows + 1, self.drawn_with(&rows));
        let looked: Vec<_> = rows
            .into_par_iter()
            .enumerate()
            .map(|(i, row)| match row {
                Ok(row) => {
                    let (mut images, show) = (Vec::new(), self.options.shown.filter(|_| drawn.contains(&(first + i))));
                    let looked = look(&row, self.options.model, show, &mut images);
                    (Some(DrawnRow { row, images }), looked)
                }
                Err(bad) => (None, Err(bad)),
            })
            .collect();
        for (row, looked) in looked {
            self.rows += 1;
            match looked {
                Ok(looked) => {
                    let (form, turns) =
                        row.as_ref().map_or(("", 0), |it| (it.row.form, it.row.trained_messages().len()));
                    self.seen.count(form, turns, looked.sizes.len(), looked.targets);
                    self.characters.push(looked.characters);
                    self.answers.extend(looked.answer);
                    self.tokens.extend(looked.tokens);
                    self.sides[0].extend(looked.sizes.iter().map(|size| size[0]));
                    self.sides[1].extend(looked.sizes.iter().map(|size| size[1]));
                }
                Err(bad) => {
                    let BadRow { reason, error, .. } = bad.of_row()?;
                    *self.reasons.entry(reason).or_default() += 1;
                    let fault = error.to_string();
                    let is_new = !self.faults.iter().any(|quoted| cause(quoted) == cause(&fault));
                    if self.faults.len() < QUOTED && is_new {
                        self.faults.push(fault);
                    }
                }
            }
            if let Some(row) = row {
                self.count(row);
            }
        }
        Ok(())
    }

    fn lot(&self, number: usize) -> u64 {
        Random::new(self.options.seed, Purpose::Shuffle, number as u64).next_u64()
    }

    /// Returns the numbers of the rows that will be drawn once `rows` have been counted as well.
    fn drawn_with(&self, rows: &[RowResult<Row>]) -> BTreeSet<usize> {
        let sound = rows.iter().zip(self.rows + 1..).filter(|(row, _)| row.is_ok());
        let new = sound.map(|(_, number)| (self.lot(number), number));
        let mut lots: Vec<(u64, usize)> = self.drawn.iter().map(|drawn| (drawn.lot, drawn.number)).chain(new).collect();
        lots.sort_unstable();
        lots.into_iter().take(self.options.random).map(|(_, number)| number).collect()
    }

    fn count(&mut self, drawn: DrawnRow) {
        let row = &drawn.row;
        self.answered += usize::from(answered(row));
        self.labelled += usize::from(row.ground_truth.is_some());
        self.ids.push(short(&blake3::hash(row.id.as_bytes())));
        self.images.push(row.images.len() as u32);
        if let Some(label) = &row.ground_truth {
            *self.kinds.entry(kind(label)).or_default() += 1;
        }
        if self.samples.len() < self.options.first {
            self.samples.push(show_row(row));
        }
        let number = self.rows;
        let lot = self.lot(number);
        let full = self.drawn.len() >= self.options.random;
        if full && self.drawn.peek().is_none_or(|last| lot >= last.lot) {
            return;
        }
        self.drawn.push(Drawn { lot, number, row: drawn });
        if full {
            self.drawn.pop();
        }
    }

    pub(super) fn inspection(mut self, name: String) -> Inspection {
        self.ids.sort_unstable();
        let shared_ids = self.ids.chunk_by(|a, b| a == b).filter(|same| same.len() > 1).count();
        let mut kinds: Vec<_> = self.kinds.into_iter().collect();
        kinds.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let mut drawn = self.drawn.into_vec();
        drawn.sort_by_key(|drawn| drawn.number);
        Inspection {
            name,
            files: 0,
            columns: Vec::new(),
            rows: self.rows,
            seen: self.seen,
            answered: self.answered,
            labelled: self.labelled,
            shared_ids,
            images: Spread::of(self.images),
            image_sizes: self.sides.map(Spread::of),
            characters: Spread::of(self.characters),
            answer_characters: Spread::of(self.answers),
            tokens: self.options.model.map(|_| Spread::of(self.tokens)),
            kinds,
            faults: self.faults,
            raw: None,
            mapping: None,
            reasons: self.reasons,
            samples: self.samples,
            drawn: drawn.into_iter().map(|drawn| drawn.row).collect(),
        }
    }
}

/// Returns the part of a fault after its row.
fn cause(fault: &str) -> &str {
    fault.split_once(": ").map_or(fault, |(_, cause)| cause)
}

fn answered(row: &Row) -> bool {
    row.reply.is_some() || row.messages.last().is_some_and(|m| m.role == "assistant")
}

/// Measures a row. If `show` is given, adds its result for each image to `images`, so that an image is decoded only
/// once.
fn look(
    row: &Row,
    model: Option<&(Chat, Option<Processor>)>,
    show: Option<Show>,
    images: &mut Vec<Option<String>>,
) -> RowResult<InspectedRow> {
    let mut sizes = Vec::with_capacity(row.images.len());
    let processor = model.and_then(|(_, processor)| processor.as_ref());
    let alpha = processor.map_or(ImageAlpha::Drop, |processor| processor.alpha);
    for image in &row.images {
        let size = image.decode_with(&row.place, alpha, |bytes, rgb| {
            let size = [rgb.width, rgb.height];
            images.extend(show.map(|show| show(bytes, rgb)));
            size
        });
        sizes.push(size.map_err(BadRow::of(Reason::BrokenImage))?);
    }
    let tokens = match model {
        None => Ok((None, 0)),
        Some((chat, processor)) if answered(row) => per_sample(row, chat).and_then(|rows| {
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
    Ok(InspectedRow {
        characters: row.trained_messages().iter().map(characters).sum(),
        answer: row.trained_messages().last().filter(|_| answered(row)).map(characters),
        sizes,
        tokens,
        targets,
    })
}

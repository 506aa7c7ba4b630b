//! One pass over rows in order, a bounded number at a time: calls the stage's decision for each row and writes the
//! result.

use rayon::prelude::*;

use crate::pipeline::files::{Lines, Rejection, Rejections, unfit};
use crate::pipeline::stage::{Input, Work};
use crate::pipeline::summary::Summary;
use omr_base::config::{Images, StageConfig};
use omr_base::error::Result;
use omr_base::files;
use omr_data::reward::Judged;
use omr_data::rows::chunks::Chunk;
use omr_data::rows::{BadRow, Row, Writer};

/// Maximum number of rows that are decided together.
const CHUNK_ROWS: usize = 1024;

/// Result for a row, or for an answer to it.
// A row is moved once, so a box would save nothing.
#[allow(clippy::large_enum_variant)]
pub enum Fate {
    /// The row is written.
    Kept(Row),
    /// The row is not written, but listed with a reason.
    Rejected(Rejection),
    /// The judge gave no verdict, or the reward program no score. The row is not written until a later run judges it.
    Unjudged(Rejection),
    /// The row turned out to be unreadable, although its columns are valid.
    Bad(BadRow),
}

impl Fate {
    /// Returns the fate of a judged answer: `row` is written if the answer is correct, and the label is `label`.
    /// `rollout` is the number of the answer if it is one of several.
    pub fn of_answer(judged: Judged, label: &str, rollout: Option<usize>, row: impl FnOnce() -> Row) -> Fate {
        match judged.undecided() {
            _ if judged.score.acc_score > 0.0 => Fate::Kept(row()),
            Some(why) => Fate::Unjudged(Rejection { reason: "unjudged", detail: why.to_owned(), rollout }),
            None => {
                let detail = format!("the answer is {}, the label is {label}", judged.score.predict_str);
                Fate::Rejected(Rejection { reason: "wrong_answer", detail, rollout })
            }
        }
    }
}

/// A row with its number in its file, from 0.
pub struct Numbered {
    /// Number of the row.
    pub index: usize,
    /// Content of the row.
    pub row: Row,
}

/// Decides about rows of an input; returns the fates of each row.
pub type Decide<'a> = dyn FnMut(&Input, Vec<Numbered>) -> Result<Vec<Vec<Fate>>> + 'a;

/// Passes every row of `work` to `decide`, in order, and writes the result.
pub fn pass(work: &Work, decide: &mut Decide) -> Result<Summary> {
    let mut out = PassOutput { work, rejected: Rejections::new(work)?, unjudged: None, done: 0 };
    work.machine.observer.begin(work.kind, "rows", work.rows() as u64, 0);
    for (number, input) in work.inputs.iter().enumerate() {
        let mut kept = work.writer(&input.name);
        input.for_chunks(CHUNK_ROWS, |chunk| out.take(number, chunk, decide, &mut kept))?;
        kept.finish()?;
    }
    out.finish()
}

struct PassOutput<'a> {
    work: &'a Work<'a>,
    rejected: Rejections<'a>,
    unjudged: Option<Lines>,
    done: u64,
}

impl PassOutput<'_> {
    fn take(&mut self, number: usize, chunk: Chunk, decide: &mut Decide, kept: &mut Writer) -> Result<()> {
        let observer = self.work.machine.observer;
        observer.check_stop()?;
        let input = &self.work.inputs[number];
        self.done += chunk.len() as u64;
        let (mut rows, mut bad) = (Vec::with_capacity(chunk.len()), Vec::new());
        for (at, row) in chunk {
            match row {
                Ok(row) => rows.push(Numbered { index: at.index as usize, row }),
                Err(fault) => bad.push((at.index as usize, fault)),
            }
        }
        let places: Vec<(usize, String)> = rows.iter().map(|row| (row.index, row.row.id.clone())).collect();
        let outcomes = if rows.is_empty() { Vec::new() } else { decide(input, rows)? };
        let stage = self.work.stage;
        let of_row = |fates: Vec<Fate>| fates.into_iter().map(|fate| written(stage, fate)).collect();
        let outcomes: Vec<Vec<Fate>> = outcomes.into_par_iter().map(of_row).collect();
        // Bad rows are inserted by their numbers, as if each row had been decided alone.
        let mut bad = bad.into_iter().peekable();
        for ((index, id), fates) in places.into_iter().zip(outcomes) {
            while let Some((index, bad)) = bad.next_if(|(bad, _)| *bad < index) {
                self.rejected.bad(number, index, bad)?;
            }
            for fate in fates {
                match fate {
                    Fate::Kept(row) => {
                        self.rejected.summary.kept += 1;
                        kept.push(row)?;
                    }
                    Fate::Rejected(rejection) => {
                        self.rejected.push(number, index, Some(&id), &rejection)?;
                    }
                    Fate::Bad(bad) => self.rejected.bad(number, index, BadRow { id: Some(id.clone()), ..bad })?,
                    Fate::Unjudged(rejection) => {
                        self.rejected.summary.unjudged += 1;
                        let create = || Lines::create(self.work, "unjudged");
                        let lines = self.unjudged.take().map_or_else(create, Ok)?;
                        self.unjudged.insert(lines).push(&input.name, index, Some(&id), &rejection)?;
                    }
                }
            }
        }
        for (index, row) in bad {
            self.rejected.bad(number, index, row)?;
        }
        observer.step(self.done, &[("kept", self.rejected.summary.kept as f64)]);
        Ok(())
    }

    fn finish(self) -> Result<Summary> {
        let summary = self.rejected.finish()?;
        let doubts = self.work.path("unjudged", "jsonl");
        match self.unjudged {
            Some(lines) => lines.finish()?,
            // The file is from an earlier run whose judge was unavailable. All answers have been judged since.
            None => drop(files::if_exists(&doubts, std::fs::remove_file(&doubts))?),
        }
        self.work.machine.observer.end();
        Ok(summary)
    }
}

/// Returns the fate of a row after the stage's output settings are applied.
fn written(stage: &StageConfig, fate: Fate) -> Fate {
    let Fate::Kept(row) = fate else { return fate };
    match unfit(stage, &row) {
        Some(rejection) => Fate::Rejected(rejection),
        None if stage.images == Images::Embed => row.embedded().map_or_else(Fate::Bad, Fate::Kept),
        None => Fate::Kept(row),
    }
}

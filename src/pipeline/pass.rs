//! One pass over rows in order, a bounded number at a time: calls the stage's decision for each row and writes the
//! result.

use rayon::prelude::*;

use crate::config::{Images, StageConfig};
use crate::data::{BadRow, Row, RowResult};
use crate::error::{Error, Result};
use crate::pipeline::files::{KeptWriter, Lines, Rejection, Rejections, unfit};
use crate::pipeline::stage::{Input, Work};
use crate::pipeline::summary::Summary;

/// Maximum number of rows that are decided together, and of bytes of their embedded images. Both limit the memory.
const CHUNK_ROWS: usize = 1024;
const CHUNK_BYTES: usize = 32 << 20;

/// Result for a row, or for an answer to it.
// A row is moved once, so a box would save nothing.
#[allow(clippy::large_enum_variant)]
pub enum Fate {
    /// The row is written.
    KeptWriter(Row),
    /// The row is not written, but listed with a reason.
    Rejected(Rejection),
    /// The judge gave no verdict. The row is not written until a later run judges it.
    Unjudged(Rejection),
    /// The row turned out to be unreadable, although its columns are valid.
    Bad(BadRow),
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
        let mut kept = KeptWriter::new(work, &input.name);
        let mut chunk = Chunk::default();
        input.for_each(|at, row| {
            chunk.push(at.index as usize, row);
            match chunk.rows.len() + chunk.bad.len() < CHUNK_ROWS && chunk.bytes < CHUNK_BYTES {
                true => Ok(()),
                false => out.take(number, std::mem::take(&mut chunk), decide, &mut kept),
            }
        })?;
        out.take(number, chunk, decide, &mut kept)?;
        kept.finish()?;
    }
    out.finish()
}

/// Rows that are decided together.
#[derive(Default)]
struct Chunk {
    rows: Vec<Numbered>,
    bad: Vec<(usize, BadRow)>,
    bytes: usize,
}

impl Chunk {
    fn push(&mut self, index: usize, row: RowResult<Row>) {
        match row {
            Ok(row) => {
                self.bytes += row.images.iter().map(|image| image.embedded()).sum::<usize>();
                self.rows.push(Numbered { index, row });
            }
            Err(bad) => self.bad.push((index, bad)),
        }
    }
}

struct PassOutput<'a> {
    work: &'a Work<'a>,
    rejected: Rejections<'a>,
    unjudged: Option<Lines>,
    done: u64,
}

impl PassOutput<'_> {
    fn take(&mut self, number: usize, chunk: Chunk, decide: &mut Decide, kept: &mut KeptWriter) -> Result<()> {
        let observer = self.work.machine.observer;
        observer.check_stop()?;
        let input = &self.work.inputs[number];
        self.done += (chunk.rows.len() + chunk.bad.len()) as u64;
        let places: Vec<(usize, String)> = chunk.rows.iter().map(|row| (row.index, row.row.id.clone())).collect();
        let outcomes = if chunk.rows.is_empty() { Vec::new() } else { decide(input, chunk.rows)? };
        let stage = self.work.stage;
        let outcomes: Vec<Vec<Fate>> = outcomes
            .into_par_iter()
            .map(|fates| fates.into_iter().map(|fate| written(stage, fate)).collect())
            .collect();
        // Bad rows are inserted by their numbers, as if each row had been decided alone.
        let mut bad = chunk.bad.into_iter().peekable();
        for ((index, id), fates) in places.into_iter().zip(outcomes) {
            while let Some((index, bad)) = bad.next_if(|(bad, _)| *bad < index) {
                self.rejected.bad(number, index, bad)?;
            }
            for fate in fates {
                match fate {
                    Fate::KeptWriter(row) => {
                        self.rejected.summary.kept += 1;
                        kept.push(row)?;
                    }
                    Fate::Rejected(rejection) => {
                        self.rejected.push(number, index, Some(&id), &rejection)?;
                    }
                    Fate::Bad(bad) => self.rejected.bad(number, index, BadRow { id: Some(id.clone()), ..bad })?,
                    Fate::Unjudged(rejection) => {
                        self.rejected.summary.unjudged += 1;
                        let lines = match self.unjudged.take() {
                            Some(lines) => lines,
                            None => Lines::create(self.work, "unjudged")?,
                        };
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
            None if doubts.exists() => std::fs::remove_file(&doubts).map_err(Error::io(&doubts))?,
            None => {}
        }
        self.work.machine.observer.end();
        Ok(summary)
    }
}

/// Returns the fate of a row after the stage's output settings are applied.
fn written(stage: &StageConfig, fate: Fate) -> Fate {
    let Fate::KeptWriter(row) = fate else { return fate };
    match unfit(stage, &row) {
        Some(rejection) => Fate::Rejected(rejection),
        None if stage.images == Images::Embed => row.embedded().map_or_else(Fate::Bad, Fate::KeptWriter),
        None => Fate::KeptWriter(row),
    }
}

//! Builds the index in one pass over the rows: measures each row, records its place, and collects the rows that are not
//! used.

use std::thread;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::places::{Place, Places};
use crate::rows::chunks::{Chunk, Chunks};
use crate::rows::read::{RowFile, RowPosition, RowsLeft};
use crate::rows::samples::encoder::Measured;
use crate::rows::{
    BadRow, Encoder, Index, ReadCounts, Reason, Rejected, RejectedRows, Row, RowResult, Shape, Signature, short,
};
use omr_base::error::{Error, Result};

/// Maximum number of rows that are measured together.
const CHUNK_ROWS: usize = 1024;

/// Maximum length of a row that is used, and the config key that sets it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Longest {
    /// Number of tokens.
    pub tokens: usize,
    /// Config key.
    pub key: &'static str,
}

/// Result of one pass.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Indexed {
    /// Sizes of the used rows.
    pub sizes: Index,
    /// Places of the used rows.
    pub places: Places,
    /// Everything else that the pass found.
    pub facts: Facts,
}

/// Everything that one pass finds besides the sizes and the places of the used rows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// Rows that are not used.
    pub rejected: RejectedRows,
    /// Ids that more than one row has.
    pub shared: SharedIds,
    /// Counts of what the used rows contain.
    pub seen: ReadCounts,
    /// Signatures of the files at the time of indexing.
    pub signatures: Vec<Signature>,
}

/// Ids that several rows share which do not follow each other, for example because a data set was concatenated twice.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SharedIds {
    /// Number of such ids.
    pub count: usize,
    /// Place of an example row: the second row that has the first shared id.
    pub example: Option<String>,
}

/// Indexes the rows of `files`. Faulty rows are collected. Returns an error if a file cannot be read.
pub fn index(files: &[RowFile], encoder: &Encoder, longest: Longest) -> Result<Indexed> {
    let mut found = Indexed::default();
    found.facts.seen = ReadCounts::of(files)?;
    let mut ids: Vec<(u64, u32, u32)> = Vec::new();
    let mut left = RowsLeft::default();
    for (number, file) in files.iter().enumerate() {
        let before = found.facts.rejected.rows;
        // The hash is computed while the rows are read, because both read the same pages from disk.
        let signature = thread::scope(|scope| {
            let signature = scope.spawn(|| Signature::of(&file.path));
            let mut chunks =
                Chunks::new(CHUNK_ROWS, |rows| measure(rows, number, encoder, longest, &mut found, &mut ids));
            left.each(file, |at, row| chunks.push(at, row))?;
            chunks.finish()?;
            signature.join().map_err(|_| Error::Failed("hashing a file panicked".to_owned()))?
        })?;
        found.facts.signatures.push(signature);
        if found.facts.rejected.rows == before && left.of(file) > 0 {
            return Err(Error::input(&file.path, "no rows", "at least one row"));
        }
    }
    ids.sort_unstable();
    // Several answers to a question, as `omr data distill` writes them, follow each other.
    let follows = |pair: &[(u64, u32, u32)]| (pair[1].1, pair[1].2) == (pair[0].1, pair[0].2 + 1);
    for same in ids.chunk_by(|a, b| a.0 == b.0).filter(|same| !same.windows(2).all(follows)) {
        found.facts.shared.count += 1;
        let second = || files[same[1].1 as usize].place(same[1].2 as usize);
        found.facts.shared.example.get_or_insert_with(second);
    }
    Ok(found)
}

/// Measures the rows on all cores and adds them to `found` in order. Returns the error of the first row that the system
/// failed to read.
fn measure(
    rows: Chunk,
    file: usize,
    encoder: &Encoder,
    longest: Longest,
    found: &mut Indexed,
    ids: &mut Vec<(u64, u32, u32)>,
) -> Result<()> {
    type Samples = Vec<(usize, RowResult<Measured>)>;
    let measure = |(at, row): (RowPosition, RowResult<Row>)| -> (RowPosition, Option<String>, Samples) {
        match row {
            Err(bad) => (at, None, vec![(0, Err(bad))]),
            Ok(row) => {
                let fitting = |(turn, sample)| (turn, fits(sample, turn, &row, longest));
                let measured = can_fit(&row, encoder, longest).and_then(|()| encoder.measure_samples(&row));
                let measured = measured.map(|samples| samples.into_iter().map(fitting).collect());
                (at, Some(row.id), measured.unwrap_or_else(|bad| vec![(0, Err(bad))]))
            }
        }
    };
    let measured: Vec<_> = rows.into_par_iter().map(measure).collect();
    for (at, id, samples) in measured {
        found.facts.rejected.rows += samples.len() as u64;
        ids.extend(id.iter().map(|id| (short(&blake3::hash(id.as_bytes())), file as u32, at.index)));
        let mut row: Option<(&str, usize, usize, usize)> = None;
        for (turn, measured) in samples {
            match measured {
                Ok(Measured { tokens, targets, form, turns, images, grids, stamps, has_jpeg, hash }) => {
                    // The last sample of a row has the most messages and images.
                    row = Some((form, turns, images, targets + row.map_or(0, |row| row.3)));
                    found.facts.seen.has_jpeg |= has_jpeg;
                    found.sizes.push(Shape { tokens, targets, grids: &grids });
                    found.places.push(Place { file, at, hash, turn }, &stamps);
                }
                Err(bad) => {
                    let BadRow { reason, error, .. } = bad.of_row()?;
                    let (dataset, index, detail) = (file as u32, at.index, error.to_string());
                    found.facts.rejected.rejected.push(Rejected { dataset, index, id: id.clone(), reason, detail });
                }
            }
        }
        if let Some((form, turns, images, targets)) = row {
            found.facts.seen.count(form, turns, images, targets);
        }
    }
    Ok(())
}

/// Rejects a row before tokenization if its text has more bytes than the allowed number of tokens can encode.
fn can_fit(row: &Row, encoder: &Encoder, longest: Longest) -> RowResult<()> {
    let (bytes, most) = (row.text_len(), encoder.chat.tokenizer.bytes_of(longest.tokens));
    if bytes <= most {
        return Ok(());
    }
    let expected = format!("at most {most} bytes: {} is {} tokens", longest.key, longest.tokens);
    Err(BadRow::of(Reason::Overlong)(Error::input(&row.place, format!("{bytes} bytes of text"), expected)))
}

/// Rejects a sample with more tokens than `longest`. `turn` is the number of messages of a sample of one turn, else 0.
fn fits(measured: Measured, turn: usize, row: &Row, longest: Longest) -> RowResult<Measured> {
    if measured.tokens <= longest.tokens {
        return Ok(measured);
    }
    let expected = format!("at most {}={}", longest.key, longest.tokens);
    let place = if turn == 0 { row.place.clone() } else { format!("{}, message {turn}", row.place) };
    Err(BadRow::of(Reason::Overlong)(Error::input(place, format!("{} tokens", measured.tokens), expected)))
}

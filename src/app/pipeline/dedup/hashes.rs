//! The hashes by which rows are compared: one line per row on disk, and about a hundred bytes per row in memory.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::pipeline::dedup::image::{COLUMNS, ImageHash, ROWS};
use crate::pipeline::dedup::text;
use crate::pipeline::dedup::tower::{Embedded, Embedder, EmbeddingPlace, Lookup};
use crate::pipeline::stage::{Input, Work};
use omr_base::config::ImageAlpha;
use omr_base::error::{Error, Result};
use omr_base::files::{self, Staged};
use omr_data::rows::Row;
use omr_data::rows::read::RowPosition;

/// Maximum number of rows that are hashed together.
const CHUNK_ROWS: usize = 512;
/// Number of rows whose images, resized for the vision tower, are in memory at the same time.
const TOWER_ROWS: usize = 32;

/// One line of the file: the hashes of a row.
#[derive(Serialize, Deserialize)]
struct Line {
    set: u32,
    index: u32,
    offset: u64,
    id: String,
    text: String,
    /// Hash and cells of each image, in hexadecimal.
    #[serde(rename = "pictures")]
    images: Vec<(String, String)>,
    /// Position of each image's embedding in the embeddings file; empty without a model.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    embeddings: Vec<u32>,
    /// Error text if an image cannot be decoded.
    broken: Option<String>,
}

/// Writes one line for each row of `inputs`, and the embeddings that `tower` computes for its images. Rows that cannot
/// be read have no line.
pub fn write(work: &Work, inputs: &[&Input], path: &Path, mut tower: Option<Embedder>) -> Result<()> {
    let mut out = Staged::create(path)?;
    let observer = work.machine.observer;
    let total = inputs.iter().map(|input| input.rows.len() as u64).sum();
    observer.begin("dedup: hashes", "rows", total, 0);
    let (mut done, most) = (0, if tower.is_some() { TOWER_ROWS } else { CHUNK_ROWS });
    for (set, input) in inputs.iter().enumerate() {
        input.for_chunks(most, |chunk| {
            observer.check_stop()?;
            let mut rows = Vec::with_capacity(chunk.len());
            for (at, row) in chunk {
                match row {
                    Ok(row) => rows.push((at, row)),
                    Err(bad) => drop(bad.of_row()?),
                }
            }
            let kept = tower.as_ref().map(|tower| &tower.kept);
            let mut lines: Vec<(Line, Vec<Lookup>)> =
                rows.par_iter().map(|(at, row)| line(set, *at, row, kept)).collect::<Result<_>>()?;
            if let Some(tower) = &mut tower {
                let seen: Vec<&Lookup> = lines.iter().flat_map(|(_, seen)| seen).collect();
                let mut places = tower.places(&seen)?.into_iter();
                for (line, seen) in &mut lines {
                    line.embeddings = places.by_ref().take(seen.len()).collect();
                }
            }
            for (line, _) in lines {
                let text = serde_json::to_string(&line).map_err(|e| Error::Failed(format!("hashes: {e}")))?;
                writeln!(out, "{text}").map_err(Error::io(path))?;
            }
            done += rows.len() as u64;
            observer.step(done, &[]);
            Ok(())
        })?;
    }
    observer.end();
    out.commit()
}

/// Returns the line of a row and the lookups of its images in `kept`. Returns an error if the system failed to read an
/// image.
fn line(set: usize, at: RowPosition, row: &Row, kept: Option<&Embedded>) -> Result<(Line, Vec<Lookup>)> {
    let looked = row.images.iter().map(|image| {
        image.decode_then(&row.place, ImageAlpha::White, |_, image| {
            (ImageHash::of(&image), kept.map(|kept| kept.seen(&image)))
        })
    });
    let (looked, broken) = match looked.collect::<Result<Vec<(ImageHash, Option<Lookup>)>>>() {
        Ok(looked) => (looked, None),
        Err(error @ Error::Unreadable { .. }) => return Err(error),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let images =
        looked.iter().map(|(image_hash, _)| (format!("{:016x}", image_hash.hash), hex(&image_hash.cells))).collect();
    let seen = looked.into_iter().filter_map(|(_, seen)| seen).collect();
    let (set, text, id) = (set as u32, text::fold(&row.question()), row.id.clone());
    let (index, offset, embeddings) = (at.index, at.offset, Vec::new());
    Ok((Line { set, index, offset, id, text, images, embeddings, broken }, seen))
}

/// Hashes of all rows, ordered by data set and row.
#[derive(Default)]
pub struct RowHashes {
    /// Data set and position of each row.
    pub places: Vec<(u32, RowPosition)>,
    /// Hash of each row's folded text, and hash of the numbers in it.
    pub texts: Vec<(u64, u64)>,
    /// Bands of each row's text, `bands_each` per row.
    pub bands: Vec<u32>,
    /// Number of bands per row.
    pub bands_each: usize,
    /// Start of each row's images in [`RowHashes::image_hashes`]. Has one entry more than there are rows.
    pub starts: Vec<u32>,
    /// Hashes of all images.
    pub image_hashes: Vec<ImageHash>,
    /// Position of each image's embedding in the embeddings file of its row.
    embeddings: Vec<u32>,
    /// Rows with an image that cannot be decoded: data set, row and error text.
    pub broken: Vec<(u32, u32, String)>,
    files: Vec<(PathBuf, Mutex<File>)>,
    /// Number of the file and offset of the line, for each row.
    lines: Vec<(u32, u64)>,
}

impl RowHashes {
    /// Reads the lines of `paths`. The files are consecutive shards, and each covers all data sets.
    pub fn read(paths: &[PathBuf], sets: usize, band_len: usize) -> Result<RowHashes> {
        let mut rows = RowHashes { starts: vec![0], ..RowHashes::default() };
        for path in paths {
            rows.files.push((path.clone(), Mutex::new(files::open(path).map_err(Error::io(path))?)));
        }
        for set in 0..sets as u32 {
            for (number, path) in paths.iter().enumerate() {
                rows.take(set, number as u32, path, band_len)?;
            }
        }
        Ok(rows)
    }

    /// Reads the rows of one data set from a file.
    fn take(&mut self, set: u32, number: u32, path: &Path, band_len: usize) -> Result<()> {
        let wrong = |what: String| Error::format(path, format!("{what}; delete the file, and omr computes it again"));
        let mut file = BufReader::with_capacity(1 << 20, files::open(path).map_err(Error::io(path))?);
        let (mut chunk, mut offset, mut over) = (Vec::new(), 0, false);
        let start = format!("{{\"set\":{set},");
        while !over {
            let mut text = String::new();
            let read = file.read_line(&mut text).map_err(Error::io(path))? as u64;
            over = read == 0;
            if text.starts_with(&start) {
                chunk.push((offset, text));
            }
            offset += read;
            if chunk.len() < CHUNK_ROWS && !over {
                continue;
            }
            let made: std::result::Result<Vec<(u64, Line, Vec<u32>)>, String> = chunk
                .par_iter()
                .map(|(offset, text)| {
                    let line: Line = serde_json::from_str(text).map_err(|e| e.to_string())?;
                    let bands = text::bands(&line.text, band_len);
                    Ok((*offset, line, bands))
                })
                .collect();
            for (offset, line, bands) in made.map_err(wrong)? {
                if let Some(what) = line.broken {
                    self.broken.push((line.set, line.index, what));
                    continue;
                }
                self.bands_each = bands.len();
                self.bands.extend(bands);
                self.places.push((line.set, RowPosition { index: line.index, offset: line.offset }));
                self.texts.push((text::hash(&line.text), text::numbers(&line.text)));
                for (hash, cells) in &line.images {
                    self.image_hashes.push(image_hash(hash, cells).ok_or_else(|| wrong("a broken line".to_owned()))?);
                }
                self.embeddings.extend(line.embeddings);
                self.starts.push(self.image_hashes.len() as u32);
                self.lines.push((number, offset));
            }
            chunk.clear();
        }
        Ok(())
    }

    /// Returns the number of rows.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Returns the image hashes of a row.
    pub fn image_hashes(&self, row: usize) -> &[ImageHash] {
        &self.image_hashes[self.starts[row] as usize..self.starts[row + 1] as usize]
    }

    /// Returns the position of the embedding of a row's image.
    pub fn embedding(&self, row: usize, image: usize) -> EmbeddingPlace {
        let place = self.embeddings.get(self.starts[row] as usize + image).copied().unwrap_or(u32::MAX);
        EmbeddingPlace { file: self.lines[row].0, place }
    }

    /// Reads a row's folded text and id from disk.
    pub fn text(&self, row: usize) -> Result<(String, String)> {
        let (number, offset) = self.lines[row];
        let (path, file) = &self.files[number as usize];
        let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset)).map_err(Error::io(path))?;
        let mut text = String::new();
        BufReader::new(&mut *file).read_line(&mut text).map_err(Error::io(path))?;
        let line: Line = files::json::parse(path, text.as_bytes())?;
        Ok((line.text, line.id))
    }
}

fn image_hash(hash: &str, cells: &str) -> Option<ImageHash> {
    let mut found = ImageHash { hash: u64::from_str_radix(hash, 16).ok()?, cells: [0; COLUMNS * ROWS] };
    for (i, cell) in found.cells.iter_mut().enumerate() {
        *cell = u8::from_str_radix(cells.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(found)
}

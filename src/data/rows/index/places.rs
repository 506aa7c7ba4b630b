//! Places of indexed rows, and the hashes that the rows must still have when they are read. Takes 28 bytes per
//! sample and 8 per image.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::rows::files::paths;
use crate::rows::files::stamp::is_embedded;
use crate::rows::read::{RowFile, RowPosition};
use omr_base::error::{Error, Result};
use omr_base::files::{self, size_and_time};

/// State of a file of rows at the time of indexing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signature {
    /// Path of the file.
    pub path: PathBuf,
    /// Size in bytes.
    pub len: u64,
    /// Modification time in nanoseconds.
    pub modified: u64,
    /// BLAKE3 hash of the content, in hexadecimal.
    pub hash: String,
}

impl Signature {
    /// Computes the signature of a file as it is now. Reads the entire file. The content of a folder of images is the
    /// list of their names; the images have stamps.
    pub fn of(path: &std::path::Path) -> Result<Signature> {
        let (len, modified) = size_and_time(path).map_err(Error::io(path))?;
        let mut hasher = blake3::Hasher::new();
        if path.is_dir() {
            for image in paths::images(path)? {
                hasher.update(image.as_os_str().as_encoded_bytes()).update(b"\0");
            }
        } else {
            let file = files::open(path).map_err(Error::io(path))?;
            hasher.update_reader(file).map_err(Error::io(path))?;
        }
        Ok(Signature { path: path.to_owned(), len, modified, hash: hasher.finalize().to_hex().to_string() })
    }

    /// Returns false if the file has changed. Compares the size and the time first, and the hash only if the time
    /// differs from `seen`. If the file is unchanged, `seen` is set to its current time.
    pub fn is_same(&self, seen: &mut u64) -> Result<bool> {
        let (len, modified) = size_and_time(&self.path).map_err(Error::io(&self.path))?;
        if len != self.len || modified != *seen && Signature::of(&self.path)?.hash != self.hash {
            return Ok(false);
        }
        *seen = modified;
        Ok(true)
    }
}

/// A file of rows that must not change after it was indexed.
pub struct Source {
    /// Open file.
    pub file: RowFile,
    /// Signature at the time of indexing.
    pub signature: Signature,
    /// Modification time at the last successful check.
    modified: Mutex<u64>,
}

impl Source {
    /// Creates a source from an open file and its signature.
    pub fn new(file: RowFile, signature: Signature) -> Source {
        let modified = Mutex::new(signature.modified);
        Source { file, signature, modified }
    }

    /// Returns an error that names the file if it has changed. Compares the size and the time first, and the hash only
    /// if the time differs.
    pub fn check(&self) -> Result<()> {
        let mut seen = self.modified.lock().unwrap_or_else(PoisonError::into_inner);
        if self.signature.is_same(&mut seen)? {
            return Ok(());
        }
        Err(changed(&self.signature.path.display().to_string(), "the file that the run began with"))
    }
}

/// Creates the error of a source that changed during a run.
pub fn changed(place: &str, expected: &str) -> Error {
    let hint = "restore the file, or continue once with the changed data by setting accept_changed=[rows,pictures] \
                (remove the key afterwards), or start a new run with --fresh";
    Error::input_hint(place, "different content than when the rows were indexed", expected, hint)
}

/// Places of indexed rows, by number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Places {
    files: Vec<u32>,
    rows: Vec<u32>,
    offsets: Vec<u64>,
    hashes: Vec<u64>,
    turns: Vec<u32>,
    /// Stamps of all images and videos, in the order of the index's grids.
    stamps: Vec<u64>,
}

/// Place of one row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Number of the file.
    pub file: usize,
    /// Position in the file.
    pub at: RowPosition,
    /// Hash of the tokens and targets, or of the tokens and the label of a prompt.
    pub hash: u64,
    /// Argument of [`Row::of_turn`](crate::rows::Row::of_turn) for the sample: 0 for a complete row.
    pub turn: usize,
}

impl Places {
    /// Adds one row with the stamps of its images.
    pub fn push(&mut self, place: Place, stamps: &[u64]) {
        self.files.push(place.file as u32);
        self.rows.push(place.at.index);
        self.offsets.push(place.at.offset);
        self.hashes.push(place.hash);
        self.turns.push(place.turn as u32);
        self.stamps.extend_from_slice(stamps);
    }

    /// Returns the place of row number `k`.
    pub fn get(&self, k: usize) -> Place {
        let at = RowPosition { index: self.rows[k], offset: self.offsets[k] };
        Place { file: self.files[k] as usize, at, hash: self.hashes[k], turn: self.turns[k] as usize }
    }

    /// Returns the number of rows that have one sample per trained turn, and the number of these samples.
    pub fn split_rows(&self) -> [usize; 2] {
        let turns = (0..self.turns.len()).filter(|&k| self.turns[k] > 0);
        let rows: Vec<(u32, u32)> = turns.map(|k| (self.files[k], self.rows[k])).collect();
        [rows.chunk_by(|a, b| a == b).count(), rows.len()]
    }

    /// Returns the stamps of the images in `range`.
    pub fn stamps(&self, range: std::ops::Range<usize>) -> &[u64] {
        &self.stamps[range]
    }

    /// Returns the number of images if at least one image is stored in a separate file or zip member, otherwise `None`.
    pub fn in_files(&self) -> Option<usize> {
        self.stamps.iter().any(|&stamp| !is_embedded(stamp)).then_some(self.stamps.len())
    }

    /// Returns the number of rows in each of `files` files.
    pub fn counts(&self, files: usize) -> Vec<u32> {
        let mut counts = vec![0; files];
        self.files.iter().for_each(|&file| counts[file as usize] += 1);
        counts
    }

    /// Returns the content as one byte array per field. [`Places::from_arrays`] reads them.
    pub(crate) fn arrays(&self) -> [&[u8]; 6] {
        let [files, rows, turns] = [&self.files, &self.rows, &self.turns].map(|all| bytemuck::cast_slice(all));
        let wide = [&self.offsets, &self.hashes, &self.stamps];
        let [offsets, hashes, stamps] = wide.map(|all| bytemuck::cast_slice(all));
        [files, rows, offsets, hashes, stamps, turns]
    }

    /// Creates places from the bytes of [`Places::arrays`]. Returns `None` if the arrays do not match one another or
    /// the given numbers of rows, images and source files.
    pub(crate) fn from_arrays(arrays: [&[u8]; 6], rows: usize, images: usize, sources: usize) -> Option<Places> {
        let [files, numbers, offsets, hashes, stamps, turns] = arrays;
        let [files, numbers, turns] = [files, numbers, turns].map(bytemuck::pod_collect_to_vec::<u8, u32>);
        let [offsets, hashes, stamps] = [offsets, hashes, stamps].map(bytemuck::pod_collect_to_vec::<u8, u64>);
        let fits = [files.len(), numbers.len(), offsets.len(), hashes.len(), turns.len()] == [rows; 5]
            && stamps.len() == images;
        let known = files.iter().all(|&file| (file as usize) < sources);
        (fits && known).then_some(Places { files, rows: numbers, offsets, hashes, turns, stamps })
    }
}

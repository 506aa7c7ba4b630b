//! Where indexed rows stand, and what they must still be when they are read: 28 bytes a row and 8 a picture.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::data::read::{At, RowFile};
use crate::data::stamp::size_and_time;
use crate::error::{Error, Result};
use crate::files;

/// What a file of rows was when it was indexed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signature {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub len: u64,
    /// When it was written, in nanoseconds.
    pub modified: u64,
    /// BLAKE3 of its content, as hex.
    pub hash: String,
}

impl Signature {
    /// Of the file as it is now; all of it is read.
    pub fn of(path: &std::path::Path) -> Result<Signature> {
        let (len, modified) = size_and_time(path).map_err(Error::io(path))?;
        let mut hasher = blake3::Hasher::new();
        let file = files::open(path).map_err(Error::io(path))?;
        hasher.update_reader(file).map_err(Error::io(path))?;
        Ok(Signature { path: path.to_owned(), len, modified, hash: hasher.finalize().to_hex().to_string() })
    }
}

impl Signature {
    /// False when the file is another: by size and time and, where only the time differs from `seen`, by its hash; `seen`
    /// is the file's time then.
    pub fn is_same(&self, seen: &mut u64) -> Result<bool> {
        let (len, modified) = size_and_time(&self.path).map_err(Error::io(&self.path))?;
        if len != self.len || modified != *seen && Signature::of(&self.path)?.hash != self.hash {
            return Ok(false);
        }
        *seen = modified;
        Ok(true)
    }
}

/// A file of rows that must stay what it was when it was indexed.
pub struct Source {
    /// The file.
    pub file: RowFile,
    /// What it was.
    pub signature: Signature,
    /// When it was last seen to be the same.
    modified: Mutex<u64>,
}

impl Source {
    /// Of an open file and what it was.
    pub fn new(file: RowFile, signature: Signature) -> Source {
        let modified = Mutex::new(signature.modified);
        Source { file, signature, modified }
    }

    /// Errors, naming the file, when it is another: by size and time and, where only the time differs, by its hash.
    pub fn check(&self) -> Result<()> {
        let mut seen = self.modified.lock().unwrap_or_else(PoisonError::into_inner);
        if self.signature.is_same(&mut seen)? {
            return Ok(());
        }
        Err(changed(&self.signature.path.display().to_string(), "the file that the run began with"))
    }
}

/// The error of a source that changed under a run.
pub fn changed(place: &str, expected: &str) -> Error {
    let hint = "put it back, go on once with what is there by accept_changed=[rows,pictures] (remove the key afterwards), or start anew with --fresh";
    Error::input_hint(place, "another content than when the rows were indexed", expected, hint)
}

/// Places of indexed rows, by number.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Places {
    files: Vec<u32>,
    rows: Vec<u32>,
    offsets: Vec<u64>,
    hashes: Vec<u64>,
    /// Of all pictures, in the order of the index's grids.
    stamps: Vec<u64>,
}

/// One row's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Which data set.
    pub file: usize,
    /// Where in its file.
    pub at: At,
    /// What its tokens and targets hash to.
    pub hash: u64,
}

impl Places {
    /// One more, with what its picture files are known by.
    pub fn push(&mut self, place: Place, stamps: &[u64]) {
        self.files.push(place.file as u32);
        self.rows.push(place.at.index);
        self.offsets.push(place.at.offset);
        self.hashes.push(place.hash);
        self.stamps.extend_from_slice(stamps);
    }

    /// Of number `k`.
    pub fn get(&self, k: usize) -> Place {
        let at = At { index: self.rows[k], offset: self.offsets[k] };
        Place { file: self.files[k] as usize, at, hash: self.hashes[k] }
    }

    /// What the pictures in `range` are known by.
    pub fn stamps(&self, range: std::ops::Range<usize>) -> &[u64] {
        &self.stamps[range]
    }

    /// Pictures there are, where any of them is a file's.
    pub fn in_files(&self) -> Option<usize> {
        self.stamps.iter().any(|&stamp| stamp != 0).then_some(self.stamps.len())
    }

    /// Rows of each of `files` data sets.
    pub fn counts(&self, files: usize) -> Vec<u32> {
        let mut counts = vec![0; files];
        self.files.iter().for_each(|&file| counts[file as usize] += 1);
        counts
    }

    /// Its bytes, an array each; [`Places::from_arrays`] reads them.
    pub(crate) fn arrays(&self) -> [&[u8]; 5] {
        let (hashes, stamps) = (bytemuck::cast_slice(&self.hashes), bytemuck::cast_slice(&self.stamps));
        [
            bytemuck::cast_slice(&self.files),
            bytemuck::cast_slice(&self.rows),
            bytemuck::cast_slice(&self.offsets),
            hashes,
            stamps,
        ]
    }

    /// Of the bytes of [`Places::arrays`]; nothing where they do not fit one another, `rows` rows, `pictures` pictures and
    /// `sources` files.
    pub(crate) fn from_arrays(arrays: [&[u8]; 5], rows: usize, pictures: usize, sources: usize) -> Option<Places> {
        let [files, numbers, offsets, hashes, stamps] = arrays;
        let [files, numbers] = [files, numbers].map(bytemuck::pod_collect_to_vec::<u8, u32>);
        let [offsets, hashes, stamps] = [offsets, hashes, stamps].map(bytemuck::pod_collect_to_vec::<u8, u64>);
        let fits = [files.len(), numbers.len(), offsets.len(), hashes.len()] == [rows; 4] && stamps.len() == pictures;
        let known = files.iter().all(|&file| (file as usize) < sources);
        (fits && known).then_some(Places { files, rows: numbers, offsets, hashes, stamps })
    }
}

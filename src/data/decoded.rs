//! What picture files held when a run first decoded them, beside its index: 8 bytes a picture, in the order of the index,
//! the beginning of the BLAKE3 of the file, 0 where it was not decoded yet.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::data::stamp::short;
use crate::error::{Error, Result};

/// The record, open. Ranks share the file: whoever is first to decode a picture writes its place, and all write the same.
pub struct Decoded {
    path: PathBuf,
    file: File,
}

impl Decoded {
    /// Opens the record of so many pictures; makes it where it is not there, and fills up one that was cut.
    pub fn open(path: &Path, pictures: usize) -> Result<Decoded> {
        let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = options.map_err(Error::io(path))?;
        let (len, wanted) = (file.metadata().map_err(Error::io(path))?.len(), 8 * pictures as u64);
        if len < wanted {
            file.set_len(wanted).map_err(Error::io(path))?;
        }
        Ok(Decoded { path: path.to_owned(), file })
    }

    /// Tells whether `content` is the hash of what the picture or video with this number held when it was first decoded; now
    /// is the first time where there was none.
    pub fn is_same(&self, number: usize, content: &blake3::Hash) -> Result<bool> {
        let (mut known, at) = ([0; 8], 8 * number as u64);
        self.file.read_exact_at(&mut known, at).map_err(Error::io(&self.path))?;
        let found = short(content).max(1).to_le_bytes();
        if known == [0; 8] {
            self.file.write_all_at(&found, at).map_err(Error::io(&self.path))?;
            return Ok(true);
        }
        Ok(known == found)
    }
}

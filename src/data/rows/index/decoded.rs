//! Record of the content of image files when a run first decoded them. The file lies next to the index and has 8 bytes
//! per image, in the order of the index: the first bytes of the BLAKE3 hash of the image file, or 0 if it has not been
//! decoded yet.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::rows::files::stamp::short;
use omr_base::error::{Error, Result};

/// The open record. All ranks share the file: the first rank that decodes an image writes its entry, and every rank
/// would write the same value.
pub struct Decoded {
    path: PathBuf,
    file: File,
}

impl Decoded {
    /// Opens the record of `images` images. Creates the file if it does not exist, and extends a truncated one.
    pub fn open(path: &Path, images: usize) -> Result<Decoded> {
        let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = options.map_err(Error::io(path))?;
        let (len, wanted) = (file.metadata().map_err(Error::io(path))?.len(), 8 * images as u64);
        if len < wanted {
            file.set_len(wanted).map_err(Error::io(path))?;
        }
        Ok(Decoded { path: path.to_owned(), file })
    }

    /// Returns true if `content` equals the recorded hash of the image or video with this number. If nothing is
    /// recorded yet, records `content` and returns true.
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

//! Content of files of text: plain, or compressed with gzip.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::bufread::MultiGzDecoder;

use super::paths::has_ending;
use omr_base::error::{Error, Result};
use omr_base::files;

/// Maximum size of unpacked content in proportion to the packed file: a guard against files that only fill the disk.
const RATIO: u64 = 200;
/// Size in bytes up to which unpacked content may exceed this proportion.
const SMALL: u64 = 16 << 20;

/// A file of text.
pub struct Content {
    /// Path of the file.
    pub path: PathBuf,
    /// Content of a file that ends in `.gz`, in a temporary file without a name.
    unpacked: Option<Shared>,
}

impl From<&Path> for Content {
    /// Names a file that is not compressed.
    fn from(path: &Path) -> Content {
        Content { path: path.to_owned(), unpacked: None }
    }
}

impl Content {
    /// Opens a file. A file that ends in `.gz` is unpacked into the folder for temporary files.
    pub fn open(path: &Path) -> Result<Content> {
        let unpacked = has_ending(path, "gz").then(|| unpack(path)).transpose()?;
        Ok(Content { unpacked, ..Content::from(path) })
    }

    /// Returns a reader that begins at the first byte.
    pub fn reader(&self) -> Result<Shared> {
        match &self.unpacked {
            Some(unpacked) => Ok(unpacked.clone()),
            None => files::open(&self.path).and_then(Shared::new).map_err(Error::io(&self.path)),
        }
    }
}

fn unpack(path: &Path) -> Result<Shared> {
    let packed = files::open(path).map_err(Error::io(path))?;
    let most = packed.metadata().map_err(Error::io(path))?.len().saturating_mul(RATIO).max(SMALL);
    let mut unpacked = tempfile::tempfile().map_err(Error::io(std::env::temp_dir()))?;
    let copied = io::copy(&mut MultiGzDecoder::new(BufReader::new(packed)).take(most + 1), &mut unpacked);
    let copied = copied.map_err(|e| match e.raw_os_error() {
        Some(_) => Error::Failed(format!("unpacking {} into {}: {e}", path.display(), std::env::temp_dir().display())),
        None => Error::format(path, format!("an incomplete or damaged gzip file: {e}")),
    })?;
    if copied > most {
        let what = format!("found more than {most} unpacked bytes, expected at most {RATIO} times its size");
        return Err(Error::format(path, what));
    }
    Shared::new(unpacked).map_err(Error::io(path))
}

/// A file that several threads read, each at its own position.
#[derive(Clone, Debug)]
pub struct Shared {
    file: Arc<File>,
    len: u64,
    at: u64,
}

impl Shared {
    /// Creates a reader that begins at the first byte.
    pub fn new(file: File) -> io::Result<Shared> {
        Ok(Shared { len: file.metadata()?.len(), file: Arc::new(file), at: 0 })
    }
}

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl Seek for Shared {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = to.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

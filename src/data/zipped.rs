//! A zip of pictures in place of a folder: members are read where they lie, nothing is unpacked.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::ZipArchive;

use crate::data::stamp::{short, size_and_time};
use crate::error::{Error, Result};
use crate::files;

/// The largest picture that is unpacked, in bytes: a guard against bombs.
const LARGEST: u64 = 1 << 30;

/// An open zip file. Its list of members is in memory, some hundred bytes each.
pub struct Archive {
    /// The file.
    pub path: PathBuf,
    zip: ZipArchive<Shared>,
}

impl Archive {
    /// Opens a zip file. Errors when it is none, or not whole.
    pub fn open(path: &Path) -> Result<Archive> {
        let file = files::open(path).map_err(Error::io(path))?;
        let len = file.metadata().map_err(Error::io(path))?.len();
        let zip = ZipArchive::new(Shared { file: Arc::new(file), len, at: 0 });
        let zip = zip.map_err(|e| Error::format(path, format!("not a whole zip file: {e}")))?;
        Ok(Archive { path: path.to_owned(), zip })
    }

    /// The number of the member `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.zip.index_for_name(name)
    }

    /// A member's content.
    pub fn read(&self, index: usize) -> io::Result<Vec<u8>> {
        let mut zip = self.zip.clone();
        let member = zip.by_index(index).map_err(io::Error::other)?;
        let size = member.size();
        if size > LARGEST {
            return Err(io::Error::other(format!("{size} bytes, more than the {LARGEST} a picture may have")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        member.take(LARGEST).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// A member's bytes once it is unpacked, as the list says.
    pub fn size(&self, index: usize) -> u64 {
        self.zip.clone().by_index_raw(index).map_or(0, |member| member.size())
    }

    /// Tells whether a member is still the one it was, by the zip file's size and time and by its own checksum.
    pub fn stamp(&self, index: usize) -> io::Result<u64> {
        let (len, modified) = size_and_time(&self.path)?;
        let crc = self.zip.clone().by_index_raw(index).map_err(io::Error::other)?.crc32();
        let known = [len.to_le_bytes(), modified.to_le_bytes(), u64::from(crc).to_le_bytes()];
        Ok(short(&blake3::hash(&known.concat())))
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Archive").field(&self.path).finish()
    }
}

impl PartialEq for Archive {
    fn eq(&self, other: &Archive) -> bool {
        self.path == other.path
    }
}

impl Eq for Archive {}

/// A file that several threads read at places of their own.
#[derive(Clone)]
struct Shared {
    file: Arc<File>,
    len: u64,
    at: u64,
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

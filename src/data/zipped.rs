//! A zip of pictures in place of a folder: members are read where they lie, nothing is unpacked.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zip::ZipArchive;
use zip::result::ZipError;

use crate::data::stamp::short;
use crate::error::{Error, Result};
use crate::files;

/// Bytes of an encoded picture, at most.
const LARGEST: u64 = 128 << 20;

/// Errors when an encoded picture has more bytes than it may.
pub fn within(len: u64) -> io::Result<()> {
    match len <= LARGEST {
        true => Ok(()),
        false => Err(io::Error::other(format!("found {len} bytes, expected at most {LARGEST} of a picture"))),
    }
}

/// A member of more bytes than `LARGE` has at most `RATIO` times those that are stored: a guard against bombs.
const LARGE: u64 = 16 << 20;
const RATIO: u64 = 200;
/// Bytes of a member that hold the header of nearly every picture.
const START: u64 = 1 << 16;

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

    /// A member's content. Errors when it is larger than a picture may be, or than the list says.
    pub fn read(&self, index: usize) -> io::Result<Vec<u8>> {
        let mut zip = self.zip.clone();
        let member = zip.by_index(index).map_err(of_system)?;
        let (size, stored) = (member.size(), member.compressed_size());
        within(size)?;
        if size > LARGE.max(stored.saturating_mul(RATIO)) {
            let found = format!("found {size} bytes packed into {stored}");
            return Err(io::Error::other(format!("{found}, expected at most {RATIO} times as many")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        // One byte more tells a wrong size, and has the checksum compared.
        member.take(size + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(io::Error::other(format!("found other than the {size} bytes that the list says"))),
        }
    }

    /// The first bytes of a member's content.
    pub fn start(&self, index: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut zip = self.zip.clone();
        zip.by_index(index).map_err(of_system)?.take(START).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Tells whether a member is still the one it was, by its size and checksum in the list.
    pub fn stamp(&self, index: usize) -> io::Result<u64> {
        let mut zip = self.zip.clone();
        let member = zip.by_index_raw(index).map_err(of_system)?;
        let known = [member.size().to_le_bytes(), u64::from(member.crc32()).to_le_bytes()];
        Ok(short(&blake3::hash(&known.concat())))
    }
}

/// An error of the library, or of the system beneath it.
fn of_system(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        error => io::Error::other(error),
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

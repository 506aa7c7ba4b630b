//! Reads images from a zip file that is used instead of a folder. Members are read in place, and nothing is unpacked to
//! disk.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use super::content::Shared;
use super::stamp::short;
use omr_base::error::{Error, Result};
use omr_base::files;

/// Maximum size of an encoded image in bytes.
const LARGEST: u64 = 128 << 20;

/// Returns an error if an encoded image is too large.
pub fn within(len: u64) -> io::Result<()> {
    let large = || io::Error::other(format!("found {len} bytes, expected an image of at most {LARGEST} bytes"));
    if len <= LARGEST { Ok(()) } else { Err(large()) }
}

/// A member larger than `LARGE` bytes may be at most `RATIO` times its stored size: a guard against zip bombs.
const LARGE: u64 = 16 << 20;
const RATIO: u64 = 200;

/// Number of bytes at the start of a member that contain the header of nearly every image.
const START: u64 = 1 << 16;

/// An open zip file. Its directory is in memory, about a hundred bytes per member.
#[derive(Debug)]
pub struct Archive {
    /// Path of the file.
    pub path: PathBuf,
    zip: ZipArchive<Shared>,
}

impl Archive {
    /// Opens a zip file. Returns an error if it is not a complete zip file.
    pub fn open(path: &Path) -> Result<Archive> {
        let file = files::open(path).map_err(Error::io(path))?;
        let zip = ZipArchive::new(Shared::new(file).map_err(Error::io(path))?);
        let zip = zip.map_err(|e| Error::format(path, format!("an incomplete or damaged zip file: {e}")))?;
        Ok(Archive { path: path.to_owned(), zip })
    }

    /// Returns the number of the member `name`.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.zip.index_for_name(name)
    }

    /// Returns the content of a member. Returns an error if the member is too large for an image, or if its size
    /// differs from the size in the zip directory.
    pub fn read(&self, index: usize) -> io::Result<Vec<u8>> {
        let mut zip = self.zip.clone();
        let member = zip.by_index(index).map_err(of_system)?;
        let (size, stored) = (member.size(), member.compressed_size());
        within(size)?;
        if size > LARGE.max(stored.saturating_mul(RATIO)) {
            let found = format!("found {size} bytes compressed to {stored}");
            return Err(io::Error::other(format!("{found}, expected a compression ratio of at most {RATIO}")));
        }
        let mut bytes = Vec::with_capacity(size as usize);
        // Reading one byte more detects a wrong size and makes the library verify the checksum.
        member.take(size + 1).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(io::Error::other(format!("found a size other than the {size} bytes of the zip directory"))),
        }
    }

    /// Returns the first bytes of a member's content.
    pub fn start(&self, index: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut zip = self.zip.clone();
        zip.by_index(index).map_err(of_system)?.take(START).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Returns a stamp of a member: a hash of its size and checksum in the directory.
    pub fn stamp(&self, index: usize) -> io::Result<u64> {
        let mut zip = self.zip.clone();
        let member = zip.by_index_raw(index).map_err(of_system)?;
        let known = [member.size().to_le_bytes(), u64::from(member.crc32()).to_le_bytes()];
        Ok(short(&blake3::hash(&known.concat())))
    }
}

/// Converts a library error, and extracts the I/O error inside it if there is one.
fn of_system(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl PartialEq for Archive {
    fn eq(&self, other: &Archive) -> bool {
        self.path == other.path
    }
}

impl Eq for Archive {}

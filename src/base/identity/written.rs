//! Hashes of the bytes that were written to files, made by the processes that wrote them. Bytes that are read back show
//! only what is there: where a file system has lost a write, they are zeros or older bytes.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest;
use crate::error::{Error, Result};
use crate::files;

/// A range of a file that a process has written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Written {
    /// Path of the file, relative to the folder.
    pub file: String,
    /// Range of bytes.
    pub range: Range<u64>,
    /// BLAKE3 hash of the written bytes, in hexadecimal.
    pub hash: String,
}

/// What one process has written to a folder.
pub struct Writer {
    /// Name of the process for messages.
    pub name: String,
    /// The ranges that it has written.
    pub written: Vec<Written>,
}

impl Writer {
    /// Returns this process as the only writer of a folder.
    pub fn alone(written: Vec<Written>) -> [Writer; 1] {
        [Writer { name: "omr".to_owned(), written }]
    }
}

/// Hashes the writes to one file. Writes that follow each other in the file become one range.
#[derive(Default)]
pub struct WriteHasher {
    done: Vec<(Range<u64>, String)>,
    range: Range<u64>,
    hasher: blake3::Hasher,
}

impl WriteHasher {
    /// Adds the write of `bytes` at byte `at` of the file.
    pub fn add(&mut self, at: u64, bytes: &[u8]) {
        if at != self.range.end {
            self.close();
            self.range = at..at;
        }
        self.hasher.update(bytes);
        self.range.end += bytes.len() as u64;
    }

    /// Returns the ranges written to the file with the path `file`.
    pub fn finish(mut self, file: &str) -> Vec<Written> {
        self.close();
        self.done.into_iter().map(|(range, hash)| Written { file: file.to_owned(), range, hash }).collect()
    }

    fn close(&mut self) {
        if !self.range.is_empty() {
            self.done.push((self.range.clone(), self.hasher.finalize().to_hex().to_string()));
        }
        self.hasher.reset();
    }
}

/// Returns the BLAKE3 hash of the file `name` in `folder`. If `writers` have written ranges of it, this errors unless
/// the ranges cover the file and it contains what was written. The file is read once.
pub(super) fn hash(folder: &Path, name: &str, writers: &[Writer]) -> Result<String> {
    let all = writers.iter().flat_map(|writer| writer.written.iter().map(move |part| (writer, part)));
    let mut parts: Vec<_> = all.filter(|(_, part)| part.file == name).collect();
    let path = folder.join(name);
    if parts.is_empty() {
        return manifest::hash(&path);
    }
    parts.sort_by_key(|(_, part)| part.range.start);
    let differs = |range: Range<u64>, who: &str| {
        Error::Failed(format!(
            "{}: bytes {} to {} are not those that {who} has written, so the file system has lost a write; nothing was \
             committed",
            path.display(),
            range.start,
            range.end
        ))
    };
    let mut file = files::open(&path).map_err(Error::io(&path))?;
    let (mut whole, mut buffer, mut at) = (blake3::Hasher::new(), vec![0; 1 << 18], 0);
    for (writer, part) in parts {
        if part.range.start != at {
            return Err(differs(at.min(part.range.start)..at.max(part.range.start), "exactly one process"));
        }
        let (mut own, mut rest) = (blake3::Hasher::new(), (&mut file).take(part.range.end - at));
        loop {
            let read = rest.read(&mut buffer).map_err(Error::io(&path))?;
            if read == 0 {
                break;
            }
            own.update(&buffer[..read]);
            whole.update(&buffer[..read]);
        }
        if own.finalize().to_hex().as_str() != part.hash {
            return Err(differs(part.range.clone(), &writer.name));
        }
        at = part.range.end;
    }
    match file.read(&mut buffer).map_err(Error::io(&path))? {
        0 => Ok(whole.finalize().to_hex().to_string()),
        more => Err(differs(at..at + more as u64, "any process")),
    }
}

//! Hashes of the bytes that were written to files, made by the processes that wrote them. A hash of bytes that are read
//! back proves nothing: where a file system has lost a write, they are zeros or older bytes.

use std::io::Read;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};

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

/// A process, with the ranges that it has written to a folder.
pub struct Writer {
    /// Name of the process for messages.
    pub name: String,
    /// Its ranges, in any order.
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

/// Returns the BLAKE3 hash of the file `name` in `folder`, or `None` if none of `writers` has written to it. Errors unless
/// their ranges cover the file and it contains what was written. The file is read once.
pub(super) fn hash(folder: &Path, name: &str, writers: &[Writer]) -> Result<Option<String>> {
    let all = writers.iter().flat_map(|writer| writer.written.iter().map(move |part| (writer, part)));
    let mut parts: Vec<_> = all.filter(|(_, part)| part.file == name).collect();
    let path = folder.join(name);
    if parts.is_empty() {
        return Ok(None);
    }
    parts.sort_by_key(|(_, part)| part.range.start);
    let differs = |Range { start, end }, who: &str| {
        let what = format!("bytes {start} to {end} are not those that {who} has written");
        let place = path.display();
        Error::Failed(format!("{place}: {what}, so the file system has lost a write; nothing was committed"))
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
        0 => Ok(Some(whole.finalize().to_hex().to_string())),
        more => Err(differs(at..at + more as u64, "any process")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;
    use super::*;

    /// Returns the ranges of `parts`, which are positions and bytes, as written to the file `a`.
    fn written(parts: &[(u64, &[u8])]) -> Vec<Written> {
        let mut hasher = WriteHasher::default();
        parts.iter().for_each(|(at, bytes)| hasher.add(*at, bytes));
        hasher.finish("a")
    }

    #[test]
    fn bytes_that_are_not_those_that_were_written_are_named_with_their_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let writers = |first: &[(u64, &[u8])], second: &[(u64, &[u8])]| {
            let writer = |(name, parts)| Writer { name: String::from(name), written: written(parts) };
            [("rank 0", first), ("rank 1", second)].map(writer)
        };
        let error = |writers: &[Writer]| Manifest::write_checked(folder.path(), writers).map_err(|e| e.to_string());
        // Neighbouring writes are one range.
        assert_eq!(
            written(&[(0, b"he"), (2, b"ad"), (8, b"bb")]).iter().map(|part| part.range.clone()).collect::<Vec<_>>(),
            [0..4, 8..10]
        );
        let well = writers(&[(0, b"he"), (2, b"ad"), (8, b"bb")], &[(4, b"aaaa")]);
        std::fs::write(&path, b"headaaaabb").unwrap();
        error(&well).unwrap();
        assert_eq!(
            Manifest::listed(folder.path()).unwrap().unwrap()["a"],
            blake3::hash(b"headaaaabb").to_hex().as_str()
        );
        for (content, wanted) in [
            (&b"head\0\0\0\0bb"[..], "a: bytes 4 to 8 are not those that rank 1 has written"),
            (b"headaaaa\0\0", "a: bytes 8 to 10 are not those that rank 0 has written"),
            (b"\0\0\0\0aaaabb", "a: bytes 0 to 4 are not those that rank 0 has written"),
            (b"headaaaa", "a: bytes 8 to 10 are not those that rank 0 has written"),
            (b"headaaaabbc", "a: bytes 10 to 11 are not those that any process has written"),
        ] {
            std::fs::write(&path, content).unwrap();
            let text = error(&well).unwrap_err();
            assert!(text.contains(wanted), "{text}");
        }
        std::fs::write(&path, b"headaaaabb").unwrap();
        for (second, wanted) in
            [(&[(5, &b"aaa"[..])][..], "bytes 4 to 5"), (&[(2, &b"adaaaa"[..])][..], "bytes 2 to 4")]
        {
            let text = error(&writers(&[(0, b"head"), (8, b"bb")], second)).unwrap_err();
            assert!(text.contains(wanted) && text.contains("exactly one process"), "{text}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(error(&well).unwrap_err().contains("a: no such file"));
    }
}

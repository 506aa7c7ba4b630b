//! Record of a download folder, `.download.jsonl`: the verified files, so that a finished folder is not hashed again,
//! and the last complete listing.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::api::Listed;
use crate::error::{Error, Result};
use crate::files::{self, size_and_time};

/// Name of the record in its folder.
pub(super) const NAME: &str = ".download.jsonl";

/// One line of the record.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Checked(Checked),
    CompleteListing(CompleteListing),
}

/// A file that was verified, with its size and modification time at that moment.
#[derive(Serialize, Deserialize)]
struct Checked {
    path: String,
    size: u64,
    hash: String,
    modified: u64,
}

/// A listing whose files were all downloaded.
#[derive(PartialEq, Serialize, Deserialize)]
pub(super) struct CompleteListing {
    pub(super) repo: String,
    pub(super) revision: String,
    pub(super) commit: String,
    pub(super) include: Vec<String>,
    pub(super) files: Vec<String>,
}

/// The record of a folder.
pub(super) struct Record {
    dir: PathBuf,
    checked: HashMap<String, Checked>,
    /// The last complete listing.
    pub(super) whole: Option<CompleteListing>,
    /// A file that was verified after the last complete listing and is not of it, so that its own listing is not complete.
    pub(super) begun: Option<String>,
}

impl Record {
    /// Reads the record of a folder. Ignores lines that were cut off when a process was killed.
    pub(super) fn read(dir: &Path) -> Record {
        let text = files::read_to_string(dir.join(NAME)).unwrap_or_default();
        let mut record = Record { dir: dir.to_owned(), checked: HashMap::new(), whole: None, begun: None };
        for line in text.lines().filter_map(|line| serde_json::from_str(line).ok()) {
            match line {
                Line::Checked(checked) => {
                    let is_listed = record.whole.as_ref().is_some_and(|whole| whole.files.contains(&checked.path));
                    record.begun = record.begun.or_else(|| (!is_listed).then(|| checked.path.clone()));
                    record.checked.insert(checked.path.clone(), checked);
                }
                Line::CompleteListing(whole) => (record.whole, record.begun) = (Some(whole), None),
            }
        }
        record
    }

    /// Locks the folder for this process. Returns an error if another process holds the lock.
    pub(super) fn lock(dir: &Path) -> Result<File> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let file = open(dir)?;
        file.try_lock().map_err(|error| match error {
            std::fs::TryLockError::Error(e) => Error::io(dir.join(NAME))(e),
            std::fs::TryLockError::WouldBlock => {
                let found = "a folder that another download is writing to";
                Error::input(dir, found, "a separate folder")
            }
        })?;
        Ok(file)
    }

    /// Returns the hash of a verified file, if the file has not changed since.
    pub(super) fn hash(&self, path: &str) -> Option<&str> {
        let checked = self.checked.get(path)?;
        let now = size_and_time(&self.dir.join(path)).ok()?;
        (now == (checked.size, checked.modified)).then_some(checked.hash.as_str())
    }

    /// Records that a file has been verified.
    pub(super) fn note(&self, file: &Listed) -> Result<()> {
        let at = self.dir.join(&file.path);
        let (size, modified) = size_and_time(&at).map_err(Error::io(&at))?;
        let (path, hash) = (file.path.clone(), file.hash.hex().to_owned());
        self.append(&Line::Checked(Checked { path, size, hash, modified }))
    }

    /// Records that all files of a listing are complete.
    pub(super) fn finish(&self, whole: CompleteListing) -> Result<()> {
        if self.whole.as_ref() == Some(&whole) { Ok(()) } else { self.append(&Line::CompleteListing(whole)) }
    }

    fn append(&self, line: &Line) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|e| Error::Failed(format!("{NAME}: {e}")))?;
        // The leading newline ends an incomplete line, if there is one.
        let written = open(&self.dir)?.write_all(format!("\n{text}\n").as_bytes());
        written.map_err(Error::io(self.dir.join(NAME)))
    }
}

fn open(dir: &Path) -> Result<File> {
    files::append(&dir.join(NAME))
}

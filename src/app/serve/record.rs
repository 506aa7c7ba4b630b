//! The record of requests: a line for each request with its answer.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use omr_base::error::{Error, Result};
use omr_runtime::ops::sample::LogprobsMode;

/// A line of the record.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Line {
    /// The id that the client knows.
    pub id: String,
    /// Path of the route.
    pub route: String,
    /// Weights and arithmetic of the answer.
    pub system_fingerprint: String,
    /// The request with its seed. Images are `data:` URLs.
    pub request: Value,
    /// Distribution of the log-probs. Older records have none.
    pub logprobs_mode: Option<LogprobsMode>,
    /// The choices of the answer.
    pub choices: Vec<RecordedChoice>,
}

/// The recorded part of a choice.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct RecordedChoice {
    /// The sampled tokens.
    pub token_ids: Vec<u32>,
    /// BLAKE3 of the bits of all log-probs.
    pub logprobs: String,
}

/// The file to which a server writes its requests.
pub struct Recorder {
    path: PathBuf,
    file: Mutex<File>,
}

impl Recorder {
    /// Opens the file and continues it if it exists. A line that a kill or a full disk has cut is removed.
    pub fn open(path: &Path) -> Result<Recorder> {
        if path.metadata().is_ok_and(|file| !file.is_file()) {
            return Err(Error::input("--record-requests", path.display().to_string(), "a regular file"));
        }
        let options = File::options().create(true).read(true).append(true).open(path);
        let file = options.map_err(Error::io(path))?;
        let mut begin = [0; 6];
        let len = file.read_at(&mut begin, 0).map_err(Error::io(path))?;
        if !b"{\"id\":".starts_with(&begin[..len]) {
            let found = format!("{}, another kind of file", path.display());
            return Err(Error::input("--record-requests", found, "a new file or one that a server has recorded"));
        }
        cut_torn_line(&file).map_err(Error::io(path))?;
        Ok(Recorder { path: path.to_owned(), file: Mutex::new(file) })
    }

    /// Writes a line.
    pub fn add(&self, line: &Line) -> Result<()> {
        let text = serde_json::to_string(line).map_err(|e| Error::format(&self.path, e.to_string()))?;
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // One write for each line, so that lines stay whole.
        let written = file.write_all(format!("{text}\n").as_bytes());
        if written.is_err() {
            // The next line must not follow a part of this one.
            let _ = cut_torn_line(&file);
        }
        written.map_err(Error::io(&self.path))
    }
}

/// Cuts the file after its last complete line.
fn cut_torn_line(file: &File) -> io::Result<()> {
    let (mut end, mut block) = (file.metadata()?.len(), [0; 1 << 16]);
    while end > 0 {
        let read = &mut block[..end.min(1 << 16) as usize];
        end -= read.len() as u64;
        file.read_exact_at(read, end)?;
        if let Some(newline) = read.iter().rposition(|&byte| byte == b'\n') {
            end += newline as u64 + 1;
            break;
        }
    }
    file.set_len(end)
}

//! Answers on disk, a line each, keyed by the content of the request: a run killed anywhere asks nothing twice.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::client::Completion;
use crate::error::{Error, Result};

/// The cache of one run directory.
pub struct Cache {
    path: PathBuf,
    file: File,
    known: Arc<HashMap<String, Completion>>,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    key: std::borrow::Cow<'a, str>,
    label: std::borrow::Cow<'a, str>,
    #[serde(flatten)]
    completion: std::borrow::Cow<'a, Completion>,
}

impl Cache {
    /// Opens or makes a cache. A last line that a kill cut short is dropped; any other broken line is an error.
    pub fn open(path: &Path) -> Result<Cache> {
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(Error::io(path))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(Error::io(path))?;
        let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
        file.set_len(whole as u64).map_err(Error::io(path))?;
        file.seek(SeekFrom::End(0)).map_err(Error::io(path))?;
        let mut known = HashMap::new();
        for (i, line) in bytes[..whole].split(|&b| b == b'\n').enumerate().filter(|(_, l)| !l.is_empty()) {
            let line: Line = serde_json::from_slice(line)
                .map_err(|e| Error::format(path, format!("line {}: {e}; remove it to ask again", i + 1)))?;
            known.insert(line.key.into_owned(), line.completion.into_owned());
        }
        Ok(Cache { path: path.to_owned(), file, known: Arc::new(known) })
    }

    /// The key of a request body.
    pub fn key(body: &str) -> String {
        blake3::hash(body.as_bytes()).to_hex()[..32].to_owned()
    }

    /// What was known when the cache was opened.
    pub fn known(&self) -> Arc<HashMap<String, Completion>> {
        self.known.clone()
    }

    /// Appends an answer; it is with the operating system when this returns.
    pub fn add(&mut self, key: &str, label: &str, completion: &Completion) -> Result<()> {
        use std::borrow::Cow::Borrowed;
        let line = Line { key: Borrowed(key), label: Borrowed(label), completion: Borrowed(completion) };
        let mut text = serde_json::to_string(&line).map_err(|e| Error::Failed(format!("cache: {e}")))?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(Error::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_dropped_and_the_rest_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.jsonl");
        let completion =
            Completion { text: "a\nb".into(), finish_reason: "stop".into(), prompt_tokens: 1, completion_tokens: 2 };
        let mut cache = Cache::open(&path).unwrap();
        cache.add("k1", "one", &completion).unwrap();
        cache.add("k2", "two", &completion).unwrap();
        drop(cache);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 5]).unwrap();
        let mut cache = Cache::open(&path).unwrap();
        assert_eq!(cache.known().len(), 1);
        assert_eq!(cache.known()["k1"], completion);
        cache.add("k2", "two", &completion).unwrap();
        assert_eq!(Cache::open(&path).unwrap().known().len(), 2);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(Cache::open(&path).is_err_and(|e| e.to_string().contains("line 1")));
    }
}

//! Verdicts on disk, a file each: written beside its place and renamed, so that a reader, another process or a run
//! killed at any point sees a whole verdict or none.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Request;
use crate::error::{Error, Result};

/// A folder of verdicts.
pub(super) struct Cache {
    dir: PathBuf,
}

/// A verdict with what it is about.
#[derive(Serialize, Deserialize, PartialEq)]
struct Entry {
    model: String,
    question: Option<String>,
    ground_truth: String,
    prediction: String,
    verdict: i64,
}

impl Cache {
    /// Opens or makes the folder.
    pub(super) fn open(dir: &Path) -> Result<Cache> {
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        Ok(Cache { dir: dir.to_owned() })
    }

    /// The verdict on `request`, 0 or 1. A file that is broken or about something else is none: it is asked again.
    pub(super) fn get(&self, key: &str, model: &str, request: &Request<'_>) -> Option<i64> {
        let entry: Entry = serde_json::from_slice(&std::fs::read(self.path(key)).ok()?).ok()?;
        let verdict = entry.verdict;
        (entry == Entry::new(model, request, verdict) && [0, 1].contains(&verdict)).then_some(verdict)
    }

    /// Keeps a verdict.
    pub(super) fn put(&self, key: &str, model: &str, request: &Request<'_>, verdict: i64) -> Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.dir);
        let text = serde_json::to_string(&Entry::new(model, request, verdict));
        let text = text.map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?;
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io(folder))?;
        file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all()).map_err(Error::io(&path))?;
        file.persist(&path).map(drop).map_err(|e| Error::io(&path)(e.error))
    }

    /// Two hundred and fifty-six folders, so that none grows without measure.
    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(&key[..2]).join(format!("{}.json", &key[2..]))
    }
}

impl Entry {
    fn new(model: &str, request: &Request<'_>, verdict: i64) -> Entry {
        Entry {
            model: model.to_owned(),
            question: request.question.map(str::to_owned),
            ground_truth: request.ground_truth.to_owned(),
            prediction: request.prediction.to_owned(),
            verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_found_again_and_a_broken_or_foreign_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let request = Request { question: Some("q"), ground_truth: "g", prediction: "p", full_response: false };
        let key = "0123456789abcdef";
        assert_eq!(cache.get(key, "m", &request), None);
        cache.put(key, "m", &request, 1).unwrap();
        assert_eq!(cache.get(key, "m", &request), Some(1));
        assert_eq!(cache.get(key, "another model", &request), None);
        assert_eq!(cache.get(key, "m", &Request { question: None, ..request }), None);
        let path = cache.path(key);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(cache.get(key, "m", &request), None);
        cache.put(key, "m", &request, 0).unwrap();
        assert_eq!(cache.get(key, "m", &request), Some(0));
        // Nothing but the verdict is left.
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn many_writers_of_one_verdict_leave_one_whole_file() {
        let dir = tempfile::tempdir().unwrap();
        let request = Request { question: None, ground_truth: "g", prediction: "p", full_response: true };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let cache = Cache::open(dir.path()).unwrap();
                    for _ in 0..20 {
                        cache.put("aa01", "m", &request, 1).unwrap();
                        assert_eq!(cache.get("aa01", "m", &request), Some(1));
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(dir.path().join("aa")).unwrap().count(), 1);
    }
}

//! The answers to a file of questions on disk: a line of `OUT.partial` when an answer is finished, and `OUT` with the
//! answers in the order of the questions at the end. `OUT.settings` says what the answers depend on, so that a
//! later command continues only with the same questions, model and settings.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use omr_base::error::{Error, Result};
use omr_base::files::{self, Output};
use omr_base::identity;

/// Text between the head of a line and the answer.
const ANSWER: &[u8] = b",\"answer\":";

/// Name in the settings of the hash of the finished answers.
const CONTENT: &str = "content of --out";

/// A line of the file of finished answers.
#[derive(Deserialize)]
struct Finished {
    line: u64,
    skipped: bool,
    /// Hash of the other fields, see [`hash_of`].
    blake3: String,
    #[serde(rename = "answer")]
    _answer: IgnoredAny,
}

/// Returns the hash of a line of finished answers.
fn hash_of(line: u64, skipped: bool, answer: &[u8]) -> String {
    let head = format!("{line} {skipped} ");
    blake3::hash(&[head.as_bytes(), answer].concat()).to_hex()[..32].to_owned()
}

/// Returns the answer in a line of finished answers.
fn answer_of(line: &[u8]) -> &[u8] {
    let start = line.windows(ANSWER.len()).position(|at| at == ANSWER).unwrap_or_default() + ANSWER.len();
    line.get(start..line.len().saturating_sub(b"}\n".len())).unwrap_or_default()
}

/// The finished answers to a file of questions.
pub struct Journal {
    out: PathBuf,
    file: File,
    /// Folders that were created for the answers.
    made: Vec<PathBuf>,
    /// Length of the file in bytes.
    end: u64,
    /// Position and length of each answer in the file, by the number of the question's line.
    answers: BTreeMap<u64, (u64, usize)>,
    skipped: u64,
    settings: Map<String, Value>,
    /// The settings of the first start, if there are answers.
    was: Option<Map<String, Value>>,
    /// Time of the first start in seconds since 1970.
    pub created: u64,
    /// Numbers of answered and skipped lines, if every line has its place in `out`.
    pub finished: Option<[u64; 2]>,
}

impl Journal {
    /// Opens the answers at `out` to continue them. `settings` is everything that the answers depend on, by name.
    /// Errors if there are answers with other settings, if `out` is the file `questions` or was not written by this
    /// command, or if another process is writing it. With `fresh`, earlier answers are moved aside. With
    /// `overwrite`, a file that this command did not write is replaced at the end.
    pub fn open(
        out: &Path,
        questions: &Path,
        settings: Map<String, Value>,
        fresh: bool,
        overwrite: bool,
    ) -> Result<Journal> {
        let out = &Output::regular(out, true, &[questions])?;
        let [path, about] = [beside(out, ".partial"), beside(out, ".settings")];
        let is_foreign = |file: &&&PathBuf| file.metadata().is_ok_and(|of| **file == out || of.len() > 0);
        let is_allowed = fresh || overwrite || about.exists();
        if let Some(foreign) = [out, &path].iter().find(is_foreign).filter(|_| !is_allowed) {
            let hint = "--overwrite replaces the file, and --fresh moves it aside";
            let found = "a file that this command did not write";
            return Err(Error::input_hint(foreign, found, "no file, or earlier answers", hint));
        }
        let made = files::make_folder(files::parent(out))?;
        let mut file = locked(&path)?;
        if fresh {
            if file.metadata().map_err(Error::io(&path))?.len() == 0 {
                fs::remove_file(&path).map_err(Error::io(&path))?;
            }
            [out, &path, &about].into_iter().try_for_each(|old| files::move_aside(old).map(drop))?;
            file = locked(&path)?;
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (out, answers) = (out.to_owned(), BTreeMap::new());
        let mut journal =
            Journal { out, file, made, end: 0, answers, skipped: 0, settings, was: None, created, finished: None };
        if let Some(was) = files::json::read_if_exists::<Map<String, Value>>(&about)? {
            journal.load(&path)?;
            let count = |name: &str| was.get("lines")?.get(name)?.as_u64();
            let counts = count("answered").zip(count("skipped")).filter(|_| journal.out.exists());
            if counts.is_some() || !journal.answers.is_empty() {
                journal.compare(&was)?;
                journal.created = was.get("created").and_then(Value::as_u64).unwrap_or(created);
            }
            if let (Some(_), Some(of)) = (counts, was.get(CONTENT))
                && *of != identity::hash(&journal.out)?
            {
                let found = "other answers than this command wrote";
                let hint = "restore the file, or use --fresh, which moves it aside";
                return Err(Error::input_hint(&journal.out, found, "the finished answers", hint));
            }
            journal.finished = counts.map(<[u64; 2]>::from);
            journal.was = Some(was).filter(|_| !journal.answers.is_empty());
        }
        // Answers without settings, or after a broken line, cannot be used.
        journal.file.set_len(journal.end).map_err(Error::io(&path))?;
        Ok(journal)
    }

    /// Reads the answers up to the first line that is not whole.
    fn load(&mut self, path: &Path) -> Result<()> {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(Error::io(path))?);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).map_err(Error::io(path))? > 0 {
            match serde_json::from_slice::<Finished>(&line) {
                Ok(finished)
                    if line.ends_with(b"}\n")
                        && finished.blake3 == hash_of(finished.line, finished.skipped, answer_of(&line)) =>
                {
                    self.insert(finished.line, finished.skipped, line.len());
                }
                _ => break,
            }
            line.clear();
        }
        Ok(())
    }

    fn insert(&mut self, line: u64, skipped: bool, len: usize) {
        self.answers.insert(line, (self.end, len));
        self.skipped += u64::from(skipped);
        self.end += len as u64;
    }

    /// Errors if there are answers that were made with other settings.
    fn compare(&self, was: &Map<String, Value>) -> Result<()> {
        let null = Value::Null;
        let differs = |name: &&String| was.get(*name).unwrap_or(&null) != &self.settings[*name];
        let differ: Vec<&String> = self.settings.keys().filter(differs).collect();
        if differ.is_empty() {
            return Ok(());
        }
        let one =
            |name: &&String| format!("{name} was {} and is {}", was.get(*name).unwrap_or(&null), self.settings[*name]);
        let list: Vec<String> = differ.iter().map(one).collect();
        let found = format!("answers that were made otherwise: {}", list.join("; "));
        let expected = "the questions, model and settings of the first start";
        let hint = "choose another --out, or use --fresh, which moves the earlier answers aside";
        Err(Error::input_hint(&self.out, found, expected, hint))
    }

    /// Adds another setting on which the answers depend. Errors if there are answers that were made with another value.
    pub fn depends_on(&mut self, name: &str, value: String) -> Result<()> {
        self.settings.insert(name.to_owned(), json!(value));
        // Older versions did not record it.
        self.was.as_ref().filter(|was| was.contains_key(name)).map_or(Ok(()), |was| self.compare(was))
    }

    /// Writes the settings, with `more` if the answers are finished.
    fn describe(&self, more: Map<String, Value>) -> Result<()> {
        let mut about = self.settings.clone();
        about.insert("created".to_owned(), json!(self.created));
        about.extend(more);
        let text = format!("{:#}\n", Value::Object(about));
        files::write(beside(&self.out, ".settings"), text.as_bytes())
    }

    /// Returns true if the line with this number has an answer.
    pub fn has(&self, line: u64) -> bool {
        self.answers.contains_key(&line)
    }

    /// Returns the numbers of answered and skipped lines.
    pub fn counts(&self) -> [u64; 2] {
        [self.answers.len() as u64 - self.skipped, self.skipped]
    }

    /// Adds the answer to the line with this number, without waiting for the disk. `skipped` is true if it is an error.
    pub fn add(&mut self, line: u64, skipped: bool, answer: &Value) -> Result<()> {
        if self.answers.is_empty() {
            self.describe(Map::new())?;
        }
        let answer = answer.to_string();
        let hash = hash_of(line, skipped, answer.as_bytes());
        let text = format!("{{\"line\":{line},\"skipped\":{skipped},\"blake3\":\"{hash}\",\"answer\":{answer}}}\n");
        // One write for each answer, so that a kill leaves at most one line that is not whole.
        self.file.write_all(text.as_bytes()).map_err(Error::io(beside(&self.out, ".partial")))?;
        self.insert(line, skipped, text.len());
        Ok(())
    }

    /// Writes all answers in the order of their lines and removes the file of finished answers.
    pub fn finish(mut self) -> Result<[u64; 2]> {
        let counts = self.counts();
        files::write_with(&self.out, |w| {
            let mut line = Vec::new();
            for &(position, len) in self.answers.values() {
                line.resize(len, 0);
                let read = self.file.read_exact_at(&mut line, position);
                let written = read.and_then(|()| w.write_all(answer_of(&line))).and_then(|()| w.write_all(b"\n"));
                written.map_err(Error::io(&self.out))?;
            }
            Ok(())
        })?;
        let lines = json!({"answered": counts[0], "skipped": counts[1]});
        let content = json!(identity::hash(&self.out)?);
        self.describe([("lines".to_owned(), lines), (CONTENT.to_owned(), content)].into_iter().collect())?;
        self.finished = Some(counts);
        Ok(counts)
    }
}

impl Drop for Journal {
    /// Removes the file of finished answers if it is empty or no longer needed. A job without answers leaves nothing.
    fn drop(&mut self) {
        if self.finished.is_some() || self.file.metadata().is_ok_and(|file| file.len() == 0) {
            let _ = fs::remove_file(beside(&self.out, ".partial"));
        }
        // Fails if there are answers.
        self.made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

/// Opens the file of finished answers, which no other process may use at the same time.
fn locked(path: &Path) -> Result<File> {
    let file = files::append(path)?;
    // A file system without locks is used without them.
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK) {
        let found = "a file that another omr process is writing";
        return Err(Error::input(path, found, "a separate --out for each process"));
    }
    Ok(file)
}

/// Returns true if a command wrote answers, or a part of them, to `out`.
pub fn is_answered(out: &Path) -> bool {
    beside(out, ".settings").exists()
}

/// Returns the path of a file that belongs to the answers at `out`.
fn beside(out: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(out);
    name.push(suffix);
    PathBuf::from(name)
}

//! The answer store: what teachers, judges and measured models said, kept by content in one SQLite file a run, so that
//! nothing is asked twice. An answer is there, whole, from the moment [`Store::put`] returns, whenever the process is
//! killed.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};

use crate::client::Completion;
use crate::error::{Error, Result};

/// The store of a run, in its directory.
pub const FILE: &str = "answers.sqlite";

/// Which layout of the table this is: `user_version` of the file. Rows of layout 1 had no hash; they get one when a file is
/// first opened by this version.
const LAYOUT: i64 = 2;

/// How long a process waits for another that writes to the same shared store.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the tasks of a scorer that is gone may hold a run's store.
const CLOSING: Duration = Duration::from_secs(30);

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS answers (
    key BLOB NOT NULL PRIMARY KEY, label TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, blake3 BLOB NOT NULL DEFAULT x'') STRICT";
const HASHES: &str = "ALTER TABLE answers ADD COLUMN blake3 BLOB NOT NULL DEFAULT x''";

/// A row, as [`entry`] reads it.
const ENTRY: &str = "SELECT key, label, text, finish_reason, prompt_tokens, completion_tokens, blake3 FROM answers";

/// What an answer is to: a hash of who was asked, what, and how.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of what `who` (a server's model, or the content of a model directory) says to `what` (messages, pictures
    /// by hash, or a whole request) when asked as `how` says (sampling parameters, seed, number of the sample).
    pub fn new(who: &str, what: &[u8], how: &str) -> Key {
        let mut hasher = blake3::Hasher::new();
        for part in [who.as_bytes(), what, how.as_bytes()] {
            // With its length, so that no two triples run together into the same bytes.
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        Key(*hasher.finalize().as_bytes())
    }
}

/// Answers by key, in one file. All threads of a process share it by reference.
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// What the run had before its ranks began, for reading.
    before: Option<Box<Store>>,
}

impl Store {
    /// Opens or makes the file, for this process alone: while it is open, another that opens it gets an error.
    pub fn open(path: &Path) -> Result<Store> {
        Store::locked(path, "EXCLUSIVE", Duration::ZERO)
    }

    /// The same for a file that several processes of one machine use at once; each waits for the others' writes.
    pub fn shared(path: &Path) -> Result<Store> {
        Store::locked(path, "NORMAL", PATIENCE)
    }

    /// The store of the run directory `dir`, with what the shards of the run answered taken in; their files are removed
    /// then. Errors when a shard is still at work.
    pub fn of_run(dir: &Path) -> Result<Store> {
        let store = Store::open(&dir.join(FILE))?;
        for shard in shards(dir)? {
            store.merge(&shard)?;
            std::fs::remove_file(&shard).map_err(Error::io(&shard))?;
        }
        Ok(store)
    }

    /// The part of rank `i` of `n` of the run in the directory `dir`; what the run has already is found in it, too. Rank 0 is to
    /// have called [`gather`] first.
    pub fn of_rank(dir: &Path, i: usize, n: usize) -> Result<Store> {
        let (run, part) = (dir.join(FILE), Store::open(&shard(dir, i, n))?);
        if !run.exists() {
            return Ok(part);
        }
        // No rank writes to it, and not all file systems that ranks share have locks.
        let escaped = run.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let before = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags);
        let connection = Mutex::new(before.map_err(|error| failed(&run, &error))?);
        Ok(Store { before: Some(Box::new(Store { path: run, connection, before: None })), ..part })
    }

    fn locked(path: &Path, mode: &str, patience: Duration) -> Result<Store> {
        if path.is_dir() {
            return Err(Error::input(
                path.display().to_string(),
                "a folder",
                "a file of answers, or a name that is free",
            ));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.map_or(Ok(()), |parent| std::fs::create_dir_all(parent).map_err(Error::io(parent)))?;
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(patience)?;
            // A commit is in the log, past any kill of the process, when it returns; only a power cut can lose the last.
            connection.execute_batch(&format!(
                "PRAGMA locking_mode = {mode}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"
            ))?;
            // The lock is taken by the first write, and kept in exclusive mode.
            connection.execute_batch("BEGIN IMMEDIATE")?;
            let layout = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
            match layout {
                0 => connection.execute_batch(SCHEMA)?,
                1 => add_hashes(&connection)?,
                _ => {}
            }
            if layout < LAYOUT {
                connection.pragma_update(None, "user_version", LAYOUT)?;
            }
            connection.execute_batch("COMMIT")?;
            Ok((connection, layout))
        };
        let (connection, layout) = open().map_err(|error| failed(path, &error))?;
        if !(0..=LAYOUT).contains(&layout) {
            return Err(Error::format(path, format!("answers in layout {layout}; this version reads layout {LAYOUT}")));
        }
        Ok(Store { path: path.to_owned(), connection: Mutex::new(connection), before: None })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The answer to `key`, where there is one. Errors where a row is another than was kept.
    pub fn get(&self, key: &Key) -> Result<Option<Completion>> {
        let found = self.lock().query_row(&format!("{ENTRY} WHERE key = ?1"), [&key.0[..]], entry).optional();
        match found.map_err(|error| failed(&self.path, &error))? {
            Some((_, answer, [is, was])) if is == was => Ok(Some(answer)),
            Some((label, ..)) => {
                let what = format!("the answer to {label}: its content is not what its hash says");
                Err(Error::format(&self.path, format!("{what}; remove the file to have its answers asked for again")))
            }
            None => self.before.as_ref().map_or(Ok(None), |before| before.get(key)),
        }
    }

    /// Whether there is an answer to `key`.
    pub fn has(&self, key: &Key) -> Result<bool> {
        let found = self.lock().query_row("SELECT 1 FROM answers WHERE key = ?1", [&key.0[..]], |_| Ok(())).optional();
        match found.map_err(|error| failed(&self.path, &error))? {
            Some(()) => Ok(true),
            None => self.before.as_ref().map_or(Ok(false), |before| before.has(key)),
        }
    }

    /// Keeps an answer; the first to a key stays. `label` says for people what it is to.
    pub fn put(&self, key: &Key, label: &str, answer: &Completion) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO answers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let Completion { text, finish_reason, prompt_tokens, completion_tokens } = answer;
        let (counts, hash) = ([*prompt_tokens as i64, *completion_tokens as i64], hash(&key.0, label, answer));
        let values = params![&key.0[..], label, text, finish_reason, counts[0], counts[1], hash];
        self.lock().execute(sql, values).map(drop).map_err(|error| failed(&self.path, &error))
    }

    /// Takes in the answers of another store that are not here, all or none. How many those were.
    pub fn merge(&self, other: &Path) -> Result<u64> {
        // Opening it says in its own name whether it is one, and whether another process is at work on it; closing
        // it brings its log into the file.
        std::fs::metadata(other).map_err(Error::io(other))?;
        drop(Store::open(other)?);
        let connection = self.lock();
        let attach = connection.execute("ATTACH DATABASE ?1 AS other", [other.to_string_lossy()]);
        attach.map_err(|error| failed(other, &error))?;
        let merged = connection.execute("INSERT OR IGNORE INTO main.answers SELECT * FROM other.answers", []);
        let detached = connection.execute_batch("DETACH DATABASE other");
        let merged = merged.and_then(|n| detached.map(|()| n as u64));
        merged.map_err(|error| failed(&self.path, &error))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        locked(&self.connection)
    }
}

/// Label and answer of a row of [`ENTRY`], the hash of its content, and the hash it was kept with.
fn entry(row: &Row) -> rusqlite::Result<(String, Completion, [Vec<u8>; 2])> {
    // A byte that makes no text makes another hash, too.
    let text = |i| Ok::<_, rusqlite::Error>(String::from_utf8_lossy(row.get_ref(i)?.as_bytes()?).into_owned());
    let (key, label, kept) = (row.get::<_, Vec<u8>>(0)?, text(1)?, row.get(6)?);
    let [prompt_tokens, completion_tokens] = [row.get::<_, i64>(4)? as u64, row.get::<_, i64>(5)? as u64];
    let answer = Completion { text: text(2)?, finish_reason: text(3)?, prompt_tokens, completion_tokens };
    let hash = hash(&key, &label, &answer);
    Ok((label, answer, [hash, kept]))
}

/// BLAKE3 of a row's content.
fn hash(key: &[u8], label: &str, answer: &Completion) -> Vec<u8> {
    let counts = [answer.prompt_tokens.to_le_bytes(), answer.completion_tokens.to_le_bytes()].concat();
    let mut hasher = blake3::Hasher::new();
    for part in [key, label.as_bytes(), answer.text.as_bytes(), answer.finish_reason.as_bytes(), &counts] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize().as_bytes().to_vec()
}

/// Gives the rows of layout 1 their hashes.
fn add_hashes(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(HASHES)?;
    let mut rows = connection.prepare(ENTRY)?;
    let hashes = rows.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, entry(row)?.2)))?;
    let hashes: Vec<(Vec<u8>, [Vec<u8>; 2])> = hashes.collect::<rusqlite::Result<_>>()?;
    let mut update = connection.prepare("UPDATE answers SET blake3 = ?2 WHERE key = ?1")?;
    hashes.iter().try_for_each(|(key, [hash, _])| update.execute(params![key, hash]).map(drop))
}

fn locked(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run's store, opened when it is first used: until then the run's directory is not touched. Whoever asks in one run
/// shares it.
pub struct RunStore {
    dir: PathBuf,
    /// Which of how many processes of the run opens it, where there are several.
    rank: Option<(usize, usize)>,
    opening: Mutex<()>,
    store: OnceLock<Store>,
}

impl RunStore {
    /// [`Store::of_run`] of `dir`.
    pub fn new(dir: &Path) -> Arc<RunStore> {
        Arc::new(RunStore { dir: dir.to_owned(), rank: None, opening: Mutex::default(), store: OnceLock::new() })
    }

    /// That of rank `i` of `n` in the run directory `dir`: of one rank the run's, else [`Store::of_rank`].
    pub fn of_rank(dir: &Path, i: usize, n: usize) -> Arc<RunStore> {
        let rank = (n > 1).then_some((i, n));
        Arc::new(RunStore { dir: dir.to_owned(), rank, opening: Mutex::default(), store: OnceLock::new() })
    }

    /// Waits until nobody else has it, as a judge's tasks do for a moment after its scorer is gone, and closes it. Errors
    /// where somebody keeps it.
    pub fn close(mut self: Arc<RunStore>) -> Result<()> {
        let began = Instant::now();
        while let Err(shared) = Arc::try_unwrap(self) {
            if began.elapsed() > CLOSING {
                let path = shared.rank.map_or_else(|| shared.dir.join(FILE), |(i, n)| shard(&shared.dir, i, n));
                let waited = CLOSING.as_secs();
                return Err(Error::Failed(format!("{}: still in use after {waited} s", path.display())));
            }
            std::thread::sleep(Duration::from_millis(1));
            self = shared;
        }
        Ok(())
    }

    /// A store that is open.
    pub fn of(store: Store) -> Arc<RunStore> {
        Arc::new(RunStore { dir: store.path.clone(), rank: None, opening: Mutex::default(), store: store.into() })
    }

    /// The store. Errors, the first time, where it cannot be opened.
    pub fn get(&self) -> Result<&Store> {
        let _one = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        match self.store.get() {
            Some(store) => Ok(store),
            None => {
                let of_rank = |(i, n)| Store::of_rank(&self.dir, i, n);
                self.rank
                    .map_or_else(|| Store::of_run(&self.dir), of_rank)
                    .map(|store| self.store.get_or_init(|| store))
            }
        }
    }
}

/// Takes what ranks or shards of the run in `dir` answered into its store, so that ranks of any number find it: before they open
/// theirs, rank 0 does this.
pub fn gather(dir: &Path) -> Result<()> {
    if dir.join(FILE).exists() || !shards(dir)?.is_empty() { Store::of_run(dir).map(drop) } else { Ok(()) }
}

/// The store of shard `i` of `n`, from 0, in a run directory.
pub fn shard(dir: &Path, i: usize, n: usize) -> PathBuf {
    dir.join(format!("answers-{i}-of-{n}.sqlite"))
}

/// The stores of shards there are in a run directory, in the order of their names.
pub fn shards(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let numbers = name.strip_prefix("answers-").and_then(|rest| rest.strip_suffix(".sqlite"));
        let numbers = numbers.and_then(|rest| rest.split_once("-of-"));
        if numbers.is_some_and(|(i, n)| i.parse::<usize>().is_ok() && n.parse::<usize>().is_ok()) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            let found = "a store of answers that another process has open";
            Error::input(path.display().to_string(), found, "one process at a time")
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::format(path, format!("no store of answers, or a broken one ({error})"))
        }
        _ => Error::Failed(format!("{}: {error}", path.display())),
    }
}

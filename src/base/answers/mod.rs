//! The answer store: answers of teachers, judges and measured models, indexed by a hash of the request, in one SQLite
//! file per run. No request is sent twice. An answer is stored completely when [`Store::put`] returns, even if the
//! process is killed afterwards.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};

use crate::client::Completion;
use crate::error::{Error, Result};
use crate::files;

/// File name of a run's store in the run directory.
pub const FILE: &str = "answers.sqlite";

/// Version of the table layout, stored as `user_version` of the file. Rows of layout 1 had no hash; the hashes are
/// added when this version first opens the file.
const LAYOUT: i64 = 2;

/// Maximum time that a process waits for another one that writes to the same shared store.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two attempts to open a shared store.
const PAUSE: Duration = Duration::from_millis(10);

/// Maximum time that the tasks of a closed scorer may still hold a run's store.
const CLOSING: Duration = Duration::from_secs(30);

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS answers (
    key BLOB NOT NULL PRIMARY KEY, label TEXT NOT NULL, text TEXT NOT NULL, finish_reason TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, blake3 BLOB NOT NULL DEFAULT x'') STRICT";
const HASHES: &str = "ALTER TABLE answers ADD COLUMN blake3 BLOB NOT NULL DEFAULT x''";

/// Query for a row, as [`entry`] reads it.
const ENTRY: &str = "SELECT key, label, text, finish_reason, prompt_tokens, completion_tokens, blake3 FROM answers";

/// Key of an answer: a hash of who was asked, the request and the sampling settings.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key([u8; 32]);

impl Key {
    /// Creates the key of an answer. `who` is a server's model or the content of a model directory. `what` is the
    /// messages with hashes of the images, or an entire request. `how` contains the sampling parameters, the seed and
    /// the number of the sample.
    pub fn new(who: &str, what: &[u8], how: &str) -> Key {
        Key(*hash_of(&[who.as_bytes(), what, how.as_bytes()]).as_bytes())
    }
}

/// Answers by key, in one file. All threads of a process share the store by reference.
pub struct Store {
    path: PathBuf,
    connection: Mutex<Connection>,
    /// Store of the run before its ranks started, opened for reading.
    before: Option<Box<Store>>,
}

impl Store {
    /// Opens or creates the file exclusively. While it is open, any other process that opens it receives an error.
    pub fn open(path: &Path) -> Result<Store> {
        Store::locked(path, "EXCLUSIVE", Duration::ZERO)
    }

    /// Opens or creates a file that several processes of one machine use at once. Each process waits for the writes of
    /// the others.
    pub fn shared(path: &Path) -> Result<Store> {
        Store::locked(path, "NORMAL", PATIENCE)
    }

    /// Opens the store of the run directory `dir`. Merges the stores of the run's shards into it and removes their
    /// files. Returns an error if a shard is still running.
    pub fn of_run(dir: &Path) -> Result<Store> {
        let store = Store::open(&dir.join(FILE))?;
        for shard in shards(dir)? {
            store.merge(&shard)?;
            std::fs::remove_file(&shard).map_err(Error::io(&shard))?;
        }
        Ok(store)
    }

    /// Opens the store of rank `i` of `n` of the run in the directory `dir`. Lookups also find the answers that the run
    /// already has. Rank 0 must have called [`gather`] before.
    pub fn of_rank(dir: &Path, i: usize, n: usize) -> Result<Store> {
        let (run, part) = (dir.join(FILE), Store::open(&shard(dir, i, n))?);
        if !run.exists() {
            return Ok(part);
        }
        // Opened as immutable, because no rank writes to it, and not every file system that ranks share supports locks.
        let escaped = run.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let before = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags);
        let connection = Mutex::new(before.map_err(|error| failed(&run, &error))?);
        Ok(Store { before: Some(Box::new(Store { path: run, connection, before: None })), ..part })
    }

    fn locked(path: &Path, mode: &str, patience: Duration) -> Result<Store> {
        if path.exists() && !path.is_file() {
            return Err(Error::input(path, "a folder, a pipe or a device", "a file of answers, or an unused name"));
        }
        let parent = files::parent(path);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        // SQLite refuses other files, but overwrites those that are smaller than its smallest page.
        if path.metadata().is_ok_and(|file| (1..512).contains(&file.len())) {
            return Err(Error::input(
                path,
                "a file that is no SQLite database",
                "a file of answers, or an unused name",
            ));
        }
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let connection = Connection::open(path)?;
            connection.busy_timeout(patience)?;
            // When a commit returns, it is in the log and survives a kill of the process. Only a power failure can lose
            // the last commits.
            connection.execute_batch(&format!(
                "PRAGMA locking_mode = {mode}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"
            ))?;
            // The first write takes the lock. In exclusive mode the lock is held until the store is closed.
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
        let begun = Instant::now();
        let opened = loop {
            match open() {
                // SQLite waits for other writers, but not for a process that changes the journal mode of a new file.
                Err(error) if is_busy(&error) && begun.elapsed() < patience => std::thread::sleep(PAUSE),
                opened => break opened,
            }
        };
        let (connection, layout) = opened.map_err(|error| failed(path, &error))?;
        if !(0..=LAYOUT).contains(&layout) {
            let what = format!("answers in layout {layout}; this version of omr reads layout {LAYOUT}");
            return Err(Error::format(path, what));
        }
        Ok(Store { path: path.to_owned(), connection: Mutex::new(connection), before: None })
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the answer for `key`, if there is one. Returns an error if the row's content does not match its hash.
    pub fn get(&self, key: &Key) -> Result<Option<Completion>> {
        let found = self.lock().query_row(&format!("{ENTRY} WHERE key = ?1"), [&key.0[..]], entry).optional();
        match found.map_err(|error| failed(&self.path, &error))? {
            Some((_, answer, [is, was])) if is == was => Ok(Some(answer)),
            Some((label, ..)) => {
                let what = format!("the answer to {label}: its content does not match its hash");
                Err(Error::format(&self.path, format!("{what}; delete the file, and omr requests the answers again")))
            }
            None => self.before.as_ref().map_or(Ok(None), |before| before.get(key)),
        }
    }

    /// Returns true if there is an answer for `key`.
    pub fn has(&self, key: &Key) -> Result<bool> {
        let found = self.lock().query_row("SELECT 1 FROM answers WHERE key = ?1", [&key.0[..]], |_| Ok(())).optional();
        match found.map_err(|error| failed(&self.path, &error))? {
            Some(()) => Ok(true),
            None => self.before.as_ref().map_or(Ok(false), |before| before.has(key)),
        }
    }

    /// Stores an answer. If the key already has one, the existing answer stays. `label` describes the request for
    /// people.
    pub fn put(&self, key: &Key, label: &str, answer: &Completion) -> Result<()> {
        let sql = "INSERT OR IGNORE INTO answers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let Completion { text, finish_reason, prompt_tokens, completion_tokens } = answer;
        let (counts, hash) = ([*prompt_tokens as i64, *completion_tokens as i64], hash(&key.0, label, answer));
        let values = params![&key.0[..], label, text, finish_reason, counts[0], counts[1], hash];
        self.lock().execute(sql, values).map(drop).map_err(|error| failed(&self.path, &error))
    }

    /// Merges the answers of another store that are missing here. Either all of these answers are added or none.
    /// Returns the number of added answers.
    pub fn merge(&self, other: &Path) -> Result<u64> {
        // Opening the other store first checks that it is a valid store and that no other process uses it. Closing it
        // writes its log into the file.
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
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a row of [`ENTRY`]: its label, its answer, the hash of its content and the stored hash.
fn entry(row: &Row) -> rusqlite::Result<(String, Completion, [Vec<u8>; 2])> {
    // Invalid UTF-8 is replaced, which changes the hash, so the corruption is detected.
    let text = |i| Ok::<_, rusqlite::Error>(String::from_utf8_lossy(row.get_ref(i)?.as_bytes()?).into_owned());
    let (key, label, kept) = (row.get::<_, Vec<u8>>(0)?, text(1)?, row.get(6)?);
    let [prompt_tokens, completion_tokens] = [row.get::<_, i64>(4)? as u64, row.get::<_, i64>(5)? as u64];
    let answer = Completion { text: text(2)?, finish_reason: text(3)?, prompt_tokens, completion_tokens };
    let hash = hash(&key, &label, &answer);
    Ok((label, answer, [hash, kept]))
}

/// Returns the BLAKE3 hash of a row's content.
fn hash(key: &[u8], label: &str, answer: &Completion) -> Vec<u8> {
    let counts = [answer.prompt_tokens.to_le_bytes(), answer.completion_tokens.to_le_bytes()].concat();
    let parts = [key, label.as_bytes(), answer.text.as_bytes(), answer.finish_reason.as_bytes(), &counts];
    hash_of(&parts).as_bytes().to_vec()
}

/// Returns the BLAKE3 hash of some parts. The length of each part is hashed too, so different parts never give the same
/// bytes.
fn hash_of(parts: &[&[u8]]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.finalize()
}

/// Adds the hashes to rows of layout 1.
fn add_hashes(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(HASHES)?;
    let mut rows = connection.prepare(ENTRY)?;
    let hashes = rows.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, entry(row)?.2)))?;
    let hashes: Vec<(Vec<u8>, [Vec<u8>; 2])> = hashes.collect::<rusqlite::Result<_>>()?;
    let mut update = connection.prepare("UPDATE answers SET blake3 = ?2 WHERE key = ?1")?;
    hashes.iter().try_for_each(|(key, [hash, _])| update.execute(params![key, hash]).map(drop))
}

/// The store of a run, opened at its first use; before that, the run directory is not touched. All users in a run share
/// it.
pub struct RunStore {
    dir: PathBuf,
    /// Rank and number of ranks, if the run has several processes.
    rank: Option<(usize, usize)>,
    opening: Mutex<()>,
    store: OnceLock<Store>,
}

impl RunStore {
    /// Creates a store that opens with [`Store::of_run`] of `dir`.
    pub fn new(dir: &Path) -> Arc<RunStore> {
        Arc::new(RunStore { dir: dir.to_owned(), rank: None, opening: Mutex::default(), store: OnceLock::new() })
    }

    /// Creates the store of rank `i` of `n` in the run directory `dir`. It opens with [`Store::of_run`] if `n` is 1,
    /// otherwise with [`Store::of_rank`].
    pub fn of_rank(dir: &Path, i: usize, n: usize) -> Arc<RunStore> {
        let rank = (n > 1).then_some((i, n));
        Arc::new(RunStore { dir: dir.to_owned(), rank, opening: Mutex::default(), store: OnceLock::new() })
    }

    /// Waits until this is the last reference, and closes the store. The tasks of a judge may hold a reference for a
    /// moment after their scorer is gone. Returns an error if a reference remains.
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

    /// Wraps a store that is already open.
    pub fn of(store: Store) -> Arc<RunStore> {
        Arc::new(RunStore { dir: store.path.clone(), rank: None, opening: Mutex::default(), store: store.into() })
    }

    /// Returns the store. The first call opens it and returns an error if that fails.
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

/// Merges the answers of the ranks or shards of the run in `dir` into its store, so that any number of ranks finds
/// them. Rank 0 must call this before the ranks open their stores.
pub fn gather(dir: &Path) -> Result<()> {
    if dir.join(FILE).exists() || !shards(dir)?.is_empty() { Store::of_run(dir).map(drop) } else { Ok(()) }
}

/// Returns the path of the store of shard `i` of `n`, from 0, in a run directory.
pub fn shard(dir: &Path, i: usize, n: usize) -> PathBuf {
    dir.join(format!("answers-{i}-of-{n}.sqlite"))
}

/// Returns the paths of the shards' stores in a run directory, sorted by name.
pub fn shards(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = files::entries(dir)?;
    found.retain(|path| {
        let name = files::file_name(path);
        let numbers = name.strip_prefix("answers-").and_then(|rest| rest.strip_suffix(".sqlite")?.split_once("-of-"));
        numbers.is_some_and(|(i, n)| i.parse::<usize>().is_ok() && n.parse::<usize>().is_ok())
    });
    Ok(found)
}

/// Returns true if another process has the file open.
fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn failed(path: &Path, error: &rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        _ if is_busy(error) => {
            let found = "an answer store that another process has open";
            Error::input(path, found, "one process at a time")
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            Error::format(path, format!("not an answer store, or a damaged one ({error})"))
        }
        _ => Error::Failed(format!("{}: {error}", path.display())),
    }
}

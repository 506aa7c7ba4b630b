//! A run's directory and the lock that keeps a second job out of it.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const LOCK: &str = ".lock";

/// A directory this job alone works in, until dropped. The lock ends with the process, however it ends.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    _lock: File,
}

impl RunDir {
    /// Makes and locks `path`. `fresh` first moves what is there aside, to the first free `path.old-N`.
    /// Errors when another job holds the lock, or the path is not a directory.
    pub fn open(path: impl AsRef<Path>, fresh: bool) -> Result<RunDir> {
        let path = path.as_ref();
        if path.exists() && !path.is_dir() {
            return Err(Error::input(path.display().to_string(), "a file", "a directory to write to"));
        }
        if fresh && path.is_dir() {
            // Held while the folder moves, so that a job still writing to it is not robbed of it.
            let _held = lock(path)?;
            let aside = aside(path);
            fs::rename(path, &aside).map_err(Error::io(path))?;
        }
        fs::create_dir_all(path).map_err(Error::io(path))?;
        let lock = lock(path)?;
        Ok(RunDir { path: path.to_owned(), _lock: lock })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }
}

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let found = match pid.trim() {
                "" => "another job working in it".to_owned(),
                pid => format!("another job working in it (process {pid})"),
            };
            return Err(Error::input(dir.display().to_string(), found, "a directory of its own for each job"));
        }
        Err(TryLockError::Error(source)) => return Err(Error::Io { path, source }),
    }
    let named = file.set_len(0).and_then(|_| file.seek(SeekFrom::Start(0)));
    named.and_then(|_| writeln!(file, "{}", std::process::id())).map_err(Error::io(&path))?;
    Ok(file)
}

fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "run".into());
    let candidates = (1..).map(|n| path.with_file_name(format!("{name}.old-{n}")));
    candidates.into_iter().find(|p| !p.exists()).expect("names do not run out")
}

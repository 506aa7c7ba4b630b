//! Locks of folders: a run folder is used by one process, or by several processes that each write their own part.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::make_folder;
use crate::error::{Error, Result};

/// Errors of file systems that do not support `flock`.
const WITHOUT: [Errno; 4] = [Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP, Errno::NOLCK];

/// Suffix of lock files whose existence is the lock.
const CREATED: &str = ".pid";

type Flock<'a> = &'a dyn Fn(&File, FlockOperation) -> io::Result<()>;

/// A locked folder. Dropping it removes the lock files and the folders that were created for the lock, if they are
/// empty.
#[derive(Debug)]
pub struct Lock {
    held: Vec<Held>,
    /// Folders that were created, innermost first.
    made: Vec<PathBuf>,
}

/// A lock file, and the open file if it is locked by `flock`.
#[derive(Debug)]
struct Held {
    path: PathBuf,
    file: Option<File>,
}

impl Lock {
    /// Locks the folder `dir`, which is created if it does not exist. With an empty `part`, no other process can lock
    /// the folder. With different parts (the suffix of a process's file names, such as `-0-of-4`), several processes
    /// can lock the folder at the same time.
    ///
    /// On a file system without `flock`, a lock is a file that is created exclusively and contains host and process id.
    /// Such a file is taken over if its process no longer exists on this host.
    pub fn take(dir: &Path, part: &str) -> Result<Lock> {
        Lock::take_by(dir, part, &|file, operation| Ok(rustix::fs::flock(file, operation)?))
    }

    fn take_by(dir: &Path, part: &str, flock: Flock) -> Result<Lock> {
        let mut lock = Lock { held: Vec::new(), made: make_folder(dir)? };
        let parts = [".lock".to_owned(), format!(".lock{part}")];
        let operations = [FlockOperation::NonBlockingLockShared, FlockOperation::NonBlockingLockExclusive];
        for (name, operation) in parts.iter().zip(operations).skip(usize::from(part.is_empty())) {
            if !lock.flock(dir, name, operation, flock)? {
                lock.create(dir, part)?;
                break;
            }
        }
        Ok(lock)
    }

    /// Updates the paths after the folder was renamed to `dir`.
    pub fn follow(&mut self, dir: &Path) {
        self.held.iter_mut().for_each(|held| held.path = dir.join(held.path.file_name().unwrap_or_default()));
    }

    /// Locks `dir/name` by `flock`. Returns false if the file system does not support it.
    fn flock(&mut self, dir: &Path, name: &str, operation: FlockOperation, flock: Flock) -> Result<bool> {
        let path = dir.join(name);
        loop {
            let options = File::options().create(true).truncate(false).read(true).write(true).open(&path);
            let file = options.map_err(Error::io(&path))?;
            match flock(&file, operation) {
                // A process that ended in the meantime has removed the file, so try again.
                Ok(()) if !is_at(&file, &path) => {}
                Ok(()) => {
                    self.held.push(Held { path, file: Some(file) });
                    return Ok(true);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let found = "a run that another omr process is using";
                    return Err(Error::input(dir, found, "a separate folder for each run"));
                }
                Err(e) if Errno::from_io_error(&e).is_some_and(|errno| WITHOUT.contains(&errno)) => {
                    let _ = fs::remove_file(&path);
                    return Ok(false);
                }
                Err(e) => return Err(Error::io(&path)(e)),
            }
        }
    }

    /// Locks `dir` by creating a file.
    fn create(&mut self, dir: &Path, part: &str) -> Result<()> {
        let path = dir.join(format!(".lock{part}{CREATED}"));
        let mut file = loop {
            match File::options().write(true).create_new(true).open(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => take_over(&path)?,
                made => break made.map_err(Error::io(&path))?,
            }
        };
        self.held.push(Held { path: path.clone(), file: None });
        file.write_all(owner().as_bytes()).map_err(Error::io(&path))?;
        // Create our own file first, then look for others: of two processes that start at once, at least one sees the
        // other.
        for other in super::entries(dir)? {
            let name = super::file_name(&other);
            let is_lock = name.starts_with(".lock") && name.ends_with(CREATED) && other != path;
            if is_lock && (part.is_empty() || name == format!(".lock{CREATED}")) {
                take_over(&other)?;
            }
        }
        Ok(())
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        for Held { path, file } in self.held.drain(..) {
            let is_last = file.is_none_or(|file| {
                // Parts share a file, and the last of them removes it.
                rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() && is_at(&file, &path)
            });
            if is_last {
                let _ = fs::remove_file(&path);
            }
        }
        self.made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    }
}

/// Returns true if `path` refers to the open `file`.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |found: io::Result<fs::Metadata>| found.map(|found| (found.dev(), found.ino())).ok();
    identity(file.metadata()).is_some_and(|open| identity(fs::metadata(path)) == Some(open))
}

/// Returns the content of this process's lock file: host and process id.
fn owner() -> String {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{} {}\n", host.trim(), std::process::id())
}

/// Removes the lock file `path` if its process no longer exists on this host. Errors if the process may still be
/// running.
fn take_over(path: &Path) -> Result<()> {
    let Ok(text) = fs::read_to_string(path) else { return Ok(()) };
    let own = owner();
    let (host, pid) = text.trim().rsplit_once(' ').unwrap_or(("an unknown host", "with an unknown id"));
    let is_here = own.split_once(' ').is_some_and(|(own, _)| own == host) && Path::new("/proc/self").exists();
    if !is_here || Path::new("/proc").join(pid).exists() {
        let found = format!("the lock of process {pid} on {host}");
        let hint = "this file system has no flock: delete the file after that process has ended";
        return Err(Error::input_hint(path, found, "a separate folder for each run", hint));
    }
    // Another process may take over the lock at the same time, so the file is removed only if its content has not
    // changed.
    let aside = path.with_extension(format!("pid-{}", std::process::id()));
    if fs::rename(path, &aside).is_ok() {
        let is_same = fs::read_to_string(&aside).is_ok_and(|now| now == text);
        let done = if is_same { fs::remove_file(&aside) } else { fs::rename(&aside, path) };
        done.map_err(Error::io(path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(_: &File, _: FlockOperation) -> io::Result<()> {
        Err(Errno::NOSYS.into())
    }

    fn names(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn parts_share_a_folder_with_one_another_and_not_with_the_whole() {
        let temp = tempfile::tempdir().unwrap();
        let kinds: [(&str, Flock); 2] = [("flock", &|file, how| Ok(rustix::fs::flock(file, how)?)), ("none", &without)];
        for (name, flock) in kinds {
            let dir = temp.path().join(name).join("run");
            let take = |part: &str| Lock::take_by(&dir, part, flock);
            let whole = take("").unwrap();
            for part in ["", "-0-of-2"] {
                assert_eq!(take(part).unwrap_err().exit_code(), 2, "{name} {part}");
            }
            drop(whole);
            assert!(!temp.path().join(name).exists(), "{name}: it leaves no trace");
            let parts = [take("-0-of-2").unwrap(), take("-1-of-2").unwrap()];
            for part in ["", "-1-of-2"] {
                assert_eq!(take(part).unwrap_err().exit_code(), 2, "{name} {part}");
            }
            let [first, second] = parts;
            drop(first);
            assert!(take("").is_err(), "{name}");
            fs::write(dir.join("rows"), "").unwrap();
            drop(second);
            drop(take("").unwrap());
            assert_eq!(names(&dir), ["rows"], "{name}");
        }
    }

    #[test]
    fn without_flock_a_dead_process_is_taken_over_and_another_host_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, file) = (temp.path(), temp.path().join(".lock.pid"));
        // No process has this id: process ids are below 2^22.
        fs::write(&file, owner().replace(&format!(" {}\n", std::process::id()), " 99999999\n")).unwrap();
        let lock = Lock::take_by(dir, "", &without).unwrap();
        assert_eq!((names(dir), fs::read_to_string(&file).unwrap()), (vec![".lock.pid".to_owned()], owner()));
        drop(lock);
        assert!(names(dir).is_empty());
        fs::write(&file, "node-17 4242\n").unwrap();
        for part in ["", "-0-of-4"] {
            let error = Lock::take_by(dir, part, &without).unwrap_err().to_string();
            for said in [file.to_str().unwrap(), "4242", "node-17", "delete the file"] {
                assert!(error.contains(said) && error.lines().count() == 1, "{error}");
            }
        }
        assert_eq!(names(dir), [".lock.pid"]);
    }
}

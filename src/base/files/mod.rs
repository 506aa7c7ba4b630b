//! Atomic writes and safe reads of files.
//!
//! New content is written to a temporary file in the same folder. The temporary file is synced and renamed, and then
//! the folder is synced. After a crash at any point, and at any time for another reader, the file has either the old or
//! the new content.
//!
//! Only regular files are read. Reading a pipe or a device at a path from an untrusted source could block forever, or
//! never reach an end.

pub mod json;
mod leftovers;
mod lock;
mod output;

pub use leftovers::{HEAD, is_run, tidy};
pub use lock::Lock;
pub use output::{Output, is_own_page};

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::error::{Error, Result};

/// Maximum size of a file that is read completely. Larger files must be read in parts.
const WHOLE: u64 = 4 << 30;
/// Maximum size of a config.
const CONFIG: u64 = 16 << 20;

/// Returns the folder `omr/PART` of the user's cache folder (`XDG_CACHE_HOME`, else `.cache` in `HOME`), or `None` if
/// neither variable is set.
pub fn user_cache(part: &str) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(base.join("omr").join(part))
}

/// Opens a regular file, or a link to one, for reading. Returns an error immediately for a pipe or a device. A folder
/// can be opened, too, but reading it fails.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    // Without this flag, opening a pipe waits until a process opens it for writing.
    let file = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)?;
    let kind = file.metadata()?.file_type();
    let refused = || io::Error::new(io::ErrorKind::InvalidData, "found a pipe or a device, expected a regular file");
    if kind.is_file() || kind.is_dir() { Ok(file) } else { Err(refused()) }
}

/// Opens a regular file to read it and append to it, and creates it if it does not exist. Errors for a link, a pipe and a
/// device, because the path comes from an untrusted folder or was chosen by omr.
pub fn append(path: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options().create(true).read(true).append(true).custom_flags(flags.bits() as i32).open(path);
    if path.is_symlink() || file.as_ref().is_ok_and(|file| file.metadata().is_ok_and(|of| !of.is_file())) {
        return Err(Error::input(path, "a link, a pipe or a device", "a regular file, or none"));
    }
    file.map_err(Error::io(path))
}

/// Reads the bytes of a regular file.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    read_within(path, WHOLE)
}

/// Reads the bytes of a regular file. Errors if there are more than `limit`, even if the system reports a smaller size.
fn read_within(path: impl AsRef<Path>, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let mut len = file.metadata()?.len();
    let mut bytes = Vec::new();
    if len <= limit {
        bytes.reserve_exact(len as usize);
        len = file.take(limit + 1).read_to_end(&mut bytes)? as u64;
    }
    if len > limit {
        let what = format!("found {len} bytes or more, expected at most {limit} bytes for this kind of file");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(bytes)
}

/// Reads the text of a regular file.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    text(read(path)?)
}

/// Reads the text of a file that people write, such as a config: at most 16 MiB.
pub fn read_config(path: impl AsRef<Path>) -> io::Result<String> {
    // `/dev/null` is the usual path for an empty file. It is not a regular file.
    if path.as_ref() == Path::new("/dev/null") {
        return Ok(String::new());
    }
    text(read_within(path, CONFIG)?)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// Returns what was read from `path`, or `None` if the file does not exist.
pub fn if_exists<T>(path: &Path, read: io::Result<T>) -> Result<Option<T>> {
    match read {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(Error::io(path)),
    }
}

/// Returns the size of a file in bytes and its modification time in nanoseconds.
pub fn size_and_time(file: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(file)?;
    let since = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((metadata.len(), since.as_nanos() as u64))
}

/// Returns the paths of the entries of a folder, sorted.
pub fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let paths = fs::read_dir(dir).and_then(|all| all.map(|entry| Ok(entry?.path())).collect());
    let mut paths: Vec<PathBuf> = paths.map_err(Error::io(dir))?;
    paths.sort();
    Ok(paths)
}

/// Creates the folder `dir` and its missing parents. Returns the folders that were created, innermost first. On an
/// error, these folders are removed again.
pub fn make_folder(dir: &Path) -> Result<Vec<PathBuf>> {
    let is_missing = |at: &&Path| !at.as_os_str().is_empty() && fs::symlink_metadata(at).is_err();
    let missing: Vec<PathBuf> = dir.ancestors().take_while(is_missing).map(Path::to_owned).collect();
    let Err(error) = fs::create_dir_all(dir) else { return Ok(missing) };
    missing.iter().for_each(|made| drop(fs::remove_dir(made)));
    Err(match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            Error::input(dir, "a file", "a folder, or an unused name")
        }
        // For example in /proc: the parent exists, but the system does not allow new folders.
        io::ErrorKind::NotFound => Error::input(dir, "a path where no folder can be created", "a path on a disk"),
        _ => Error::io(dir)(error),
    })
}

/// Writes `bytes` to `path` atomically. Creates parent folders.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    let path = path.as_ref();
    write_with(path, |w| w.write_all(bytes).map_err(Error::io(path)))
}

/// Writes a file atomically through `body`. If `body` fails, no new file is left and an existing file does not change.
pub fn write_with(path: impl AsRef<Path>, body: impl FnOnce(&mut Staged) -> Result<()>) -> Result<()> {
    let mut staged = Staged::create(path)?;
    body(&mut staged)?;
    staged.commit()
}

/// A file that is written under a temporary name and gets its final name when it is committed. If this value is dropped
/// before the commit, the file is deleted.
pub struct Staged {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
}

impl Staged {
    /// Begins the file at `path`. Creates parent folders.
    pub fn create(path: impl AsRef<Path>) -> Result<Staged> {
        let path = path.as_ref();
        let parent = parent(path);
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let (temporary, opened) =
            unused(path, "tmp", |at| File::options().read(true).write(true).create_new(true).open(at));
        let file = BufWriter::with_capacity(1 << 20, opened.map_err(Error::io(&temporary))?);
        Ok(Staged { path: path.to_owned(), temporary, file })
    }

    /// Opens the content written so far for reading, from its beginning.
    pub fn reopen(&mut self) -> Result<File> {
        self.file.flush().map_err(Error::io(&self.path))?;
        File::open(&self.temporary).map_err(Error::io(&self.temporary))
    }

    /// Renames the file to its final path.
    pub fn commit(mut self) -> Result<()> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(Error::io(&self.path))?;
        fs::rename(&self.temporary, &self.path).map_err(Error::io(&self.path))?;
        sync_folder(parent(&self.path))
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Fails after a commit, because the temporary file no longer exists.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Errors if [`write()`] to `path` would fail. Call it before a long job whose result goes there. Leaves nothing
/// behind.
pub fn writable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if path.is_dir() {
        return Err(Error::input(path, "a folder", "a file name"));
    }
    let made = make_folder(parent(path))?;
    let tried = Staged::create(path).map(drop);
    made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
    tried.map_err(|error| match error {
        Error::Io { source, .. } => Error::io(path)(source),
        other => other,
    })
}

/// Errors if `out`, the folder that a command creates, exists, also as a link to nothing.
pub fn is_new(out: &Path) -> Result<()> {
    let found = || format!("{}, which exists", out.display());
    let exists = out.symlink_metadata().is_ok();
    if exists { Err(Error::input("--out", found(), "a new folder: nothing is overwritten")) } else { Ok(()) }
}

/// Copies the files in the folder `from`, without its subfolders, to the folder `to`.
pub fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for path in entries(from)? {
        if let (true, Some(name)) = (path.is_file(), path.file_name()) {
            fs::copy(&path, to.join(name)).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Returns the files in and below `dir`, relative to it and in no order. Calls `wanted` with each path, and with true for
/// a folder or a link to one. Leaves out the files and folders for which it returns false.
pub fn below(dir: &Path, wanted: &mut dyn FnMut(&Path, bool) -> Result<bool>) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            let (inner, is_folder) = (path.strip_prefix(dir).unwrap_or(&path), path.is_dir());
            match wanted(inner, is_folder)? {
                true if is_folder => folders.push(path),
                true => files.push(inner.to_owned()),
                false => {}
            }
        }
    }
    Ok(files)
}

/// Fills a folder through `body(temporary)`, then moves it to `path` as [`StagedFolder::commit`] does.
pub fn folder(path: impl AsRef<Path>, body: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let staged = StagedFolder::create(path)?;
    body(staged.temporary())?;
    staged.commit()
}

/// A folder that is filled under a temporary name and gets its final name when it is committed. If this value is
/// dropped before the commit, the folder is deleted.
#[derive(Debug)]
pub struct StagedFolder {
    path: PathBuf,
    temporary: PathBuf,
}

impl StagedFolder {
    /// Begins the folder at `path`. Creates parent folders.
    pub fn create(path: impl AsRef<Path>) -> Result<StagedFolder> {
        let path = path.as_ref();
        let parent = parent(path);
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let (temporary, made) = unused(path, "tmp", |at| fs::create_dir(at));
        made.map_err(Error::io(&temporary))?;
        Ok(StagedFolder { path: path.to_owned(), temporary })
    }

    /// Returns the temporary folder to fill.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Renames the folder to its final path, after every file in it is synced. If a folder exists at that path, it is
    /// renamed first, and deleted after the new folder has taken its name.
    pub fn commit(self) -> Result<()> {
        let StagedFolder { path, temporary } = &self;
        sync_tree(temporary)?;
        let replaced = path.exists();
        let rename =
            |at: &Path| if at.exists() { Err(io::ErrorKind::AlreadyExists.into()) } else { fs::rename(path, at) };
        let (old, moved) = if replaced { unused(path, "old", rename) } else { (PathBuf::new(), Ok(())) };
        moved.map_err(Error::io(path))?;
        if let Err(source) = fs::rename(temporary, path) {
            if replaced {
                let _ = fs::rename(&old, path);
            }
            return Err(Error::Io { path: path.clone(), source });
        }
        sync_folder(parent(path))?;
        if replaced {
            fs::remove_dir_all(&old).map_err(Error::io(&old))?;
        }
        Ok(())
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        // Fails after a commit, because the temporary folder no longer exists.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Renames `dir` to the first unused name of `dir.1`, `dir.2`, ... Returns `None` if `dir` does not exist.
pub fn move_aside(dir: &Path) -> Result<Option<PathBuf>> {
    if !dir.exists() {
        return Ok(None);
    }
    let stem = dir.file_name().unwrap_or_default();
    for i in 1_u32.. {
        let mut name = stem.to_owned();
        name.push(format!(".{i}"));
        let aside = dir.with_file_name(&name);
        if !aside.exists() {
            fs::rename(dir, &aside).map_err(Error::io(dir))?;
            return Ok(Some(aside));
        }
    }
    Ok(None)
}

/// Returns the number of bytes that this user may still write to the disk of a folder.
pub fn free(dir: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(dir).map_err(|e| Error::io(dir)(e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Makes the entries of a folder durable.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|d| d.sync_all()).map_err(Error::io(path))
}

fn sync_tree(path: &Path) -> Result<()> {
    for at in entries(path)? {
        if at.is_dir() {
            sync_tree(&at)?;
        } else {
            File::open(&at).and_then(|f| f.sync_all()).map_err(Error::io(&at))?;
        }
    }
    sync_folder(path)
}

/// Returns the folder that contains a file or folder.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the last part of a path as text.
pub fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Calls `make` with `.NAME.KIND-PID` in the folder of `path`, or with a further `-N` if that name exists. Returns the
/// path and the result.
fn unused<T>(path: &Path, kind: &str, make: impl Fn(&Path) -> io::Result<T>) -> (PathBuf, io::Result<T>) {
    let first = parent(path).join(format!(".{}.{kind}-{}", file_name(path), std::process::id()));
    let mut at = first.clone();
    for i in 1.. {
        match make(&at) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                at.clone_from(&first);
                at.as_mut_os_string().push(format!("-{i}"));
            }
            made => return (at, made),
        }
    }
    unreachable!("a name is free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_write_keeps_the_old_file_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/summary.json");
        write(&path, b"old").unwrap();
        let failed = write_with(&path, |w| {
            w.write_all(b"half").unwrap();
            Err(Error::Failed("stop".into()))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_pipe_is_refused_at_once_and_so_is_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("config.json");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        std::os::unix::fs::symlink(&pipe, dir.path().join("link")).unwrap();
        for path in [pipe, dir.path().join("link"), "/dev/zero".into()] {
            let error = Error::io(&path)(read_to_string(&path).unwrap_err());
            assert!(error.to_string().contains("expected a regular file"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn a_folder_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        for text in ["one", "two"] {
            folder(&path, |tmp| write(tmp.join("sub/x"), text.as_bytes())).unwrap();
            assert_eq!(fs::read_to_string(path.join("sub/x")).unwrap(), text);
        }
        let failed = folder(&path, |_| Err(Error::Failed("stop".into())));
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(path.join("sub/x")).unwrap(), "two");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_known_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        writable(dir.path().join("new/file")).unwrap();
        assert!(!dir.path().join("new").exists());
        fs::create_dir(dir.path().join("new")).unwrap();
        write(dir.path().join("old"), b"kept").unwrap();
        writable(dir.path().join("old")).unwrap();
        assert_eq!(fs::read(dir.path().join("old")).unwrap(), b"kept");
        for path in ["new", "old/file"] {
            let error = writable(dir.path().join(path)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}

//! Writes that are whole or not there: a temporary beside the target, fsync, rename, fsync of the folder.
//! A reader, or a run killed at any point, sees the old content or the new one. Reads of regular files alone: a pipe or
//! a device at a path that others wrote would be waited for, or read, without end.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Bytes of a file that is read whole, at most: what is larger is read in parts, or is no such file.
const WHOLE: u64 = 4 << 30;

/// Opens a regular file, or a link to one, for reading. Errors on anything else, at once.
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    // Opening a pipe that nobody writes to waits for a writer unless told not to.
    let file = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)?;
    let kind = file.metadata()?.file_type();
    match kind.is_file() || kind.is_dir() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidData, "found a pipe or a device, expected a regular file")),
    }
}

/// A regular file's bytes.
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = open(path)?;
    let len = file.metadata()?.len();
    if len > WHOLE {
        let what = format!("found {len} bytes, expected at most {WHOLE} of a file of its kind");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A regular file's text.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

/// Writes `bytes` to `path`, whole. Parent folders are made.
pub fn write(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_with(path, |w| w.write_all(bytes))
}

/// Writes a file, whole, through `body`. When `body` fails nothing is left behind and an older file stays.
pub fn write_with<E: Into<WriteError>>(
    path: impl AsRef<Path>,
    body: impl FnOnce(&mut Staged) -> std::result::Result<(), E>,
) -> Result<()> {
    let path = path.as_ref();
    let mut staged = Staged::create(path)?;
    body(&mut staged).map_err(|e| e.into().at(path))?;
    staged.commit()
}

/// A file that is written beside its place and stands there, whole, once it is committed. Dropped before, it leaves
/// nothing behind.
pub struct Staged {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
}

impl Staged {
    /// Begins the file at `path`. Parent folders are made.
    pub fn create(path: impl AsRef<Path>) -> Result<Staged> {
        let path = path.as_ref();
        let parent = parent(path);
        fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
        let mut temporary = beside(path, "tmp");
        let mut opened = File::options().read(true).write(true).create_new(true).open(&temporary);
        // Another one of this process: a file is written anew from what was written of it.
        for i in 1.. {
            if !opened.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::AlreadyExists) {
                break;
            }
            temporary = beside(path, "tmp");
            temporary.as_mut_os_string().push(format!("-{i}"));
            opened = File::options().read(true).write(true).create_new(true).open(&temporary);
        }
        let file = BufWriter::with_capacity(1 << 20, opened.map_err(Error::io(&temporary))?);
        Ok(Staged { path: path.to_owned(), temporary, file })
    }

    /// What was written so far, from its beginning.
    pub fn reopen(&mut self) -> Result<File> {
        self.file.flush().map_err(Error::io(&self.path))?;
        File::open(&self.temporary).map_err(Error::io(&self.temporary))
    }

    /// Puts the file at its place.
    pub fn commit(mut self) -> Result<()> {
        self.file.flush().and_then(|()| self.file.get_ref().sync_all()).map_err(Error::io(&self.path))?;
        fs::rename(&self.temporary, &self.path).map_err(Error::io(&self.path))?;
        sync_folder(&parent(&self.path))
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
        // Gone where it was committed.
        let _ = fs::remove_file(&self.temporary);
    }
}

/// Errors where [`write()`] to `path` would: to be asked before long work whose result goes there. Parent folders are
/// made.
pub fn writable(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if path.is_dir() {
        return Err(Error::input(path.display().to_string(), "a folder", "the name of a file"));
    }
    let parent = parent(path);
    fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
    let temporary = beside(path, "tmp");
    File::create(&temporary).map_err(Error::io(path))?;
    fs::remove_file(&temporary).map_err(Error::io(&temporary))
}

/// Fills a folder through `body(temporary)`, then puts it at `path` as [`StagedFolder::commit`] does.
pub fn folder(path: impl AsRef<Path>, body: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let staged = StagedFolder::create(path)?;
    body(staged.temporary())?;
    staged.commit()
}

/// A folder that is filled beside its place and stands there, whole, once it is committed. Dropped before, it leaves
/// nothing behind.
#[derive(Debug)]
pub struct StagedFolder {
    path: PathBuf,
    temporary: PathBuf,
}

impl StagedFolder {
    /// Begins the folder at `path`. Parent folders are made.
    pub fn create(path: impl AsRef<Path>) -> Result<StagedFolder> {
        let path = path.as_ref();
        let parent = parent(path);
        fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
        let staged = StagedFolder { path: path.to_owned(), temporary: beside(path, "tmp") };
        let _ = fs::remove_dir_all(&staged.temporary);
        fs::create_dir(&staged.temporary).map_err(Error::io(&staged.temporary))?;
        Ok(staged)
    }

    /// Where it is filled.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Puts it at its place in one rename, every file in it fsynced first. A folder that is there is replaced: it is moved
    /// aside, and deleted once the new one stands.
    pub fn commit(self) -> Result<()> {
        let StagedFolder { path, temporary } = &self;
        sync_tree(temporary)?;
        let old = beside(path, "old");
        let replaced = path.exists();
        if replaced {
            let _ = fs::remove_dir_all(&old);
            fs::rename(path, &old).map_err(Error::io(path))?;
        }
        if let Err(source) = fs::rename(temporary, path) {
            if replaced {
                let _ = fs::rename(&old, path);
            }
            return Err(Error::Io { path: path.clone(), source });
        }
        sync_folder(&parent(path))?;
        if replaced {
            fs::remove_dir_all(&old).map_err(Error::io(&old))?;
        }
        Ok(())
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        // Gone where it was committed.
        let _ = fs::remove_dir_all(&self.temporary);
    }
}

/// Removes what a killed run left beside `path`: temporaries of any process, and, when `path` is missing but its
/// moved-aside predecessor is there, puts that one back.
pub fn tidy(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let parent = parent(path);
    let Ok(entries) = fs::read_dir(&parent) else { return Ok(()) };
    let name = file_name(path);
    for entry in entries.flatten() {
        let other = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = other.strip_prefix(&format!(".{name}.")) else { continue };
        let at = entry.path();
        if rest.starts_with("old-") && !path.exists() {
            fs::rename(&at, path).map_err(Error::io(path))?;
        } else if rest.starts_with("old-") || rest.starts_with("tmp-") {
            let removed = if at.is_dir() { fs::remove_dir_all(&at) } else { fs::remove_file(&at) };
            removed.map_err(Error::io(&at))?;
        }
    }
    Ok(())
}

/// [`tidy`] for everything in and below `folder`, which no other process may be writing to.
pub fn tidy_tree(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io(folder))? {
        let entry = entry.map_err(Error::io(folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let at = entry.path();
        match target(&name) {
            Some(target) if fs::symlink_metadata(&at).is_ok() => tidy(folder.join(target))?,
            Some(_) => {}
            None if entry.file_type().is_ok_and(|t| t.is_dir()) => tidy_tree(&at)?,
            None => {}
        }
    }
    Ok(())
}

/// What a temporary is the temporary of.
fn target(name: &str) -> Option<&str> {
    let rest = name.strip_prefix('.')?;
    let end = rest.rfind(".tmp-").or_else(|| rest.rfind(".old-"))?;
    Some(&rest[..end])
}

/// Renames `dir` to the first free `dir.1`, `dir.2`, ...; `None` when there is nothing to move.
pub fn move_aside(dir: &Path) -> Result<Option<PathBuf>> {
    if !dir.exists() {
        return Ok(None);
    }
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    let stem = name.clone();
    for i in 1_u32.. {
        name.clone_from(&stem);
        name.push(format!(".{i}"));
        let aside = dir.with_file_name(&name);
        if !aside.exists() {
            fs::rename(dir, &aside).map_err(Error::io(dir))?;
            return Ok(Some(aside));
        }
    }
    Ok(None)
}

/// Makes the entries of a folder durable.
pub fn sync_folder(path: &Path) -> Result<()> {
    File::open(path).and_then(|d| d.sync_all()).map_err(Error::io(path))
}

fn sync_tree(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).map_err(Error::io(path))? {
        let at = entry.map_err(Error::io(path))?.path();
        if at.is_dir() {
            sync_tree(&at)?;
        } else {
            File::open(&at).and_then(|f| f.sync_all()).map_err(Error::io(&at))?;
        }
    }
    sync_folder(path)
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn beside(path: &Path, kind: &str) -> PathBuf {
    parent(path).join(format!(".{}.{kind}-{}", file_name(path), std::process::id()))
}

/// What the body of [`write_with`] may fail with: an I/O error, which gets the path, or an [`Error`] as it is.
#[derive(Debug)]
pub enum WriteError {
    /// The system refused.
    Io(std::io::Error),
    /// Anything else.
    Other(Error),
}

impl WriteError {
    fn at(self, path: &Path) -> Error {
        match self {
            WriteError::Io(source) => Error::Io { path: path.to_owned(), source },
            WriteError::Other(error) => error,
        }
    }
}

impl From<std::io::Error> for WriteError {
    fn from(e: std::io::Error) -> WriteError {
        WriteError::Io(e)
    }
}

impl From<Error> for WriteError {
    fn from(e: Error) -> WriteError {
        WriteError::Other(e)
    }
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
            w.write_all(b"half")?;
            Err::<(), WriteError>(Error::Failed("stop".into()).into())
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
        assert_eq!(fs::read_dir(dir.path().join("new")).unwrap().count(), 0);
        write(dir.path().join("old"), b"kept").unwrap();
        writable(dir.path().join("old")).unwrap();
        assert_eq!(fs::read(dir.path().join("old")).unwrap(), b"kept");
        for path in ["new", "old/file"] {
            let error = writable(dir.path().join(path)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }

    #[test]
    fn tidy_puts_back_what_a_kill_between_two_renames_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        fs::create_dir(dir.path().join(".model.old-7")).unwrap();
        fs::write(dir.path().join(".model.old-7/x"), "kept").unwrap();
        fs::create_dir(dir.path().join(".model.tmp-7")).unwrap();
        tidy(&path).unwrap();
        assert_eq!(fs::read_to_string(path.join("x")).unwrap(), "kept");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_tree_is_tidied_and_what_is_not_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let eval = dir.path().join("eval/sft");
        fs::create_dir_all(eval.join(".model.old-9")).unwrap();
        for name in ["samples.jsonl", ".samples.jsonl.tmp-8", ".model.old-9/x", ".lock", ".hidden", "a.tmp-1"] {
            fs::write(eval.join(name), name).unwrap();
        }
        tidy_tree(dir.path()).unwrap();
        let mut left: Vec<String> =
            fs::read_dir(&eval).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, [".hidden", ".lock", "a.tmp-1", "model", "samples.jsonl"]);
        assert_eq!(fs::read_to_string(eval.join("model/x")).unwrap(), ".model.old-9/x");
    }
}

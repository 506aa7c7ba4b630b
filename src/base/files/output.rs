//! Result files at paths that users choose: what may be written there, and how.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fstat};

use super::{if_exists, parent, writable, write_with};
use crate::error::{Error, Result};

/// Time that a pipe may be without a reader.
const PATIENCE: Duration = Duration::from_secs(5);

/// Mark of the pages that omr writes.
const PAGE_MARK: &[u8] = b"<meta name=\"generator\" content=\"omr\">";

/// A place for the result of a command, outside of a run folder:
///
/// - A path that does not exist becomes a regular file, atomically. Parent folders are created.
/// - An existing regular file is replaced atomically, but only with `--overwrite`.
/// - A pipe or a character device is written into. It is never replaced.
/// - A link is followed, and its target is treated in the same way.
/// - `-` and every path of the standard output of this process, such as `/dev/stdout`, are standard output.
/// - A file that the command reads, a folder, a socket and a block device are refused.
pub enum Output {
    /// Standard output.
    Stdout,
    /// A pipe or a character device.
    Stream(PathBuf),
    /// A regular file or a path that does not exist. The path is not a link.
    File(PathBuf),
}

impl Output {
    /// Returns the place at `path`. Changes nothing there, so call this before a long job. `overwrite` is true if an
    /// existing file may be replaced. `inputs` are files and folders that the command reads.
    pub fn open(path: &Path, overwrite: bool, inputs: &[&Path]) -> Result<Output> {
        let found = match fs::metadata(path) {
            // The error of the folder says more.
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => None,
            found => if_exists(path, found)?,
        };
        let is_stdout = |of: &fs::Metadata| {
            fstat(io::stdout()).is_ok_and(|stdout| (of.dev(), of.ino()) == (stdout.st_dev, stdout.st_ino))
        };
        if path == Path::new("-") || found.as_ref().is_some_and(is_stdout) {
            return Ok(Output::Stdout);
        }
        let Some(kind) = found.map(|of| of.file_type()) else {
            return match fs::read_link(path) {
                Ok(target) => Output::open(&parent(path).join(target), overwrite, inputs),
                Err(_) => writable(path).map(|()| Output::File(path.to_owned())),
            };
        };
        if kind.is_fifo() || kind.is_char_device() {
            return Ok(Output::Stream(path.to_owned()));
        }
        let real = fs::canonicalize(path).map_err(Error::io(path))?;
        let same =
            |of: &fs::Metadata| fs::metadata(&real).is_ok_and(|own| (own.dev(), own.ino()) == (of.dev(), of.ino()));
        // A page is a result, also in a folder that is read.
        let is_page = real.extension().is_some_and(|ending| ending == "html");
        let is_input = |input: &&Path| {
            input.metadata().is_ok_and(|of| same(&of))
                || !is_page && input.canonicalize().is_ok_and(|input| real.starts_with(input))
        };
        let refused = |found| Err(Error::input(path, found, "a new file, a pipe or a character device"));
        match kind {
            _ if kind.is_dir() => refused("a folder"),
            _ if !kind.is_file() => refused("a socket or a block device"),
            _ if inputs.iter().any(is_input) => refused("a file that this command reads"),
            _ if overwrite => writable(&real).map(|()| Output::File(real)),
            _ => {
                let hint = "--overwrite replaces the file";
                Err(Error::input_hint(path, "a file that exists", "a path that does not exist", hint))
            }
        }
    }

    /// Returns the regular file at `path`, which may exist. Errors for other places, because the command reads its own
    /// result later or writes it again.
    pub fn regular(path: &Path, overwrite: bool, inputs: &[&Path]) -> Result<PathBuf> {
        match Output::open(path, overwrite, inputs)? {
            Output::File(file) => Ok(file),
            _ => Err(Error::input(path, "a pipe, a device or standard output", "a regular file, or none")),
        }
    }

    /// Writes `bytes`.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        self.write_with(|w| w.write_all(bytes).map_err(Error::io(self.place())))
    }

    /// Writes the result through `body`. If `body` fails, a regular file does not change. It is not an error if the reader
    /// of a pipe closes it.
    pub fn write_with(&self, body: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let mut to = BufWriter::new(match self {
            Output::File(path) => return write_with(path, |staged| body(staged)),
            Output::Stream(path) => Box::new(stream(path)?) as Box<dyn Write>,
            Output::Stdout => Box::new(io::stdout()),
        });
        match body(&mut to).and_then(|()| to.flush().map_err(Error::io(self.place()))) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done,
        }
    }

    /// Returns the path for errors.
    fn place(&self) -> &Path {
        match self {
            Output::File(path) | Output::Stream(path) => path,
            Output::Stdout => Path::new("standard output"),
        }
    }

    /// True if the result goes to standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(self, Output::Stdout)
    }
}

/// Returns true if a file is a page that omr wrote (`frame/page.html`).
pub fn is_own_page(path: &Path) -> bool {
    let mut beginning = Vec::new();
    // Opening a pipe would wait for its writer.
    if !path.is_file() {
        return false;
    }
    let read = File::open(path).and_then(|file| file.take(200).read_to_end(&mut beginning));
    read.is_ok() && beginning.windows(PAGE_MARK.len()).any(|part| part == PAGE_MARK)
}

/// Opens a pipe or a character device for writing. Waits a short time for a reader of the pipe.
fn stream(path: &Path) -> Result<File> {
    let (begun, no_wait) = (Instant::now(), OFlags::NONBLOCK.bits() as i32);
    loop {
        match File::options().write(true).custom_flags(no_wait).open(path) {
            // While this descriptor is open, the next one opens at once.
            Ok(_) => return File::options().write(true).open(path).map_err(Error::io(path)),
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                return Err(Error::io(path)(error));
            }
            Err(_) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return Err(Error::input(path, "a pipe that no process reads", "a pipe with a reader")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, mknodat};
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn write(path: &Path, overwrite: bool) -> Result<()> {
        Output::open(path, overwrite, &[])?.write(b"result")
    }

    fn message(result: Result<impl Sized>) -> String {
        let error = result.err().expect("an error");
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    }

    #[test]
    fn a_file_of_the_user_is_replaced_only_with_overwrite_also_behind_links() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("notes"), "mine").unwrap();
        symlink("notes", at("link")).unwrap();
        symlink(at("link"), at("second")).unwrap();
        for name in ["notes", "link", "second"] {
            let error = message(write(&at(name), false));
            assert!(error.contains("found a file that exists") && error.contains("--overwrite"), "{error}");
            assert_eq!(fs::read_to_string(at("notes")).unwrap(), "mine");
        }
        write(&at("second"), true).unwrap();
        assert_eq!(fs::read_to_string(at("notes")).unwrap(), "result");
        assert!(at("link").is_symlink() && at("second").is_symlink());
        fs::write(at("page"), "<html>\n<meta name=\"generator\" content=\"omr\">").unwrap();
        assert!(is_own_page(&at("page")) && !is_own_page(&at("notes")));
        symlink("new/file", at("dangling")).unwrap();
        write(&at("dangling"), false).unwrap();
        assert!(at("dangling").is_symlink());
        assert_eq!(fs::read_to_string(at("new/file")).unwrap(), "result");
        symlink("loop", at("loop")).unwrap();
        assert!(write(&at("loop"), true).is_err());
    }

    #[test]
    fn a_file_that_the_command_reads_is_refused_even_with_overwrite() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, input) = (dir.path().join("model"), dir.path().join("model/config.json"));
        fs::create_dir(&folder).unwrap();
        fs::write(&input, "{}").unwrap();
        symlink(&input, dir.path().join("link")).unwrap();
        for (path, of) in [(input.clone(), &input), (input.clone(), &folder), (dir.path().join("link"), &input)] {
            assert!(message(Output::open(&path, true, &[of])).contains("found a file that this command reads"));
        }
        // A new file in a folder that is read changes nothing of it.
        Output::open(&folder.join("new.jsonl"), false, &[&folder]).unwrap();
    }

    #[test]
    fn pipes_and_devices_are_written_into_and_stay_what_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, 0o600.into(), 0).unwrap();
        symlink(&pipe, dir.path().join("link")).unwrap();
        let reader = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::read_to_string(pipe).unwrap()
        });
        write(&dir.path().join("link"), false).unwrap();
        assert_eq!(reader.join().unwrap(), "result");
        assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
        write(Path::new("/dev/null"), true).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        assert!(write(Path::new("/dev/full"), true).is_err());
        assert!(message(write(&pipe, true)).contains("a pipe that no process reads"));
        assert!(message(Output::regular(&pipe, true, &[])).contains("expected a regular file"));
    }

    #[test]
    fn folders_and_sockets_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let _listener = UnixListener::bind(&socket).unwrap();
        for path in [dir.path(), &socket] {
            assert!(message(write(path, true)).contains("expected a new file, a pipe or a character device"));
        }
        assert!(Output::open(Path::new("-"), false, &[]).unwrap().is_stdout());
    }
}

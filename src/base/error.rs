//! The only error type of omr. Every variant contains what a user needs to fix the cause: the place (file, key, row),
//! what was found, and what was expected.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong in omr. [`Error::exit_code`] maps an error to the exit status of `docs/user/runs.md`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user's input is wrong, for example an unknown key, a bad value or a missing column. Exit status 2.
    #[error("{place}: found {found}, expected {expected}{}", hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
    Input {
        /// File, key or row.
        place: String,
        /// The value that was found.
        found: String,
        /// A description of valid values.
        expected: String,
        /// The nearest valid name, or advice on how to continue.
        hint: Option<String>,
    },
    /// The content of a file is broken. Exit status 2.
    #[error("{}: {what}", path.display())]
    Format {
        /// Path of the file.
        path: PathBuf,
        /// Description of the fault, with the row or byte offset.
        what: String,
    },
    /// The operating system returned an error. Exit status 2 if the path is wrong (missing, a folder, no access), else
    /// 1.
    #[error("{}: {}", path.display(), words(source))]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The operating system failed to read a file that a row names, so the row itself may be valid. Exit status 1.
    #[error("{place}: {}", words(source))]
    Unreadable {
        /// The row, and the file that it names.
        place: String,
        /// Error of the system.
        source: std::io::Error,
    },
    /// An op was called with shapes that do not fit. This is a bug of omr. Exit status 1.
    #[error("{op}: shape {got}, expected {want}")]
    Shape {
        /// Name of the op.
        op: &'static str,
        /// Expected shape.
        want: String,
        /// Shape given.
        got: String,
    },
    /// A region of device memory is too small. Exit status 1.
    #[error("{region} memory: {want} bytes requested, {have} bytes planned")]
    Memory {
        /// Name of the region.
        region: &'static str,
        /// Bytes that the region needs with the allocation.
        want: usize,
        /// Bytes that the region has.
        have: usize,
    },
    /// A loss or gradient is not finite. Exit status 1.
    #[error("step {step}: {what} is not finite; nothing was updated")]
    NonFinite {
        /// Step of the run.
        step: u64,
        /// Loss, gradient norm, or the name of a tensor.
        what: String,
    },
    /// A request to a server (teacher, judge) failed, and retries did not help. Exit status 1.
    #[error("{url}: {what}")]
    Server {
        /// URL of the request.
        url: String,
        /// Status, time-out or the broken part of the reply.
        what: String,
    },
    /// Another rank of the run was lost, or has failed and reported why. The exit status is that of the other rank.
    #[error("{what}")]
    Rank {
        /// The rank, its host and what happened to it.
        what: String,
        /// Exit status of all ranks.
        exit_code: u8,
        /// True if rank 0 reported the error to this rank. Rank 0 then shows it to the user itself.
        reported: bool,
    },
    /// A signal stopped the run. Exit status 130.
    #[error("stopped by a signal; run the same command again to continue")]
    Stopped,
    /// Any other error that ended the run. Exit status 1.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// Creates an input error: `place: found X, expected Y`. The place is the name of a key, flag or row, or a path.
    pub fn input(place: impl AsRef<OsStr>, found: impl Into<String>, expected: impl Into<String>) -> Error {
        Error::with_hint(place.as_ref(), found.into(), expected.into(), None)
    }

    /// Creates an error as [`Error::input`] does, with a hint, for example the nearest valid name.
    pub fn input_hint(
        place: impl AsRef<OsStr>,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) -> Error {
        Error::with_hint(place.as_ref(), found.into(), expected.into(), Some(hint.into()))
    }

    fn with_hint(place: &OsStr, found: String, expected: String, hint: Option<String>) -> Error {
        Error::Input { place: place.display().to_string(), found, expected, hint }
    }

    /// Adds `outer` (a file, a row) before the place of the error, unless the place already contains it.
    pub fn within(self, outer: &str) -> Error {
        match self {
            Error::Input { place, found, expected, hint } if !place.contains(outer) => {
                Error::Input { place: format!("{outer}: {place}"), found, expected, hint }
            }
            Error::Failed(what) => Error::Failed(format!("{outer}: {what}")),
            error => error,
        }
    }

    /// Creates the error of a file that the row at `place` names. It is an input error of the row if the file does not
    /// exist or cannot be a valid file. Otherwise it is [`Error::Unreadable`].
    pub fn of_row(place: &str, file: &Path, expected: impl Into<String>, source: std::io::Error) -> Error {
        match is_of_file(&source) {
            true => Error::input(place, format!("image {} ({})", file.display(), words(&source)), expected),
            false => Error::Unreadable { place: format!("{place}: {}", file.display()), source },
        }
    }

    /// Creates the error of a broken file.
    pub fn format(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::Format { path: path.as_ref().to_owned(), what: what.into() }
    }

    /// Adds the path to an I/O error: `fs::read(p).map_err(Error::io(p))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.as_ref().to_owned(), source }
    }

    /// Returns the process's exit status for this error (`docs/user/runs.md`).
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Input { .. } | Error::Format { .. } => 2,
            Error::Io { source, .. } if wrong_path(source.kind()) => 2,
            Error::Stopped => 130,
            Error::Rank { exit_code, .. } => *exit_code,
            _ => 1,
        }
    }
}

/// Returns true if the file itself is the reason why it cannot be read: it does not exist, or its content is wrong.
/// Returns false for errors that may not occur again: too many open files, no memory, a failing disk, no permission.
pub fn is_of_file(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let of_file = [Errno::NOENT, Errno::NOTDIR, Errno::ISDIR, Errno::NAMETOOLONG, Errno::LOOP];
    // An error without an error number does not come from a system call: a check of the file or a decoder reported it.
    Errno::from_io_error(error).is_none_or(|errno| of_file.contains(&errno))
}

/// Returns an error of a library with its causes, because many libraries' own texts leave them out.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string);
    causes.collect::<Vec<_>>().join(": ")
}

/// Returns the system's error in words, without the error number.
pub fn words(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{AlreadyExists, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let text = error.to_string();
    let Some(number) = error.raw_os_error() else { return text };
    match error.kind() {
        NotFound => "no such file or directory".to_owned(),
        PermissionDenied => "permission denied".to_owned(),
        IsADirectory => "a directory, expected a file".to_owned(),
        NotADirectory => "not a directory".to_owned(),
        AlreadyExists => "already exists".to_owned(),
        _ => text.replace(&format!(" (os error {number})"), ""),
    }
}

/// Returns true if another path, or other permissions, would avoid the error. `InvalidData` means that the file has the
/// wrong kind or size, or is not UTF-8.
fn wrong_path(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{AlreadyExists, InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(kind, AlreadyExists | NotFound | IsADirectory | NotADirectory | PermissionDenied | InvalidData)
}

//! The one error type. Every variant carries what a user needs to mend the cause:
//! where (file, key, row), what was found, what was expected.

use std::path::{Path, PathBuf};

/// `Result` with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong in omr. [`Error::exit_code`] maps it to the exit status of FORMATS section 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The user's input is wrong: an unknown key, a bad value, a missing column. Exit status 2.
    #[error("{place}: found {found}, expected {expected}{}", hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
    Input {
        /// File, key or row.
        place: String,
        /// What stands there.
        found: String,
        /// What would be right.
        expected: String,
        /// The nearest valid name, or how to go on.
        hint: Option<String>,
    },
    /// A file's content is broken. Exit status 2.
    #[error("{}: {what}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the row or byte offset.
        what: String,
    },
    /// The operating system refused. Exit status 2 when the path is wrong (missing, a folder, no access), else 1.
    #[error("{}: {}", path.display(), words(source))]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The operating system failed on what a row names, which says nothing about the row. Exit status 1.
    #[error("{place}: {}", words(source))]
    Unreadable {
        /// The row, and the file that it names.
        place: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// An op was called with shapes that do not fit: a fault of this program. Exit status 1.
    #[error("{op}: shape {got}, expected {want}")]
    Shape {
        /// The op.
        op: &'static str,
        /// Expected shape.
        want: String,
        /// Shape given.
        got: String,
    },
    /// A region of device memory is too small. Exit status 1.
    #[error("{region} memory: {want} bytes wanted, {have} planned")]
    Memory {
        /// Which region.
        region: &'static str,
        /// Bytes the allocation would need in the region.
        want: usize,
        /// Bytes the region has.
        have: usize,
    },
    /// A loss or gradient is not finite. Exit status 1.
    #[error("step {step}: {what} is not finite; nothing was updated")]
    NonFinite {
        /// The step.
        step: u64,
        /// Loss, gradient norm, or a tensor's name.
        what: String,
    },
    /// A server (teacher, judge) failed for good. Exit status 1.
    #[error("{url}: {what}")]
    Server {
        /// The address asked.
        url: String,
        /// Status, time-out or the broken part of the reply.
        what: String,
    },
    /// Another rank of the run is lost, or has failed and said why. Exit status: the one that rank ended with.
    #[error("{what}")]
    Rank {
        /// Which rank, where, and what became of it.
        what: String,
        /// The exit status of all ranks.
        exit_code: u8,
        /// True where rank 0 has told this one, and says it to people itself.
        told: bool,
    },
    /// A signal stopped the run. Exit status 130.
    #[error("stopped by a signal; run the same command again to go on")]
    Stopped,
    /// Anything else that ended the run. Exit status 1.
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// `place: found X, expected Y`.
    pub fn input(place: impl Into<String>, found: impl Into<String>, expected: impl Into<String>) -> Error {
        Error::Input { place: place.into(), found: found.into(), expected: expected.into(), hint: None }
    }

    /// [`Error::input`] with a hint, such as the nearest valid name.
    pub fn input_hint(
        place: impl Into<String>,
        found: impl Into<String>,
        expected: impl Into<String>,
        hint: impl Into<String>,
    ) -> Error {
        Error::Input { place: place.into(), found: found.into(), expected: expected.into(), hint: Some(hint.into()) }
    }

    /// The same error with `outer` (a file, a row) before its place, unless the place names it.
    pub fn within(self, outer: &str) -> Error {
        match self {
            Error::Input { place, found, expected, hint } if !place.contains(outer) => {
                Error::Input { place: format!("{outer}: {place}"), found, expected, hint }
            }
            Error::Failed(what) => Error::Failed(format!("{outer}: {what}")),
            error => error,
        }
    }

    /// The error of a file that the row at `place` names: the row's fault where the file is not there, or is none that can
    /// be read, else [`Error::Unreadable`].
    pub fn of_row(place: &str, file: &Path, expected: impl Into<String>, source: std::io::Error) -> Error {
        match is_of_file(&source) {
            true => Error::input(place, format!("image {} ({})", file.display(), words(&source)), expected),
            false => Error::Unreadable { place: format!("{place}: {}", file.display()), source },
        }
    }

    /// A broken file.
    pub fn format(path: impl AsRef<Path>, what: impl Into<String>) -> Error {
        Error::Format { path: path.as_ref().to_owned(), what: what.into() }
    }

    /// An I/O error with its path: `fs::read(p).map_err(Error::io(p))`.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.as_ref().to_owned(), source }
    }

    /// The process's exit status for this error (FORMATS section 1).
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

/// True where the file itself is why it cannot be read: it is not there, or holds something else. False for what the next
/// try may not meet: too many open files, no memory, a disk that fails, no permission.
pub fn is_of_file(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let of_file = [Errno::NOENT, Errno::NOTDIR, Errno::ISDIR, Errno::NAMETOOLONG, Errno::LOOP];
    // What no system call said is what a reader found in the file.
    Errno::from_io_error(error).is_none_or(|errno| of_file.contains(&errno))
}

/// What the system said, for people: no number of an error.
pub fn words(error: &std::io::Error) -> String {
    use std::io::ErrorKind::{AlreadyExists, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let text = error.to_string();
    let Some(number) = error.raw_os_error() else { return text };
    match error.kind() {
        NotFound => "is not there".to_owned(),
        PermissionDenied => "may not be read or written by this user".to_owned(),
        IsADirectory => "is a folder, where a file was expected".to_owned(),
        NotADirectory => "a folder was expected, and there is a file".to_owned(),
        AlreadyExists => "is there already".to_owned(),
        _ => text.replace(&format!(" (os error {number})"), ""),
    }
}

/// True where another path, or other rights on it, would have done: `InvalidData` is a text file that is not UTF-8.
fn wrong_path(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{AlreadyExists, InvalidData, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    matches!(kind, AlreadyExists | NotFound | IsADirectory | NotADirectory | PermissionDenied | InvalidData)
}

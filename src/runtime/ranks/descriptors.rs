//! The limit of open files. Each pair of ranks has connections, so the limit bounds the number of ranks.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use omr_base::error::{Error, Result};

/// Maximum number of callers that are served at the same time. Further callers wait until one of these has sent its
/// message or is closed.
pub const AT_ONCE: usize = 128;

/// Files that a rank opens for each rank of the run: the connections for collectives and for control, and their copies.
const EACH: u64 = 4;

/// Files that a rank opens besides: for weights, rows and logs, and for callers that are still unknown.
const OTHERS: u64 = 64 + AT_ONCE as u64;

/// Raises the soft limit of open files to the hard one. Errors if that is too small for `ranks` ranks.
pub fn reserve(ranks: usize) -> Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // A system may refuse the number of its own hard limit.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let (need, have) = (EACH * ranks as u64 + OTHERS, getrlimit(Resource::Nofile).current);
    have.filter(|have| *have < need && ranks > 1).map_or(Ok(()), |have| {
        let hint = "raise the hard limit: ulimit -Hn, LimitNOFILE of systemd, or --ulimit nofile of docker";
        let expected = format!("at least {need} for {ranks} ranks");
        Err(Error::input_hint("the limit of open files", have.to_string(), expected, hint))
    })
}

/// True if a process or the system cannot open more files.
pub fn are_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Returns the error of a process that cannot open the connections to the other ranks.
pub fn exhausted(error: &io::Error) -> Error {
    Error::Failed(format!("the connections between ranks: {error}; raise the limit of open files (ulimit -n)"))
}

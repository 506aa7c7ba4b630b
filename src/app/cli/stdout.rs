//! Standard output, which receives the results of commands.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use omr_base::error::{Error, Result};
use omr_base::observe::shown;

/// The standard output that the process was started with, after [`divert_libraries`].
static RESULTS: OnceLock<File> = OnceLock::new();

/// Sends to stderr what libraries write to stdout from now on, such as NCCL with `NCCL_DEBUG`. Results of the command are
/// still written to stdout.
pub fn divert_libraries() -> Result<()> {
    let keep = || -> io::Result<File> {
        let kept = rustix::io::dup(io::stdout())?.into();
        rustix::stdio::dup2_stdout(rustix::stdio::stderr())?;
        Ok(kept)
    };
    if RESULTS.get().is_none() {
        let _ = RESULTS.set(keep().map_err(Error::io("standard output"))?);
    }
    Ok(())
}

/// Writes a command's result to stdout. It is not an error if the reader has closed the pipe (`omr config | head`).
pub fn print(text: &str) -> Result<()> {
    try_write(Stdout::lock(), text.as_bytes()).map(drop)
}

/// Writes bytes to standard output. Returns false if the reader has closed the pipe.
pub fn try_write(mut stdout: impl Write, bytes: &[u8]) -> Result<bool> {
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).map_err(Error::io("standard output")),
    }
}

/// Writes pieces of text to stdout, with the marked ones in colour on a terminal (unless `NO_COLOR` is set) and between
/// `[[` and `]]` elsewhere.
pub fn print_marked<'a>(pieces: impl Iterator<Item = (bool, &'a str)>) -> Result<()> {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (open, close) = if colour { ("\x1b[30;42m", "\x1b[0m") } else { ("[[", "]]") };
    let piece = |(marked, text): (bool, &str)| {
        let text = shown(text);
        if marked { format!("{open}{text}{close}") } else { text.into_owned() }
    };
    let text: String = pieces.map(piece).collect();
    try_write(io::stdout().lock(), text.as_bytes()).map(drop)
}

/// Standard output. Bytes are written unchanged, except that control sequences are removed for a terminal. Each write
/// must consist of whole characters.
pub struct Stdout {
    out: Box<dyn Write>,
    terminal: bool,
}

impl Stdout {
    /// Locks standard output until the result is written.
    pub fn lock() -> Stdout {
        match RESULTS.get() {
            Some(out) => Stdout { terminal: out.is_terminal(), out: Box::new(out) },
            None => Stdout { terminal: io::stdout().is_terminal(), out: Box::new(io::stdout().lock()) },
        }
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.terminal {
            true => self.out.write_all(shown(&String::from_utf8_lossy(bytes)).as_bytes())?,
            false => self.out.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

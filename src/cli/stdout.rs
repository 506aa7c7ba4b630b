//! Standard output, to which results go.

use std::io::{self, IsTerminal, Write};

use crate::error::{Error, Result};
use crate::observe::shown;

/// Writes a command's result to stdout. A reader that has gone (`omr config | head`) is no fault.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = Stdout::lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::io("standard output")),
    }
}

/// Standard output: bytes as they are, but to a terminal only what does not act on it. Each write is of whole characters.
pub struct Stdout {
    out: io::StdoutLock<'static>,
    terminal: bool,
}

impl Stdout {
    /// Locks standard output for the whole of a result.
    pub fn lock() -> Stdout {
        let out = io::stdout().lock();
        Stdout { terminal: out.is_terminal(), out }
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

//! Output to standard error and `log.txt`. Progress bars, notes and log lines all pass through here, so that they do
//! not interleave.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use omr_base::config::not_one_of;
use omr_base::error::{Error, Result};
use omr_base::observe::shown;
use omr_base::secrets::{self, redacted};

/// Removes the last line of a terminal, and a `^C` behind it.
const CLEAR: &str = "\r\x1b[2K";

/// Destination of all output that is not a result.
#[derive(Clone)]
pub(crate) struct Console {
    inner: Arc<Mutex<Inner>>,
    pub(crate) quiet: bool,
    terminal: bool,
    name: String,
}

struct Inner {
    /// The last line of the terminal, below all other output. Empty if no stage runs.
    bar: String,
    log: Option<File>,
}

impl Console {
    /// Makes a console. With `quiet`, only errors are written to stderr. `name` precedes errors; with several processes
    /// it names the process.
    pub(crate) fn new(quiet: bool, name: String) -> Console {
        // Values of HF_TOKEN, OPENAI_API_KEY and similar variables must not be printed. The message of a server may
        // contain such a value.
        std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(secrets::is_named)).for_each(|(_, value)| {
            secrets::keep(value.to_string_lossy().trim());
        });
        let inner = Arc::new(Mutex::new(Inner { bar: String::new(), log: None }));
        Console { inner, quiet, terminal: io::stderr().is_terminal(), name }
    }

    /// Sends tracing events to stderr and to the log file.
    pub(crate) fn install_tracing(&self, level: &str) -> Result<()> {
        // tracing would treat an unknown level as the name of a module and silence all other modules.
        for part in level.split(',').map(str::trim).filter(|part| !part.contains(['=', ':', '['])) {
            const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
            if !LEVELS.contains(&part.to_ascii_lowercase().as_str()) {
                let expected = "error, warn, info, debug or trace";
                return Err(not_one_of("--log-level", part, expected, LEVELS));
            }
        }
        let filter = |more: &str| {
            EnvFilter::try_new(format!("{level}{more}")).map_err(|error| {
                Error::input("--log-level", format!("{level} ({error})"), "error, warn, info, debug or trace")
            })
        };
        let screen = tracing_subscriber::fmt::layer().with_target(false).with_ansi(false).without_time();
        let screen = screen.with_writer(self.writer(Console::to_screen)).with_filter(filter("")?);
        let log = tracing_subscriber::fmt::layer().with_ansi(false);
        // The stderr of a reward program always goes to the log file, and to the screen only at level debug.
        let log =
            log.with_writer(self.writer(Console::to_log)).with_filter(filter(",omr_data::reward::process=debug")?);
        // In tests a subscriber may already be installed.
        let _ = tracing_subscriber::registry().with(screen).with(log).try_init();
        Ok(())
    }

    /// True if progress bars may be drawn.
    pub(crate) fn draws(&self) -> bool {
        self.terminal && !self.quiet
    }

    /// Appends all further output to `path`, too.
    pub(crate) fn log_to(&self, path: &Path) -> Result<()> {
        let file = File::options().create(true).append(true).open(path).map_err(Error::io(path))?;
        self.lock().log = Some(file);
        Ok(())
    }

    /// Writes a line for the user to stderr (unless quiet) and to the log file.
    pub(crate) fn line(&self, text: &str) {
        let line = format!("{}\n", shown(text));
        self.to_screen(line.as_bytes());
        self.to_log(line.as_bytes());
    }

    /// Writes the single line that explains why the command failed. Several lines of `text` are joined, except the
    /// entries of a list, which begin with `- `.
    pub(crate) fn error(&self, text: &str) {
        let parts: Vec<&str> = text.split('\n').map(str::trim).filter(|part| !part.is_empty()).collect();
        let line = parts.join("; ").replace("; - ", "\n- ").replace(":; ", ": ");
        let line = format!("{}error: {}\n", self.name, shown(&line));
        self.to_stderr(line.as_bytes());
        self.to_log(line.as_bytes());
    }

    /// Writes a line for the user as [`Console::line`] does, also on ranks other than 0, which name themselves.
    pub(crate) fn note_of_rank(&self, text: &str) {
        let line = format!("{}{}\n", self.name, shown(text));
        self.to_stderr(line.as_bytes());
        self.to_log(line.as_bytes());
    }

    /// Draws `bar`, one line that is shorter than the terminal, in the place of the last one. An empty text removes it.
    pub(crate) fn set_bar(&self, bar: String) {
        let mut inner = self.lock();
        if !(inner.bar.is_empty() && bar.is_empty()) {
            let _ = io::stderr().write_all(format!("{CLEAR}{bar}").as_bytes());
        }
        inner.bar = bar;
    }

    /// Appends to the log file only.
    pub(crate) fn to_log(&self, bytes: &[u8]) {
        if let Some(log) = &mut self.lock().log {
            // A failing log must not end the run. If the disk is full, writing the run's own files reports it.
            let _ = log.write_all(redacted(&String::from_utf8_lossy(bytes)).as_bytes());
        }
    }

    /// Writes to stderr unless quiet.
    fn to_screen(&self, bytes: &[u8]) {
        if !self.quiet {
            self.to_stderr(bytes);
        }
    }

    /// Returns a function that makes the writer of events, which passes each event to `send`.
    fn writer(&self, send: fn(&Console, &[u8])) -> impl Fn() -> Events + use<> {
        let console = self.clone();
        move || Events { console: console.clone(), send }
    }

    fn to_stderr(&self, bytes: &[u8]) {
        let inner = self.lock();
        let lossy = String::from_utf8_lossy(bytes);
        let text = redacted(&lossy);
        let text = if self.terminal { wrapped(&text, width()).into() } else { text };
        let clear = if inner.bar.is_empty() { "" } else { CLEAR };
        let _ = io::stderr().write_all(format!("{clear}{text}{}", inner.bar).as_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the number of columns of the terminal on stderr, or 80 if it is unknown.
pub(crate) fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    if size == 0 { 80 } else { size }
}

/// Breaks lines of more than `width` columns between words, because a terminal breaks them inside words. A command at
/// the end of such a line stays whole, on a line of its own, so that it can be copied.
fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for line in text.split_inclusive('\n') {
        let (mut column, mut room) = (0, width);
        for word in line.split_inclusive(' ') {
            let length = word.trim_end().chars().count();
            let is_command = out.ends_with(": ") && word.trim_end().rsplit('/').next() == Some("omr");
            let is_broken = column + length > room || is_command && line.trim_end().chars().count() > width;
            if column > 0 && is_broken {
                out.truncate(out.trim_end_matches(' ').len());
                out.push_str("\n  ");
                (column, room) = (2, if is_command { usize::MAX } else { room });
            }
            out.push_str(word);
            column += word.chars().count();
        }
    }
    out
}

/// Writer of events. The subscriber writes each event in one call.
struct Events {
    console: Console,
    send: fn(&Console, &[u8]),
}

impl Write for Events {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (self.send)(&self.console, bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::wrapped;

    #[test]
    fn long_lines_break_between_words_and_a_command_stays_whole() {
        assert_eq!(wrapped("one two  three\nfour\n", 9), "one two\n  three\nfour\n");
        assert_eq!(wrapped("a/very/long/path is\n", 8), "a/very/long/path\n  is\n");
        let command = "bin/omr serve runs/digits --port 8000\n";
        assert_eq!(wrapped(&format!("to talk to it: {command}"), 20), format!("to talk to it:\n  {command}"));
        assert_eq!(wrapped(&format!("ask: {command}"), 80), format!("ask: {command}"));
    }
}

//! The interface between a long job and its observer: the job reports progress and checks whether it should stop.
//!
//! Modules with long jobs (data, train, rl, eval) take a `&dyn Observer` and do not depend on terminals, progress bars or
//! signals. `cli::progress` implements the one that draws progress bars.

use std::borrow::Cow;
use std::time::Instant;

use crate::error::{Error, Result};

/// Observer of one job at a time. All methods may be called from any thread.
pub trait Observer: Send + Sync {
    /// Begins stage `name`, which has `total` units of work (0 if unknown). An earlier run has done `done` of them.
    fn begin(&self, name: &str, unit: &str, total: u64, done: u64);
    /// Does the same as [`Observer::begin`] for a stage that began at `_since`, which a display counts from.
    fn begun(&self, name: &str, unit: &str, total: u64, done: u64, _since: Instant) {
        self.begin(name, unit, total, done);
    }
    /// Reports that `done` units are done. `figures` are metrics to show beside the bar, in this order.
    fn step(&self, done: u64, figures: &[(&str, f64)]);
    /// Ends the stage.
    fn end(&self);
    /// Reports an important line: a checkpoint, a rejected file, or what was found on resume.
    fn note(&self, line: &str);
    /// Returns true if the user asked to stop. The job then begins nothing new and returns `Error::Stopped`.
    fn stop_requested(&self) -> bool;
    /// Errors with `Error::Stopped` if the user asked to stop.
    fn check_stop(&self) -> Result<()> {
        if self.stop_requested() { Err(Error::Stopped) } else { Ok(()) }
    }
    /// Sets whether there is no time limit for the job to end after a stop request. True while the job has state that
    /// it must save.
    fn patient(&self, _is_patient: bool) {}
}

/// An observer that ignores everything and never requests a stop.
pub struct Silent;

impl Observer for Silent {
    fn begin(&self, _: &str, _: &str, _: u64, _: u64) {}
    fn step(&self, _: u64, _: &[(&str, f64)]) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn stop_requested(&self) -> bool {
        false
    }
}

/// Formats a number of bytes with a unit, for example `1.5 GiB`.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// Makes text safe to show on a terminal. Control characters, except line ends and tabs, are escaped, so text from
/// rows, paths and models cannot move the cursor, change colours or rename the window.
pub fn shown(text: &str) -> Cow<'_, str> {
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_control(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::{bytes, shown};

    #[test]
    fn nothing_that_is_shown_acts_on_a_terminal() {
        assert_eq!(shown("\u{1b}]0;x\u{7}\u{9b}2J\r a\tb\n"), "\\u{1b}]0;x\\u{7}\\u{9b}2J\\r a\tb\n");
    }

    #[test]
    fn sizes_are_said_as_people_do() {
        assert_eq!((bytes(12), bytes(1536 << 20)), ("12 B".to_owned(), "1.5 GiB".to_owned()));
    }
}

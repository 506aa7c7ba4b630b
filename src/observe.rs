//! What long work tells whoever watches it, and what it asks them.
//!
//! Rooms that work for long (data, train, rl, eval) take a `&dyn Observer` and never know of terminals,
//! progress bars or signals; `cli::progress` is the one that draws.

use std::borrow::Cow;

/// Watches one job at a time. All methods may be called from any thread.
pub trait Observer: Send + Sync {
    /// Stage `name` begins: `total` units of work (0 when unknown), `done` of them done by an earlier run.
    fn begin(&self, name: &str, unit: &str, total: u64, done: u64);
    /// `done` units are done; `figures` are shown beside the bar, in this order.
    fn step(&self, done: u64, figures: &[(&str, f64)]);
    /// The stage is over.
    fn end(&self);
    /// A line worth reading: a checkpoint, a rejected file, what was found on resume.
    fn note(&self, line: &str);
    /// True once the user asked to stop: begin nothing new, return `Error::Stopped`.
    fn stop_requested(&self) -> bool;
    /// Whether the work under way, asked to stop, has things to put in order that are waited for however long it takes.
    fn patient(&self, _is_patient: bool) {}
}

/// Sees nothing and never asks to stop.
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

/// Bytes as people say them.
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

/// Text as it may be shown on a terminal: what rows, paths and models say cannot move its cursor, colour it or rename its
/// window. Control characters, line ends and tabs aside, are written out.
pub fn shown(text: &str) -> Cow<'_, str> {
    let acts = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts(c) { out.extend(c.escape_default()) } else { out.push(c) }
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

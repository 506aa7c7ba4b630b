//! Progress on stderr: on a terminal a bar with metrics and the remaining time, otherwise plain lines.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::console::{Console, width};
use omr_base::observe::{Observer, shown};
use omr_base::signal;

/// Minimum interval between two plain lines. One more is printed at the end of each stage.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Minimum interval between two drawings of the bar.
const DRAW_EVERY: Duration = Duration::from_millis(50);

/// The remaining time is estimated once one part in this many is done.
const RELIABLE: u64 = 50;

/// The [`Observer`] of the command line.
pub struct Progress {
    console: Console,
    stage: Mutex<Option<Stage>>,
}

struct Stage {
    name: String,
    unit: String,
    total: u64,
    first: u64,
    done: u64,
    begun: Instant,
    printed: Instant,
    /// Progress at the time of the last line.
    reported: Option<u64>,
    figures: String,
}

impl Progress {
    pub(crate) fn new(console: Console) -> Progress {
        Progress { console, stage: Mutex::new(None) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Stage>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stage {
    /// Describes the progress for a terminal of `columns` columns. The two columns that are left free are those of a
    /// `^C`; with them, the terminal would begin another line.
    fn bar(&self, columns: usize) -> String {
        let [count, time] = self.counts();
        let name = shown(&self.name);
        let size = if self.total == 0 { 0 } else { columns / 8 };
        let filled = (size as f64 * self.done.min(self.total) as f64 / self.total.max(1) as f64) as usize;
        let bar = "━".repeat(filled) + &"╌".repeat(size - filled);
        let text = format!("{count}  {time}  {}", self.figures);
        let room = columns.saturating_sub(name.chars().count() + size + 5);
        let cut: String = text.chars().take(room).collect();
        let cut = if cut.len() < text.len() { cut.rsplit_once("  ").map_or("", |(cut, _)| cut) } else { &cut };
        format!("{name} {bar} {cut}")
    }

    fn line(&self) -> String {
        let [count, time] = self.counts();
        let figures = if self.figures.is_empty() { String::new() } else { format!("  {}", self.figures) };
        format!("{} {count}{figures}  {time}", self.name)
    }

    /// Returns the number of units done, and the elapsed and the remaining time.
    fn counts(&self) -> [String; 2] {
        let elapsed = self.begun.elapsed();
        let total = if self.total > 0 { format!("/{}", self.total) } else { String::new() };
        let mut time = duration(elapsed);
        let here = self.done.saturating_sub(self.first);
        // The first answers end long after their start, because many are computed at once.
        if self.total > self.done && here > 0 && here * RELIABLE >= self.total - self.first {
            let left = elapsed.mul_f64((self.total - self.done) as f64 / here as f64);
            time.push_str(&format!(", {} left", duration(left)));
        }
        [format!("{}{total} {}", self.done, self.unit), time]
    }
}

impl Observer for Progress {
    fn begin(&self, name: &str, unit: &str, total: u64, done: u64) {
        self.begun(name, unit, total, done, Instant::now());
    }

    fn begun(&self, name: &str, unit: &str, total: u64, done: u64, begun: Instant) {
        self.end();
        signal::listen(true);
        let printed = Instant::now();
        let (name, unit, figures) = (name.to_owned(), unit.to_owned(), String::new());
        let stage = Stage { name, unit, total, first: done, done, begun, printed, reported: None, figures };
        if self.console.draws() {
            self.console.set_bar(stage.bar(width()));
        }
        *self.lock() = Some(stage);
    }

    fn step(&self, done: u64, figures: &[(&str, f64)]) {
        let mut guard = self.lock();
        let Some(stage) = guard.as_mut() else { return };
        stage.done = done;
        if !figures.is_empty() {
            let shown: Vec<_> = figures.iter().map(|(name, value)| format!("{name} {}", figure(*value))).collect();
            stage.figures = shown.join("  ");
        }
        let draws = self.console.draws();
        if self.console.quiet || stage.printed.elapsed() < if draws { DRAW_EVERY } else { LINE_EVERY } {
            return;
        }
        stage.printed = Instant::now();
        if draws {
            self.console.set_bar(stage.bar(width()));
        } else {
            stage.reported = Some(done);
            self.console.line(&stage.line());
        }
    }

    fn end(&self) {
        signal::listen(false);
        let Some(stage) = self.lock().take() else { return };
        self.console.set_bar(String::new());
        if stage.reported != Some(stage.done) {
            self.console.line(&stage.line());
        }
    }

    fn note(&self, line: &str) {
        self.console.line(line);
    }

    fn stop_requested(&self) -> bool {
        signal::stop_requested()
    }

    fn patient(&self, is_patient: bool) {
        signal::wait(is_patient);
    }
}

/// Formats a metric with four significant digits. Integers have no decimal point.
fn figure(value: f64) -> String {
    let size = value.abs();
    if value.fract() == 0.0 {
        format!("{value}")
    } else if size >= 1000.0 {
        format!("{value:.0}")
    } else if size >= 1e-3 {
        let digits = 3 - (size.log10().floor() as i32).min(3);
        format!("{value:.*}", digits.clamp(0, 4) as usize)
    } else {
        format!("{value:.1e}")
    }
}

/// Formats a duration: `8.2 s`, `3 min 05 s`, `2 h 07 min`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let whole = seconds.round() as u64;
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if whole < 60 {
        format!("{whole} s")
    } else if whole < 3600 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else {
        format!("{} h {:02} min", whole / 3600, whole % 3600 / 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown: Vec<_> = [0.0, 0.51234, 3e-4, 12.3456, 39.0, 123456.7, 2e7].iter().map(|v| figure(*v)).collect();
        assert_eq!(shown, ["0", "0.5123", "3.0e-4", "12.35", "39", "123457", "20000000"]);
    }

    #[test]
    fn times_are_said_as_people_do() {
        assert_eq!(duration(Duration::from_secs_f64(8.21)), "8.2 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 05 s");
        assert_eq!(duration(Duration::from_secs(7620)), "2 h 07 min");
    }
}

//! The spans of a training step: the times at which it samples, scores, computes passes and so on. Each line of
//! `metrics.jsonl` contains them, and the report shows them on a time axis.
//!
//! The host's clock measures work that the host does or waits for. Passes and updates are only queued on a GPU, so events
//! on the compute stream measure them there. The events are read after the step's last wait for the device.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Instant;

use serde_json::{Value, json};

use super::slow_rank::RankTimes;
use omr_base::choice::choice;
use omr_base::error::Result;
use omr_runtime::device::{Device, Event, Stream};

/// Name of the metric that contains the spans of a step: a list of `[activity, start, end]`, in seconds from the step's
/// start.
pub const SPANS: &str = "timing_s/spans";

/// Gap below which two spans of an activity are merged, as a share of the step.
const GAP: f64 = 0.005;

choice! {
    /// The work that a span measures, with its name in `metrics.jsonl` and in the report, which shows them in this order.
    #[derive(PartialOrd, Ord)]
    pub enum Activity {
        /// Generation of responses.
        Sampling = "sampling",
        /// At least one response waits for its score. Sampling can continue at the same time.
        Scoring = "scoring",
        /// Log-probs of the reference model.
        Reference = "reference",
        /// Forward and backward of a micro-batch.
        Passes = "passes",
        /// The host waits for other ranks, within another activity or between two.
        Exchange = "exchange",
        /// The optimizer.
        Update = "update",
        /// The step waits for a checkpoint. One that is saved between two steps has negative times in the second.
        Checkpoint = "checkpoint",
    }
}

/// Records the spans of the current step. Clones record into the same step.
#[derive(Clone, Default)]
pub struct Timeline(Rc<RefCell<Recording>>);

#[derive(Default)]
struct Recording {
    /// Start of the step, by the host's clock.
    begun: Option<Instant>,
    /// Spans by the host's clock.
    spans: Vec<(Activity, Range<Instant>)>,
    /// Events on the compute stream, which every step records again: the start of the step, then the start, the end of
    /// the forward pass and the end of each activity in `queued`.
    events: Vec<Event>,
    /// Activities that the compute stream runs.
    queued: Vec<Queued>,
    /// End of the forward pass of the activity in progress, by the host's clock.
    forward_end: Option<Instant>,
    /// Seconds of each forward pass that the host has run.
    forwards: Vec<f64>,
}

struct Queued {
    activity: Activity,
    /// True if the end of its forward pass was recorded.
    has_forward: bool,
}

impl Timeline {
    /// Begins a step and returns the time.
    pub fn begin(&self, dev: &mut Device) -> Result<Instant> {
        let mut recording = self.0.borrow_mut();
        let begun = Instant::now();
        recording.begun = Some(begun);
        recording.queued.clear();
        recording.forwards.clear();
        recording.record(dev, 0)?;
        Ok(begun)
    }

    /// Runs `work`, which the host does or waits for, as a span of `activity`.
    pub fn host<R>(&self, activity: Activity, work: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let done = work();
        self.add(activity, [start..Instant::now()]);
        done
    }

    /// Runs `work`, whose ops are queued on a GPU and run at once on the CPU, as a span of `activity`. Does not wait for
    /// the device.
    pub fn queued<R>(
        &self,
        dev: &mut Device,
        activity: Activity,
        work: impl FnOnce(&mut Device) -> Result<R>,
    ) -> Result<R> {
        self.0.borrow_mut().forward_end = None;
        if dev.driver().is_none() {
            let start = Instant::now();
            let done = self.host(activity, || work(dev));
            let Recording { forward_end, forwards, .. } = &mut *self.0.borrow_mut();
            forwards.extend(forward_end.take().map(|end| (end - start).as_secs_f64()));
            return done;
        }
        let first = 1 + 3 * self.0.borrow().queued.len();
        self.0.borrow_mut().record(dev, first)?;
        let done = work(dev)?;
        let mut recording = self.0.borrow_mut();
        recording.record(dev, first + 2)?;
        let has_forward = recording.forward_end.take().is_some();
        recording.queued.push(Queued { activity, has_forward });
        Ok(done)
    }

    /// Records that the forward pass of the queued activity has ended and its backward pass begins. Later calls within
    /// the activity do nothing.
    pub fn forward_ends(&self, dev: &mut Device) -> Result<()> {
        let mut recording = self.0.borrow_mut();
        if recording.forward_end.replace(Instant::now()).is_some() {
            return Ok(());
        }
        let number = 2 + 3 * recording.queued.len();
        recording.record(dev, number)
    }

    /// Adds spans by the host's clock.
    pub fn add(&self, activity: Activity, spans: impl IntoIterator<Item = Range<Instant>>) {
        self.0.borrow_mut().spans.extend(spans.into_iter().map(|span| (activity, span)));
    }

    /// Ends the step. Returns its spans, rounded to a microsecond, as the value of [`SPANS`], and this rank's times. Of
    /// the spans before the step, only those of checkpoints are kept. Call it after the step's last wait for the device.
    pub fn end(&self, dev: &mut Device) -> Result<(Value, RankTimes)> {
        let Recording { begun, spans, events, queued, forwards, .. } = &mut *self.0.borrow_mut();
        let Some(begun) = *begun else { return Ok((json!([]), RankTimes::default())) };
        let since = |at: Instant| {
            let before = begun.saturating_duration_since(at).as_secs_f64();
            at.saturating_duration_since(begun).as_secs_f64() - before
        };
        let host = spans.drain(..).map(|(activity, span)| (activity, since(span.start)..since(span.end)));
        let kept = host.filter(|(activity, span)| span.end > 0.0 || *activity == Activity::Checkpoint);
        let mut all: Vec<(Activity, Range<f64>)> = kept.collect();
        if let Some(driver) = dev.driver() {
            for (Queued { activity, has_forward }, ends) in queued.drain(..).zip(events[1..].chunks(3)) {
                let mut at =
                    |event: Event| -> Result<f64> { Ok(f64::from(driver.elapsed_ms(events[0], event)?) / 1e3) };
                let span = at(ends[0])?..at(ends[2])?;
                if has_forward {
                    forwards.push(at(ends[1])? - span.start);
                }
                all.push((activity, span));
            }
        }
        let covered = |of: &[Activity]| covered(all.iter().filter(|(activity, _)| of.contains(activity)));
        let times = RankTimes {
            rollouts: covered(&[Activity::Sampling, Activity::Scoring]),
            forward: forwards.iter().sum::<f64>() / forwards.len().max(1) as f64,
            exchange: covered(&[Activity::Exchange]),
        };
        // The sum with 0 turns a rounded -0 into 0.
        let rounded = |seconds: f64| (seconds * 1e6).round() / 1e6 + 0.0;
        let all = merged(all, GAP * begun.elapsed().as_secs_f64()).into_iter();
        let all = all.map(|(activity, span)| (activity.name(), rounded(span.start), rounded(span.end)));
        Ok((all.filter(|(_, start, end)| start < end).map(|span| json!(span)).collect(), times))
    }
}

/// Returns the seconds of the step that the spans cover.
fn covered<'a>(spans: impl Iterator<Item = &'a (Activity, Range<f64>)>) -> f64 {
    let mut spans: Vec<&Range<f64>> = spans.map(|(_, span)| span).collect();
    spans.sort_by(|a, b| a.start.total_cmp(&b.start));
    let (mut end, mut sum) = (0.0, 0.0);
    for span in spans {
        sum += (span.end - f64::max(span.start, end)).max(0.0);
        end = f64::max(end, span.end);
    }
    sum
}

impl Recording {
    /// Records event `number` on the compute stream, if the device has one.
    fn record(&mut self, dev: &mut Device, number: usize) -> Result<()> {
        let Some(driver) = dev.driver() else { return Ok(()) };
        while self.events.len() <= number {
            self.events.push(driver.event()?);
        }
        driver.record(self.events[number], Stream::COMPUTE) // exempt: only times depend on it
    }
}

/// Sorts spans by activity and start, and merges those of an activity whose gap is below `gap`.
fn merged(mut spans: Vec<(Activity, Range<f64>)>, gap: f64) -> Vec<(Activity, Range<f64>)> {
    spans.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.start.total_cmp(&b.1.start)));
    let mut out: Vec<(Activity, Range<f64>)> = Vec::new();
    for (activity, span) in spans {
        match out.last_mut() {
            Some((last, before)) if *last == activity && span.start - before.end < gap => {
                before.end = before.end.max(span.end);
            }
            _ => out.push((activity, span)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_before_the_step_and_seconds_in_two_spans_count_once() {
        let spans = [(-1.0, 1.0), (4.0, 6.0), (0.5, 2.0), (5.0, 5.5)];
        assert_eq!(covered(spans.map(|(start, end)| (Activity::Scoring, start..end)).iter()), 4.0);
    }

    #[test]
    fn neighbours_of_one_activity_are_merged() {
        let span = |activity, start, end| (activity, start..end);
        use Activity::{Passes, Scoring};
        let spans = vec![
            span(Passes, 5.0, 6.0),
            span(Scoring, 0.0, 3.0),
            span(Scoring, 1.0, 2.0),
            span(Passes, 6.04, 7.0),
            span(Passes, 7.06, 8.0),
            span(Scoring, 3.0, 4.0),
        ];
        let expected = vec![span(Scoring, 0.0, 4.0), span(Passes, 5.0, 7.0), span(Passes, 7.06, 8.0)];
        assert_eq!(merged(spans, 0.05), expected);
        // Micro-batches that follow each other closely become one span, and however many spans there are, the gaps
        // between those that remain fill the step.
        let many = |gap: f64| (0..10_000).map(move |i| span(Passes, i as f64, (i + 1) as f64 - gap)).collect();
        assert_eq!(merged(many(0.01), GAP * 10_000.0).len(), 1);
        let sparse = (0..10_000).map(|i| span(Passes, f64::from(i), f64::from(i) + 0.5)).collect();
        assert!(merged(sparse, GAP * 10_000.0).len() <= (1.0 / GAP) as usize + 1);
    }
}

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

use crate::device::{Device, Event, Stream};
use crate::error::{Error, Result};
use crate::ranks::Ranks;
use crate::tensor::Tensor;

/// Name of the metric that contains the spans of a step: a list of `[activity, start, end]`, in seconds from the step's
/// start.
pub const SPANS: &str = "timing_s/spans";

/// Gap below which two spans of an activity are merged, as a share of the step.
const GAP: f64 = 0.005;

/// The work that a span measures.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Activity {
    /// Generation of responses.
    Sampling,
    /// At least one response waits for its score. Sampling can continue at the same time.
    Scoring,
    /// Log-probs of the reference model.
    Reference,
    /// Forward and backward of a micro-batch.
    Passes,
    /// The host waits for other ranks.
    Exchange,
    /// The optimizer.
    Update,
    /// The step waits for a checkpoint. A checkpoint that is saved between two steps has negative times in the second.
    Checkpoint,
}

impl Activity {
    /// The activities in the order in which the report shows them.
    pub const ALL: [Activity; 7] = [
        Activity::Sampling,
        Activity::Scoring,
        Activity::Reference,
        Activity::Passes,
        Activity::Exchange,
        Activity::Update,
        Activity::Checkpoint,
    ];

    /// Returns the name used in `metrics.jsonl` and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Activity::Sampling => "sampling",
            Activity::Scoring => "scoring",
            Activity::Reference => "reference",
            Activity::Passes => "passes",
            Activity::Exchange => "exchange",
            Activity::Update => "update",
            Activity::Checkpoint => "checkpoint",
        }
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
    /// Activities of the host in progress, the innermost last, and the time since which each has not been interrupted.
    open: Vec<(Activity, Instant)>,
    /// Events on the compute stream, which every step records again: the start of the step, then the start and the end
    /// of each activity in `queued`.
    events: Vec<Event>,
    /// Activities that the compute stream runs.
    queued: Vec<Activity>,
}

impl Timeline {
    /// Begins a step and returns the time. Of the spans since the last step, only those of checkpoints are kept.
    pub fn begin(&self, dev: &mut Device) -> Result<Instant> {
        let mut recording = self.0.borrow_mut();
        let begun = Instant::now();
        recording.begun = Some(begun);
        recording.spans.retain(|(activity, _)| *activity == Activity::Checkpoint);
        recording.queued.clear();
        recording.record(dev, 0)?;
        Ok(begun)
    }

    /// Runs `work`, which the host does or waits for, as a span of `activity`. A span inside `work` interrupts this one.
    pub fn host<R>(&self, activity: Activity, work: impl FnOnce() -> R) -> R {
        self.0.borrow_mut().open(activity);
        let done = work();
        self.0.borrow_mut().close();
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
        if dev.driver().is_none() {
            return self.host(activity, || work(dev));
        }
        let first = 1 + 2 * self.0.borrow().queued.len();
        self.0.borrow_mut().record(dev, first)?;
        let done = work(dev)?;
        let mut recording = self.0.borrow_mut();
        recording.record(dev, first + 1)?;
        recording.queued.push(activity);
        Ok(done)
    }

    /// Adds spans by the host's clock.
    pub fn add(&self, activity: Activity, spans: impl IntoIterator<Item = Range<Instant>>) {
        self.0.borrow_mut().spans.extend(spans.into_iter().map(|span| (activity, span)));
    }

    /// Ends the step and returns its spans, rounded to 0.1 ms, as the value of [`SPANS`]. Call it after the step's last
    /// wait for the device.
    pub fn end(&self, dev: &mut Device) -> Result<Value> {
        let Recording { begun, spans, events, queued, .. } = &mut *self.0.borrow_mut();
        let Some(begun) = *begun else { return Ok(json!([])) };
        let since = |at: Instant| {
            let before = begun.saturating_duration_since(at).as_secs_f64();
            at.saturating_duration_since(begun).as_secs_f64() - before
        };
        let host = spans.drain(..).map(|(activity, span)| (activity, since(span.start)..since(span.end)));
        let mut all: Vec<(Activity, Range<f64>)> = host.collect();
        if let Some(driver) = dev.driver() {
            for (activity, ends) in queued.drain(..).zip(events[1..].chunks(2)) {
                let mut at =
                    |event: Event| -> Result<f64> { Ok(f64::from(driver.elapsed_ms(events[0], event)?) / 1e3) };
                all.push((activity, at(ends[0])?..at(ends[1])?));
            }
        }
        // The sum with 0 turns a rounded -0 into 0.
        let rounded = |seconds: f64| (seconds * 1e4).round() / 1e4 + 0.0;
        let all = merged(all, GAP * begun.elapsed().as_secs_f64()).into_iter();
        let all = all.map(|(activity, span)| (activity.name(), rounded(span.start), rounded(span.end)));
        Ok(all.filter(|(_, start, end)| start < end).map(|span| json!(span)).collect())
    }
}

impl Recording {
    fn open(&mut self, activity: Activity) {
        let now = Instant::now();
        self.interrupt(now);
        self.open.push((activity, now));
    }

    fn close(&mut self) {
        let now = Instant::now();
        self.interrupt(now);
        self.open.pop();
        self.open.iter_mut().last().into_iter().for_each(|(_, since)| *since = now);
    }

    /// Ends the span of the innermost activity at `now`.
    fn interrupt(&mut self, now: Instant) {
        self.spans.extend(self.open.last().map(|(activity, since)| (*activity, *since..now)));
    }

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

/// The ranks of a run whose waits are spans of [`Activity::Exchange`], except those of a checkpoint, which belong to it.
pub struct TimedRanks<'r> {
    ranks: &'r mut dyn Ranks,
    timeline: Timeline,
}

impl<'r> TimedRanks<'r> {
    /// Records the waits for `ranks` in `timeline`.
    pub fn new(ranks: &'r mut dyn Ranks, timeline: Timeline) -> TimedRanks<'r> {
        TimedRanks { ranks, timeline }
    }

    fn timed<R>(&mut self, work: impl FnOnce(&mut dyn Ranks) -> R) -> R {
        let saves = self.timeline.0.borrow().open.last().is_some_and(|(activity, _)| *activity == Activity::Checkpoint);
        match saves || self.ranks.size() == 1 {
            true => work(self.ranks),
            false => self.timeline.host(Activity::Exchange, || work(self.ranks)),
        }
    }
}

impl Ranks for TimedRanks<'_> {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn name(&self, rank: usize) -> String {
        self.ranks.name(rank)
    }

    fn gather(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.timed(|ranks| ranks.gather(what, bytes))
    }

    fn await_all(&mut self, what: &'static str, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.timed(|ranks| ranks.await_all(what, bytes))
    }

    fn exchange(
        &mut self,
        dev: &mut Device,
        what: &'static str,
        send: &[Vec<Tensor>],
        recv: &[Vec<Tensor>],
    ) -> Result<()> {
        self.timed(|ranks| ranks.exchange(dev, what, send, recv))
    }

    fn settle(&mut self, dev: &mut Device, what: &'static str) -> Result<()> {
        self.timed(|ranks| ranks.settle(dev, what))
    }

    fn all_gather(&mut self, dev: &mut Device, what: &'static str, owned: &[(usize, Tensor)]) -> Result<()> {
        self.timed(|ranks| ranks.all_gather(dev, what, owned))
    }

    fn sent(&self) -> u64 {
        self.ranks.sent()
    }

    fn leave(&mut self, outcome: std::result::Result<(), &Error>) -> Result<()> {
        self.ranks.leave(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_span_inside_another_interrupts_it() {
        let timeline = Timeline::default();
        let inner = || timeline.host(Activity::Exchange, || ());
        timeline.host(Activity::Passes, inner);
        let spans = timeline.0.borrow().spans.clone();
        let names: Vec<&str> = spans.iter().map(|(activity, _)| activity.name()).collect();
        assert_eq!(names, ["passes", "exchange", "passes"]);
        assert!(spans.windows(2).all(|pair| pair[0].1.end == pair[1].1.start));
    }
}

//! The image of a step: its spans on a time axis, with one lane per activity, and the time of each activity.

use serde::Serialize;

use super::Table;
use omr_train::training::metrics::Metrics;
use omr_train::training::timeline::{Activity, SPANS};

/// Horizontal ends of the time axis in the image.
const ACROSS: [f64; 2] = [112.0, 700.0];
/// Height of a lane, and of the time axis below the lanes.
const HEIGHTS: [usize; 2] = [26, 34];
/// Maximum number of intervals on the time axis.
const INTERVALS: f64 = 8.0;

/// An image of the median step of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepImage {
    /// Number of the step.
    number: u64,
    /// Duration of the step in seconds, as text.
    seconds: String,
    /// True if a span begins before the step.
    begins_before: bool,
    /// Height of the image.
    height: usize,
    /// Positions on the time axis, with their labels.
    ticks: Vec<(f64, String)>,
    lanes: Vec<Lane>,
    /// Number of steps in the table.
    count: usize,
    /// Times of each activity.
    table: Table,
}

/// The spans of one activity.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Lane {
    name: &'static str,
    spans: Vec<Bar>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Bar {
    x: f64,
    width: f64,
    label: String,
}

/// A step as its line in `metrics.jsonl` describes it.
struct Step {
    number: u64,
    seconds: f64,
    /// Name of the activity, start and end.
    spans: Vec<(String, f64, f64)>,
}

impl Step {
    /// Reads a step. Returns `None` if its spans or its duration are missing.
    fn of(metrics: &Metrics) -> Option<Step> {
        let seconds = metrics.get("timing_s/step")?.as_f64().filter(|&seconds| seconds > 0.0)?;
        let spans = serde_json::from_value(metrics.get(SPANS)?.clone()).ok()?;
        Some(Step { number: metrics.get("step")?.as_u64()?, seconds, spans })
    }

    /// Returns the start and end of each span of `name`.
    fn spans<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (f64, f64)> + 'a {
        self.spans.iter().filter(move |span| span.0 == name).map(|span| (span.1, span.2))
    }

    fn time(&self, name: &str) -> f64 {
        // The sum of no f64 values would be -0.
        self.spans(name).fold(0.0, |time, (start, end)| time + end - start)
    }

    /// Returns the time of the step that no span covers.
    fn gaps(&self) -> f64 {
        let mut spans: Vec<(f64, f64)> = self.spans.iter().map(|span| (span.1, span.2)).collect();
        spans.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut gaps, mut covered) = (0.0, 0.0);
        for (start, end) in spans {
            gaps += f64::max(start.min(self.seconds) - covered, 0.0);
            covered = end.clamp(covered, self.seconds.max(covered));
        }
        gaps + self.seconds - covered
    }
}

/// Returns the image of the median step of `steps`, or `None` if no step has spans.
pub fn image(steps: &[Metrics]) -> Option<StepImage> {
    let mut steps: Vec<Step> = steps.iter().filter_map(Step::of).filter(|step| !step.spans.is_empty()).collect();
    steps.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let step = steps.get(steps.len().checked_sub(1)? / 2)?;
    let low = step.spans.iter().fold(0.0, |low: f64, span| low.min(span.1));
    let high = step.spans.iter().fold(step.seconds, |high, span| high.max(span.2));
    let x = |seconds: f64| ACROSS[0] + (seconds - low) / (high - low) * (ACROSS[1] - ACROSS[0]);
    let bar = |(start, end): (f64, f64)| {
        let label = format!("{} to {} s", rounded(start), rounded(end));
        Bar { x: x(start), width: f64::max(x(end) - x(start), 1.0), label }
    };
    let names = Activity::ALL.iter().map(|(name, _)| *name);
    let names: Vec<&str> = names.filter(|name| steps.iter().any(|step| step.spans(name).next().is_some())).collect();
    let lane = |name: &&'static str| Lane { name, spans: step.spans(name).map(bar).collect() };
    let tick = interval(high - low);
    let ticks = ((low / tick).ceil() as i64..=(high / tick).floor() as i64).map(|i| {
        let seconds = i as f64 * tick;
        (x(seconds), format!("{} s", rounded(seconds)))
    });
    let mut rows: Vec<Vec<String>> =
        names.iter().map(|name| row(name, &steps, |step: &Step| step.time(name))).collect();
    rows.push(row("other", &steps, Step::gaps));
    Some(StepImage {
        number: step.number,
        seconds: rounded(step.seconds),
        begins_before: low < 0.0,
        height: HEIGHTS[0] * names.len() + HEIGHTS[1],
        ticks: ticks.collect(),
        lanes: names.iter().map(lane).collect(),
        count: steps.len(),
        table: Table { head: ["", "Seconds", "Share of the step", "Longest"].map(str::to_owned).to_vec(), rows },
    })
}

/// Returns a row of the table: medians of `time` and of its share of a step, and the maximum of `time`.
fn row(name: &str, steps: &[Step], time: impl Fn(&Step) -> f64) -> Vec<String> {
    let sorted = |of: &dyn Fn(&Step) -> f64| {
        let mut values: Vec<f64> = steps.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (times, shares) = (sorted(&time), sorted(&|step| time(step) / step.seconds));
    let middle = (steps.len() - 1) / 2;
    let share = format!("{:.1} %", 100.0 * shares[middle]);
    vec![name.to_owned(), rounded(times[middle]), share, rounded(times[times.len() - 1])]
}

/// Formats seconds with a precision of a millisecond, or with more digits if they are fewer.
fn rounded(seconds: f64) -> String {
    let digits = if seconds.abs() < 1.0 { 4 } else { 3 };
    let text = format!("{seconds:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns the distance of ticks on an axis of this length: 1, 2 or 5 times a power of ten.
fn interval(length: f64) -> f64 {
    let power = 10f64.powf((length / INTERVALS).log10().floor());
    let mut ticks = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power);
    ticks.find(|tick| length / tick <= INTERVALS).unwrap_or(power)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use omr_train::training::metrics::object;

    #[test]
    fn the_median_step_is_drawn_and_its_gaps_are_counted() {
        let line = |step: u64, seconds: f64| {
            let mut spans = vec![
                json!(["sampling", 0.1 * seconds, 0.5 * seconds]),
                json!(["scoring", 0.2 * seconds, 0.6 * seconds]),
                json!(["passes", 0.7 * seconds, seconds]),
            ];
            spans.extend((step == 2).then(|| json!(["checkpoint", -1.0, 0.0])));
            object(json!({"step": step, "timing_s/step": seconds, "timing_s/spans": spans}))
        };
        let steps = [line(1, 50.0), line(2, 4.0), line(3, 2.0), object(json!({"step": 4, "timing_s/step": 3.0}))];
        let image = image(&steps).unwrap();
        assert_eq!((image.number, image.count, image.begins_before), (2, 3, true));
        let names: Vec<&str> = image.lanes.iter().map(|lane| lane.name).collect();
        assert_eq!(names, ["sampling", "scoring", "passes", "checkpoint"]);
        let labels: Vec<&str> = image.ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!(labels, ["-1 s", "0 s", "1 s", "2 s", "3 s", "4 s"]);
        let checkpoint = &image.lanes[3].spans[0];
        assert!((checkpoint.x - ACROSS[0]).abs() < 1e-9 && (checkpoint.width - 588.0 / 5.0).abs() < 1e-9);
        assert_eq!(image.table.rows[0], ["sampling", "1.6", "40.0 %", "20"]);
        assert_eq!(image.table.rows[3], ["checkpoint", "0", "0.0 %", "1"]);
        assert_eq!(image.table.rows[4], ["other", "0.8", "20.0 %", "10"]);
        assert!(super::image(&steps[3..]).is_none(), "steps without spans");
    }
}

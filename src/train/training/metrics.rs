//! Writes `metrics.jsonl` and, if wanted, `tensorboard/`: one entry per step, in the order of the steps, each step once.
//!
//! A run that resumes from a checkpoint at step N first truncates both files to step N. Therefore a run that was killed
//! leaves the same lines as a run that was never stopped, except for times (`timing_s/*` and `perf/*`).

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::tensorboard::EventWriter;
pub use super::tensorboard::WALL_TIME;
use omr_base::config::{InputKind, ReportTo};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::identity::{self, Inputs};
use omr_base::observe::Observer;
use omr_model::checkpoint::State;
use omr_runtime::device::Device;

/// The metrics of one step, under the names that verl and lmms-engine use.
pub type Metrics = Map<String, Value>;

/// Returns the members of a JSON object. Panics if `value` is not an object.
pub fn object(value: Value) -> Metrics {
    match value {
        Value::Object(map) => map,
        other => unreachable!("not an object: {other}"),
    }
}

/// Appends steps to the metrics files of a run directory. On a rank that writes no files, it only keeps the number of
/// the last step.
pub struct MetricsLog {
    files: Option<Files>,
    /// True if the log contained steps when it was opened.
    pub has_steps: bool,
    /// Number of the last step in the log.
    pub last_step: u64,
    /// Hash of the steps so far; see [`digest`].
    hasher: blake3::Hasher,
}

struct Files {
    path: PathBuf,
    file: File,
    events: Option<EventWriter>,
}

impl MetricsLog {
    /// Opens `dir/metrics.jsonl` and, if `report_to` contains it, `dir/tensorboard/`. Drops all steps above `resume_step`
    /// and an incomplete last line. Errors if the folder cannot be written.
    pub fn open(dir: &Path, resume_step: u64, report_to: &[ReportTo]) -> Result<MetricsLog> {
        let path = dir.join("metrics.jsonl");
        let kept = cut_back(&path, resume_step)?;
        let text: String = kept.iter().map(line).collect();
        files::write(&path, text.as_bytes())?;
        let file = File::options().append(true).open(&path).map_err(Error::io(&path))?;
        let first = kept.first().and_then(|step| step.get(WALL_TIME)?.as_f64());
        let create = || EventWriter::create(&dir.join("tensorboard"), first.unwrap_or_else(wall_time));
        let mut events = report_to.contains(&ReportTo::Tensorboard).then(create).transpose()?;
        if let Some(events) = &mut events {
            kept.iter().try_for_each(|metrics| events.step(metrics))?;
        }
        let files = Some(Files { path, file, events });
        Ok(MetricsLog { files, has_steps: !kept.is_empty(), last_step: resume_step, hasher: digest(&kept) })
    }

    /// Creates the log of a rank that writes no files.
    pub fn elsewhere(resume_step: u64, has_steps: bool) -> MetricsLog {
        MetricsLog { files: None, has_steps, last_step: resume_step, hasher: blake3::Hasher::new() }
    }

    /// Waits until all lines are on disk, and returns the hash of all steps. The hash does not cover times.
    pub fn settle(&self) -> Result<String> {
        if let Some(Files { path, file, .. }) = &self.files {
            file.sync_data().map_err(Error::io(path))?;
        }
        Ok(self.hasher.finalize().to_hex().to_string())
    }

    /// Writes one step. `metrics` must contain the key `step`.
    pub fn append(&mut self, metrics: &Metrics) -> Result<()> {
        self.last_step = metrics.get("step").and_then(Value::as_u64).unwrap_or(self.last_step);
        let Some(Files { path, file, events }) = &mut self.files else { return Ok(()) };
        add(&mut self.hasher, metrics);
        let mut metrics = metrics.clone();
        metrics.insert(WALL_TIME.to_owned(), wall_time().into());
        file.write_all(line(&metrics).as_bytes()).map_err(Error::io(&*path))?;
        events.as_mut().map_or(Ok(()), |events| events.step(&metrics))
    }
}

/// Compares the lines of the run in `dir`, up to the checkpoint with this `state`, with the hash that the checkpoint
/// recorded. Errors, naming the step, if they differ and `accepted` does not contain `InputKind::Log`. An accepted
/// difference is reported to `observer` and recorded in `inputs.json`.
pub fn check(dir: &Path, state: &State, accepted: &[InputKind], observer: &dyn Observer) -> Result<()> {
    let (path, step, log) = (dir.join("metrics.jsonl"), state.step, InputKind::Log.name());
    let Some(saved) = state.inputs.get(log) else { return Ok(()) };
    let kept = cut_back(&path, step)?;
    let hash = digest(&kept).finalize().to_hex().to_string();
    let mut recorded = Inputs::read(dir)?.unwrap_or_default();
    if hash == saved || recorded.get(log) == Some(&hash) {
        return Ok(());
    }
    let steps: Vec<u64> = kept.iter().filter_map(|metrics| metrics.get("step")?.as_u64()).collect();
    let gap = steps.windows(2).find(|pair| pair[1] != pair[0] + 1);
    let what = match (gap, steps.last()) {
        (Some(pair), _) => format!("step {} where step {} was expected", pair[1], pair[0] + 1),
        (None, Some(&last)) if last == step => format!("lines of steps {} to {step}", steps[0]),
        (None, last) => format!("no line of step {}", last.map_or(step, |last| last + 1)),
    };
    let (what, when) = (format!("{}: {what}", path.display()), format!("at the checkpoint of step {step}"));
    if !accepted.contains(&InputKind::Log) {
        return Err(identity::changed(what, &when, &[log]));
    }
    observer.note(&format!("accept_changed: {what} is not what it was {when}"));
    recorded.set(log, hash);
    recorded.write(dir)
}

/// Hashes the metrics of `steps` without times, because times differ if a step is repeated.
fn digest(steps: &[Metrics]) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    steps.iter().for_each(|metrics| add(&mut hasher, metrics));
    hasher
}

fn add(hasher: &mut blake3::Hasher, metrics: &Metrics) {
    let kept = metrics.iter().filter(|(name, _)| !is_time(name));
    hasher.update(line(&kept.map(|(name, value)| (name.clone(), value.clone())).collect()).as_bytes());
}

/// Returns the seconds since 1970, rounded to milliseconds.
fn wall_time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_secs_f64() * 1e3).round() / 1e3
}

/// Reads all steps of a metrics file, in order, without an incomplete last line.
pub fn read(path: &Path) -> Result<Vec<Metrics>> {
    cut_back(path, u64::MAX)
}

/// Name of the peak memory so far in GiB, as in verl.
pub const MEMORY: &str = "perf/max_memory_allocated_gb";

/// Number of updates of a step whose loss or gradient norm was not finite.
pub const SKIPPED_UPDATES: &str = "training/skipped_updates";
/// Name of the validation loss, as in verl.
pub const VAL_LOSS: &str = "val/loss";

/// Returns the value of [`MEMORY`] on `dev`.
pub fn memory(dev: &Device) -> f64 {
    dev.high_water().total() as f64 / (1u64 << 30) as f64
}

/// Returns true if a metric is a time. Times differ between any two runs.
pub fn is_time(name: &str) -> bool {
    name.starts_with("timing_s/") || name.starts_with("perf/")
}

/// Returns the sum of a metric over the steps that have it.
pub fn sum(steps: &[Metrics], name: &str) -> f64 {
    steps.iter().filter_map(|m| m.get(name)?.as_f64()).sum()
}

fn line(metrics: &Metrics) -> String {
    format!("{}\n", Value::Object(metrics.clone()))
}

fn cut_back(path: &Path, last_step: u64) -> Result<Vec<Metrics>> {
    let text = files::if_exists(path, files::read_to_string(path))?.unwrap_or_default();
    let mut kept = Vec::new();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (i, line) in whole.lines().enumerate() {
        let metrics: Metrics =
            serde_json::from_str(line).map_err(|e| Error::format(path, format!("line {}: {e}", i + 1)))?;
        let step = metrics.get("step").and_then(Value::as_u64);
        let step = step.ok_or_else(|| Error::format(path, format!("line {}: no `step`", i + 1)))?;
        if step <= last_step {
            kept.push(metrics);
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(n: u64) -> Metrics {
        let mut m = Metrics::new();
        m.insert("step".into(), n.into());
        m.insert("loss".into(), (1.0 / n as f64).into());
        m
    }

    #[test]
    fn a_resumed_log_has_every_step_once() -> Result<()> {
        let dir = tempfile::tempdir().map_err(Error::io("temp"))?;
        let mut log = MetricsLog::open(dir.path(), 0, &[])?;
        for n in 1..=5 {
            log.append(&step(n))?;
        }
        drop(log);
        let path = dir.path().join("metrics.jsonl");
        let mut torn = std::fs::read_to_string(&path).map_err(Error::io(&path))?;
        torn.push_str("{\"step\": 6, \"lo");
        std::fs::write(&path, torn).map_err(Error::io(&path))?;
        let mut log = MetricsLog::open(dir.path(), 3, &[])?;
        for n in 4..=7 {
            log.append(&step(n))?;
        }
        let steps: Vec<u64> = read(&path)?.iter().map(|m| m["step"].as_u64().unwrap_or(0)).collect();
        assert_eq!(steps, [1, 2, 3, 4, 5, 6, 7]);
        Ok(())
    }
}

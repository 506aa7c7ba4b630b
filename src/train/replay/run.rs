//! Recomputes steps of a run and reports the first value that differs from its record.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use super::compare;
use super::compute::Replay;
use super::recorded::Recorded;
use crate::training::metrics;
use omr_base::error::{Error, Result};
use omr_base::identity::{Manifest, Part};
use omr_model::rollout::file::{self, RolloutRow};
use omr_runtime::machine::Machine;

/// Steps to recompute.
pub enum Steps {
    /// A single step, or only the rollouts of this step that have the same prompt as one row.
    One {
        /// Number of the step.
        step: u64,
        /// Index of the row, from 0. `None` selects the whole step.
        rollout: Option<usize>,
    },
    /// This number of recorded steps, drawn at random.
    Drawn(usize),
}

/// Recomputes steps of the run in `dir`. Returns a line that lists what is equal to the records. Returns an error with
/// the first difference.
pub fn run(dir: &Path, which: &Steps, machine: &Machine) -> Result<String> {
    let run = Recorded::open(dir)?;
    let (steps, rollout) = match *which {
        Steps::One { step, rollout } => (vec![run.step(step)?], rollout),
        Steps::Drawn(count) => (drawn(run.steps.keys().copied().collect(), count), None),
    };
    let mut by_start: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for &step in &steps {
        by_start.entry(run.start(step).map_or(0, |from| from.step)).or_default().push(step);
    }
    let mut compared = Compared::default();
    for of in by_start.values() {
        let last = of.last().copied().unwrap_or_default();
        compared.add(&run, last, rollout, machine)?;
    }
    let named = steps.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let row = rollout.map_or(String::new(), |row| format!(", rollout {row}"));
    Ok(format!("step {named}{row}: {compared} equal the record\n"))
}

/// Numbers of items that were found equal to the records.
#[derive(Default)]
struct Compared {
    steps: usize,
    rollouts: usize,
    weights: usize,
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Compared { steps, rollouts, weights } = self;
        let parts = [(steps, "metrics of", "steps"), (rollouts, "", "rollouts"), (weights, "weights of", "folders")];
        let parts =
            parts.iter().filter(|part| *part.0 > 0).map(|(n, what, of)| format!("{what} {n} {of}").trim().to_owned());
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

impl Compared {
    /// Recomputes the steps up to `last`, compares them and adds the equal items to the counts. If `row` is given, only
    /// the rollouts that share a prompt with this row of step `last` are compared.
    fn add(&mut self, run: &Recorded, last: u64, row: Option<usize>, machine: &Machine) -> Result<()> {
        let from = run.start(last);
        if let Some(from) = from {
            let differs = |error: Error| Error::Failed(error.to_string());
            let manifest = Manifest::read(&from.path).map_err(differs)?;
            let check = |part| manifest.as_ref().map_or(Ok(()), |manifest| manifest.check(&from.path, part));
            check(Part::Settings).and_then(|()| check(Part::Tensors)).map_err(differs)?;
        } else if let Some(first) = run.steps.keys().next().filter(|first| **first > 1) {
            let found = format!("a run whose first step is {first}, without a checkpoint before step {last}");
            let expected = "a checkpoint to start from, because this run continued from a checkpoint of another run";
            return Err(Error::input(&run.dir, found, expected));
        }
        let first = from.map_or(0, |from| from.step) + 1;
        let origin = from.map_or("the start".to_owned(), |from| format!("the checkpoint of step {}", from.step));
        machine.observer.note(&format!("steps {first} to {last}, from {origin}"));
        let scratch = tempfile::tempdir().map_err(Error::io(std::env::temp_dir()))?;
        let again = Replay { run, from, last, scratch: scratch.path(), machine };
        if let Some(row) = row {
            let recorded = run.rollouts(last)?;
            let prompt = recorded.get(row).map(|row| row.prompt).ok_or_else(|| {
                Error::input("--rollout", row.to_string(), format!("a row of step {last}, 0 to {}", recorded.len() - 1))
            })?;
            again.compute(Some((last, prompt)))?;
            let recorded: Vec<RolloutRow> = recorded.into_iter().filter(|row| row.prompt == prompt).collect();
            self.rollouts += recorded.len();
            return same_rollouts(last, &recorded, scratch.path());
        }
        again.compute(None)?;
        let computed = metrics::read(&scratch.path().join("metrics.jsonl"))?;
        for metrics in &computed {
            let step = metrics.get("step").and_then(serde_json::Value::as_u64).unwrap_or_default();
            if let Some(recorded) = file::read(&run.dir, step)? {
                same_rollouts(step, &recorded, scratch.path())?;
                self.rollouts += recorded.len();
            }
            let recorded = run.steps.get(&step).ok_or_else(|| different(step, "computed but not in metrics.jsonl"))?;
            compare::metrics(recorded, metrics).map_or(Ok(()), |what| Err(different(step, &what)))?;
            self.steps += 1;
        }
        for (theirs, ours) in run.weights(last, scratch.path()) {
            let name = theirs.display();
            compare::tensors(&theirs, &ours)?
                .map_or(Ok(()), |what| Err(different(last, &format!("{name}: {what}"))))?;
            self.weights += 1;
        }
        Ok(())
    }
}

fn same_rollouts(step: u64, recorded: &[RolloutRow], scratch: &Path) -> Result<()> {
    let again = file::read(scratch, step)?.unwrap_or_default();
    compare::rollouts(recorded, &again).map_or(Ok(()), |what| Err(different(step, &what)))
}

/// Draws `count` of `steps` at random and returns them in ascending order.
fn drawn(mut steps: Vec<u64>, count: usize) -> Vec<u64> {
    let order = RandomState::new();
    steps.sort_by_key(|step| order.hash_one(step));
    steps.truncate(count);
    steps.sort_unstable();
    steps
}

fn different(step: u64, what: &str) -> Error {
    Error::Failed(format!("step {step}: {what}"))
}

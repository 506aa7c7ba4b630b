//! Records the inputs that a run depends on, in `inputs.json` in its folder and as `inputs` in its checkpoints, and
//! compares them at each start.

use std::path::Path;

use super::trainer_config::{TaskFile, TrainerConfig};
use omr_base::config::InputKind;
use omr_base::error::{Error, Result};
use omr_base::identity::{self, CurrentInputs, Inputs, Weights};
use omr_base::observe::Observer;
use omr_data::rows::Dataset;
use omr_data::rows::files::paths;
use omr_model::checkpoint::Store;
use omr_runtime::ranks::Ranks;

/// Returns the inputs of the run that `config` and `data` describe. Rank 0 reads them, and all of `ranks` receive the
/// same value. Errors if an input has changed since the run made its steps, unless the config accepts that change.
pub fn open(ranks: &mut dyn Ranks, config: &TrainerConfig, data: &Dataset, observer: &dyn Observer) -> Result<Inputs> {
    const WHAT: &str = "the inputs of the run";
    let broken = |e: serde_json::Error| Error::Failed(format!("{WHAT}: {e}"));
    let own = match ranks.rank() {
        0 => serde_json::to_vec(&compared(config, data, observer)?).map_err(broken)?,
        _ => Vec::new(),
    };
    serde_json::from_slice(&ranks.await_all(WHAT, &own)?[0]).map_err(broken)
}

fn compared(config: &TrainerConfig, data: &Dataset, observer: &dyn Observer) -> Result<Inputs> {
    let mut found = CurrentInputs::default();
    let weights = match config.reference {
        true => Weights::Reference,
        false if config.optimizer.lora.is_some() => Weights::Base,
        false => Weights::Trained,
    };
    found.add_model(&config.run.model, weights)?;
    config.teacher.iter().try_for_each(|teacher| found.add_model(teacher, Weights::Teacher))?;
    data.inputs(&mut found)?;
    found.add_files(InputKind::Val, paths::all(&config.validation.val_files)?)?;
    for (number, rows) in config.run.val_images.iter().enumerate() {
        let (label, path) = (format!("images of {number}"), Path::new(&rows.name));
        rows.hash()?.into_iter().for_each(|hash| found.set(InputKind::Val, &label, path, &hash));
    }
    for TaskFile { task, number, path } in &config.run.val_task_files {
        found.set(InputKind::Val, &format!("{task} {number}"), path, &identity::hash(path)?);
    }
    let dir = &config.run.dir;
    let newest = Store::of(dir, config.retention()).latest()?;
    let state = newest.as_ref().and_then(|newest| newest.state().ok());
    // A run that has not made a step yet may start again with other inputs.
    let logged = dir.join("metrics.jsonl").metadata().is_ok_and(|file| file.len() > 0);
    let begun = newest.is_some() || logged || dir.join("journal").exists();
    let recorded = Inputs::read(dir)?.or_else(|| state.map(|state| state.inputs).filter(|inputs| !inputs.is_empty()));
    if begun && recorded.is_none() {
        observer.note(
            "an older version of omr started this run and did not record its inputs: changes since then are not \
             detected",
        );
    }
    let when = newest.map_or("when the run began".to_owned(), |newest| format!("at step {}", newest.step));
    let then = recorded.as_ref().filter(|_| begun);
    found.compare(then, &when, &config.training.accept_changed)?.iter().for_each(|line| observer.note(line));
    Ok(found.inputs)
}

/// Writes `inputs.json` in `dir`. If the existing file records an accepted hash of the log, the new file keeps that
/// hash.
pub fn write(dir: &Path, mut inputs: Inputs) -> Result<()> {
    let (recorded, log) = (Inputs::read(dir)?, InputKind::Log.name());
    recorded.iter().filter_map(|recorded| recorded.get(log)).for_each(|hash| inputs.set(log, hash.to_owned()));
    inputs.write(dir)
}

/// Returns true if the rows must be read again, because changes to rows or images are accepted. An existing index
/// would reject changed rows.
pub fn rows_may_differ(accepted: &[InputKind]) -> bool {
    [InputKind::Rows, InputKind::Images].iter().any(|kind| accepted.contains(kind))
}

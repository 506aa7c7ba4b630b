//! Command `run`: runs the stages of a pipeline config, each in its own folder.

use std::path::{Path, PathBuf};

use crate::pipeline::run::run_after;
use crate::pipeline::stage::check_weights;
use crate::pipeline::{Stage, Summary};
use omr_base::config::{
    self, DataConfig, DatasetConfig, DedupConfig, DistillConfig, FilterConfig, FormatConfig, MixConfig, PassrateConfig,
    StepConfig, VerifyConfig,
};
use omr_base::error::{Error, Result};
use omr_base::files::{self, Lock};
use omr_data::rows::read;
use omr_runtime::machine::Machine;

/// Prefix of the path of a data set that an earlier stage writes.
const OF_STAGE: &str = "stage:";

/// Summary of a stage, and true if the stage had anything to do.
type StageRun = (Summary, bool);

/// A kind of stage in a pipeline.
pub struct StageKind {
    /// Name of the kind.
    pub name: &'static str,
    run: fn(&StepConfig, &Folders, &Path, &Machine) -> Option<Result<StageRun>>,
    check: fn(&StepConfig, &Machine) -> Option<Result<Planned>>,
}

impl StageKind {
    const fn of<C: Stage>() -> StageKind {
        StageKind { name: C::NAME, run: run_step::<C>, check: check_step::<C> }
    }
}

/// The kinds of stages.
pub const KINDS: [StageKind; 7] = [
    StageKind::of::<FormatConfig>(),
    StageKind::of::<DistillConfig>(),
    StageKind::of::<VerifyConfig>(),
    StageKind::of::<PassrateConfig>(),
    StageKind::of::<DedupConfig>(),
    StageKind::of::<FilterConfig>(),
    StageKind::of::<MixConfig>(),
];

/// Plan of a stage: its description and the data that it reads.
pub struct Planned {
    /// Description for the user.
    pub line: String,
    /// Data sets of the stage, and other data sets that the stage reads.
    pub reads: Vec<DatasetConfig>,
    /// True if the stage needs a device.
    pub computes: bool,
}

/// Names and folders of the earlier stages, in order.
type Folders = Vec<(String, PathBuf)>;

/// Checks every stage of `config` without reading its data, and returns the plan of each. Errors name the stage.
pub fn plan(config: &DataConfig, machine: &Machine) -> Result<Vec<Planned>> {
    let mut names: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for (i, step) in config.stages.iter().enumerate() {
        let found = KINDS.iter().find_map(|kind| (kind.check)(step, machine));
        let planned = found.unwrap_or_else(|| Err(kindless(step))).map_err(|e| e.within(&step.name))?;
        if planned.reads.is_empty() && i == 0 {
            return Err(Error::input(format!("stages.{i}.datasets"), "nothing", "at least one dataset"));
        }
        for entry in &planned.reads {
            if let Some((stage, _)) = of_stage(&entry.path)
                && !names.contains(&stage.as_str())
            {
                return Err(unknown(&step.name, &stage, &names));
            }
        }
        names.push(&step.name);
        lines.push(planned);
    }
    Ok(lines)
}

/// Runs the stages of `config` in `dir`, skipping finished ones. Calls `report` with one line for each stage.
pub fn run(
    config: &DataConfig,
    dir: &Path,
    machine: &Machine,
    report: &dyn Fn(&str),
) -> Result<Vec<(String, Summary)>> {
    let mut folders = Folders::new();
    let (mut summaries, mut locks) = (Vec::new(), Vec::new());
    for step in &config.stages {
        let folder = dir.join(&step.name);
        locks.push(Lock::take(&folder, "").map_err(|e| e.within(&step.name))?);
        let ran = KINDS.iter().find_map(|kind| (kind.run)(step, &folders, &folder, machine));
        let (summary, fresh) = ran.unwrap_or_else(|| Err(kindless(step))).map_err(|e| e.within(&step.name))?;
        report(&format!("{}: {}{}", step.name, summary.line(), if fresh { "" } else { "; already finished" }));
        folders.push((step.name.clone(), folder));
        summaries.push((step.name.clone(), summary));
    }
    Ok(summaries)
}

fn kindless(step: &StepConfig) -> Error {
    Error::input(&step.name, "a stage without a kind", KINDS.map(|kind| kind.name).join(", "))
}

fn check_step<C: Stage>(step: &StepConfig, machine: &Machine) -> Option<Result<Planned>> {
    let config = C::of(step)?;
    let line = config.job(machine).map(|job| format!("{}: {}; {}", step.name, C::NAME, job.describe()));
    let (reads, computes) = (config.reads(), config.computes());
    let line = check_weights(C::NAME, &reads).and(line);
    Some(line.map(|line| Planned { line, reads, computes }))
}

fn run_step<C: Stage>(step: &StepConfig, folders: &Folders, dir: &Path, machine: &Machine) -> Option<Result<StageRun>> {
    let mut config = C::of(step)?.clone();
    Some((|| {
        let last = folders.last().filter(|_| config.stage().datasets.is_empty());
        if let Some((name, _)) = last {
            config.stage_mut().datasets = vec![read::entry(format!("{OF_STAGE}{name}"))];
        }
        let datasets = std::mem::take(&mut config.stage_mut().datasets);
        config.stage_mut().datasets = resolved(datasets, step, folders)?;
        for entry in config.extra_datasets() {
            let one = resolved(vec![entry.clone()], step, folders)?;
            let [one] = <[DatasetConfig; 1]>::try_from(one).map_err(|found| {
                Error::input("against", format!("{} files", found.len()), "one file per entry: stage:NAME/FILE")
            })?;
            *entry = one;
        }
        let kept = dir.join("config.yaml");
        if kept.exists() {
            let was: C = config::load(Some(&kept), &[], &|_| None)?;
            config::refuse_differences(dir, &was, &config)?;
        }
        files::write(&kept, config::headed(&config, None)?.as_bytes())?;
        run_after(&config, dir, None, machine, &|path| folders.iter().any(|(_, folder)| path.starts_with(folder)))
    })())
}

/// Splits a path `stage:NAME` or `stage:NAME/FILE` into the stage and the file.
fn of_stage(path: &Path) -> Option<(String, Option<String>)> {
    let rest = path.to_str()?.strip_prefix(OF_STAGE)?;
    let (stage, file) = rest.split_once('/').map_or((rest, None), |(stage, file)| (stage, Some(file)));
    Some((stage.to_owned(), file.map(str::to_owned)))
}

fn unknown(step: &str, stage: &str, names: &[&str]) -> Error {
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Error::input(step, format!("{OF_STAGE}{stage}"), format!("an earlier stage: {names}"))
}

/// Replaces stage names in data set paths by files. An entry that names an entire stage becomes one entry per file.
fn resolved(entries: Vec<DatasetConfig>, step: &StepConfig, folders: &Folders) -> Result<Vec<DatasetConfig>> {
    let mut out = Vec::new();
    for entry in entries {
        let Some((stage, file)) = of_stage(&entry.path) else {
            out.push(entry);
            continue;
        };
        let known: Vec<&str> = folders.iter().map(|(name, _)| name.as_str()).collect();
        let (_, folder) =
            folders.iter().find(|(name, _)| *name == stage).ok_or_else(|| unknown(&step.name, &stage, &known))?;
        let files = if let Some(file) = file { vec![folder.join(file)] } else { written(folder)? };
        out.extend(files.into_iter().map(|path| DatasetConfig { path, ..entry.clone() }));
    }
    Ok(out)
}

/// Returns the data sets that a stage wrote, sorted by name.
fn written(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = files::entries(folder)?;
    files.retain(|path| path.extension().is_some_and(|ending| ending == "parquet"));
    Ok(files)
}

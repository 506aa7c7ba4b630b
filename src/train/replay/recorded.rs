//! Reads the records of a run: metrics, checkpoints, rollouts and weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::training::job::model_step;
use crate::training::metrics::{self, Metrics};
use omr_base::config::{self, RecipeConfig};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_model::checkpoint::{Checkpoint, Store};
use omr_model::rollout::file::{self, RolloutRow};
use omr_runtime::device::{Device, KernelVariant};

/// Records of a run.
pub struct Recorded {
    /// Folder of the run.
    pub dir: PathBuf,
    /// Metrics of each recorded step.
    pub steps: BTreeMap<u64, Metrics>,
    /// Checkpoints, oldest first.
    pub checkpoints: Vec<Checkpoint>,
    /// True for a run of `omr rl`.
    pub is_rl: bool,
}

impl Recorded {
    /// Reads the records of the run in `dir`.
    pub fn open(dir: &Path) -> Result<Recorded> {
        let (config, log) = (dir.join("config.yaml"), dir.join("metrics.jsonl"));
        if !config.is_file() || !log.is_file() {
            let inner =
                ["rl", "sft"].map(|name| dir.join(name)).into_iter().find(|inner| inner.join("config.yaml").is_file());
            let expected = "config.yaml and metrics.jsonl, as in a run directory of omr sft or omr rl";
            let hint = inner.map_or(String::new(), |inner| inner.display().to_string());
            return Err(Error::input_hint(dir, "no such files", expected, hint));
        }
        let step = |metrics: Metrics| Some((metrics.get("step")?.as_u64()?, metrics));
        let steps: BTreeMap<u64, Metrics> = metrics::read(&log)?.into_iter().filter_map(step).collect();
        if steps.is_empty() {
            return Err(Error::input(log, "no step", "at least one recorded step"));
        }
        let text = files::read_to_string(&config).map_err(Error::io(&config))?;
        let is_rl = text.lines().any(|line| line.starts_with("train_files:"));
        Ok(Recorded { dir: dir.to_owned(), steps, checkpoints: Store::of(dir, 1).list()?, is_rl })
    }

    /// Returns `step` if it was recorded, otherwise an error.
    pub fn step(&self, step: u64) -> Result<u64> {
        if self.steps.contains_key(&step) {
            return Ok(step);
        }
        let last = self.steps.keys().last().copied().unwrap_or_default();
        Err(Error::input("--step", step.to_string(), format!("a recorded step, 1 to {last}")))
    }

    /// Returns the newest checkpoint before `step`. `None` stands for the beginning of the run.
    pub fn start(&self, step: u64) -> Option<&Checkpoint> {
        self.checkpoints.iter().rev().find(|checkpoint| checkpoint.step < step)
    }

    /// Reads the rollouts of a step.
    pub fn rollouts(&self, step: u64) -> Result<Vec<RolloutRow>> {
        let expected = "the rollouts of this step (rollout_freq sets the steps whose rollouts are written)";
        let missing = || Error::input(file::path(&self.dir, step).display().to_string(), "nothing", expected);
        file::read(&self.dir, step)?.filter(|rows| !rows.is_empty()).ok_or_else(missing)
    }

    /// Returns the folders that contain the weights after `step`: pairs of the recorded and the recomputed folder.
    pub fn weights(&self, step: u64, scratch: &Path) -> Vec<(PathBuf, PathBuf)> {
        let checkpoint = format!("checkpoints/global_step_{step}");
        let both = [checkpoint.as_str(), "model"].map(|name| (self.dir.join(name), scratch.join(name)));
        // With `load_best_model_at_end`, the final model can be that of an earlier step.
        let compares = |theirs: &Path| !theirs.ends_with("model") || model_step(&self.dir).is_none_or(|of| of == step);
        both.into_iter().filter(|(theirs, ours)| theirs.is_dir() && ours.is_dir() && compares(theirs)).collect()
    }

    /// Returns the folder of the recipe that the run is a stage of.
    pub fn recipe(&self) -> Option<&Path> {
        let parent = self.dir.parent()?;
        config::load::<RecipeConfig>(Some(&parent.join("config.yaml")), &[], &|_| None).ok().map(|_| parent)
    }

    /// Returns an error if the run was computed on another kind of device, or with arithmetic that differs from the
    /// arithmetic of `device`.
    pub fn same_arithmetic(&self, device: &mut Device) -> Result<()> {
        for checkpoint in &self.checkpoints {
            let state = checkpoint.state()?;
            if let Some(variant) = state.gpu_body.as_deref().and_then(KernelVariant::named) {
                // If the device keeps another variant, the comparison below reports it.
                device.follow_record(variant);
            }
            let variant = device.recorded_variant();
            if let Some(other) = state.other_arithmetic(device.kind().name(), device.isa().chains(), variant.as_deref())
            {
                let expected = "the device, kernel variants and version of the recorded run; nothing was compared";
                return Err(Error::input(&checkpoint.path, other, expected));
            }
        }
        Ok(())
    }
}

//! How a run trains and saves: what the configs of SFT and RL have in common.

use std::path::PathBuf;

use crate::checkpoint::Retention;
use crate::config::{Changed, DatasetConfig, Dtype, OptimConfig};

/// A file that a validation by tasks reads.
#[derive(Clone, Debug)]
pub struct TaskFile {
    /// Name of the task.
    pub task: &'static str,
    /// Its number among the files of the task.
    pub number: usize,
    /// The file.
    pub path: PathBuf,
}

/// How a run trains and saves: the part of a config SFT and RL have in common.
#[derive(Clone, Debug)]
pub struct TrainerConfig {
    /// Run directory.
    pub dir: PathBuf,
    /// Model directory to start from.
    pub model: PathBuf,
    /// Storage of weights and activations.
    pub dtype: Dtype,
    /// Optimizer and schedule.
    pub optimizer: OptimConfig,
    /// Updates of the warm-up.
    pub warmup_steps: u64,
    /// Updates in all.
    pub total_steps: u64,
    /// Gradient lanes.
    pub lanes: usize,
    /// Seed, recorded in checkpoints.
    pub seed: u64,
    /// The settings that decide results, recorded as a hash.
    pub config_text: String,
    /// Checkpoint every so many steps.
    pub save_steps: Option<u64>,
    /// Checkpoint every so many seconds.
    pub save_seconds: Option<f64>,
    /// Checkpoints kept.
    pub keep: Retention,
    /// Checkpoint when a signal stops the run; none where the steps since the last have taken more than a minute.
    pub save_on_stop: Option<bool>,
    /// `auto`, `never` or a path.
    pub resume: String,
    /// The model to start from is a reference, too.
    pub reference: bool,
    /// Rows it is measured on.
    pub val_files: Vec<DatasetConfig>,
    /// Files of the tasks it is measured on.
    pub val_task_files: Vec<TaskFile>,
    /// Kinds of inputs that may differ from what the run began with.
    pub accept_changed: Vec<Changed>,
}

impl TrainerConfig {
    /// Checkpoints that lie on disk at the end, at most.
    pub fn checkpoints(&self) -> usize {
        self.keep.newest + self.keep.every.map_or(0, |n| (self.total_steps / n) as usize)
    }
}

/// Makes the [`TrainerConfig`] of a job's common part and of its config, in whose keys SFT and RL agree; the fields in braces
/// differ.
macro_rules! trainer_config {
    ($common:expr, $config:expr, { $($own:tt)* }) => {{
        let (common, config) = ($common, $config);
        $crate::train::trainer_config::TrainerConfig {
            dir: common.dir.clone(),
            model: common.model.clone(),
            dtype: config.dtype,
            optimizer: config.optimizer,
            total_steps: common.total_steps,
            lanes: config.lanes(),
            seed: config.seed,
            config_text: $crate::config::deciding(config),
            save_seconds: config.save_seconds,
            keep: $crate::checkpoint::Retention { newest: config.save_total_limit, every: config.keep_every },
            save_on_stop: config.save_on_stop,
            resume: config.resume.clone(),
            val_files: config.validation.val_files.clone(),
            val_task_files: common.validation.as_ref().map(|measured| measured.task_files()).unwrap_or_default(),
            accept_changed: config.accept_changed.clone(),
            $($own)*
        }
    }};
}
pub(crate) use trainer_config;

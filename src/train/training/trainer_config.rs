//! The settings for training and saving that the configs of SFT and RL have in common.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use omr_base::config::{Dtype, LoraConfig, OptimConfig, TrainingConfig, ValidationConfig};
use omr_base::error::Result;
use omr_base::hub::local;
use omr_data::rows::ImageSource;
use omr_model::checkpoint::Retention;
use omr_model::nn::adapter::adapter_files::{self, AdapterConfig};

/// The images of a file of rows.
#[derive(Clone, Debug)]
pub struct RowImages {
    /// Path of the file, or the name of the key that has selected the rows.
    pub name: String,
    /// The place of each image's row, and the image.
    pub images: Vec<(String, ImageSource)>,
}

impl RowImages {
    /// Returns a hash of the content of all images, or `None` if there are none. Reads all of them.
    pub fn hash(&self) -> Result<Option<String>> {
        let hash = |(place, image): &(String, ImageSource)| Ok(blake3::hash(&image.bytes(place)?));
        let hashes = self.images.par_iter().map(hash).collect::<Result<Vec<_>>>()?;
        let mut all = blake3::Hasher::new();
        for hash in &hashes {
            all.update(hash.as_bytes());
        }
        Ok((!hashes.is_empty()).then(|| all.finalize().to_hex().to_string()))
    }
}

/// A file that a validation task reads.
#[derive(Clone, Debug)]
pub struct TaskFile {
    /// Name of the task.
    pub task: &'static str,
    /// Number of this file among the files of the task.
    pub number: usize,
    /// Path of the file.
    pub path: PathBuf,
}

/// Properties of a run that its job determines before the first step.
#[derive(Clone, Debug)]
pub struct RunSetup {
    /// Run directory.
    pub dir: PathBuf,
    /// Directory of the initial model.
    pub model: PathBuf,
    /// Total number of updates.
    pub total_steps: u64,
    /// True if this rank has the memory to exchange each decoder layer at once.
    pub whole_layers: bool,
    /// Images of the rows of the validation.
    pub val_images: Vec<RowImages>,
    /// Files of the validation tasks.
    pub val_task_files: Vec<TaskFile>,
}

/// The settings for training and saving that the configs of SFT and RL have in common.
#[derive(Clone, Debug)]
pub struct TrainerConfig {
    /// Optimizer and learning-rate schedule.
    pub optimizer: OptimConfig,
    /// Checkpoints, memory, rows and ranks.
    pub training: TrainingConfig,
    /// Validation.
    pub validation: ValidationConfig,
    /// Data type of weights and activations.
    pub dtype: Dtype,
    /// Seed, which is recorded in checkpoints.
    pub seed: u64,
    /// Number of warm-up updates.
    pub warmup_steps: u64,
    /// Number of steps between checkpoints, if set.
    pub save_steps: Option<u64>,
    /// Number of seconds between checkpoints, if set.
    pub save_seconds: Option<f64>,
    /// True if the initial model also serves as the reference model.
    pub reference: bool,
    /// Directory of the teacher of on-policy distillation, if there is one.
    pub teacher: Option<PathBuf>,
    /// Text of the settings that affect results. Checkpoints record its hash.
    pub config_text: String,
    /// Properties of the run.
    pub run: RunSetup,
}

impl TrainerConfig {
    /// Returns the settings of the adapter that the run trains, or `None` if it trains the model's weights. Errors if
    /// the run continues an adapter whose settings cannot be read.
    pub fn adapter(&self) -> Result<Option<AdapterConfig>> {
        let Some(LoraConfig { rank, alpha, use_rslora, .. }) = self.optimizer.lora else { return Ok(None) };
        // A run that continues an adapter has the same base.
        let base = match adapter_files::exist_in(&self.run.model) {
            true => {
                let base = AdapterConfig::read(&self.run.model)?.base;
                let beside = self.run.model.join(&base);
                // A path that is relative to that adapter's directory does not hold for this run's.
                if beside.is_dir() && !Path::new(&base).is_dir() { beside.display().to_string() } else { base }
            }
            false => local::published(&self.run.model, &|key| std::env::var(key).ok())
                .unwrap_or_else(|| self.run.model.display().to_string()),
        };
        Ok(Some(AdapterConfig { base, rank, alpha, use_rslora, base_weights: None }))
    }

    /// Returns the rule for which checkpoints are kept.
    pub fn retention(&self) -> Retention {
        let newest = self.training.save_total_limit.unwrap_or(usize::MAX);
        Retention { newest, every: self.training.keep_every, interval: self.save_steps }
    }

    /// Returns the maximum number of checkpoints on disk at the end of the run, or `None` if all of them are kept and their
    /// number depends on the time.
    pub fn checkpoints(&self) -> Option<usize> {
        let Retention { every, interval, .. } = self.retention();
        let best = self.validation.needs_best() || self.validation.metric_for_best_model.is_some();
        let at = |n: u64| (self.run.total_steps / n) as usize;
        let regular = match self.training.save_total_limit {
            Some(newest) => newest + every.map_or(0, at),
            None => at(interval?),
        };
        Some(regular + usize::from(interval.is_some()) + usize::from(best))
    }
}

//! The settings for training and saving that the configs of SFT and RL have in common.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::checkpoint::Retention;
use crate::config::{DatasetConfig, Dtype, InputKind, LoraConfig, OptimConfig, ReportTo};
use crate::data::ImageSource;
use crate::error::Result;
use crate::model::adapter_files::{self, AdapterConfig};
use crate::train::exchange::ExchangeMode;

/// The images of a file of rows.
#[derive(Clone, Debug)]
pub struct RowPictures {
    /// Path of the file, or the name of the key that has selected the rows.
    pub name: String,
    /// The place of each image's row, and the image.
    pub pictures: Vec<(String, ImageSource)>,
}

impl RowPictures {
    /// Returns a hash of the content of all images, or `None` if there are none. Reads all of them.
    pub fn hash(&self) -> Result<Option<String>> {
        let hash = |(place, image): &(String, ImageSource)| Ok(blake3::hash(&image.bytes(place)?));
        let hashes = self.pictures.par_iter().map(hash).collect::<Result<Vec<_>>>()?;
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

/// The settings for training and saving that the configs of SFT and RL have in common.
#[derive(Clone, Debug)]
pub struct TrainerConfig {
    /// Run directory.
    pub dir: PathBuf,
    /// Directory of the initial model.
    pub model: PathBuf,
    /// Bounds on the pixels of a resized image that the config sets: minimum, maximum. Written into the trained model.
    pub pixels: [Option<usize>; 2],
    /// Data type of weights and activations.
    pub dtype: Dtype,
    /// Optimizer and learning-rate schedule.
    pub optimizer: OptimConfig,
    /// Number of warm-up updates.
    pub warmup_steps: u64,
    /// Total number of updates.
    pub total_steps: u64,
    /// Mode in which this rank can exchange gradients.
    pub exchange: ExchangeMode,
    /// Seed, which is recorded in checkpoints.
    pub seed: u64,
    /// Text of the settings that affect results. Checkpoints record its hash.
    pub config_text: String,
    /// Number of steps between checkpoints, if set.
    pub save_steps: Option<u64>,
    /// Number of seconds between checkpoints, if set.
    pub save_seconds: Option<f64>,
    /// Rule for which checkpoints are kept.
    pub keep: Retention,
    /// True if a signal that stops the run saves a checkpoint, false if it never does. If unset, a checkpoint is saved
    /// only if the steps since the last one took more than a minute.
    pub save_on_stop: Option<bool>,
    /// Checkpoint from which the run resumes: `auto`, `never` or a path.
    pub resume: String,
    /// True if the initial model also serves as the reference model.
    pub reference: bool,
    /// Validation rows.
    pub val_files: Vec<DatasetConfig>,
    /// Images of the rows of the validation.
    pub val_pictures: Vec<RowPictures>,
    /// Files of the validation tasks.
    pub val_task_files: Vec<TaskFile>,
    /// True if the final model is that of the best checkpoint.
    pub load_best_model_at_end: bool,
    /// Kinds of inputs that may differ from those at the start of the run.
    pub accept_changed: Vec<InputKind>,
    /// Services that show the metrics.
    pub report_to: Vec<ReportTo>,
}

impl TrainerConfig {
    /// Returns the settings of the adapter that the run trains, or `None` if it trains the model's weights. Errors if
    /// the run continues an adapter whose settings cannot be read.
    pub fn adapter(&self) -> Result<Option<AdapterConfig>> {
        let Some(LoraConfig { rank, alpha, use_rslora, .. }) = self.optimizer.lora else { return Ok(None) };
        // A run that continues an adapter has the same base.
        let base = match adapter_files::exist_in(&self.model) {
            true => {
                let base = AdapterConfig::read(&self.model)?.base;
                let beside = self.model.join(&base);
                // A path that is relative to that adapter's directory does not hold for this run's.
                if beside.is_dir() && !Path::new(&base).is_dir() { beside.display().to_string() } else { base }
            }
            false => self.model.display().to_string(),
        };
        Ok(Some(AdapterConfig { base, rank, alpha, use_rslora, base_weights: None }))
    }

    /// Returns the maximum number of checkpoints on disk at the end of the run.
    pub fn checkpoints(&self) -> usize {
        self.keep.newest + self.keep.every.map_or(0, |n| (self.total_steps / n) as usize)
    }
}

/// Builds the [`TrainerConfig`] of a job from its common part and its config. Covers the keys that SFT and RL share;
/// the fields in braces differ between them.
macro_rules! trainer_config {
    ($common:expr, $config:expr, { $($own:tt)* }) => {{
        let (common, config) = ($common, $config);
        $crate::train::trainer_config::TrainerConfig {
            dir: common.dir.clone(),
            model: common.model.clone(),
            pixels: [config.image_min_pixels, config.image_max_pixels],
            dtype: config.dtype,
            optimizer: config.optimizer,
            total_steps: common.total_steps,
            exchange: $crate::train::exchange::ExchangeMode {
                whole_layers: common.whole_layers,
                overlap: config.dist.overlap,
            },
            seed: config.seed,
            config_text: $crate::config::deciding(config),
            save_seconds: config.save_seconds,
            keep: $crate::checkpoint::Retention { newest: config.save_total_limit, every: config.keep_every },
            save_on_stop: config.save_on_stop,
            resume: config.resume.clone(),
            val_files: config.validation.val_files.clone(),
            val_pictures: common.validation.as_ref().map(|measured| measured.pictures()).unwrap_or_default(),
            val_task_files: common.validation.as_ref().map(|measured| measured.task_files()).unwrap_or_default(),
            load_best_model_at_end: config.validation.load_best_model_at_end,
            accept_changed: config.accept_changed.clone(),
            report_to: config.report_to.clone(),
            $($own)*
        }
    }};
}
pub(crate) use trainer_config;

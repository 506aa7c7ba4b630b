//! Derives from a config the work that its run does on one GPU.

use std::path::{Path, PathBuf};

use super::assumptions::{H200, Rows};
use super::page::Page;
use super::pass::Pass;
use super::published;
use super::training::{GpuSet, Keys, Training};
use omr_base::config::{self, Config as _, OptimConfig, RlConfig, SftConfig};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::base_model;
use omr_model::nn::{CheckpointPolicy, ModelConfig};

/// True if the config in `file` is for `omr rl`, false if it is for `omr sft`. Its keys decide.
pub fn is_rl(file: &Path) -> Result<bool> {
    let text = files::read_config(file).map_err(Error::io(file))?;
    let kinds = [config::kind::<SftConfig>(), config::kind::<RlConfig>()];
    Ok(config::likeliest(&text, &kinds) == RlConfig::NAME)
}

/// Work of a config's run on one GPU, with invented rows.
pub struct Job {
    /// `sft` or `rl`.
    pub stage: &'static str,
    /// Configuration of the model.
    pub model: ModelConfig,
    /// Storage type of the weights.
    pub dtype: config::Dtype,
    /// Settings of the optimizer.
    pub optimizer: OptimConfig,
    /// Largest training pass of an update.
    pub pass: Pass,
    /// Activation checkpointing policy of this pass.
    pub levels: CheckpointPolicy,
}

/// Makes the job of the config in `file` with the overrides `values`, on a GPU with at most `memory` bytes and with the
/// rows that `omr plan` assumes.
pub fn job(file: &Path, values: &[String], rows: &Rows, memory: Option<usize>) -> Result<Job> {
    match is_rl(file)? {
        true => of_config::<RlConfig>(file, values, rows, memory),
        false => of_config::<SftConfig>(file, values, rows, memory),
    }
}

fn of_config<C: Training>(file: &Path, values: &[String], rows: &Rows, memory: Option<usize>) -> Result<Job> {
    let mut config: C = config::load(Some(file), values, &|name| std::env::var(name).ok())?;
    let Keys { model, dtype, optimizer, training, .. } = config.keys();
    let gib = memory.map(|bytes| bytes as f64 / (1u64 << 30) as f64);
    training.max_memory_gib = training.max_memory_gib.into_iter().chain(gib).min_by(f64::total_cmp);
    let (model, dtype, optimizer) =
        (model_config(file, model)?.quantized(optimizer.quantization.as_ref())?, *dtype, optimizer.clone());
    let Page { stage, model, pass, planned, .. } = config.page(GpuSet { gpu_options: &H200, count: 1 }, rows, model)?;
    let levels = planned.ladder.levels(pass.tokens());
    Ok(Job { stage, model, dtype, optimizer, pass, levels })
}

/// Loads the model's configuration from the directory in the config. Otherwise returns that of a published model with this
/// name, or else loads `model/` next to the config.
pub fn model_config(config: &Path, model: Option<&PathBuf>) -> Result<ModelConfig> {
    let named = model.map(|dir| base_model::holder(dir, "config.json")).transpose()?;
    if let Some(path) = named.map(|dir| dir.join("config.json")).filter(|path| path.exists()) {
        return ModelConfig::load(&path);
    }
    let found = model.map_or("nothing".to_owned(), |dir| dir.display().to_string());
    if let Some(config) = published::model_config(&found) {
        return config;
    }
    let beside = config.parent().unwrap_or(Path::new("")).join("model").join("config.json");
    if beside.exists() {
        return ModelConfig::load(&beside);
    }
    let expected = format!("a model directory with config.json (or {})", beside.display());
    let hint = "omr download NAME --to DIR --include config.json downloads only this file; \
        docs/user/models.md lists the families of models";
    Err(Error::input_hint("model", found, expected, hint))
}

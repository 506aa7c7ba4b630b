//! Common interface of SFT and RL configs for planning: the keys that both have, and the division of an update among
//! GPUs.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::assumptions::{GpuOptions, Rows};
use super::layout::GpuLayout;
use super::page::Page;
use crate::training::{levels, plan};
use omr_base::config::{Config, Dtype, MicroBatchTokens, OptimConfig, Place, TrainingConfig};
use omr_base::error::Result;
use omr_model::nn::{Model, ModelConfig};
use omr_model::optim::{freeze, frozen};
use omr_runtime::device::{Device, Kind, Target};
use omr_runtime::tensor::DType;

/// A number of GPUs of one kind.
#[derive(Clone, Copy)]
pub struct GpuSet<'a> {
    /// Kind of GPU.
    pub gpu_options: &'a GpuOptions,
    /// Number of GPUs.
    pub count: usize,
}

/// Keys that both kinds of configs have.
pub struct Keys<'a> {
    /// Model directory to start from.
    pub model: Option<&'a PathBuf>,
    /// Storage type of weights and activations.
    pub dtype: &'a mut Dtype,
    /// Settings of the optimizer.
    pub optimizer: &'a mut OptimConfig,
    /// Keys of a training run.
    pub training: &'a mut TrainingConfig,
    /// Number of steps, if the config contains it.
    pub steps: Option<u64>,
    /// Number of passes over the rows, used without a number of steps.
    pub epochs: f64,
    /// Size of micro-batches of fine-tuning, which may leave the number to omr.
    pub micro_batch_tokens: Option<&'a mut MicroBatchTokens>,
    /// Maximum number of tokens of a response, in RL.
    pub response: Option<&'a mut usize>,
}

/// Size of the longest row of a config.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RowSize {
    /// Number of tokens.
    pub tokens: usize,
    /// Number of tokens of the prompt, which are never cut off.
    pub fixed: usize,
}

/// Keys to set in a config, with their values.
pub type Overrides = Vec<(&'static str, Value)>;

/// A training config that can be planned.
pub trait Training: Config + Clone {
    /// Returns the keys that both kinds of configs have.
    fn keys(&mut self) -> Keys<'_>;

    /// Makes the plan of training `model` on these rows and GPUs.
    fn page(&self, gpus: GpuSet, rows: &Rows, model: ModelConfig) -> Result<Page>;

    /// Returns the size of the longest row.
    fn row_size(&self, rows: &Rows) -> Result<RowSize>;

    /// Returns what to set for micro-batches of one row of at most `tokens` tokens. Returns `None` if the requested rows
    /// are longer.
    fn row_keys(&self, rows: &Rows, tokens: usize) -> Result<Option<Overrides>>;

    /// Returns the bytes that the rank with the highest memory use needs at least, for a config of `layout`.
    fn least(&self, model: &ModelConfig, rows: &Rows, layout: &GpuLayout) -> Result<usize>;
}

/// Returns `config` with other values. Returns `None` if the config does not have these keys or does not allow the
/// values.
pub fn set<C: Training>(config: &C, overrides: &Overrides) -> Option<C> {
    let (mut config, place) = (config.clone(), Place::default());
    for (path, value) in overrides {
        let tree = path.rsplit('.').fold(value.clone(), |tree, name| json!({ name: tree }));
        config.set(&place, "", &tree).ok()?;
    }
    config.validate(&place).ok()?;
    Some(config)
}

/// Returns the GPU as a target for the run: its memory without the reserve, and within the limit of the config.
pub fn target(gpus: GpuSet, max_memory_gib: Option<f64>) -> Target {
    let budget = gpus.gpu_options.budget(gpus.count);
    Target::gpu(Kind::Cuda).within(Some(budget)).within(plan::gib_to_bytes(max_memory_gib))
}

/// Returns a target without memory, for which the smallest possible use is counted.
pub fn minimal_target() -> Target {
    Target::gpu(Kind::Cuda).within(levels::LEAST)
}

/// Distributes the gradient lanes and the optimizer state of `config` over the GPUs. Returns the config with its number
/// of lanes, whose default is one per GPU.
pub fn layout<C: Training>(gpus: GpuSet, model: &ModelConfig, config: &C) -> Result<(C, GpuLayout)> {
    let (mut config, count) = (config.clone(), gpus.count);
    let Keys { dtype, optimizer, training, .. } = config.keys();
    let target = target(gpus, training.max_memory_gib);
    let owned = plan::owned(model, *dtype, optimizer.clone(), target, count)?;
    let lanes = *training.gradient_lanes.get_or_insert(count);
    Ok((config, GpuLayout::new(lanes, &owned)))
}

/// Describes which matrices are quantised, as a note of the plan. Returns no note if none is.
pub fn quantized_note(model: &ModelConfig, optimizer: &OptimConfig) -> Result<Vec<(&'static str, String)>> {
    let Some(settings) = &optimizer.quantization else { return Ok(Vec::new()) };
    let model = frozen(&mut Device::count_for(Target::cpu(1)), model.clone(), DType::Bf16, optimizer)?;
    let name = settings.base.name();
    let quantized = model.layout.params.iter().filter(|param| param.quantized.is_some()).count();
    let linears = model.linears();
    let left =
        linears.iter().filter(|(module, _)| !settings.skips(module) && !model.layout.is_quantized(module)).count();
    let left = match left {
        0 => String::new(),
        n => format!("; {n} more keep bf16, because their rows are not whole blocks of 64"),
    };
    let skipped = settings.skip_modules.join(" and ");
    Ok(vec![("quantised", format!("{quantized} matrices in {name}, none of {skipped} (skip_modules){left}"))])
}

/// Returns the numbers of weights of a model and of the adapters that `optimizer` adds to it.
pub fn parameters(model: &ModelConfig, optimizer: &OptimConfig) -> Result<[usize; 2]> {
    let mut dev = Device::count_for(Target::cpu(1));
    let mut model = Model::empty(&mut dev, model.clone(), DType::Bf16)?;
    let base = model.layout.num_weights();
    freeze(&mut dev, &mut model, optimizer)?;
    Ok([base, model.layout.num_weights() - base])
}

//! Finds the kernels that a model launches with a recording driver, and refuses a GPU on which one of them does not fit.

use super::launches::{generate, take};
use crate::rl::plan;
use crate::training::nll;
use crate::training::plan::blank;
use omr_base::config::{LoraConfig, OptimConfig, RlConfig};
use omr_base::error::{Error, Result};
use omr_data::image::Grid;
use omr_data::rows::{Index, Shape};
use omr_model::nn::{CheckpointPolicy, Grads, LayerPolicy, ModelConfig};
use omr_model::optim::{Optimizer, frozen};
use omr_runtime::device::driver::Properties;
use omr_runtime::device::recording_driver::{Entry, RecordingDriver};
use omr_runtime::device::{Device, KernelVariant, Kind, Plan, Region};
use omr_runtime::tensor::DType;

/// Returns an error with one sentence if a GPU with the properties `gpu` cannot run a kernel of training, reinforcement
/// learning or generation with `model`.
pub fn check(model: &ModelConfig, gpu: &Properties) -> Result<()> {
    let lora = Some(LoraConfig::default());
    let adapters = OptimConfig { lora, ..OptimConfig::default() };
    // All decoder layers launch the same kernels.
    let mut model = model.clone();
    model.text.layers.truncate(1);
    [OptimConfig::default(), adapters].into_iter().try_for_each(|optimizer| {
        launches(&model, gpu, optimizer, 256).map(drop).map_err(|error| {
            let found = format!("{}, on which a kernel of this model does not fit ({error})", gpu.name);
            Error::input("GPU", found, "a GPU that allows more resources per CTA")
        })
    })
}

/// Returns the launches of training passes over rows of `tokens` tokens, of an update, and of generation. If the model has
/// a vision tower, each row has an image of as many patches. Errors if a launch exceeds a limit of `gpu`.
pub fn launches(config: &ModelConfig, gpu: &Properties, optimizer: OptimConfig, tokens: usize) -> Result<Vec<Entry>> {
    let memory = Plan::uniform(1 << 42).with(Region::Host, 1 << 42);
    let mut dev = Device::gpu(Box::new(RecordingDriver::new(gpu.clone())), Kind::Cuda, &memory)?;
    if dev.has_wgmma() {
        dev.use_variant(KernelVariant::Wgmma)?;
    }
    let dev = &mut dev;
    let model = frozen(dev, config.clone(), DType::Bf16, &optimizer)?;
    let mut optimizer = Optimizer::new(dev, &model.layout, optimizer, 0)?;
    let mut grads = Grads::new(dev, &model.layout)?;
    let mark = dev.mark(Region::Overlay);
    let side = tokens.isqrt() as u16;
    let grids: Vec<Grid> = config.media.iter().map(|_| Grid::image(side, side)).collect();
    let (shape, levels) =
        (Shape { tokens, targets: tokens / 2, grids: &grids }, CheckpointPolicy::from(LayerPolicy::All));
    let row = blank(config, shape);
    let loss = dev.zeros(Region::Overlay, DType::F64, &[1])?;
    nll::gradients(dev, &model, &mut grads, &[(&row).into()], tokens, levels, loss)?;
    dev.release(mark);
    let (max_prompt_length, max_response_length) = (tokens, tokens);
    let rl =
        RlConfig { max_prompt_length, max_response_length, micro_batch_tokens: 16 * tokens, ..RlConfig::default() };
    let mut index = Index::default();
    index.push(Shape { targets: 0, ..shape });
    plan::pass(dev, &model, &mut grads, &rl, levels, &plan::longest_micro_batch(&rl, config, &index))?;
    dev.release(mark);
    optimizer.step(dev, &model.layout, &grads, 0.0)?;
    optimizer.stats(dev)?;
    for batch in [1, 32, 256] {
        generate(dev, &model, batch, 4)?;
    }
    Ok(take(dev))
}

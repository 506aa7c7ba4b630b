//! Freezes the parts of a model that the settings exclude from training, and adds adapters. A frozen parameter has no
//! gradient and no optimizer state, and is not decayed.

use std::path::Path;

use crate::nn::adapter::adapter_files;
use crate::nn::adapter::attach::scale;
use crate::nn::weights::part::Part;
use crate::nn::{Model, ModelConfig};
use omr_base::config::OptimConfig;
use omr_base::error::{Error, Result};
use omr_runtime::device::{Device, Target};
use omr_runtime::tensor::DType;

/// Returns the key that freezes a part.
pub fn key(part: Part) -> &'static str {
    match part {
        Part::Tower => "freeze_vision_tower",
        Part::Merger => "freeze_multi_modal_projector",
        Part::Table | Part::Layer(_) | Part::Head => "freeze_language_model",
    }
}

fn trains(part: Part, config: &OptimConfig) -> bool {
    match part {
        Part::Tower => !config.freeze_vision_tower,
        Part::Merger => !config.freeze_multi_modal_projector,
        Part::Table | Part::Layer(_) | Part::Head => !config.freeze_language_model,
    }
}

/// Creates a model with all weights zero, stored and frozen as `optimizer` says, with its adapters.
pub fn frozen(dev: &mut Device, config: ModelConfig, dtype: DType, optimizer: &OptimConfig) -> Result<Model> {
    let mut model = Model::empty(dev, config.quantized(optimizer.quantization.as_ref())?, dtype)?;
    freeze(dev, &mut model, optimizer)?;
    Ok(model)
}

/// Adds the adapters of `config` to `model`, with zeros as their weights, unless the model has them, and marks the
/// parameters as trained or frozen. Call it before gradients and optimizer are allocated. Errors if the device does not
/// support adapters, if the model has others, and if a setting names a part or a layer that the model does not have.
pub fn freeze(dev: &mut Device, model: &mut Model, config: &OptimConfig) -> Result<()> {
    check(model, config)?;
    let is_adapter = !model.layout.adapters.is_empty();
    if let Some(lora) = &config.lora {
        let (rank, scale) = (lora.rank, scale(lora.rank, lora.alpha, lora.use_rslora));
        let takes = |module: &str, part: Part| (lora.vision || !part.is_vision()) && lora.target_modules.takes(module);
        if !is_adapter {
            return model.attach(dev, rank, scale, &takes);
        }
        if model.has_adapters(rank, scale, &takes) {
            return Ok(());
        }
        let found = format!("rank {rank}, scale {scale} and the layers of target_modules");
        let expected = format!("{} and its layers, as in the directory of the model", model.describe_adapter());
        return Err(Error::input_hint("lora", found, expected, "the scale is alpha / rank"));
    }
    if is_adapter {
        let expected = "a model, or the settings of the adapter under lora, to train it further";
        let hint = "omr export --merge DIR --out NEW writes the full model";
        return Err(Error::input_hint("model", "the directory of an adapter", expected, hint));
    }
    model.layout.params.iter_mut().for_each(|param| param.trains = trains(param.part, config));
    if let Some(vision) = &mut model.vision {
        vision.trains_blocks = trains(Part::Tower, config);
        vision.trains_merger = trains(Part::Merger, config);
    }
    Ok(())
}

/// Returns an error if the directory `dir` contains an adapter that training with `config` cannot continue. Reads no
/// weights of the base `model`.
pub fn check_adapter(dir: &Path, model: &ModelConfig, config: &OptimConfig) -> Result<()> {
    if !adapter_files::exist_in(dir) {
        return Ok(());
    }
    let mut dev = Device::count_for(Target::cpu(1));
    let mut model = Model::empty_of(&mut dev, dir, model.clone(), DType::F32)?;
    freeze(&mut dev, &mut model, config)
}

/// Returns an error if a setting is for a part or a layer that the model does not have.
fn check(model: &Model, config: &OptimConfig) -> Result<()> {
    let lora = config.lora.as_ref();
    let of_vision = [
        ("freeze_vision_tower", config.freeze_vision_tower),
        ("freeze_multi_modal_projector", config.freeze_multi_modal_projector),
        ("vision_tower_lr", config.vision_tower_lr.is_some()),
        ("multi_modal_projector_lr", config.multi_modal_projector_lr.is_some()),
        ("lora.vision", lora.is_some_and(|lora| lora.vision)),
    ];
    if let (None, Some((key, _))) = (&model.vision, of_vision.iter().find(|(_, is_set)| *is_set)) {
        return Err(Error::input(*key, "a value for the vision tower", "no value: the model is a text model"));
    }
    let Some(lora) = lora else { return Ok(()) };
    let linears = model.linears();
    let all = linears.iter().filter(|(_, part)| lora.vision || !part.is_vision()).map(|(module, _)| *module);
    if let Some(name) = lora.target_modules.unknown(all.clone()) {
        let mut last: Vec<&str> = all.map(|module| module.rsplit('.').next().unwrap_or(module)).collect();
        last.sort_unstable();
        last.dedup();
        let expected = format!("all-linear, or linear layers among {}", last.join(", "));
        return Err(Error::input("lora.target_modules", name, expected));
    }
    Ok(())
}

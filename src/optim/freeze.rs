//! Freezes the parts of a model that the settings exclude from training, and adds adapters. A frozen parameter has no
//! gradient and no optimizer state, and is not decayed.

use crate::config::OptimConfig;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::attach::scale;
use crate::model::params::Param;

/// A part of a model that can be frozen and can have a learning rate of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The decoder, the token table and the output matrix.
    LanguageModel,
    /// The vision tower without its merger.
    VisionTower,
    /// The merger, which projects the tower's rows to the decoder.
    Projector,
}

impl Part {
    /// Returns the part to which `param` belongs.
    pub fn of(param: &Param) -> Part {
        match (param.is_vision, param.name().starts_with("visual.merger.")) {
            (false, _) => Part::LanguageModel,
            (true, false) => Part::VisionTower,
            (true, true) => Part::Projector,
        }
    }

    /// Returns the key that freezes the part.
    pub fn key(self) -> &'static str {
        match self {
            Part::LanguageModel => "freeze_language_model",
            Part::VisionTower => "freeze_vision_tower",
            Part::Projector => "freeze_multi_modal_projector",
        }
    }

    fn trains(self, config: &OptimConfig) -> bool {
        match self {
            Part::LanguageModel => !config.freeze_language_model,
            Part::VisionTower => !config.freeze_vision_tower,
            Part::Projector => !config.freeze_multi_modal_projector,
        }
    }
}

/// Adds the adapters of `config` to `model`, with zeros as their weights, unless the model has them, and marks the parameters as trained or frozen.
/// Call it before gradients and optimizer are allocated. Errors if the device does
/// not support adapters, and if the model has others.
pub fn freeze(dev: &mut Device, model: &mut Model, config: &OptimConfig) -> Result<()> {
    let is_adapter = !model.layout.adapters.is_empty();
    if let Some(lora) = config.lora {
        let (rank, scale, takes) =
            (lora.rank, scale(lora.rank, lora.alpha, lora.use_rslora), |module: &str| lora.takes(module));
        if !is_adapter {
            return model.attach(dev, rank, scale, &takes);
        }
        if model.has_adapters(rank, scale, &takes) {
            return Ok(());
        }
        let expected = "the rank, the scale and the layers of the adapter in the directory of the model";
        return Err(Error::input("lora", "another adapter", expected));
    }
    if is_adapter {
        let expected = "a model, or the settings of the adapter under lora, to train it further";
        return Err(Error::input("model", "the directory of an adapter", expected));
    }
    model.layout.params.iter_mut().for_each(|param| param.trains = Part::of(param).trains(config));
    model.vision.trains_blocks = Part::VisionTower.trains(config);
    model.vision.trains_merger = Part::Projector.trains(config);
    Ok(())
}

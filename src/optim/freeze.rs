//! Freezes the parts of a model that the settings exclude from training. A frozen parameter has no gradient and no
//! optimizer state, and is not decayed.

use crate::config::OptimConfig;
use crate::model::Model;
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

/// Marks the parameters of `model` as trained or frozen. Call it before gradients and optimizer are allocated.
pub fn freeze(model: &mut Model, config: &OptimConfig) {
    model.layout.params.iter_mut().for_each(|param| param.trains = Part::of(param).trains(config));
    model.vision.trains_blocks = Part::VisionTower.trains(config);
    model.vision.trains_merger = Part::Projector.trains(config);
}

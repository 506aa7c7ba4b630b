//! On-policy distillation, the sampled form: `coef` times the difference of the teacher's and the policy's log-prob is
//! added to the advantage of each token (verl's `distillation` with the estimator k1 as a reward).

use std::path::Path;

use crate::rl::update::Reference;
use omr_base::config::RlConfig;
use omr_base::error::{Error, Result};
use omr_data::image::Processor;
use omr_data::rows::Encoder;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_model::nn::{Model, ModelConfig, Policy};
use omr_runtime::device::{Device, Region};
use omr_runtime::tensor::DType;

const KEY: &str = "distillation.teacher";

/// A teacher in device memory.
pub struct Teacher {
    model: Model,
    policy: Policy,
}

/// Returns the directory of the teacher, if `config` has one.
pub fn directory(config: &RlConfig) -> Option<&Path> {
    config.distillation.as_ref().map(|distillation| distillation.teacher.as_path())
}

/// Returns an error if token ids or image values mean something else to the teacher of `config` than to the student.
pub fn check(config: &RlConfig, student: &Encoder, student_config: &ModelConfig) -> Result<()> {
    let Some(dir) = directory(config) else { return Ok(()) };
    let teacher_config = ModelConfig::load(&dir.join("config.json"))?;
    let teacher = Encoder::load(dir, &teacher_config.chat(), EncodingPurpose::Ask, &config.training.images)?;
    for id in 0..student_config.text.vocab_size as u32 {
        let [own, other] = [student, &teacher].map(|encoder| encoder.chat.tokenizer.token(id));
        if own.is_some() && (own != other || id as usize >= teacher_config.text.vocab_size) {
            let said = |token: Option<String>| token.map_or("no token".to_owned(), |token| format!("{token:?}"));
            let (found, expected) = (format!("{} with the id {id}", said(other)), said(own));
            let place = format!("{KEY}: {}", dir.join("tokenizer.json").display());
            let expected = format!("{expected}, the student's token: both tokenizers must have the same ids");
            return Err(Error::input(place, found, expected));
        }
    }
    let ids = |config: &ModelConfig| config.media.as_ref().map(|media| media.ids.all());
    // The number of pixels is the student's.
    let values = |of: &Option<Processor>| of.clone().map(|p| Processor { min_pixels: 0, max_pixels: 0, ..p });
    let fits = values(&student.processor) == values(&teacher.processor) && ids(student_config) == ids(&teacher_config);
    if student.processor.is_some() && !fits {
        let expected = "a model whose preprocessor_config.json and ids of images are the student's";
        return Err(Error::input(KEY, dir.display().to_string(), expected));
    }
    Ok(())
}

impl Teacher {
    /// Loads the teacher of `config`, if it has one. `allowed` is the bitmap of the ids that the student can generate;
    /// the teacher's probabilities are over the same ids, at the same temperature.
    pub fn load(dev: &mut Device, config: &RlConfig, allowed: &[u32]) -> Result<Option<Teacher>> {
        let Some(dir) = directory(config) else { return Ok(None) };
        let model = Model::load(dev, dir, DType::of(config.dtype, dev.kind()))?;
        Teacher::new(dev, config, model, allowed).map(Some)
    }

    /// Returns a teacher of undefined weights, for the memory plan.
    pub fn empty(dev: &mut Device, config: &RlConfig, allowed: &[u32]) -> Result<Option<Teacher>> {
        let Some(dir) = directory(config) else { return Ok(None) };
        let of = ModelConfig::load(&dir.join("config.json"))?;
        let model = Model::empty_of(dev, dir, of, DType::of(config.dtype, dev.kind()))?;
        Teacher::new(dev, config, model, allowed).map(Some)
    }

    fn new(dev: &mut Device, config: &RlConfig, model: Model, allowed: &[u32]) -> Result<Teacher> {
        // The teacher may have more rows of unused ids, or fewer, than the student.
        let mut bitmap = allowed.to_vec();
        bitmap.resize(model.config.text.vocab_size.div_ceil(32), 0);
        let allowed = Some(dev.upload(Region::State, &bitmap, &[bitmap.len()])?);
        Ok(Teacher { model, policy: Policy { allowed, temperature: config.rollout.temperature as f32 } })
    }

    /// Returns the teacher as a model that log-probs are computed with.
    pub fn reference(&self) -> Reference<'_> {
        Reference { model: &self.model, policy: self.policy }
    }
}

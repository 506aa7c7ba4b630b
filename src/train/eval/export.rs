//! Writes a model directory whose weights contain an adapter.

use std::path::Path;

use serde_json::Value;

use super::batch::{Trained, logprobs, made_up, of_model};
use super::logprobs::score;
use crate::training::saving::copy_companions;
use omr_base::choice::BaseFormat;
use omr_base::config::{GenerateConfig, ImageConfig, QuantizationConfig};
use omr_base::error::{Error, Result};
use omr_base::hub::base_model;
use omr_base::identity::{Manifest, Writer};
use omr_base::{files, observe};
use omr_model::nn::adapter::adapter_files::StoredAdapter;
use omr_model::nn::adapter::merge::Merged;
use omr_model::nn::weights::WeightFiles;
use omr_model::nn::weights::outgoing::Outgoing;
use omr_model::nn::{Model, ModelConfig};
use omr_runtime::device::{Device, Isa, Target};
use omr_runtime::machine::Machine;
use omr_runtime::tensor::DType;

/// The weights to which an adapter of a quantised base is added.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Onto {
    /// The values of the codes, with which the adapter was trained.
    #[default]
    Trained,
    /// The weights before they were quantised.
    Original,
}

/// Responses whose log-probs are compared before and after a merge.
pub enum Probe<'a> {
    /// None.
    Nothing,
    /// Those in a file that [`score`] reads.
    Rows(&'a Path),
    /// The last training batch of the run.
    Batch(Vec<Trained>),
}

/// Number of made-up tokens whose log-probs every merge compares.
const PROBED: usize = 32;
/// Largest difference of their log-probs, per nat of the largest one. Both models compute in f32 and differ only in the
/// order of sums. Tiny models differ by 1e-6; one matrix in int8, by 1e-2.
const ROUNDING: f64 = 2e-4;

/// Writes the model in `dir` with the matrices in `format` to the new directory `out`. Returns a line for the user.
pub fn quantize(dir: &Path, out: &Path, format: BaseFormat) -> Result<String> {
    if base_model::of(dir)?.is_some() {
        let expected = "a full model: omr export --merge writes one";
        return Err(Error::input("--quantize", format!("{}, an adapter", dir.display()), expected));
    }
    let is_tied = ModelConfig::load(&dir.join("config.json"))?.text.tie_word_embeddings;
    let written =
        omr_model::nn::weights::quantize::quantize(dir, &QuantizationConfig { base: format, ..Default::default() })?;
    let bytes: usize = written.weights.iter().flat_map(|file| &file.tensors).map(Outgoing::bytes).sum();
    files::folder(out, |folder| {
        let written = written.write(folder, &mut |_| Ok(Vec::new()))?;
        copy_companions(dir, folder, &ImageConfig::default())?;
        Manifest::write_checked(folder, &Writer::alone(written))
    })?;
    let rest = if is_tied { "the token table (lm_head)" } else { "lm_head" };
    let is_rounded = format == BaseFormat::Nf4 && WeightFiles::open(dir)?.dtype() != DType::Bf16;
    let kept = if is_rounded { "in bf16" } else { "as they are" };
    let (size, name) = (observe::bytes(bytes as u64), format.name());
    Ok(format!("{size}: linear layers in {name}; norms, biases, {rest} and the vision tower {kept}"))
}

/// Writes the base of the adapter in `dir`, with the adapter merged into its weights, to the new directory `out`. The
/// merge runs on the CPU, in f32, onto the weights that `onto` names, and is rounded to the type of the base's weights.
/// Errors if the merged model, before that rounding, has other log-probs than the adapter. Returns a line for the user: how
/// many weights changed, and the largest difference of the log-probs of the responses of `probe`.
pub fn export(
    dir: &Path,
    out: &Path,
    onto: Onto,
    probe: &Probe<'_>,
    config: &GenerateConfig,
    machine: &Machine,
) -> Result<String> {
    let Some(base) = base_model::of(dir)? else {
        let found = format!("{}, which contains no {}", dir.display(), base_model::ADAPTER_CONFIG);
        return Err(Error::input("--merge", found, "a run that trained an adapter (key lora), or its model directory"));
    };
    let (weights, model_config) = (WeightFiles::open(&base)?, ModelConfig::load(&dir.join("config.json"))?);
    if onto == Onto::Original && weights.has_any_codes() {
        let found = format!("original, but {} has the codes alone", base.display());
        let expected = "trained, or an adapter whose base has its weights in f32, bf16 or f16";
        return Err(Error::input("--onto", found, expected));
    }
    // The merged model has plain matrices, with the values that the adapter was trained on.
    let mut plain = model_config.clone();
    plain.quantization = None;
    let config_trained = if onto == Onto::Trained { model_config } else { plain.clone() };
    let (dtype, batch) = (weights.dtype(), [made_up(&plain, PROBED)]);
    let load = |config: ModelConfig| -> Result<(Device, Model)> {
        let mut count = Device::count_for(Target::cpu(machine.threads));
        let model = Model::empty_of(&mut count, dir, config.clone(), DType::F32)?;
        of_model(&mut count, &model, &batch)?;
        let mut dev = Device::cpu(&count.high_water(), machine.threads, Isa::detect())?;
        let model = Model::load_shown(&mut dev, dir, config, DType::F32, machine.observer)?;
        Ok((dev, model))
    };
    let (trained, before) = {
        let (mut dev, model) = load(config_trained)?;
        (model.layout.clone(), of_model(&mut dev, &model, &batch)?)
    };
    let (mut dev, model) = load(plain)?;
    let Merged { changed, total } =
        StoredAdapter::open(dir)?.merge(&mut dev, &model.layout, &weights, &trained, dtype)?;
    let moved = largest("the check of the merge", &before, &of_model(&mut dev, &model.base(), &batch)?)?;
    let most = ROUNDING * before.iter().fold(1.0, |most, logprob| logprob.abs().max(most));
    if moved > most {
        let found = format!("{}: the log-probs of the merged model differ by {moved:.1e}", dir.display());
        return Err(Error::Failed(format!("{found}, expected at most {most:.1e}: this is a fault of omr")));
    }
    let mut line = format!("{changed} of {total} weights changed in the matrices that have an adapter; ");
    files::folder(out, |folder| {
        let written = model.save(&mut dev, folder, dtype)?;
        copy_companions(dir, folder, &ImageConfig::default())?;
        Manifest::write_checked(folder, &Writer::alone(written))?;
        drop(dev);
        line += &difference([dir, folder], probe, config, machine)?;
        Ok(())
    })?;
    Ok(line)
}

/// Describes the largest difference between the log-probs of the responses of `probe` under two models.
fn difference(dirs: [&Path; 2], probe: &Probe<'_>, config: &GenerateConfig, machine: &Machine) -> Result<String> {
    let (name, found) = match probe {
        Probe::Nothing => return Ok("the difference of log-probs was not measured (--rows FILE)".to_owned()),
        Probe::Rows(rows) => (rows.display().to_string(), dirs.map(|dir| of_rows(dir, rows, config, machine))),
        Probe::Batch(batch) => {
            let found = dirs.map(|dir| logprobs(dir, batch, config.dtype, machine));
            (format!("the last training batch ({} sequences)", batch.len()), found)
        }
    };
    let [with_adapter, merged] = found;
    let (with_adapter, merged) = (with_adapter?, merged?);
    let largest = largest(&name, &with_adapter, &merged)?;
    Ok(format!("the log-probs of {} tokens of {name} differ by at most {largest:.1e}", merged.len()))
}

/// Returns the largest difference between the log-probs of the same tokens. `name` names the tokens.
fn largest(name: &str, with_adapter: &[f64], merged: &[f64]) -> Result<f64> {
    if with_adapter.len() != merged.len() || with_adapter.iter().chain(merged).any(|x| !x.is_finite()) {
        return Err(Error::Failed(format!("{name}: not every token has a finite log-prob under both models")));
    }
    Ok(with_adapter.iter().zip(merged).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max))
}

/// Returns the log-probs of the responses in `rows`.
fn of_rows(dir: &Path, rows: &Path, config: &GenerateConfig, machine: &Machine) -> Result<Vec<f64>> {
    let mut found = Vec::new();
    score(dir, rows, config, machine, |line| {
        // JSON has null in place of a number that is not finite.
        let logprobs = line.get("logprobs").and_then(Value::as_array).into_iter().flatten();
        found.extend(logprobs.map(|value| value.as_f64().unwrap_or(f64::NAN)));
        Ok(())
    })?;
    Ok(found)
}

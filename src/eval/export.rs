//! Writes a model directory whose weights contain an adapter.

use std::path::Path;

use serde_json::Value;

use super::logprobs::score;
use crate::config::{GenerateConfig, ImageConfig};
use crate::device::{Device, Isa, Target};
use crate::error::{Error, Result};
use crate::files;
use crate::hub::base_model;
use crate::identity::Manifest;
use crate::machine::Machine;
use crate::model::adapter_files::StoredAdapter;
use crate::model::merge::Merged;
use crate::model::weights::WeightFiles;
use crate::model::{Model, ModelConfig};
use crate::train::saving::copy_companions;

/// Writes the base of the adapter in `dir`, with the adapter merged into its weights, to the new directory `out`. The
/// merge runs on the CPU, in the type of the base's weights. Returns a line for the user: how many weights changed, and
/// the largest difference of the log-probs of the responses in `rows`, which [`score`] reads with `config`.
pub fn export(
    dir: &Path,
    out: &Path,
    rows: Option<&Path>,
    config: &GenerateConfig,
    machine: &Machine,
) -> Result<String> {
    let Some(base) = base_model::of(dir)? else {
        let found = format!("{}, which contains no {}", dir.display(), base_model::ADAPTER_CONFIG);
        return Err(Error::input("--merge", found, "a run that trained an adapter (key lora), or its model directory"));
    };
    if out.exists() {
        let found = format!("{}, which exists", out.display());
        return Err(Error::input("--out", found, "a new folder: nothing is overwritten"));
    }
    let (weights, model_config) = (WeightFiles::open(&base)?, ModelConfig::load(&dir.join("config.json"))?);
    let dtype = weights.dtype();
    let mut count = Device::count_for(Target::cpu(machine.threads));
    Model::empty_of(&mut count, dir, model_config, dtype)?;
    let mut dev = Device::cpu(&count.high_water(), machine.threads, Isa::detect())?;
    let model = Model::load_shown(&mut dev, dir, dtype, machine.observer)?;
    let Merged { changed, total } = StoredAdapter::open(dir)?.merge(&mut dev, &model.layout, &weights)?;
    let mut line = format!("{changed} of {total} weights changed in the matrices that have an adapter; ");
    files::folder(out, |folder| {
        model.save(&mut dev, folder, dtype)?;
        copy_companions(dir, folder, &ImageConfig::default())?;
        Manifest::write(folder)?;
        drop(dev);
        line += &match rows {
            Some(rows) => difference([dir, folder], rows, config, machine)?,
            None => "the difference of log-probs was not measured (--rows FILE)".to_owned(),
        };
        Ok(())
    })?;
    Ok(line)
}

/// Describes the largest difference between the log-probs of the responses in `rows` under two models.
fn difference(dirs: [&Path; 2], rows: &Path, config: &GenerateConfig, machine: &Machine) -> Result<String> {
    let mut found: [Vec<f64>; 2] = Default::default();
    for (dir, found) in dirs.into_iter().zip(&mut found) {
        score(dir, rows, config, machine, |line| {
            let line: Value = serde_json::from_str(line).map_err(|e| Error::Failed(e.to_string()))?;
            found.extend(line["logprobs"].as_array().into_iter().flatten().filter_map(Value::as_f64));
            Ok(())
        })?;
    }
    let [with_adapter, merged] = found;
    let largest = with_adapter.iter().zip(&merged).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let (tokens, rows) = (merged.len(), rows.display());
    Ok(format!("the log-probs of {tokens} tokens of {rows} differ by at most {largest:.1e}"))
}

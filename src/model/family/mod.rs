//! The families of models. A family is data: a function from `config.json` to a [`ModelConfig`], names of tensors, and one
//! line in `FAMILIES`.

pub mod dense;
pub mod names;
pub mod node;
pub mod qwen2_5_vl;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use self::node::Node;
use crate::config::BaseConfig;
use crate::error::{Error, Result};
use crate::files;
use crate::hub::base_model;
use crate::model::config::{Family, ModelConfig, ModelParts, NewIds};
use crate::model::weights::WeightFiles;

/// The families.
static FAMILIES: [&Family; 1] = [&qwen2_5_vl::FAMILY];

impl ModelConfig {
    /// Reads `path` (a `config.json`). If the directory also contains the weights, errors on sizes that differ from the
    /// weights, so that no memory is allocated for wrong sizes.
    pub fn load(path: &Path) -> Result<ModelConfig> {
        let (dir, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let dir = &base_model::holder(dir, &name.to_string_lossy())?;
        let path = &dir.join(name);
        let text = files::read_to_string(path).map_err(Error::io(path))?;
        let value = serde_json::from_str(&text).map_err(|e| Error::format(path, format!("not JSON: {e}")))?;
        let config = ModelConfig::from_json(&value, &path.display().to_string())?;
        WeightFiles::check_sizes(dir, &(config.family.size_checks)(&config))?;
        Ok(config)
    }

    /// Returns the configuration of a new model of a family. `place` names its source in errors.
    pub fn new(family: &'static Family, base: &BaseConfig, ids: NewIds, place: &str) -> Result<ModelConfig> {
        ModelConfig::from_json(&(family.new)(base, ids), place)
    }

    /// Reads a parsed file. `place` names the file in errors.
    pub fn from_json(value: &Value, place: &str) -> Result<ModelConfig> {
        let root = Node::root(value, place)?;
        let known: Vec<&str> = FAMILIES.iter().flat_map(|family| family.model_types).copied().collect();
        root.one_of("model_type", &known, None)?;
        let is_one = |family: &&&Family| root.one_of("model_type", family.model_types, None).is_ok();
        let family = *FAMILIES.iter().find(is_one).unwrap_or(&FAMILIES[0]);
        let class = root.get("architectures").and_then(|all| all.get(0));
        if let Some(class) = class.filter(|class| !family.classes.iter().any(|known| class == known)) {
            let expected = format!("{}: other model families are not supported", family.classes.join(" or "));
            return Err(Error::input(root.at("architectures"), class.to_string(), expected));
        }
        if let Some(key) = root.child("auto_map")?.and_then(|map| map.keys().find(|key| !key.contains("Process"))) {
            let found = format!("custom model code for {key}");
            let expected = "no custom code: omr never runs code from a model directory, and the model needs it";
            return Err(Error::input(root.at("auto_map"), found, expected));
        }
        if root.child("quantization_config")?.is_some() {
            let expected = "weights in f32, bf16 or f16: quantised weights are not supported";
            return Err(Error::input(root.at("quantization_config"), "quantised weights", expected));
        }
        let ModelParts { text, media } = (family.read)(&root)?;
        Ok(ModelConfig { family, text, media, file: Arc::new(value.clone()) })
    }
}

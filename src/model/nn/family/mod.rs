//! The families of models. A family is data: a function from `config.json` to a [`ModelConfig`], names of tensors, and one
//! line in `FAMILIES`.

pub mod dense;
pub mod llama;
pub mod media;
pub mod names;
pub mod node;
pub mod qwen2;
pub mod qwen2_5_vl;
pub mod qwen3;
pub mod qwen3_vl;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use self::node::Node;
use super::config::quantization;
use crate::nn::config::{Family, ModelConfig, ModelParts, NewIds};
use crate::nn::weights::WeightFiles;
use omr_base::config::BaseConfig;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::hub::base_model;

/// The families.
pub static FAMILIES: [&Family; 5] =
    [&qwen2_5_vl::FAMILY, &qwen3_vl::FAMILY, &llama::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY];

impl ModelConfig {
    /// Reads `path` (a `config.json`). If the directory also contains the weights, errors on sizes that differ from the
    /// weights, so that no memory is allocated for wrong sizes.
    pub fn load(path: &Path) -> Result<ModelConfig> {
        let (dir, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let dir = &base_model::holder(dir, &name.to_string_lossy())?;
        let path = &dir.join(name);
        let value: Value = files::json::read(path)?;
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
        let family = family(&root)?;
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
        let quantization = quantization::read(&root)?;
        let ModelParts { text, media } = (family.read)(&root)?;
        Ok(ModelConfig { family, text, media, quantization, file: Arc::new(value.clone()) })
    }
}

/// Returns the family of a file. The error for any other model names it, and lists the families.
fn family(root: &Node<'_>) -> Result<&'static Family> {
    let model_type = root.get("model_type").and_then(Value::as_str);
    let is_it = |family: &&&Family| model_type.is_some_and(|found| family.model_types.contains(&found));
    if let Some(family) = FAMILIES.iter().find(is_it) {
        return Ok(family);
    }
    let class = root.get("architectures").and_then(|all| all.get(0)).and_then(Value::as_str);
    let found = match (model_type, class) {
        (Some(found), Some(class)) => format!("{found} ({class})"),
        (found, class) => found.or(class).unwrap_or("nothing").to_owned(),
    };
    let known: Vec<&str> = FAMILIES.iter().flat_map(|family| family.model_types).copied().collect();
    let expected = format!("a model of a supported family: {}", known.join(", "));
    Err(Error::input(root.at("model_type"), found, expected))
}

/// Returns the error of a path that is no directory of a model. `key` names the setting.
pub fn not_a_directory(key: &str, path: &Path) -> Error {
    let shown = path.display();
    let found = match path.extension() {
        Some(end) if end == "gguf" => format!("{shown}, a GGUF file, which is not supported"),
        _ if path.exists() => shown.to_string(),
        _ => format!("{shown}, which does not exist"),
    };
    Error::input(key, found, "a model directory, as Hugging Face transformers writes it")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unsupported_model_is_answered_by_its_name_first() {
        for (file, name) in [
            (json!({"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}), "qwen3_moe (Qwen3MoeFor"),
            (json!({"model_type": "gemma3"}), "gemma3"),
            (json!({"architectures": ["Qwen3_5ForConditionalGeneration"]}), "Qwen3_5ForConditionalGeneration"),
            (json!({}), "nothing"),
        ] {
            let error = ModelConfig::from_json(&file, "m/config.json").unwrap_err().to_string();
            let expected = "expected a model of a supported family: qwen2_5_vl, qwen3_vl, llama, qwen2, qwen3";
            assert!(error.starts_with(&format!("m/config.json /model_type: found {name}")), "{error}");
            assert!(error.ends_with(expected), "{error}");
        }
        let error = not_a_directory("--model", Path::new("smol.gguf")).to_string();
        assert!(error.contains("smol.gguf, a GGUF file, which is not supported"), "{error}");
        assert!(not_a_directory("--model", Path::new("nowhere")).to_string().contains("nowhere, which does not exist"));
    }

    #[test]
    fn layers_that_differ_from_full_attention_are_refused() {
        let base = BaseConfig::default();
        let media = omr_data::image::MediaIds { image: 0, video: 0, start: 0, end: 0, pad: 0 };
        for family in FAMILIES.iter().filter(|family| family.prefixes.is_empty()) {
            let mut file = (family.new)(&base, NewIds { bos: 0, eos: 1, media });
            assert_eq!(ModelConfig::from_json(&file, "m").unwrap().text.eos_token_id, [1]);
            file["layer_types"] = json!(["full_attention", "sliding_attention"]);
            let error = ModelConfig::from_json(&file, "m").unwrap_err().to_string();
            assert!(error.starts_with("m /layer_types: found \"sliding_attention\""), "{error}");
            file["layer_types"] = json!(null);
            file["attention_bias"] = json!(true);
            assert!(ModelConfig::from_json(&file, "m").unwrap_err().to_string().contains("/attention_bias"));
            file["attention_bias"] = json!(null);
            file["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 1e6});
            ModelConfig::from_json(&file, "m").unwrap();
            for (key, value, place) in [
                ("is_causal", json!(false), "m /is_causal: found false"),
                ("partial_rotary_factor", json!(0.5), "m /partial_rotary_factor: found 0.5"),
                (
                    "rope_scaling",
                    json!({"rope_type": "yarn", "factor": 4.0}),
                    "m /rope_scaling/rope_type: found \"yarn\"",
                ),
            ] {
                file[key] = value;
                let error = ModelConfig::from_json(&file, "m").unwrap_err().to_string();
                assert!(error.starts_with(place), "{error}");
                file[key] = json!(null);
            }
        }
    }
}

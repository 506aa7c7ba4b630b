//! Storage of weights in 8 or 4 bits, in `config.json`.

use serde_json::{Value, json};

use crate::nn::family::node::Node;
use omr_base::choice::BaseFormat;
use omr_base::config::QuantizationConfig;
use omr_base::error::{Error, Result};

/// Key of `config.json` with the storage of the weights.
pub const KEY: &str = "quantization_config";
/// Value of `quant_method` of files and adapters that omr writes in its own layout.
const OWN: &str = "omr";

/// Reads `quantization_config` of `config.json`. Errors name a format that is not supported.
pub(crate) fn read(root: &Node<'_>) -> Result<Option<QuantizationConfig>> {
    let Some(config) = root.get(KEY).filter(|config| !config.is_null()) else { return Ok(None) };
    let wrong = |key: &str, expected: &str| {
        let found = format!("{key} {}", config[key]);
        Err(Error::input(root.at(KEY), found, format!("{expected}; other quantised weights are not supported")))
    };
    let names = |key: &str| -> Result<Vec<String>> {
        let names = serde_json::from_value::<Option<Vec<String>>>(config[key].clone());
        names.map_or_else(|_| wrong(key, "a list of names").map(|_| Vec::new()), |names| Ok(names.unwrap_or_default()))
    };
    match config["quant_method"].as_str() {
        Some(OWN) => {
            let Some(base) = config["base"].as_str().and_then(|name| name.parse().ok()) else {
                return wrong("base", "int8 or nf4");
            };
            Ok(Some(QuantizationConfig { base, skip_modules: names("skip_modules")? }))
        }
        Some("bitsandbytes") => {
            if config["load_in_8bit"] == true {
                return wrong("load_in_8bit", "load_in_4bit with nf4");
            }
            if config["bnb_4bit_quant_type"] != "nf4" {
                return wrong("bnb_4bit_quant_type", "\"nf4\"");
            }
            let mut skip_modules: Vec<String> = names("llm_int8_skip_modules")?;
            // The paths in memory of newer versions of transformers.
            for name in &mut skip_modules {
                *name = name.replacen("model.visual", "visual", 1).replacen("model.language_model", "model", 1);
            }
            skip_modules.dedup();
            // Without a list, transformers leaves the output matrix as it is.
            if skip_modules.is_empty() {
                skip_modules.push("lm_head".to_owned());
            }
            Ok(Some(QuantizationConfig { base: BaseFormat::Nf4, skip_modules }))
        }
        _ => wrong("quant_method", "\"bitsandbytes\" (nf4) or \"omr\""),
    }
}

/// Returns the value of `quantization_config` for files or adapters of this storage.
pub fn to_json(quantization: &QuantizationConfig) -> Value {
    json!({"quant_method": OWN, "base": quantization.base.name(), "skip_modules": quantization.skip_modules})
}

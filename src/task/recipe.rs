//! Parts of a task that a recipe needs: rows, texts for a tokenizer and a teacher. The small initial model is the same
//! for all tasks.

use serde_json::Value;
use tokio::runtime::Handle;

use super::teacher::Teacher;
use crate::config::{BaseConfig, TaskConfig};
use crate::data::Row;
use crate::error::{Error, Result};
use crate::text::Tokenizer;

/// Functions with which a recipe trains a model on a task from scratch.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// Duration of the recipe on the CPU, empty if it was not measured. The text ends with "; ", because the announcement
    /// continues after it.
    pub takes: &'static str,
    /// Makes the rows of a run with this seed. Equal arguments give equal rows.
    pub splits: fn(&TaskConfig, u64) -> Result<Splits>,
    /// Returns texts that contain every word that the task can produce, for training a tokenizer.
    pub corpus: fn() -> Vec<String>,
    /// Returns texts whose words should become single tokens.
    pub words: fn() -> Vec<String>,
    /// Starts the teacher.
    pub teacher: fn(&TaskConfig, &Handle) -> Result<Teacher>,
}

/// Rows of a run.
pub struct Splits {
    /// Questions for the teacher.
    pub teach: Vec<Row>,
    /// Questions for RL.
    pub train: Vec<Row>,
    /// Questions for evaluation. No training uses them.
    pub heldout: Vec<Row>,
}

/// Returns the `config.json` of a small model. The shape comes from `base`, the token ids from the tokenizer. It is an
/// error if the tokenizer lacks a special token of Qwen2.5-VL.
pub fn model_config(base: &BaseConfig, tokenizer: &Tokenizer) -> Result<Value> {
    let mut config = fixed(include_str!("recipe/config.json"));
    for (_, value) in config.as_object_mut().into_iter().flatten().filter(|(key, _)| key.ends_with("_token_id")) {
        let token = value.as_str().unwrap_or_default();
        let missing = || Error::input("tokenizer", format!("no {token}"), "the special tokens of Qwen2.5-VL");
        *value = tokenizer.id(token).ok_or_else(missing)?.into();
    }
    config["hidden_size"] = base.hidden_size.into();
    config["initializer_range"] = base.initializer_range.into();
    config["intermediate_size"] = base.intermediate_size.into();
    config["max_window_layers"] = base.num_hidden_layers.into();
    config["num_attention_heads"] = base.num_attention_heads.into();
    config["num_hidden_layers"] = base.num_hidden_layers.into();
    config["num_key_value_heads"] = base.num_key_value_heads.into();
    config["rope_theta"] = base.rope_theta.into();
    config["rope_scaling"]["mrope_section"] = base.mrope_section.clone().into();
    config["tie_word_embeddings"] = base.tie_word_embeddings.into();
    config["vocab_size"] = base.vocab_size.into();
    let (vision, shape) = (&base.vision, &mut config["vision_config"]);
    shape["depth"] = vision.depth.into();
    shape["fullatt_block_indexes"] = vision.fullatt_block_indexes.clone().into();
    shape["hidden_size"] = vision.hidden_size.into();
    shape["intermediate_size"] = vision.intermediate_size.into();
    shape["num_heads"] = vision.num_heads.into();
    shape["out_hidden_size"] = base.hidden_size.into();
    shape["window_size"] = vision.window_size.into();
    Ok(config)
}

/// Returns the `preprocessor_config.json` of a small model. Its minimum size allows images of 28 x 28, so such images
/// are not enlarged.
pub fn preprocessor_config() -> Value {
    fixed(include_str!("recipe/preprocessor_config.json"))
}

fn fixed(text: &str) -> Value {
    serde_json::from_str(text).expect("a fixed text")
}

//! Parts of a task that a recipe needs: rows, texts for a tokenizer, a small initial model and a teacher.

use serde_json::Value;
use tokio::runtime::Handle;

use crate::config::{BaseConfig, EndpointConfig, TaskConfig};
use crate::data::Row;
use crate::error::Result;
use crate::text::Tokenizer;

/// Functions with which a recipe trains a model on a task from scratch.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// Duration of the recipe on the CPU. The text ends with "; ", because the announcement continues after it.
    pub takes: &'static str,
    /// Makes the rows of a run with this seed. Equal arguments give equal rows.
    pub splits: fn(&TaskConfig, u64) -> Result<Splits>,
    /// Returns every text that the task can produce, for training a tokenizer.
    pub corpus: fn() -> Vec<String>,
    /// Returns texts whose words should become single tokens.
    pub words: fn() -> Vec<String>,
    /// Returns the `config.json` of the small model.
    pub model_config: fn(&BaseConfig, &Tokenizer) -> Result<Value>,
    /// Returns the `preprocessor_config.json` of the small model.
    pub preprocessor_config: fn() -> Value,
    /// Starts the teacher.
    pub teacher: fn(&TaskConfig, &Handle) -> Result<Box<dyn Teacher>>,
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

/// A running teacher. It stops when this value is dropped.
pub trait Teacher {
    /// Returns the address and the model name of the teacher.
    fn endpoint(&self) -> EndpointConfig;
}

//! What a task offers a recipe: rows, texts for a tokenizer, a small model to begin with, a teacher.

use serde_json::Value;
use tokio::runtime::Handle;

use crate::config::{BaseConfig, EndpointConfig, TaskConfig};
use crate::data::Row;
use crate::error::Result;
use crate::text::Tokenizer;

/// How a task is taught from nothing.
#[derive(Clone, Copy)]
pub struct Recipe {
    /// How long it takes on the CPU, as the beginning of a sentence.
    pub takes: &'static str,
    /// The rows of a run with this seed; equal arguments give equal rows.
    pub splits: fn(&TaskConfig, u64) -> Result<Splits>,
    /// Every text the task can produce, to train a tokenizer on.
    pub corpus: fn() -> Vec<String>,
    /// Texts whose words should be single tokens.
    pub words: fn() -> Vec<String>,
    /// `config.json` of its small model.
    pub model_config: fn(&BaseConfig, &Tokenizer) -> Result<Value>,
    /// `preprocessor_config.json` of its small model.
    pub preprocessor_config: fn() -> Value,
    /// Starts its teacher.
    pub teacher: fn(&TaskConfig, &Handle) -> Result<Box<dyn Teacher>>,
}

/// The rows of a run.
pub struct Splits {
    /// Questions for the teacher.
    pub teach: Vec<Row>,
    /// Questions RL draws from.
    pub train: Vec<Row>,
    /// Questions measured on, of which no training sees anything.
    pub heldout: Vec<Row>,
}

/// A running teacher; it stops when this is dropped.
pub trait Teacher {
    /// Where it answers, and under what name.
    fn endpoint(&self) -> EndpointConfig;
}

//! The size of micro-batches in a config of fine-tuning.

use serde_json::{Value, json};

use super::setting::{Place, Setting};
use crate::error::Result;

/// Maximum number of tokens of a micro-batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MicroBatchTokens {
    /// Chosen at the first start of a run.
    Auto,
    /// This number.
    AtMost(usize),
}

impl MicroBatchTokens {
    /// Returns the number, and for `auto`, which cuts nothing until it is chosen, the largest number.
    pub fn get(self) -> usize {
        match self {
            MicroBatchTokens::Auto => usize::MAX,
            MicroBatchTokens::AtMost(tokens) => tokens,
        }
    }
}

impl From<usize> for MicroBatchTokens {
    fn from(tokens: usize) -> MicroBatchTokens {
        MicroBatchTokens::AtMost(tokens)
    }
}

impl Default for MicroBatchTokens {
    fn default() -> MicroBatchTokens {
        MicroBatchTokens::AtMost(8192)
    }
}

impl Setting for MicroBatchTokens {
    fn set(&mut self, place: &Place, path: &str, value: &Value) -> Result<()> {
        *self = match value.as_str() {
            Some("auto") => MicroBatchTokens::Auto,
            _ => {
                let mut tokens = 0usize;
                tokens.set(place, path, value)?;
                tokens.into()
            }
        };
        Ok(())
    }

    fn write(&self) -> Value {
        match self {
            MicroBatchTokens::Auto => json!("auto"),
            MicroBatchTokens::AtMost(tokens) => json!(tokens),
        }
    }

    fn kind(&self) -> String {
        "auto or a whole number".to_owned()
    }

    fn schema(&self) -> Value {
        json!({ "anyOf": [{ "const": "auto" }, { "type": "integer" }] })
    }
}

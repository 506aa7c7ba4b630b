//! Config keys for the variables of a chat template. A request to `omr serve` sets the same variables.

use serde_json::{Map, Value};

use super::{Place, Setting};
use crate::error::Result;

settings! {
    /// Variables that the chat template of the model reads. The template itself always comes from the model directory.
    pub struct ChatTemplateKwargs {
        /// Write the number of each image and video before it, such as `Picture 1: `. null = the template decides.
        add_vision_id: Option<bool> = None, name: "verl data.apply_chat_template_kwargs.add_vision_id";
        /// Let the model think. false = Qwen3's generation prompt contains an empty thinking part, so that the model
        /// answers at once. null = the template decides.
        enable_thinking: Option<bool> = None,
            name: "verl data.apply_chat_template_kwargs.enable_thinking; LLaMA-Factory enable_thinking";
        /// Date in the system turn of Llama 3.1 and later. null = 26 Jul 2024, the date in Meta's template; the clock is
        /// never read.
        date_string: Option<String> = None, name: "verl data.apply_chat_template_kwargs.date_string";
    }
}

impl ChatTemplateKwargs {
    /// Reads the variables from a JSON object. Errors name `path`.
    pub fn read(path: &str, value: &Value) -> Result<ChatTemplateKwargs> {
        let mut kwargs = ChatTemplateKwargs::default();
        kwargs.set(&Place::default(), path, value).map(|()| kwargs)
    }

    /// Returns the variables that are set, with their values.
    pub fn variables(&self) -> Map<String, Value> {
        let Value::Object(all) = self.write() else { return Map::new() };
        all.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }
}

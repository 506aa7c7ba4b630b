//! Config keys of a frozen base that is stored in 8 or 4 bits.

use crate::choice::BaseFormat;

settings! {
    /// Storage of the matrices of a frozen base. Every product still computes with bf16 numbers, and sampler and trainer
    /// read the same values.
    pub struct QuantizationConfig or base {
        /// Format: int8 (8.1 bits per weight, error about 0.9 %) or nf4 (4.5 bits, about 9 %).
        base: BaseFormat = BaseFormat::Int8;
        /// Modules whose matrices are not quantised: names such as lm_head, or parts of names.
        skip_modules: Vec<String> = vec!["lm_head".to_owned(), "visual".to_owned()], name: "transformers llm_int8_skip_modules";
    }
}

impl QuantizationConfig {
    /// Describes the storage for messages and for the identity of answers.
    pub fn describe(&self) -> String {
        match self.skip_modules.is_empty() {
            true => format!("{} of all modules", self.base.name()),
            false => format!("{} without {}", self.base.name(), self.skip_modules.join(", ")),
        }
    }

    /// Returns true if the module with this name (`model.layers.0.self_attn.q_proj`) is left as it is: an entry is a
    /// sequence of parts of the name.
    pub fn skips(&self, module: &str) -> bool {
        let module = format!(".{module}.");
        self.skip_modules.iter().any(|name| module.contains(&format!(".{}.", name.trim_matches('.'))))
    }
}

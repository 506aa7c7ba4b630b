//! Changes of a config that lower the memory of its run, ordered by their cost.

use serde_json::{Value, json};

use super::assumptions::Rows;
use super::training::{Overrides, Training, set};
use omr_base::choice::BaseFormat;
use omr_base::config;
use omr_base::error::Result;
use omr_data::image::Processor;

/// A kind of change.
pub struct Change {
    /// Key that it sets.
    key: &'static str,
    /// Values of the key. Each makes a step; a later step never needs more memory than an earlier one.
    values: Values,
    /// Name of a step. `{}` stands for the value.
    label: &'static str,
    /// Consequence of the change.
    pub cost: &'static str,
    /// Weight of this cost. Sets of changes are compared by their sums.
    pub weight: usize,
}

/// Values of a key, the least change first.
enum Values {
    /// `to`, if the value is `from`.
    Switch { from: &'static str, to: &'static str },
    /// Multiples of the longest row, from the value down to one row.
    Rows,
    /// Half of the value, a quarter and so on, down to `least`. `null` is the default of the processor of images.
    Halves { least: usize },
    /// Formats of a frozen base, if it has none.
    Formats,
    /// Lengths of the longest row, with the other keys that they need.
    Lengths,
}

/// The kinds of changes, the cheapest one first.
pub static CHANGES: [Change; 8] = [
    Change {
        key: "optim",
        values: Values::Switch { from: "adamw_torch", to: "adamw_8bit" },
        label: "8-bit Adam",
        cost: "AdamW with moments of 8 bits, as in bitsandbytes: nearly the same results",
        weight: 1,
    },
    Change {
        key: "micro_batch_tokens",
        values: Values::Rows,
        label: "micro {}",
        cost: "same results up to rounding, more passes",
        weight: 1,
    },
    Change {
        key: "rollout.max_num_batched_tokens",
        values: Values::Halves { least: 2048 },
        label: "prefill {}",
        cost: "same results, more steps to prefill prompts",
        weight: 1,
    },
    Change {
        key: "optimizer_offload",
        values: Values::Switch { from: "false", to: "true" },
        label: "offload",
        cost: "same results, optimizer state in host memory, slower updates",
        weight: 3,
    },
    Change {
        key: "quantization",
        values: Values::Formats,
        label: "{} base",
        cost: "the frozen base is stored in 8 or 4 bits, with errors of about 1 or 9 %; skip_modules: [] takes lm_head and the \
            tower, too",
        weight: 4,
    },
    Change {
        key: PIXELS,
        // No smaller image than one of 1,280 tokens is suggested.
        values: Values::Halves { least: 1280 * 28 * 28 },
        label: "pixels {}",
        cost: "larger images are scaled down",
        weight: 5,
    },
    Change {
        key: "micro_batch_tokens",
        values: Values::Lengths,
        label: "length {}",
        cost: "long rows are left out or cut",
        weight: 8,
    },
    Change {
        key: "lora.rank",
        values: Values::Switch { from: "null", to: "16" },
        label: "LoRA",
        cost: "trains adapters instead of the weights; needs a higher learning_rate",
        // More than all others together.
        weight: 32,
    },
];

const PIXELS: &str = "image_max_pixels";

/// Maximum number of steps to shorten rows.
const ROW_STEPS: usize = 64;

/// Rows are shortened to no less than this part of a row or of a response.
const SHORTEST: usize = 8;

impl Change {
    /// Returns the steps that `config` allows.
    fn steps<C: Training>(&self, config: &C, rows: &Rows) -> Result<Vec<Overrides>> {
        let (tree, row) = (config.write(), config.row_size(rows)?);
        let now = self.key.split('.').fold(&tree, |tree, name| &tree[name]);
        let whole = match (now.as_u64(), self.key, rows.image_tokens) {
            // An image of a fixed size does not depend on the key.
            (_, PIXELS, Some(_)) => 0,
            (None, PIXELS, None) => Processor::default().max_pixels as usize,
            (whole, ..) => whole.unwrap_or(0) as usize,
        };
        let step = |value: Value| vec![(self.key, value)];
        let steps: Vec<Overrides> = match self.values {
            Values::Switch { from, to } if config::inline(now) == from => {
                vec![step(serde_json::from_str(to).unwrap_or_else(|_| json!(to)))]
            }
            Values::Formats if now.is_null() => BaseFormat::ALL.iter().map(|(name, _)| step(json!(name))).collect(),
            Values::Switch { .. } | Values::Formats => Vec::new(),
            Values::Rows => {
                let multiples = (1..=whole / row.tokens).rev().map(|n| n * row.tokens);
                multiples.filter(|&n| n < whole).map(|n| step(json!(n))).collect()
            }
            Values::Halves { least } => {
                let halves = (1..usize::BITS).map(|n| whole >> n).take_while(|&n| n >= least);
                halves.map(|n| step(json!(n))).collect()
            }
            Values::Lengths => {
                let unit = row.tokens.div_ceil(ROW_STEPS).next_power_of_two();
                let shortest = row.fixed + (row.tokens - row.fixed).div_ceil(SHORTEST);
                let lengths = (shortest.div_ceil(unit)..row.tokens.div_ceil(unit)).rev().map(|n| n * unit);
                lengths.map_while(|n| config.row_keys(rows, n).ok().flatten()).collect()
            }
        };
        Ok(steps.into_iter().take_while(|step| set(config, step).is_some()).collect())
    }

    /// Returns a short name of `step`.
    pub fn label(&self, step: &Overrides) -> String {
        let value = step.iter().find(|(key, _)| *key == self.key).map(|(_, value)| config::inline(value));
        self.label.replace("{}", &value.unwrap_or_default())
    }

    /// Returns the short name of all steps, and the keys that `step` sets with their consequence.
    pub fn legend(&self, step: &Overrides) -> (String, String) {
        let keys: Vec<&str> = step.iter().map(|(key, _)| *key).collect();
        (self.label.replace("{}", "N"), format!("{}: {}", keys.join(", "), self.cost))
    }
}

/// Returns the steps of each change of [`CHANGES`] that `config` allows.
pub fn steps<C: Training>(config: &C, rows: &Rows) -> Result<Vec<Vec<Overrides>>> {
    CHANGES.iter().map(|change| change.steps(config, rows)).collect()
}

/// Formats a step as it is typed on the command line.
pub fn typed(step: &Overrides) -> Vec<String> {
    step.iter().map(|(key, value)| format!("{key}={}", config::inline(value))).collect()
}

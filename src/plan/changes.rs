//! Changes of a config that lower the memory of its run, ordered by their cost.

use serde_json::{Value, json};

use super::assumptions::Rows;
use super::training::{Overrides, RowSize, Training, set};
use crate::config;
use crate::error::Result;
use crate::image::Processor;

/// A kind of change. It has several steps, and a later step never needs more memory than an earlier one.
pub struct Change {
    /// Name of a step. `{}` stands for the value of the key `shown`.
    label: &'static str,
    shown: &'static str,
    /// Consequence of the change.
    pub cost: &'static str,
    /// Weight of this cost. Sets of changes are compared by their sums.
    pub weight: usize,
    /// Returns the steps, the least one first.
    steps: fn(&Limits) -> Vec<Overrides>,
}

/// The settings of a config that the steps are derived from.
pub struct Limits<'a> {
    /// The config as a tree of keys.
    config: &'a Value,
    rows: &'a Rows,
    row: RowSize,
    /// Returns what to set for rows of at most this number of tokens, or `None` if the requested rows are longer.
    shorten: &'a dyn Fn(usize) -> Option<Overrides>,
}

/// The kinds of changes, the cheapest one first.
pub static CHANGES: [Change; 7] = [
    Change {
        label: "8-bit Adam",
        shown: "optim",
        cost: "AdamW with moments of 8 bits, as in bitsandbytes: nearly the same results",
        weight: 1,
        steps: |limits| match limits.config["optim"].as_str() {
            Some("adamw_torch") => vec![vec![("optim", json!("adamw_8bit"))]],
            _ => Vec::new(),
        },
    },
    Change {
        label: "micro {}",
        shown: "micro_batch_tokens",
        cost: "same results, more passes",
        weight: 1,
        steps: |limits| {
            let whole = limits.number("micro_batch_tokens").unwrap_or(0);
            let rows = (1..=whole / limits.row.tokens).rev().map(|n| n * limits.row.tokens);
            rows.filter(|&n| n < whole).map(|n| vec![("micro_batch_tokens", json!(n))]).collect()
        },
    },
    Change {
        label: "prefill {}",
        shown: "rollout.max_num_batched_tokens",
        cost: "same results, more steps to prefill prompts",
        weight: 1,
        steps: |limits| {
            let key = "rollout.max_num_batched_tokens";
            halves(limits.number(key).unwrap_or(0), 2048).map(|n| vec![(key, json!(n))]).collect()
        },
    },
    Change {
        label: "offload",
        shown: "optimizer_offload",
        cost: "same results, optimizer state in host memory, slower updates",
        weight: 3,
        steps: |limits| match limits.config["optimizer_offload"] {
            Value::Bool(false) => vec![vec![("optimizer_offload", json!(true))]],
            _ => Vec::new(),
        },
    },
    Change {
        label: "pixels {}",
        shown: "image_max_pixels",
        cost: "larger images are scaled down",
        weight: 5,
        steps: |limits| {
            let pixels = limits.number("image_max_pixels").unwrap_or(Processor::default().max_pixels as usize);
            // An image of a fixed size does not depend on the key.
            let pixels = if limits.rows.image_tokens.is_none() { pixels } else { 0 };
            halves(pixels, LEAST_PIXELS).map(|n| vec![("image_max_pixels", json!(n))]).collect()
        },
    },
    Change {
        label: "length {}",
        shown: "micro_batch_tokens",
        cost: "long rows are left out or cut",
        weight: 8,
        steps: |limits| {
            let RowSize { tokens, fixed } = limits.row;
            let step = tokens.div_ceil(ROW_STEPS).next_power_of_two();
            let shortest = fixed + (tokens - fixed).div_ceil(SHORTEST);
            let lengths = (1..).map(|n| n * step).skip_while(|&n| n < shortest).take_while(|&n| n < tokens);
            let lengths: Vec<usize> = lengths.collect();
            lengths.into_iter().rev().map_while(|n| (limits.shorten)(n)).collect()
        },
    },
    Change {
        label: "LoRA",
        shown: "lora.rank",
        cost: "trains adapters instead of the weights; needs a higher learning_rate",
        // More than all others together.
        weight: 32,
        steps: |limits| match limits.config["lora"] {
            Value::Null => vec![vec![("lora.rank", json!(16))]],
            _ => Vec::new(),
        },
    },
];

/// Pixels below which no smaller image is suggested: 1,280 tokens.
const LEAST_PIXELS: usize = 1280 * 28 * 28;

/// Maximum number of steps to shorten rows.
const ROW_STEPS: usize = 64;

/// Rows are shortened to no less than this part of a row or of a response.
const SHORTEST: usize = 8;

impl Limits<'_> {
    /// Returns the value of the number at the dotted path `key`.
    fn number(&self, key: &str) -> Option<usize> {
        key.split('.').fold(self.config, |tree, name| &tree[name]).as_u64().map(|n| n as usize)
    }
}

/// Returns `whole / 2`, `whole / 4` and so on, as long as they are at least `least`.
fn halves(whole: usize, least: usize) -> impl Iterator<Item = usize> {
    (1..usize::BITS).map(move |n| whole >> n).take_while(move |&n| n >= least)
}

impl Change {
    /// Returns a short name of `step`.
    pub fn label(&self, step: &Overrides) -> String {
        self.label.replace("{}", &self.value(step).map_or(String::new(), config::inline))
    }

    /// Returns the short name of all steps with numbers, or of this step if it is not a number.
    pub fn pattern(&self, step: &Overrides) -> String {
        match self.value(step) {
            Some(Value::Number(_)) => self.label.replace("{}", "N"),
            _ => self.label(step),
        }
    }

    fn value<'a>(&self, step: &'a Overrides) -> Option<&'a Value> {
        step.iter().find(|(key, _)| *key == self.shown).map(|(_, value)| value)
    }
}

/// Returns the steps of each change of [`CHANGES`] that `config` allows.
pub fn steps<C: Training>(config: &C, rows: &Rows) -> Result<Vec<Vec<Overrides>>> {
    let shorten = |tokens| config.row_keys(rows, tokens).ok().flatten();
    let limits = Limits { config: &config.write(), rows, row: config.row_size(rows)?, shorten: &shorten };
    let is_allowed = |step: &Overrides| set(config, step).is_some();
    Ok(CHANGES.iter().map(|change| (change.steps)(&limits).into_iter().take_while(is_allowed).collect()).collect())
}

/// Formats a step as it is typed on the command line.
pub fn typed(step: &Overrides) -> Vec<String> {
    step.iter().map(|(key, value)| format!("{key}={}", config::inline(value))).collect()
}

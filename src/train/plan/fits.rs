//! Finds the longest row that fits into a GPU's memory if training passes store as few activations as possible.

use super::assumptions::Rows;
use super::training::{GpuSet, Training, layout, set, target};
use omr_base::config::OptimizerName;
use omr_base::error::Result;
use omr_model::nn::ModelConfig;

/// Only multiples of this number of tokens are tried.
const STEP: usize = 1024;
/// Largest number of tokens that is tried.
const MOST: usize = 65_536;

/// Optimizers that are compared, ordered by the storage of their moments, largest first.
pub const OPTIMIZERS: [OptimizerName; 3] =
    [OptimizerName::AdamwTorch, OptimizerName::AdamwBf16, OptimizerName::Adamw8bit];

/// Returns for each of `optimizers` the maximum number of tokens of a micro-batch with one row that fits into memory,
/// in steps of [`STEP`]. It is 0 if none fits.
pub fn longest<C: Training>(
    gpus: GpuSet,
    config: &C,
    model: &ModelConfig,
    rows: &Rows,
    optimizers: &[OptimizerName],
) -> Result<Vec<(OptimizerName, usize)>> {
    let with = |&optim: &OptimizerName| {
        let mut config = config.clone();
        config.keys().optimizer.optim = optim;
        let (mut config, layout) = layout(gpus, model, &config)?;
        let budget = target(gpus, config.keys().training.max_memory_gib).memory.unwrap_or(usize::MAX);
        let (mut low, mut high, mut longest) = (0, MOST / STEP + 1, 0);
        while low + 1 < high {
            let middle = low.midpoint(high);
            match resized(&config, rows, middle * STEP)? {
                Some(config) if config.least(model, rows, &layout)? > budget => high = middle,
                counted => {
                    longest = counted.map_or(0, |_| middle * STEP);
                    low = middle;
                }
            }
        }
        Ok((optim, longest))
    };
    optimizers.iter().map(with).collect()
}

/// Returns `config` for micro-batches of one row of at most `tokens` tokens. Returns `None` if the requested rows are
/// longer.
pub fn resized<C: Training>(config: &C, rows: &Rows, tokens: usize) -> Result<Option<C>> {
    Ok(config.row_keys(rows, tokens)?.and_then(|keys| set(config, &keys)))
}

/// Formats the result as a paragraph with a list such as `adamw_torch: 16384, adamw_8bit: 61440`.
pub fn text(longest: &[(OptimizerName, usize)]) -> String {
    let one = |(optim, tokens): &(OptimizerName, usize)| match *tokens {
        0 => format!("{}: none", optim.name()),
        MOST => format!("{}: {MOST} or more", optim.name()),
        tokens => format!("{}: {tokens}", optim.name()),
    };
    let all = longest.iter().map(one).collect::<Vec<_>>().join(", ");
    format!("Longest row that fits, in tokens, if passes store as little as possible: {all}.\n")
}

//! How long rows may be: what fits a card when passes keep least.

use super::card::Rows;
use super::training::{Cards, Training, seats, target};
use crate::config::OptimizerName;
use crate::error::Result;
use crate::model::ModelConfig;

/// Lengths that are tried are multiples of this.
const STEP: usize = 1024;
/// The longest that is tried.
const MOST: usize = 65_536;

/// What moments may lie in, from what takes most.
pub const OPTIMIZERS: [OptimizerName; 3] =
    [OptimizerName::AdamwTorch, OptimizerName::AdamwBf16, OptimizerName::Adamw8bit];

/// With each of `optimizers` the most tokens of a micro-batch of one row, in steps of [`STEP`], that a card has room for; 0
/// where it has none.
pub fn longest<C: Training>(
    cards: Cards,
    config: &C,
    model: &ModelConfig,
    rows: &Rows,
    optimizers: &[OptimizerName],
) -> Result<Vec<(OptimizerName, usize)>> {
    let with = |&optim: &OptimizerName| {
        let mut config = config.clone();
        config.keys().optimizer.optim = optim;
        let seats = seats(cards, model, &config)?;
        let budget = target(cards, *config.keys().max_memory_gib).memory.unwrap_or(usize::MAX);
        let (mut low, mut high, mut longest) = (0, MOST / STEP + 1, 0);
        while low + 1 < high {
            let middle = low.midpoint(high);
            match config.resized(rows, middle * STEP)? {
                Some(config) if config.least(model, rows, &seats)? > budget => high = middle,
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

/// A paragraph: `adamw_torch 16384, adamw_8bit 61440`.
pub fn text(longest: &[(OptimizerName, usize)]) -> String {
    let one = |(optim, tokens): &(OptimizerName, usize)| match *tokens {
        0 => format!("{} none", optim.name()),
        MOST => format!("{} {MOST} or more", optim.name()),
        tokens => format!("{} {tokens}", optim.name()),
    };
    let all = longest.iter().map(one).collect::<Vec<_>>().join(", ");
    format!("Longest row that fits, in tokens, when passes keep least: {all}.\n")
}

//! How long rows may be: what fits a card when passes keep least.

use super::card::{Card, Rows};
use super::jobs::target;
use super::seats::Seats;
use super::shapes;
use crate::config::{OptimConfig, OptimizerName, RlConfig, SftConfig};
use crate::data::Shape;
use crate::device::{Kind, Target};
use crate::error::Result;
use crate::model::ModelConfig;
use crate::rl;
use crate::train::levels;
use crate::train::plan;
use crate::train::sft;

/// Lengths that are tried are multiples of this.
const STEP: usize = 1024;
/// The longest that is tried.
const MOST: usize = 65_536;

/// What moments may lie in, from what takes most.
pub const OPTIMIZERS: [OptimizerName; 3] =
    [OptimizerName::AdamwTorch, OptimizerName::AdamwBf16, OptimizerName::Adamw8bit];

/// A config that is planned with rows of other lengths.
pub trait Resized: Clone {
    /// Its optimizer.
    fn optimizer(&mut self) -> &mut OptimConfig;

    /// What it allows a plan of the card's memory, where it says so.
    fn max_memory_gib(&self) -> Option<f64>;

    /// The same for micro-batches of one row of at most so many tokens; none where the rows that are asked for cannot be as
    /// short.
    fn resized(&self, rows: &Rows, tokens: usize) -> Result<Option<Self>>;

    /// Bytes that the rank that takes most has to have for micro-batches of its one row.
    fn least(&self, model: &ModelConfig, rows: &Rows, seats: &Seats) -> Result<usize>;
}

/// With each of `optimizers` the most tokens of a micro-batch of one row, in steps of [`STEP`], that a card has room for; 0
/// where it has none.
pub fn longest<C: Resized>(
    on: &Card,
    config: &C,
    (model, rows): (&ModelConfig, &Rows),
    optimizers: &[OptimizerName],
    seats: impl Fn(&C) -> Result<Seats>,
) -> Result<Vec<(OptimizerName, usize)>> {
    let with = |&optim: &OptimizerName| {
        let mut config = config.clone();
        config.optimizer().optim = optim;
        let seats = seats(&config)?;
        let budget = target((on, seats.count), config.max_memory_gib()).memory.unwrap_or(usize::MAX);
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

/// Of a device without memory, what takes least is counted.
fn nothing() -> Target {
    Target::gpu(Kind::Cuda).within(levels::LEAST)
}

impl Resized for SftConfig {
    fn optimizer(&mut self) -> &mut OptimConfig {
        &mut self.optimizer
    }

    fn max_memory_gib(&self) -> Option<f64> {
        self.max_memory_gib
    }

    fn resized(&self, rows: &Rows, tokens: usize) -> Result<Option<SftConfig>> {
        let least = rows.row_tokens.max(rows.image_tokens.map(|picture| picture + shapes::AROUND));
        let fits = least.is_none_or(|least| least <= tokens);
        let (packing_length, micro_batch_tokens) = (tokens, tokens);
        Ok(fits.then(|| SftConfig { packing_length, micro_batch_tokens, ..self.clone() }))
    }

    fn least(&self, model: &ModelConfig, rows: &Rows, seats: &Seats) -> Result<usize> {
        let row = rows.tokens(self.packing_length, "packing_length")?;
        let grids = shapes::grids(model, rows.image_tokens, self.image_max_pixels, row)?;
        let sample = plan::blank(model, Shape { tokens: row, targets: row - 1, grids: &grids });
        let batches = [vec![sft::sequence(&sample); self.packing_length / row]];
        let config = SftConfig { gradient_lanes: Some(seats.lanes), ..self.clone() };
        Ok(plan::sft(model.clone(), &config, nothing(), seats.fullest, &batches)?.memory.total())
    }
}

impl Resized for RlConfig {
    fn optimizer(&mut self) -> &mut OptimConfig {
        &mut self.optimizer
    }

    fn max_memory_gib(&self) -> Option<f64> {
        self.max_memory_gib
    }

    fn resized(&self, rows: &Rows, tokens: usize) -> Result<Option<RlConfig>> {
        let prompt = rows.tokens(self.max_prompt_length, "max_prompt_length")?;
        let max_response_length = self.max_response_length.min(tokens.saturating_sub(prompt));
        let fits = max_response_length > 0;
        Ok(fits.then(|| RlConfig { micro_batch_tokens: tokens, max_response_length, ..self.clone() }))
    }

    fn least(&self, model: &ModelConfig, rows: &Rows, seats: &Seats) -> Result<usize> {
        let prompt = rows.tokens(self.max_prompt_length, "max_prompt_length")?;
        let grids = shapes::grids(model, rows.image_tokens, self.image_max_pixels, prompt)?;
        let index = shapes::questions(self.train_batch_size, prompt, &grids);
        let allowed = vec![u32::MAX; model.vocab_size.div_ceil(32)];
        let config = RlConfig { gradient_lanes: Some(seats.lanes), ..self.clone() };
        let (planned, _) = rl::plan::rl(model.clone(), &config, nothing(), seats.fullest, &allowed, &index)?;
        Ok(planned.memory.total())
    }
}

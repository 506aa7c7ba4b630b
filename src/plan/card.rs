//! Command-line options for the GPU and the rows that a plan assumes.

use std::path::PathBuf;

use super::gpus::Gpu;
use super::seats;
use crate::data::{Index, Shape};
use crate::error::{Error, Result};
use crate::model::ModelConfig;

/// The card a plan is for.
#[derive(clap::Args)]
pub struct Card {
    /// Kind of card
    #[arg(long, value_enum, default_value = "h200")]
    pub gpu: Gpu,
    /// Clock in MHz that predictions for a Hopper card assume under load
    #[arg(long, default_value_t = CLOCK, value_name = "MHZ")]
    pub clock: f64,
    /// Lists what is launched on a Hopper card, a line of JSON a launch, for tools/roofline: a pass and an update, and of RL
    /// a step of decoding for 1 to 512 sequences
    #[arg(long, value_name = "FILE")]
    pub launches: Option<PathBuf>,
}

/// An H200's under load, assumed until one is measured.
const CLOCK: f64 = 1500.0;

/// The card that times are predicted for where none is named.
pub const H200: Card = Card { gpu: Gpu::H200, clock: CLOCK, launches: None };

/// What rows a plan assumes, where none are read.
#[derive(clap::Args, Default)]
pub struct Rows {
    /// Tokens of a row: packs hold as many such as fit, prompts are so long; else as long as the config allows
    #[arg(long, value_name = "N")]
    pub row_tokens: Option<usize>,
    /// Tokens of the picture that each row has; 0 for text alone, else as large as the config's limits allow
    #[arg(long, value_name = "N")]
    pub image_tokens: Option<usize>,
}

impl Card {
    /// So many of it, for people.
    pub fn named(&self, count: usize) -> String {
        seats::named(count, &self.gpu.ceilings())
    }
}

impl Rows {
    /// As long as those of `index` on average, each with a picture of as many tokens as they have of pictures.
    pub fn mean(index: &Index, model: &ModelConfig) -> Rows {
        let merge = model.vision_config.spatial_merge_size;
        let sum = |of: &dyn Fn(Shape<'_>) -> usize| index.shapes().map(of).sum::<usize>() / index.len().max(1);
        let (tokens, seen) = (sum(&|shape| shape.tokens), sum(&|shape| shape.patches() / (merge * merge)));
        // The number is rounded down, because an image has whole rows of tokens.
        let side = seen.isqrt();
        Rows { row_tokens: Some(tokens), image_tokens: Some(side * seen.checked_div(side).unwrap_or(0)) }
    }

    /// Tokens of a row where at most `most` are allowed by the config's key.
    pub(super) fn tokens(&self, most: usize, key: &str) -> Result<usize> {
        match self.row_tokens {
            Some(tokens) if tokens == 0 || tokens > most => {
                let expected = format!("1 to {most}, which is {key}");
                Err(Error::input("--row-tokens", tokens.to_string(), expected))
            }
            tokens => Ok(tokens.unwrap_or(most)),
        }
    }
}

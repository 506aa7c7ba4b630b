//! A config of training as a plan sees it: the keys that both kinds have, and how its update is divided among GPUs.

use std::path::PathBuf;

use super::card::{Card, Rows};
use super::page::Page;
use super::seats::{Parts, Seats, Weights};
use crate::config::{Config, DistConfig, Dtype, OptimConfig};
use crate::device::{Device, Kind, Target};
use crate::error::Result;
use crate::model::{Model, ModelConfig};
use crate::tensor::DType;
use crate::train::{levels, plan};

/// So many cards of a kind.
#[derive(Clone, Copy)]
pub struct Cards<'a> {
    /// Their kind.
    pub card: &'a Card,
    /// How many.
    pub count: usize,
}

/// Keys that both kinds of configs have.
pub struct Keys<'a> {
    /// Model directory to start from.
    pub model: Option<&'a PathBuf>,
    /// Storage of weights and activations.
    pub dtype: &'a mut Dtype,
    /// What updates the weights.
    pub optimizer: &'a mut OptimConfig,
    /// What a plan may take of a card's memory.
    pub max_memory_gib: &'a mut Option<f64>,
    /// Gradient lanes.
    pub gradient_lanes: &'a mut Option<usize>,
    /// How ranks find one another.
    pub dist: &'a DistConfig,
    /// Steps, where the config says how many.
    pub steps: Option<u64>,
}

/// A config of training that can be planned.
pub trait Training: Config + Clone {
    /// The keys that both kinds have.
    fn keys(&mut self) -> Keys<'_>;

    /// Into what an update can be divided.
    fn parts(&self) -> Parts;

    /// The plan of training `model` on such rows, on these cards.
    fn page(&self, cards: Cards, rows: &Rows, model: ModelConfig) -> Result<Page>;

    /// The same for micro-batches of one row of at most so many tokens; none where the rows that are asked for cannot be as
    /// short.
    fn resized(&self, rows: &Rows, tokens: usize) -> Result<Option<Self>>;

    /// Bytes that the rank that takes most has to have for micro-batches of its one row.
    fn least(&self, model: &ModelConfig, rows: &Rows, seats: &Seats) -> Result<usize>;
}

/// A card as the run has it: less what a plan may not take, and what the config does not allow.
pub fn target(cards: Cards, max_memory_gib: Option<f64>) -> Target {
    let budget = cards.card.gpu.ceilings().budget(cards.count);
    Target::gpu(Kind::Cuda).within(Some(budget)).within(plan::gib_to_bytes(max_memory_gib))
}

/// A card without memory, for which what takes least is counted.
pub fn nothing() -> Target {
    Target::gpu(Kind::Cuda).within(levels::LEAST)
}

/// The cards of a run of `config`.
pub fn seats<C: Training>(cards: Cards, model: &ModelConfig, config: &C) -> Result<Seats> {
    let (mut config, parts) = (config.clone(), config.parts());
    let Keys { dtype, optimizer, max_memory_gib, gradient_lanes, .. } = config.keys();
    let weights = Weights { dtype: *dtype, optimizer: *optimizer };
    Seats::new(cards.count, *gradient_lanes, parts, model, weights, target(cards, *max_memory_gib))
}

/// Number of a model's weights.
pub fn parameters(model: &ModelConfig, dtype: Dtype) -> Result<usize> {
    let mut dev = Device::count_for(Target::gpu(Kind::Cuda));
    let dtype = DType::of(dtype, Kind::Cuda);
    Ok(Model::empty(&mut dev, model.clone(), dtype)?.layout.num_weights())
}

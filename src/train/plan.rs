//! The plan of a training run: the memory of its own code on a device that only counts, so it cannot disagree with the
//! run. Addresses follow from the order of allocations, which is the run's, and never move.

use std::sync::Arc;

use crate::config::{Dtype, OptimConfig, SftConfig};
use crate::data::{Sample, Shape};
use crate::device::{Device, Plan, Region, Target, Work};
use crate::error::{Error, Result};
use crate::image::{Grid, ImageInput};
use crate::model::outgoing::{self, fetched};
use crate::model::{Grads, Levels, Model, ModelConfig};
use crate::observe::bytes;
use crate::optim::Optimizer;
use crate::ranks::{Handed, OneRank, Ranks, Shards};
use crate::tensor::DType;
use crate::train::lanes::Lanes;
use crate::train::levels::{self, Counted};
use crate::train::nll;
use crate::train::step::Sequence;

/// A planned run.
#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    /// What training passes keep.
    pub levels: Levels,
    /// Bytes of each region.
    pub memory: Plan,
    /// Bytes there are, where that is limited.
    pub budget: Option<usize>,
    /// What the largest micro-batch computes and moves, forward and backward.
    pub pass: Vec<Work>,
    /// What an update from the gradients does.
    pub update: UpdateWork,
}

/// What an update from the gradients of its lanes does at a rank.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct UpdateWork {
    /// On the device.
    pub work: Vec<Work>,
    /// What the rank hands to the others, and is handed.
    pub handed: Handed,
    /// Host memory that the sum of lanes lies in, where a rank carries several.
    pub host_bytes: usize,
    /// Bytes that go to that and back.
    pub moved: u64,
    /// Bytes of the largest tensor that a checkpoint reads at this rank.
    pub largest_saved: usize,
}

impl Planned {
    /// Errors when the plan is over its budget, saying what it has and which keys `lower` it.
    pub fn check(self, lower: &str) -> Result<Planned> {
        within(&self.memory, self.budget, lower).map(|()| self)
    }
}

/// Errors when `memory` is over its `budget`, saying what it has and which keys `lower` it.
pub fn within(memory: &Plan, budget: Option<usize>, lower: &str) -> Result<()> {
    let Some(budget) = budget.filter(|&budget| memory.total() > budget) else { return Ok(()) };
    let [total, parts] = words(memory);
    let found = format!("a run that takes {total} when it keeps least ({parts})");
    Err(Error::input_hint("memory", found, format!("at most {}", bytes(budget as u64)), format!("lower {lower}")))
}

/// `memory 1.2 GiB (weights 0.3 GiB, ...)`.
pub fn line(plan: &Plan) -> String {
    let [total, parts] = words(plan);
    format!("memory {total} ({parts})")
}

/// All of a plan's bytes, and those of each region.
fn words(plan: &Plan) -> [String; 2] {
    let part = |region: Region| format!("{} {}", region.name(), bytes(plan.bytes(region) as u64));
    [bytes(plan.total() as u64), Region::ALL.map(part).join(", ")]
}

/// Bytes of a number of GiB, for configs.
pub fn gib_to_bytes(gib: Option<f64>) -> Option<usize> {
    gib.map(|gib| (gib * (1u64 << 30) as f64) as usize)
}

/// A model in training on a device that only counts: weights, optimizer state, then what the caller adds.
pub struct Training {
    /// The device.
    pub dev: Device,
    /// The model.
    pub model: Model,
    shards: Shards,
    ranks: OneRank,
    optimizer: Optimizer,
}

impl Training {
    /// Weights of `config`, and what the rank that `ranks` stands for owns of the optimizer's state.
    pub fn new(
        config: ModelConfig,
        dtype: Dtype,
        optimizer: OptimConfig,
        target: Target,
        ranks: OneRank,
    ) -> Result<Training> {
        let mut dev = Device::count_for(target);
        let model = Model::empty(&mut dev, config, DType::of(dtype, target.kind))?;
        let shards = Shards::new(&model.layout.lens(), ranks.size());
        let optimizer = Optimizer::sharded(&mut dev, &model.layout, optimizer, 0, &shards, ranks.rank())?;
        Ok(Training { dev, model, shards, ranks, optimizer })
    }

    /// Gradients as the run makes them, and what an update of all parameters from so many lanes does.
    pub fn gradients(&mut self, lanes: usize) -> Result<(Grads, UpdateWork)> {
        let (dev, layout) = (&mut self.dev, &self.model.layout);
        let before = self.ranks.handed();
        let mut grads = Grads::new(dev, layout)?;
        (0..grads.num_params()).for_each(|id| {
            grads.touch(id);
        });
        dev.take_work();
        let mut lanes = Lanes::new(lanes, &self.ranks, &self.shards)?;
        (0..lanes.rounds()).try_for_each(|round| lanes.add(dev, &mut self.ranks, &mut grads, round))?;
        self.optimizer.step_guarded(&mut self.ranks, dev, layout, &grads, 0.0, None)?;
        self.optimizer.stats(dev)?;
        let (shared, after) = (Arc::new(layout.clone()), self.ranks.handed());
        let weights = outgoing::weights(&shared, layout.dtype, self.optimizer.own());
        let saved = [fetched(&weights), fetched(&self.optimizer.outgoing(&shared))].concat();
        let update = UpdateWork {
            work: dev.take_work(),
            handed: Handed { sent: after.sent - before.sent, received: after.received - before.received },
            host_bytes: lanes.host_bytes(),
            moved: lanes.moved(),
            largest_saved: saved.iter().map(|tensor| tensor.span().bytes).max().unwrap_or(0),
        };
        Ok((grads, update))
    }
}

/// Bytes of the optimizer's state that each of so many ranks owns. In nothing else a rank takes more than another.
pub fn owned(
    model: &ModelConfig,
    dtype: Dtype,
    optimizer: OptimConfig,
    target: Target,
    ranks: usize,
) -> Result<Vec<usize>> {
    let of = |rank| {
        let training = Training::new(model.clone(), dtype, optimizer, target, OneRank::new(rank, ranks))?;
        Ok(training.optimizer.bytes())
    };
    (0..ranks).map(of).collect()
}

/// The plan of fine-tuning on micro-batches, of which `batches` are the largest.
pub fn sft(
    model: ModelConfig,
    config: &SftConfig,
    target: Target,
    ranks: OneRank,
    batches: &[Vec<Sequence<'_>>],
) -> Result<Planned> {
    let mut training = Training::new(model, config.dtype, config.optimizer, target, ranks)?;
    let (mut grads, update) = training.gradients(config.lanes())?;
    let Training { mut dev, model, .. } = training;
    let loss = dev.zeros(Region::Overlay, DType::F64, &[config.lanes()])?.slice(0, 1);
    let rest = dev.high_water();
    let mut run = |i: usize, levels: Levels| -> Result<(Plan, Vec<Work>)> {
        dev.reset_high_water();
        nll::gradients(&mut dev, &model, &mut grads, &batches[i], config.micro_batch_tokens, levels, loss)?;
        Ok((dev.high_water(), dev.take_work()))
    };
    let images = batches.iter().flatten().any(|s| !s.images.is_empty());
    let count = |i, levels| run(i, levels).map(|(memory, work)| Counted::new(memory, &work));
    let fit = levels::fit(&model.config, images, target.memory, &rest, batches.len(), count)?;
    let pass = largest_pass(batches.len(), |i| run(i, fit.levels).map(|(_, work)| work))?;
    Ok(Planned { levels: fit.levels, memory: fit.memory, budget: target.memory, pass, update })
}

/// The work of the pass with most arithmetic among `count`.
fn largest_pass(count: usize, mut work: impl FnMut(usize) -> Result<Vec<Work>>) -> Result<Vec<Work>> {
    let mut largest = (0.0, Vec::new());
    for i in 0..count {
        let work = work(i)?;
        let flops = work.iter().map(|w| w.flops).sum();
        if flops > largest.0 {
            largest = (flops, work);
        }
    }
    Ok(largest.1)
}

/// A sample of a size with made-up content: all that a device which only counts asks for.
pub fn blank(config: &ModelConfig, shape: Shape<'_>) -> Sample {
    let vision = &config.vision_config;
    let picture = |grid: &Grid| Arc::new(ImageInput::blank(*grid, vision.patch_size));
    let images: Vec<Arc<ImageInput>> = shape.grids.iter().map(picture).collect();
    let mut input_ids = Vec::with_capacity(shape.tokens);
    for image in &images {
        input_ids.push(config.vision_start_token_id);
        let tokens = image.tokens(vision.spatial_merge_size as u32);
        let place = if image.is_video() { config.video_token_id } else { config.image_token_id };
        input_ids.extend(std::iter::repeat_n(place, tokens));
        input_ids.push(config.vision_end_token_id);
    }
    input_ids.resize(shape.tokens, 0);
    let loss_mask = (0..shape.tokens).map(|t| t + shape.targets >= shape.tokens).collect();
    Sample { input_ids, loss_mask, images }
}

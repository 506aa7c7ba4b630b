//! Memory plan of a training run. It runs the code of the training step on a counting device, which records allocations
//! and work but computes nothing, so the plan and the run make the same allocations in the same order. Addresses depend
//! only on this order and never change.

use std::sync::Arc;

use crate::training::exchange::{Collector, Exchange, Reach};
use crate::training::levels::{self, Counted, FittedLadder, Ladder, SizeClass};
use crate::training::nll::{self, Mean};
use crate::training::step::Sequence;
use omr_base::config::{Dtype, OptimConfig, SftConfig};
use omr_base::error::Result;
use omr_data::image::{Grid, ImageInput};
use omr_data::rows::{Sample, Shape};
use omr_model::nn::weights::outgoing::{self, fetched};
use omr_model::nn::{CheckpointPolicy, GradientSink, Grads, Model, ModelConfig};
use omr_model::optim::{Optimizer, frozen};
use omr_runtime::device::{Device, Plan, Region, Target, Work};
use omr_runtime::ranks::{BytesExchanged, OneRank, Ranks, Shards};
use omr_runtime::tensor::{DType, Tensor};

/// The plan of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    /// Activation checkpointing policies of the training passes.
    pub ladder: Ladder,
    /// Bytes of each region.
    pub memory: Plan,
    /// Available bytes, if they are limited.
    pub budget: Option<usize>,
    /// Bytes of [`Region::Overlay`] that stay allocated between the updates of SFT: the gradients.
    pub held: usize,
    /// Bytes of [`Region::Overlay`] during training passes.
    pub passes: usize,
    /// Bytes of [`Region::Overlay`] that exchanging each decoder layer at once adds to the gradients.
    pub whole_layers: usize,
    /// Work of the micro-batch with the most arithmetic: forward, backward and the sum of its gradients.
    pub pass: Vec<Work>,
    /// Bytes that a rank sends to and receives from other ranks for the gradients of one micro-batch on each rank.
    pub pass_handed: BytesExchanged,
    /// Share of these bytes whose transfer no backward overlaps.
    pub pass_exposed: f64,
    /// Work of the update that follows the gradients.
    pub update: UpdateWork,
}

/// Work of one rank in an update, from the sums of the gradients to the new weights.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct UpdateWork {
    /// Work on the device.
    pub work: Vec<Work>,
    /// Bytes that the rank sends to and receives from other ranks.
    pub handed: BytesExchanged,
    /// Size in bytes of the largest tensor that this rank copies from the device to save a checkpoint.
    pub largest_saved: usize,
}

impl Planned {
    /// Errors if the plan exceeds its budget. The error states the sizes of the regions and suggests to lower the
    /// settings named in `lower`.
    pub fn check(self, lower: &str) -> Result<Planned> {
        self.memory.within(self.budget, lower).map(|()| self)
    }

    /// Returns the memory of a run that takes `memory` otherwise and exchanges each decoder layer at once. Returns `None`
    /// if it exceeds the budget.
    pub fn with_whole_layers(&self, memory: &Plan) -> Option<Plan> {
        let (more, overlay) = (self.whole_layers, memory.bytes(Region::Overlay));
        let beside = if self.held > 0 { overlay + more } else { overlay };
        let wide = memory.with(Region::Overlay, beside.max(self.passes + more));
        (more == 0 || self.budget.is_some_and(|budget| wide.total() <= budget)).then_some(wide)
    }

    /// Returns the plan with the memory of [`Planned::with_whole_layers`], if that fits.
    #[must_use]
    pub fn widened(self) -> Planned {
        Planned { memory: self.with_whole_layers(&self.memory).unwrap_or(self.memory), ..self }
    }
}

/// Converts a size in GiB, as configs give it, to bytes.
pub fn gib_to_bytes(gib: Option<f64>) -> Option<usize> {
    gib.map(|gib| (gib * (1u64 << 30) as f64) as usize)
}

/// A model in training on a counting device. It has weights and optimizer state; the caller allocates the rest.
pub struct Training {
    /// The counting device.
    pub dev: Device,
    /// The model.
    pub model: Model,
    /// The exchange of gradients.
    pub exchange: Exchange,
    /// The rank whose memory and traffic are counted.
    pub ranks: OneRank,
    optimizer: Optimizer,
}

impl Training {
    /// Allocates the weights of `config` and the optimizer state that belongs to the rank described by `ranks`.
    pub fn new(
        config: ModelConfig,
        dtype: Dtype,
        optimizer: OptimConfig,
        target: Target,
        ranks: OneRank,
    ) -> Result<Training> {
        let mut dev = Device::count_for(target);
        let model = frozen(&mut dev, config, DType::of(dtype, target.kind), &optimizer)?;
        let shards = Shards::new(&model.layout.shares(), ranks.size());
        let optimizer = Optimizer::sharded(&mut dev, &model.layout, optimizer, 0, &shards, ranks.rank())?;
        let exchange = Exchange::new(&model.layout, ranks.rank(), ranks.size());
        Ok(Training { dev, model, exchange, ranks, optimizer })
    }

    /// Allocates the gradients as the run does, and counts the work of an update of all trained parameters.
    pub fn gradients(&mut self) -> Result<(Grads, UpdateWork)> {
        let (dev, layout) = (&mut self.dev, &self.model.layout);
        let before = self.ranks.handed();
        let mut grads = self.exchange.new_grads(dev, layout, self.optimizer.own())?;
        (0..grads.num_params()).for_each(|id| {
            grads.touch(id);
        });
        dev.take_work();
        self.optimizer.step_guarded(&mut self.ranks, dev, layout, &grads, 0.0, None)?;
        self.optimizer.stats(dev)?;
        let shared = Arc::new(layout.clone());
        let weights = match layout.adapters.is_empty() {
            true => fetched(&outgoing::weights(&shared, layout.dtype, self.optimizer.own())),
            false => layout.params.iter().filter(|param| param.is_adapter).map(|param| param.tensor).collect(),
        };
        let saved = [weights, fetched(&self.optimizer.outgoing(&shared))].concat();
        let update = UpdateWork {
            work: dev.take_work(),
            handed: self.ranks.handed().since(before),
            largest_saved: saved.iter().map(|tensor| tensor.span().bytes).max().unwrap_or(0),
        };
        Ok((grads, update))
    }
}

/// The largest exchange of gradients: every rank has a micro-batch with targets and images.
pub fn all_reach(ranks: usize) -> Vec<Reach> {
    vec![Reach { targets: true, images: true }; ranks]
}

/// Returns the bytes of optimizer state that each rank owns, by rank. All other memory is the same on every rank.
pub fn owned(
    model: &ModelConfig,
    dtype: Dtype,
    optimizer: OptimConfig,
    target: Target,
    ranks: usize,
) -> Result<Vec<usize>> {
    let of = |rank| {
        let training = Training::new(model.clone(), dtype, optimizer.clone(), target, OneRank::new(rank, ranks))?;
        Ok(training.optimizer.bytes())
    };
    (0..ranks).map(of).collect()
}

/// The training passes of a fine-tuning run on a counting device, with the gradients and losses of an update.
pub struct SftPasses {
    training: Training,
    grads: Grads,
    losses: Tensor,
    reaches: Vec<Reach>,
    /// Bytes that were exchanged before the passes.
    before: BytesExchanged,
    /// Bytes of [`Region::Overlay`] without the losses and the passes.
    held: usize,
    update: UpdateWork,
}

/// Memory and work of a pass.
pub struct PassCost {
    /// Peak bytes of each region, including what the run holds beside the pass.
    pub memory: Plan,
    /// Work of forward, backward and the sum of the gradients.
    pub work: Vec<Work>,
}

impl PassCost {
    fn counted(&self) -> Counted {
        Counted::new(self.memory, &self.work)
    }
}

impl SftPasses {
    /// Prepares the passes of the rank described by `ranks`, in updates of at most `most_micro_batches` micro-batches.
    pub fn new(
        model: ModelConfig,
        config: &SftConfig,
        target: Target,
        ranks: OneRank,
        most_micro_batches: usize,
    ) -> Result<SftPasses> {
        let mut training = Training::new(model, config.dtype, config.optimizer.clone(), target, ranks)?;
        let (grads, update) = training.gradients()?;
        let held = training.dev.high_water().bytes(Region::Overlay);
        let losses = training.dev.zeros(Region::Overlay, DType::F64, &[most_micro_batches.max(1)])?;
        let (before, reaches) = (training.ranks.handed(), all_reach(training.ranks.size()));
        Ok(SftPasses { training, grads, losses, reaches, before, held, update })
    }

    /// Counts a pass over `batch`.
    pub fn count(&mut self, batch: &[Sequence<'_>], levels: CheckpointPolicy) -> Result<PassCost> {
        let Training { dev, model, exchange, ranks, .. } = &mut self.training;
        dev.reset_high_water();
        dev.take_work();
        ranks.set_handed(self.before);
        let mut collector = Collector::new(exchange, ranks, &mut self.grads, &self.reaches);
        let mean = Mean { targets: 1, loss: self.losses.slice(0, 1) };
        nll::micro_batch(dev, model, &mut collector, batch, mean, levels)?;
        collector.finish(dev)?;
        Ok(PassCost { memory: dev.high_water(), work: dev.take_work() })
    }
}

/// Returns the plan of the rank described by `ranks` in a fine-tuning run. `classes` has the largest micro-batches of the
/// run by their sizes, and `most_micro_batches` is the largest number of micro-batches of an update.
pub fn sft(
    model: ModelConfig,
    config: &SftConfig,
    target: Target,
    ranks: OneRank,
    most_micro_batches: usize,
    classes: &[SizeClass<Vec<Sequence<'_>>>],
) -> Result<Planned> {
    let mut passes = SftPasses::new(model.clone(), config, target, ranks, most_micro_batches)?;
    let rest = passes.training.dev.high_water();
    let images = classes.iter().flat_map(|class| &class.batches).flatten().any(|s| !s.images.is_empty());
    let count = |batch: &Vec<Sequence<'_>>, levels| passes.count(batch, levels).map(|cost| cost.counted());
    let FittedLadder { ladder, memory } = levels::ladder(&model, images, target.memory, &rest, classes, count)?;
    let mut pass = (0.0, Vec::new());
    for class in classes {
        for batch in &class.batches {
            let cost = passes.count(batch, ladder.levels(class.tokens))?;
            let flops = cost.counted().flops;
            if flops > pass.0 {
                pass = (flops, cost.work);
            }
        }
    }
    let SftPasses { training: Training { exchange, ranks, .. }, grads, before, held, update, .. } = passes;
    Ok(Planned {
        ladder,
        memory,
        budget: target.memory,
        held,
        passes: memory.bytes(Region::Overlay),
        whole_layers: exchange.bytes_for_whole_layers(&grads),
        pass: pass.1,
        pass_handed: ranks.handed().since(before),
        pass_exposed: exchange.exposed(config.training.dist.overlap),
        update,
    })
}

/// Returns a sample of the given size with made-up content. That is sufficient for a counting device.
pub fn blank(config: &ModelConfig, shape: Shape<'_>) -> Sample {
    let image = |grid: &Grid| Arc::new(ImageInput::blank(*grid, config.grid().patch_size));
    let images: Vec<Arc<ImageInput>> = shape.grids.iter().map(image).collect();
    let mut input_ids = Vec::with_capacity(shape.tokens);
    for (image, media) in images.iter().zip(config.media.iter().cycle()) {
        input_ids.push(media.ids.start);
        let tokens = image.tokens(media.grid.merge_size as u32);
        let place = if image.is_video() { media.ids.video } else { media.ids.image };
        input_ids.extend(std::iter::repeat_n(place, tokens));
        input_ids.push(media.ids.end);
    }
    input_ids.resize(shape.tokens, 0);
    let loss_mask = (0..shape.tokens).map(|t| t + shape.targets >= shape.tokens).collect();
    Sample { input_ids, loss_mask, images }
}

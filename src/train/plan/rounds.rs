//! The micro-batches of an update of fine-tuning, and the rounds in which the ranks compute them at the same time. A
//! round takes as long as the slowest of its micro-batches.

use std::sync::Arc;

use super::floor::Floor;
use super::gpus::Ceilings;
use super::launches::Launches;
use super::layout::{GpuLayout, Weights};
use super::pass::Pass;
use crate::training::largest::LargestBySize;
use crate::training::levels::{self, Ladder, SizeClass};
use crate::training::plan::{self, SftPasses};
use crate::training::sft::micro_batches;
use crate::training::updates::Updates;
use omr_base::config::SftConfig;
use omr_base::error::Result;
use omr_data::image::Grid;
use omr_data::rows::{Index, Sample, Shape};
use omr_model::nn::ModelConfig;
use omr_runtime::device::Target;
use omr_runtime::device::perf_model::Range;

/// Sizes of micro-batches whose rows differ are rounded to this part of the next power of two, so that few of them have to
/// be predicted.
const PARTS: usize = 32;

/// A micro-batch of equal rows.
#[derive(Clone, PartialEq, Debug)]
pub struct EqualRows {
    /// Number of rows.
    pub count: usize,
    /// Number of tokens of a row.
    pub tokens: usize,
    /// Number of tokens of a row whose prediction counts.
    pub targets: usize,
    /// Images of a row.
    pub grids: Vec<Grid>,
}

impl EqualRows {
    /// Returns the rows of a micro-batch if they are equal. Otherwise returns about as many tokens, pairs of attention and
    /// patches in equal rows.
    fn of(rows: &[Shape<'_>], merge: usize) -> EqualRows {
        let Some(first) = rows.first() else { return EqualRows { count: 0, tokens: 1, targets: 0, grids: Vec::new() } };
        let is_first =
            |row: &Shape<'_>| row.tokens == first.tokens && row.targets == first.targets && row.grids == first.grids;
        if rows.iter().all(is_first) {
            let Shape { tokens, targets, grids } = *first;
            return EqualRows { count: rows.len(), tokens, targets, grids: grids.to_vec() };
        }
        let sum = |of: &dyn Fn(&Shape<'_>) -> usize| rows.iter().map(of).sum::<usize>();
        let (tokens, squares) = (sum(&|row| row.tokens), sum(&|row| row.tokens * row.tokens));
        let count = ((tokens * tokens).div_ceil(squares)).next_power_of_two();
        let per_row = |all: usize| {
            let unit = (all.next_power_of_two() / PARTS).max(1);
            (all + unit / 2) / unit * unit / count
        };
        let (wide, image) = (per_row(tokens).max(2), per_row(sum(&|row| row.patches()) / (merge * merge)));
        let targets = per_row(sum(&|row| row.targets)).clamp(1, wide - 1);
        let [h, w] = [image.isqrt(), image.checked_div(image.isqrt()).unwrap_or(0)].map(|side| (side * merge) as u16);
        EqualRows { count, tokens: wide, targets, grids: if image > 0 { vec![Grid::image(h, w)] } else { Vec::new() } }
    }

    /// Returns a row with made-up content for `model`.
    pub fn row(&self, model: &ModelConfig) -> Sample {
        let around = self.grids.iter().map(|grid| grid.patches() / model.grid().merge_size.pow(2) + 2).sum::<usize>();
        let tokens = self.tokens.max(around + 1);
        plan::blank(model, Shape { tokens, targets: self.targets.min(tokens - 1), grids: &self.grids })
    }
}

/// The micro-batches of the updates that were counted.
pub struct Rounds {
    /// Number of updates.
    pub updates: usize,
    /// Number of rows of all updates.
    pub rows: usize,
    /// Number of tokens of all updates.
    pub tokens: usize,
    /// Largest number of micro-batches of an update.
    pub most_micro_batches: usize,
    /// The largest micro-batches, with made-up content.
    pub classes: Vec<SizeClass<Vec<Sample>>>,
    /// The micro-batch with the most tokens.
    pub largest: EqualRows,
    /// The rounds of all updates, each with at most one micro-batch per rank.
    pub rounds: Vec<Vec<EqualRows>>,
}

impl Rounds {
    /// Counts the updates of one epoch over `index`, of `ranks` ranks. The number of gradient lanes of `config` is set.
    pub fn new(config: &SftConfig, model: &ModelConfig, index: &Arc<Index>, ranks: usize) -> Result<Rounds> {
        let mut updates = Updates::new(config, index)?;
        let (micro, merge) = (config.micro_batch_tokens.get(), model.grid().merge_size);
        let mut largest = LargestBySize::new(model, &levels::sizes(micro, config.packing_length));
        let none = EqualRows::of(&[], merge);
        let mut all = Rounds {
            updates: 0,
            rows: 0,
            tokens: 0,
            most_micro_batches: 0,
            classes: Vec::new(),
            largest: none,
            rounds: Vec::new(),
        };
        let (mut consumed, mut most) = (0, 0);
        while (consumed as usize) < index.len() {
            let Some(update) = updates.next(consumed)? else { break };
            consumed = update.consumed;
            let parts = micro_batches(index, &update, config);
            all.updates += 1;
            all.most_micro_batches = all.most_micro_batches.max(parts.len());
            let mut sizes = Vec::with_capacity(parts.len());
            for part in parts {
                let rows: Vec<Shape<'_>> = part.iter().map(|&i| index.shape(i)).collect();
                let (size, tokens) = (EqualRows::of(&rows, merge), rows.iter().map(|row| row.tokens).sum());
                if tokens > most {
                    (most, all.largest) = (tokens, size.clone());
                }
                all.rows += rows.len();
                all.tokens += tokens;
                sizes.push(size);
                largest.push(rows);
            }
            all.rounds.extend(sizes.chunks(ranks).map(<[EqualRows]>::to_vec));
        }
        all.classes = largest.into_samples(model);
        Ok(all)
    }

    /// Returns a number of all updates for one of them.
    pub fn per_update(&self, all: usize) -> f64 {
        all as f64 / self.updates.max(1) as f64
    }
}

/// Time of the passes of an update.
#[derive(Clone, Copy, Default)]
pub struct PassTime {
    /// Lower bound.
    pub floor: Floor,
    /// Predicted seconds, on GPUs with predictions.
    pub predicted: Option<Range>,
}

impl PassTime {
    fn seconds(&self) -> f64 {
        self.predicted.map_or(self.floor.seconds, |range| range.likely)
    }
}

/// Computes the times of training passes. Each size is computed once.
pub struct PassTimes<'a> {
    ceilings: Ceilings,
    /// Clock in Hz, with which times are predicted.
    clock: Option<f64>,
    config: &'a SftConfig,
    model: &'a ModelConfig,
    layout: &'a GpuLayout,
    /// Activation checkpointing policies.
    ladder: &'a Ladder,
    passes: SftPasses,
    seen: Vec<(EqualRows, PassTime)>,
}

impl<'a> PassTimes<'a> {
    /// Makes the times of a run on GPUs `ceilings` that has the activation checkpointing policies `ladder`. They are
    /// predicted if the clock in Hz is given.
    pub fn new(
        target: Target,
        ceilings: Ceilings,
        clock: Option<f64>,
        config: &'a SftConfig,
        model: &'a ModelConfig,
        layout: &'a GpuLayout,
        ladder: &'a Ladder,
    ) -> Result<PassTimes<'a>> {
        let passes = SftPasses::new(model.clone(), config, target, layout.fullest, 1)?;
        Ok(PassTimes { ceilings, clock, config, model, layout, ladder, passes, seen: Vec::new() })
    }

    fn of(&mut self, rows: &EqualRows) -> Result<PassTime> {
        if let Some((_, time)) = self.seen.iter().find(|(seen, _)| seen == rows) {
            return Ok(*time);
        }
        let pass = Pass::Sft { row: rows.row(self.model), rows: rows.count };
        let levels = self.ladder.levels(pass.tokens());
        let work = self.passes.count(&pass.sequences(), levels)?.work;
        let predict = |hz: f64| -> Result<Range> {
            let weights = Weights { dtype: self.config.dtype, optimizer: self.config.optimizer.clone() };
            let mut launches = Launches::new(self.ceilings, hz);
            let [pass, _] = launches.training(self.model, weights, self.layout.fullest, &pass, levels)?;
            Ok(pass)
        };
        let time =
            PassTime { floor: Floor::sum(&work, &self.ceilings), predicted: self.clock.map(predict).transpose()? };
        self.seen.push((rows.clone(), time));
        Ok(time)
    }

    /// Returns the time of the passes of an update, in which each round takes as long as its slowest micro-batch, and the
    /// share of this time in which a rank waits for others.
    pub fn update(&mut self, rounds: &Rounds) -> Result<(PassTime, f64)> {
        let (mut floor, mut predicted, mut computed, mut taken) = (Floor::default(), Range::default(), 0.0, 0.0);
        for round in &rounds.rounds {
            let mut slowest = PassTime::default();
            for rows in round {
                let time = self.of(rows)?;
                computed += time.seconds();
                if time.seconds() > slowest.seconds() {
                    slowest = time;
                }
            }
            floor = floor.and(slowest.floor);
            predicted = [predicted, slowest.predicted.unwrap_or_default()].into_iter().sum();
            taken += slowest.seconds() * self.layout.count as f64;
        }
        let one = 1.0 / rounds.updates.max(1) as f64;
        let time = PassTime { floor: floor.times(one), predicted: self.clock.map(|_| one * predicted) };
        Ok((time, (1.0 - computed / taken.max(f64::MIN_POSITIVE)).max(0.0)))
    }
}

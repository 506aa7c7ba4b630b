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
use omr_model::nn::{CheckpointPolicy, ModelConfig};
use omr_runtime::device::Target;
use omr_runtime::device::perf_model::Range;

/// Number of sizes that are predicted one by one. Of more, some are predicted, and times between two of them are
/// interpolated.
const FEW: usize = 8;
/// Number of sizes between two powers of two that are predicted of many, and of shares of targets and images.
const PARTS: usize = 8;

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
    /// Number of patches along each side of an image token.
    merge: usize,
}

impl EqualRows {
    /// Returns the rows of a micro-batch if they are equal. Otherwise returns about as many tokens, pairs of attention and
    /// patches in equal rows.
    fn of(rows: &[Shape<'_>], merge: usize) -> EqualRows {
        let none = EqualRows { count: 0, tokens: 1, targets: 0, grids: Vec::new(), merge };
        let Some(first) = rows.first() else { return none };
        let is_first =
            |row: &Shape<'_>| row.tokens == first.tokens && row.targets == first.targets && row.grids == first.grids;
        if rows.iter().all(is_first) {
            let Shape { tokens, targets, grids } = *first;
            return EqualRows { count: rows.len(), tokens, targets, grids: grids.to_vec(), ..none };
        }
        let sum = |of: &dyn Fn(&Shape<'_>) -> usize| rows.iter().map(of).sum::<usize>();
        let (tokens, squares) = (sum(&|row| row.tokens), sum(&|row| row.tokens * row.tokens));
        let count = ((tokens * tokens).div_ceil(squares)).next_power_of_two();
        let image = sum(&|row| row.patches()) / (merge * merge) / count;
        let (wide, targets) = ((tokens / count).max(2), sum(&|row| row.targets) / count);
        EqualRows { count, ..none }.with(wide, targets, image)
    }

    /// Returns as many rows of another size, with an image of `image` tokens if it is not 0.
    fn with(&self, tokens: usize, targets: usize, image: usize) -> EqualRows {
        let sides = [image.isqrt(), image.checked_div(image.isqrt()).unwrap_or(0)];
        let [h, w] = sides.map(|side| (side * self.merge) as u16);
        let grids = if image > 0 { vec![Grid::image(h, w)] } else { Vec::new() };
        EqualRows { tokens, targets: targets.clamp(1, tokens - 1), grids, ..*self }
    }

    /// Returns the two predicted sizes around this one, with about its shares of targets and images.
    fn around(&self) -> [EqualRows; 2] {
        let unit = (self.tokens.next_power_of_two() / 2 / PARTS).max(1);
        let image = self.grids.iter().map(|grid| grid.patches()).sum::<usize>() / (self.merge * self.merge);
        let parts = |of: usize| (of * PARTS + self.tokens / 2) / self.tokens;
        let images = if image > 0 { parts(image).max(1) } else { 0 };
        let low = self.tokens / unit * unit;
        [low, low + unit]
            .map(|tokens| self.with(tokens.max(2), parts(self.targets) * tokens / PARTS, images * tokens / PARTS))
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
    /// Returns the time between `low` and `high`, at `share` of the way.
    fn between(low: PassTime, high: PassTime, share: f64) -> PassTime {
        let both = low.predicted.zip(high.predicted);
        let predicted = both.map(|(low, high)| [(1.0 - share) * low, share * high].into_iter().sum());
        PassTime { floor: low.floor.times(1.0 - share).and(high.floor.times(share)), predicted }
    }

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
    seen: Vec<(EqualRows, CheckpointPolicy, PassTime)>,
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

    fn of(&mut self, rows: &EqualRows, are_many: bool) -> Result<PassTime> {
        let levels = self.ladder.levels(rows.count * rows.tokens);
        if !are_many {
            return self.counted(rows, levels);
        }
        let [low, high] = rows.around();
        let share = rows.tokens.saturating_sub(low.tokens) as f64 / (high.tokens - low.tokens).max(1) as f64;
        Ok(PassTime::between(self.counted(&low, levels)?, self.counted(&high, levels)?, share))
    }

    /// Counts and predicts a pass over equal rows with a policy.
    fn counted(&mut self, rows: &EqualRows, levels: CheckpointPolicy) -> Result<PassTime> {
        if let Some((_, _, time)) = self.seen.iter().find(|(seen, of, _)| seen == rows && *of == levels) {
            return Ok(*time);
        }
        let pass = Pass::Sft { row: rows.row(self.model), rows: rows.count };
        let work = self.passes.count(&pass.sequences(), levels)?.work;
        let predict = |hz: f64| -> Result<Range> {
            let weights = Weights { dtype: self.config.dtype, optimizer: self.config.optimizer.clone() };
            let mut launches = Launches::new(self.ceilings, hz);
            let [pass, _] = launches.training(self.model, weights, self.layout.fullest, &pass, levels)?;
            Ok(pass)
        };
        let time =
            PassTime { floor: Floor::sum(&work, &self.ceilings), predicted: self.clock.map(predict).transpose()? };
        self.seen.push((rows.clone(), levels, time));
        Ok(time)
    }

    /// Returns the time of the passes of an update, in which each round takes as long as its slowest micro-batch, and the
    /// share of this time in which a rank waits for others.
    pub fn update(&mut self, rounds: &Rounds) -> Result<(PassTime, f64)> {
        let (mut floor, mut predicted, mut computed, mut taken) = (Floor::default(), Range::default(), 0.0, 0.0);
        let mut sizes: Vec<&EqualRows> = Vec::new();
        for rows in rounds.rounds.iter().flatten() {
            if sizes.len() <= FEW && !sizes.contains(&rows) {
                sizes.push(rows);
            }
        }
        for round in &rounds.rounds {
            let mut slowest = PassTime::default();
            for rows in round {
                let time = self.of(rows, sizes.len() > FEW)?;
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

//! Chooses the activation checkpointing policies so that all micro-batches fit into a device's memory: a policy for each
//! class of sizes, because a small micro-batch need not recompute what the largest one must.
//!
//! This module contains no formula for sizes. It runs a pass on a counting device, which records allocations and work
//! but computes nothing. It runs one such pass for each policy that may be chosen, and compares the recorded memory and
//! arithmetic.

use std::collections::HashMap;

use omr_base::error::Result;
use omr_model::nn::{CheckpointPolicy, LayerPolicy, ModelConfig, Stack};
use omr_runtime::device::{Plan, Work};

/// A budget of 0 bytes, which no policy fits. With it, `fit` skips the search and counts the policy that takes the
/// least memory.
pub const LEAST: Option<usize> = Some(0);

/// Maximum number of classes of sizes, and so of policies of a run.
const CLASSES: usize = 6;

/// Returns the numbers of tokens up to which the classes of sizes reach, in ascending order. Micro-batches are cut at
/// `micro_batch_tokens`, and a single sequence may have `longest` tokens.
pub fn sizes(micro_batch_tokens: usize, longest: usize) -> Vec<usize> {
    let mut sizes = vec![micro_batch_tokens / 4, micro_batch_tokens / 2, micro_batch_tokens];
    while sizes.len() < CLASSES && sizes.last().is_some_and(|&last| last < longest) {
        sizes.extend(sizes.last().map(|last| 2 * last));
    }
    sizes
}

/// Returns the sizes of micro-batches that are tried in place of `most` tokens: the powers of two below it, down to
/// `least`, in descending order.
pub fn smaller(most: usize, least: usize) -> impl Iterator<Item = usize> {
    (0..usize::BITS).rev().map(|n| 1 << n).filter(move |tokens| (least..most).contains(tokens))
}

/// Micro-batches of about the same number of tokens.
#[derive(Clone, Debug)]
pub struct SizeClass<T> {
    /// Number of tokens up to which the class reaches. The last class also has all larger micro-batches.
    pub tokens: usize,
    /// The micro-batches.
    pub batches: Vec<T>,
}

impl<T> SizeClass<T> {
    /// Returns the class with other representations of its micro-batches.
    pub fn map<'a, U>(&'a self, of: impl FnMut(&'a T) -> U) -> SizeClass<U> {
        SizeClass { tokens: self.tokens, batches: self.batches.iter().map(of).collect() }
    }
}

/// The activation checkpointing policies of a run. A micro-batch takes the first one whose number of tokens covers its
/// own. Gradients do not depend on the policy, so ranks may have different ones.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Ladder {
    /// The policies, from the smallest micro-batches to the largest.
    pub rungs: Vec<Rung>,
}

/// The policy of the micro-batches of a class.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rung {
    /// Number of tokens up to which it applies.
    pub tokens: usize,
    /// Activation checkpointing policy.
    pub levels: CheckpointPolicy,
}

impl Ladder {
    /// Returns the policy of a micro-batch of `tokens` tokens.
    pub fn levels(&self, tokens: usize) -> CheckpointPolicy {
        let rung = self.rungs.iter().find(|rung| rung.tokens >= tokens).or(self.rungs.last());
        rung.map_or_else(CheckpointPolicy::default, |rung| rung.levels)
    }
}

/// Memory and arithmetic of a counted pass.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Counted {
    /// Peak bytes of each region, including what was allocated before the pass.
    pub memory: Plan,
    /// Number of additions and multiplications.
    pub flops: f64,
}

impl Counted {
    /// Combines the high-water mark of a pass with the work that it noted.
    pub fn new(memory: Plan, work: &[Work]) -> Counted {
        Counted { memory, flops: work.iter().map(|w| w.flops).sum() }
    }
}

/// The policies that were chosen for a run, and the run's memory with them.
#[derive(Clone, PartialEq, Debug)]
pub struct FittedLadder {
    /// Activation checkpointing policies.
    pub ladder: Ladder,
    /// Bytes of each region.
    pub memory: Plan,
}

/// Returns the policy with the least arithmetic for each class of sizes, so that all of them stay within `budget` bytes.
/// `classes` is in ascending order of sizes, and the other arguments are those of [`fit`]. If the largest micro-batches do
/// not fit with any policy, they have the one that takes the least memory.
pub fn ladder<T>(
    config: &ModelConfig,
    images: bool,
    budget: Option<usize>,
    rest: &Plan,
    classes: &[SizeClass<T>],
    mut count: impl FnMut(&T, CheckpointPolicy) -> Result<Counted>,
) -> Result<FittedLadder> {
    let (mut rungs, mut memory): (Vec<Rung>, Plan) = (Vec::new(), *rest);
    // The largest ones first. A smaller one may have the memory of each region that these take, and what is left.
    for SizeClass { tokens, batches } in classes.iter().rev().filter(|class| !class.batches.is_empty()) {
        let fit = fit(config, images, budget, &memory, batches.len(), |i, levels| count(&batches[i], levels))?;
        memory = fit.memory;
        // Smaller micro-batches take the rung above if its policy is the same.
        if rungs.last().is_none_or(|above| above.levels != fit.levels) {
            rungs.push(Rung { tokens: *tokens, levels: fit.levels });
        }
    }
    rungs.reverse();
    Ok(FittedLadder { ladder: Ladder { rungs }, memory })
}

/// The policy that was chosen for a class of sizes, and the run's memory with it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fit {
    /// Activation checkpointing policy.
    pub levels: CheckpointPolicy,
    /// Bytes of each region.
    pub memory: Plan,
    /// True if `memory` is within the budget. If false, `levels` is the policy that takes the least memory.
    pub fits: bool,
}

/// Returns the policy with the least arithmetic among those that stay within `budget` bytes.
///
/// - `count(i, levels)` runs the pass over micro-batch `i` of `batches`.
/// - `rest` is the memory that the run takes outside these passes.
/// - `images` is true if any micro-batch has images.
///
/// The layers of the decoder may follow different policies. All blocks of the vision tower follow the same policy,
/// because their share of the memory is small.
pub fn fit(
    config: &ModelConfig,
    images: bool,
    budget: Option<usize>,
    rest: &Plan,
    batches: usize,
    mut count: impl FnMut(usize, CheckpointPolicy) -> Result<Counted>,
) -> Result<Fit> {
    let mut at = |levels: CheckpointPolicy, which: &[usize]| -> Result<Counted> {
        which.iter().try_fold(Counted { memory: *rest, flops: 0.0 }, |sum, &i| {
            let one = count(i, levels)?;
            Ok(Counted { memory: sum.memory.max(&one.memory), flops: sum.flops + one.flops })
        })
    };
    let all: Vec<usize> = (0..batches).collect();
    if budget == LEAST {
        let levels = CheckpointPolicy::from(LayerPolicy::Inputs);
        return Ok(Fit { levels, memory: at(levels, &all)?.memory, fits: false });
    }
    let (mut keep_all, mut sizes) = (*rest, Vec::with_capacity(batches));
    for i in 0..batches {
        let memory = at(CheckpointPolicy::default(), &[i])?.memory;
        sizes.push((memory.total(), i));
        keep_all = keep_all.max(&memory);
    }
    let Some(budget) = budget.filter(|&budget| keep_all.total() > budget) else {
        return Ok(Fit { levels: CheckpointPolicy::default(), memory: keep_all, fits: true });
    };
    // The two micro-batches with the largest memory decide in nearly all cases. If the policy found for these two does
    // not fit another micro-batch, that micro-batch is added and the search is repeated.
    sizes.sort_unstable_by_key(|&(bytes, i)| (std::cmp::Reverse(bytes), i));
    let mut which: Vec<usize> = sizes.iter().take(2).map(|&(_, i)| i).collect();
    loop {
        let mut search = Search {
            layers: config.text.layers.len(),
            budget,
            seen: HashMap::new(),
            count: |levels| at(levels, &which),
        };
        let Some(levels) = search.cheapest(images)? else {
            let levels = CheckpointPolicy::from(LayerPolicy::Inputs);
            return Ok(Fit { levels, memory: at(levels, &all)?.memory, fits: false });
        };
        let memory = at(levels, &all)?.memory;
        if memory.total() <= budget {
            return Ok(Fit { levels, memory, fits: true });
        }
        let mut worst = (0, None);
        for &i in all.iter().filter(|i| !which.contains(i)) {
            worst = worst.max((at(levels, &[i])?.memory.total(), Some(i)));
        }
        let Some(next) = worst.1 else { return Ok(Fit { levels, memory, fits: false }) };
        which.push(next);
    }
}

struct Search<F> {
    layers: usize,
    budget: usize,
    seen: HashMap<CheckpointPolicy, Counted>,
    count: F,
}

impl<F: FnMut(CheckpointPolicy) -> Result<Counted>> Search<F> {
    fn cheapest(&mut self, images: bool) -> Result<Option<CheckpointPolicy>> {
        let mut towers = vec![CheckpointPolicy::default()];
        if images {
            let keeps = [LayerPolicy::All, LayerPolicy::AllButGateUp, LayerPolicy::Inputs].map(Stack::from);
            let tower = |replay_tower| move |vision| CheckpointPolicy { text: Stack::default(), vision, replay_tower };
            towers = keeps.into_iter().map(tower(false)).chain(keeps.into_iter().map(tower(true))).collect();
        }
        let mut best: Option<(f64, CheckpointPolicy)> = None;
        for tower in towers {
            let least = self.counted(tower)?.flops;
            if best.is_some_and(|(flops, _)| least >= flops) {
                continue;
            }
            if let Some(levels) = self.text(tower)? {
                let flops = self.counted(levels)?.flops;
                if best.is_none_or(|(least, _)| flops < least) {
                    best = Some((flops, levels));
                }
            }
        }
        Ok(best.map(|(_, levels)| levels))
    }

    /// Returns the cheapest policy for the decoder's layers if the vision tower follows the policy `tower`. The search
    /// varies how many layers recompute anything, and how many of these layers keep only their inputs.
    fn text(&mut self, tower: CheckpointPolicy) -> Result<Option<CheckpointPolicy>> {
        let layers = self.layers;
        let at = |replayed: usize, inputs: usize| CheckpointPolicy {
            text: Stack { inputs, all_but_gate_up: replayed - inputs },
            ..tower
        };
        if !self.fits(at(layers, layers))? {
            return Ok(None);
        }
        let (mut replayed, mut inputs) = match self.fits(at(layers, 0))? {
            true => (self.least(layers, |n| at(n, 0))?, 0),
            false => (layers, self.least(layers, |i| at(layers, i))?),
        };
        // A policy with fewer recomputing layers, each of which recomputes more, may need less arithmetic.
        for n in (0..replayed).rev() {
            let best = self.counted(at(replayed, inputs))?.flops;
            let mut most = None;
            for i in (0..=n).rev() {
                if self.counted(at(n, i))?.flops < best {
                    most = Some(i);
                    break;
                }
            }
            let Some(most) = most else { break };
            if self.fits(at(n, most))? {
                (replayed, inputs) = (n, self.least(most, |i| at(n, i))?);
            }
        }
        Ok(Some(at(replayed, inputs)))
    }

    /// Returns the smallest n from 0 to `most` for which the policy `at(n)` fits. Requires that `at(most)` fits and
    /// that a larger n never takes more memory.
    fn least(&mut self, most: usize, at: impl Fn(usize) -> CheckpointPolicy) -> Result<usize> {
        let (mut low, mut high) = (0, most);
        while low < high {
            let middle = (low + high) / 2;
            if self.fits(at(middle))? {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(high)
    }

    fn fits(&mut self, levels: CheckpointPolicy) -> Result<bool> {
        Ok(self.counted(levels)?.memory.total() <= self.budget)
    }

    fn counted(&mut self, levels: CheckpointPolicy) -> Result<Counted> {
        if let Some(counted) = self.seen.get(&levels) {
            return Ok(*counted);
        }
        let counted = (self.count)(levels)?;
        self.seen.insert(levels, counted);
        Ok(counted)
    }
}

//! Sampling from a row of logits that was kept: penalties, biases, restrictions, and the most likely ids. It runs on
//! the host for every device. If nothing is requested, tokens and log-probs are bitwise those of [`super::fwd`], because
//! both use the same scaling, partial sums and choice.
//!
//! Memory traffic of a row of V ids, in addition to the product's D V weights (D is the hidden size): the row is written
//! once (4 V bytes), copied to the host by a GPU (4 V bytes), and read once for each distribution that is needed: the
//! trainer's, the one that is sampled, and the reported one, if they differ. At temperature 1 or 0 the raw log-prob is
//! the trainer's, so its logsumexp is not computed again. A row without these requests is neither kept nor read: its
//! log-prob comes from the partial sums of the fused product.

use std::collections::HashMap;

use rayon::prelude::*;

use serde::{Deserialize, Serialize};

use super::choose;
use super::draw::Draw;
use crate::device::{Device, Isa, On, Parts};
use crate::ops::linear_logprob::logits::{Allowed, Fold, PARTIAL, inverse_temperature, of_given, segments};
use crate::ops::matmul::{PANEL, panel_count};
use crate::tensor::Tensor;
use omr_base::error::Result;

/// The distribution of reported log-probs, as in vLLM's `logprobs_mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum LogprobsMode {
    /// The model's distribution at temperature 1, without penalties and filters.
    #[default]
    Raw,
    /// The distribution that the token is drawn from: after penalties, temperature and filters. Greedy decoding has
    /// temperature 1 and no filters.
    Processed,
}

/// Penalties of ids that occurred before, by vLLM's definitions.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Penalties {
    /// Divides the positive logits of ids in the prompt or the output, and multiplies their negative logits; 1 disables.
    pub repetition: f32,
    /// Subtracted from the logit of an id once for each occurrence in the output; 0 disables.
    pub frequency: f32,
    /// Subtracted from the logit of each id in the output; 0 disables.
    pub presence: f32,
}

impl Penalties {
    /// Penalties that change nothing.
    pub const NONE: Penalties = Penalties { repetition: 1.0, frequency: 0.0, presence: 0.0 };
}

impl Default for Penalties {
    fn default() -> Penalties {
        Penalties::NONE
    }
}

/// Changes to a row's logits, in the order of application (which is vLLM's): restrictions, biases, penalties.
#[derive(Clone, Copy, Debug)]
pub struct Changes<'a> {
    /// The only ids that may be sampled, as a bitmap (bit v % 32 of word v / 32).
    pub allowed: Option<&'a [u32]>,
    /// Ids that may not be sampled.
    pub banned: &'a [u32],
    /// Values that are added to logits.
    pub bias: &'a [(u32, f32)],
    /// Penalties of repetition.
    pub penalties: Penalties,
    /// Distinct ids of the prompt.
    pub prompt: &'a [u32],
    /// Number of occurrences of each id in the output.
    pub counts: Option<&'a HashMap<u32, u32>>,
}

impl Changes<'_> {
    /// Changes that keep every logit.
    pub const NONE: Changes<'static> =
        Changes { allowed: None, banned: &[], bias: &[], penalties: Penalties::NONE, prompt: &[], counts: None };

    /// Returns true if no logit changes.
    pub fn is_none(&self) -> bool {
        let penalized = self.penalties != Penalties::NONE;
        self.allowed.is_none() && self.banned.is_empty() && self.bias.is_empty() && !penalized
    }

    fn apply(&self, z: &mut [f32]) {
        if let Some(bitmap) = self.allowed {
            for (id, z) in z.iter_mut().enumerate() {
                let on = bitmap[id / 32] >> (id % 32) & 1 == 1;
                *z = if on { *z } else { f32::NEG_INFINITY };
            }
        }
        for &id in self.banned {
            z[id as usize] = f32::NEG_INFINITY;
        }
        for &(id, bias) in self.bias {
            z[id as usize] += bias;
        }
        let Penalties { repetition, frequency, presence } = self.penalties;
        let output = self.counts.into_iter().flatten();
        if repetition != 1.0 {
            let unseen = |id: &&u32| self.counts.is_none_or(|counts| !counts.contains_key(id));
            for &id in self.prompt.iter().filter(unseen).chain(output.clone().map(|(id, _)| id)) {
                let z = &mut z[id as usize];
                *z = if *z > 0.0 { *z / repetition } else { *z * repetition };
            }
        }
        if frequency != 0.0 || presence != 0.0 {
            for (&id, &count) in output {
                z[id as usize] -= frequency * count as f32;
                z[id as usize] -= presence;
            }
        }
    }
}

/// Parameters of a kept row.
#[derive(Clone, Copy, Debug)]
pub struct RowCall<'a> {
    /// Sampling parameters and noise.
    pub draw: Draw,
    /// Changes to the logits.
    pub changes: Changes<'a>,
    /// Distribution of the reported log-probs and the number of most likely ids. `None` reports nothing.
    pub report: Option<(LogprobsMode, usize)>,
}

/// An id and its log-prob.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TopLogprob {
    /// The id.
    pub token_id: u32,
    /// Its log-prob.
    pub logprob: f32,
}

/// The place of an id in a distribution.
#[derive(Clone, PartialEq, Debug)]
pub struct Ranked {
    /// Log-prob of the id.
    pub logprob: f32,
    /// One more than the number of ids that are more likely, or equally likely with a lower id.
    pub rank: u32,
    /// The most likely ids in this order. Ids without probability are left out.
    pub top: Vec<TopLogprob>,
}

/// Result of a kept row.
#[derive(Clone, PartialEq, Debug)]
pub struct RowSample {
    /// The sampled id.
    pub token_id: u32,
    /// Its log-prob at the row's temperature without changes and filters, bitwise as the trainer computes it. NaN if
    /// the changes leave no id.
    pub logprob: f32,
    /// Its place in the requested distribution.
    pub ranked: Option<Ranked>,
}

/// Logits at some temperature with their logsumexp.
struct Scaled {
    z: Vec<f32>,
    vocab: usize,
    fold: Fold,
}

impl Scaled {
    /// Scales `logits`, which are minus infinity for ids that are not allowed.
    fn new(isa: Isa, logits: &[f32], scale: f32) -> Scaled {
        let vocab = logits.len();
        let mut z = Vec::with_capacity(panel_count(vocab) * PANEL);
        z.extend_from_slice(logits);
        z.resize(panel_count(vocab) * PANEL, 0.0);
        let mut partials = vec![0.0; segments(vocab) * PARTIAL];
        of_given(isa, &mut z, scale, Allowed { vocab, bitmap: None }, &mut partials);
        Scaled { z, vocab, fold: Fold::of(&partials) }
    }

    fn z(&self) -> &[f32] {
        &self.z[..self.vocab]
    }

    fn logprob(&self, id: u32) -> f32 {
        self.z[id as usize] - self.fold.logsumexp()
    }

    fn ranked(&self, id: u32, top: usize) -> Ranked {
        let lse = self.fold.logsumexp();
        let own = self.z[id as usize];
        let before = |(at, &z): (usize, &f32)| u32::from(z > own || (z == own && at < id as usize));
        let rank = 1 + self.z().iter().enumerate().map(before).sum::<u32>();
        let top = largest(self.z(), top).into_iter();
        let top = top.map(|token_id| TopLogprob { token_id, logprob: self.z[token_id as usize] - lse }).collect();
        Ranked { logprob: own - lse, rank, top }
    }
}

/// Returns the ids of the `count` largest values, the largest first and of equal ones the lower id first.
fn largest(z: &[f32], count: usize) -> Vec<u32> {
    let mut top: Vec<u32> = Vec::with_capacity(count + 1);
    let mut least = f32::NEG_INFINITY;
    for (id, &value) in z.iter().enumerate() {
        if count > 0 && value > least {
            let at = top.partition_point(|&other| z[other as usize] >= value);
            top.insert(at, id as u32);
            top.truncate(count);
            if top.len() == count {
                least = z[top[count - 1] as usize];
            }
        }
    }
    top
}

/// Samples from unscaled `logits` `[V]`, which are minus infinity for ids that are not allowed.
pub fn sample_row(isa: Isa, logits: &[f32], call: &RowCall<'_>) -> RowSample {
    let params = call.draw.params();
    let scale = inverse_temperature(params.temperature);
    let policy = Scaled::new(isa, logits, scale);
    let changed = (!call.changes.is_none()).then(|| {
        let mut logits = logits.to_vec();
        call.changes.apply(&mut logits);
        Scaled::new(isa, &logits, scale)
    });
    let from = changed.as_ref().unwrap_or(&policy);
    let token_id = choose::token(isa, from.z(), from.fold.max, &call.draw);
    let none_left = from.fold.max == f32::NEG_INFINITY;
    let ranked = call.report.map(|(mode, top)| match mode {
        LogprobsMode::Raw if scale == 1.0 => policy.ranked(token_id, top),
        LogprobsMode::Raw => Scaled::new(isa, logits, 1.0).ranked(token_id, top),
        LogprobsMode::Processed if params.narrows() && params.temperature != 0.0 => {
            let mut kept = vec![f32::NEG_INFINITY; logits.len()];
            let ids = choose::narrowed(isa, from.z(), from.fold.max, &params);
            ids.into_iter().for_each(|id| kept[id as usize] = from.z[id as usize]);
            Scaled::new(isa, &kept, 1.0).ranked(token_id, top)
        }
        LogprobsMode::Processed => from.ranked(token_id, top),
    });
    RowSample { token_id, logprob: if none_left { f32::NAN } else { policy.logprob(token_id) }, ranked }
}

/// Returns the place of `id` in the distribution of `logits` `[V]`, with the `top` most likely ids.
pub fn rank_row(isa: Isa, logits: &[f32], id: u32, top: usize) -> Ranked {
    Scaled::new(isa, logits, 1.0).ranked(id, top)
}

/// Applies `f` to `rows` of kept logits, `[B, super::logit_columns(vocab)]`, in parallel. `f` receives the index in
/// `rows` and the row's `vocab` logits. On a device that only counts, returns an empty list.
pub fn with_rows<R: Send>(
    dev: &mut Device,
    logits: Tensor,
    vocab: usize,
    rows: &[usize],
    f: impl Fn(Isa, usize, &[f32]) -> R + Sync,
) -> Result<Vec<R>> {
    let isa = dev.isa();
    match dev.on() {
        On::Count => Ok(Vec::new()),
        On::Cpu(cpu) => {
            let ([], [view]) = cpu.memory.tensors([], [logits]);
            let (all, columns) = (view.of::<f32>(), logits.cols());
            let mut results: Vec<Option<R>> = rows.iter().map(|_| None).collect();
            let parts = Parts::new(&mut results, 1);
            cpu.pool.run(rows.len(), |i| parts.take(i)[0] = Some(f(isa, i, &all[rows[i] * columns..][..vocab])));
            Ok(results.into_iter().flatten().collect())
        }
        On::Gpu(_) => {
            let read = |&row: &usize| dev.read::<f32>(logits.slice(row, row + 1));
            let read: Vec<Vec<f32>> = rows.iter().map(read).collect::<Result<_>>()?;
            Ok(read.par_iter().enumerate().map(|(i, row)| f(isa, i, &row[..vocab])).collect())
        }
    }
}

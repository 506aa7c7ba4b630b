//! Sampling: argmax of z + Gumbel noise over the allowed ids, z = hidden W^T / temperature; greedy without the
//! noise. The log-prob that goes with a token is [`super::linear_logprob`]'s, bit for bit, whatever narrowed
//! the choice.

mod draw;

pub use draw::Draw;

use half::bf16;

use crate::device::{Device, Isa, Parts, Region, cpu_kernel};
use crate::error::{Error, Result};
use crate::ops::linear_logprob::logits::{Allowed, Fold, Logits, PARTIAL, Scale, inverse_temperature, segments};
use crate::ops::matmul::{self, Cells, PANEL, Product, Weight, panel_count};
use crate::ops::philox::{self, philox4x32_10};
use crate::ops::{check, math};
use crate::tensor::{DType, Tensor};

/// How a row's token is drawn. The limits narrow the ids in this order: `min_p`, `top_k`, `top_p`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SamplingParams {
    /// 0 is greedy.
    pub temperature: f32,
    /// Ids at least this fraction of the likeliest one's probability; 0 is off.
    pub min_p: f32,
    /// This many likeliest ids; 0 is off.
    pub top_k: u32,
    /// The fewest likeliest ids whose probabilities reach this sum; 1 is off.
    pub top_p: f32,
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams { temperature: 1.0, min_p: 0.0, top_k: 0, top_p: 1.0 }
    }
}

impl SamplingParams {
    /// The most likely id.
    pub fn greedy() -> SamplingParams {
        SamplingParams { temperature: 0.0, ..Default::default() }
    }

    /// True when the choice is among fewer than all allowed ids.
    pub fn narrows(&self) -> bool {
        self.min_p > 0.0 || self.top_k > 0 || self.top_p < 1.0
    }

    /// An input error at `place` unless every value is in its range.
    pub fn validate(&self, place: &str) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, self.temperature >= 0.0 && self.temperature.is_finite(), "0 or more"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, at most 1"),
        ];
        for (name, value, holds, expected) in checks {
            if !holds {
                return Err(Error::input(format!("{place}.{name}"), value.to_string(), expected));
            }
        }
        Ok(())
    }
}

/// Names the draw: the noise of one token depends on this, the seed and the step, and on nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NoiseKey {
    /// Index of the prompt in the step.
    pub prompt: u32,
    /// Index of the rollout of that prompt.
    pub rollout: u32,
    /// Position of the token to be drawn in its response.
    pub position: u32,
}

/// ids_out u32 `[B]` and logprob_out f32 `[B]` from hidden `[B, D]` and w `[V, D]`, one [`Draw`] a row, `table` the
/// same on the device ([`Draw::upload`]); `allowed` as in [`super::linear_logprob::fwd`]. The log-prob is of the
/// whole policy at the row's temperature (1 for greedy rows). Ties go to the lower id.
#[allow(clippy::too_many_arguments)]
pub fn fwd(
    dev: &mut Device,
    hidden: Tensor,
    w: &Weight,
    allowed: Option<Tensor>,
    draws: &[Draw],
    table: Tensor,
    ids_out: Tensor,
    logprob_out: Tensor,
) -> Result<()> {
    const OP: &str = "sample::fwd";
    let b = hidden.rows();
    let dtype = check::weight(OP, w, w.n, hidden.cols())?;
    check::tensor(OP, "hidden", hidden, dtype, &[b, w.k])?;
    check::optional(OP, "allowed", allowed, DType::U32, &[panel_count(w.n)])?;
    check::tensor(OP, "ids_out", ids_out, DType::U32, &[b])?;
    check::tensor(OP, "logprob_out", logprob_out, DType::F32, &[b])?;
    check::that(OP, draws.len() == b, format!("{b} draws"), draws.len().to_string())?;
    let (table_dtype, dims) = Draw::table(b);
    check::tensor(OP, "table", table, table_dtype, &dims)?;
    let mark = dev.mark(Region::Workspace);
    let (width, columns) = (segments(w.n) * PARTIAL, panel_count(w.n) * PANEL);
    let logits = dev.alloc(Region::Workspace, DType::F32, &[b, columns])?;
    let partials = dev.alloc(Region::Workspace, DType::F32, &[b, width])?;
    if let Some(cpu) = dev.cpu_only(OP)? {
        let ins = [hidden, w.data, allowed.unwrap_or(hidden.slice(0, 0))];
        let outs = [ids_out, logprob_out, logits, partials];
        let ([ids, logprobs, logits, partials], [hidden, w_view, bitmap]) = cpu.memory.tensors(outs, ins);
        let (logits, partials) = (logits.of::<f32>(), partials.of::<f32>());
        let scales: Vec<f32> = draws.iter().map(|d| inverse_temperature(d.params().temperature)).collect();
        let epilogue = Logits {
            allowed: Allowed { vocab: w.n, bitmap: allowed.map(|_| bitmap.of()) },
            scale: Scale::Rows(&scales),
            entropy: false,
            targets: None,
            partials: Cells::new(&mut *partials, width),
            logits: Some(Cells::new(&mut *logits, columns)),
        };
        match dtype {
            DType::Bf16 => {
                let product = Product::rows::<bf16>(hidden.of(), b, w.k, w_view.of(), w.n);
                matmul::run(cpu.pool, cpu.isa, &product, &epilogue);
            }
            _ => {
                let product = Product::rows::<f32>(hidden.of(), b, w.k, w_view.of(), w.n);
                matmul::run(cpu.pool, cpu.isa, &product, &epilogue);
            }
        }
        let (ids, logprobs) = (Parts::new(ids.of::<u32>(), 1), Parts::new(logprobs.of::<f32>(), 1));
        cpu.pool.run(b, |row| {
            let z = &logits[row * columns..row * columns + w.n];
            let fold = Fold::of(&partials[row * width..(row + 1) * width]);
            let (params, noise, key) = (&draws[row].params(), draws[row].noise(), draws[row].key());
            let id = if params.temperature == 0.0 {
                largest(cpu.isa, z, None)
            } else if params.narrows() {
                let left = narrowed(cpu.isa, z, fold.max(), params);
                draw_among(cpu.isa, &left, z, key, noise)
            } else {
                largest(cpu.isa, z, Some((key, noise)))
            };
            ids.take(row)[0] = id;
            logprobs.take(row)[0] = z[id as usize] - fold.logsumexp();
        });
    }
    dev.release(mark);
    Ok(())
}

/// The four words of noise for ids 4 * `quad`.. of one draw.
#[inline(always)]
fn noise_words(key: [u32; 2], noise: NoiseKey, quad: u32) -> [u32; 4] {
    philox4x32_10(key, [noise.prompt, noise.rollout, noise.position, quad])
}

cpu_kernel! {
    /// The id of the largest z, or of z plus its noise; ties to the lower id. 0 when nothing is above -inf.
    fn largest(z: &[f32], draw: Option<([u32; 2], NoiseKey)>) -> u32 {
        const IDS: usize = 64;
        let mut best = [f32::NEG_INFINITY; IDS];
        let mut at = [u32::MAX; IDS];
        let mut score = [0.0; IDS];
        for (block, z) in z.chunks(IDS).enumerate() {
            score.fill(f32::NEG_INFINITY);
            score[..z.len()].copy_from_slice(z);
            if let Some((key, noise)) = draw {
                let mut words = [0; IDS];
                for i in 0..IDS / 4 {
                    let quad = noise_words(key, noise, (block * IDS / 4 + i) as u32);
                    for j in 0..4 {
                        words[4 * i + j] = quad[j];
                    }
                }
                for j in 0..IDS {
                    score[j] += philox::gumbel(words[j]);
                }
            }
            for j in 0..IDS {
                let larger = score[j] > best[j];
                best[j] = if larger { score[j] } else { best[j] };
                at[j] = if larger { (block * IDS + j) as u32 } else { at[j] };
            }
        }
        let mut winner = (f32::NEG_INFINITY, u32::MAX);
        for (&score, &id) in best.iter().zip(&at) {
            if score > winner.0 || (score == winner.0 && id < winner.1) {
                winner = (score, id);
            }
        }
        if winner.1 == u32::MAX { 0 } else { winner.1 }
    }
}

/// An id that may be drawn.
#[derive(Clone, Copy)]
struct Candidate {
    /// Ascending keys are the order (logit down, id up).
    key: u64,
    /// floor(e^(z - max) 2^32).
    weight: u64,
}

const ONE: f64 = 4_294_967_296.0;

cpu_kernel! {
    fn weights(z: &[f32], max: f32, out: &mut [f64]) {
        for (out, &z) in out.iter_mut().zip(z) {
            *out = (f64::from(math::exp(z - max)) * ONE).floor();
        }
    }
}

/// The ids that `params` leaves.
fn narrowed(isa: Isa, z: &[f32], max: f32, params: &SamplingParams) -> Vec<u32> {
    let mut weight = vec![0.0; z.len()];
    weights(isa, z, max, &mut weight);
    let least = f64::from(params.min_p) * ONE;
    let mut left: Vec<Candidate> = (0..z.len())
        .filter(|&id| z[id] > f32::NEG_INFINITY && weight[id] >= least)
        .map(|id| Candidate { key: u64::from(!ascending(z[id])) << 32 | id as u64, weight: weight[id] as u64 })
        .collect();
    let k = params.top_k as usize;
    if k > 0 && k < left.len() {
        left.select_nth_unstable_by_key(k - 1, |c| c.key);
        left.truncate(k);
    }
    if params.top_p < 1.0 && !left.is_empty() {
        let total: u64 = left.iter().map(|c| c.weight).sum();
        let kept = nucleus(&mut left, f64::from(params.top_p) * total as f64);
        left.truncate(kept);
    }
    left.into_iter().map(|c| c.key as u32).collect()
}

/// Unsigned integers in the order of the floats (the two zeros are one).
fn ascending(z: f32) -> u32 {
    let bits = (z + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// Brings to the front the ids, in order, before which the weights sum to less than `enough`; gives their
/// number, at least 1. Halving: linear time, no sort.
fn nucleus(ids: &mut [Candidate], enough: f64) -> usize {
    let (mut from, mut to, mut before) = (0, ids.len(), 0);
    while to - from > 1 {
        let half = (to - from) / 2;
        ids[from..to].select_nth_unstable_by_key(half, |c| c.key);
        let upper: u64 = ids[from..from + half].iter().map(|c| c.weight).sum();
        if ((before + upper) as f64) < enough {
            before += upper;
            from += half;
        } else {
            to = from + half;
        }
    }
    from + 1
}

/// [`largest`] with noise among `ids` only.
fn draw_among(isa: Isa, ids: &[u32], z: &[f32], key: [u32; 2], noise: NoiseKey) -> u32 {
    // Vectors over all ids beat one at a time from a sixteenth of them on.
    if ids.len() * 16 > z.len() {
        let mut masked = vec![f32::NEG_INFINITY; z.len()];
        ids.iter().for_each(|&id| masked[id as usize] = z[id as usize]);
        return largest(isa, &masked, Some((key, noise)));
    }
    let mut winner = (f32::NEG_INFINITY, u32::MAX);
    for &id in ids {
        let word = noise_words(key, noise, id / 4)[id as usize % 4];
        let score = z[id as usize] + philox::gumbel(word);
        if score > winner.0 || (score == winner.0 && id < winner.1) {
            winner = (score, id);
        }
    }
    if winner.1 == u32::MAX { 0 } else { winner.1 }
}

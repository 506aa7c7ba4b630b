//! Choice of one row's token on the CPU: filters the ids by the sampling parameters, then takes the best id with noise.

use super::draw::Draw;
use super::params::{NoiseKey, SamplingParams};
use crate::device::{Isa, cpu_kernel};
use omr_base::math;
use omr_base::philox::{self, philox4x32_10};

/// Returns the token of a row of logits `z`. `max` is the largest logit.
pub(super) fn token(isa: Isa, z: &[f32], max: f32, draw: &Draw) -> u32 {
    let (params, key, noise) = (draw.params(), draw.key, draw.noise());
    if params.temperature == 0.0 {
        largest(isa, z, None)
    } else if params.narrows() {
        draw_among(isa, &narrowed(isa, z, max, &params), z, key, noise)
    } else {
        largest(isa, z, Some((key, noise)))
    }
}

/// Returns the four words of noise for the ids from 4 * `quad` on.
#[inline(always)]
fn noise_words(key: [u32; 2], noise: NoiseKey, quad: u32) -> [u32; 4] {
    philox4x32_10(key, [noise.prompt, noise.rollout, noise.position, quad])
}

cpu_kernel! {
    /// Returns the id of the largest z, or of the largest z plus noise. Ties go to the lower id. Returns 0 if no value
    /// is above -inf.
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
        winner(best.into_iter().zip(at))
    }
}

/// Returns the id with the largest score. Ties go to the lower id. Returns 0 if no score is above -inf.
#[inline(always)]
fn winner(scores: impl Iterator<Item = (f32, u32)>) -> u32 {
    let mut winner = (f32::NEG_INFINITY, u32::MAX);
    for (score, id) in scores {
        if score > winner.0 || (score == winner.0 && id < winner.1) {
            winner = (score, id);
        }
    }
    if winner.1 == u32::MAX { 0 } else { winner.1 }
}

/// An id that may be drawn.
#[derive(Clone, Copy)]
struct Candidate {
    /// Sort key: ascending keys mean descending logits, then ascending ids.
    key: u64,
    /// Probability relative to the most likely id, as floor(e^(z - max) 2^32).
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

/// Returns the ids that pass the filters of `params`.
pub(super) fn narrowed(isa: Isa, z: &[f32], max: f32, params: &SamplingParams) -> Vec<u32> {
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

/// Maps floats to unsigned integers in the same order. Both zeros map to the same integer.
fn ascending(z: f32) -> u32 {
    let bits = (z + 0.0).to_bits();
    if bits >> 31 == 0 { bits | 1 << 31 } else { !bits }
}

/// Moves the ids of the nucleus to the front of `ids`, in any order. An id is in the nucleus if the weights of all ids
/// with a smaller key sum to less than `enough`. Returns the size of the nucleus, at least 1. The search halves its
/// range repeatedly, which takes linear time and needs no sort.
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

/// Returns the result of [`largest`] with noise, among `ids` only.
fn draw_among(isa: Isa, ids: &[u32], z: &[f32], key: [u32; 2], noise: NoiseKey) -> u32 {
    // If more than a sixteenth of the ids remain, vector code over all ids is faster than one id at a time.
    if ids.len() * 16 > z.len() {
        let mut masked = vec![f32::NEG_INFINITY; z.len()];
        ids.iter().for_each(|&id| masked[id as usize] = z[id as usize]);
        return largest(isa, &masked, Some((key, noise)));
    }
    winner(ids.iter().map(|&id| {
        let word = noise_words(key, noise, id / 4)[id as usize % 4];
        (z[id as usize] + philox::gumbel(word), id)
    }))
}

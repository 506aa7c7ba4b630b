//! The ops that a tape can record: forward and backward of each op side by side.

use std::sync::Arc;

use super::prompts::SharedPrompts;
use super::{Mode, Recompute, Tape, Var};
use crate::nn::adapter::linear::linear_bwd;
use crate::nn::weights::params::{Linear, Matrix, Vector};
use omr_base::error::{Error, Result};
use omr_runtime::device::Device;
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::attention::{self, Pack};
use omr_runtime::ops::gelu::{self, GeluKind};
use omr_runtime::ops::linear_logprob::{self, LogProbCall};
use omr_runtime::ops::matmul::{PANEL, panel_count};
use omr_runtime::ops::paged_attention::{self, Decode, KvCache, Paged};
use omr_runtime::ops::patch_embed::{self, Normalize, PatchImage};
use omr_runtime::ops::pos_embed::{self, Taps};
use omr_runtime::ops::rows::Segments;
use omr_runtime::ops::{embedding, layer_norm, linear, rms_norm, swiglu};
use omr_runtime::tensor::{DType, Tensor};

/// Tables of a rotary embedding, f32 `[T, head_dim / 2]`.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

/// The keys to which a row attends.
#[derive(Clone)]
pub enum Attend {
    /// Keys of the row's own segment in the pack: for training, prefill without a cache, and the vision tower.
    Packed {
        /// Start offsets of the segments, followed by the number of rows, u32 `[S + 1]`.
        cu_seqlens: Tensor,
        /// Number of rows of the longest segment.
        max_seqlen: usize,
        /// Number of pairs of a row and a key it attends to.
        pairs: usize,
        /// True if a row attends only to itself and the rows before it.
        causal: bool,
        /// The prompts that segments share. Their keys are then keys of these segments, too.
        prompts: Option<Box<SharedPrompts>>,
    },
    /// Keys of the row's sequence in a paged cache. The keys of this pass are added to the cache first.
    Paged {
        /// Caches, one per layer.
        caches: Arc<[KvCache]>,
        /// Cache slots and block tables of the sequences.
        paging: Box<Paging>,
    },
}

impl Attend {
    /// Creates an [`Attend::Packed`] over the segments between `borders`.
    pub fn packed(tape: &Tape, dev: &mut Device, borders: &[u32], causal: bool) -> Result<Attend> {
        let lengths = borders.windows(2).map(|w| w[1].saturating_sub(w[0]) as usize);
        let max_seqlen = lengths.clone().max().unwrap_or(0);
        let pairs = lengths.map(|n| if causal { n * (n + 1) / 2 } else { n * n }).sum();
        let cu_seqlens = tape.upload(dev, borders, &[borders.len()])?;
        Ok(Attend::Packed { cu_seqlens, max_seqlen, pairs, causal, prompts: None })
    }

    /// Creates a causal [`Attend::Packed`] over segments that share prompts. `prompt_of` is described at
    /// [`attention::Bwd`].
    pub fn sharing(tape: &Tape, dev: &mut Device, borders: &[u32], prompt_of: &[u32]) -> Result<Attend> {
        let mut attend = Attend::packed(tape, dev, borders, true)?;
        if let Attend::Packed { pairs, prompts, .. } = &mut attend {
            let rows = |s: usize| (borders[s + 1] - borders[s]) as usize;
            let shared = prompt_of.iter().enumerate().filter(|(s, prompt)| **prompt as usize != *s);
            *pairs += shared.map(|(s, prompt)| rows(s) * rows(*prompt as usize)).sum::<usize>();
            *prompts = Some(Box::new(SharedPrompts::upload(tape, dev, borders, prompt_of)?));
        }
        Ok(attend)
    }
}

/// The attention of one layer.
#[derive(Clone)]
pub struct Attention {
    /// Rotary embedding of q and k.
    pub rope: Rope,
    /// Number of query heads, number of key and value heads, and dimension of a head.
    pub heads: Heads,
    /// The keys to which a row attends.
    pub attend: Attend,
    /// Index of the layer's cache.
    pub cache: usize,
}

/// The slots and blocks of the paged cache that belong to a batch.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// Slot of each new token, u32 `[T]`: block * 128 + index in the block.
    pub slot_mapping: Tensor,
    /// Blocks of each sequence, u32 `[S, max_blocks]`.
    pub block_tables: Tensor,
    /// Start offsets of the sequences in the new tokens, followed by `T`, u32 `[S + 1]`.
    pub cu_seqlens_q: Tensor,
    /// Number of keys of each sequence, including the new ones, u32 `[S]`.
    pub context_lens: Tensor,
    /// Work items of a decode step on a GPU.
    pub decode: Option<Decode>,
}

/// Memory for the result of attention.
#[derive(Clone, Copy, Debug)]
pub struct Attended {
    /// Result rows of all heads.
    pub out: Var,
    /// Logsumexp of each row and head, f32 `[T, q heads]`, if backward may follow.
    pub lse: Option<Tensor>,
}

/// The policy under which [`Tape::linear_logprob`] computes log-probs.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Ids that can be sampled, as a u32 bitmap `[ceil(V / 32)]`. `None` allows all.
    pub allowed: Option<Tensor>,
    /// Temperature, by which logits are divided.
    pub temperature: f32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { allowed: None, temperature: 1.0 }
    }
}

impl Tape {
    /// Computes y = x / rms(x) * gamma.
    pub fn rms_norm(&mut self, dev: &mut Device, x: Var, gamma: Vector, eps: f32) -> Result<Var> {
        let mark = dev.mark(self.region());
        let y = self.alloc(dev, x.tensor.dtype, &x.tensor.shape)?;
        let rstd = dev.alloc(self.region(), DType::F32, &[x.tensor.rows()])?;
        rms_norm::fwd(dev, x.tensor, gamma.tensor, eps, y.tensor, rstd)?;
        self.record_of(mark, y, self.is_trained(x) || self.trains_base, move |b, dy| {
            let (dx, accumulate) = b.of(x)?;
            let (x, dgamma, gamma) = (x.tensor, b.param(gamma.id)?, gamma.tensor);
            // The gradient of a frozen norm is a vector, which is computed and dropped.
            b.with_scratch(DType::F32, &[gamma.len()], |b, scratch| {
                let dgamma = dgamma.unwrap_or(scratch);
                rms_norm::bwd(b.dev, rms_norm::Bwd { x, gamma, rstd, dy, dx, accumulate, dgamma })
            })
        });
        Ok(y)
    }

    /// Computes y = (x - mean) * rstd * weight + bias for each row, with `weights` = weight, bias.
    pub fn layer_norm(&mut self, dev: &mut Device, x: Var, weights: [Vector; 2], eps: f32) -> Result<Var> {
        let mark = dev.mark(self.region());
        let y = self.alloc(dev, x.tensor.dtype, &x.tensor.shape)?;
        let stats = dev.alloc(self.region(), DType::F32, &[x.tensor.rows(), 2])?;
        layer_norm::fwd(dev, x.tensor, weights.map(|w| w.tensor), eps, y.tensor, stats)?;
        self.record_of(mark, y, self.is_trained(x) || self.trains_base, move |b, dy| {
            let (dx, accumulate) = b.of(x)?;
            let [weight, bias] = [b.param(weights[0].id)?, b.param(weights[1].id)?];
            let (x, gamma) = (x.tensor, weights[0].tensor);
            let dweights = weight.zip(bias).map(|(weight, bias)| [weight, bias]);
            layer_norm::bwd(b.dev, layer_norm::Bwd { x, gamma, stats, dy, dx, accumulate, dweights })
        });
        Ok(y)
    }

    /// Computes y = x W^T + bias + residual. Nothing may use `residual` after this op.
    pub fn linear(&mut self, dev: &mut Device, x: Var, layer: Linear, residual: Option<Var>) -> Result<Var> {
        let y = self.alloc(dev, x.tensor.dtype, &[x.tensor.rows(), layer.weight.weight.n])?;
        self.linear_into(dev, x, layer, residual, y, Recompute(false))?;
        Ok(y)
    }

    /// Does the same as [`Tape::linear`], but writes the result to `y`, which is already allocated. If `again`
    /// is true, `y` already holds the result.
    pub fn linear_into(
        &mut self,
        dev: &mut Device,
        x: Var,
        layer: Linear,
        residual: Option<Var>,
        y: Var,
        again: Recompute,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        let Linear { weight, bias, .. } = layer;
        let [bias, more] = [bias.map(|b| b.tensor), residual.map(|r| r.tensor)];
        let mut kept = None;
        if !again.0 {
            let product = |dev: &mut Device, x| linear::fwd(dev, x, &weight.weight, bias, more, y.tensor);
            kept = self.with_input(dev, x.tensor, layer, product)?;
        }
        let is_trained = self.is_trained(x) || residual.is_some_and(|r| self.is_trained(r)) || self.trains(&layer);
        if !self.set_trained(y, is_trained) {
            return Ok(());
        }
        self.record(mark, move |b| {
            let Some(dy) = b.take(y) else { return Ok(()) };
            let dx = b.of_trained(x)?;
            linear_bwd(b, x, dy.tensor, layer, kept, dx)?;
            match residual {
                Some(residual) => b.pass_on(dy, residual),
                None => b.free(dy),
            }
            Ok(())
        });
        Ok(())
    }

    /// Computes gelu(x W^T + bias) with a kind of GELU, and without one silu(gate) * up with gate and up = x W^T + bias.
    pub fn linear_activated(&mut self, dev: &mut Device, x: Var, layer: Linear, kind: Option<GeluKind>) -> Result<Var> {
        let mark = dev.mark(self.region());
        let Linear { weight, bias, .. } = layer;
        let (t, n, dtype) = (x.tensor.rows(), weight.weight.n, x.tensor.dtype);
        let y = self.alloc(dev, dtype, &[t, if kind.is_some() { n } else { n / 2 }])?;
        let is_trained = self.is_trained(x) || self.trains(&layer);
        let records = is_trained && self.recording;
        let saved = if records { Some(dev.alloc(self.region(), dtype, &[t, n])?) } else { None };
        let (weight, bias) = (&weight.weight, bias.map(|b| b.tensor));
        let product = |dev: &mut Device, x| match kind {
            None => linear::fwd_swiglu(dev, x, weight, bias, saved, y.tensor),
            Some(kind) => linear::fwd_gelu(dev, kind, x, weight, bias, saved, y.tensor),
        };
        let kept = self.with_input(dev, x.tensor, layer, product)?;
        self.record_of(mark, y, is_trained, move |b, dy| {
            let Some(saved) = saved else { return Ok(()) };
            let dx = b.of_trained(x)?;
            b.with_scratch(dtype, &[t, n], |b, dz| {
                match kind {
                    None => swiglu::bwd(b.dev, saved, dy, dz)?,
                    Some(kind) => gelu::bwd(b.dev, kind, saved, dy, dz)?,
                }
                linear_bwd(b, x, dz, layer, kept, dx)
            })
        });
        Ok(y)
    }

    /// Allocates memory for the attention of `t` rows.
    pub fn attended(&mut self, dev: &mut Device, dtype: DType, t: usize, attention: &Attention) -> Result<Attended> {
        let Attention { heads, attend, .. } = attention;
        let out = self.alloc(dev, dtype, &[t, heads.out_len()])?;
        let lse = match attend {
            Attend::Packed { .. } => Some(dev.alloc(self.region(), DType::F32, &[t, heads.q])?),
            Attend::Paged { .. } => None,
        };
        Ok(Attended { out, lse })
    }

    /// Computes the attention of packed rows: among themselves, or to the keys in the layer's paged cache, which
    /// already contains the keys of these rows. If `again` is true, `into` already holds the result.
    pub fn attention_into(
        &mut self,
        dev: &mut Device,
        qkv: Var,
        attention: &Attention,
        into: Attended,
        again: Recompute,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        let &Attention { heads, ref attend, cache, .. } = attention;
        let scale = 1.0 / (heads.dim as f32).sqrt();
        let Attended { out, lse } = into;
        match *attend {
            Attend::Packed { cu_seqlens, max_seqlen, pairs, causal, ref prompts } => {
                let pack = Pack { cu_seqlens, max_seqlen, heads, causal, scale, pairs };
                let lse = lse.ok_or_else(|| Error::Failed("attention has no memory for its logsumexp".into()))?;
                if !again.0 {
                    match prompts {
                        Some(prompts) => prompts.attend(dev, &pack, qkv.tensor, out.tensor, lse)?,
                        None => attention::fwd(dev, &pack, qkv.tensor, out.tensor, lse)?,
                    }
                }
                let prompt_of = prompts.as_ref().map(|prompts| prompts.prompt_of);
                self.record_of(mark, out, self.is_trained(qkv), move |b, dout| {
                    let (dqkv, _) = b.of(qkv)?;
                    let call = attention::Bwd { qkv: qkv.tensor, out: out.tensor, dout, lse, dqkv, prompt_of };
                    attention::bwd(b.dev, &pack, call)
                });
            }
            Attend::Paged { ref caches, ref paging } => {
                if self.mode != Mode::Infer {
                    return Err(Error::Failed("training cannot read a paged KV cache".into()));
                }
                let Paging { block_tables, cu_seqlens_q, context_lens, decode, .. } = **paging;
                let cache = &caches[cache];
                let paged = Paged { cache, block_tables, cu_seqlens_q, context_lens, heads, scale, decode };
                paged_attention::fwd(dev, paged, qkv.tensor, out.tensor)?;
            }
        }
        Ok(())
    }

    /// Gathers rows of the token table for ids on the device. `segments` groups the same ids for backward. It is `None`
    /// if no backward follows.
    pub fn embedding(
        &mut self,
        dev: &mut Device,
        ids: Tensor,
        segments: Option<Segments>,
        table: Matrix,
    ) -> Result<Var> {
        let mark = dev.mark(self.region());
        let y = self.alloc(dev, table.weight.data.dtype, &[ids.len(), table.weight.k])?;
        embedding::fwd(dev, ids, &table.weight, y.tensor)?;
        let records = self.set_trained(y, self.trains_base);
        let Some(segments) = segments.filter(|_| records) else { return Ok(y) };
        self.record_of(mark, y, true, move |b, dy| match b.param(table.id)? {
            Some(dw) => embedding::bwd(b.dev, ids, &segments, dy, dw),
            None => Ok(()),
        });
        Ok(y)
    }

    /// Normalises the patches of u8 frames and multiplies them by the weight of `layer`, plus its bias. The result is `[N, C]` in merge
    /// order.
    pub fn patch_embed(
        &mut self,
        dev: &mut Device,
        pixels: Tensor,
        images: Arc<[PatchImage]>,
        normalize: Normalize,
        layer: Linear,
        num_patches: usize,
    ) -> Result<Var> {
        let Linear { weight, bias, .. } = layer;
        let mark = dev.mark(self.region());
        let y = self.alloc(dev, weight.weight.data.dtype, &[num_patches, weight.weight.n])?;
        patch_embed::fwd(dev, pixels, &images, &normalize, &weight.weight, bias.map(|b| b.tensor), y.tensor)?;
        self.record_of(mark, y, self.trains_base, move |b, dy| {
            let Some(dw) = b.param(weight.id)? else { return Ok(()) };
            let dbias = bias.map_or(Ok(None), |bias| b.param(bias.id))?;
            patch_embed::bwd(b.dev, pixels, &images, &normalize, dy, dw, dbias)
        });
        Ok(y)
    }

    /// Adds the weighted sum of four rows of `table` to each row of `x`, in place.
    pub fn pos_embed(&mut self, dev: &mut Device, x: Var, table: Matrix, taps: Taps) -> Result<()> {
        let mark = dev.mark(self.region());
        pos_embed::fwd(dev, x.tensor, &table.weight, &taps)?;
        if !self.set_trained(x, self.is_trained(x)) {
            return Ok(());
        }
        self.record(mark, move |b| {
            let Some(dx) = b.peek(x) else { return Ok(()) };
            if let Some(dtable) = b.param(table.id)? { pos_embed::bwd(b.dev, dx, &taps, dtable) } else { Ok(()) }
        });
        Ok(())
    }

    /// Computes log p(`targets[i]`) of row i of `hidden` `[R, D]` under softmax(hidden W^T / temperature) over the
    /// allowed ids, f32 `[R]`. Also returns the entropy of each row's distribution, f32 `[R]`, if it is requested.
    pub fn linear_logprob(
        &mut self,
        dev: &mut Device,
        hidden: Var,
        lm_head: Matrix,
        policy: Policy,
        targets: Tensor,
        with_entropy: bool,
    ) -> Result<(Var, Option<Var>)> {
        let mark = dev.mark(self.region());
        let r = hidden.tensor.rows();
        let log_prob = self.alloc(dev, DType::F32, &[r])?;
        let lse = dev.alloc(self.region(), DType::F32, &[r])?;
        let entropy = if with_entropy { Some(self.alloc(dev, DType::F32, &[r])?) } else { None };
        let Policy { allowed, temperature } = policy;
        let (x, weight, h) = (hidden.tensor, lm_head.weight, entropy.map(|e| e.tensor));
        let logits = self.memory_for_logits(dev, r, weight.n)?;
        let outs = linear_logprob::Outs { log_prob: log_prob.tensor, lse, entropy: h, logits };
        linear_logprob::fwd(dev, LogProbCall { hidden: x, w: &weight, allowed, temperature, targets }, outs)?;
        self.record_of(mark, log_prob, true, move |b, dlog_prob| {
            let dentropy = entropy.and_then(|e| b.take(e)).map(|d| d.tensor);
            let (dx, _) = b.of(hidden)?;
            let dw = b.gradient(lm_head.id)?;
            let call = linear_logprob::Bwd { lse, entropy: h, logits, dlog_prob, dentropy, dhidden: dx, dw };
            linear_logprob::bwd(b.dev, LogProbCall { hidden: x, w: &weight, allowed, temperature, targets }, call)
        });
        Ok((log_prob, entropy))
    }

    /// Returns memory for the logits of `rows` rows, if backward follows and a CPU can keep them.
    fn memory_for_logits(&self, dev: &mut Device, rows: usize, vocab: usize) -> Result<Option<Tensor>> {
        /// Bytes of logits that a CPU keeps from forward to backward. Without them, backward computes a quarter of the
        /// products with the output matrix again.
        const KEPT_LOGITS: usize = 64 << 20;
        let columns = panel_count(vocab) * PANEL;
        let fits = rows * columns * size_of::<f32>() <= KEPT_LOGITS;
        if !self.recording || dev.kind().is_gpu() || !fits {
            return Ok(None);
        }
        dev.alloc(self.region(), DType::F32, &[rows, columns]).map(Some)
    }
}

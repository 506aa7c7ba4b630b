//! What a tape can record: each op's forward and backward side by side, and the transformer layer both the
//! decoder and the vision tower are made of.

use std::sync::Arc;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::model::params::{Linear, Matrix, Vector};
use crate::model::tape::{Again, Keep, Mode, Tape, Var};
use crate::ops::attend::Heads;
use crate::ops::embedding::Segments;
use crate::ops::paged_attention::KvCache;
use crate::ops::patch_embed::{Normalize, PatchImage};
use crate::ops::{
    attention, embedding, gelu, linear, linear_logprob, paged_attention, patch_embed, rms_norm, rope, rows, swiglu,
};
use crate::tensor::{DType, Tensor};

/// Tables of a rotation, `[T, head_dim / 2]` f32.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

/// Which keys a row attends to.
#[derive(Clone)]
pub enum Attend {
    /// Those of its own segment in the pack: training, prefill without a cache, the vision tower.
    Packed {
        /// Segment borders `[S + 1]` u32.
        cu_seqlens: Tensor,
        /// Rows of the longest segment.
        max_seqlen: usize,
        /// Only those before it.
        causal: bool,
    },
    /// Those of its sequence in a paged cache, to which this pass's keys are added first.
    Paged {
        /// One cache a layer.
        caches: Arc<[KvCache]>,
        /// Where each sequence's keys lie.
        paging: Paging,
    },
}

impl Attend {
    /// [`Attend::Packed`] over the segments between `borders`.
    pub fn packed(tape: &Tape, dev: &mut Device, borders: &[u32], causal: bool) -> Result<Attend> {
        let max_seqlen = borders.windows(2).map(|w| w[1].saturating_sub(w[0]) as usize).max().unwrap_or(0);
        Ok(Attend::Packed { cu_seqlens: tape.upload(dev, borders, &[borders.len()])?, max_seqlen, causal })
    }
}

/// A batch's view of the paged cache.
#[derive(Clone, Copy, Debug)]
pub struct Paging {
    /// Slot of each new token `[T]` u32: block * 128 + place in the block.
    pub slot_mapping: Tensor,
    /// Blocks of each sequence `[S, max_blocks]` u32.
    pub block_tables: Tensor,
    /// Borders of the new tokens `[S + 1]` u32.
    pub cu_seqlens_q: Tensor,
    /// Keys of each sequence, the new ones included, `[S]` u32.
    pub context_lens: Tensor,
}

/// Log-probabilities of targets under the model; see [`Tape::linear_logprob`].
#[derive(Clone, Copy, Debug)]
pub struct LogProbs {
    /// log p(target) of each row, f32 `[R]`.
    pub logprob: Var,
    /// Entropy of each row's distribution, f32 `[R]`, when asked for.
    pub entropy: Option<Var>,
    /// logsumexp of each row's logits over temperature, f32 `[R]`.
    pub lse: Tensor,
}

/// Where attention leaves its result.
#[derive(Clone, Copy, Debug)]
pub struct Attended {
    /// Rows of all heads.
    pub out: Var,
    /// logsumexp of each row and head f32 `[T, q heads]`, where backward may follow.
    pub lse: Option<Tensor>,
}

/// The policy [`Tape::linear_logprob`] asks about.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Ids that can be sampled, u32 bitmap `[ceil(V / 32)]`; none: all.
    pub allowed: Option<Tensor>,
    /// Divides the logits.
    pub temperature: f32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { allowed: None, temperature: 1.0 }
    }
}

impl Tape {
    /// y = x / rms(x) * gamma.
    pub fn rms_norm(&mut self, dev: &mut Device, x: Var, gamma: Vector, eps: f32) -> Result<Var> {
        let mark = dev.mark(self.region());
        let y = self.alloc(dev, x.tensor.dtype, &x.tensor.shape)?;
        let rstd = dev.alloc(self.region(), DType::F32, &[x.tensor.rows()])?;
        rms_norm::fwd(dev, x.tensor, gamma.tensor, eps, y.tensor, rstd)?;
        self.record(mark, move |b| {
            let Some(dy) = b.take(y) else { return Ok(()) };
            let (dx, accumulate) = b.of(x)?;
            let dgamma = b.param(gamma.id);
            rms_norm::bwd(b.dev, x.tensor, gamma.tensor, rstd, dy.tensor, dx, accumulate, dgamma)?;
            b.free(dy);
            Ok(())
        });
        Ok(y)
    }

    /// y = x W^T + bias.
    pub fn linear(&mut self, dev: &mut Device, x: Var, layer: Linear) -> Result<Var> {
        let y = self.alloc(dev, x.tensor.dtype, &[x.tensor.rows(), layer.weight.weight.n])?;
        self.linear_into(dev, x, layer, None, y, Again(false))?;
        Ok(y)
    }

    /// y = x W^T + bias + residual. Nothing may use `residual` later than this.
    pub fn linear_residual(&mut self, dev: &mut Device, x: Var, layer: Linear, residual: Var) -> Result<Var> {
        let y = self.alloc(dev, x.tensor.dtype, &[x.tensor.rows(), layer.weight.weight.n])?;
        self.linear_into(dev, x, layer, Some(residual), y, Again(false))?;
        Ok(y)
    }

    /// [`Tape::linear_residual`] into a value allocated before, which holds the result when the block runs `again`.
    pub fn linear_into(
        &mut self,
        dev: &mut Device,
        x: Var,
        layer: Linear,
        residual: Option<Var>,
        y: Var,
        again: Again,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        let Linear { weight, bias } = layer;
        let (bias_tensor, added) = (bias.map(|b| b.tensor), residual.map(|r| r.tensor));
        if !again.0 {
            linear::fwd(dev, x.tensor, &weight.weight, bias_tensor, added, y.tensor)?;
        }
        self.record(mark, move |b| {
            let Some(dy) = b.take(y) else { return Ok(()) };
            let (dx, accumulate) = b.of(x)?;
            linear::dgrad(b.dev, dy.tensor, &weight.weight, dx, accumulate)?;
            let (dw, dbias) = (b.param(weight.id), bias.map(|bias| b.param(bias.id)));
            linear::wgrad(b.dev, x.tensor, dy.tensor, dw, dbias)?;
            match residual {
                Some(residual) => b.pass_on(dy, residual),
                None => b.free(dy),
            }
            Ok(())
        });
        Ok(())
    }

    /// silu(gate) * up with gate and up = x W^T + bias.
    pub fn linear_swiglu(&mut self, dev: &mut Device, x: Var, gate_up: Linear) -> Result<Var> {
        let mark = dev.mark(self.region());
        let Linear { weight, bias } = gate_up;
        let (t, n, dtype) = (x.tensor.rows(), weight.weight.n, x.tensor.dtype);
        let y = self.alloc(dev, dtype, &[t, n / 2])?;
        let saved = if self.recording() { Some(dev.alloc(self.region(), dtype, &[t, n])?) } else { None };
        linear::fwd_swiglu(dev, x.tensor, &weight.weight, bias.map(|b| b.tensor), saved, y.tensor)?;
        let Some(saved) = saved else { return Ok(y) };
        self.record(mark, move |b| {
            let Some(dy) = b.take(y) else { return Ok(()) };
            let (dx, accumulate) = b.of(x)?;
            let (dw, dbias) = (b.param(weight.id), bias.map(|bias| b.param(bias.id)));
            b.with_scratch(dtype, &[t, n], |b, dz| {
                swiglu::bwd(b.dev, saved, dy.tensor, dz)?;
                linear::dgrad(b.dev, dz, &weight.weight, dx, accumulate)?;
                linear::wgrad(b.dev, x.tensor, dz, dw, dbias)
            })?;
            b.free(dy);
            Ok(())
        });
        Ok(y)
    }

    /// gelu(x W^T + bias), the exact one.
    pub fn linear_gelu(&mut self, dev: &mut Device, x: Var, layer: Linear) -> Result<Var> {
        let mark = dev.mark(self.region());
        let Linear { weight, bias } = layer;
        let (t, n, dtype) = (x.tensor.rows(), weight.weight.n, x.tensor.dtype);
        let y = self.alloc(dev, dtype, &[t, n])?;
        let saved = if self.recording() { Some(dev.alloc(self.region(), dtype, &[t, n])?) } else { None };
        linear::fwd_gelu(dev, x.tensor, &weight.weight, bias.map(|b| b.tensor), saved, y.tensor)?;
        let Some(saved) = saved else { return Ok(y) };
        self.record(mark, move |b| {
            let Some(dy) = b.take(y) else { return Ok(()) };
            let (dx, accumulate) = b.of(x)?;
            let (dw, dbias) = (b.param(weight.id), bias.map(|bias| b.param(bias.id)));
            b.with_scratch(dtype, &[t, n], |b, dz| {
                gelu::bwd(b.dev, saved, dy.tensor, dz)?;
                linear::dgrad(b.dev, dz, &weight.weight, dx, accumulate)?;
                linear::wgrad(b.dev, x.tensor, dz, dw, dbias)
            })?;
            b.free(dy);
            Ok(())
        });
        Ok(y)
    }

    /// qkv rows = x W^T + bias, q and k rotated, into a value allocated before, which holds them when the block runs
    /// `again`; with a paged cache k and v are stored in layer `layer`'s, too.
    #[allow(clippy::too_many_arguments)]
    pub fn linear_qkv_into(
        &mut self,
        dev: &mut Device,
        x: Var,
        qkv_proj: Linear,
        rope: Rope,
        heads: Heads,
        attend: &Attend,
        layer: usize,
        qkv: Var,
        again: Again,
    ) -> Result<()> {
        let Linear { weight, bias } = qkv_proj;
        let mark = dev.mark(self.region());
        let cache = match attend {
            Attend::Packed { .. } => None,
            Attend::Paged { caches, paging } => Some((&caches[layer], paging.slot_mapping)),
        };
        let (bias_tensor, Rope { cos, sin }) = (bias.map(|b| b.tensor), rope);
        if !again.0 {
            linear::fwd_qkv(dev, x.tensor, &weight.weight, bias_tensor, cos, sin, heads, cache, qkv.tensor)?;
        }
        self.record(mark, move |b| {
            let Some(dqkv) = b.take(qkv) else { return Ok(()) };
            rope::bwd(b.dev, dqkv.tensor, cos, sin, heads)?;
            let (dx, accumulate) = b.of(x)?;
            linear::dgrad(b.dev, dqkv.tensor, &weight.weight, dx, accumulate)?;
            let (dw, dbias) = (b.param(weight.id), bias.map(|bias| b.param(bias.id)));
            linear::wgrad(b.dev, x.tensor, dqkv.tensor, dw, dbias)?;
            b.free(dqkv);
            Ok(())
        });
        Ok(())
    }

    /// Memory for attention of `t` rows.
    pub fn attended(
        &mut self,
        dev: &mut Device,
        dtype: DType,
        t: usize,
        heads: Heads,
        attend: &Attend,
    ) -> Result<Attended> {
        let out = self.alloc(dev, dtype, &[t, heads.out_len()])?;
        let lse = match attend {
            Attend::Packed { .. } => Some(dev.alloc(self.region(), DType::F32, &[t, heads.q])?),
            Attend::Paged { .. } => None,
        };
        Ok(Attended { out, lse })
    }

    /// Attention of packed rows: among themselves, or to the keys in layer `layer` of a paged cache, theirs stored
    /// before. `into` holds it when the block runs `again`.
    #[allow(clippy::too_many_arguments)]
    pub fn attention_into(
        &mut self,
        dev: &mut Device,
        qkv: Var,
        heads: Heads,
        attend: &Attend,
        layer: usize,
        into: Attended,
        again: Again,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        let scale = 1.0 / (heads.dim as f32).sqrt();
        let Attended { out, lse } = into;
        match attend {
            Attend::Packed { cu_seqlens, max_seqlen, causal } => {
                let (cu_seqlens, max_seqlen, causal) = (*cu_seqlens, *max_seqlen, *causal);
                let lse = lse.ok_or_else(|| Error::Failed("attention without memory for its logsumexp".into()))?;
                if !again.0 {
                    attention::fwd(dev, qkv.tensor, cu_seqlens, max_seqlen, heads, causal, scale, out.tensor, lse)?;
                }
                self.record(mark, move |b| {
                    let Some(dout) = b.take(out) else { return Ok(()) };
                    let (dqkv, _) = b.of(qkv)?;
                    let (qkv, dout_t) = (qkv.tensor, dout.tensor);
                    let out = out.tensor;
                    attention::bwd(b.dev, qkv, out, dout_t, lse, cu_seqlens, max_seqlen, heads, causal, scale, dqkv)?;
                    b.free(dout);
                    Ok(())
                });
            }
            Attend::Paged { caches, paging } => {
                if self.mode() != Mode::Infer {
                    return Err(Error::Failed("training reads no paged cache".into()));
                }
                let Paging { block_tables, cu_seqlens_q, context_lens, .. } = *paging;
                let cache = &caches[layer];
                let (qkv, out) = (qkv.tensor, out.tensor);
                paged_attention::fwd(dev, qkv, cache, block_tables, cu_seqlens_q, context_lens, heads, scale, out)?;
            }
        }
        Ok(())
    }

    /// Rows of the token table for ids that lie on the device; `segments` of the same ids where backward follows.
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
        let Some(segments) = segments else { return Ok(y) };
        self.record(mark, move |b| {
            let Some(dy) = b.take(y) else { return Ok(()) };
            let dw = b.param(table.id);
            embedding::bwd(b.dev, ids, &segments, dy.tensor, dw)?;
            b.free(dy);
            Ok(())
        });
        Ok(y)
    }

    /// Patches of u8 frames, normalised, times `weight`: `[N, C]` in merge order.
    pub fn patch_embed(
        &mut self,
        dev: &mut Device,
        pixels: Tensor,
        images: Arc<[PatchImage]>,
        normalize: Normalize,
        weight: Matrix,
        num_patches: usize,
    ) -> Result<Var> {
        let mark = dev.mark(self.region());
        let y = self.alloc(dev, weight.weight.data.dtype, &[num_patches, weight.weight.n])?;
        patch_embed::fwd(dev, pixels, &images, &normalize, &weight.weight, y.tensor)?;
        self.record(mark, move |b| {
            let Some(dy) = b.take(y) else { return Ok(()) };
            let dw = b.param(weight.id);
            patch_embed::bwd(b.dev, pixels, &images, &normalize, dy.tensor, dw)?;
            b.free(dy);
            Ok(())
        });
        Ok(y)
    }

    /// `dst[i]` = `src[idx[i]]`; the indices differ from one another.
    pub fn gather(&mut self, dev: &mut Device, src: Var, idx: Tensor) -> Result<Var> {
        let dst = self.alloc(dev, src.tensor.dtype, &[idx.len(), src.tensor.cols()])?;
        self.gather_into(dev, src, idx, dst)?;
        Ok(dst)
    }

    /// [`Tape::gather`] into a value allocated before.
    pub fn gather_into(&mut self, dev: &mut Device, src: Var, idx: Tensor, dst: Var) -> Result<()> {
        let mark = dev.mark(self.region());
        rows::gather(dev, src.tensor, idx, dst.tensor)?;
        self.record(mark, move |b| {
            let Some(ddst) = b.take(dst) else { return Ok(()) };
            let (dsrc, accumulate) = b.of(src)?;
            if !accumulate {
                b.dev.fill_zero(dsrc)?;
            }
            rows::scatter_add(b.dev, ddst.tensor, idx, dsrc)?;
            b.free(ddst);
            Ok(())
        });
        Ok(())
    }

    /// `dst[idx[i]]` = `src[i]`, in place; the indices differ from one another.
    pub fn scatter(&mut self, dev: &mut Device, src: Var, idx: Tensor, dst: Var) -> Result<()> {
        let mark = dev.mark(self.region());
        rows::scatter(dev, src.tensor, idx, dst.tensor)?;
        self.record(mark, move |b| {
            let Some(ddst) = b.peek(dst) else { return Ok(()) };
            let (dsrc, _) = b.of(src)?;
            rows::gather(b.dev, ddst, idx, dsrc)?;
            // What stood there before has no part in the result.
            b.with_scratch(ddst.dtype, &src.tensor.shape, |b, zeros| {
                b.dev.fill_zero(zeros)?;
                rows::scatter(b.dev, zeros, idx, ddst)
            })
        });
        Ok(())
    }

    /// log p(`targets[i]`) of row i of `hidden` `[R, D]` under softmax(hidden W^T / temperature) over the allowed
    /// ids. Logits are not stored.
    pub fn linear_logprob(
        &mut self,
        dev: &mut Device,
        hidden: Var,
        lm_head: Matrix,
        policy: Policy,
        targets: Tensor,
        with_entropy: bool,
    ) -> Result<LogProbs> {
        let mark = dev.mark(self.region());
        let r = hidden.tensor.rows();
        let logprob = self.alloc(dev, DType::F32, &[r])?;
        let lse = dev.alloc(self.region(), DType::F32, &[r])?;
        let entropy = if with_entropy { Some(self.alloc(dev, DType::F32, &[r])?) } else { None };
        let Policy { allowed, temperature } = policy;
        let (x, weight, h) = (hidden.tensor, lm_head.weight, entropy.map(|e| e.tensor));
        linear_logprob::fwd(dev, x, &weight, allowed, temperature, targets, logprob.tensor, lse, h)?;
        self.record(mark, move |b| {
            let Some(dlogprob) = b.take(logprob) else { return Ok(()) };
            let dentropy = entropy.and_then(|e| b.take(e)).map(|d| d.tensor);
            let (dx, _) = b.of(hidden)?;
            let dw = b.param(lm_head.id);
            let dlp = dlogprob.tensor;
            linear_logprob::bwd(b.dev, x, &weight, allowed, temperature, targets, lse, h, dlp, dentropy, dx, dw)?;
            b.free(dlogprob);
            Ok(())
        });
        Ok(LogProbs { logprob, entropy, lse })
    }
}

/// The parts of one pre-norm transformer layer.
#[derive(Clone, Copy)]
pub struct Layer {
    /// Norm before attention.
    pub input_layernorm: Vector,
    /// q, k and v in one.
    pub qkv_proj: Linear,
    /// Back to the residual stream.
    pub o_proj: Linear,
    /// Norm before the MLP.
    pub post_attention_layernorm: Vector,
    /// gate and up, alternating blocks.
    pub gate_up_proj: Linear,
    /// Back to the residual stream.
    pub down_proj: Linear,
    /// Heads of attention.
    pub heads: Heads,
    /// Epsilon of both norms.
    pub eps: f32,
}

impl Layer {
    /// out = h + mlp(norm(h)) with h = x + attention(norm(x)). `index` picks the layer's cache; `keep` says what of it
    /// a training pass leaves for backward.
    #[allow(clippy::too_many_arguments)]
    pub fn forward(
        self,
        tape: &mut Tape,
        dev: &mut Device,
        keep: Keep,
        index: usize,
        rope: Rope,
        attend: &Attend,
        x: Var,
        out: Var,
    ) -> Result<()> {
        let (dtype, t) = (x.tensor.dtype, x.tensor.rows());
        if keep == Keep::Inputs {
            let attended = tape.attended(dev, dtype, t, self.heads, attend)?;
            let attend = attend.clone();
            return tape.checkpoint(dev, true, move |tape, dev, again| {
                let qkv = tape.alloc(dev, dtype, &[t, self.heads.qkv_len()])?;
                self.project(tape, dev, index, rope, &attend, x, qkv, Again(false))?;
                tape.attention_into(dev, qkv, self.heads, &attend, index, attended, again)?;
                let h = tape.linear_residual(dev, attended.out, self.o_proj, x)?;
                self.mlp(tape, dev, h, out, again)
            });
        }
        let replay = keep == Keep::AllButGateUp;
        let qkv = tape.alloc(dev, dtype, &[t, self.heads.qkv_len()])?;
        let paging = attend.clone();
        tape.checkpoint(dev, replay, move |tape, dev, again| {
            self.project(tape, dev, index, rope, &paging, x, qkv, again)
        })?;
        let attended = tape.attended(dev, dtype, t, self.heads, attend)?;
        tape.attention_into(dev, qkv, self.heads, attend, index, attended, Again(false))?;
        let h = tape.linear_residual(dev, attended.out, self.o_proj, x)?;
        tape.checkpoint(dev, replay, move |tape, dev, again| self.mlp(tape, dev, h, out, again))
    }

    /// q, k and v of norm(x).
    #[allow(clippy::too_many_arguments)]
    fn project(
        self,
        tape: &mut Tape,
        dev: &mut Device,
        index: usize,
        rope: Rope,
        attend: &Attend,
        x: Var,
        qkv: Var,
        again: Again,
    ) -> Result<()> {
        let n = tape.rms_norm(dev, x, self.input_layernorm, self.eps)?;
        tape.linear_qkv_into(dev, n, self.qkv_proj, rope, self.heads, attend, index, qkv, again)
    }

    /// out = h + mlp(norm(h)).
    fn mlp(self, tape: &mut Tape, dev: &mut Device, h: Var, out: Var, again: Again) -> Result<()> {
        let n = tape.rms_norm(dev, h, self.post_attention_layernorm, self.eps)?;
        let y = tape.linear_swiglu(dev, n, self.gate_up_proj)?;
        tape.linear_into(dev, y, self.down_proj, Some(h), out, again)
    }
}

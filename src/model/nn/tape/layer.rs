//! The transformer layer from which the decoder and the vision tower are built.

use super::layers::Attention;
use super::qkv::{HeadNorms, QkvProj, QkvRows};
use super::{LayerPolicy, Recompute, Tape, Var};
use crate::nn::weights::params::{Linear, Vector};
use omr_base::error::Result;
use omr_runtime::device::Device;
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::gelu::GeluKind;

/// The parameters of one pre-norm transformer layer.
#[derive(Clone, Copy)]
pub struct Layer {
    /// Norm before attention.
    pub input_layernorm: Norm,
    /// Projection to q, k and v, as one matrix.
    pub qkv_proj: Linear,
    /// Norms of the heads of q and k.
    pub head_norms: Option<HeadNorms>,
    /// Projection of the attention result back to the residual stream.
    pub o_proj: Linear,
    /// Number of query heads, number of key and value heads, and dimension of a head.
    pub heads: Heads,
    /// Norm before the MLP.
    pub post_attention_layernorm: Norm,
    /// MLP.
    pub mlp: Mlp,
}

/// A norm: a LayerNorm if it has a bias, otherwise an RMSNorm.
#[derive(Clone, Copy)]
pub struct Norm {
    /// Weight.
    pub weight: Vector,
    /// Bias of a LayerNorm.
    pub bias: Option<Vector>,
    /// Epsilon.
    pub eps: f32,
}

impl Norm {
    /// Computes the norm of each row of `x`.
    pub fn forward(self, tape: &mut Tape, dev: &mut Device, x: Var) -> Result<Var> {
        match self.bias {
            None => tape.rms_norm(dev, x, self.weight, self.eps),
            Some(bias) => tape.layer_norm(dev, x, [self.weight, bias], self.eps),
        }
    }
}

/// The MLP of a layer: down(gelu(up)), or down(silu(gate) * up).
#[derive(Clone, Copy)]
pub struct Mlp {
    /// Form of GELU, or `None` for SwiGLU.
    pub gelu: Option<GeluKind>,
    /// Projection to the width of the MLP. With SwiGLU, gate and up are one matrix with alternating blocks of rows.
    pub up_proj: Linear,
    /// Projection back to the residual stream.
    pub down_proj: Linear,
}

impl Layer {
    /// Computes out = h + mlp(norm(h)) with h = x + attention(norm(x)). `keep` is the layer's activation checkpointing
    /// policy.
    pub fn forward(
        self,
        tape: &mut Tape,
        dev: &mut Device,
        keep: LayerPolicy,
        attention: Attention,
        x: Var,
        out: Var,
    ) -> Result<()> {
        let (dtype, t) = (x.tensor.dtype, x.tensor.rows());
        let Layer { o_proj, head_norms, heads, .. } = self;
        if tape.recording && !tape.is_trained(x) && !{ self }.linears().iter().any(|linear| tape.trains(linear)) {
            // Nothing in the layer and nothing below it is trained.
            return tape.unrecorded(dev, |tape, dev| self.forward(tape, dev, LayerPolicy::All, attention, x, out));
        }
        if keep == LayerPolicy::Inputs {
            let attended = tape.attended(dev, dtype, t, &attention)?;
            return tape.checkpoint(dev, true, move |tape, dev, again| {
                let qkv = tape.qkv_rows(dev, dtype, t, heads, head_norms)?;
                self.project(tape, dev, &attention, x, qkv, Recompute(false))?;
                tape.attention_into(dev, qkv.rows, &attention, attended, again)?;
                let h = tape.linear(dev, attended.out, o_proj, Some(x))?;
                self.feed_forward(tape, dev, h, out, again)
            });
        }
        let replay = keep == LayerPolicy::AllButGateUp;
        let qkv = tape.qkv_rows(dev, dtype, t, heads, head_norms)?;
        let projected = attention.clone();
        tape.checkpoint(dev, replay, move |tape, dev, again| self.project(tape, dev, &projected, x, qkv, again))?;
        let attended = tape.attended(dev, dtype, t, &attention)?;
        tape.attention_into(dev, qkv.rows, &attention, attended, Recompute(false))?;
        let h = tape.linear(dev, attended.out, o_proj, Some(x))?;
        tape.checkpoint(dev, replay, move |tape, dev, again| self.feed_forward(tape, dev, h, out, again))
    }

    /// Returns the linear layers.
    pub(crate) fn linears(&mut self) -> Vec<&mut Linear> {
        vec![&mut self.qkv_proj, &mut self.o_proj, &mut self.mlp.up_proj, &mut self.mlp.down_proj]
    }

    /// Computes q, k and v of norm(x).
    fn project(
        self,
        tape: &mut Tape,
        dev: &mut Device,
        attention: &Attention,
        x: Var,
        qkv: QkvRows,
        again: Recompute,
    ) -> Result<()> {
        let n = self.input_layernorm.forward(tape, dev, x)?;
        let proj = QkvProj { linear: self.qkv_proj, norms: self.head_norms };
        tape.linear_qkv_into(dev, n, proj, attention, qkv, again)
    }

    /// Computes out = h + mlp(norm(h)).
    fn feed_forward(self, tape: &mut Tape, dev: &mut Device, h: Var, out: Var, again: Recompute) -> Result<()> {
        let n = self.post_attention_layernorm.forward(tape, dev, h)?;
        let y = tape.linear_activated(dev, n, self.mlp.up_proj, self.mlp.gelu)?;
        tape.linear_into(dev, y, self.mlp.down_proj, Some(h), out, again)
    }
}

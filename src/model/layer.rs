//! The transformer layer from which the decoder and the vision tower are built.

use crate::device::Device;
use crate::error::Result;
use crate::model::layers::Attention;
use crate::model::params::{Linear, Vector};
use crate::model::tape::{LayerPolicy, Recompute, Tape, Var};

/// The parameters of one pre-norm transformer layer.
#[derive(Clone, Copy)]
pub struct Layer {
    /// Norm before attention.
    pub input_layernorm: Vector,
    /// Projection to q, k and v, as one matrix.
    pub qkv_proj: Linear,
    /// Projection of the attention result back to the residual stream.
    pub o_proj: Linear,
    /// Norm before the MLP.
    pub post_attention_layernorm: Vector,
    /// Projection to gate and up, as one matrix with alternating blocks of rows.
    pub gate_up_proj: Linear,
    /// Projection of the MLP back to the residual stream.
    pub down_proj: Linear,
    /// Epsilon of both norms.
    pub eps: f32,
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
        if tape.recording() && !tape.is_trained(x) && !{ self }.linears().iter().any(|linear| tape.trains(linear)) {
            // Nothing in the layer and nothing below it is trained.
            return tape.unrecorded(dev, |tape, dev| self.forward(tape, dev, LayerPolicy::All, attention, x, out));
        }
        if keep == LayerPolicy::Inputs {
            let attended = tape.attended(dev, dtype, t, &attention)?;
            return tape.checkpoint(dev, true, move |tape, dev, again| {
                let qkv = tape.alloc(dev, dtype, &[t, attention.heads.qkv_len()])?;
                self.project(tape, dev, &attention, x, qkv, Recompute(false))?;
                tape.attention_into(dev, qkv, &attention, attended, again)?;
                let h = tape.linear_residual(dev, attended.out, self.o_proj, x)?;
                self.mlp(tape, dev, h, out, again)
            });
        }
        let replay = keep == LayerPolicy::AllButGateUp;
        let qkv = tape.alloc(dev, dtype, &[t, attention.heads.qkv_len()])?;
        let projected = attention.clone();
        tape.checkpoint(dev, replay, move |tape, dev, again| self.project(tape, dev, &projected, x, qkv, again))?;
        let attended = tape.attended(dev, dtype, t, &attention)?;
        tape.attention_into(dev, qkv, &attention, attended, Recompute(false))?;
        let h = tape.linear_residual(dev, attended.out, self.o_proj, x)?;
        tape.checkpoint(dev, replay, move |tape, dev, again| self.mlp(tape, dev, h, out, again))
    }

    /// Returns the linear layers.
    pub(super) fn linears(&mut self) -> [&mut Linear; 4] {
        [&mut self.qkv_proj, &mut self.o_proj, &mut self.gate_up_proj, &mut self.down_proj]
    }

    /// Computes q, k and v of norm(x).
    fn project(
        self,
        tape: &mut Tape,
        dev: &mut Device,
        attention: &Attention,
        x: Var,
        qkv: Var,
        again: Recompute,
    ) -> Result<()> {
        let n = tape.rms_norm(dev, x, self.input_layernorm, self.eps)?;
        tape.linear_qkv_into(dev, n, self.qkv_proj, attention, qkv, again)
    }

    /// Computes out = h + mlp(norm(h)).
    fn mlp(self, tape: &mut Tape, dev: &mut Device, h: Var, out: Var, again: Recompute) -> Result<()> {
        let n = tape.rms_norm(dev, h, self.post_attention_layernorm, self.eps)?;
        let y = tape.linear_swiglu(dev, n, self.gate_up_proj)?;
        tape.linear_into(dev, y, self.down_proj, Some(h), out, again)
    }
}

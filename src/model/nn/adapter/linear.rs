//! Linear layers with and without adapters: the input of their product, and their gradients. See [`omr_runtime::ops::lora`].

use std::ops::Range;

use crate::nn::tape::{Backward, Tape, Var};
use crate::nn::weights::linear_layer::{Adapted, Adapter, Linear, Matrix};
use crate::nn::weights::params::Param;
use omr_base::error::Result;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::gradient::{Gradient, Holds};
use omr_runtime::ops::input::{Input, Pair};
use omr_runtime::ops::{linear, lora, rows};
use omr_runtime::tensor::{DType, Tensor};

impl Adapter {
    /// Computes t of x `[T, K]` in memory of `region`. Rows to which the adapter does not apply have a t of zeros.
    fn t(&self, dev: &mut Device, region: Region, x: Tensor, adapted: Adapted) -> Result<Tensor> {
        let n = self.a.weight.n;
        let t = dev.alloc(region, x.dtype, &[x.rows(), n])?;
        dev.scope(Region::Workspace, |dev| {
            let all = match adapted {
                Adapted::All | Adapted::None => t,
                Adapted::Rows(_) => dev.zeros(Region::Workspace, x.dtype, &[x.rows() + 1, n])?,
            };
            lora::fwd(dev, x, &self.a.weight, self.tickets, all.slice(0, x.rows()))?;
            if let Adapted::Rows(source) = adapted {
                rows::gather(dev, all, source, t)?;
            }
            Ok(t)
        })
    }

    /// Computes S from the masters of B. This rank owns the elements `own` of B, and `lo` has the low halves of their
    /// masters in bf16; `gather` exchanges the ranges of a tensor like B between the ranks.
    pub fn derive(
        &self,
        dev: &mut Device,
        b: &Param,
        own: Range<usize>,
        lo: Option<Tensor>,
        gather: impl FnOnce(&mut Device, Tensor) -> Result<()>,
    ) -> Result<()> {
        dev.scope(Region::Workspace, |dev| {
            let scaled = dev.alloc(Region::Workspace, b.tensor.dtype, &[b.tensor.len()])?;
            if !own.is_empty() {
                let [from, to] = [b.tensor, scaled].map(|t| t.slice(own.start, own.end));
                lora::scaled(dev, from, lo, self.scale, to)?;
            }
            gather(dev, scaled)?;
            lora::spread(dev, scaled, self.rows, &self.s)
        })
    }
}

impl Tape {
    /// Calls `product` with the input of `layer`: x, and the second pair if the layer has an adapter that applies to rows.
    /// Returns t, if it is kept for backward.
    pub(crate) fn with_input(
        &self,
        dev: &mut Device,
        x: Tensor,
        layer: Linear,
        product: impl FnOnce(&mut Device, Input) -> Result<()>,
    ) -> Result<Option<Tensor>> {
        let adapter = layer.adapter.filter(|_| self.adapted != Adapted::None);
        let Some(adapter) = adapter else { return product(dev, x.into()).map(|()| None) };
        dev.scope(Region::Workspace, |dev| {
            let region = if self.recording { self.region() } else { Region::Workspace };
            let t = adapter.t(dev, region, x, self.adapted)?;
            product(dev, Input { x, pair: Some(Pair { left: t, right: adapter.s }) })?;
            Ok(self.recording.then_some(t))
        })
    }
}

/// Computes the gradients of a linear layer from the gradient `dy` of its result. `dx` is the memory for the input's
/// gradient, if it is needed, and true if that gradient is added to it. `t` is what forward kept for the adapter. Adds the
/// gradients of weight, bias and adapter to the parameters' gradients.
pub(crate) fn linear_bwd(
    b: &mut Backward<'_>,
    x: Var,
    dy: Tensor,
    layer: Linear,
    t: Option<Tensor>,
    dx: Option<(Tensor, bool)>,
) -> Result<()> {
    let Linear { weight, bias, adapter } = layer;
    if let Some(adapter) = adapter {
        return backward(b, x, dy, weight, adapter, t, dx);
    }
    if let Some((dx, accumulate)) = dx {
        linear::dgrad(b.dev, dy, &weight.weight, dx, accumulate)?;
    }
    // The weight and the bias of a layer are in the same part of the model, so either both are frozen or neither is.
    if let Some(dw) = b.gradient(weight.id)? {
        let dbias = bias.map_or(Ok(None), |bias| b.param(bias.id))?;
        linear::wgrad(b.dev, x.tensor, dy, dw, dbias)?;
    }
    Ok(())
}

/// Computes the gradients of a layer with an adapter from the gradient `dy` of its result: dt = dy S; dx = dy W + dt A
/// as one product, if `dx` is given (see [`linear_bwd`]); the gradients of A and B. A recomputed block whose product was
/// skipped has no `t`, which is then computed again.
fn backward(
    b: &mut Backward<'_>,
    x: Var,
    dy: Tensor,
    weight: Matrix,
    adapter: Adapter,
    t: Option<Tensor>,
    dx: Option<(Tensor, bool)>,
) -> Result<()> {
    let Adapter { a, b: matrix_b, s, rows, scale, .. } = adapter;
    let mark = b.dev.mark(Region::Workspace);
    let dt = b.dev.alloc(Region::Workspace, dy.dtype, &[dy.rows(), s.k])?;
    linear::dgrad(b.dev, dy, &s, dt, false)?;
    if let Some((dx, accumulate)) = dx {
        let input = Input { x: dy, pair: Some(Pair { left: dt, right: a.weight }) };
        linear::dgrad(b.dev, input, &weight.weight, dx, accumulate)?;
    }
    if let Some(da) = b.gradient(a.id)? {
        linear::wgrad(b.dev, x.tensor, dt, da, None)?;
    }
    if let Some(db) = b.param(matrix_b.id)? {
        let t = t.map_or_else(|| adapter.t(b.dev, Region::Workspace, x.tensor, Adapted::All), Ok)?;
        let ds = b.dev.alloc(Region::Workspace, DType::F32, &[s.data.len()])?;
        linear::wgrad(b.dev, t, dy, Gradient { tensor: ds, holds: Holds::Nothing }, None)?;
        lora::collect(b.dev, ds, rows, &s, scale, db)?;
    }
    b.dev.release(mark);
    Ok(())
}

//! The products of linear layers with adapters. See [`crate::ops::lora`].

use std::ops::Range;

use crate::device::{Device, Region};
use crate::error::Result;
use crate::model::linear_layer::{Adapted, Adapter, Linear, Matrix};
use crate::model::params::Param;
use crate::model::tape::{Backward, Tape, Var};
use crate::model::work::{added, moved, note_dgrad, note_linear, note_wgrad};
use crate::ops::linear;
use crate::ops::lora::{self, Input, Pair};
use crate::ops::rows;
use crate::tensor::{DType, Tensor};

impl Adapter {
    /// Calls `product` with x `[T, K]` and the second pair, whose t is computed in scratch memory. Rows to which the
    /// adapter does not apply have a t of zeros.
    fn with_pair<R>(
        &self,
        dev: &mut Device,
        x: Tensor,
        adapted: Adapted,
        product: impl FnOnce(&mut Device, Input) -> Result<R>,
    ) -> Result<R> {
        let mark = dev.mark(Region::Workspace);
        let dims = [x.rows(), self.s.k];
        let t = dev.alloc(Region::Workspace, x.dtype, &dims)?;
        match adapted {
            Adapted::Rows(source) => {
                let with_zeros = dev.zeros(Region::Workspace, x.dtype, &[dims[0] + 1, dims[1]])?;
                lora::fwd(dev, x, &self.a.weight, with_zeros.slice(0, dims[0]))?;
                rows::gather(dev, with_zeros, source, t)?;
            }
            Adapted::All | Adapted::None => lora::fwd(dev, x, &self.a.weight, t)?,
        }
        note_linear(dev, x, self.a, moved(&[t]));
        let done = product(dev, Input { x, pair: Some(Pair { left: t, right: self.s }) });
        dev.release(mark);
        done
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
        let mark = dev.mark(Region::Workspace);
        let scaled = dev.alloc(Region::Workspace, b.tensor.dtype, &[b.tensor.len()])?;
        if !own.is_empty() {
            let [from, to] = [b.tensor, scaled].map(|t| t.slice(own.start, own.end));
            lora::scaled(dev, from, lo, self.scale, to)?;
        }
        gather(dev, scaled)?;
        lora::spread(dev, scaled, self.rows, &self.s)?;
        dev.release(mark);
        dev.note_work("lora::derive", 0.0, moved(&[b.tensor, scaled, scaled]));
        Ok(())
    }
}

impl Tape {
    /// Calls `product` with the input of `layer`: x, and the second pair if the layer has an adapter that applies to rows.
    pub(super) fn with_input<R>(
        &self,
        dev: &mut Device,
        x: Var,
        layer: Linear,
        product: impl FnOnce(&mut Device, Input) -> Result<R>,
    ) -> Result<R> {
        match layer.adapter.filter(|_| self.adapted() != Adapted::None) {
            Some(adapter) => {
                let rank = adapter.s.k;
                let done = adapter.with_pair(dev, x.tensor, self.adapted(), product);
                dev.note_product("linear", [x.tensor.rows(), adapter.s.n, rank], moved(&[adapter.s.data]));
                done
            }
            None => product(dev, x.tensor.into()),
        }
    }
}

/// Computes the gradients of a layer with an adapter from the gradient `dy` of its result: dt = dy S; dx = dy W + dt A
/// as one product, if `dx` is given (see [`super::layers`]); the gradients of A and B. t is computed again.
pub(super) fn backward(
    b: &mut Backward<'_>,
    x: Var,
    dy: Tensor,
    weight: Matrix,
    adapter: Adapter,
    dx: Option<(Tensor, bool)>,
) -> Result<()> {
    let Adapter { a, b: matrix_b, s, rows, scale } = adapter;
    let matrix_s = Matrix { id: matrix_b.id, weight: s };
    let mark = b.dev.mark(Region::Workspace);
    let dt = b.dev.alloc(Region::Workspace, dy.dtype, &[dy.rows(), s.k])?;
    linear::dgrad(b.dev, dy, &s, dt, false)?;
    note_dgrad(b.dev, dt, matrix_s, 0.0);
    if let Some((dx, accumulate)) = dx {
        let input = Input { x: dy, pair: Some(Pair { left: dt, right: a.weight }) };
        linear::dgrad(b.dev, input, &weight.weight, dx, accumulate)?;
        note_dgrad(b.dev, x.tensor, weight, added(dx, accumulate));
        note_dgrad(b.dev, x.tensor, a, 0.0);
    }
    if let Some(da) = b.param(a.id)? {
        linear::wgrad(b.dev, x.tensor, dt, da, None)?;
        note_wgrad(b.dev, x.tensor, a, da);
    }
    if let Some(db) = b.param(matrix_b.id)? {
        let ds = b.dev.zeros(Region::Workspace, DType::F32, &[s.data.len()])?;
        adapter.with_pair(b.dev, x.tensor, Adapted::All, |dev, input| {
            let Some(Pair { left: t, .. }) = input.pair else { return Ok(()) };
            linear::wgrad(dev, t, dy, ds, None)?;
            note_wgrad(dev, t, matrix_s, ds);
            Ok(())
        })?;
        lora::collect(b.dev, ds, rows, &s, scale, db)?;
    }
    b.dev.release(mark);
    Ok(())
}

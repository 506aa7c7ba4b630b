//! Rows of a value, selected by index.

use crate::device::Device;
use crate::error::Result;
use crate::model::tape::{Tape, Var};
use crate::ops::rows::{self, Segments};
use crate::tensor::Tensor;

impl Tape {
    /// Computes `dst[i]` = `src[idx[i]]`. The indices must be distinct.
    pub fn gather(&mut self, dev: &mut Device, src: Var, idx: Tensor) -> Result<Var> {
        let dst = self.alloc(dev, src.tensor.dtype, &[idx.len(), src.tensor.cols()])?;
        self.gather_rows(dev, src, idx, None, dst)?;
        Ok(dst)
    }

    /// Does the same as [`Tape::gather`] for indices that may repeat. `segments` groups the same indices for backward.
    pub fn gather_repeated(&mut self, dev: &mut Device, src: Var, idx: Tensor, segments: Segments) -> Result<Var> {
        let dst = self.alloc(dev, src.tensor.dtype, &[idx.len(), src.tensor.cols()])?;
        self.gather_rows(dev, src, idx, Some(segments), dst)?;
        Ok(dst)
    }

    /// Does the same as [`Tape::gather`] with the result in a value allocated before.
    pub fn gather_into(&mut self, dev: &mut Device, src: Var, idx: Tensor, dst: Var) -> Result<()> {
        self.gather_rows(dev, src, idx, None, dst)
    }

    fn gather_rows(
        &mut self,
        dev: &mut Device,
        src: Var,
        idx: Tensor,
        segments: Option<Segments>,
        dst: Var,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        rows::gather(dev, src.tensor, idx, dst.tensor)?;
        if !self.set_trained(dst, self.is_trained(src)) {
            return Ok(());
        }
        self.record(mark, move |b| {
            let Some(ddst) = b.take(dst) else { return Ok(()) };
            let (dsrc, accumulate) = b.of(src)?;
            if !accumulate {
                b.dev.fill_zero(dsrc)?;
            }
            rows::scatter_add(b.dev, ddst.tensor, idx, segments.as_ref(), dsrc)?;
            b.free(ddst);
            Ok(())
        });
        Ok(())
    }
}

//! Rows of a value, selected by index.

use super::{Tape, Var};
use omr_base::error::Result;
use omr_runtime::device::Device;
use omr_runtime::ops::rows::{self, Segments};
use omr_runtime::tensor::Tensor;

impl Tape {
    /// Computes `dst[i]` = `src[idx[i]]`. The indices must be distinct, unless `segments` groups the same ones for backward.
    pub fn gather(&mut self, dev: &mut Device, src: Var, idx: Tensor, segments: Option<Segments>) -> Result<Var> {
        let dst = self.alloc(dev, src.tensor.dtype, &[idx.len(), src.tensor.cols()])?;
        self.gather_into(dev, src, idx, segments, dst)?;
        Ok(dst)
    }

    /// Does the same as [`Tape::gather`] with the result in a value allocated before.
    pub fn gather_into(
        &mut self,
        dev: &mut Device,
        src: Var,
        idx: Tensor,
        segments: Option<Segments>,
        dst: Var,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        rows::gather(dev, src.tensor, idx, dst.tensor)?;
        self.record_of(mark, dst, self.is_trained(src), move |b, ddst| {
            let (dsrc, accumulate) = b.of(src)?;
            if !accumulate {
                b.dev.fill_zero(dsrc)?;
            }
            rows::scatter_add(b.dev, ddst, idx, segments.as_ref(), dsrc)
        });
        Ok(())
    }
}

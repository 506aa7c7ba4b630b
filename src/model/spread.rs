//! Copies the rows of an image into the sequence that contains the image.

use std::ops::Range;

use crate::device::Device;
use crate::error::Result;
use crate::model::tape::{Tape, Var};
use crate::ops::rows;
use crate::tensor::Tensor;

/// Rows of a source value, and the rows of the destination that they are copied to.
#[derive(Clone, Debug)]
pub struct ImageScatter {
    /// The source rows.
    pub rows: Range<usize>,
    /// Destination row of each source row, u32.
    pub places: Tensor,
}

impl Tape {
    /// Copies rows of `src` over the rows of `dst`. Each row of `dst` is overwritten at most once. The gradients of
    /// `src` are computed only if `trains` is true: if the parameters behind `src` are trained.
    pub fn spread(
        &mut self,
        dev: &mut Device,
        src: Var,
        shown: Vec<ImageScatter>,
        dst: Var,
        trains: bool,
    ) -> Result<()> {
        let mark = dev.mark(self.region());
        for s in &shown {
            rows::scatter(dev, src.tensor.slice(s.rows.start, s.rows.end), s.places, dst.tensor)?;
        }
        if !self.set_trained(dst, self.is_trained(dst) || trains) {
            return Ok(());
        }
        self.record(mark, move |b| {
            let Some(ddst) = b.peek(dst) else { return Ok(()) };
            for s in shown.iter().filter(|_| trains) {
                let dsrc = b.of(src)?.0.slice(s.rows.start, s.rows.end);
                rows::gather(b.dev, ddst, s.places, dsrc)?;
            }
            // The overwritten contents of these rows have no effect on the result, so their gradient is zero.
            b.with_scratch(ddst.dtype, &[1, ddst.cols()], |b, zeros| {
                b.dev.fill_zero(zeros)?;
                shown.iter().try_for_each(|s| rows::scatter(b.dev, zeros, s.places, ddst))
            })
        });
        Ok(())
    }
}

//! Rows that several others show: a picture's, in every sequence that has it.

use std::ops::Range;

use crate::device::Device;
use crate::error::Result;
use crate::model::tape::{Tape, Var};
use crate::model::work::moved;
use crate::ops::rows;
use crate::tensor::Tensor;

/// Rows of a value, and which rows of another show them.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The rows.
    pub rows: Range<usize>,
    /// Where they are shown: all once, then all once more, u32 of a multiple of their number.
    pub places: Tensor,
    /// Sums f32 of their gradients at places in earlier passes, to be gone on from.
    pub before: Option<Tensor>,
    /// Where the sums go when later passes show them, too. None: rounded, they are the rows' gradient.
    pub after: Option<Tensor>,
}

impl Shown {
    /// Bytes of the places' rows.
    fn bytes(&self, src: Var) -> f64 {
        (self.places.len() * src.tensor.cols() * src.tensor.dtype.size()) as f64
    }
}

impl Tape {
    /// Writes rows of `src` over all the rows of `dst` that show them, each of which is one row's.
    pub fn spread(&mut self, dev: &mut Device, src: Var, shown: Vec<Shown>, dst: Var) -> Result<()> {
        let mark = dev.mark(self.region());
        for s in &shown {
            rows::scatter(dev, src.tensor.slice(s.rows.start, s.rows.end), s.places, dst.tensor)?;
            dev.note_work("scatter_rows", 0.0, 2.0 * s.bytes(src));
        }
        self.record(mark, move |b| {
            let Some(ddst) = b.peek(dst) else { return Ok(()) };
            for s in &shown {
                let sum = match s.after {
                    Some(sums) => sums,
                    None => b.of(src)?.0.slice(s.rows.start, s.rows.end),
                };
                rows::sum(b.dev, ddst, s.places, s.before, sum)?;
                let kept = s.before.map_or(0.0, |before| moved(&[before]));
                b.dev.note_work("scatter_rows::bwd", 0.0, 2.0 * s.bytes(src) + kept + moved(&[sum]));
            }
            // What stood there before has no part in the result.
            b.with_scratch(ddst.dtype, &[1, ddst.cols()], |b, zeros| {
                b.dev.fill_zero(zeros)?;
                shown.iter().try_for_each(|s| rows::scatter(b.dev, zeros, s.places, ddst))
            })
        });
        Ok(())
    }
}

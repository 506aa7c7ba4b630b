//! Copies the rows of images into the sequences that contain the images, and adds rows of DeepStack to them.

use super::{Tape, Var};
use omr_base::error::Result;
use omr_runtime::device::Device;
use omr_runtime::ops::rows;
use omr_runtime::tensor::Tensor;

/// Rows of the vision tower that the decoder adds to the residual stream after its first layers.
#[derive(Clone, Debug)]
pub struct DeepStack {
    /// Rows of each layer, `[n, D]`.
    pub levels: Vec<Var>,
    /// Row of the residual stream of each of them, u32 `[n]`.
    pub places: Tensor,
    /// True if the parameters behind the rows are trained.
    pub trains: bool,
}

impl DeepStack {
    /// Adds the rows of layer `layer` to its result `x`.
    pub fn add(&self, tape: &mut Tape, dev: &mut Device, layer: usize, x: Var) -> Result<()> {
        match self.levels.get(layer) {
            Some(rows) => tape.add_rows(dev, *rows, self.places, x, self.trains),
            None => Ok(()),
        }
    }
}

impl Tape {
    /// Divides `rows` `[n, levels * width]` of the vision tower into a value of `width` columns for each level.
    pub fn split_levels(&mut self, dev: &mut Device, rows: Var, width: usize) -> Result<Vec<Var>> {
        let (n, levels) = (rows.tensor.rows(), rows.tensor.cols() / width);
        if levels == 1 {
            return Ok(vec![rows]);
        }
        let all = rows.reshape(&[n * levels, width]);
        let of_level = |level| self.level_rows(dev, n, level, levels).and_then(|idx| self.gather(dev, all, idx, None));
        (0..levels).map(of_level).collect()
    }

    /// Writes `parts`, each `[n, D]`, next to each other to the columns of `out` `[n, parts * D]`.
    pub fn join_levels(&mut self, dev: &mut Device, parts: Vec<Var>, out: Var) -> Result<()> {
        let mark = dev.mark(self.region());
        let (n, levels) = (out.tensor.rows(), parts.len());
        let all = out.reshape(&[n * levels, out.tensor.cols() / levels]);
        let idx: Vec<Tensor> =
            (0..levels).map(|level| self.level_rows(dev, n, level, levels)).collect::<Result<_>>()?;
        for (part, idx) in parts.iter().zip(&idx) {
            rows::scatter(dev, part.tensor, *idx, all.tensor)?;
        }
        let is_trained = parts.iter().any(|part| self.is_trained(*part));
        self.record_of(mark, all, is_trained, move |b, dall| {
            for (part, idx) in parts.iter().zip(&idx) {
                if let Some((dpart, _)) = b.of_trained(*part)? {
                    rows::gather(b.dev, dall, *idx, dpart)?;
                }
            }
            Ok(())
        });
        Ok(())
    }

    fn level_rows(&self, dev: &mut Device, n: usize, level: usize, levels: usize) -> Result<Tensor> {
        let idx: Vec<u32> = (0..n).map(|row| (row * levels + level) as u32).collect();
        self.upload(dev, &idx, &[n])
    }

    /// Adds `src` `[n, D]` to the rows `places` of `dst`. The gradients of `src` are computed only if `trains` is true.
    fn add_rows(&mut self, dev: &mut Device, src: Var, places: Tensor, dst: Var, trains: bool) -> Result<()> {
        let mark = dev.mark(self.region());
        rows::scatter_add(dev, src.tensor, places, None, dst.tensor)?;
        if !self.set_trained(dst, self.is_trained(dst) || trains) || !trains {
            return Ok(());
        }
        self.record(mark, move |b| {
            let Some(ddst) = b.peek(dst) else { return Ok(()) };
            let (dsrc, _) = b.of(src)?;
            rows::gather(b.dev, ddst, places, dsrc)
        });
        Ok(())
    }

    /// Copies the rows of `src` over the rows `places` of `dst`, which are distinct. The gradients of `src` are computed
    /// only if `trains` is true: if the parameters behind `src` are trained.
    pub fn spread(&mut self, dev: &mut Device, src: Var, places: Tensor, dst: Var, trains: bool) -> Result<()> {
        let mark = dev.mark(self.region());
        rows::scatter(dev, src.tensor, places, dst.tensor)?;
        if !self.set_trained(dst, self.is_trained(dst) || trains) {
            return Ok(());
        }
        self.record(mark, move |b| {
            let Some(ddst) = b.peek(dst) else { return Ok(()) };
            if trains {
                let (dsrc, _) = b.of(src)?;
                rows::gather(b.dev, ddst, places, dsrc)?;
            }
            // The overwritten contents of these rows have no effect on the result, so their gradient is zero.
            b.with_scratch(ddst.dtype, &[1, ddst.cols()], |b, zeros| {
                b.dev.fill_zero(zeros)?;
                rows::scatter(b.dev, zeros, places, ddst)
            })
        });
        Ok(())
    }
}

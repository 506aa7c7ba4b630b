//! The model's parameters: which Hugging Face tensors each parameter consists of, and the position of every element in
//! memory.
//!
//! A parameter is one tensor of this program. The layout is as follows:
//!
//! - A matrix `[n, k]` is stored in column panels.
//! - q, k and v form one matrix.
//! - gate and up form one matrix, whose rows alternate in blocks of [`PANEL`].
//! - Padding rows and columns are zero.
//!
//! Loading, saving, gradients and optimizer state all use the same [`Param`], because they share its element order.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use omr_base::error::Result;
use omr_runtime::device::{Device, Parts};
use omr_runtime::ops::matmul::{Order, PANEL, Weight};
use omr_runtime::ops::quantized::{Encoded, Quantized, scale_dtype};
use omr_runtime::tensor::{DType, Elem, Tensor};

pub use super::linear_layer::{Linear, Matrix, Vector};
pub use super::part::{Bucket, Init, Part};

/// A Hugging Face tensor that is part of a parameter.
#[derive(Clone, PartialEq, Debug)]
pub struct Piece {
    /// Released name of the tensor.
    pub name: String,
    /// Shape of the tensor in the file.
    pub shape: Vec<usize>,
    rows: RowBlocks,
}

/// The rows of the parameter that a piece's rows correspond to.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RowBlocks {
    /// First row of the first block.
    pub from: usize,
    /// Number of rows of a block.
    pub len: usize,
    /// Number of rows from the beginning of a block to that of the next one.
    pub stride: usize,
}

impl Piece {
    /// Creates a piece whose rows are consecutive, starting with row `from` of the parameter.
    pub fn rows(name: impl Into<String>, shape: &[usize], from: usize) -> Piece {
        Piece::blocks(name, shape, RowBlocks { from, len: usize::MAX, stride: usize::MAX })
    }

    /// Creates a piece whose rows are blocks of rows of the parameter.
    pub fn blocks(name: impl Into<String>, shape: &[usize], rows: RowBlocks) -> Piece {
        Piece { name: name.into(), shape: shape.to_vec(), rows }
    }

    /// Returns the number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the number of elements of one row, which is 1 for a vector.
    pub fn row_len(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Creates a piece with the same rows of another parameter, which has `columns` columns.
    pub(crate) fn beside(&self, name: String, columns: usize) -> Piece {
        Piece { name, shape: vec![self.shape[0], columns], rows: self.rows }
    }

    /// Returns the parameter's row for row `r` of this piece.
    fn row(&self, r: usize) -> usize {
        let RowBlocks { from, len, stride } = self.rows;
        from + r / len * stride + r % len
    }

    /// Returns this piece's row for row `n` of the parameter, if there is one.
    pub(crate) fn row_at(&self, n: usize) -> Option<usize> {
        let RowBlocks { from, len, stride } = self.rows;
        let n = n.checked_sub(from)?;
        let (block, at) = (n / stride, n % stride);
        let r = block * len + at;
        (at < len && r < self.shape[0]).then_some(r)
    }
}

/// One parameter.
#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    /// The Hugging Face tensors of which the parameter consists.
    pub pieces: Vec<Piece>,
    /// Weights, flat, in the compute type, or codes.
    pub tensor: Tensor,
    /// Format and scales of a quantised matrix, whose codes are `tensor`.
    pub quantized: Option<Quantized>,
    /// Part of the model to which the parameter belongs.
    pub part: Part,
    /// Values of the parameter in a new model.
    pub init: Init,
    /// True if the parameter belongs to an adapter.
    pub is_adapter: bool,
    /// True for matrices and the token table, false for biases and norms.
    pub is_matrix: bool,
    /// False if the parameter is frozen: it has no gradient and no optimizer state.
    pub trains: bool,
    pub(crate) order: Order,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

impl Param {
    /// Returns the parameter's name for messages: the name of its first piece.
    pub fn name(&self) -> &str {
        &self.pieces[0].name
    }

    /// Returns the operand of the matrix ops.
    pub fn weight(&self) -> Weight {
        Weight { quantized: self.quantized, ..Weight::new(self.tensor, self.order, self.n, self.k) }
    }

    /// Returns the index of element (n, k) in the flat order.
    fn index(&self, n: usize, k: usize) -> usize {
        if self.is_matrix { self.order.index(self.tensor.dtype, self.k, n, k) } else { n }
    }

    /// Fills `tensor` (the weights, or any tensor with the same element order) row by row: `row(piece, r, out)` writes
    /// row `r` of piece number `piece`. Padding is set to zero.
    pub fn fill<T: Elem>(
        &self,
        dev: &mut Device,
        tensor: Tensor,
        row: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        assert_eq!(tensor.len(), self.tensor.len(), "{} and what fills it differ in length", self.name());
        self.fill_from::<T>(dev, tensor, 0, row)
    }

    /// Does the same as [`Param::fill`] for a `tensor` of f32 or bf16.
    pub fn fill_in_dtype(
        &self,
        dev: &mut Device,
        tensor: Tensor,
        row: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        match tensor.dtype {
            DType::Bf16 => self.fill::<bf16>(dev, tensor, row),
            _ => self.fill::<f32>(dev, tensor, row),
        }
    }

    /// Does the same as [`Param::fill`] for a range of the elements that starts at element `first`. `row` is called
    /// only for rows in the range and for some rows next to its two ends.
    pub fn fill_from<T: Elem>(
        &self,
        dev: &mut Device,
        tensor: Tensor,
        first: usize,
        row: impl Fn(usize, usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        self.fill_rows::<T>(dev, tensor, first, |piece, rows, out| {
            let mut values = vec![0.0; self.pieces[piece].row_len()];
            for (r, out) in rows.zip(out.chunks_exact_mut(values.len())) {
                row(piece, r, &mut values);
                out.iter_mut().zip(&values).for_each(|(out, value)| *out = T::from_f32(*value));
            }
        })
    }

    /// Does the same as [`Param::fill_from`] with consecutive rows: `read(piece, rows, out)` writes the rows `rows` of
    /// piece number `piece`.
    pub fn fill_rows<T: Elem>(
        &self,
        dev: &mut Device,
        tensor: Tensor,
        first: usize,
        read: impl Fn(usize, Range<usize>, &mut [T]) + Sync,
    ) -> Result<()> {
        let (rows, len) = if self.is_matrix { self.order.piece(self.tensor.dtype, self.k) } else { (PANEL, PANEL) };
        let part = |p: usize, from: usize, out: &mut [T]| {
            out.fill(T::from_f32(0.0));
            let (mut n, end) = (p * rows, ((p + 1) * rows).min(self.n));
            let mut values = Vec::new();
            while n < end {
                let found = self.pieces.iter().enumerate().find_map(|(i, piece)| Some((i, piece.row_at(n)?)));
                let Some((piece, r)) = found else {
                    n += 1;
                    continue;
                };
                let row_len = self.pieces[piece].row_len();
                let count = (n..end).take_while(|&m| self.pieces[piece].row_at(m) == Some(r + m - n)).count();
                values.resize(count * row_len, T::from_f32(0.0));
                read(piece, r..r + count, &mut values);
                values.chunks_exact(row_len).enumerate().for_each(|(i, row)| self.put_row(n + i, row, from, out));
                n += count;
            }
        };
        // The stored parts that the range overlaps, and the position in the range at which each part starts.
        let parts = first / len..(first + tensor.len()).div_ceil(len);
        let mut starts: Vec<usize> = parts.clone().map(|p| (p * len).max(first) - first).collect();
        starts.push(tensor.len());
        let fill = |parts_of: &Parts<'_, T>, i: usize, starts: &[usize]| {
            part(parts.start + i, first + starts[i], parts_of.take(i));
        };
        if let Some(cpu) = dev.on_cpu() {
            let out = Parts::at(cpu.memory.view_mut(tensor.span()).of::<T>(), starts.clone());
            cpu.pool.run(out.count(), |i| fill(&out, i, &starts));
            return Ok(());
        }
        if dev.counts_only() {
            return Ok(());
        }
        let mut host = vec![T::from_f32(0.0); tensor.len()];
        let out = Parts::at(&mut host, starts.clone());
        (0..out.count()).into_par_iter().for_each(|i| fill(&out, i, &starts));
        dev.write(tensor, &host)
    }

    /// Fills the codes and scales of a quantised matrix row by row: `row(piece, r, row)` writes row `r` of piece number
    /// `piece`. Padding is set to zero. Returns the error of a row.
    pub fn fill_codes(
        &self,
        dev: &mut Device,
        row: impl Fn(usize, usize, &mut Encoded) -> Result<()> + Sync,
    ) -> Result<()> {
        let Some(Quantized { format, scales, .. }) = self.quantized else { return Ok(()) };
        let (layout, units) = self.order.quantized(format, self.n, self.k);
        let scale_bytes = layout.scales() * scale_dtype(format).size();
        let unit = |u: usize, codes: &mut [u8], scales: &mut [u8]| -> Result<()> {
            layout.clear(codes);
            for n in u * layout.rows..((u + 1) * layout.rows).min(self.n) {
                let found = self.pieces.iter().enumerate().find_map(|(i, piece)| Some((i, piece.row_at(n)?)));
                let Some((i, r)) = found else { continue };
                let mut encoded = Encoded::zeros(format, self.pieces[i].row_len());
                row(i, r, &mut encoded)?;
                layout.put_row(n % layout.rows, &encoded, codes, scales);
            }
            Ok(())
        };
        if dev.counts_only() {
            return Ok(());
        }
        let (mut codes, mut of_scales) = (vec![0; units * layout.codes()], vec![0; units * scale_bytes]);
        let units = codes.par_chunks_mut(layout.codes()).zip(of_scales.par_chunks_mut(scale_bytes)).enumerate();
        units.try_for_each(|(u, (codes, scales))| unit(u, codes, scales))?;
        dev.write_bytes(self.tensor, &codes)?;
        dev.write_bytes(scales, &of_scales)
    }

    /// Writes the elements of row `n` to `out`, which starts at element `from`. Elements outside `out` are left out.
    fn put_row<T: Elem>(&self, n: usize, row: &[T], from: usize, out: &mut [T]) {
        let (begin, last) = (self.index(n, 0), self.index(n, row.len() - 1));
        if self.is_matrix && begin >= from && last < from + out.len() {
            self.order.put_row(self.tensor.dtype, row, &mut out[begin - from..]);
            return;
        }
        for (k, value) in row.iter().enumerate() {
            // An index before the range wraps to a large number, which is outside the range too.
            if let Some(out) = out.get_mut(self.index(n, k).wrapping_sub(from)) {
                *out = *value;
            }
        }
    }

    /// Returns the elements `run` (row-major) of piece number `piece` from `data`, which starts at element `first` in
    /// the order of the weights.
    pub fn take_run<T: Elem>(&self, data: &[T], first: usize, piece: usize, run: Range<usize>) -> Vec<T> {
        let piece = &self.pieces[piece];
        let row_len = piece.row_len();
        let mut out = Vec::with_capacity(run.len());
        for r in run.start / row_len..run.end.div_ceil(row_len) {
            let n = piece.row(r);
            let columns = run.start.max(r * row_len) - r * row_len..run.end.min((r + 1) * row_len) - r * row_len;
            out.extend(columns.map(|k| data[self.index(n, k) - first]));
        }
        out
    }

    /// Returns the elements of piece number `piece` (row-major) that are in `range` of the weights' order, as ascending
    /// runs.
    pub fn runs(&self, piece: usize, range: &Range<usize>) -> Vec<Range<usize>> {
        let piece = &self.pieces[piece];
        if range.is_empty() {
            return Vec::new();
        }
        if *range == (0..self.tensor.len()) {
            return std::iter::once(0..piece.num_elements()).collect();
        }
        let mut runs: Vec<Range<usize>> = Vec::new();
        for r in 0..piece.shape[0] {
            let n = piece.row(r);
            for k in (0..piece.row_len()).filter(|k| range.contains(&self.index(n, *k))) {
                let at = r * piece.row_len() + k;
                match runs.last_mut() {
                    Some(run) if run.end == at => run.end += 1,
                    _ => runs.push(at..at + 1),
                }
            }
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::weights::layout::ParamLayout;
    use omr_runtime::device::{Isa, Plan};

    fn device() -> Device {
        Device::cpu(&Plan::uniform(1 << 22), 2, Isa::detect()).unwrap()
    }

    #[test]
    fn pieces_come_back_and_padding_is_zero() {
        for dtype in [DType::F32, DType::Bf16] {
            let mut dev = device();
            let mut layout = ParamLayout::new(dtype);
            layout.within(Part::Head).gate_up(&mut dev, "m", 40, 9, true).unwrap();
            layout.within(Part::Head).linear(&mut dev, "down", [13, 64], [13, 40], false).unwrap();
            let qkv = vec![Piece::rows("q", &[6, 3], 0), Piece::rows("k", &[2, 3], 6), Piece::rows("v", &[2, 3], 8)];
            layout.within(Part::Head).matrix(&mut dev, 10, 3, qkv).unwrap();
            let value = |param: usize, piece: usize, r: usize, k: usize| {
                (1 + (param * 31 + piece * 17 + r * 5 + k) % 101) as f32
            };
            let mut sum = 0.0;
            for (i, param) in layout.params.iter().enumerate() {
                let row = |piece: usize, r: usize, out: &mut [f32]| {
                    out.iter_mut().enumerate().for_each(|(k, out)| *out = value(i, piece, r, k));
                };
                param.fill_in_dtype(&mut dev, param.tensor, row).unwrap();
                for (j, piece) in param.pieces.iter().enumerate() {
                    let whole = 0..piece.num_elements();
                    let found: Vec<f32> = match dtype {
                        DType::Bf16 => {
                            let values = param.take_run(&dev.read::<bf16>(param.tensor).unwrap(), 0, j, whole);
                            values.into_iter().map(Elem::to_f32).collect()
                        }
                        _ => param.take_run(&dev.read::<f32>(param.tensor).unwrap(), 0, j, whole),
                    };
                    for (at, found) in found.iter().enumerate() {
                        assert_eq!(*found, value(i, j, at / piece.row_len(), at % piece.row_len()));
                        sum += found;
                    }
                }
            }
            let all: f32 = layout
                .params
                .iter()
                .flat_map(|param| match dtype {
                    DType::Bf16 => dev.read::<bf16>(param.tensor).unwrap().into_iter().map(Elem::to_f32).collect(),
                    _ => dev.read::<f32>(param.tensor).unwrap(),
                })
                .sum();
            assert_eq!(all, sum, "padding holds something");
        }
    }

    #[test]
    fn the_order_is_the_matrix_kernels() {
        for dtype in [DType::F32, DType::Bf16] {
            let mut dev = device();
            let mut layout = ParamLayout::new(dtype);
            let (n, k) = (45, 7);
            layout.within(Part::Head).linear(&mut dev, "w", [n, k], [n, k], false).unwrap();
            let rows: Vec<f32> = (0..n * k).map(|i| i as f32 % 251.0).collect();
            let param = &layout.params[0];
            let row = |_: usize, r: usize, out: &mut [f32]| out.copy_from_slice(&rows[r * k..][..k]);
            param.fill_in_dtype(&mut dev, param.tensor, row).unwrap();
            let stored = match dtype {
                DType::Bf16 => dev.read::<bf16>(param.tensor).unwrap().into_iter().map(Elem::to_f32).collect(),
                _ => dev.read::<f32>(param.tensor).unwrap(),
            };
            let at = |i: usize| stored[omr_runtime::ops::matmul::index(dtype, k, i / k, i % k)];
            assert_eq!((0..n * k).map(at).collect::<Vec<f32>>(), rows);
        }
    }
}

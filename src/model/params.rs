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

use std::cmp::Reverse;
use std::ops::Range;

use rayon::prelude::*;

use crate::device::{Device, Parts, Region};
use crate::error::Result;
use crate::model::linear_layer::{A, Adapter, B};
use crate::ops::matmul::{Order, PANEL, Weight};

use crate::tensor::{DType, Elem, Tensor};

pub use crate::model::linear_layer::{Linear, Matrix, Vector};

/// A Hugging Face tensor that is part of a parameter.
#[derive(Clone, PartialEq, Debug)]
pub struct Piece {
    /// Released name of the tensor.
    pub name: String,
    /// Shape of the tensor in the file.
    pub shape: Vec<usize>,
    rows: Rows,
}

/// The rows of the parameter that a piece's rows correspond to.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Rows {
    /// Consecutive rows, starting with this one.
    From(usize),
    /// Every second block of [`PANEL`] rows, starting with block 0 (gate) or 1 (up).
    EverySecond(usize),
}

impl Piece {
    /// Creates a piece whose rows are consecutive, starting with row `from` of the parameter.
    pub fn rows(name: impl Into<String>, shape: &[usize], from: usize) -> Piece {
        Piece { name: name.into(), shape: shape.to_vec(), rows: Rows::From(from) }
    }

    /// Creates one of two pieces whose blocks of rows alternate. The piece with `first` = 0 comes first.
    pub fn every_second(name: impl Into<String>, shape: &[usize], first: usize) -> Piece {
        Piece { name: name.into(), shape: shape.to_vec(), rows: Rows::EverySecond(first) }
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
    pub(super) fn beside(&self, name: String, columns: usize) -> Piece {
        Piece { name, shape: vec![self.shape[0], columns], rows: self.rows }
    }

    /// Returns the parameter's row for row `r` of this piece.
    fn row(&self, r: usize) -> usize {
        match self.rows {
            Rows::From(from) => from + r,
            Rows::EverySecond(first) => (r / PANEL * 2 + first) * PANEL + r % PANEL,
        }
    }

    /// Returns this piece's row for row `n` of the parameter, if there is one.
    pub(super) fn row_at(&self, n: usize) -> Option<usize> {
        let r = match self.rows {
            Rows::From(from) => n.checked_sub(from)?,
            Rows::EverySecond(first) if n / PANEL % 2 == first => n / PANEL / 2 * PANEL + n % PANEL,
            Rows::EverySecond(_) => return None,
        };
        (r < self.shape[0]).then_some(r)
    }
}

/// Part of a model whose gradients are complete at the same time in backward. The order is the order of backward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bucket {
    /// The output matrix, if it is not the token table, and the last norm.
    Head,
    /// A layer of the decoder. The last layer is the first in backward.
    Layer(Reverse<usize>),
    /// The vision tower with its merger.
    Tower,
    /// The token table.
    Table,
}

/// One parameter.
#[derive(Clone, PartialEq, Debug)]
pub struct Param {
    /// The Hugging Face tensors of which the parameter consists.
    pub pieces: Vec<Piece>,
    /// Weights, flat, in the compute type.
    pub tensor: Tensor,
    /// True for matrices and the token table, false for biases and norms.
    pub is_matrix: bool,
    /// True if the parameter belongs to the vision tower.
    pub is_vision: bool,
    /// False if the parameter is frozen: it has no gradient and no optimizer state.
    pub trains: bool,
    order: Order,
    n: usize,
    k: usize,
}

impl Param {
    /// Returns the parameter's name for messages: the name of its first piece.
    pub fn name(&self) -> &str {
        &self.pieces[0].name
    }

    /// Returns true if the parameter belongs to an adapter.
    pub fn is_adapter(&self) -> bool {
        self.name().ends_with(A) || self.name().ends_with(B)
    }

    /// Returns the part of the model whose gradients are complete at the same time as this parameter's gradient.
    pub fn bucket(&self) -> Bucket {
        let name = self.name();
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        match layer {
            Some(layer) => Bucket::Layer(Reverse(layer)),
            None if self.is_vision => Bucket::Tower,
            None if name == "model.embed_tokens.weight" => Bucket::Table,
            None => Bucket::Head,
        }
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

/// The parameters of a model, in the order in which gradients are summed and updates are made.
#[derive(Clone, PartialEq, Debug)]
pub struct ParamLayout {
    /// The parameters. A [`Matrix`] or [`Vector`] refers to one by its index.
    pub params: Vec<Param>,
    /// Data type of the weights.
    pub dtype: DType,
    /// The adapters of linear layers. While there are any, all other parameters are frozen.
    pub adapters: Vec<Adapter>,
}

impl ParamLayout {
    /// Creates a layout without parameters.
    pub fn new(dtype: DType) -> ParamLayout {
        ParamLayout { params: Vec::new(), dtype, adapters: Vec::new() }
    }

    /// Adds a matrix `[n, k]` that consists of `pieces`, filled with zeros.
    pub fn matrix(&mut self, dev: &mut Device, n: usize, k: usize, pieces: Vec<Piece>) -> Result<Matrix> {
        self.matrix_in(dev, Order::of(dev), n, k, pieces)
    }

    /// Adds a matrix as [`ParamLayout::matrix`] does, with the given element order.
    pub fn matrix_in(
        &mut self,
        dev: &mut Device,
        order: Order,
        n: usize,
        k: usize,
        pieces: Vec<Piece>,
    ) -> Result<Matrix> {
        let data = dev.zeros(Region::Weights, self.dtype, &[order.len(self.dtype, n, k)])?;
        Ok(Matrix { id: self.push(pieces, data, order, true, n, k), weight: Weight { data, order, n, k } })
    }

    /// Adds a vector `[n]` that consists of `pieces`, filled with zeros.
    pub fn vector(&mut self, dev: &mut Device, n: usize, pieces: Vec<Piece>) -> Result<Vector> {
        let tensor = dev.zeros(Region::Weights, self.dtype, &[n])?;
        Ok(Vector { id: self.push(pieces, tensor, Order::of(dev), false, n, 1), tensor })
    }

    /// Adds a linear layer `[n, k]` with the name `name`, and a bias if `bias` is true. The file has `file_k` columns;
    /// further columns are padding.
    pub fn linear(
        &mut self,
        dev: &mut Device,
        name: &str,
        [n, k]: [usize; 2],
        file_k: usize,
        bias: bool,
    ) -> Result<Linear> {
        let weight = self.matrix(dev, n, k, vec![Piece::rows(format!("{name}.weight"), &[n, file_k], 0)])?;
        let bias = match bias {
            true => Some(self.vector(dev, n, vec![Piece::rows(format!("{name}.bias"), &[n], 0)])?),
            false => None,
        };
        Ok(Linear { weight, bias, adapter: None })
    }

    /// Adds `{name}.gate_proj` and `{name}.up_proj` of an MLP, each `[f, k]`, as one layer with alternating blocks of
    /// rows.
    pub fn gate_up(&mut self, dev: &mut Device, name: &str, f: usize, k: usize, bias: bool) -> Result<Linear> {
        let n = 2 * f.next_multiple_of(PANEL);
        let pieces = |what: &str, shape: &[usize]| {
            let piece = |i| Piece::every_second(format!("{name}.{}_proj.{what}", ["gate", "up"][i]), shape, i);
            vec![piece(0), piece(1)]
        };
        let weight = self.matrix(dev, n, k, pieces("weight", &[f, k]))?;
        let bias = if bias { Some(self.vector(dev, n, pieces("bias", &[f]))?) } else { None };
        Ok(Linear { weight, bias, adapter: None })
    }

    /// Adds the weights `[n]` of a norm.
    pub fn norm(&mut self, dev: &mut Device, name: &str, n: usize) -> Result<Vector> {
        self.vector(dev, n, vec![Piece::rows(format!("{name}.weight"), &[n], 0)])
    }

    fn push(&mut self, pieces: Vec<Piece>, tensor: Tensor, order: Order, is_matrix: bool, n: usize, k: usize) -> usize {
        let is_vision = pieces[0].name.starts_with("visual.");
        self.params.push(Param { pieces, tensor, is_matrix, is_vision, trains: true, order, n, k });
        self.params.len() - 1
    }

    /// Returns every Hugging Face tensor with the index of its parameter and the index of its piece.
    pub fn pieces(&self) -> impl Iterator<Item = (usize, usize, &Piece)> {
        let pieces_of = |(i, param)| Param::numbered(param).map(move |(j, piece)| (i, j, piece));
        self.params.iter().enumerate().flat_map(pieces_of)
    }

    /// Returns the bucket, as a number, and the number of elements of each parameter, as [`Shards::new`] takes them.
    ///
    /// [`Shards::new`]: crate::ranks::Shards::new
    pub fn shares(&self) -> Vec<(usize, usize)> {
        let mut bucket = 0;
        let share = |(i, param): (usize, &Param)| {
            bucket += usize::from(i > 0 && self.params[i - 1].bucket() != param.bucket());
            (bucket, param.tensor.len())
        };
        self.params.iter().enumerate().map(share).collect()
    }

    /// Returns the number of elements of each parameter, including padding.
    pub fn lens(&self) -> Vec<usize> {
        self.params.iter().map(|param| param.tensor.len()).collect()
    }

    /// Returns the number of weights, without padding.
    pub fn num_weights(&self) -> usize {
        self.pieces().map(|(_, _, piece)| piece.num_elements()).sum()
    }
}

impl Param {
    fn numbered(param: &Param) -> impl Iterator<Item = (usize, &Piece)> {
        param.pieces.iter().enumerate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Isa, Plan};

    fn device() -> Device {
        Device::cpu(&Plan::uniform(1 << 22), 2, Isa::detect()).unwrap()
    }

    #[test]
    fn pieces_come_back_and_padding_is_zero() {
        for dtype in [DType::F32, DType::Bf16] {
            let mut dev = device();
            let mut layout = ParamLayout::new(dtype);
            layout.gate_up(&mut dev, "m", 40, 9, true).unwrap();
            layout.linear(&mut dev, "down", [13, 64], 40, false).unwrap();
            let qkv = vec![Piece::rows("q", &[6, 3], 0), Piece::rows("k", &[2, 3], 6), Piece::rows("v", &[2, 3], 8)];
            layout.matrix(&mut dev, 10, 3, qkv).unwrap();
            let value = |param: usize, piece: usize, r: usize, k: usize| {
                (1 + (param * 31 + piece * 17 + r * 5 + k) % 101) as f32
            };
            let mut sum = 0.0;
            for (i, param) in layout.params.iter().enumerate() {
                let row = |piece: usize, r: usize, out: &mut [f32]| {
                    out.iter_mut().enumerate().for_each(|(k, out)| *out = value(i, piece, r, k));
                };
                match dtype {
                    DType::Bf16 => param.fill::<half::bf16>(&mut dev, param.tensor, row).unwrap(),
                    _ => param.fill::<f32>(&mut dev, param.tensor, row).unwrap(),
                }
                for (j, piece) in param.pieces.iter().enumerate() {
                    let whole = 0..piece.num_elements();
                    let found: Vec<f32> = match dtype {
                        DType::Bf16 => {
                            let values = param.take_run(&dev.read::<half::bf16>(param.tensor).unwrap(), 0, j, whole);
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
                    DType::Bf16 => {
                        dev.read::<half::bf16>(param.tensor).unwrap().into_iter().map(Elem::to_f32).collect()
                    }
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
            layout.linear(&mut dev, "w", [n, k], k, false).unwrap();
            let rows: Vec<f32> = (0..n * k).map(|i| i as f32 % 251.0).collect();
            let param = &layout.params[0];
            let row = |_: usize, r: usize, out: &mut [f32]| out.copy_from_slice(&rows[r * k..][..k]);
            match dtype {
                DType::Bf16 => param.fill::<half::bf16>(&mut dev, param.tensor, row).unwrap(),
                _ => param.fill::<f32>(&mut dev, param.tensor, row).unwrap(),
            }
            let stored = match dtype {
                DType::Bf16 => dev.read::<half::bf16>(param.tensor).unwrap().into_iter().map(Elem::to_f32).collect(),
                _ => dev.read::<f32>(param.tensor).unwrap(),
            };
            let at = |i: usize| stored[crate::ops::matmul::index(dtype, k, i / k, i % k)];
            assert_eq!((0..n * k).map(at).collect::<Vec<f32>>(), rows);
        }
    }
}

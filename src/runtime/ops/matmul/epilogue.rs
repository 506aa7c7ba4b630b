//! Epilogues: processing of the finished sums of products (bias, residual, activation, rounding, store).

use std::marker::PhantomData;

use super::cells::Cells;
use super::panels::{PANEL, panel_stride};
use super::tile::{Epilogue, Tile};
use crate::device::{Isa, cpu_kernel};
use crate::ops::gelu::GeluKind;
use crate::tensor::{DType, Elem};
use omr_base::math;

/// Epilogue of a linear layer: y = sums (+ bias) (+ residual), or gelu(sums (+ bias)).
pub(in crate::ops) struct Linear<'a, E> {
    /// Optional bias `[n]`.
    pub bias: Option<&'a [E]>,
    /// Optional residual `[rows, n]`.
    pub residual: Option<&'a [E]>,
    /// Values before the activation `[rows, n]` for backward; empty if backward does not need them.
    pub pre: Cells<'a, E>,
    /// Formula of the activation, if the layer has one.
    pub gelu: Option<GeluKind>,
    /// Output `[rows, n]`.
    pub y: Cells<'a, E>,
}

impl<'a, E> Linear<'a, E> {
    /// Makes the epilogue that only stores the sums in `y`, which has `n` columns.
    pub fn plain(y: &'a mut [E], n: usize) -> Linear<'a, E> {
        Linear { bias: None, residual: None, pre: Cells::new(&mut [], n), gelu: None, y: Cells::new(y, n) }
    }
}

impl<E: Elem> Epilogue for Linear<'_, E> {
    fn prefetch(&self, tile: &Tile<'_>) {
        if !self.pre.is_empty() {
            self.pre.prefetch_tile(tile);
        }
        self.y.prefetch_tile(tile);
    }
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        linear_tile::<E>(isa, self, tile);
    }
}

cpu_kernel! {
    fn linear_tile<E: Elem>(to: &Linear<'_, E>, tile: &mut Tile<'_>) {
        let (col, cols) = tile.columns(to.y.cols());
        for i in 0..tile.rows {
            let row = tile.row + i;
            let sums = &mut tile.row(i)[..cols];
            if let Some(bias) = to.bias {
                add(sums, &bias[col..col + cols]);
            }
            if let Some(residual) = to.residual {
                let start = row * to.y.cols() + col;
                add(sums, &residual[start..start + cols]);
            }
            if !to.pre.is_empty() {
                // SAFETY: one thread finishes each tile's rows and columns, once.
                store(sums, unsafe { to.pre.piece(row, col, cols) });
            }
            match to.gelu {
                None => {}
                Some(GeluKind::Exact) => sums.iter_mut().for_each(|s| *s = math::gelu(*s)),
                Some(GeluKind::Tanh) => sums.iter_mut().for_each(|s| *s = math::gelu_tanh(*s)),
            }
            // SAFETY: one thread finishes each tile's rows and columns, once.
            store(sums, unsafe { to.y.piece(row, col, cols) });
        }
    }
}

/// Computes sums += x.
#[inline(always)]
pub(in crate::ops) fn add<E: Elem>(sums: &mut [f32], x: &[E]) {
    for (s, x) in sums.iter_mut().zip(x) {
        *s += x.to_f32();
    }
}

/// Stores the sums in `out`, rounded.
#[inline(always)]
pub(in crate::ops) fn store<E: Elem>(sums: &[f32], out: &mut [E]) {
    for (out, &s) in out.iter_mut().zip(sums) {
        *out = E::from_f32(s);
    }
}

/// Epilogue of SwiGLU: y = silu(gate) * up over pairs of panels (gate, up).
pub(in crate::ops) struct SwiGlu<'a, E> {
    /// Optional bias `[2 f]`, in the order of the weight's rows.
    pub bias: Option<&'a [E]>,
    /// Gate and up `[rows, 2 f]` for backward; empty if backward does not need them.
    pub gate_up: Cells<'a, E>,
    /// Output `[rows, f]`.
    pub y: Cells<'a, E>,
}

impl<E: Elem> Epilogue for SwiGlu<'_, E> {
    const UNIT: usize = 2;
    fn prefetch(&self, tile: &Tile<'_>) {
        let (col, cols) = tile.columns(2 * self.y.cols());
        if !self.gate_up.is_empty() {
            self.gate_up.prefetch_tile(tile);
        }
        self.y.prefetch_columns(tile, col / 2, cols / 2);
    }
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        swiglu_tile::<E>(isa, self, tile);
    }
}

cpu_kernel! {
    fn swiglu_tile<E: Elem>(to: &SwiGlu<'_, E>, tile: &mut Tile<'_>) {
        let (col, cols) = tile.columns(2 * to.y.cols());
        for i in 0..tile.rows {
            let row = tile.row + i;
            let sums = &mut tile.row(i)[..cols];
            if let Some(bias) = to.bias {
                add(sums, &bias[col..col + cols]);
            }
            if !to.gate_up.is_empty() {
                // SAFETY: one thread finishes each tile's rows and columns, once.
                store(sums, unsafe { to.gate_up.piece(row, col, cols) });
            }
            // SAFETY: one thread finishes each tile's rows and columns, once.
            let y = unsafe { to.y.piece(row, col / 2, cols / 2) };
            for (pair, y) in sums.chunks_exact(2 * PANEL).zip(y.chunks_exact_mut(PANEL)) {
                let (gate, up) = pair.split_at(PANEL);
                for j in 0..PANEL {
                    y[j] = E::from_f32(math::silu(gate[j]) * up[j]);
                }
            }
        }
    }
}

/// Epilogue of a weight gradient, stored in its weight's element order. The rows of the product are the weight's k, and
/// the columns of the product are the weight's n. Each sum over tokens starts from the gradient's present value.
pub(in crate::ops) struct Gradient<'a, E> {
    /// The gradient in f32 `[panels, panel_stride]`, one panel per row (see [`panel_stride`]).
    dw: Cells<'a, f32>,
    _weight: PhantomData<E>,
}

impl<'a, E: Elem> Gradient<'a, E> {
    /// True if the elements of two rows are interleaved.
    const PAIRED: bool = matches!(E::DTYPE, DType::Bf16);

    /// Returns the epilogue for the gradient `dw` of a weight with `k` columns.
    pub fn new(k: usize, dw: &'a mut [f32]) -> Gradient<'a, E> {
        Gradient { dw: Cells::new(dw, panel_stride(E::DTYPE, k)), _weight: PhantomData }
    }

    /// Returns the memory of a tile's rows in its panel `p`.
    fn place(&self, tile: &Tile<'_>, p: usize) -> &'a mut [f32] {
        let rows = if Self::PAIRED { tile.rows.next_multiple_of(2) } else { tile.rows };
        // SAFETY: where rows lie in pairs, tiles start at even rows, so tiles share no elements. One thread starts and
        // finishes a tile.
        unsafe { self.dw.piece(tile.panel + p, tile.row * PANEL, rows * PANEL) }
    }
}

impl<E: Elem> Epilogue for Gradient<'_, E> {
    const START: bool = true;
    const ROW_UNIT: usize = 2;
    fn start(&self, isa: Isa, tile: &mut Tile<'_>) {
        for p in 0..tile.panels {
            let (dw, sums) = (self.place(tile, p), &mut tile.sums[p * PANEL..]);
            match Self::PAIRED {
                true => gather_pairs(isa, tile.rows, tile.stride, dw, sums),
                false => sums.chunks_mut(tile.stride).zip(dw.chunks(PANEL)).for_each(|(sums, dw)| {
                    sums[..PANEL].copy_from_slice(dw);
                }),
            }
        }
    }
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        for p in 0..tile.panels {
            let (dw, sums) = (self.place(tile, p), &tile.sums[p * PANEL..]);
            match Self::PAIRED {
                true => scatter_pairs(isa, tile.rows, tile.stride, dw, sums),
                false => sums.chunks(tile.stride).zip(dw.chunks_mut(PANEL)).for_each(|(sums, dw)| {
                    dw.copy_from_slice(&sums[..PANEL]);
                }),
            }
        }
    }
}

cpu_kernel! {
    fn gather_pairs(rows: usize, stride: usize, dw: &[f32], sums: &mut [f32]) {
        for (words, i) in dw.chunks_exact(2 * PANEL).zip((0..rows).step_by(2)) {
            for j in 0..PANEL {
                sums[i * stride + j] = words[2 * j];
            }
            if i + 1 < rows {
                for j in 0..PANEL {
                    sums[(i + 1) * stride + j] = words[2 * j + 1];
                }
            }
        }
    }
}

cpu_kernel! {
    fn scatter_pairs(rows: usize, stride: usize, dw: &mut [f32], sums: &[f32]) {
        for (words, i) in dw.chunks_exact_mut(2 * PANEL).zip((0..rows).step_by(2)) {
            for j in 0..PANEL {
                words[2 * j] = sums[i * stride + j];
            }
            if i + 1 < rows {
                for j in 0..PANEL {
                    words[2 * j + 1] = sums[(i + 1) * stride + j];
                }
            }
        }
    }
}

/// Epilogue of an input gradient: dx = sums, or dx + sums rounded once.
pub(in crate::ops) struct InputGradient<'a, E> {
    /// Output `[rows, k]`.
    pub dx: Cells<'a, E>,
    /// True if the sums are added to the present values of dx.
    pub accumulate: bool,
}

impl<E: Elem> Epilogue for InputGradient<'_, E> {
    fn prefetch(&self, tile: &Tile<'_>) {
        self.dx.prefetch_tile(tile);
    }
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        input_gradient_tile::<E>(isa, self, tile);
    }
}

cpu_kernel! {
    fn input_gradient_tile<E: Elem>(to: &InputGradient<'_, E>, tile: &mut Tile<'_>) {
        let (col, cols) = tile.columns(to.dx.cols());
        for i in 0..tile.rows {
            // SAFETY: one thread finishes each tile's rows and columns, once.
            let dx = unsafe { to.dx.piece(tile.row + i, col, cols) };
            let sums = &mut tile.row(i)[..cols];
            if to.accumulate {
                add(sums, dx);
            }
            store(sums, dx);
        }
    }
}

//! What becomes of finished sums: bias, residual, activation, rounding, storage.

use super::cells::Cells;
use super::panels::{PANEL, panel_stride};
use super::{Epilogue, Tile};
use crate::device::{Isa, cpu_kernel};
use crate::ops::math;
use crate::tensor::{DType, Elem};

/// y = sums (+ bias) (+ residual).
pub(in crate::ops) struct Linear<'a, E> {
    /// `[n]` or nothing.
    pub bias: Option<&'a [E]>,
    /// [rows, n] or nothing.
    pub residual: Option<&'a [E]>,
    /// [rows, n].
    pub y: Cells<'a, E>,
}

impl<E: Elem> Epilogue for Linear<'_, E> {
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        let n = self.y.cols();
        let col = tile.panel * PANEL;
        let cols = (tile.panels * PANEL).min(n - col);
        let bias = self.bias.map(|b| &b[col..col + cols]);
        for i in 0..tile.rows {
            let start = (tile.row + i) * n + col;
            let residual = self.residual.map(|r| &r[start..start + cols]);
            // SAFETY: a tile's rows and columns are finished once, by one thread.
            let y = unsafe { self.y.piece(tile.row + i, col, cols) };
            linear_row::<E>(isa, &tile.row(i)[..cols], bias, residual, y);
        }
    }
}

cpu_kernel! {
    fn linear_row<E: Elem>(sums: &[f32], bias: Option<&[E]>, residual: Option<&[E]>, y: &mut [E]) {
        match (bias, residual) {
            (None, None) => sums.iter().zip(y).for_each(|(&s, y)| *y = E::from_f32(s)),
            (Some(b), None) => {
                for ((&s, b), y) in sums.iter().zip(b).zip(y) {
                    *y = E::from_f32(s + b.to_f32());
                }
            }
            (None, Some(r)) => {
                for ((&s, r), y) in sums.iter().zip(r).zip(y) {
                    *y = E::from_f32(s + r.to_f32());
                }
            }
            (Some(b), Some(r)) => {
                for (((&s, b), r), y) in sums.iter().zip(b).zip(r).zip(y) {
                    *y = E::from_f32(s + b.to_f32() + r.to_f32());
                }
            }
        }
    }
}

/// y = silu(gate) * up over panel pairs (gate, up).
pub(in crate::ops) struct SwiGlu<'a, E> {
    /// [2 f], in the order of the weight's rows, or nothing.
    pub bias: Option<&'a [E]>,
    /// [rows, 2 f] for backward; empty when it is not wanted.
    pub gate_up: Cells<'a, E>,
    /// [rows, f].
    pub y: Cells<'a, E>,
}

impl<E: Elem> Epilogue for SwiGlu<'_, E> {
    const UNIT: usize = 2;
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        let col = tile.panel * PANEL;
        let cols = tile.panels * PANEL;
        let bias = self.bias.map(|b| &b[col..col + cols]);
        for i in 0..tile.rows {
            let row = tile.row + i;
            // SAFETY: a tile's rows and columns are finished once, by one thread.
            let y = unsafe { self.y.piece(row, col / 2, cols / 2) };
            let keep = match self.gate_up.is_empty() {
                true => &mut [][..],
                // SAFETY: as above.
                false => unsafe { self.gate_up.piece(row, col, cols) },
            };
            swiglu_row::<E>(isa, tile.row(i), bias, keep, y);
        }
    }
}

cpu_kernel! {
    fn swiglu_row<E: Elem>(sums: &mut [f32], bias: Option<&[E]>, keep: &mut [E], y: &mut [E]) {
        if let Some(bias) = bias {
            sums.iter_mut().zip(bias).for_each(|(s, b)| *s += b.to_f32());
        }
        keep.iter_mut().zip(&*sums).for_each(|(k, &s)| *k = E::from_f32(s));
        for (pair, y) in sums.chunks_exact(2 * PANEL).zip(y.chunks_exact_mut(PANEL)) {
            let (gate, up) = pair.split_at(PANEL);
            for j in 0..PANEL {
                y[j] = E::from_f32(math::silu(gate[j]) * up[j]);
            }
        }
    }
}

/// y = gelu(sums + bias).
pub(in crate::ops) struct Gelu<'a, E> {
    /// `[n]` or nothing.
    pub bias: Option<&'a [E]>,
    /// [rows, n], the value before the activation, for backward; empty when it is not wanted.
    pub pre: Cells<'a, E>,
    /// [rows, n].
    pub y: Cells<'a, E>,
}

impl<E: Elem> Epilogue for Gelu<'_, E> {
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        let col = tile.panel * PANEL;
        let cols = (tile.panels * PANEL).min(self.y.cols() - col);
        let bias = self.bias.map(|b| &b[col..col + cols]);
        for i in 0..tile.rows {
            let row = tile.row + i;
            // SAFETY: a tile's rows and columns are finished once, by one thread.
            let y = unsafe { self.y.piece(row, col, cols) };
            let keep = match self.pre.is_empty() {
                true => &mut [][..],
                // SAFETY: as above.
                false => unsafe { self.pre.piece(row, col, cols) },
            };
            gelu_row::<E>(isa, &mut tile.row(i)[..cols], bias, keep, y);
        }
    }
}

cpu_kernel! {
    fn gelu_row<E: Elem>(sums: &mut [f32], bias: Option<&[E]>, keep: &mut [E], y: &mut [E]) {
        if let Some(bias) = bias {
            sums.iter_mut().zip(bias).for_each(|(s, b)| *s += b.to_f32());
        }
        keep.iter_mut().zip(&*sums).for_each(|(k, &s)| *k = E::from_f32(s));
        sums.iter().zip(y).for_each(|(&s, y)| *y = E::from_f32(math::gelu(s)));
    }
}

/// A weight gradient in its weight's element order: rows of the product are the weight's k, columns its n; the
/// chain over tokens starts from the gradient's present value.
pub(in crate::ops) struct Gradient<'a> {
    /// Element order of this weight dtype.
    dtype: DType,
    /// One row a panel: f32 [panels, [`panel_stride`]].
    dw: Cells<'a, f32>,
}

impl<'a> Gradient<'a> {
    /// The gradient `dw` of a weight with `k` columns, in the element order of `dtype`.
    pub fn new(dtype: DType, k: usize, dw: &'a mut [f32]) -> Gradient<'a> {
        Gradient { dtype, dw: Cells::new(dw, panel_stride(dtype, k)) }
    }

    /// The pieces of `dw` for `rows` of the tile's panel `p`: (whole words of 32, row by row).
    fn piece(&self, tile: &Tile<'_>, p: usize) -> &'a mut [f32] {
        let (row, rows) = match self.dtype {
            DType::Bf16 => (tile.row, tile.rows.next_multiple_of(2)),
            _ => (tile.row, tile.rows),
        };
        // SAFETY: tiles start at even rows where rows lie in pairs, so that tiles do not share elements; a tile
        // is started and finished by one thread.
        unsafe { self.dw.piece(tile.panel + p, row * PANEL, rows * PANEL) }
    }
}

impl Epilogue for Gradient<'_> {
    const START: bool = true;
    const ROW_UNIT: usize = 2;
    fn start(&self, isa: Isa, tile: &mut Tile<'_>) {
        for p in 0..tile.panels {
            let dw = self.piece(tile, p);
            let (rows, stride) = (tile.rows, tile.stride);
            gather_gradient(isa, self.dtype == DType::Bf16, rows, stride, dw, &mut tile.sums[p * PANEL..]);
        }
    }
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        for p in 0..tile.panels {
            let dw = self.piece(tile, p);
            let (rows, stride) = (tile.rows, tile.stride);
            scatter_gradient(isa, self.dtype == DType::Bf16, rows, stride, dw, &tile.sums[p * PANEL..]);
        }
    }
}

cpu_kernel! {
    fn gather_gradient(paired: bool, rows: usize, stride: usize, dw: &[f32], sums: &mut [f32]) {
        if paired {
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
        } else {
            for (i, words) in dw.chunks_exact(PANEL).enumerate() {
                sums[i * stride..i * stride + PANEL].copy_from_slice(words);
            }
        }
    }
}

cpu_kernel! {
    fn scatter_gradient(paired: bool, rows: usize, stride: usize, dw: &mut [f32], sums: &[f32]) {
        if paired {
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
        } else {
            for (i, words) in dw.chunks_exact_mut(PANEL).enumerate() {
                words.copy_from_slice(&sums[i * stride..i * stride + PANEL]);
            }
        }
    }
}

/// dx = sums, or dx + sums rounded once.
pub(in crate::ops) struct InputGradient<'a, E> {
    /// [rows, k].
    pub dx: Cells<'a, E>,
    /// Add to what is there.
    pub accumulate: bool,
}

impl<E: Elem> Epilogue for InputGradient<'_, E> {
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>) {
        let col = tile.panel * PANEL;
        let cols = (tile.panels * PANEL).min(self.dx.cols() - col);
        for i in 0..tile.rows {
            // SAFETY: a tile's rows and columns are finished once, by one thread.
            let dx = unsafe { self.dx.piece(tile.row + i, col, cols) };
            input_gradient_row::<E>(isa, &tile.row(i)[..cols], self.accumulate, dx);
        }
    }
}

cpu_kernel! {
    fn input_gradient_row<E: Elem>(sums: &[f32], accumulate: bool, dx: &mut [E]) {
        if accumulate {
            sums.iter().zip(dx).for_each(|(&s, d)| *d = E::from_f32(d.to_f32() + s));
        } else {
            sums.iter().zip(dx).for_each(|(&s, d)| *d = E::from_f32(s));
        }
    }
}

//! How linear weights lie in memory: panels of 32 output columns, so that vectors run over outputs and a
//! product streams its weight once, in order.
//!
//! A weight W [N, K] is stored as f32 `[ceil(N/32)][K][32]` or bf16 `[ceil(N/32)][ceil(K/2)][32][2]` (pairs over
//! K, as `vdpbf16ps` takes them). Padding is zero and stays zero. Gradients and optimizer state are f32 in the
//! element order of their weight's dtype. On a GPU the same arrays are in rows ([`Order::Rows`]).

use half::bf16;

use crate::device::Device;
use crate::tensor::{DType, Elem, Tensor};

/// Output columns of one panel.
pub const PANEL: usize = 32;

/// Columns of a weight's rows on a GPU are padded to a multiple of this: whole k16 steps of any stage, and rows that
/// start on 128 bytes, as tensor maps and 16-byte copies want them.
pub const ROW_PAD: usize = 64;

/// The element order of weights, their gradients and optimizer state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Order {
    /// Column panels: the CPU's.
    Panels,
    /// Rows of k elements, padded with zeros to a multiple of 64: a GPU's.
    Rows,
}

impl Order {
    /// The order on `dev` (on a device that only counts, that of the device it stands for).
    pub fn of(dev: &Device) -> Order {
        if dev.kind().is_gpu() { Order::Rows } else { Order::Panels }
    }

    /// Elements of a weight [n, k], padding included.
    pub fn len(self, dtype: DType, n: usize, k: usize) -> usize {
        match self {
            Order::Panels => panel_len(dtype, n, k),
            Order::Rows => n * row_stride(k),
        }
    }

    /// Elements of the pieces that rows are stored in: a panel of [`PANEL`] rows, or one row.
    pub fn piece(self, dtype: DType, k: usize) -> (usize, usize) {
        match self {
            Order::Panels => (PANEL, panel_stride(dtype, k)),
            Order::Rows => (1, row_stride(k)),
        }
    }

    /// Where element (row `n`, column `i`) of a weight with `k` columns lies.
    #[inline(always)]
    pub fn index(self, dtype: DType, k: usize, n: usize, i: usize) -> usize {
        match self {
            Order::Panels => index(dtype, k, n, i),
            Order::Rows => n * row_stride(k) + i,
        }
    }
}

/// Elements from one row to the next on a GPU.
pub fn row_stride(k: usize) -> usize {
    k.next_multiple_of(ROW_PAD)
}

/// A linear layer's weight W [n, k]; `data` is flat, in `order`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weight {
    /// [`Order::len`] elements of the compute dtype.
    pub data: Tensor,
    /// Element order: that of the device it lies on.
    pub order: Order,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
}

/// Panels of `n` columns.
pub fn panel_count(n: usize) -> usize {
    n.div_ceil(PANEL)
}

/// Elements of one panel over `k` inputs.
pub fn panel_stride(dtype: DType, k: usize) -> usize {
    match dtype {
        DType::Bf16 => k.next_multiple_of(2) * PANEL,
        _ => k * PANEL,
    }
}

/// Elements of a weight [n, k] in panel order, padding included.
pub fn panel_len(dtype: DType, n: usize, k: usize) -> usize {
    panel_count(n) * panel_stride(dtype, k)
}

/// Where element (row `n`, column `i`) of a weight with `k` columns lies.
#[inline(always)]
pub fn index(dtype: DType, k: usize, n: usize, i: usize) -> usize {
    let panel = n / PANEL * panel_stride(dtype, k);
    match dtype {
        DType::Bf16 => panel + (i / 2 * PANEL + n % PANEL) * 2 + i % 2,
        _ => panel + i * PANEL + n % PANEL,
    }
}

/// Row-major [n, k] to the panel order of `dtype`, whatever the elements are (gradients, optimizer state).
/// Padding is set to `T::default()`. Panics when a length does not fit.
pub fn pack_order<T: Copy + Default>(dtype: DType, n: usize, k: usize, row_major: &[T], out: &mut [T]) {
    assert_eq!((row_major.len(), out.len()), (n * k, panel_len(dtype, n, k)), "pack of [{n}, {k}]");
    out.fill(T::default());
    for (row, values) in row_major.chunks_exact(k.max(1)).enumerate() {
        for (i, &value) in values.iter().enumerate() {
            out[index(dtype, k, row, i)] = value;
        }
    }
}

/// The panel order of `dtype` back to row-major [n, k]. Panics when a length does not fit.
pub fn unpack_order<T: Copy>(dtype: DType, n: usize, k: usize, panels: &[T]) -> Vec<T> {
    assert_eq!(panels.len(), panel_len(dtype, n, k), "unpack of [{n}, {k}]");
    let mut out = Vec::with_capacity(n * k);
    for row in 0..n {
        out.extend((0..k).map(|i| panels[index(dtype, k, row, i)]));
    }
    out
}

/// Row-major f32 [n, k] to a weight's bytes: rounded to `dtype` (f32 or bf16), in panel order.
pub fn pack(dtype: DType, n: usize, k: usize, row_major: &[f32], out: &mut [u8]) {
    match dtype {
        DType::Bf16 => {
            let rounded: Vec<bf16> = row_major.iter().map(|&x| Elem::from_f32(x)).collect();
            pack_order(dtype, n, k, &rounded, bytemuck::cast_slice_mut(out));
        }
        _ => pack_order(dtype, n, k, row_major, bytemuck::cast_slice_mut::<u8, f32>(out)),
    }
}

/// A weight's bytes back to row-major f32 [n, k].
pub fn unpack(dtype: DType, n: usize, k: usize, panels: &[u8]) -> Vec<f32> {
    match dtype {
        DType::Bf16 => {
            let values = unpack_order::<bf16>(dtype, n, k, bytemuck::cast_slice(panels));
            values.into_iter().map(Elem::to_f32).collect()
        }
        _ => unpack_order(dtype, n, k, bytemuck::cast_slice(panels)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pack_and_unpack_are_inverse_and_padding_is_zero() {
        for dtype in [DType::F32, DType::Bf16] {
            for (n, k) in [(1, 1), (32, 2), (33, 7), (160, 96), (100, 136), (0, 5)] {
                // Small integers are exact in bf16.
                let w: Vec<f32> = (0..n * k).map(|i| (i % 251) as f32 + 1.0).collect();
                // Words: bytes alone need not be aligned for f32.
                let mut words = vec![0xaaaa_aaaau32; panel_len(dtype, n, k) * dtype.size() / 4];
                let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
                pack(dtype, n, k, &w, bytes);
                assert_eq!(unpack(dtype, n, k, bytes), w);
                let padding = panel_len(dtype, n, k) - n * k;
                let zeros = bytes.chunks(dtype.size()).filter(|c| c.iter().all(|&b| b == 0)).count();
                assert_eq!(zeros, padding);
            }
        }
    }
}

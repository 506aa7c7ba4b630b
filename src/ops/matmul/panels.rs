//! How linear weights lie in memory: panels of 32 output columns, so that vectors run over outputs and a
//! product streams its weight once, in order.
//!
//! A weight W [N, K] is stored as f32 `[ceil(N/32)][K][32]` or bf16 `[ceil(N/32)][ceil(K/2)][32][2]` (pairs over
//! K, as `vdpbf16ps` takes them). Padding is zero and stays zero. Gradients and optimizer state are f32 in the
//! element order of their weight's dtype.

use half::bf16;

use crate::tensor::{DType, Elem, Tensor};

/// Output columns of one panel.
pub const PANEL: usize = 32;

/// A linear layer's weight W [n, k]; `data` is flat, in panel order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Weight {
    /// [`panel_len`] elements of the compute dtype.
    pub data: Tensor,
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

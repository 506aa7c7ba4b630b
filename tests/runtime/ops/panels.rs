//! Converts weights between rows and the CPU's element order.

use half::bf16;
use omr_runtime::ops::matmul::{index, panel_len};
use omr_runtime::tensor::{DType, Elem};

/// Converts row-major [n, k] to the panel order of `dtype`, for any element type.
pub fn pack_order<T: Copy + Default>(dtype: DType, n: usize, k: usize, row_major: &[T], out: &mut [T]) {
    assert_eq!((row_major.len(), out.len()), (n * k, panel_len(dtype, n, k)), "pack of [{n}, {k}]");
    out.fill(T::default());
    for (row, values) in row_major.chunks_exact(k.max(1)).enumerate() {
        for (i, &value) in values.iter().enumerate() {
            out[index(dtype, k, row, i)] = value;
        }
    }
}

/// Converts the panel order of `dtype` back to row-major [n, k].
pub fn unpack_order<T: Copy>(dtype: DType, n: usize, k: usize, panels: &[T]) -> Vec<T> {
    assert_eq!(panels.len(), panel_len(dtype, n, k), "unpack of [{n}, {k}]");
    (0..n).flat_map(|row| (0..k).map(move |i| panels[index(dtype, k, row, i)])).collect()
}

/// Converts row-major f32 [n, k] to a weight's bytes: rounded to `dtype` (f32 or bf16), in panel order.
pub fn pack(dtype: DType, n: usize, k: usize, row_major: &[f32], out: &mut [u8]) {
    match dtype {
        DType::Bf16 => {
            let rounded: Vec<bf16> = row_major.iter().map(|&x| Elem::from_f32(x)).collect();
            pack_order(dtype, n, k, &rounded, bytemuck::cast_slice_mut(out));
        }
        _ => pack_order(dtype, n, k, row_major, bytemuck::cast_slice_mut::<u8, f32>(out)),
    }
}

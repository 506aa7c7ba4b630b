//! Transposes a weight in panels to panels of its transpose, for dgrad.

use super::cells::Cells;
use super::panels::{PANEL, panel_count, panel_len, panel_stride};
use crate::device::{Isa, Pool, cpu_kernel};
use crate::tensor::{DType, Elem};

/// Source panels that one job processes. A panel holds rows of W.
const PANELS: usize = 4;

/// Transposes the panels of W `[n, k]` to panels of its transpose `[k, n]`. `out` has [`panel_len`] (k, n) elements.
pub(in crate::ops) fn transpose<E: Elem>(pool: &Pool, isa: Isa, w: &[E], n: usize, k: usize, out: &mut [E]) {
    assert_eq!((w.len(), out.len()), (panel_len(E::DTYPE, n, k), panel_len(E::DTYPE, k, n)), "transpose [{n}, {k}]");
    if n == 0 || k == 0 {
        return;
    }
    let source = panel_stride(E::DTYPE, k);
    let cells = Cells::new(out, panel_stride(E::DTYPE, n));
    let groups = panel_count(n).div_ceil(PANELS);
    pool.run(groups * panel_count(k), |job| {
        let (q, group) = (job / groups, job % groups);
        for p in group * PANELS..panel_count(n).min((group + 1) * PANELS) {
            let (rows, cols) = (PANEL.min(n - p * PANEL), PANEL.min(k - q * PANEL));
            let from = &w[p * source + q * PANEL * PANEL..];
            let len = panel_stride(E::DTYPE, rows);
            // SAFETY: each (p, q) belongs to one job, and its pieces of the output do not overlap.
            let to = unsafe { cells.piece(q, p * PANEL * PANEL, len) };
            block::<E>(isa, from, rows, cols, to);
        }
    });
}

/// Transposes one block of `rows` (of W) by `cols`: `from` is `[cols][32]` (bf16 `[cols / 2][32][2]`), and `to` is the
/// same with rows and columns exchanged.
fn block<E: Elem>(isa: Isa, from: &[E], rows: usize, cols: usize, to: &mut [E]) {
    #[cfg(target_arch = "x86_64")]
    if isa.vectors() == Isa::Avx512 && rows == PANEL && cols == PANEL {
        let (from, to) = (&from[..PANEL * PANEL], &mut to[..PANEL * PANEL]);
        // SAFETY: the device has checked that it has this instruction set; both slices hold a complete block.
        unsafe {
            match E::DTYPE {
                DType::Bf16 => avx512::block_bf16(from.as_ptr().cast(), to.as_mut_ptr().cast()),
                _ => avx512::block_f32(from.as_ptr().cast(), to.as_mut_ptr().cast()),
            }
        }
        return;
    }
    part::<E>(isa, from, rows, cols, to);
}

cpu_kernel! {
    /// Transposes any block, element by element.
    fn part<E: Elem>(from: &[E], rows: usize, cols: usize, to: &mut [E]) {
        let paired = E::DTYPE == DType::Bf16;
        let at = |row: usize, i: usize| if paired { (i / 2 * PANEL + row) * 2 + i % 2 } else { i * PANEL + row };
        if cols < PANEL || rows % 2 == 1 {
            to.fill(E::from_f32(0.0));
        }
        for r in 0..rows {
            for c in 0..cols {
                to[at(c, r)] = from[at(r, c)];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use std::arch::x86_64::*;

    use super::PANEL;

    /// Transposes sixteen rows of sixteen words, `stride` words apart.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub unsafe fn transpose16(from: *const i32, stride: usize) -> [__m512i; 16] {
        // SAFETY: the caller guarantees that the rows are readable.
        let r: [__m512i; 16] = std::array::from_fn(|i| unsafe { _mm512_loadu_si512(from.add(i * stride).cast()) });
        // t holds words of pairs of rows, u words of groups of four rows. u[4 g + c] holds columns c, 4 + c, 8 + c,
        // 12 + c of the rows 4 g to 4 g + 3.
        let mut t = r;
        for i in 0..8 {
            t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
            t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
        }
        let mut u = t;
        for g in 0..4 {
            u[4 * g] = _mm512_unpacklo_epi64(t[4 * g], t[4 * g + 2]);
            u[4 * g + 1] = _mm512_unpackhi_epi64(t[4 * g], t[4 * g + 2]);
            u[4 * g + 2] = _mm512_unpacklo_epi64(t[4 * g + 1], t[4 * g + 3]);
            u[4 * g + 3] = _mm512_unpackhi_epi64(t[4 * g + 1], t[4 * g + 3]);
        }
        let mut out = u;
        for c in 0..4 {
            let even = _mm512_shuffle_i32x4(u[c], u[4 + c], 0x88);
            let odd = _mm512_shuffle_i32x4(u[c], u[4 + c], 0xdd);
            let even2 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0x88);
            let odd2 = _mm512_shuffle_i32x4(u[8 + c], u[12 + c], 0xdd);
            out[c] = _mm512_shuffle_i32x4(even, even2, 0x88);
            out[4 + c] = _mm512_shuffle_i32x4(odd, odd2, 0x88);
            out[8 + c] = _mm512_shuffle_i32x4(even, even2, 0xdd);
            out[12 + c] = _mm512_shuffle_i32x4(odd, odd2, 0xdd);
        }
        out
    }

    /// Transposes `[32][32]` f32.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn block_f32(from: *const i32, to: *mut i32) {
        for (i, j) in [(0, 0), (0, 16), (16, 0), (16, 16)] {
            // SAFETY: the caller guarantees blocks of 32 x 32 words.
            unsafe {
                for (l, row) in transpose16(from.add(i * PANEL + j), PANEL).into_iter().enumerate() {
                    _mm512_storeu_si512(to.add((j + l) * PANEL + i).cast(), row);
                }
            }
        }
    }

    /// Transposes `[16][32]` pairs over columns to `[16][32]` pairs over rows.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn block_bf16(from: *const i32, to: *mut i32) {
        // Indices that interleave the elements of two rows: element i of the first, element i of the second, and so on.
        let low: [i16; 32] = std::array::from_fn(|i| (i / 2 + i % 2 * 32) as i16);
        let high = low.map(|i| i + 16);
        // SAFETY: the index arrays have 64 bytes; the caller guarantees blocks of 16 x 32 words.
        unsafe {
            let (low, high) = (_mm512_loadu_si512(low.as_ptr().cast()), _mm512_loadu_si512(high.as_ptr().cast()));
            for j in [0, 16] {
                // Row r of W with its 32 columns in order.
                let rows = transpose16(from.add(j), PANEL);
                for l in 0..8 {
                    let (a, b) = (rows[2 * l], rows[2 * l + 1]);
                    let out = to.add((j / 2 + l) * PANEL);
                    _mm512_storeu_si512(out.cast(), _mm512_permutex2var_epi16(a, low, b));
                    _mm512_storeu_si512(out.add(16).cast(), _mm512_permutex2var_epi16(a, high, b));
                }
            }
        }
    }
}

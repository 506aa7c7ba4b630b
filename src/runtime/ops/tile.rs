//! The small matrix product inside attention. It multiplies up to six rows at a time by a row-major right operand, in
//! groups of sixteen columns. Each output is one sequence of fused multiply-adds over ascending k, whatever the tiling
//! and the instruction set.

use super::lanes::LANES;
use crate::device::Isa;

/// Rows of one register tile. With four groups of columns, 24 accumulators, 4 columns and a broadcast value take 29 of
/// the 32 vector registers of AVX-512.
pub const ROWS: usize = 6;

/// Splits `0..rows` into register tiles `(from, count)` of at most [`ROWS`] rows, as evenly as possible.
#[inline(always)]
pub fn row_tiles(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(ROWS);
    (0..tiles).map(move |i| {
        let (from, to) = (rows * i / tiles, rows * (i + 1) / tiles);
        (from, to - from)
    })
}

/// A left operand: element (m, k) is `data[m * row + k * step]`.
#[derive(Clone, Copy)]
pub struct Left<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance between rows, in elements.
    pub row: usize,
    /// Distance between k steps, in elements.
    pub step: usize,
}

/// A right operand: element (k, n) is `data[k * stride + n]`.
#[derive(Clone, Copy)]
pub struct Right<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance between k steps, in elements.
    pub stride: usize,
}

/// Output of a product: element (m, n) is `data[m * stride + n]`.
pub struct Sums<'a> {
    /// The elements.
    pub data: &'a mut [f32],
    /// Distance between rows, in elements.
    pub stride: usize,
    /// True if the product is added to the elements' values; otherwise it starts from zero.
    pub start: bool,
}

/// Computes `c[m][n]` = (start ? `c[m][n]` : 0) + sum over k below `steps` of a(m, k) * b(k, n), for m below `rows` (at
/// most [`ROWS`]) and n below 16 `groups`. Panics if an operand is too short.
pub fn product(isa: Isa, a: Left<'_>, b: Right<'_>, steps: usize, c: Sums<'_>, rows: usize, groups: usize) {
    if rows == 0 || groups == 0 {
        return;
    }
    let last = |n: usize| n.saturating_sub(1);
    assert!(rows <= ROWS && c.data.len() >= (rows - 1) * c.stride + groups * LANES, "sums too short");
    assert!(steps == 0 || a.data.len() > (rows - 1) * a.row + last(steps) * a.step, "left operand too short");
    assert!(steps == 0 || b.data.len() >= last(steps) * b.stride + groups * LANES, "right operand too short");
    match isa.vectors() {
        // SAFETY: an `Isa` other than `Portable` is used only where `Isa::available` returned true (Device::cpu), and
        // the asserts above prove that the operands cover all that `by_rows` reads and writes.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512(a, b, steps, c, rows, groups) },
        // SAFETY: same as for AVX-512.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2(a, b, steps, c, rows, groups) },
        // SAFETY: the asserts above prove that the operands cover all that `by_rows` reads and writes.
        _ => unsafe { by_rows::<1>(a, b, steps, c, rows, groups) },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn avx512(a: Left<'_>, b: Right<'_>, steps: usize, c: Sums<'_>, rows: usize, groups: usize) {
    // SAFETY: the caller guarantees the operands' lengths.
    unsafe { by_rows::<4>(a, b, steps, c, rows, groups) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(a: Left<'_>, b: Right<'_>, steps: usize, c: Sums<'_>, rows: usize, groups: usize) {
    // SAFETY: the caller guarantees the operands' lengths.
    unsafe { by_rows::<1>(a, b, steps, c, rows, groups) }
}

/// Computes [`product`] with at most `WIDE` groups of columns in registers.
///
/// SAFETY: the operands must be as long as `product` asserts.
#[inline(always)]
unsafe fn by_rows<const WIDE: usize>(a: Left<'_>, b: Right<'_>, steps: usize, c: Sums<'_>, rows: usize, groups: usize) {
    // SAFETY: the caller guarantees the operands' lengths for `rows` rows, and each call below handles that many rows.
    unsafe {
        match rows {
            1 => by_groups::<1, WIDE>(a, b, steps, c, groups),
            2 => by_groups::<2, WIDE>(a, b, steps, c, groups),
            3 => by_groups::<3, WIDE>(a, b, steps, c, groups),
            4 => by_groups::<4, WIDE>(a, b, steps, c, groups),
            5 => by_groups::<5, WIDE>(a, b, steps, c, groups),
            _ => by_groups::<ROWS, WIDE>(a, b, steps, c, groups),
        }
    }
}

/// Computes `M` rows by 16 `groups` columns.
///
/// SAFETY: the operands must be as long as [`product`] asserts, for `M` rows.
#[inline(always)]
unsafe fn by_groups<const M: usize, const WIDE: usize>(
    a: Left<'_>,
    b: Right<'_>,
    steps: usize,
    c: Sums<'_>,
    groups: usize,
) {
    let (mut g, start) = (0, c.start);
    let columns = Columns { b: b.data.as_ptr(), b_stride: b.stride, c: c.data.as_mut_ptr(), c_stride: c.stride };
    // SAFETY: the caller guarantees that columns up to 16 `groups` lie inside b and c.
    unsafe {
        while WIDE >= 4 && g + 4 <= groups {
            registers::<M, 4>(a, columns.from(g), steps, start);
            g += 4;
        }
        if WIDE >= 4 && g + 2 <= groups {
            registers::<M, 2>(a, columns.from(g), steps, start);
            g += 2;
        }
        while g < groups {
            registers::<M, 1>(a, columns.from(g), steps, start);
            g += 1;
        }
    }
}

/// Pointers to columns of the right operand and of the sums.
#[derive(Clone, Copy)]
struct Columns {
    b: *const f32,
    b_stride: usize,
    c: *mut f32,
    c_stride: usize,
}

impl Columns {
    /// Returns the columns from group `g` on, which may start past the last one.
    #[inline(always)]
    fn from(self, g: usize) -> Columns {
        Columns { b: self.b.wrapping_add(g * LANES), c: self.c.wrapping_add(g * LANES), ..self }
    }
}

/// Computes one register tile.
///
/// SAFETY: a must cover `M` rows and `steps` steps, b `steps` rows and c `M` rows of 16 `G` columns.
#[inline(always)]
unsafe fn registers<const M: usize, const G: usize>(a: Left<'_>, columns: Columns, steps: usize, start: bool) {
    let Columns { b, b_stride, c, c_stride } = columns;
    let (left, row, step) = (a.data.as_ptr(), a.row, a.step);
    let mut acc = [[[0.0f32; LANES]; G]; M];
    // SAFETY: the caller guarantees that every element accessed here exists; `[f32; 16]` has the alignment of f32.
    unsafe {
        if start {
            for (m, acc) in acc.iter_mut().enumerate() {
                for (g, acc) in acc.iter_mut().enumerate() {
                    *acc = *c.add(m * c_stride + g * LANES).cast();
                }
            }
        }
        for k in 0..steps {
            for g in 0..G {
                let column: [f32; LANES] = *b.add(k * b_stride + g * LANES).cast();
                for (m, acc) in acc.iter_mut().enumerate() {
                    let x = *left.add(m * row + k * step);
                    for i in 0..LANES {
                        acc[g][i] = x.mul_add(column[i], acc[g][i]);
                    }
                }
            }
        }
        for (m, acc) in acc.iter().enumerate() {
            for (g, acc) in acc.iter().enumerate() {
                *c.add(m * c_stride + g * LANES).cast() = *acc;
            }
        }
    }
}

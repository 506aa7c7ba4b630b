//! The small matrix product inside attention: up to six rows at a time against row-major columns in groups of
//! sixteen. Each output is one chain of fused products over ascending k, whatever the tiling; the loops below turn
//! into register tiles in every kernel body that inlines them.

use super::lanes::{LANES, Lanes, fma, load};

/// Rows of one register tile: with four groups of columns, 24 accumulators, 4 columns and a broadcast fill the 32
/// vector registers of AVX-512.
pub const ROWS: usize = 6;

/// Cuts `0..rows` into register tiles `(from, count)` of at most [`ROWS`], as even as can be.
#[inline(always)]
pub fn row_tiles(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(ROWS);
    (0..tiles).map(move |i| {
        let (from, to) = (rows * i / tiles, rows * (i + 1) / tiles);
        (from, to - from)
    })
}

/// A left operand: element (m, k) is `data[m * stride + k]`, or `data[k * stride + m]` when `TRANSPOSED`.
#[derive(Clone, Copy)]
pub struct Left<'a, const TRANSPOSED: bool> {
    /// The elements.
    pub data: &'a [f32],
    /// Distance of rows (of columns, when transposed).
    pub stride: usize,
}

/// `c[m][n]` = (ZERO ? 0 : `c[m][n]`) + sum over k of a(m, k) * `b[k][n]` for m below `rows` (at most [`ROWS`]) and n
/// below 16 `groups`; rows of b and c are `ldb` and `ldc` apart.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub fn product<const TRANSPOSED: bool, const ZERO: bool>(
    a: Left<'_, TRANSPOSED>,
    b: &[f32],
    ldb: usize,
    k: usize,
    c: &mut [f32],
    ldc: usize,
    rows: usize,
    groups: usize,
) {
    match rows {
        0 => {}
        1 => columns::<1, TRANSPOSED, ZERO>(a, b, ldb, k, c, ldc, groups),
        2 => columns::<2, TRANSPOSED, ZERO>(a, b, ldb, k, c, ldc, groups),
        3 => columns::<3, TRANSPOSED, ZERO>(a, b, ldb, k, c, ldc, groups),
        4 => columns::<4, TRANSPOSED, ZERO>(a, b, ldb, k, c, ldc, groups),
        5 => columns::<5, TRANSPOSED, ZERO>(a, b, ldb, k, c, ldc, groups),
        6 => columns::<6, TRANSPOSED, ZERO>(a, b, ldb, k, c, ldc, groups),
        _ => unreachable!("a register tile has at most {ROWS} rows"),
    }
}

#[inline(always)]
fn columns<const M: usize, const TRANSPOSED: bool, const ZERO: bool>(
    a: Left<'_, TRANSPOSED>,
    b: &[f32],
    ldb: usize,
    k: usize,
    c: &mut [f32],
    ldc: usize,
    groups: usize,
) {
    let mut g = 0;
    while g + 4 <= groups {
        registers::<M, 4, TRANSPOSED, ZERO>(a, &b[g * LANES..], ldb, k, &mut c[g * LANES..], ldc);
        g += 4;
    }
    if g + 2 <= groups {
        registers::<M, 2, TRANSPOSED, ZERO>(a, &b[g * LANES..], ldb, k, &mut c[g * LANES..], ldc);
        g += 2;
    }
    if g < groups {
        registers::<M, 1, TRANSPOSED, ZERO>(a, &b[g * LANES..], ldb, k, &mut c[g * LANES..], ldc);
    }
}

#[inline(always)]
fn registers<const M: usize, const G: usize, const TRANSPOSED: bool, const ZERO: bool>(
    a: Left<'_, TRANSPOSED>,
    b: &[f32],
    ldb: usize,
    k: usize,
    c: &mut [f32],
    ldc: usize,
) {
    let mut acc = [[[0.0f32; LANES]; G]; M];
    if !ZERO {
        for (m, acc) in acc.iter_mut().enumerate() {
            for (g, acc) in acc.iter_mut().enumerate() {
                *acc = load(&c[m * ldc + g * LANES..]);
            }
        }
    }
    if TRANSPOSED {
        for i in 0..k {
            let column = &a.data[i * a.stride..][..M];
            step::<M, G>(|m| column[m], &b[i * ldb..][..G * LANES], &mut acc);
        }
    } else {
        let lines: [&[f32]; M] = std::array::from_fn(|m| &a.data[m * a.stride..][..k]);
        for i in 0..k {
            step::<M, G>(|m| lines[m][i], &b[i * ldb..][..G * LANES], &mut acc);
        }
    }
    for (m, acc) in acc.iter().enumerate() {
        for (g, acc) in acc.iter().enumerate() {
            c[m * ldc + g * LANES..][..LANES].copy_from_slice(acc);
        }
    }
}

#[inline(always)]
fn step<const M: usize, const G: usize>(a: impl Fn(usize) -> f32, b: &[f32], acc: &mut [[Lanes; G]; M]) {
    for g in 0..G {
        let column = load(&b[g * LANES..]);
        for (m, acc) in acc.iter_mut().enumerate() {
            fma(&[a(m); LANES], &column, &mut acc[g]);
        }
    }
}

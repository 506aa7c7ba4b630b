//! Arithmetic on sixteen lanes in plain Rust. Every horizontal sum has the same order of additions
//! (docs/dev/design/runtime.md), whatever the vector width of the instruction set.

use crate::device::cpu_kernel;
use crate::tensor::Elem;

/// Lanes of one accumulator: one AVX-512 register of f32, or two AVX2 registers.
pub const LANES: usize = 16;

/// Sixteen accumulators.
pub type Lanes = [f32; LANES];

/// Returns the first sixteen elements of `x` in f32.
#[inline(always)]
pub fn load<T: Elem>(x: &[T]) -> Lanes {
    let x = &x[..LANES];
    let mut v = [0.0; LANES];
    for i in 0..LANES {
        v[i] = x[i].to_f32();
    }
    v
}

/// Returns the elements of `x` (at most sixteen) in f32; the remaining lanes are zero.
#[inline(always)]
pub fn load_tail<T: Elem>(x: &[T]) -> Lanes {
    let mut v = [0.0; LANES];
    for (v, x) in v.iter_mut().zip(x) {
        *v = x.to_f32();
    }
    v
}

/// Copies `from` to `to` in f32, up to the shorter length. It converts sixteen elements at a time, so that rows as
/// short as a head stay in vector registers.
#[inline(always)]
pub fn widen<T: Elem>(from: &[T], to: &mut [f32]) {
    let (mut to, mut from) = (to.chunks_exact_mut(LANES), from.chunks_exact(LANES));
    for (to, from) in (&mut to).zip(&mut from) {
        to.copy_from_slice(&load(from));
    }
    for (to, from) in to.into_remainder().iter_mut().zip(from.remainder()) {
        *to = from.to_f32();
    }
}

/// Sets `to[i]` to `from[i] * scale + 0` in `T`, for each element of `to`. Adding zero turns -0 into +0.
#[inline(always)]
pub fn narrow_scaled<T: Elem>(from: &[f32], scale: f32, to: &mut [T]) {
    let from = &from[..to.len()];
    let (mut to, mut from) = (to.chunks_exact_mut(LANES), from.chunks_exact(LANES));
    for (to, from) in (&mut to).zip(&mut from) {
        for i in 0..LANES {
            to[i] = T::from_f32(from[i] * scale + 0.0);
        }
    }
    for (to, from) in to.into_remainder().iter_mut().zip(from.remainder()) {
        *to = T::from_f32(from * scale + 0.0);
    }
}

/// Computes `acc += a * b` with one fused multiply-add per lane.
#[inline(always)]
pub fn fma(a: &Lanes, b: &Lanes, acc: &mut Lanes) {
    for i in 0..LANES {
        acc[i] = a[i].mul_add(b[i], acc[i]);
    }
}

cpu_kernel! {
    /// Computes `sums += x`, element by element.
    pub fn add(x: &[f32], sums: &mut [f32]) {
        for (s, x) in sums.iter_mut().zip(x) {
            *s += x;
        }
    }
}

/// Masks: row n has all ones in its first n lanes. The row for all sixteen lanes is needed: if the last lane were zero
/// in every row, the compiler would detect that and handle the lane separately.
static FIRST: [Mask; LANES + 1] = {
    let mut masks = [[0; LANES]; LANES + 1];
    let mut n = 0;
    while n <= LANES {
        let mut i = 0;
        while i < n {
            masks[n][i] = u32::MAX;
            i += 1;
        }
        n += 1;
    }
    masks
};

type Mask = [u32; LANES];

/// Returns `v` with its first `n` lanes kept (all of them if `n` is sixteen or more) and the remaining lanes set to
/// `other`. It uses bit masks, because comparisons with `n` are compiled to branches.
#[inline(always)]
pub fn keep(v: &Lanes, n: usize, other: f32) -> Lanes {
    let mask = &FIRST[n.min(LANES)];
    let mut kept = [0.0; LANES];
    for i in 0..LANES {
        kept[i] = f32::from_bits((v[i].to_bits() & mask[i]) | (other.to_bits() & !mask[i]));
    }
    kept
}

/// Returns the sum of the lanes: the upper half is added to the lower half, until one value is left.
#[inline(always)]
pub fn sum(v: &Lanes) -> f32 {
    let mut a = [0.0; 8];
    for i in 0..8 {
        a[i] = v[i] + v[i + 8];
    }
    let mut b = [0.0; 4];
    for i in 0..4 {
        b[i] = a[i] + a[i + 4];
    }
    (b[0] + b[2]) + (b[1] + b[3])
}

/// Returns the maximum of the lanes; NaN lanes are ignored.
#[inline(always)]
pub fn max(v: &Lanes) -> f32 {
    let mut a = [0.0; 8];
    for i in 0..8 {
        a[i] = larger(v[i], v[i + 8]);
    }
    let mut b = [0.0; 4];
    for i in 0..4 {
        b[i] = larger(a[i], a[i + 4]);
    }
    larger(larger(b[0], b[2]), larger(b[1], b[3]))
}

/// Returns the larger of the two, or `a` if `b` is NaN. It compiles to one instruction, unlike `f32::max`.
#[inline(always)]
pub fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Returns the sum of `x[i] * y[i]`: accumulated in sixteen lanes, which [`sum`] then adds up.
#[inline(always)]
pub fn dot<X: Elem, Y: Elem>(x: &[X], y: &[Y]) -> f32 {
    let mut acc = [0.0; LANES];
    let (xs, ys) = (x.chunks_exact(LANES), y.chunks_exact(LANES));
    let (xt, yt) = (xs.remainder(), ys.remainder());
    for (x, y) in xs.zip(ys) {
        fma(&load(x), &load(y), &mut acc);
    }
    if !xt.is_empty() {
        fma(&load_tail(xt), &load_tail(yt), &mut acc);
    }
    sum(&acc)
}

//! Sixteen-lane arithmetic in plain Rust: the one shape of every horizontal sum (DESIGN section 3), whatever the
//! vector width of the body it is compiled into.

use crate::tensor::Elem;

/// Lanes of one accumulator: an AVX-512 register of f32, two of AVX2.
pub const LANES: usize = 16;

/// Sixteen accumulators.
pub type Lanes = [f32; LANES];

/// The first sixteen elements of `x`, widened.
#[inline(always)]
pub fn load<T: Elem>(x: &[T]) -> Lanes {
    let x = &x[..LANES];
    let mut v = [0.0; LANES];
    for i in 0..LANES {
        v[i] = x[i].to_f32();
    }
    v
}

/// The elements of `x` (at most sixteen), widened; the remaining lanes are zero.
#[inline(always)]
pub fn load_tail<T: Elem>(x: &[T]) -> Lanes {
    let mut v = [0.0; LANES];
    for (v, x) in v.iter_mut().zip(x) {
        *v = x.to_f32();
    }
    v
}

/// `to[i]` = `from[i]`, widened, for as many as both have: sixteen at a time, so that rows of a head's length stay in
/// vectors.
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

/// `to[i]` = `from[i]` * scale + 0 in `T`, for as many as `to` has. Adding zero turns -0 into +0.
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

/// `acc += a * b`, one fused product a lane.
#[inline(always)]
pub fn fma(a: &Lanes, b: &Lanes, acc: &mut Lanes) {
    for i in 0..LANES {
        acc[i] = a[i].mul_add(b[i], acc[i]);
    }
}

/// All ones in the first n lanes of row n. With a row for all sixteen: were the last lane zero in every row, the
/// compiler would know, and treat it apart.
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

/// The first `n` lanes of `v` (all from sixteen on), whatever the others hold, which become `other`. By bit masks,
/// because comparisons with `n` turn into branches.
#[inline(always)]
pub fn keep(v: &Lanes, n: usize, other: f32) -> Lanes {
    let mask = &FIRST[n.min(LANES)];
    let mut kept = [0.0; LANES];
    for i in 0..LANES {
        kept[i] = f32::from_bits((v[i].to_bits() & mask[i]) | (other.to_bits() & !mask[i]));
    }
    kept
}

/// The lanes' sum: halves added to halves, four times.
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

/// The lanes' maximum; NaN lanes are passed over.
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

/// The larger of the two, `a` when `b` is NaN: one instruction, which `f32::max` is not.
#[inline(always)]
pub fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// Sum of `x[i] * y[i]` over sixteen lanes, then the tree.
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

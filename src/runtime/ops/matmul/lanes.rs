//! Sixteen f32 lanes on three instruction sets, and the multiply-accumulate steps that use them.
//!
//! Every method is `unsafe` for the same reason: the CPU must support the instruction set, and pointers must be
//! readable (or writable) for the bytes that a method accesses.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// Maximum number of rows of any instruction set's block.
pub(super) const MAX_ROWS: usize = 12;

/// Sixteen pairs of values, split into their first and second members.
#[derive(Clone, Copy)]
pub(super) struct Pairs<V> {
    /// First values of the pairs.
    pub low: V,
    /// Second values of the pairs.
    pub high: V,
}

/// Sixteen f32 values and the operations that the kernels need on them.
pub(super) trait Lanes {
    /// Register type (or an array of registers).
    type V: Copy;
    /// Returns +0 in all lanes.
    unsafe fn zero() -> Self::V;
    /// Loads 64 bytes from `p`.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Stores 64 bytes to `p`.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// Returns `x` in every lane.
    unsafe fn splat(x: f32) -> Self::V;
    /// Returns a * b + c, rounded once.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Loads sixteen words at `p`, each a pair of bf16, and returns their low and high halves as f32.
    unsafe fn widen(p: *const u8) -> Pairs<Self::V>;
    /// Maximum number of rows of an f32 block whose sums fit in the registers.
    const MAX_ROWS: usize;
    /// Maximum number of rows of a block of widened bf16 whose sums fit in the registers.
    const MAX_ROWS_WIDENED: usize;
    /// True if panels are processed in halves of 16 columns, which needs fewer registers per row and so allows more
    /// rows.
    const HALVES: bool;
    /// Number of panels to compute at once for a block of 1, 2, ... rows: enough independent sums to hide the latency.
    const MAX_PANELS: [usize; MAX_ROWS];
}

/// AVX-512, with one register for sixteen lanes.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx512;
/// AVX2, with two registers for sixteen lanes.
#[cfg(target_arch = "x86_64")]
pub(super) struct Avx2;
/// Portable Rust, with an array for sixteen lanes.
pub(super) struct Portable;

#[cfg(target_arch = "x86_64")]
impl Avx512 {
    /// Returns the low and high halves of sixteen words, each a pair of bf16, as f32.
    #[inline(always)]
    pub(super) unsafe fn halves(words: __m512i) -> Pairs<__m512> {
        // SAFETY: the caller guarantees that the CPU has AVX-512.
        unsafe {
            let high = _mm512_and_si512(words, _mm512_set1_epi32(0xffff_0000_u32 as i32));
            let low = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
            Pairs { low, high: _mm512_castsi512_ps(high) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx512 {
    type V = __m512;
    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { _mm512_setzero_ps() }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn widen(p: *const u8) -> Pairs<__m512> {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { Avx512::halves(_mm512_loadu_si512(p.cast())) }
    }
    const MAX_ROWS: usize = 12;
    const MAX_ROWS_WIDENED: usize = 12;
    const HALVES: bool = false;
    const MAX_PANELS: [usize; MAX_ROWS] = [4, 4, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1];
}

#[cfg(target_arch = "x86_64")]
impl Lanes for Avx2 {
    type V = [__m256; 2];
    #[inline(always)]
    unsafe fn zero() -> [__m256; 2] {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { [_mm256_setzero_ps(); 2] }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [__m256; 2] {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [__m256; 2]) {
        // SAFETY: guaranteed by the trait's contract.
        unsafe {
            _mm256_storeu_ps(p, v[0]);
            _mm256_storeu_ps(p.add(8), v[1]);
        }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [__m256; 2] {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    unsafe fn fma(a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    unsafe fn widen(p: *const u8) -> Pairs<[__m256; 2]> {
        // SAFETY: guaranteed by the trait's contract.
        unsafe {
            // No closures here, because they would not inherit the caller's instruction set.
            let first = _mm256_loadu_si256(p.cast());
            let second = _mm256_loadu_si256(p.add(32).cast());
            let mask = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            let low =
                [_mm256_castsi256_ps(_mm256_slli_epi32(first, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(second, 16))];
            let high = [
                _mm256_castsi256_ps(_mm256_and_si256(first, mask)),
                _mm256_castsi256_ps(_mm256_and_si256(second, mask)),
            ];
            Pairs { low, high }
        }
    }
    const MAX_ROWS: usize = 6;
    const MAX_ROWS_WIDENED: usize = 4;
    const HALVES: bool = true;
    const MAX_PANELS: [usize; MAX_ROWS] = [4, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1];
}

impl Lanes for Portable {
    type V = [f32; 16];
    #[inline(always)]
    unsafe fn zero() -> [f32; 16] {
        [0.0; 16]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 16] {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { p.cast::<[f32; 16]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { p.cast::<[f32; 16]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 16] {
        [x; 16]
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> [f32; 16] {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn widen(p: *const u8) -> Pairs<[f32; 16]> {
        // SAFETY: guaranteed by the trait's contract.
        let words = unsafe { p.cast::<[u32; 16]>().read_unaligned() };
        Pairs { low: words.map(|w| f32::from_bits(w << 16)), high: words.map(|w| f32::from_bits(w & 0xffff_0000)) }
    }
    const MAX_ROWS: usize = 2;
    const MAX_ROWS_WIDENED: usize = 2;
    const HALVES: bool = false;
    const MAX_PANELS: [usize; MAX_ROWS] = [1; MAX_ROWS];
}

/// One step of sixteen sums: a word of the left operand (an f32, or a pair of bf16 over K) times sixteen words of the
/// right operand.
pub(super) trait Step {
    /// Lanes of the sums.
    type L: Lanes;
    /// Type of a left word in every lane.
    type A: Copy;
    /// Type of sixteen right words.
    type B: Copy;
    /// Maximum number of rows of a block.
    const MAX_ROWS: usize;
    /// Loads the four bytes at `p` into every lane.
    unsafe fn left(p: *const u8) -> Self::A;
    /// Loads the two bytes at `p` as the low half of the word in every lane; the high half is zero.
    unsafe fn left_half(p: *const u8) -> Self::A;
    /// Loads the 64 bytes at `p`.
    unsafe fn right(p: *const u8) -> Self::B;
    /// Returns the sums after one more step.
    unsafe fn step(a: Self::A, b: Self::B, sum: <Self::L as Lanes>::V) -> <Self::L as Lanes>::V;
}

/// Step on f32: one fused multiply-add.
pub(super) struct Single<L>(std::marker::PhantomData<L>);
/// Step on bf16 widened to f32: two fused multiply-adds, the lower k first.
pub(super) struct Widened<L>(std::marker::PhantomData<L>);
/// Step on pairs of bf16 by `vdpbf16ps`. It adds the higher k first, so the sums differ in their bits from those of
/// [`Widened`].
#[cfg(target_arch = "x86_64")]
pub(super) struct Dot;

impl<L: Lanes> Step for Single<L> {
    type L = L;
    type A = L::V;
    type B = L::V;
    const MAX_ROWS: usize = L::MAX_ROWS;
    #[inline(always)]
    unsafe fn left(p: *const u8) -> L::V {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { L::splat(p.cast::<f32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn left_half(p: *const u8) -> L::V {
        // SAFETY: guaranteed by the trait's contract. (An f32 word has no halves, so this is never called.)
        unsafe { Self::left(p) }
    }
    #[inline(always)]
    unsafe fn right(p: *const u8) -> L::V {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { L::load(p.cast()) }
    }
    #[inline(always)]
    unsafe fn step(a: L::V, b: L::V, sum: L::V) -> L::V {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { L::fma(a, b, sum) }
    }
}

impl<L: Lanes> Step for Widened<L> {
    type L = L;
    type A = Pairs<L::V>;
    type B = Pairs<L::V>;
    const MAX_ROWS: usize = L::MAX_ROWS_WIDENED;
    #[inline(always)]
    unsafe fn left(p: *const u8) -> Pairs<L::V> {
        // SAFETY: guaranteed by the trait's contract.
        unsafe {
            let word = p.cast::<u32>().read_unaligned();
            Pairs { low: L::splat(f32::from_bits(word << 16)), high: L::splat(f32::from_bits(word & 0xffff_0000)) }
        }
    }
    #[inline(always)]
    unsafe fn left_half(p: *const u8) -> Pairs<L::V> {
        // SAFETY: guaranteed by the trait's contract.
        unsafe {
            let word = u32::from(p.cast::<u16>().read_unaligned());
            Pairs { low: L::splat(f32::from_bits(word << 16)), high: L::zero() }
        }
    }
    #[inline(always)]
    unsafe fn right(p: *const u8) -> Pairs<L::V> {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { L::widen(p) }
    }
    #[inline(always)]
    unsafe fn step(a: Pairs<L::V>, b: Pairs<L::V>, sum: L::V) -> L::V {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { L::fma(a.high, b.high, L::fma(a.low, b.low, sum)) }
    }
}

#[cfg(target_arch = "x86_64")]
impl Step for Dot {
    type L = Avx512;
    type A = __m512i;
    type B = __m512i;
    const MAX_ROWS: usize = Avx512::MAX_ROWS;
    #[inline(always)]
    unsafe fn left(p: *const u8) -> __m512i {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn left_half(p: *const u8) -> __m512i {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { _mm512_set1_epi32(i32::from(p.cast::<u16>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn right(p: *const u8) -> __m512i {
        // SAFETY: guaranteed by the trait's contract.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn step(a: __m512i, b: __m512i, sum: __m512) -> __m512 {
        // SAFETY: guaranteed by the trait's contract; the two types are the same 512 bits.
        unsafe {
            _mm512_dpbf16_ps(
                sum,
                std::mem::transmute::<__m512i, __m512bh>(a),
                std::mem::transmute::<__m512i, __m512bh>(b),
            )
        }
    }
}

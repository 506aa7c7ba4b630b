//! Widens codes of `nf4` with vector instructions: levels are looked up in registers, which compilers do not do for a table
//! in memory.

use std::arch::x86_64::*;
use std::ops::Range;

use super::levels::LEVELS;
use crate::device::Isa;

/// Rows of a panel.
const ROWS: usize = 32;

/// Writes the words of the pairs of terms `pairs` of one panel to `out`: bf16 `[pairs][32][2]`. A scale belongs to `each`
/// pairs. Returns false if `isa` has no such instructions.
pub(super) fn nf4(
    isa: Isa,
    codes: &[[u8; ROWS]],
    scales: &[[f32; ROWS]],
    each: usize,
    pairs: Range<usize>,
    out: &mut [[u32; ROWS]],
) -> bool {
    match isa.vectors() {
        // SAFETY: `Device::cpu` refuses an `Isa` for which `Isa::available` is false.
        Isa::Avx512 => unsafe { nf4_avx512(codes, scales, each, pairs, out) },
        // SAFETY: same as for AVX-512.
        Isa::Avx2 => unsafe { nf4_avx2(codes, scales, each, pairs, out) },
        _ => return false,
    }
    true
}

/// Writes the words of pairs, 16 rows at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn nf4_avx512(codes: &[[u8; ROWS]], scales: &[[f32; ROWS]], each: usize, pairs: Range<usize>, out: &mut [[u32; ROWS]]) {
    // SAFETY: the table has 64 bytes.
    let levels = unsafe { _mm512_loadu_ps(LEVELS.as_ptr()) };
    let (one, bias) = (_mm512_set1_epi32(1), _mm512_set1_epi32(0x7fff));
    let high_half = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    // The bits of f32 whose upper half is the number rounded to bf16. No product is NaN.
    let rounded = |x: __m512| {
        let bits = _mm512_castps_si512(x);
        let even = _mm512_and_si512(_mm512_srli_epi32(bits, 16), one);
        _mm512_add_epi32(bits, _mm512_add_epi32(bias, even))
    };
    for (pair, out) in pairs.zip(out) {
        let (codes, scales) = (&codes[pair], &scales[pair / each]);
        for j in [0, 16] {
            // SAFETY: each array has 32 elements, of which 16 from element j on are loaded or stored.
            unsafe {
                let code = _mm512_cvtepu8_epi32(_mm_loadu_si128(codes.as_ptr().add(j).cast()));
                let absmax = _mm512_loadu_ps(scales.as_ptr().add(j));
                // Only the low four bits of an index are used.
                let low = rounded(_mm512_mul_ps(_mm512_permutexvar_ps(code, levels), absmax));
                let code = _mm512_srli_epi32(code, 4);
                let high = rounded(_mm512_mul_ps(_mm512_permutexvar_ps(code, levels), absmax));
                let words = _mm512_or_si512(_mm512_srli_epi32(low, 16), _mm512_and_si512(high, high_half));
                _mm512_storeu_si512(out.as_mut_ptr().add(j).cast(), words);
            }
        }
    }
}

/// Writes the words of pairs, eight rows at a time.
#[target_feature(enable = "avx2")]
fn nf4_avx2(codes: &[[u8; ROWS]], scales: &[[f32; ROWS]], each: usize, pairs: Range<usize>, out: &mut [[u32; ROWS]]) {
    // SAFETY: the table has 64 bytes.
    let halves = unsafe { [_mm256_loadu_ps(LEVELS.as_ptr()), _mm256_loadu_ps(LEVELS.as_ptr().add(8))] };
    let (one, bias) = (_mm256_set1_epi32(1), _mm256_set1_epi32(0x7fff));
    let high_half = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    let rounded = |x: __m256| {
        let bits = _mm256_castps_si256(x);
        let even = _mm256_and_si256(_mm256_srli_epi32(bits, 16), one);
        _mm256_add_epi32(bits, _mm256_add_epi32(bias, even))
    };
    // Bit 3 of a code selects the half of the table.
    let level = |code: __m256i| {
        let [low, high] = halves.map(|half| _mm256_permutevar8x32_ps(half, code));
        _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(code, 28)))
    };
    for (pair, out) in pairs.zip(out) {
        let (codes, scales) = (&codes[pair], &scales[pair / each]);
        for j in [0, 8, 16, 24] {
            // SAFETY: each array has 32 elements, of which eight from element j on are loaded or stored.
            unsafe {
                let code = _mm256_cvtepu8_epi32(_mm_loadl_epi64(codes.as_ptr().add(j).cast()));
                let absmax = _mm256_loadu_ps(scales.as_ptr().add(j));
                let low = rounded(_mm256_mul_ps(level(code), absmax));
                let high = rounded(_mm256_mul_ps(level(_mm256_srli_epi32(code, 4)), absmax));
                let words = _mm256_or_si256(_mm256_srli_epi32(low, 16), _mm256_and_si256(high, high_half));
                _mm256_storeu_si256(out.as_mut_ptr().add(j).cast(), words);
            }
        }
    }
}

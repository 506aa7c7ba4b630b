//! Moments with eight bits per element: a code of 256 values, denser near zero, and one f32 scale per 256 consecutive
//! elements.
//!
//! The code is like the dynamic code of bitsandbytes (Dettmers et al., "8-bit optimizers via block-wise quantization",
//! 2022), but its ranges are factors of 8 instead of decades, so that encoding and decoding take a few operations and
//! no table. With S bits, code c = 2^h (1 + f) represents 8^(h + 1 - S) (1/8 + 7/8 f), and c = 0 represents zero.
//!
//! - v has no sign and S = 8: 128 codes from 1/8 to 1, 64 from 1/64 to 1/8, and so on down to 8^-8 = 6e-8.
//! - m has a sign bit and S = 7: 64 codes from 1/8 to 1, and so on down to 8^-7 = 5e-7.
//!
//! The scale is chosen so that the largest element of a block gets the last code. kernels/common/code8.cuh has the same
//! functions.

use half::bf16;

/// Elements that share a scale.
pub const BLOCK: usize = 256;

/// Returns the largest code of S bits.
pub const fn last<const S: i32>() -> i32 {
    (1 << S) - 1
}

/// Returns 2^n, for n from -126 to 127.
#[inline(always)]
pub fn power(n: i32) -> f32 {
    f32::from_bits(((127 + n) << 23) as u32)
}

/// Returns the exact value that code `c` of S bits represents with a scale of one.
#[inline(always)]
pub fn value<const S: i32>(c: i32) -> f32 {
    // The f32 value c has h in its exponent and f in its mantissa.
    let bits = (c as f32).to_bits();
    let h = (bits >> 23) as i32 - 127;
    let one_f = f32::from_bits(bits & 0x007f_ffff | 0x3f80_0000);
    let found = power(3 * (h.max(0) + 1 - S)) * (0.875 * one_f - 0.75);
    if c == 0 { 0.0 } else { found }
}

/// Returns the position of `y` (not negative) among the codes of S bits, a real number that is linear in `y` between
/// two codes.
#[inline(always)]
fn position<const S: i32>(y: f32) -> f32 {
    let exponent = (y.to_bits() >> 23) as i32 - 127;
    // A third of the exponent, rounded down; exact for 0 to 3 S.
    let h = ((exponent.max(-3 * S) + 3 * S) * 43) >> 7;
    let within = (y * power(3 * (S - 1 - h)) + 0.75) * (8.0 / 7.0) * power(h);
    if y < power(-3 * S) { y * power(3 * S) } else { within }
}

/// Returns the code of S bits that is nearest to the position of `y` plus `jitter` (-0.5 to 0.5).
#[inline(always)]
pub fn nearest<const S: i32>(y: f32, jitter: f32) -> i32 {
    // The last place of 1.5 * 2^23 is worth 1, so the addition rounds to an integer. If y is NaN, the result is the
    // last code.
    let at = position::<S>(y).min(last::<S>() as f32) + jitter;
    ((at + 12_582_912.0).to_bits() as i32 - 0x4b40_0000).min(last::<S>())
}

/// Returns the scale of a block whose largest magnitude is `largest`.
#[inline(always)]
pub fn scale<const S: i32>(largest: f32) -> f32 {
    // `largest` divided by the value of the last code: 1017 / 1024 for 8 bits, 505 / 512 for 7.
    largest * if S == 8 { 1024.0 / 1017.0 } else { 512.0 / 505.0 }
}

/// Returns `x` / `scale`, or zero if `scale` is zero.
#[inline(always)]
fn ratio(x: f32, scale: f32) -> f32 {
    if scale > 0.0 { x / scale } else { 0.0 }
}

/// Encodes a first moment: a sign bit above seven bits, rounded to nearest.
#[inline(always)]
pub fn signed(x: f32, scale: f32) -> u8 {
    let c = nearest::<7>(ratio(x.abs(), scale), 0.0);
    let sign = if x < 0.0 && c > 0 { 0x80 } else { 0 };
    (c | sign) as u8
}

/// Decodes a code of [`signed`].
#[inline(always)]
pub fn of_signed(c: u8, scale: f32) -> f32 {
    let x = value::<7>(i32::from(c & 0x7f)) * scale;
    if c & 0x80 != 0 { -x } else { x }
}

/// Encodes a second moment. `x` is rounded up or down by the random `word`, so that the expected value is `x`. The code
/// is zero only if `x` is zero, because with v = 0 the weight would move by m / eps.
#[inline(always)]
pub fn unsigned(x: f32, scale: f32, word: u32) -> u8 {
    let c = nearest::<8>(ratio(x, scale), jitter(word));
    (if x > 0.0 { c.max(1) } else { 0 }) as u8
}

/// Decodes a code of [`unsigned`].
#[inline(always)]
pub fn of_unsigned(c: u8, scale: f32) -> f32 {
    value::<8>(i32::from(c)) * scale
}

/// Returns a uniform random multiple of 2^-24, from -0.5 to below 0.5.
#[inline(always)]
fn jitter(word: u32) -> f32 {
    (word >> 8) as i32 as f32 * (1.0 / 16_777_216.0) - 0.5
}

/// Rounds `x` to bf16, away from zero with a probability equal to the fraction that truncation would drop. NaN stays
/// NaN.
#[inline(always)]
pub fn stochastic(x: f32, word: u32) -> bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(word >> 16) >> 16;
    bf16::from_bits(if x.is_nan() { bits >> 16 | 0x40 } else { rounded } as u16)
}

/// Rounds a second moment to bf16 as [`stochastic`] does, but the result is zero only if `x` is zero.
#[inline(always)]
pub fn stochastic_above_zero(x: f32, word: u32) -> bf16 {
    let rounded = stochastic(x, word);
    if x > 0.0 { bf16::from_bits(rounded.to_bits().max(1)) } else { rounded }
}

//! An exact f32 master weight, stored as its bf16 weight and a 16-bit remainder.

use half::bf16;

/// Splits an f32 into a bf16 weight (nearest, ties away from zero in the bit pattern) and a signed remainder. [`join`]
/// restores every bit. Ties go away from zero because round-to-even cannot be inverted.
#[inline(always)]
pub fn split(master: f32) -> (bf16, i16) {
    let bits = master.to_bits();
    let hi = bits.wrapping_add(0x8000) >> 16;
    (bf16::from_bits(hi as u16), bits.wrapping_sub(hi << 16) as i16)
}

/// Returns the f32 that was passed to [`split`].
#[inline(always)]
pub fn join(hi: bf16, lo: i16) -> f32 {
    f32::from_bits(((hi.to_bits() as u32) << 16).wrapping_add(lo as i32 as u32))
}

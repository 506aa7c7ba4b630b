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

#[cfg(test)]
mod tests {
    use super::*;

    fn comes_back(bits: u32) {
        let (hi, lo) = split(f32::from_bits(bits));
        assert_eq!(join(hi, lo).to_bits(), bits, "{bits:#x}");
    }

    #[test]
    fn split_and_join_are_inverse_for_every_low_half() {
        for high in [0u32, 1, 0x7f, 0x80, 0x3f80, 0x3fff, 0x7f7f, 0x7fff, 0x8000, 0xbf80, 0xff7f, 0xffff] {
            (0..=0xffff).for_each(|low| comes_back(high << 16 | low));
        }
    }

    #[test]
    #[ignore = "all 2^32 floats: seconds in release, minutes without optimisation"]
    fn split_and_join_are_inverse_for_every_float() {
        (0..=u32::MAX).for_each(comes_back);
    }
}

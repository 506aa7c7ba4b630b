//! Tests master weights in two halves of 16 bits.

use omr_runtime::ops::adamw::master::{join, split};

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

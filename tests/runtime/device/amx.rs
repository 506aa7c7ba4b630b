//! Tests the software twin of AMX tiles.

use omr_runtime::device::Isa;
use omr_runtime::device::amx::STEP;
use omr_runtime::device::amx::check::{SHAPES, STARTS, SUMS, sums};
use omr_runtime::device::amx::twin::{flush, multiply_add, product};
use sha2::{Digest, Sha256};

/// Columns of the sums of a tile.
const TILE: usize = 16;

#[test]
fn what_is_tiny_after_rounding_is_zero() {
    let half = f32::MIN_POSITIVE * 0.5;
    // 2^-126 - 2^-150 is flushed; 2^-126 - 2^-152 is not, because with 24 bits it rounds up.
    let (a, b) = (f32::from_bits((127 - 75) << 23), f32::from_bits((127 - 75) << 23));
    assert_eq!(multiply_add(-a, b, f32::MIN_POSITIVE).to_bits(), 0);
    assert_eq!(multiply_add(-a * 0.5, b * 0.5, f32::MIN_POSITIVE), f32::MIN_POSITIVE);
    assert_eq!((flush(half).to_bits(), flush(-half).to_bits()), (0, 1 << 31));
    assert_eq!(flush(f32::MIN_POSITIVE), f32::MIN_POSITIVE);
    // The halves of the word are 1.5 and a subnormal number, which counts as zero.
    let mut sums = [f32::from_bits(1); TILE];
    let (mut left, mut right) = ([0; STEP], [[0; TILE]; STEP]);
    left[0] = 0x0001_3fc0;
    right[0] = [0x7f00_3f80; TILE];
    product(Isa::Portable, &left, &right, &mut sums);
    assert_eq!(sums, [1.5; TILE]);
}

/// SHA-256 of the sums of all `SHAPES` and `STARTS`, computed by the instructions of `tiles.rs` on Bochs 3.0, which
/// emulated a Sapphire Rapids. One bug of Bochs was fixed before this run: Bochs flushed differences between 2^-126
/// and 2^-125 to zero. See bench/LOG.md.
const EMULATED: &str = "ba13f34175373812b21253ab59524e108f059e46eb4e9b16f2e81b752f600079";

#[test]
fn the_twin_has_the_bits_of_an_emulated_processor() {
    let mut hash = Sha256::new();
    let mut count = 0;
    for (shape, start) in SHAPES.into_iter().flat_map(|shape| STARTS.map(|start| (shape, start))) {
        let sums = sums(Isa::AmxTwin, shape, start);
        count += sums.len();
        sums.iter().for_each(|sum| hash.update(sum.to_bits().to_le_bytes()));
    }
    assert_eq!(count, SUMS);
    assert_eq!(hash.finalize().iter().map(|b| format!("{b:02x}")).collect::<String>(), EMULATED);
}

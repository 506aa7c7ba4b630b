//! Tensor maps in the emulator's own format of 128 bytes, which kernels/emu/bulk.cpp reads.

use crate::device::driver::{EncodedMap, TensorMap};
use omr_base::error::Result;

/// Encodes a map. Errors if it breaks a rule ([`TensorMap::check`]).
///
/// Words:
///
/// - 0: address
/// - 1: rank, element bytes and swizzle in bytes 0, 1 and 2
/// - 2..7: dimensions
/// - 7..11: strides
/// - 11..16: box dimensions
pub fn encode(map: &TensorMap) -> Result<EncodedMap> {
    map.check()?;
    let rank = map.dims.len();
    let mut words = [0; 16];
    words[0] = map.address;
    words[1] = rank as u64 | (map.element as u64) << 8 | u64::from(map.swizzle) << 16;
    words[2..2 + rank].copy_from_slice(&map.dims);
    words[7..6 + rank].copy_from_slice(&map.strides);
    for (word, size) in words[11..].iter_mut().zip(&map.box_dims) {
        *word = u64::from(*size);
    }
    Ok(EncodedMap(words))
}

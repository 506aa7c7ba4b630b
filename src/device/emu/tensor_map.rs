//! Tensor maps: the driver's rules, and the emulator's own 128 bytes.

use crate::device::driver::TensorMap;
use crate::error::{Error, Result};

/// Packs a map after the checks of `cuTensorMapEncodeTiled` (CUDA driver API, tensor map object management). Errors
/// name the rule that is broken.
///
/// Words: 0 address; 1 rank, element bytes and swizzle in bytes 0, 1 and 2; 2..7 dims; 7..11 strides;
/// 11..16 boxes.
pub fn encode(map: &TensorMap) -> Result<[u64; 16]> {
    let refuse = |what: String| Err(Error::Failed(format!("tensor map refused: {what}")));
    let rank = map.dims.len();
    if !(2..=5).contains(&rank) || map.strides.len() != rank - 1 || map.box_dims.len() != rank {
        let (strides, boxes) = (map.strides.len(), map.box_dims.len());
        return refuse(format!("{rank} dimensions, {strides} strides and {boxes} box sizes"));
    }
    if map.element != 2 && map.element != 4 {
        return refuse(format!("elements of {} bytes", map.element));
    }
    if map.address == 0 || !map.address.is_multiple_of(16) {
        return refuse(format!("address {:#x} is no multiple of 16", map.address));
    }
    if let Some(dim) = map.dims.iter().find(|d| **d == 0 || **d > 1 << 32) {
        return refuse(format!("a dimension of {dim}"));
    }
    if let Some(stride) = map.strides.iter().find(|s| !s.is_multiple_of(16) || **s >= 1 << 40) {
        return refuse(format!("a stride of {stride} bytes is no multiple of 16 below 2^40"));
    }
    let mut least = map.dims[0] * map.element as u64;
    for (stride, dim) in map.strides.iter().zip(&map.dims[1..]) {
        if *stride < least {
            return refuse(format!("a stride of {stride} bytes is less than the {least} it steps over"));
        }
        least = stride.saturating_mul(*dim);
    }
    if let Some(size) = map.box_dims.iter().find(|b| **b == 0 || **b > 256) {
        return refuse(format!("a box of {size} elements, 1 to 256 are possible"));
    }
    let inner = map.box_dims[0] as usize * map.element;
    if !inner.is_multiple_of(16) {
        return refuse(format!("a box row of {inner} bytes is no multiple of 16"));
    }
    if !matches!(map.swizzle, 0 | 32 | 64 | 128) {
        return refuse(format!("a swizzle of {} bytes", map.swizzle));
    }
    if map.swizzle > 0 && inner > map.swizzle as usize {
        return refuse(format!("a box row of {inner} bytes is wider than its swizzle of {}", map.swizzle));
    }
    let mut words = [0; 16];
    words[0] = map.address;
    words[1] = rank as u64 | (map.element as u64) << 8 | u64::from(map.swizzle) << 16;
    words[2..2 + rank].copy_from_slice(&map.dims);
    words[7..6 + rank].copy_from_slice(&map.strides);
    for (word, size) in words[11..].iter_mut().zip(&map.box_dims) {
        *word = u64::from(*size);
    }
    Ok(words)
}

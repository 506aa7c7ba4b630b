//! The rules of a tiled tensor map. cuTensorMapEncodeTiled has the same rules (CUDA driver API, tensor map object
//! management) but reports "invalid value" for each of them. omr adds one rule: a box row must be exactly as long as
//! its swizzle, because no document specifies the layout of shorter rows. The documented assertion that outer strides
//! rise is not a rule here: public kernels use maps of [64, H, W / 64] with strides of 2 W and 128 bytes, which the
//! driver accepts.

use crate::device::driver::TensorMap;
use omr_base::error::{Error, Result};

/// Limits of the hardware for dimensions, strides and boxes.
const MAX_DIM: u64 = 1 << 32;
const MAX_STRIDE: u64 = 1 << 40;
const MAX_BOX: u32 = 256;

impl TensorMap {
    /// Errors with the first rule that the map breaks.
    pub fn check(&self) -> Result<()> {
        self.broken().map_or(Ok(()), |rule| Err(Error::Failed(format!("tensor map refused: {rule}"))))
    }

    fn broken(&self) -> Option<String> {
        let rank = self.dims.len();
        if !matches!(self.element, 2 | 4) {
            return Some(format!("elements of {} bytes, expected 2 or 4", self.element));
        }
        if !(2..=5).contains(&rank) || self.strides.len() != rank - 1 || self.box_dims.len() != rank {
            let (strides, boxes) = (self.strides.len(), self.box_dims.len());
            return Some(format!("{rank} dimensions, {strides} strides and {boxes} box dimensions"));
        }
        if self.address == 0 || !self.address.is_multiple_of(16) {
            return Some(format!("the address {:#x} is not a multiple of 16", self.address));
        }
        if let Some(dim) = self.dims.iter().find(|dim| !(1..=MAX_DIM).contains(*dim)) {
            return Some(format!("a dimension of {dim}"));
        }
        if let Some(stride) = self.strides.iter().find(|stride| !stride.is_multiple_of(16) || **stride >= MAX_STRIDE) {
            return Some(format!("a stride of {stride} bytes is not a multiple of 16 below 2^40"));
        }
        let row = self.dims[0] * self.element as u64;
        if self.strides[0] < row {
            return Some(format!("a stride of {} bytes is smaller than its row of {row} bytes", self.strides[0]));
        }
        if let Some(side) = self.box_dims.iter().find(|side| !(1..=MAX_BOX).contains(*side)) {
            return Some(format!("a box side of {side} elements, expected 1 to {MAX_BOX}"));
        }
        let inner = self.box_dims[0] as usize * self.element;
        if !inner.is_multiple_of(16) {
            return Some(format!("a box row of {inner} bytes is not a multiple of 16"));
        }
        match self.swizzle {
            0 => None,
            32 | 64 | 128 if inner == self.swizzle as usize => None,
            32 | 64 | 128 => {
                let than = if inner < self.swizzle as usize { "narrower" } else { "wider" };
                Some(format!("a box row of {inner} bytes is {than} than its swizzle of {}", self.swizzle))
            }
            other => Some(format!("a swizzle of {other} bytes, expected 0, 32, 64 or 128")),
        }
    }
}

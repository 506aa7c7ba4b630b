//! The rules of a tiled tensor map. cuTensorMapEncodeTiled has the same rules (CUDA driver API, tensor map object
//! management) but reports "invalid value" for each of them. omr adds one rule: a box row must be exactly as long as
//! its swizzle, because no document specifies the layout of shorter rows. The documented assertion that outer strides
//! rise is not a rule here: public kernels use maps of [64, H, W / 64] with strides of 2 W and 128 bytes, which the
//! driver accepts.

use crate::device::driver::TensorMap;
use crate::error::{Error, Result};

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

#[cfg(test)]
mod tests {
    use super::TensorMap;

    #[test]
    fn each_rule_is_named() {
        let good = TensorMap {
            address: 0x1000,
            element: 2,
            dims: vec![3584, 100],
            strides: vec![7168],
            box_dims: vec![64, 128],
            swizzle: 128,
        };
        good.check().unwrap();
        // The panels of fast.cu: columns 64 apart are the outermost dimension.
        let panels =
            TensorMap { dims: vec![64, 100, 56], strides: vec![7168, 128], box_dims: vec![64, 128, 1], ..good.clone() };
        panels.check().unwrap();
        type Change = fn(&mut TensorMap);
        let broken: [(Change, &str); 19] = [
            (|m| m.element = 8, "elements of 8 bytes"),
            (|m| m.dims = vec![8], "1 dimensions"),
            (|m| m.strides.clear(), "0 strides"),
            (|m| m.box_dims.push(1), "3 box dimensions"),
            (|m| m.address += 8, "0x1008"),
            (|m| m.dims[1] = 0, "a dimension of 0"),
            (|m| m.dims[1] = (1 << 32) + 1, "a dimension of 4294967297"),
            (|m| m.strides[0] = 7176, "7176 bytes is not a multiple of 16"),
            (|m| m.strides[0] = 1 << 40, "below 2^40"),
            (|m| m.strides[0] = 7152, "of 7168 bytes"),
            (|m| m.box_dims[1] = 257, "a box side of 257"),
            (|m| m.box_dims[0] = 4, "a box row of 8 bytes"),
            (|m| m.box_dims[0] = 128, "wider than its swizzle of 128"),
            (|m| m.box_dims[0] = 32, "narrower than its swizzle of 128"),
            (|m| m.swizzle = 64, "wider than its swizzle of 64"),
            (|m| m.swizzle = 16, "a swizzle of 16"),
            (|m| m.address = 0, "0x0"),
            (|m| m.box_dims[1] = 0, "a box side of 0"),
            (|m| (m.swizzle, m.box_dims[0]) = (0, 12), "a box row of 24 bytes is not a multiple of 16"),
        ];
        for (spoil, word) in broken {
            let mut map = good.clone();
            spoil(&mut map);
            let message = map.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
        }
    }
}

//! Pictures: bounded decoding, the sizes and the resize of Qwen2.5-VL's processor, patches.
//!
//! A picture is decoded to RGB as Pillow's `convert("RGB")` gives it, resized as Pillow resizes (to the bit) to a
//! multiple of `patch_size * merge_size`, and kept as bytes: normalising and cutting into patches is the model's.

mod decode;
mod processor;
mod resize;

pub use decode::{Limits, Refused, decode, decode_then, size};
pub use processor::{ImageInput, Processor, smart_resize};
pub use resize::resize;

use crate::error::{Error, Result};

/// An RGB picture, 8 bits a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `[height][width][3]`.
    pub data: Vec<u8>,
}

impl Rgb {
    /// Checks that `data` has three bytes a pixel and that there is a pixel.
    pub fn new(width: u32, height: u32, data: Vec<u8>) -> Result<Rgb> {
        let wanted = (width as usize).checked_mul(height as usize).and_then(|n| n.checked_mul(3));
        if wanted != Some(data.len()) || data.is_empty() {
            let found = format!("{} bytes for {width} x {height} pixels", data.len());
            return Err(Error::input("picture", found, "width x height x 3 bytes, and at least one pixel"));
        }
        Ok(Rgb { width, height, data })
    }
}

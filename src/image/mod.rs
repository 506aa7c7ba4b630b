//! Pictures: bounded decoding, the sizes and the resize of Qwen2.5-VL's processor, patches.
//!
//! A picture is decoded to RGB as Pillow's `convert("RGB")` gives it, resized as Pillow resizes (to the bit) to a
//! multiple of `patch_size * merge_size`, and kept as bytes: normalising and cutting into patches is the model's.

mod decode;
mod input;
pub mod processor;
mod resize;

pub use decode::{Limits, Refused, decode, decode_then, size};
pub use input::{Grid, ImageInput};
pub use processor::Processor;
pub use resize::resize;

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

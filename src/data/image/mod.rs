//! Images: bounded decoding, and the sizes, resizing and patches of Qwen2.5-VL's image processor.
//!
//! An image is decoded to RGB as by Pillow's `convert("RGB")`, or put onto white if it is transparent, and resized to a
//! multiple of `patch_size * merge_size`, bitwise identical to torchvision or to Pillow up to 12.3. It is kept as bytes; the
//! model normalizes it and cuts it into patches.

mod decode;
mod encode;
mod input;
mod jpeg;
mod media;
pub mod processor;
mod resize;
pub mod settings;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

pub use decode::{Decoding, Header, Limits, Refused, clipped, decode, decode_then, header};
pub use encode::{jpeg_within, png, thumbnail};
pub use input::{Grid, ImageInput};
pub use jpeg::{JPEG_DECODER, jpeg};
pub use media::{MediaFormat, MediaIds, PatchGrid};
pub use processor::Processor;
pub use resize::resize;

/// Logs a warning, unless it was logged before.
pub(crate) fn warn_once(line: String) {
    static LOGGED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if !logged.contains(&line) {
        tracing::warn!("{line}");
        logged.insert(line);
    }
}

/// Library whose resizing and normalization are reproduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// torchvision 0.26 on a CPU, as transformers uses it by default.
    Torchvision,
    /// Pillow up to 12.3, with numpy's normalization.
    Pil,
}

/// An RGB image with 8 bits per channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Pixels, `[height][width][3]`.
    pub data: Vec<u8>,
}

//! Matrices stored in 8 or 4 bits: codes and, for each block of 64 terms of a row, a scale. A stored value stands for
//! exactly one number of the compute type, so every product has the bits of the product with the widened matrix.
//!
//! - `int8`: value = q 2^s. The code is the integer q from -127 to 127, and the scale is the byte s + 127. With 7 bits of
//!   q, the value is a bf16 number.
//! - `nf4`: value = `level[q]` * absmax, in f32, rounded once to bf16, also where the compute type is f32. The code is the
//!   index q of 4 bits, and the scale is the f32 absmax. This is `dequantize_4bit` of bitsandbytes to bfloat16.
//!
//! Codes and scales lie in units: the 32 rows of a panel on the CPU, one row on a GPU ([`Layout`]).

mod encode;
mod layout;
mod levels;
#[cfg(target_arch = "x86_64")]
mod vectors;
mod widen;

pub use encode::{EncodeFault, encode};
pub use layout::{Encoded, Layout, Quantized, scale_dtype, takes};
pub use levels::{BLOCK, LEVELS};
pub use widen::{nf4_value, widen};

//! Kernels that only tests run: each wrapper of kernels/isa/ alone, questions about the arithmetic of a GPU, and kernels
//! that fail.

use omr_runtime::device::images::Images;

/// The kernel files of this folder, which `tools/build-ptx` compiles in addition to omr's own.
pub static CALIBRATION: Images = include!(concat!(env!("OUT_DIR"), "/images.rs"));

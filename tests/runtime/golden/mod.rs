//! Golden tests of instructions of a GPU.

pub mod isa;
pub mod isa_sums;
pub mod isa_tma;
pub mod isa_wgmma;

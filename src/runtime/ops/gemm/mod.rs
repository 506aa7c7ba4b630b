//! Launches of the matrix products in kernels/gemm.cu. The number of tokens alone selects the tile, so that planning,
//! graph capture and execution use the same tile. Every tile computes the same bits for a row. If `Device::use_variant`
//! selected wgmma, the kernels of kernels/gemm_sm90a.cu run instead, with the tiles of [`config::GemmDesc`].

mod backward;
mod candidates;
mod codes;
pub mod config;
mod forward;
mod sm90a;
mod start_check;
pub mod tile;

pub(in crate::ops) use backward::{Chains, dgrad, dgrad_part, wgrad};
pub(in crate::ops) use candidates::Product;
pub use candidates::{Candidate, candidates};
pub(in crate::ops) use codes::reads_codes;
pub(in crate::ops) use config::Role;
pub use forward::Qkv;
pub(in crate::ops) use forward::{Forward, gelu, linear, logits, qkv, swiglu};
pub(in crate::ops) use sm90a::{Wide, wide_names};
pub use start_check::wgmma_fault;
pub(in crate::ops) use tile::{KernelNames, Tile, kernel_names, operands, tile_names};

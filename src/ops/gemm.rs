//! Launches of kernels/gemm.cu: the tile by the number of tokens alone, so that what is planned, captured and run
//! agree. A row has the same bits from every tile. Where the device is told to (`Device::use_body`), of
//! kernels/gemm_sm90a.cu, whose tiles go by [`config::GemmDesc`].

mod agreement;
mod backward;
pub mod config;
mod forward;
mod sm90a;
mod tile;

pub use agreement::wgmma_fault;
pub(in crate::ops) use backward::{Chains, dgrad, dgrad_part, wgrad};
pub(in crate::ops) use config::Role;
pub use forward::Qkv;
pub(in crate::ops) use forward::{Forward, gelu, linear, logits, qkv, swiglu};
pub(in crate::ops) use sm90a::{Wide, wide_names};
pub(in crate::ops) use tile::{Bodies, bodies, operands, tile_names};

//! Attention over a paged KV cache: chunked prefill and one-token decode. Rows use the arithmetic of `attend`, so the
//! results are bitwise identical to those of `attention::fwd` in training.

mod cache;
mod call;
mod decode;
mod forward;
mod launch_decode;
pub mod split;
mod start_check;
mod store;

pub use cache::KvCache;
pub use call::Paged;
pub use decode::{Decode, together};
pub use forward::{fwd, fwd_with_lse};
pub use split::{DecodeStep, Split};
pub use start_check::wgmma_fault;
pub use store::{store, store_rows};

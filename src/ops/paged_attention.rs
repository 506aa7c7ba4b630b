//! Attention over a paged KV cache: prefill in chunks and one-token decode. The row is the one of `attend`, so that
//! it has the bits `attention::fwd` gives it in training.

mod agreement;
mod cache;
mod call;
mod decode;
mod forward;
mod launch_decode;
pub mod split;
mod store;

pub use agreement::wgmma_fault;
pub use cache::KvCache;
pub use call::Paged;
pub use decode::{Decode, together};
pub use forward::fwd;
pub use split::{DecodeStep, Split};
pub use store::store;

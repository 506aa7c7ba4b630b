//! Log-probabilities of given tokens, computed directly from hidden states and the output weight. The forward holds one
//! tile of logits at a time, and the backward one slab of columns. The CPU can keep the logits for the backward, if the
//! caller has memory for them.
//!
//! Shapes: T tokens, D hidden size, V vocabulary. The policy is softmax(z) over the allowed ids, where z = hidden W^T /
//! temperature.

pub mod backward;
mod call;
mod forward;
pub(in crate::ops) mod gpu;
pub(in crate::ops) mod logits;
mod waves;

pub use backward::{Bwd, bwd};
pub use call::{LogProbCall, Outs};
pub use forward::fwd;

//! Log-probabilities of given tokens straight from hidden states and the output weight. Logits exist a tile at
//! a time in the forward and a slab of columns at a time in the backward, never as a whole.
//!
//! Shapes: T tokens, D hidden size, V vocabulary. The policy is softmax(z) over the allowed ids,
//! z = hidden W^T / temperature.

pub mod backward;
mod call;
mod forward;
pub(in crate::ops) mod gpu;
pub(in crate::ops) mod logits;
mod waves;

pub use backward::{Bwd, bwd};
pub use call::{Asked, Outs};
pub use forward::fwd;

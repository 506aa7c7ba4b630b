//! Sampling: argmax of z + Gumbel noise over the allowed ids, z = hidden W^T / temperature; greedy without the
//! noise. The log-prob that goes with a token is [`super::linear_logprob`]'s, bit for bit, whatever narrowed
//! the choice.

mod choose;
mod draw;
pub mod forward;
mod gpu;
mod params;

pub use draw::{Draw, Outs};
pub use forward::fwd;
pub use params::{NoiseKey, SamplingParams};

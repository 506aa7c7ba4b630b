//! Sampling: argmax of z + Gumbel noise over the allowed ids, where z = hidden W^T / temperature; greedy decoding omits
//! the noise. The log-prob of a token is bitwise identical to that of [`super::linear_logprob`], whatever filter
//! (top-k, top-p, min-p) limited the choice.

mod choose;
mod draw;
pub mod forward;
mod gpu;
mod params;
mod process;

pub use draw::{Draw, Outs, logit_columns};
pub use forward::fwd;
pub use params::{NoiseKey, SamplingParams};
pub use process::{
    Changes, LogprobsMode, Penalties, Ranked, RowCall, RowSample, TopLogprob, rank_row, sample_row, with_rows,
};

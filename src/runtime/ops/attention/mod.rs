//! Variable-length attention over packed sequences, causal or full, with grouped query heads. Forward uses the row
//! arithmetic of `attend`; backward recomputes the probabilities from the saved log-sum-exp.

mod backward;
mod blocks;
mod bwd_sm90a;
mod call;
mod forward;
pub(crate) mod launch;
pub mod launch_bwd;
pub(in crate::ops) mod names;
mod pair;
pub(crate) mod sm90a;
mod start_check;

pub use backward::bwd;
pub use call::{Bwd, Pack};
pub use forward::fwd;
pub use start_check::{wgmma_bwd_fault, wgmma_fault};

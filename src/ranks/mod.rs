//! Many processes, one run: what the ranks of a run do together, and which part of the optimizer's state is whose.
//!
//! The bits of a run are those of its lanes (`gradient_lanes`), never of its ranks: nothing here adds anything up. What
//! ranks hand each other is summed by whoever owns it, in the order of lanes (DESIGN section 10).

mod admission;
mod collectives;
mod meet;
mod nccl;
mod one_rank;
mod place;
mod plane;
mod secret;
pub mod shards;
mod tcp;
mod wire;

pub use collectives::{Ranks, agreed, agreed_at_last, by_first, first_finds, last_word};
pub use nccl::{CARD_OVERHEAD, Nccl};
pub use one_rank::{Handed, OneRank};
pub use place::{Launcher, Lookup, Place, restarts};
pub use secret::{Secret, VARIABLE as SECRET_VARIABLE};
pub use shards::Shards;
pub use tcp::{Start, Tcp, host_bytes};

//! The collectives of a run with many processes, and the division of the optimizer's state among its ranks.
//!
//! The results of a run depend on its gradient lanes (`gradient_lanes`), not on its ranks, so no collective in this
//! module sums values. Each element of the gradients has one owner, which receives the other ranks' parts and sums them
//! in the order of lanes (see `docs/dev/design/ranks.md`).

mod admission;
mod collectives;
mod descriptors;
mod meet;
mod nccl;
mod nodes;
mod one_rank;
mod place;
mod plane;
mod receive;
mod secret;
pub mod shards;
mod tcp;
pub mod wire;

pub use collectives::{Parts, Ranks, agreed, agreed_at_last, by_first, first_finds, report_failure};
pub use descriptors::reserve as reserve_files;
pub use meet::Start;
pub use nccl::{GPU_OVERHEAD, Nccl};
pub use nodes::NodeFlags;
pub use one_rank::{BytesExchanged, OneRank};
pub use place::{Launcher, Lookup, Place, environment, find, restarts};
pub use secret::{Secret, VARIABLE as SECRET_VARIABLE};
pub use shards::Shards;
pub use tcp::{Tcp, host_bytes, tell_early};

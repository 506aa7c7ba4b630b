//! Config keys for runs of several ranks: how ranks connect, exchange tensors and detect a lost rank.

use super::{Rule, Safe};

choice! {
    /// What the ranks' tensors go by.
    pub enum Backend {
        /// NCCL between cards, TCP elsewhere.
        Auto = "auto",
        /// From card to card, by NVIDIA's library.
        Nccl = "nccl",
        /// Through the host.
        Tcp = "tcp",
    }
}

settings! {
    /// The ranks of a run of many processes.
    pub struct DistConfig {
        /// What ranks hand each other gradients and weights by: auto is nccl between cards, else tcp. With nccl one rank has a
        /// communicator, too, in which it is alone. All else goes over TCP whatever is chosen.
        backend: Backend = Backend::Auto, safe: Safe::Yes, name: "Hugging Face ddp_backend";
        /// Port of rank 0's machine that the ranks meet at; null takes the one after MASTER_PORT (torchrun holds that itself).
        port: Option<u32> = None, rule: Rule::Within(1.0, 65_535.0), safe: Safe::Yes, name: "torchrun --master-port";
        /// A rank that does not come to what all do together, or to the start, within this many seconds ends the run.
        timeout_s: f64 = 1800.0, rule: Rule::Within(0.1, 1e7), safe: Safe::Yes,
            name: "Hugging Face ddp_timeout", published: "1800";
        /// A rank that is not heard of for this many seconds is lost. Beats come from a thread of their own, twice a second or
        /// more, however long the work takes: only a machine that is dead, cut off or out of memory misses them all.
        heartbeat_s: f64 = 30.0, rule: Rule::Within(0.1, 1e6), safe: Safe::Yes;
    }
}

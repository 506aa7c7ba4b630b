//! Config keys for runs of several ranks: how ranks connect, exchange tensors and detect a lost rank.

use super::{Rule, Safe};

choice! {
    /// Transport for tensors exchanged between ranks.
    pub enum Backend {
        /// NCCL between GPUs, TCP otherwise.
        Auto = "auto",
        /// NVIDIA's library NCCL, from GPU to GPU.
        Nccl = "nccl",
        /// Through host memory, with TCP.
        Tcp = "tcp",
    }
}

settings! {
    /// Settings for a run of several ranks.
    pub struct DistConfig {
        /// Transport for gradients and weights between ranks: auto uses NCCL between GPUs and TCP otherwise. With nccl,
        /// a run of one rank also creates an NCCL communicator. All other messages use TCP.
        backend: Backend = Backend::Auto, safe: Safe::Yes, name: "Hugging Face ddp_backend";
        /// Backward continues while gradients are exchanged between GPUs. false: it waits, so that the exchange
        /// takes no multiprocessors from it. The results are the same.
        overlap: bool = true, safe: Safe::Yes;
        /// Port on the machine of rank 0 at which the ranks connect. null = MASTER_PORT + 1, because torchrun itself
        /// uses MASTER_PORT.
        port: Option<u32> = None, rule: Rule::Within(1.0, 65_535.0), safe: Safe::Yes, name: "torchrun --master-port";
        /// Time limit in seconds for a collective operation and for the connection at the start. If a rank does not
        /// take part in time, the run ends with an error.
        timeout_s: f64 = 1800.0, rule: Rule::Within(0.1, 1e7), safe: Safe::Yes,
            name: "Hugging Face ddp_timeout", published: "1800";
        /// Time in seconds without a heartbeat after which a rank counts as lost. Heartbeats are sent at least twice
        /// per second by a separate thread, so long computations do not delay them.
        heartbeat_s: f64 = 30.0, rule: Rule::Within(0.1, 1e6), safe: Safe::Yes;
    }
}

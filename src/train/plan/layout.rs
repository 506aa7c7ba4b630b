//! Distribution of a run over several GPUs: which GPU computes which gradient lanes, the bytes they exchange, and the
//! host memory.

use std::cmp::Reverse;

use super::gpus::{Ceilings, Links, NODE};
use crate::training::plan::Planned;
use omr_base::config::{Dtype, OptimConfig};
use omr_runtime::device::{Region, readback};
use omr_runtime::ranks::{self, BytesExchanged, OneRank};

/// GPUs of a plan, one per rank.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GpuLayout {
    /// Number of GPUs.
    pub count: usize,
    /// Number of gradient lanes.
    pub lanes: usize,
    /// Rank that needs the most memory.
    pub fullest: OneRank,
    /// Bytes of the optimizer state on all ranks together.
    pub state: usize,
}

/// Settings for storing and updating weights.
#[derive(Clone, PartialEq, Debug)]
pub struct Weights {
    /// Storage type of weights and activations.
    pub dtype: Dtype,
    /// Settings of the optimizer.
    pub optimizer: OptimConfig,
}

impl GpuLayout {
    /// Distributes `lanes` gradient lanes over GPUs that own these bytes of the optimizer state, by rank.
    pub fn new(lanes: usize, owned: &[usize]) -> GpuLayout {
        let count = owned.len();
        let most = (0..count).max_by_key(|&rank| (owned[rank], Reverse(rank))).unwrap_or(0);
        GpuLayout { count, lanes, fullest: OneRank::new(most, count), state: owned.iter().sum() }
    }

    /// Returns the seconds in which a GPU exchanges `handed` with all others. Traffic between nodes runs in parallel with
    /// traffic inside the node. The result is for a GPU in the smallest node, which is the slowest because it has the
    /// most peers in other nodes.
    pub fn links(&self, handed: BytesExchanged, links: &Links) -> f64 {
        let (others, near) = ((self.count - 1).max(1) as f64, (self.count.min(NODE) - 1) as f64 / links.node);
        let smallest = (self.count - 1) % NODE + 1;
        let far = (self.count - smallest) as f64 / links.network;
        handed.sent.max(handed.received) as f64 / others * near.max(far)
    }

    /// Returns the host memory of a process for exchanging, saving and offloaded optimizer state.
    pub fn host(&self, planned: &Planned) -> Vec<(&'static str, usize)> {
        // One tensor at a time is read from the GPU. It is reordered and encoded in small blocks.
        let mut out = vec![("a checkpoint", readback::HOST_BYTES + planned.update.largest_saved)];
        let state = planned.memory.bytes(Region::Host);
        if state > 0 {
            out.push(("optimizer state", state));
        }
        if self.count > 1 {
            out.push(("what goes over TCP", ranks::host_bytes(self.count)));
        }
        out
    }
}

/// Names GPUs like `64 H100 in 8 nodes of 8`.
pub fn named(count: usize, ceilings: &Ceilings) -> String {
    match count {
        1 => format!("one {}", ceilings.name),
        n if n <= NODE => format!("{n} {} in one node", ceilings.name),
        n => format!("{n} {} in {} nodes of {NODE}", ceilings.name, n.div_ceil(NODE)),
    }
}

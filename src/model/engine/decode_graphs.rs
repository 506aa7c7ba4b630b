//! Captured decode steps on a GPU (CUDA graphs), by batch size. A captured step is a single launch for the host.
//! Batches are padded to a few sizes with sequences of one token, whose keys go to a block that is never read.

use std::collections::HashMap;

use crate::nn::weights::linear_layer::Adapted;
use omr_base::error::{Error, Result};
use omr_runtime::device::{Device, Driver, Graph, Mark, Stream};
use omr_runtime::tensor::Tensor;

/// Returns the size to which a batch of `n` sequences is padded. The sizes are few enough to capture and dense enough
/// to waste little.
pub(super) fn padded_size(n: usize) -> usize {
    match n {
        0..=8 => n.next_power_of_two(),
        9..=64 => n.next_multiple_of(8),
        _ => n.next_multiple_of(32),
    }
}

/// The values on which a captured step depends, apart from the caches and weights, which never move.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Key {
    /// Number of sequences.
    pub size: usize,
    /// Top of the workspace at the beginning of the step.
    pub mark: Mark,
    /// Ids that may be sampled.
    pub allowed: Option<Tensor>,
    /// True if some keys are read once for several sequences. This adds a launch to each layer.
    pub shares: bool,
    /// Tokens to which adapters apply.
    pub adapted: Adapted<()>,
}

/// The captured steps.
#[derive(Debug, Default)]
pub(super) struct DecodeGraphs {
    captured: HashMap<Key, Graph>,
}

fn driver(dev: &mut Device) -> Result<&mut dyn Driver> {
    dev.driver().ok_or_else(|| Error::Failed("only a GPU can capture graphs".into()))
}

impl DecodeGraphs {
    /// Runs `step` by replaying the graph captured under `key`, and captures it first if necessary. `step` may only
    /// launch kernels, so its inputs must be uploaded before.
    pub fn run(&mut self, dev: &mut Device, key: Key, step: impl FnOnce(&mut Device) -> Result<()>) -> Result<()> {
        let graph = match self.captured.get(&key) {
            Some(graph) => *graph,
            None => {
                driver(dev)?.begin_capture(Stream::COMPUTE)?;
                let done = step(dev);
                let graph = driver(dev)?.end_capture(Stream::COMPUTE);
                done?;
                let graph = graph?;
                self.captured.insert(key, graph);
                graph
            }
        };
        driver(dev)?.replay(graph, Stream::COMPUTE)
    }

    /// Frees the graphs.
    pub fn release(self, dev: &mut Device) {
        if let Some(driver) = dev.driver() {
            self.captured.into_values().for_each(|graph| driver.drop_graph(graph));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::padded_size;

    #[test]
    fn sizes_hold_the_batch_and_waste_little() {
        for n in 1..2000 {
            let size = padded_size(n);
            assert!(size >= n && size < 2 * n, "{n} to {size}");
            assert_eq!(padded_size(size), size);
        }
        let sizes: std::collections::BTreeSet<usize> = (1..=256).map(padded_size).collect();
        assert_eq!(sizes.len(), 17);
    }
}

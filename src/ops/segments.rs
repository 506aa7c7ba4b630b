//! Positions of an index list, sorted by index, for sums in a fixed order on a GPU.

use crate::device::{Device, Region};
use crate::error::Result;
use crate::tensor::Tensor;

/// Positions of each index in a list. `embedding::bwd` and `rows::scatter_add` on a GPU use them to compute every row as
/// one sum in a fixed order. The CPU groups the indices itself and leaves this empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segments {
    /// Positions `[T]` u32, sorted by id, equal ids ascending; empty on the CPU.
    pub(super) positions: Tensor,
    /// Distinct ids and the index in `positions` where each id's positions begin: `[T, 2]` u32, of which `count` rows
    /// are used.
    pub(super) ids: Tensor,
    pub(super) count: usize,
}

impl Segments {
    /// Sorts `ids` and copies the result to the device. The memory use depends only on the number of ids.
    pub fn upload(dev: &mut Device, region: Region, ids: &[u32]) -> Result<Segments> {
        let ids = if dev.kind().is_gpu() { ids } else { &[] };
        let mut positions: Vec<u32> = (0..ids.len() as u32).collect();
        positions.sort_by_key(|&t| ids[t as usize]);
        let mut starts: Vec<u32> = Vec::new();
        for (at, &t) in positions.iter().enumerate() {
            let id = ids[t as usize];
            if at == 0 || id != ids[positions[at - 1] as usize] {
                starts.extend([id, at as u32]);
            }
        }
        let count = starts.len() / 2;
        starts.resize(2 * ids.len(), 0);
        Ok(Segments {
            positions: dev.upload(region, &positions, &[ids.len()])?,
            ids: dev.upload(region, &starts, &[ids.len(), 2])?,
            count,
        })
    }
}

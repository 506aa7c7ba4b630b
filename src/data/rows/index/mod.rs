//! Sizes of samples, a few bytes each, independent of their content. The order, the packing and the memory plan are
//! computed from this index alone.

pub mod dataset;
pub(crate) mod decoded;
pub mod held_out;
pub mod indexing;
pub(crate) mod places;
pub mod stored_index;

use std::ops::Range;
use std::sync::Arc;

use crate::image::{Grid, ImageInput};

/// Number of grids whose sides are copied at once for hashing.
const HASHED: usize = 4096;

/// Size of one sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape<'a> {
    /// Number of tokens, with images expanded.
    pub tokens: usize,
    /// Number of tokens whose prediction is trained; 0 for a prompt.
    pub targets: usize,
    /// Patch grids of the images and videos, in order.
    pub grids: &'a [Grid],
}

impl Shape<'_> {
    /// Returns the number of patches of all images and videos.
    pub fn patches(&self) -> usize {
        self.grids.iter().map(|grid| grid.patches()).sum()
    }
}

/// Sizes of samples, by index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index {
    tokens: Vec<u32>,
    targets: Vec<u32>,
    /// End of each sample's grids in `grids`.
    ends: Vec<u32>,
    grids: Vec<Grid>,
    /// Permutation: stored number of the sample at each position. Empty means identity.
    order: Vec<u32>,
}

impl Index {
    /// Adds one sample.
    pub fn push(&mut self, shape: Shape<'_>) {
        self.tokens.push(shape.tokens as u32);
        self.targets.push(shape.targets as u32);
        self.grids.extend_from_slice(shape.grids);
        self.ends.push(self.grids.len() as u32);
    }

    /// Returns the same sizes with the samples in this order. A number may occur several times or not at all.
    pub fn ordered(mut self, order: Vec<u32>) -> Index {
        let identity = order.len() == self.tokens.len() && order.iter().enumerate().all(|(i, &k)| i == k as usize);
        self.order = if identity { Vec::new() } else { order };
        self
    }

    /// Returns the number of samples.
    pub fn len(&self) -> usize {
        if self.order.is_empty() { self.tokens.len() } else { self.order.len() }
    }

    /// Returns true if there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number that sample `i` had before [`Index::ordered`].
    pub fn number(&self, i: usize) -> usize {
        self.order.get(i).map_or(i, |&k| k as usize)
    }

    /// Returns the number of tokens of sample `i`.
    pub fn tokens(&self, i: usize) -> usize {
        self.tokens[self.number(i)] as usize
    }

    /// Returns the size of sample `i`.
    pub fn shape(&self, i: usize) -> Shape<'_> {
        let k = self.number(i);
        Shape { tokens: self.tokens[k] as usize, targets: self.targets[k] as usize, grids: &self.grids[self.images(k)] }
    }

    /// Returns the sizes of all samples, in order.
    pub fn shapes(&self) -> impl Iterator<Item = Shape<'_>> {
        (0..self.len()).map(|i| self.shape(i))
    }

    /// Returns the range of sample number `k`'s images and videos in the list of the images and videos of all samples.
    pub fn images(&self, k: usize) -> Range<usize> {
        let from = if k == 0 { 0 } else { self.ends[k - 1] as usize };
        from..self.ends[k] as usize
    }

    /// Returns the content as one byte array per field. [`Index::from_arrays`] reads them.
    pub(crate) fn arrays(&self) -> [&[u8]; 4] {
        let [tokens, targets, ends] = [&self.tokens, &self.targets, &self.ends].map(|all| bytemuck::cast_slice(all));
        [tokens, targets, ends, bytemuck::cast_slice(&self.grids)]
    }

    /// Adds everything that distinguishes the sizes to `hasher`: tokens, targets and counts, the height and width of
    /// images, and the number of frames if there are videos.
    pub(crate) fn hash(&self, hasher: &mut blake3::Hasher) {
        let [tokens, targets, ends, _] = self.arrays();
        for array in [tokens, targets, ends] {
            hasher.update(array);
        }
        for grids in self.grids.chunks(HASHED) {
            let sides: Vec<[u16; 2]> = grids.iter().map(|grid| [grid.h, grid.w]).collect();
            hasher.update(bytemuck::cast_slice(&sides));
        }
        if self.grids.iter().any(|grid| grid.is_video()) {
            for grid in &self.grids {
                hasher.update(&grid.frames.to_le_bytes());
            }
        }
    }

    /// Creates an index from the bytes of [`Index::arrays`]. Returns `None` if the arrays do not match one another.
    pub(crate) fn from_arrays([tokens, targets, ends, grids]: [&[u8]; 4]) -> Option<Index> {
        let [tokens, targets, ends] = [tokens, targets, ends].map(bytemuck::pod_collect_to_vec::<u8, u32>);
        let index = Index { tokens, targets, ends, grids: bytemuck::pod_collect_to_vec(grids), order: Vec::new() };
        let n = index.tokens.len();
        let fits = index.targets.len() == n && index.ends.len() == n && index.ends.is_sorted();
        (fits && index.ends.last().map_or(0, |&end| end as usize) == index.grids.len()).then_some(index)
    }
}

/// Returns the grids of a sample's images and videos.
pub fn grids(images: &[Arc<ImageInput>]) -> Vec<Grid> {
    images.iter().map(|image| image.grid()).collect()
}

//! What a plan knows of samples: their sizes, some bytes each, whatever the samples hold. Order, packing and memory
//! are worked out from it alone.

use std::sync::Arc;

use crate::image::ImageInput;

/// A picture's patches, down and across.
pub type Grid = [u16; 2];

/// The size of one sample.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape<'a> {
    /// Tokens, pictures expanded.
    pub tokens: usize,
    /// Tokens whose prediction is trained; 0 for a prompt.
    pub targets: usize,
    /// Its pictures, in order.
    pub grids: &'a [Grid],
}

impl Shape<'_> {
    /// Patches of all pictures.
    pub fn patches(&self) -> usize {
        self.grids.iter().map(|g| g.map(usize::from).iter().product::<usize>()).sum()
    }
}

/// Sizes of samples, by index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Index {
    tokens: Vec<u32>,
    targets: Vec<u32>,
    /// Where each sample's grids end.
    ends: Vec<u32>,
    grids: Vec<Grid>,
}

impl Index {
    /// One sample more.
    pub fn push(&mut self, shape: Shape<'_>) {
        self.tokens.push(shape.tokens as u32);
        self.targets.push(shape.targets as u32);
        self.grids.extend_from_slice(shape.grids);
        self.ends.push(self.grids.len() as u32);
    }

    /// Samples.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Tokens of sample `i`.
    pub fn tokens(&self, i: usize) -> usize {
        self.tokens[i] as usize
    }

    /// The size of sample `i`.
    pub fn shape(&self, i: usize) -> Shape<'_> {
        let from = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        let grids = &self.grids[from..self.ends[i] as usize];
        Shape { tokens: self.tokens(i), targets: self.targets[i] as usize, grids }
    }

    /// Sizes of all samples, in order.
    pub fn shapes(&self) -> impl Iterator<Item = Shape<'_>> {
        (0..self.len()).map(|i| self.shape(i))
    }
}

/// The grids of a sample's pictures.
pub fn grids(images: &[Arc<ImageInput>]) -> Vec<Grid> {
    // Bounded decoding and the processor's limits leave fewer than 2^16 patches along a side.
    images.iter().map(|image| [image.grid_thw[1] as u16, image.grid_thw[2] as u16]).collect()
}

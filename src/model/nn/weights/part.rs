//! The parts of a model to which its parameters belong. Whoever creates a parameter names its part. Freezing, learning
//! rates, gradients, adapters and moments depend on it.

use std::cmp::Reverse;

/// Part of a model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The token table.
    Table,
    /// A layer of the decoder.
    Layer(usize),
    /// The last norm, and the output matrix if it is not the token table.
    Head,
    /// The vision tower without its merger.
    Tower,
    /// The merger, which projects the tower's rows to the decoder.
    Merger,
}

/// Values of a parameter in a new model.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Init {
    /// Random, with the standard deviation of the configuration.
    Normal,
    /// 0.
    Zeros,
    /// 1.
    Ones,
}

/// Parts whose gradients are complete at the same time in backward. The order is the order of backward.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Bucket {
    /// The last norm and the output matrix.
    Head,
    /// A layer of the decoder. The last layer is the first in backward.
    Layer(Reverse<usize>),
    /// The vision tower with its merger.
    Tower,
    /// The token table.
    Table,
}

impl Part {
    /// Returns true for the parts that compute token rows of images.
    pub fn is_vision(self) -> bool {
        matches!(self, Part::Tower | Part::Merger)
    }

    /// Returns the bucket of the part.
    pub fn bucket(self) -> Bucket {
        match self {
            Part::Head => Bucket::Head,
            Part::Layer(layer) => Bucket::Layer(Reverse(layer)),
            Part::Tower | Part::Merger => Bucket::Tower,
            Part::Table => Bucket::Table,
        }
    }
}

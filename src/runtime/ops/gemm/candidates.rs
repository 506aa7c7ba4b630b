//! Candidates: kernels of kernels/candidates_sm90a.cu, and orders of tiles, that may replace those of a product. They give
//! the same bits. A program has them if it is built with the feature `candidates`. `omr bench --candidate` measures them on
//! a GPU; no job uses them.

use std::fmt;

use super::config::{GemmConfig, RASTER, config};

/// Name of the file of the kernels.
pub(super) const FILE: &str = "candidates_sm90a";

/// A tile of 128 x 192 in five stages.
const MID: GemmConfig = config(0, 128, 192, [5, 1], 64);
/// Tiles of 128 x 256 of two CTAs, which share the loads of W.
const PAIR: GemmConfig = GemmConfig { cluster: 2, ..config(0, 128, 256, [4, 1], 64) };

/// A kernel or an order of tiles that may replace that of a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// Name of the kernel, or of the order.
    pub name: &'static str,
    /// Benchmark that measures the product.
    pub case: &'static str,
    /// The product.
    pub(in crate::ops) product: Product,
    /// Tile of the kernel, or `None` if the usual kernels run with another order of tiles.
    pub(super) config: Option<GemmConfig>,
    /// Rows of tiles that are traversed together.
    pub(super) raster: i32,
}

/// A product with candidates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ops) enum Product {
    Linear,
    SwiGlu,
    Dgrad,
    Wgrad,
}

impl Product {
    /// Returns the name of its kernel for the largest tile, and its benchmark.
    const fn facts(self) -> (&'static str, &'static str) {
        match self {
            Product::Linear => ("linear_wide", "linear fwd"),
            Product::SwiGlu => ("linear_swiglu_wide", "swiglu linear fwd"),
            Product::Dgrad => ("linear_dgrad_wide", "linear dgrad"),
            Product::Wgrad => ("linear_wgrad_wide", "linear wgrad"),
        }
    }
}

impl Candidate {
    const fn new(name: &'static str, product: Product, config: Option<GemmConfig>) -> Candidate {
        Candidate { name, case: product.facts().1, product, config, raster: RASTER }
    }

    const fn raster16(name: &'static str, product: Product) -> Candidate {
        Candidate { raster: 16, ..Candidate::new(name, product, None) }
    }

    /// Returns the candidate with this name, if it is for the product whose kernel for the largest tile is `wide`.
    pub(super) fn of(name: &str, wide: &str) -> Option<&'static Candidate> {
        let replaces = |of: &&Candidate| of.name == name && of.product.facts().0 == wide;
        candidates().iter().find(replaces)
    }
}

impl fmt::Display for Candidate {
    /// Writes CASE=KERNEL, as `omr bench --candidate` takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.case, self.name)
    }
}

const ALL: [Candidate; 12] = [
    Candidate::raster16("linear_raster16", Product::Linear),
    Candidate::new("linear_mid", Product::Linear, Some(MID)),
    Candidate::new("linear_pair", Product::Linear, Some(PAIR)),
    Candidate::raster16("linear_swiglu_raster16", Product::SwiGlu),
    Candidate::new("linear_swiglu_mid", Product::SwiGlu, Some(MID)),
    Candidate::new("linear_swiglu_pair", Product::SwiGlu, Some(PAIR)),
    Candidate::raster16("linear_dgrad_raster16", Product::Dgrad),
    Candidate::new("linear_dgrad_mid", Product::Dgrad, Some(MID)),
    Candidate::new("linear_dgrad_pair", Product::Dgrad, Some(PAIR)),
    Candidate::raster16("linear_wgrad_raster16", Product::Wgrad),
    Candidate::new("linear_wgrad_mid", Product::Wgrad, Some(MID)),
    Candidate::new("linear_wgrad_pair", Product::Wgrad, Some(PAIR)),
];

/// Returns the candidates of this program: none unless it is built with the feature `candidates`.
pub const fn candidates() -> &'static [Candidate] {
    if cfg!(feature = "candidates") { &ALL } else { &[] }
}

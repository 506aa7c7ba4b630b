//! The two kernel variants of matrix products and attention on a GPU, and the kernels that use them.

use std::collections::BTreeSet;
use std::fmt;

use omr_base::choice::choice;

choice! {
    /// Kernel variant of matrix products. A run never changes it, so sampling, training and checkpoints use the same
    /// arithmetic.
    pub enum KernelVariant {
        /// kernels/common/gemm.cuh, for every GPU.
        Mma = "mma.sync",
        /// kernels/common/gemm_sm90a.cuh, for compute capability 9.0.
        Wgmma = "wgmma",
    }
}

impl KernelVariant {
    /// Returns the text that checkpoints record: the name and a version. The version increases whenever the order of
    /// summation in products changes.
    pub fn recorded(self) -> &'static str {
        match self {
            // Version 1 summed dK and dV in steps of 64 rows, regardless of which tokens the rows belong to.
            KernelVariant::Mma => "mma.sync/2",
            // Version 1 computed gradients with mma.sync. Version 2 summed as mma.sync/1 does.
            KernelVariant::Wgmma => "wgmma/3",
        }
    }

    /// Returns the variant with this name. A version suffix is ignored.
    pub fn named(name: &str) -> Option<KernelVariant> {
        name.split('/').next()?.parse().ok()
    }
}

/// Kernels that run by wgmma or, if the start check refuses them, by `mma.sync`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum WgmmaKernels {
    /// Matrix products. If they are refused, every other kernel uses `mma.sync`, too.
    Products,
    /// Attention with this head size: training, prefill and decode. If it is refused, its backward pass is, too.
    Attention(usize),
    /// The backward pass of attention with this head size.
    AttentionBwd(usize),
}

impl WgmmaKernels {
    /// Returns the kernels that the kernel `name` of kernels/ belongs to if it is a wgmma kernel.
    pub fn of(name: &str) -> WgmmaKernels {
        let dim = name.rsplit_once("_hd").and_then(|(_, dim)| dim.parse().ok());
        match dim {
            Some(dim) if name.starts_with("attention_bwd") => WgmmaKernels::AttentionBwd(dim),
            Some(dim) => WgmmaKernels::Attention(dim),
            None => WgmmaKernels::Products,
        }
    }
}

impl fmt::Display for WgmmaKernels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WgmmaKernels::Products => write!(f, "matrix products"),
            WgmmaKernels::Attention(dim) => write!(f, "attention of head size {dim}"),
            WgmmaKernels::AttentionBwd(dim) => write!(f, "the backward pass of attention of head size {dim}"),
        }
    }
}

/// The kernel variants of a GPU backend.
#[derive(Debug)]
pub(super) struct Variants {
    /// The selected variant.
    pub selected: KernelVariant,
    /// True if the user has selected it.
    pub is_requested: bool,
    /// Kernels that use `mma.sync` although wgmma is selected.
    pub refused: BTreeSet<WgmmaKernels>,
    /// Name of the kernel that replaces one of a product.
    pub candidate: Option<&'static str>,
}

impl Variants {
    /// `mma.sync`, which every GPU supports.
    pub const fn new() -> Variants {
        Variants { selected: KernelVariant::Mma, is_requested: false, refused: BTreeSet::new(), candidate: None }
    }

    /// Returns true if `kernels` use wgmma.
    pub fn use_wgmma(&self, kernels: WgmmaKernels) -> bool {
        let allowed = |kernels| !self.refused.contains(&kernels);
        self.selected == KernelVariant::Wgmma
            && allowed(WgmmaKernels::Products)
            && match kernels {
                WgmmaKernels::AttentionBwd(dim) => allowed(kernels) && allowed(WgmmaKernels::Attention(dim)),
                _ => allowed(kernels),
            }
    }
}

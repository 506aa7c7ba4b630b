//! Kernels by the head dimension that they keep in shared memory.

/// Kernels by mma.sync, ascending by head dimension.
pub(in crate::ops) type ByDim = [(usize, &'static str); 5];

/// [`ByDim`] from what the names begin with.
macro_rules! by_dim {
    ($base:literal) => {
        [
            (16, concat!($base, "_hd16")),
            (32, concat!($base, "_hd32")),
            (64, concat!($base, "_hd64")),
            (80, concat!($base, "_hd80")),
            (128, concat!($base, "_hd128")),
        ]
    };
}
pub(in crate::ops) use by_dim;

/// The first kernel that holds heads of `dim` elements, with the head dimension it keeps.
pub(in crate::ops) fn holding(kernels: &ByDim, dim: usize) -> (usize, &'static str) {
    kernels.iter().copied().find(|(kept, _)| dim <= *kept).unwrap_or(kernels[kernels.len() - 1])
}

/// Kernels by wgmma, each for heads of one dimension.
pub(in crate::ops) struct WideKernels {
    /// Their file: `attention_sm90a` for kernels/attention_sm90a.cu.
    pub file: &'static str,
    /// Each with its head dimension.
    pub names: [(usize, &'static str); 2],
}

impl WideKernels {
    /// The kernel for heads of `dim` elements.
    pub fn of(&self, dim: usize) -> Option<&'static str> {
        self.names.iter().find(|(exact, _)| *exact == dim).map(|(_, kernel)| *kernel)
    }
}

/// [`WideKernels`] from their file and what the names begin with.
macro_rules! wide_kernels {
    ($file:literal, $base:literal) => {
        $crate::ops::attention::names::WideKernels {
            file: $file,
            names: [(80, concat!($base, "_hd80")), (128, concat!($base, "_hd128"))],
        }
    };
}
pub(in crate::ops) use wide_kernels;

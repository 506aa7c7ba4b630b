//! Names of the attention kernels by head dimension, and the slots and shared memory of their CTAs
//! (kernels/common/attend_tile.cuh).

use crate::ops::check;
use omr_base::error::Result;

/// Names of the `mma.sync` kernels, in ascending order of the largest head dimension each one supports.
pub(in crate::ops) type ByDim = [(usize, &'static str); 5];

/// Makes a [`ByDim`] from the common prefix of the names.
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

/// Returns the first kernel that supports heads of `dim` elements, with its largest head dimension.
pub(in crate::ops) fn holding(kernels: &ByDim, dim: usize) -> (usize, &'static str) {
    kernels.iter().copied().find(|(kept, _)| dim <= *kept).unwrap_or(kernels[kernels.len() - 1])
}

/// Names of the wgmma kernels, each for heads of exactly one dimension.
pub(in crate::ops) struct WideKernels {
    /// Name of the kernels' file without extension: `attention_sm90a` for kernels/attention_sm90a.cu.
    pub file: &'static str,
    /// Head dimension and name of each kernel.
    pub names: [(usize, &'static str); 2],
}

impl WideKernels {
    /// Returns the kernel for heads of `dim` elements, if there is one.
    pub fn of(&self, dim: usize) -> Option<&'static str> {
        self.names.iter().find(|(exact, _)| *exact == dim).map(|(_, kernel)| *kernel)
    }
}

/// Makes [`WideKernels`] from the file and the common prefix of the names.
macro_rules! wide_kernels {
    ($file:literal, $base:literal) => {
        $crate::ops::attention::names::WideKernels {
            file: $file,
            names: [(80, concat!($base, "_hd80")), (128, concat!($base, "_hd128"))],
        }
    };
}
pub(in crate::ops) use wide_kernels;

/// Returns the maximum number of slots that `tokens` tokens in `sequences` sequences fill. A slot is a place in the
/// grid for up to `rows` rows of one sequence (`attend::sequence_of`).
pub(crate) fn num_slots(op: &'static str, tokens: usize, sequences: usize, group: usize, rows: usize) -> Result<u32> {
    check::count(op, "rows of a key head", tokens * group)?;
    check::grid(op, tokens * group / rows + sequences)
}

/// Returns the bytes of `rows` rows of bf16 in shared memory, each padded by 16 bytes (`attend::PITCH`).
pub(crate) fn shared_rows(rows: usize, dim: usize) -> usize {
    rows * (dim + 8) * 2
}

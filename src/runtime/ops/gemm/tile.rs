//! Tiles of kernels/common/gemm.cuh, the names of their kernels, and the operands that all products have.

use super::config::{BLOCK_K, Role};
use super::sm90a::{WideKernels, WideNames};
use crate::device::{Launch, Params, params};
use crate::ops::check;
use crate::ops::input::{Input, Pair};
use crate::ops::linear_logprob::logits::SEGMENT;
use crate::ops::matmul::{Order, Weight, row_stride};
use omr_base::error::Result;

/// Threads of a CTA, for every tile.
pub(super) const THREADS: usize = 128;

/// Size of a tile of kernels/common/gemm.cuh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Index of the tile in a kernel's [`Names`].
    pub(in crate::ops) index: usize,
    /// Rows of a CTA's tile.
    pub rows: usize,
    pub(in crate::ops) cols: usize,
    stages: usize,
}

/// The tiles `TileM16`, `TileM64` and `TileM128`.
pub const TILES: [Tile; 3] = [
    Tile { index: 0, rows: 16, cols: 64, stages: 8 },
    Tile { index: 1, rows: 64, cols: 64, stages: 5 },
    Tile { index: 2, rows: 128, cols: 128, stages: 3 },
];

impl Tile {
    /// Returns the tile for `t` tokens. Up to 128 tokens (decode), a product is limited by reading its weight, and
    /// smaller tiles keep more multiprocessors busy: for 128 tokens, a weight of 3,584 rows gives 28 tiles of 128 x 128
    /// but 112 tiles of 64 x 64.
    pub fn of(t: usize) -> Tile {
        TILES[match t {
            ..=16 => 0,
            17..=128 => 1,
            _ => 2,
        }]
    }

    /// Returns the tile of at most 64 rows for `t` tokens, for products with few columns.
    pub fn narrow(t: usize) -> Tile {
        Tile::of(t.min(128))
    }

    /// Returns the tile of the logits of `t` tokens (kernels/common/logits.cuh): the shortest one that covers all rows, or
    /// else the largest one. Its columns are one segment.
    pub fn logits(t: usize) -> Tile {
        let (index, stages) = match t {
            ..=16 => (0, 4),
            17..=64 => (1, 3),
            _ => (2, 3),
        };
        Tile { cols: SEGMENT, stages, ..TILES[index] }
    }

    /// Returns the bytes of shared memory: the ring of stages, which the finished sums reuse.
    pub fn smem(&self) -> usize {
        (self.stages * (self.rows + self.cols) * BLOCK_K * 2).max(self.rows * (self.cols + 8) * 4)
    }

    /// Returns the launch over `t` rows and `n` columns.
    pub fn launch(&self, op: &'static str, t: usize, n: usize) -> Result<Launch> {
        check::launch(op, t.div_ceil(self.rows) * n.div_ceil(self.cols), THREADS, self.smem())
    }
}

/// Names of a kernel for each tile.
pub(super) type Names = [&'static str; 3];

/// Makes [`Names`] from the common prefix of the names.
macro_rules! tile_names {
    ($base:literal) => {
        [concat!($base, "_m16"), concat!($base, "_m64"), concat!($base, "_m128")]
    };
}
pub(in crate::ops) use tile_names;

/// Kernel names of an epilogue by tile, for both kernel variants.
pub(in crate::ops) struct KernelNames {
    /// Names of the `mma.sync` kernels (kernels/common/gemm.cuh).
    pub tiles: Names,
    /// Names of the wgmma kernels (kernels/common/gemm_sm90a.cuh).
    pub wide: WideNames,
    /// Role, which determines the available wgmma tiles.
    pub role: Role,
}

impl KernelNames {
    /// Returns the wgmma kernels, which are in `file`.
    pub fn wide(&self, file: &'static str) -> WideKernels {
        WideKernels { file, names: self.wide, role: self.role }
    }
}

/// Makes [`KernelNames`] from the common prefix of the names.
macro_rules! kernel_names {
    ($base:literal, $role:expr) => {
        $crate::ops::gemm::KernelNames {
            tiles: $crate::ops::gemm::tile_names!($base),
            wide: $crate::ops::gemm::wide_names!($base),
            role: $role,
        }
    };
}
pub(in crate::ops) use kernel_names;

/// Name of the file of the wgmma kernels.
pub(super) const SM90A: &str = "gemm_sm90a";

/// Returns `gemm::Operands` for x `[T, K]` and w `[N, K]`, with the second pair of x if there is one. Returns an error if
/// the kernels do not support them.
pub(in crate::ops) fn operands(op: &'static str, x: impl Into<Input>, w: &Weight) -> Result<Params> {
    let Input { x, pair } = x.into();
    check::gpu_compute(op, w.dtype())?;
    check::that(op, w.order == Order::Rows, "a weight in row order", format!("{:?}", w.order))?;
    let (rows, cols) = (check::count(op, "rows", x.rows())?, check::count(op, "columns", w.n)?);
    let (depth, ld) = (w.k as i32, check::count(op, "columns", row_stride(w.k))?);
    Ok(params!(gemm::Operands { x, w: w.data, rows, cols, depth, ld, more: more(pair) }))
}

/// Returns `gemm::Pair` of the second pair of a product.
pub(super) fn more(pair: Option<Pair>) -> Params {
    let (x, w) = pair.map(|pair| (pair.left, pair.right.data)).unzip();
    let sizes = |pair: Pair| [pair.left.cols() as i32, row_stride(pair.right.k) as i32];
    let [depth, ld] = pair.map_or([0; 2], sizes);
    params!(gemm::Pair { x, w, depth, ld })
}

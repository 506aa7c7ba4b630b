//! Tiles of kernels/common/gemm.cuh, the kernels that have them, and the operands that all products take.

use super::config::{BLOCK_K, Role};
use super::sm90a::WideNames;
use crate::device::{Launch, Params, params};
use crate::error::Result;
use crate::ops::check;
use crate::ops::matmul::{Order, Weight, row_stride};
use crate::tensor::Tensor;

/// Threads of every tile's CTA.
pub(super) const THREADS: usize = 128;

/// A tile of kernels/common/gemm.cuh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ops) struct Tile {
    /// Where it stands in a kernel's [`Names`].
    pub(super) index: usize,
    rows: usize,
    cols: usize,
    stages: usize,
}

/// `TileM16`, `TileM64` and `TileM128`.
pub(super) const TILES: [Tile; 3] = [
    Tile { index: 0, rows: 16, cols: 64, stages: 8 },
    Tile { index: 1, rows: 64, cols: 64, stages: 5 },
    Tile { index: 2, rows: 128, cols: 128, stages: 3 },
];

impl Tile {
    /// The tile for `t` tokens. Up to 128 (decode) a product is bound by reading its weight, and 64 columns a CTA keep
    /// more multiprocessors at it: a weight of 3,584 rows makes 28 tall tiles for them, and 112 middle ones.
    pub fn of(t: usize) -> Tile {
        TILES[match t {
            ..=16 => 0,
            17..=128 => 1,
            _ => 2,
        }]
    }

    /// Bytes of shared memory: the ring of stages, and the finished sums over it.
    fn smem(&self) -> usize {
        (self.stages * (self.rows + self.cols) * BLOCK_K * 2).max(self.rows * (self.cols + 8) * 4)
    }

    /// The launch over `t` rows and `n` columns.
    pub fn launch(&self, op: &'static str, t: usize, n: usize) -> Result<Launch> {
        check::launch(op, t.div_ceil(self.rows) * n.div_ceil(self.cols), THREADS, self.smem())
    }
}

/// A kernel for each tile.
pub(super) type Names = [&'static str; 3];

/// [`Names`] from what they begin with.
macro_rules! tile_names {
    ($base:literal) => {
        [concat!($base, "_m16"), concat!($base, "_m64"), concat!($base, "_m128")]
    };
}
pub(in crate::ops) use tile_names;

/// The kernels of an epilogue, by tile: of both bodies.
pub(in crate::ops) struct Bodies {
    /// Of kernels/common/gemm.cuh.
    pub tiles: Names,
    /// Of kernels/common/gemm_sm90a.cuh.
    pub wide: WideNames,
    /// Which of its tiles there are.
    pub role: Role,
}

/// [`Bodies`] from what their names begin with.
macro_rules! bodies {
    ($base:literal, $role:expr) => {
        $crate::ops::gemm::Bodies {
            tiles: $crate::ops::gemm::tile_names!($base),
            wide: $crate::ops::gemm::wide_names!($base),
            role: $role,
        }
    };
}
pub(in crate::ops) use bodies;

/// The second body's file.
pub(super) const SM90A: &str = "gemm_sm90a";

/// `gemm::Operands`: x [T, K] and w [N, K]. Errors where kernels cannot take them.
pub(in crate::ops) fn operands(op: &'static str, x: Tensor, w: &Weight) -> Result<Params> {
    check::gpu_compute(op, w.data.dtype)?;
    check::that(op, w.order == Order::Rows, "a weight in rows", format!("{:?}", w.order))?;
    let (rows, cols) = (check::count(op, "rows", x.rows())?, check::count(op, "columns", w.n)?);
    let (depth, ld) = (w.k as i32, check::count(op, "columns", row_stride(w.k))?);
    Ok(params!(gemm::Operands { x, w: w.data, rows, cols, depth, ld }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_go_by_the_number_of_tokens() {
        let rows = |t| Tile::of(t).rows;
        assert_eq!([0, 1, 16, 17, 128, 129, 5000].map(rows), [16, 16, 16, 64, 64, 128, 128]);
        let launch = Tile::of(129).launch("test", 129, 3600).unwrap();
        assert_eq!(launch, Launch::new([2 * 29, 1, 1], 128, 98_304));
        // What compute capability 8.6 gives a CTA.
        assert!(TILES.iter().all(|t| t.smem() <= 99 << 10));
    }
}

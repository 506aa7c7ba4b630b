//! Launches of kernels/common/gemm_sm90a.cuh, the second body of products: by wgmma, operands by TMA. Taken where the device
//! is told to (`Device::use_wgmma`) for every product whose rows TMA can copy, whatever the number of tokens: what is
//! sampled and what is trained on has one arithmetic.

use bytemuck::NoUninit;

use super::{BLOCK_K, Names};
use crate::device::{Address, EncodedMap, Gpu, Launch, TensorMap};
use crate::error::Result;
use crate::ops::check;
use crate::ops::matmul::{Weight, row_stride};
use crate::tensor::Tensor;

/// A tile of kernels/common/gemm_sm90a.cuh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::ops) struct Tile {
    /// Where it stands in a kernel's names.
    index: usize,
    /// Warpgroups that compute, 64 rows each.
    groups: usize,
    cols: usize,
    stages: usize,
    /// Columns that an epilogue takes at a time.
    part: usize,
}

/// The tiles of a kernel file: wide, square and short.
pub(in crate::ops) type Tiles = [Tile; 3];

/// `gemm::TileWide`, `TileSquare` and `TileShort`.
pub(super) const LINEAR: Tiles = [
    Tile { index: 0, groups: 2, cols: 256, stages: 4, part: 64 },
    Tile { index: 1, groups: 2, cols: 128, stages: 4, part: 64 },
    Tile { index: 2, groups: 1, cols: 64, stages: 8, part: 64 },
];

/// Those of kernels/common/logits.cuh.
pub(in crate::ops) const LOGITS: Tiles = [
    Tile { index: 0, groups: 2, cols: 256, stages: 4, part: 128 },
    Tile { index: 1, groups: 2, cols: 128, stages: 4, part: 128 },
    Tile { index: 2, groups: 1, cols: 128, stages: 8, part: 128 },
];

impl Tile {
    /// The tile for `t` tokens and `n` columns: the wide one where it makes work for all multiprocessors.
    fn of([wide, square, short]: &Tiles, t: usize, n: usize, multiprocessors: usize) -> Tile {
        match t {
            ..=64 => *short,
            _ if wide.count(t, n) >= multiprocessors => *wide,
            _ => *square,
        }
    }

    fn rows(self) -> usize {
        64 * self.groups
    }

    fn count(self, t: usize, n: usize) -> usize {
        t.div_ceil(self.rows()) * n.div_ceil(self.cols)
    }

    /// The ring, 8 padded rows of sums for each math warp, and two mbarriers a stage.
    fn smem(self) -> usize {
        self.stages * ((self.rows() + self.cols) * BLOCK_K * 2 + 16) + 4 * self.groups * 8 * (self.part + 8) * 4
    }
}

/// A product that this body takes.
pub(in crate::ops) struct Wide {
    launch: Launch,
    tile: Tile,
    maps: [EncodedMap; 2],
    /// `box` and `steps`.
    last: [i32; 2],
}

/// An operand of a product as it lies in memory: rows of `stride` elements, of which `columns` count.
#[derive(Clone, Copy)]
pub(super) struct Side {
    pub address: Address,
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
    /// Whether its rows are the product's (their columns the terms of its chains) or the terms.
    pub lies: Lies,
}

/// How an operand lies: `gemm::Roles` of its kernels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lies {
    /// K-major.
    Along,
    /// MN-major: TMA brings panels of 64 terms by 64 of the product's rows or columns.
    Across,
}

impl Side {
    /// The product's rows (of the first operand) or columns (of the second), and the terms.
    fn sizes(&self) -> (usize, usize) {
        match self.lies {
            Lies::Along => (self.rows, self.columns),
            Lies::Across => (self.columns, self.rows),
        }
    }

    /// TMA copies rows that begin at multiples of 16 bytes.
    fn copied(&self) -> bool {
        self.stride.is_multiple_of(8) && self.address.is_multiple_of(16)
    }

    /// Its map, of boxes of `boxed` rows where it lies along the terms.
    fn map(&self, boxed: usize) -> TensorMap {
        TensorMap {
            address: self.address,
            element: 2,
            dims: vec![self.columns as u64, self.rows as u64],
            strides: vec![2 * self.stride as u64],
            box_dims: vec![64, if self.lies == Lies::Across { BLOCK_K } else { boxed } as u32],
            swizzle: 128,
        }
    }
}

impl Wide {
    /// The product of x and w over `columns` columns, of which each `adjacent` from a multiple of it on are adjacent rows
    /// of w (`None`: all are). `None` where the device is not told to, and where rows of x do not begin at multiples of
    /// 16 bytes.
    pub fn of(
        op: &'static str,
        gpu: &mut Gpu<'_>,
        tiles: &Tiles,
        x: Tensor,
        w: &Weight,
        columns: usize,
        adjacent: Option<usize>,
    ) -> Result<Option<Wide>> {
        if adjacent.is_some_and(|n| !n.is_multiple_of(8)) {
            return Ok(None);
        }
        check::gpu_compute(op, w.data.dtype)?;
        let ld = row_stride(w.k);
        let lies = Lies::Along;
        let x = Side { address: gpu.ptr(x), rows: x.rows(), columns: w.k, stride: w.k, lies };
        let w = Side { address: gpu.ptr(w.data), rows: w.n, columns: ld, stride: ld, lies };
        Wide::product(op, gpu, tiles, [x, w], columns, adjacent)
    }

    /// The product of two operands, as [`Wide::of`]; its chains have the terms of the first.
    pub(super) fn product(
        op: &'static str,
        gpu: &mut Gpu<'_>,
        tiles: &Tiles,
        [x, w]: [Side; 2],
        columns: usize,
        adjacent: Option<usize>,
    ) -> Result<Option<Wide>> {
        let (rows, terms) = x.sizes();
        if !gpu.wgmma || !x.copied() || !w.copied() || rows == 0 || columns == 0 {
            return Ok(None);
        }
        let multiprocessors = gpu.driver.properties().multiprocessors as usize;
        let tile = Tile::of(tiles, rows, columns, multiprocessors);
        // A box is at most a tile; those of 8 rows begin a swizzle pattern each.
        let adjacent = match adjacent {
            None => tile.cols,
            Some(n) if n.is_multiple_of(32) => 32,
            Some(_) => 8,
        };
        let maps = [gpu.driver.tensor_map(&x.map(tile.rows()))?, gpu.driver.tensor_map(&w.map(adjacent))?];
        let ctas = check::grid(op, tile.count(rows, columns).min(multiprocessors))?;
        let launch = Launch::new([ctas, 1, 1], 128 * (tile.groups as u32 + 1), tile.smem());
        let steps = check::count(op, "terms", terms.div_ceil(BLOCK_K))?;
        Ok(Some(Wide { launch, tile, maps, last: [adjacent as i32, steps] }))
    }

    /// Launches the tile's kernel of `names`. `args` is what the other body's kernels take: the operands and what the
    /// epilogue needs.
    pub fn launch<A: NoUninit>(self, gpu: &mut Gpu<'_>, file: &'static str, names: &Names, args: &A) -> Result<()> {
        // `gemm::WideArgs`: maps, the same, `box` and `steps`, up to the maps' alignment.
        let mut bytes = bytemuck::bytes_of(&self.maps).to_vec();
        bytes.extend_from_slice(bytemuck::bytes_of(args));
        bytes.extend_from_slice(bytemuck::bytes_of(&self.last));
        bytes.resize(bytes.len().next_multiple_of(align_of::<EncodedMap>()), 0);
        gpu.launch_bytes(file, names[self.tile.index], self.launch, &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_and_go_by_the_work() {
        let cols = |t, n| Tile::of(&LINEAR, t, n, 132).cols;
        assert_eq!(
            [(1, 4608), (64, 4608), (65, 4608), (1024, 3584), (8192, 3584)].map(|(t, n)| cols(t, n)),
            [64, 64, 128, 128, 256]
        );
        // What compute capability 9.0 gives a CTA.
        assert_eq!(LINEAR.map(Tile::smem), [215_104, 149_568, 140_416]);
        assert!([LINEAR, LOGITS].concat().iter().all(|t| t.smem() <= 227 << 10));
    }
}

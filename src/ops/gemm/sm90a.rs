//! Launches of kernels/common/gemm_sm90a.cuh, the second body of products: by wgmma, operands by TMA. Taken where the device
//! is told to (`Device::use_wgmma`) for every product whose rows TMA can copy, whatever the number of tokens: what is
//! sampled and what is trained on has one arithmetic.

use bytemuck::NoUninit;

use super::{BLOCK_K, Names};
use crate::device::{EncodedMap, Gpu, Launch, TensorMap};
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
    adjacent: i32,
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
        let address = gpu.ptr(x);
        let copied =
            w.k.is_multiple_of(8) && address.is_multiple_of(16) && adjacent.is_none_or(|n| n.is_multiple_of(8));
        if !gpu.wgmma || !copied || x.rows() == 0 || columns == 0 {
            return Ok(None);
        }
        check::gpu_compute(op, w.data.dtype)?;
        let multiprocessors = gpu.driver.properties().multiprocessors as usize;
        let tile = Tile::of(tiles, x.rows(), columns, multiprocessors);
        // A box is at most a tile; those of 8 rows begin a swizzle pattern each.
        let adjacent = match adjacent {
            None => tile.cols,
            Some(n) if n.is_multiple_of(32) => 32,
            Some(_) => 8,
        };
        let map = |address, depth: usize, stride: usize, rows: usize, boxed: usize| TensorMap {
            address,
            element: 2,
            dims: vec![depth as u64, rows as u64],
            strides: vec![2 * stride as u64],
            box_dims: vec![BLOCK_K as u32, boxed as u32],
            swizzle: 128,
        };
        let ld = row_stride(w.k);
        let (of_x, of_w) = (map(address, w.k, w.k, x.rows(), tile.rows()), map(gpu.ptr(w.data), ld, ld, w.n, adjacent));
        let maps = [gpu.driver.tensor_map(&of_x)?, gpu.driver.tensor_map(&of_w)?];
        let ctas = check::grid(op, tile.count(x.rows(), columns).min(multiprocessors))?;
        let launch = Launch::new([ctas, 1, 1], 128 * (tile.groups as u32 + 1), tile.smem());
        Ok(Some(Wide { launch, tile, maps, adjacent: adjacent as i32 }))
    }

    /// Launches the tile's kernel of `names`. `args` is what the other body's kernels take: the operands and what the
    /// epilogue needs.
    pub fn launch<A: NoUninit>(self, gpu: &mut Gpu<'_>, file: &'static str, names: &Names, args: &A) -> Result<()> {
        // `gemm::WideArgs`: maps, the same, `box`, up to the maps' alignment.
        let mut bytes = bytemuck::bytes_of(&self.maps).to_vec();
        bytes.extend_from_slice(bytemuck::bytes_of(args));
        bytes.extend_from_slice(&self.adjacent.to_le_bytes());
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

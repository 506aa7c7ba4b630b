//! Launches of kernels/gemm_sm90a.cu, the second body of linear layers: by wgmma, operands by TMA. Taken where the device
//! is told to (`Device::use_wgmma`) for every product whose rows TMA can copy, whatever the number of tokens: what is
//! sampled and what is trained on has one arithmetic.

use bytemuck::NoUninit;

use super::{Args, BLOCK_K, LogitsArgs, QkvArgs};
use crate::device::{EncodedMap, Gpu, Launch, TensorMap};
use crate::error::Result;
use crate::ops::check;
use crate::ops::matmul::{Weight, row_stride};
use crate::tensor::Tensor;

/// A tile of kernels/common/gemm_sm90a.cuh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Tile {
    /// Where it stands in a kernel's names.
    index: usize,
    /// Warpgroups that compute, 64 rows each.
    groups: usize,
    cols: usize,
    stages: usize,
}

/// `TileWide`, `TileSquare` and `TileShort`.
const TILES: [Tile; 3] = [
    Tile { index: 0, groups: 2, cols: 256, stages: 4 },
    Tile { index: 1, groups: 2, cols: 128, stages: 4 },
    Tile { index: 2, groups: 1, cols: 64, stages: 8 },
];

/// Bytes of `gemm::Slice`, one a math warp: 8 rows of 64 sums and 8 of padding.
const SLICE: usize = 8 * 72 * 4;

impl Tile {
    /// The tile for `t` tokens and `n` columns: the wide one where it makes work for all multiprocessors.
    fn of(t: usize, n: usize, multiprocessors: usize) -> Tile {
        let [wide, square, short] = TILES;
        match t {
            ..=64 => short,
            _ if wide.count(t, n) >= multiprocessors => wide,
            _ => square,
        }
    }

    fn rows(self) -> usize {
        64 * self.groups
    }

    fn count(self, t: usize, n: usize) -> usize {
        t.div_ceil(self.rows()) * n.div_ceil(self.cols)
    }

    /// The ring, a slice for each math warp, and two mbarriers a stage.
    fn smem(self) -> usize {
        self.stages * ((self.rows() + self.cols) * BLOCK_K * 2 + 16) + 4 * self.groups * SLICE
    }
}

/// `gemm::WideArgs` of the epilogues with two optional operands.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct WideArgs {
    maps: [EncodedMap; 2],
    args: Args,
    adjacent: i32,
    pad: i32,
}

/// `gemm::WideArgs<Logits>`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct WideLogits {
    maps: [EncodedMap; 2],
    args: LogitsArgs,
    adjacent: i32,
    pad: [i32; 5],
}

/// `gemm::WideArgs<Qkv>`.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct WideQkv {
    maps: [EncodedMap; 2],
    args: QkvArgs,
    adjacent: i32,
    pad: [i32; 5],
}

/// A product that this body takes.
pub(super) struct Wide {
    launch: Launch,
    tile: Tile,
    maps: [EncodedMap; 2],
    adjacent: i32,
}

const FILE: &str = "gemm_sm90a";

/// Kernels of [`TILES`].
type Names = [&'static str; 3];

impl Wide {
    /// The product of x and w over `columns` columns, of which each `adjacent` from a multiple of it on are adjacent rows
    /// of w (`None`: all are). `None` where the device is not told to, and where rows of x do not begin at multiples of
    /// 16 bytes.
    pub fn of(
        op: &'static str,
        gpu: &mut Gpu<'_>,
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
        let tile = Tile::of(x.rows(), columns, multiprocessors);
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

    /// Launches a kernel of two optional operands.
    pub fn linear(self, gpu: &mut Gpu<'_>, names: &Names, args: Args) -> Result<()> {
        let Wide { launch, tile, maps, adjacent } = self;
        gpu.launch(FILE, names[tile.index], launch, &WideArgs { maps, args, adjacent, pad: 0 })
    }

    /// Launches the logits.
    pub fn logits(self, gpu: &mut Gpu<'_>, args: LogitsArgs) -> Result<()> {
        const NAMES: Names = ["linear_f32_wide", "linear_f32_square", "linear_f32_short"];
        let Wide { launch, tile, maps, adjacent } = self;
        gpu.launch(FILE, NAMES[tile.index], launch, &WideLogits { maps, args, adjacent, pad: [0; 5] })
    }

    /// Launches qkv.
    pub fn qkv(self, gpu: &mut Gpu<'_>, args: QkvArgs) -> Result<()> {
        const NAMES: Names = ["linear_qkv_wide", "linear_qkv_square", "linear_qkv_short"];
        let Wide { launch, tile, maps, adjacent } = self;
        gpu.launch(FILE, NAMES[tile.index], launch, &WideQkv { maps, args, adjacent, pad: [0; 5] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fit_and_go_by_the_work() {
        let cols = |t, n| Tile::of(t, n, 132).cols;
        assert_eq!(
            [(1, 4608), (64, 4608), (65, 4608), (1024, 3584), (8192, 3584)].map(|(t, n)| cols(t, n)),
            [64, 64, 128, 128, 256]
        );
        // What compute capability 9.0 gives a CTA.
        assert_eq!(TILES.map(Tile::smem), [215_104, 149_568, 140_416]);
        assert!(TILES.iter().all(|t| t.smem() <= 227 << 10));
    }
}

//! Launches of kernels/common/gemm_sm90a.cuh, the wgmma variant of matrix products, with operands copied by TMA. If the
//! device is set to use wgmma (`Device::use_variant`), this variant runs every product whose rows TMA can copy. The number
//! of tokens does not matter, so that sampling and training use the same arithmetic.

use super::candidates::{self, Candidate};
use super::config::{BLOCK_K, GemmConfig, GemmDesc, RASTER, Role};
use crate::device::{Address, EncodedMap, Gpu, Launch, Params, Stream, TensorMap, WgmmaKernels};
use crate::ops::check;
use crate::ops::input::Input;
use crate::ops::matmul::{Weight, row_stride};
use crate::tensor::Tensor;
use omr_base::error::Result;

/// Kernel names of an epilogue, indexed by [`GemmConfig`]. A role may use only the first few of them.
pub(in crate::ops) type WideNames = [&'static str; 6];

/// Makes [`WideNames`] from the common prefix of the names.
macro_rules! wide_names {
    ($base:literal) => {
        [
            concat!($base, "_wide"),
            concat!($base, "_square"),
            concat!($base, "_short"),
            concat!($base, "_half"),
            concat!($base, "_narrow"),
            concat!($base, "_slim"),
        ]
    };
}
pub(in crate::ops) use wide_names;

/// The wgmma kernels of a product.
#[derive(Clone, Copy)]
pub(in crate::ops) struct WideKernels {
    /// Name of their file.
    pub file: &'static str,
    /// Their names.
    pub names: WideNames,
    /// Role, which determines the available tiles.
    pub role: Role,
}

/// Tiles per CTA up to which each CTA has a fixed list of tiles. CTAs with more tiles take them from a counter.
const FIXED_TILES: usize = 2;

/// Tensor map of an absent tensor, which the kernel does not read.
const NO_MAP: EncodedMap = EncodedMap([0; 16]);

/// A product prepared for launch with the wgmma kernels.
pub(in crate::ops) struct Wide {
    kernels: WideKernels,
    launch: Launch,
    config: GemmConfig,
    /// Rows, columns and length of the sums.
    product: [usize; 3],
    /// Tensor maps of the epilogue, followed by those of x and W, and those of the second pair.
    maps: Vec<EncodedMap>,
    /// The candidate that replaces the kernel, if one does.
    candidate: Option<&'static Candidate>,
    /// Kernel arguments `box`, `steps`, `x_box` and `raster`.
    last: [i32; 4],
    /// Kernel argument `counter`; 0 for none.
    counter: Address,
}

/// Memory layout of an operand: rows of `stride` elements, of which the first `columns` are used.
#[derive(Clone, Copy)]
pub(super) struct OperandLayout {
    pub address: Address,
    pub rows: usize,
    pub columns: usize,
    pub stride: usize,
    /// Orientation of the operand: whether its rows run along the terms of a sum or across them.
    pub major: Major,
}

/// The operands of a product: the first pair, and the second one if the product has two.
#[derive(Clone, Copy)]
pub(super) struct Sides {
    pub first: [OperandLayout; 2],
    pub more: Option<[OperandLayout; 2]>,
}

/// Tensors that an epilogue of kernels/common/staged.cuh reads and writes by TMA (`gemm::StagedMaps`). All are bf16.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Staged {
    pub y: Tensor,
    pub more: Option<Tensor>,
    pub bias: Option<Tensor>,
    pub shape: Shape,
}

/// Type of a staged epilogue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::ops) enum Shape {
    /// `StagedLinear`: y has the columns of the product, and `more` is the residual.
    Linear,
    /// `StagedSwiGlu`: y has half of the product's columns, and `more` receives gate and up.
    SwiGlu,
}

impl Staged {
    /// Returns true if TMA can copy all of these tensors.
    pub fn carried(&self, gpu: &Gpu<'_>) -> bool {
        let aligned = |t: &Tensor| gpu.ptr(*t).is_multiple_of(16);
        let rows = |t: &Tensor| t.cols().is_multiple_of(8) && aligned(t);
        rows(&self.y) && self.more.iter().all(rows) && self.bias.iter().all(aligned)
    }

    fn maps(&self, gpu: &Gpu<'_>, config: &GemmConfig) -> [Option<TensorMap>; 3] {
        let map = |t: Tensor, rows: usize, boxed: [usize; 2], swizzle| {
            let columns = t.len() / rows;
            TensorMap::rows(gpu.ptr(t), [rows, columns], columns.next_multiple_of(8), boxed, swizzle)
        };
        // TMA needs time for each row of a box, and more for a row past the last one.
        // A tile of 96 columns has panels of 32.
        let panel = |columns: usize| if columns > 64 && !columns.is_multiple_of(64) { 32 } else { columns.min(64) };
        let rows = self.y.rows();
        let of_rows = |t: Tensor, columns: usize, height| map(t, t.rows(), [height, columns], 2 * columns as u32);
        let (of_y, height) = match self.shape {
            // Warps read 16 rows of the residual at a time.
            Shape::Linear => (panel(config.columns), 64.min(rows.next_multiple_of(16))),
            Shape::SwiGlu => (panel(config.columns / 2), 16.min(rows)),
        };
        [
            Some(of_rows(self.y, of_y, 16.min(rows))),
            self.more.map(|t| of_rows(t, panel(config.columns), height)),
            self.bias.map(|t| map(t, 1, [1, config.columns], 0)),
        ]
    }
}

/// Orientation of an operand (`gemm::Roles` of its kernels).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Major {
    /// K-major: each row holds the terms of one row or column of the product.
    K,
    /// MN-major: each row holds one term of all rows or columns of the product. TMA copies panels of 64 terms by 64
    /// rows or columns of the product.
    Mn,
}

impl OperandLayout {
    /// Returns the operand's (rows or columns of the product, terms).
    fn sizes(&self) -> (usize, usize) {
        match self.major {
            Major::K => (self.rows, self.columns),
            Major::Mn => (self.columns, self.rows),
        }
    }

    /// Returns true if TMA can copy the rows, which must start at multiples of 16 bytes.
    fn copied(&self) -> bool {
        self.stride.is_multiple_of(8) && self.address.is_multiple_of(16)
    }

    /// Returns the tensor map. A K-major operand has boxes of `boxed` rows.
    fn map(&self, boxed: usize) -> TensorMap {
        let boxed = if self.major == Major::Mn { BLOCK_K } else { boxed };
        TensorMap::rows(self.address, [self.rows, self.columns], self.stride, [boxed, 64], 128)
    }
}

impl Wide {
    /// Prepares the product of x and w over `columns` columns. The columns form groups of `adjacent` columns, and the
    /// columns of a group correspond to adjacent rows of w. If `adjacent` is `None`, all columns are one group. Returns
    /// `None` if the device is not set to use wgmma, if the product is empty, or if TMA cannot copy the operands.
    pub fn of(
        gpu: &mut Gpu<'_>,
        kernels: WideKernels,
        x: impl Into<Input>,
        w: &Weight,
        columns: usize,
        adjacent: Option<usize>,
    ) -> Result<Option<Wide>> {
        if adjacent.is_some_and(|n| !n.is_multiple_of(8)) {
            return Ok(None);
        }
        check::gpu_compute(gpu.op, w.data.dtype)?;
        let input = x.into();
        let sides = |x: Tensor, w: &Weight| {
            let (ld, major) = (row_stride(w.k), Major::K);
            let x = OperandLayout { address: gpu.ptr(x), rows: x.rows(), columns: w.k, stride: w.k, major };
            [x, OperandLayout { address: gpu.ptr(w.data), rows: w.n, columns: ld, stride: ld, major }]
        };
        let more = input.pair.map(|pair| sides(pair.left, &pair.right));
        let sides = Sides { first: sides(input.x, w), more };
        Wide::product(gpu, kernels, sides, columns, adjacent)
    }

    /// Prepares the product of operands, as [`Wide::of`] does. The first operand determines the tile.
    pub(super) fn product(
        gpu: &mut Gpu<'_>,
        kernels: WideKernels,
        sides: Sides,
        columns: usize,
        adjacent: Option<usize>,
    ) -> Result<Option<Wide>> {
        let (rows, terms) = sides.first[0].sizes();
        let copied = sides.first.iter().chain(sides.more.iter().flatten()).all(OperandLayout::copied);
        if !gpu.uses_wgmma(WgmmaKernels::Products) || !copied || rows == 0 || columns == 0 {
            return Ok(None);
        }
        let multiprocessors = gpu.driver.properties().multiprocessors as usize;
        let role = kernels.role;
        let candidate = gpu.candidate().and_then(|name| Candidate::of(name, kernels.names[0]));
        let config = candidate.and_then(|candidate| candidate.config);
        let config = config.unwrap_or_else(|| GemmDesc { rows, columns, terms, role, multiprocessors }.plan());
        let product = Wide::by(gpu, kernels, config, sides, columns, adjacent)?;
        Ok(Some(product.with_candidate(candidate)))
    }

    /// Prepares the product with the tile `config`.
    pub(super) fn by(
        gpu: &mut Gpu<'_>,
        kernels: WideKernels,
        config: GemmConfig,
        sides: Sides,
        columns: usize,
        adjacent: Option<usize>,
    ) -> Result<Wide> {
        let (rows, terms) = sides.first[0].sizes();
        // A box holds adjacent rows of W and is at most as large as a tile. Pairs of QKV lie in halves of 32 rows, or
        // of half the columns in narrower tiles. Otherwise a box has 8 rows, the length of a swizzle pattern.
        let adjacent = match adjacent {
            // Each CTA of a cluster loads its part of the box.
            None => config.columns / config.cluster,
            Some(n) if n.is_multiple_of(config.columns.min(64) / 2) => config.columns.min(64) / 2,
            Some(_) => 8,
        };
        // A row of a box that is past the last row of x costs TMA more time than a row of x.
        let x_box = config.rows.min(rows);
        let mut maps = Vec::new();
        for pair in [Some(sides.first), sides.more] {
            match pair {
                Some([x, w]) => {
                    maps.push(gpu.driver.tensor_map(&x.map(x_box))?);
                    maps.push(gpu.driver.tensor_map(&w.map(adjacent))?);
                }
                None => maps.extend([NO_MAP; 2]),
            }
        }
        let cluster = config.cluster;
        let clusters = rows.div_ceil(config.rows * cluster) * columns.div_ceil(config.columns);
        let ctas = cluster * clusters.min((gpu.max_ctas / cluster).max(1));
        // Only launches that follow one another may share the counter, so those of the side stream do not use it.
        let counts = clusters > FIXED_TILES * ctas && gpu.stream == Stream::COMPUTE && cluster == 1;
        let counter = if counts { gpu.memory.address(gpu.counter) } else { 0 };
        let mut launch = check::launch(gpu.op, ctas, 128 * (config.groups() + 1), config.smem())?;
        launch.cluster = cluster as u32;
        let steps = check::count(gpu.op, "terms", terms.div_ceil(config.depth * BLOCK_K))?;
        let product = [rows, columns, terms + sides.more.map_or(0, |[x, _]| x.sizes().1)];
        let last = [adjacent as i32, steps, x_box as i32, RASTER];
        Ok(Wide { kernels, launch, config, product, maps, candidate: None, last, counter })
    }

    /// Makes `candidate` replace the kernel at the launch.
    fn with_candidate(mut self, candidate: Option<&'static Candidate>) -> Wide {
        self.last[3] = candidate.map_or(RASTER, |candidate| candidate.raster);
        Wide { candidate: candidate.filter(|candidate| candidate.config.is_some()), ..self }
    }

    /// Adds the tensor maps of a staged epilogue.
    pub fn staged(self, gpu: &mut Gpu<'_>, staged: &Staged) -> Result<Wide> {
        let maps = staged.maps(gpu, &self.config);
        self.with_maps(gpu, maps)
    }

    /// Adds the tensor maps of sums that the epilogue reads and writes (`gemm::StagedSums`): `sums` is f32, with `stride`
    /// elements per row.
    pub fn summed(self, gpu: &mut Gpu<'_>, sums: Tensor, stride: usize) -> Result<Wide> {
        let [rows, columns, _] = self.product;
        // TMA copies bytes: a map of bf16 elements has two for each f32 element, and 64 for a panel of 32.
        let map = |height| TensorMap::rows(gpu.ptr(sums), [rows, 2 * columns], 2 * stride, [height, 64], 128);
        let maps = [Some(map(16.min(rows))), Some(map(64.min(rows.next_multiple_of(16)))), None];
        self.with_maps(gpu, maps)
    }

    /// Adds the tensor maps of an epilogue (`gemm::StagedMaps`).
    fn with_maps(mut self, gpu: &mut Gpu<'_>, maps: [Option<TensorMap>; 3]) -> Result<Wide> {
        for (i, map) in maps.iter().enumerate() {
            self.maps.insert(i, map.as_ref().map_or(Ok(NO_MAP), |map| gpu.driver.tensor_map(map))?);
        }
        Ok(self)
    }

    /// Launches the tile's kernel. `args` are the arguments of the `mma.sync` kernel: the operands and those of the
    /// epilogue.
    pub fn launch(self, gpu: &mut Gpu<'_>, args: Params) -> Result<()> {
        // `gemm::WideArgs`: the maps, then `args`, then `box`, `steps`, `x_box` and `counter`.
        let maps = self.maps.into_iter().fold(Params::default(), Params::with);
        let args = maps.with(args).with(self.last).with(self.counter);
        gpu.driver.note_product(self.product);
        match self.candidate {
            Some(candidate) => gpu.launch(candidates::FILE, candidate.name, self.launch, args),
            None => gpu.launch(self.kernels.file, self.kernels.names[self.config.index], self.launch, args),
        }
    }
}

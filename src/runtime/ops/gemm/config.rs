//! Selects the tile of kernels/common/gemm_sm90a.cuh for a product. The choice depends only on the product's shape and
//! the GPU, so that planning, graph capture and execution use the same tile. The choice of the tile does not change the
//! bits of the result.
//!
//! Costs are clocks of one multiprocessor for 64 terms, computed from the hardware's throughput. bench/LOG.md (9ef6b107)
//! has the times of products of one token on an H200.

/// Elements along K of a block. A pipeline stage has one or two blocks.
pub(super) const BLOCK_K: usize = 64;

/// Rows of tiles that are traversed together (`RASTER_M` of kernels/common/gemm.cuh).
pub(super) const RASTER: i32 = 8;

/// Properties of a product that determine its tile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GemmDesc {
    /// Rows of the result: T, or N for a weight gradient.
    pub rows: usize,
    /// Columns of the result: N, or K for a gradient.
    pub columns: usize,
    /// Terms of each sum: K, or N for an input gradient, T for a weight gradient.
    pub terms: usize,
    /// Use of the result.
    pub role: Role,
    /// Number of multiprocessors of the GPU.
    pub multiprocessors: usize,
}

/// Use of a product's result, which determines the available tiles.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// Output of a linear layer: bf16 with bias and residual, or f32.
    Linear,
    /// Queries, keys and values. Pairs that are rotated together lie in one slice of columns.
    Qkv,
    /// GELU and SwiGLU. For SwiGLU, 64 columns contain 32 of gate and 32 of up. Layers with an activation are wide, so
    /// this role has no narrow tiles.
    Activation,
    /// Logits of a sampler or a loss, in segments of 128 ids.
    Logits,
    /// Gradient of an input or a weight, in panels of 64 columns.
    Gradient,
}

/// Size of a tile of kernels/common/gemm_sm90a.cuh.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GemmConfig {
    /// Index of the tile in a kernel's `WideNames`.
    pub(super) index: usize,
    /// Rows of a CTA's tile, 64 for each consumer warpgroup.
    pub rows: usize,
    /// Columns of a CTA's tile.
    pub columns: usize,
    /// Pipeline stages of the ring in shared memory.
    pub stages: usize,
    /// Blocks of [`BLOCK_K`] terms in a stage.
    pub(super) depth: usize,
    /// Columns that an epilogue processes at a time.
    pub(super) part: usize,
    /// CTAs of a cluster, whose tiles lie below one another.
    pub(super) cluster: usize,
}

pub(super) const fn config(
    index: usize,
    rows: usize,
    columns: usize,
    [stages, depth]: [usize; 2],
    part: usize,
) -> GemmConfig {
    GemmConfig { index, rows, columns, stages, depth, part, cluster: 1 }
}

/// The tiles `TileWide`, `TileSquare`, `TileShort`, `TileHalf`, `TileNarrow` and `TileSlim`.
const LINEAR: [GemmConfig; 6] = [
    config(0, 128, 256, [4, 1], 64),
    config(1, 128, 128, [4, 1], 64),
    config(2, 64, 64, [6, 2], 64),
    config(3, 64, 128, [8, 1], 64),
    config(4, 64, 32, [9, 2], 32),
    config(5, 64, 16, [11, 2], 16),
];

/// The tiles of kernels/common/logits.cuh.
const LOGITS: [GemmConfig; 3] =
    [config(0, 128, 256, [4, 1], 128), config(1, 128, 128, [4, 1], 128), config(2, 64, 128, [8, 1], 128)];

impl Role {
    /// Returns the tiles available for this role.
    pub fn configs(self) -> &'static [GemmConfig] {
        match self {
            Role::Linear => &LINEAR,
            Role::Qkv => &LINEAR[..5],
            Role::Activation | Role::Gradient => &LINEAR[..3],
            Role::Logits => &LOGITS,
        }
    }
}

impl GemmDesc {
    /// Selects the fastest tile, and of equally fast tiles the largest, which copies least. Half of the multiprocessors
    /// are enough to read W at more than half of the memory's rate: for one token and 4,608 columns, 72 tiles of 64
    /// columns need 12 us on an H200, and 144 tiles of 32 columns need 18 us, because some CTAs have two of them.
    pub fn plan(&self) -> GemmConfig {
        let order = |c: &&GemmConfig| (c.clocks(self), std::cmp::Reverse(c.rows * c.columns));
        *self.role.configs().iter().min_by_key(order).expect("every role has at least one tile size")
    }
}

impl GemmConfig {
    /// Returns the number of tiles of a product with `rows` rows and `columns` columns.
    pub fn tiles(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    /// Returns the clocks for 64 terms of the whole product: the longest of three estimates.
    fn clocks(&self, of: &GemmDesc) -> usize {
        let tiles = self.tiles(of.rows, of.columns);
        let turns = tiles.div_ceil(of.multiprocessors);
        // The tensor cores compute 2,048 multiply-adds per clock.
        let tensor_cores = turns * self.rows * self.columns * BLOCK_K / 2048;
        // Rows past the last are zeros and are not read from memory.
        let copied = (self.rows.min(of.rows) + self.columns) * BLOCK_K * 2;
        // A multiprocessor reads 64 bytes per clock; the L2 cache delivers 48 bytes per clock and multiprocessor.
        let port = turns * copied / 64;
        let cache = tiles * copied / (48 * of.multiprocessors);
        tensor_cores.max(port).max(cache)
    }

    /// Returns the number of consumer warpgroups.
    pub(super) fn groups(&self) -> usize {
        self.rows / 64
    }

    /// Returns the bytes of shared memory: the ring, 8 padded rows of sums for each consumer warp, two mbarriers and the
    /// number of a tile per stage, and the number of a row of W for each 8 columns. A cluster has a third mbarrier.
    pub fn smem(&self) -> usize {
        let barriers = if self.cluster > 1 { 24 } else { 16 };
        let stage = (self.rows + self.columns) * self.depth * BLOCK_K * 2 + barriers + 4;
        let bytes = self.stages * stage + 4 * self.groups() * 8 * (self.part + 8) * 4 + self.columns / 8 * 4;
        // mbarriers have 8 bytes.
        bytes.next_multiple_of(8)
    }
}

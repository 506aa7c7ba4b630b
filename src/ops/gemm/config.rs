//! Which tile of kernels/common/gemm_sm90a.cuh a product runs by, from its shape and the card alone, so that what is
//! planned, captured and run agree. Bits do not depend on it.
//!
//! The figures are clocks of one multiprocessor for 64 terms, counted from the machine's widths; no card has confirmed
//! them yet.

/// Elements over K of a stage.
pub(super) const BLOCK_K: usize = 64;

/// A product, as the choice of its tile sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GemmDesc {
    /// Rows of the result: T, or N of a weight's gradient.
    pub rows: usize,
    /// Columns of the result: N, or K of a gradient.
    pub columns: usize,
    /// Terms of each chain: K, or N of an input's gradient, T of a weight's.
    pub terms: usize,
    /// What becomes of the result.
    pub role: Role,
    /// Of the card.
    pub multiprocessors: usize,
}

/// What becomes of a product, which says which tiles there are for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// A linear layer's output: bf16 with bias and residual, or f32.
    Linear,
    /// Queries, keys and values: pairs that are rotated together lie in one slice of columns.
    Qkv,
    /// GELU, and SwiGLU, whose gate and up lie in 64 columns; only wide layers have them.
    Activation,
    /// Logits of a sampler or a loss, in segments of 128 ids.
    Logits,
    /// The gradient of an input or a weight: panels of 64 columns.
    Gradient,
}

/// A tile of kernels/common/gemm_sm90a.cuh.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct GemmConfig {
    /// Which of a kernel's names.
    pub(super) index: usize,
    /// Rows of a CTA's tile, 64 for each warpgroup that computes.
    pub rows: usize,
    /// Columns of a CTA's tile.
    pub columns: usize,
    /// Stages of its ring.
    pub stages: usize,
    /// Columns that an epilogue takes at a time.
    pub(super) part: usize,
}

const fn config(index: usize, rows: usize, columns: usize, stages: usize, part: usize) -> GemmConfig {
    GemmConfig { index, rows, columns, stages, part }
}

/// `TileWide`, `TileSquare`, `TileShort`, `TileHalf`, `TileNarrow` and `TileSlim`.
const LINEAR: [GemmConfig; 6] = [
    config(0, 128, 256, 4, 64),
    config(1, 128, 128, 4, 64),
    config(2, 64, 64, 8, 64),
    config(3, 64, 128, 8, 64),
    config(4, 64, 32, 12, 32),
    config(5, 64, 16, 16, 16),
];

/// Those of kernels/common/logits.cuh.
const LOGITS: [GemmConfig; 3] = [config(0, 128, 256, 4, 128), config(1, 128, 128, 4, 128), config(2, 64, 128, 8, 128)];

/// Bytes of the second operand above which a product should have the whole card: the memory's full rate.
const LARGE: usize = 4 << 20;

impl Role {
    /// The tiles there are.
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
    /// The tile of those there are: see the rules.
    pub fn plan(&self) -> GemmConfig {
        let all = self.role.configs();
        // Rule 1: a large operand is streamed by five sixths of the card at least, where any tile cuts that many. A
        // multiprocessor has some tens of kilobytes in flight, and all of them together are the memory's rate.
        let fills = |c: &&GemmConfig| c.tiles(self.rows, self.columns) * 6 >= self.multiprocessors * 5;
        let large = self.columns * self.terms * 2 > LARGE && all.iter().any(|c| fills(&c));
        // Rule 2: of those, what is done first. Rule 3: at the same time, the largest tile, which copies least.
        let choice = all.iter().filter(|c| !large || fills(c));
        let order = |c: &&GemmConfig| (c.clocks(self), std::cmp::Reverse(c.rows * c.columns));
        *choice.min_by_key(order).expect("every role has tiles")
    }
}

impl GemmConfig {
    /// Tiles of a product of so many rows and columns.
    pub fn tiles(&self, rows: usize, columns: usize) -> usize {
        rows.div_ceil(self.rows) * columns.div_ceil(self.columns)
    }

    /// What 64 terms of the whole product take: the longest of three.
    fn clocks(&self, of: &GemmDesc) -> usize {
        let tiles = self.tiles(of.rows, of.columns);
        let turns = tiles.div_ceil(of.multiprocessors);
        // 2,048 products a clock.
        let tensor_cores = turns * self.rows * self.columns * BLOCK_K / 2048;
        // Rows past the last are zeros that nobody reads.
        let copied = (self.rows.min(of.rows) + self.columns) * BLOCK_K * 2;
        // 64 bytes a clock into one multiprocessor, and 48 for each out of the L2 cache.
        let port = turns * copied / 64;
        let cache = tiles * copied / (48 * of.multiprocessors);
        tensor_cores.max(port).max(cache)
    }

    /// Warpgroups that compute.
    pub(super) fn groups(&self) -> usize {
        self.rows / 64
    }

    /// Bytes of shared memory: the ring, 8 padded rows of sums for each math warp, and two mbarriers a stage.
    pub(super) fn smem(&self) -> usize {
        let stage = (self.rows + self.columns) * BLOCK_K * 2 + 16;
        self.stages * stage + 4 * self.groups() * 8 * (self.part + 8) * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Products of the 7B's decoder: columns, terms, what becomes of them.
    const DECODER: [(usize, usize, Role); 5] = [
        (4608, 3584, Role::Qkv),
        (3584, 3584, Role::Linear),
        (37_888, 3584, Role::Activation),
        (3584, 18_944, Role::Linear),
        (152_064, 3584, Role::Logits),
    ];

    fn decoded(t: usize) -> impl Iterator<Item = GemmDesc> {
        DECODER.into_iter().map(move |(columns, terms, role)| {
            assert!(columns * terms * 2 > LARGE);
            GemmDesc { rows: t, columns, terms, role, multiprocessors: 132 }
        })
    }

    #[test]
    fn decoding_fills_the_card() {
        let ctas = |desc: GemmDesc| desc.plan().tiles(desc.rows, desc.columns).min(desc.multiprocessors);
        let least = (1..=512).flat_map(decoded).map(ctas).min().unwrap();
        println!("least CTAs of a product of the 7B's decoder at 1 to 512 tokens: {least}");
        assert!(least >= 112);
    }

    #[test]
    fn tiles_go_by_the_work() {
        let tile = |rows, columns, terms, role| {
            let config = GemmDesc { rows, columns, terms, role, multiprocessors: 132 }.plan();
            (config.rows, config.columns)
        };
        // Few tokens: as many CTAs as read W at its full rate. A small layer: every multiprocessor it can have.
        assert_eq!([1, 64].map(|t| tile(t, 3584, 3584, Role::Linear)), [(64, 32); 2]);
        assert_eq!(tile(1, 4608, 3584, Role::Qkv), (64, 32));
        assert_eq!(tile(1, 896, 896, Role::Linear), (64, 16));
        // Between: tiles as large as fill the card at once.
        let down = |t| tile(t, 3584, 18_944, Role::Linear);
        assert_eq!([128, 256, 512].map(down), [(64, 64), (64, 128), (128, 128)]);
        // Many tokens: the widest.
        assert_eq!(tile(8192, 3584, 3584, Role::Linear), (128, 256));
        assert_eq!(tile(4608, 3584, 16_384, Role::Gradient), (128, 256));
    }

    #[test]
    fn tiles_fit() {
        // What compute capability 9.0 gives a CTA.
        assert!(LINEAR.iter().chain(&LOGITS).all(|c| c.smem() <= 227 << 10));
        assert_eq!(LINEAR[..3].iter().map(GemmConfig::smem).collect::<Vec<_>>(), [215_104, 149_568, 140_416]);
    }
}

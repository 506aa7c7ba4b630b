//! One block of a product by tiles.

/// Words (pairs of bf16 over K) of one tile product.
pub const STEP: usize = 16;
/// Most rows of a block: two tiles.
pub const ROWS: usize = 2 * TILE;
/// Rows of a tile, and columns of its sums.
pub(super) const TILE: usize = 16;
/// Bytes of a row of a tile, and of a row of a panel of 32 columns.
pub(super) const TILE_BYTES: usize = 64;
pub(super) const PANEL_BYTES: usize = 128;

/// Some rows times some panels over whole steps: `sums[rows][panels * 32]`.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// First word of the first row; words of a row follow one another.
    pub left: *const u8,
    /// Bytes from row to row.
    pub row_stride: usize,
    /// First panel: `[words][32]` words.
    pub right: *const u8,
    /// Bytes from panel to panel.
    pub panel_stride: usize,
    /// Tile products over K: each takes [`STEP`] words.
    pub steps: usize,
    /// The sums, row-major.
    pub sums: *mut f32,
    /// f32s from row to row of the sums.
    pub sums_stride: usize,
    /// Go on from the sums' present values, else from zero.
    pub resume: bool,
}

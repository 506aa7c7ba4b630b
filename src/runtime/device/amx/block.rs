//! One block of a matrix product by tiles.

/// Words (pairs of bf16 along K) per tile product.
pub const STEP: usize = 16;
/// Maximum rows of a block: two tiles.
pub const ROWS: usize = 2 * TILE;
/// Rows of a tile, and columns of its sums.
pub(super) const TILE: usize = 16;
/// Bytes of one row of a tile.
pub(super) const TILE_BYTES: usize = 64;
/// Bytes of one row of a panel. A panel has 32 columns of words.
pub(super) const PANEL_BYTES: usize = 128;

/// Operands and result of one block: some rows times some panels. K is `steps` times [`STEP`] words. The result has the
/// shape `sums[rows][panels * 32]`.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// First word of the first row. The words of a row are contiguous.
    pub left: *const u8,
    /// Bytes between rows.
    pub row_stride: usize,
    /// First word of the first panel. A panel is `[words][32]` words.
    pub right: *const u8,
    /// Bytes between panels.
    pub panel_stride: usize,
    /// Number of tile products along K. Each uses [`STEP`] words.
    pub steps: usize,
    /// Sums, row-major.
    pub sums: *mut f32,
    /// f32 elements between rows of the sums.
    pub sums_stride: usize,
    /// True to add to the existing sums, false to start from zero.
    pub resume: bool,
}

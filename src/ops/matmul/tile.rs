//! Finished sums of a tile, and what becomes of them.

use super::panels::PANEL;
use crate::device::Isa;

/// Most panels of a tile that an epilogue sees.
pub(super) const MAX_PANELS: usize = 4;
/// Below this many multiply-adds a job is not worth waking a second thread.
pub(super) const SMALL: usize = 1 << 17;

/// Finished sums of a tile.
pub(in crate::ops) struct Tile<'a> {
    /// First row and number of rows.
    pub row: usize,
    pub rows: usize,
    /// First panel and number of panels.
    pub panel: usize,
    pub panels: usize,
    /// `[rows][stride]`: the first `panels * 32` of each row are sums.
    pub sums: &'a mut [f32],
    /// See `sums`.
    pub stride: usize,
}

impl Tile<'_> {
    /// First column and number of columns, of `n` in all.
    #[inline(always)]
    pub fn columns(&self, n: usize) -> (usize, usize) {
        let first = self.panel * PANEL;
        (first, (self.panels * PANEL).min(n - first))
    }

    /// The sums of row `i` of the tile.
    #[inline(always)]
    pub fn row(&mut self, i: usize) -> &mut [f32] {
        &mut self.sums[i * self.stride..i * self.stride + self.panels * PANEL]
    }
}

/// What happens to the sums of a tile. Each tile of the product is given to it once (twice with `START`: before
/// and after), by one thread.
pub(in crate::ops) trait Epilogue: Sync {
    /// The sums start from what [`Epilogue::start`] puts there, else from zero.
    const START: bool = false;
    /// With `START`: the steps are cut into blocks, each of which goes over all tiles.
    const CUT: bool = false;
    /// With `START`: sums are taken from and left in [`Epilogue::place`], and nothing is started or finished.
    const IN_PLACE: bool = false;
    /// Panels that must come together: tiles start at multiples of it and hold at most `max(UNIT, 4)`.
    const UNIT: usize = 1;
    /// Tiles start at multiples of this many rows.
    const ROW_UNIT: usize = 1;
    /// Where the sums of some rows of one panel lie, 32 a row.
    #[allow(clippy::mut_from_ref)]
    fn place(&self, _row: usize, _rows: usize, _panel: usize) -> &mut [f32] {
        &mut []
    }
    /// Brings near what [`Epilogue::finish`] will write: rows that are far apart come one by one otherwise.
    fn ahead(&self, _tile: &Tile<'_>) {}
    /// Fills the sums' start values.
    fn start(&self, _isa: Isa, _tile: &mut Tile<'_>) {}
    /// Takes the finished sums.
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>);
}

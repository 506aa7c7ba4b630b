//! Tiles of a CPU product, and the interface through which an epilogue processes their sums.

use std::ops::Range;

use super::panels::PANEL;
use super::product::Product;
use crate::device::amx::ROWS;
use crate::device::{Isa, Pool};

/// Maximum number of panels of a tile that is passed to an epilogue.
pub(super) const MAX_PANELS: usize = 4;
/// If rows * columns * steps of a product is below this number, the product runs as one job, because waking a second
/// thread would cost more than it saves.
const SMALL: usize = 1 << 17;

/// Position and sums of one tile.
pub struct Tile<'a> {
    /// First row.
    pub row: usize,
    /// Number of rows.
    pub rows: usize,
    /// First panel.
    pub panel: usize,
    /// Number of panels.
    pub panels: usize,
    /// Sums `[rows][stride]`, maybe followed by other values. Only the first `panels * 32` elements of each row are sums.
    /// Those of columns that the matrix does not have are undefined.
    pub sums: &'a mut [f32],
    /// Distance between rows of `sums`, in elements.
    pub stride: usize,
}

impl Tile<'_> {
    /// Returns the tile's first column and its number of columns, for a matrix of `n` columns.
    #[inline(always)]
    pub fn columns(&self, n: usize) -> (usize, usize) {
        let first = self.panel * PANEL;
        (first, (self.panels * PANEL).min(n - first))
    }

    /// Returns the sums of row `i` of the tile.
    #[inline(always)]
    pub fn row(&mut self, i: usize) -> &mut [f32] {
        &mut self.sums[i * self.stride..i * self.stride + self.panels * PANEL]
    }
}

/// Splits a product, which is not empty, into jobs. `job` computes some rows and panels. The rows of a job are a multiple
/// of `tall`, unless they are the last ones, and at most `fits`, which is a multiple of `tall`, too.
pub(super) fn in_jobs<P: Epilogue>(
    pool: &Pool,
    product: &Product<'_>,
    tall: usize,
    fits: usize,
    job: impl Fn(Range<usize>, Range<usize>) + Sync,
) {
    let (rows, panels) = (product.rows, product.panels);
    let units = panels.div_ceil(P::UNIT);
    // Six jobs per thread balance the load; a small product is one job.
    let jobs = if rows * panels * PANEL * product.steps < SMALL { 1 } else { 6 * pool.threads() };
    // The row block fits in the cache, is small enough that every job gets one, and is a multiple of the tile height.
    let row_block = rows.div_ceil(jobs.div_ceil(units)).next_multiple_of(tall).min(fits.max(tall));
    let row_blocks = rows.div_ceil(row_block);
    let unit_blocks = jobs.div_ceil(row_blocks).clamp(1, units);
    pool.run(row_blocks * unit_blocks, |i| {
        let (rb, ub) = (i / unit_blocks, i % unit_blocks);
        let panels = ub * units / unit_blocks * P::UNIT..panels.min((ub + 1) * units / unit_blocks * P::UNIT);
        job(rb * row_block..rows.min((rb + 1) * row_block), panels);
    });
}

/// Computes the sums of a tile of a sliced product: `multiply` computes the sums of one slice from zero.
pub(super) fn in_slices(
    product: &Product<'_>,
    tile: &mut Tile<'_>,
    mut multiply: impl FnMut(&Product<'_>, &mut Tile<'_>),
) {
    let mut own = [0.0; ROWS * MAX_PANELS * PANEL];
    for (i, slice) in product.slices(product.slice).enumerate() {
        if i == 0 {
            multiply(&slice, tile);
            continue;
        }
        let sums = &mut own[..tile.sums.len()];
        multiply(&slice, &mut Tile { sums, ..*tile });
        tile.sums.iter_mut().zip(&own).for_each(|(sum, x)| *sum += x);
    }
}

/// Processing step for the sums of a tile. One thread calls [`Epilogue::finish`] for each tile after the
/// multiplication and, with `START`, [`Epilogue::start`] before it.
pub(in crate::ops) trait Epilogue: Sync {
    /// True if the sums start from the values that [`Epilogue::start`] writes; otherwise they start from zero.
    const START: bool = false;
    /// Number of panels that must be in the same tile. Tiles start at multiples of this number and have at most
    /// `max(UNIT, 4)` panels.
    const UNIT: usize = 1;
    /// Tiles start at rows that are multiples of this number.
    const ROW_UNIT: usize = 1;
    /// Prefetches the memory that [`Epilogue::finish`] will write. Without it, rows that are far apart are fetched one
    /// by one.
    fn prefetch(&self, _tile: &Tile<'_>) {}
    /// Writes the start values of the sums.
    fn start(&self, _isa: Isa, _tile: &mut Tile<'_>) {}
    /// Processes the finished sums.
    fn finish(&self, isa: Isa, tile: &mut Tile<'_>);
}

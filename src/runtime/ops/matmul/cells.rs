//! Output matrix that the jobs of one product fill in disjoint pieces.

use std::marker::PhantomData;

use super::tile::Tile;

/// A row-major matrix shared by jobs that write disjoint pieces of it.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Cells<'a, T> {
    base: *mut T,
    len: usize,
    cols: usize,
    _slice: PhantomData<&'a mut [T]>,
}

// SAFETY: access is only through `piece`, whose callers keep the pieces disjoint.
unsafe impl<T: Send> Sync for Cells<'_, T> {}

impl<'a, T> Cells<'a, T> {
    /// Treats `slice` as rows of `cols` elements.
    pub fn new(slice: &'a mut [T], cols: usize) -> Cells<'a, T> {
        Cells { base: slice.as_mut_ptr(), len: slice.len(), cols, _slice: PhantomData }
    }

    /// Returns the number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Returns true if the matrix has no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Prefetches the elements of a tile's rows and columns for writing.
    #[inline(always)]
    pub fn prefetch_tile(&self, tile: &Tile<'_>) {
        let (col, cols) = tile.columns(self.cols);
        self.prefetch_columns(tile, col, cols);
    }

    /// Prefetches `cols` columns from `col` on, in the tile's rows.
    #[inline(always)]
    pub fn prefetch_columns(&self, tile: &Tile<'_>, col: usize, cols: usize) {
        for row in tile.row..tile.row + tile.rows {
            // SAFETY: only the address of the piece is used.
            prefetch_tile(unsafe { self.piece(row, col, cols) });
        }
    }

    /// Returns `len` elements of row `row` from column `col` on. Panics if they are outside the matrix.
    ///
    /// # Safety
    /// Pieces that exist at the same time must not overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn piece(&self, row: usize, col: usize, len: usize) -> &'a mut [T] {
        let start = row * self.cols + col;
        assert!(start + len <= self.len, "columns {col}..{} of row {row} are outside the matrix", col + len);
        // SAFETY: the assert keeps the piece inside the slice; the caller keeps it disjoint from other pieces.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), len) }
    }
}

/// Prefetches the memory of `values` for writing. This is only a hint to the processor.
#[inline(always)]
fn prefetch_tile<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(64 / size_of::<T>()) {
        // SAFETY: the instruction neither reads nor writes memory, and processors that do not have it ignore it.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) line.as_ptr(), options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

//! An output matrix that the jobs of one product fill in disjoint pieces.

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

// SAFETY: pieces are handed out by `piece`, whose caller keeps them disjoint.
unsafe impl<T: Send> Sync for Cells<'_, T> {}

impl<'a, T> Cells<'a, T> {
    /// `slice` as rows of `cols`.
    pub fn new(slice: &'a mut [T], cols: usize) -> Cells<'a, T> {
        Cells { base: slice.as_mut_ptr(), len: slice.len(), cols, _slice: PhantomData }
    }

    /// Columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// True when there is nothing to write to.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Asks for a tile's rows and columns to come near.
    #[inline(always)]
    pub fn near(&self, tile: &Tile<'_>) {
        let (col, cols) = tile.columns(self.cols);
        self.columns_near(tile, col, cols);
    }

    /// As [`Cells::near`], of `cols` columns from `col` on.
    #[inline(always)]
    pub fn columns_near(&self, tile: &Tile<'_>, col: usize, cols: usize) {
        for row in tile.row..tile.row + tile.rows {
            // SAFETY: only its address is used.
            near(unsafe { self.piece(row, col, cols) });
        }
    }

    /// `len` elements of row `row` from column `col` on. Panics when they leave the matrix.
    ///
    /// # Safety
    /// Pieces alive at one time must not overlap.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn piece(&self, row: usize, col: usize, len: usize) -> &'a mut [T] {
        let start = row * self.cols + col;
        assert!(start + len <= self.len, "columns {col}..{} of row {row} leave the matrix", col + len);
        // SAFETY: inside the slice (asserted); disjoint from other pieces (the caller).
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), len) }
    }
}

/// Asks for the memory of `values`, which will be written, to come near. Only a hint.
#[inline(always)]
pub(super) fn near<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(64 / size_of::<T>()) {
        // SAFETY: the instruction reads and writes nothing, and processors without it pass over it.
        unsafe {
            std::arch::asm!("prefetchw [{}]", in(reg) line.as_ptr(), options(nostack, preserves_flags, readonly));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

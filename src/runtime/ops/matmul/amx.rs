//! Products of bf16 by AMX tiles, or by the portable code with the same results (`Isa::AmxTwin`). Also copies operand
//! ends that do not fill a step, and transposes activations for weight gradients.
//!
//! Each output is summed over K in steps of 32 values, starting with the first value. The last step is padded with
//! zeros. The steps do not depend on which other rows and columns are computed.

use std::ops::Range;

use super::cells::Cells;
use super::panels::PANEL;
use super::product::Product;
use super::tile::{Epilogue, MAX_PANELS, Tile, in_jobs, in_slices};
use super::widened::{self, Part};
use crate::device::amx::{Block, ROWS, STEP, Tiles};
use crate::device::{Isa, Pool, cpu_kernel};
use crate::tensor::Elem;

/// Size up to which a left operand stays in the L2 cache together with a panel, in bytes.
const LEFT_BYTES: usize = 768 << 10;
/// Bytes of a word.
const WORD: usize = 4;
/// Bytes of one row of words of a panel.
const LINE: usize = PANEL * WORD;
/// Values of a step, which is also the number of tokens of one job of [`transpose`].
const VALUES: usize = 2 * STEP;

/// Sums of the largest tile, aligned to a cache line.
#[repr(align(64))]
struct TileSums([f32; ROWS * MAX_PANELS * PANEL]);

/// Last words of a group's panels and of a tile's rows, padded with zeros.
#[repr(align(64))]
struct Ends {
    right: [[[u32; PANEL]; STEP]; MAX_PANELS],
    left: [[u32; STEP]; ROWS],
}

impl Ends {
    const ZERO: Ends = Ends { right: [[[0; PANEL]; STEP]; MAX_PANELS], left: [[0; STEP]; ROWS] };
}

/// Computes `product` tile by tile into `epilogue`. The words of the left operand are contiguous along each row.
pub(super) fn run<P: Epilogue>(pool: &Pool, isa: Isa, product: &Product<'_>, epilogue: &P) {
    const { assert!(P::UNIT <= MAX_PANELS && ROWS.is_multiple_of(P::ROW_UNIT)) };
    let fits = LEFT_BYTES / (product.steps * WORD).max(1) / ROWS * ROWS;
    in_jobs::<P>(pool, product, ROWS, fits, |rows, panels| {
        let whole = rows.start + rows.len() / ROWS * ROWS;
        // Tiles are configured once for the rows that fill them and once for the remaining rows.
        strip(isa, product, epilogue, rows.start..whole, ROWS, panels.clone());
        strip(isa, product, epilogue, whole..rows.end, rows.end - whole, panels);
    });
}

/// Computes `rows` times `panels`, in tiles of `tall` rows.
fn strip<P: Epilogue>(
    isa: Isa,
    product: &Product<'_>,
    epilogue: &P,
    rows: Range<usize>,
    tall: usize,
    panels: Range<usize>,
) {
    if rows.is_empty() {
        return;
    }
    let tiles = Tiles::new(isa, tall);
    let mut sums = TileSums([0.0; ROWS * MAX_PANELS * PANEL]);
    let mut ends = Ends::ZERO;
    let mut second = product.second.map(|second| (second, Ends::ZERO));
    // A block of ROWS rows is two hardware tiles high. If the rows fit in one, take two panels at a time.
    let group = P::UNIT.max(if tall > ROWS / 2 { 1 } else { 2 });
    if product.codes.is_some() {
        let part = Part { rows, panels, tall, group };
        return widened::job(isa, product, epilogue, part, &mut |product, tile, resume| {
            right_ends(product, tile.panel, &mut ends.right[..tile.panels]);
            multiply(&tiles, product, tile, &mut ends, resume);
        });
    }
    for panel in panels.clone().step_by(group) {
        let count = group.min(panels.end - panel);
        right_ends(product, panel, &mut ends.right[..count]);
        if let Some((second, ends)) = &mut second {
            right_ends(second, panel, &mut ends.right[..count]);
        }
        for row in rows.clone().step_by(tall) {
            let stride = count * PANEL;
            let sums = &mut sums.0[..tall * stride];
            let mut tile = Tile { row, rows: tall, panel, panels: count, sums, stride };
            if P::START {
                epilogue.start(isa, &mut tile);
            }
            epilogue.prefetch(&tile);
            match product.slice {
                0 => multiply(&tiles, product, &mut tile, &mut ends, P::START),
                // Every slice but the last consists of full steps, so the ends of the product are those of its last slice.
                _ => in_slices(product, &mut tile, |slice, tile| multiply(&tiles, slice, tile, &mut ends, false)),
            }
            if let Some((second, ends)) = &mut second {
                multiply(&tiles, second, &mut tile, ends, true);
            }
            epilogue.finish(isa, &mut tile);
        }
    }
}

/// Returns the number of steps whose words are all complete. If K is odd, the last word has only one value, so the step
/// with that word is not counted.
fn whole_steps(product: &Product<'_>) -> usize {
    (product.steps - usize::from(product.odd)) / STEP
}

/// Copies to `ends` the words of some panels that follow the last full step, and zeros after them: the ends may hold
/// those of a longer product.
fn right_ends(product: &Product<'_>, panel: usize, ends: &mut [[[u32; PANEL]; STEP]]) {
    let rest = (product.steps - whole_steps(product) * STEP) * LINE;
    for (i, end) in ends.iter_mut().enumerate() {
        let last = (panel + i) * product.panel_stride + product.steps * LINE;
        let (words, after) = bytemuck::cast_slice_mut(end.as_flattened_mut()).split_at_mut(rest);
        words.copy_from_slice(&product.right[last - rest..last]);
        after.fill(0);
    }
}

/// Computes the sums of one tile: full steps directly from the operands, and the rest as one more step from `ends`.
fn multiply(tiles: &Tiles, product: &Product<'_>, tile: &mut Tile<'_>, ends: &mut Ends, resume: bool) {
    let Product { left, row_stride, right, steps: words, odd, panel_stride, .. } = *product;
    let steps = whole_steps(product);
    let half = usize::from(odd) * WORD / 2;
    let last = (tile.row + tile.rows - 1) * row_stride + words * WORD - half;
    assert!(words == 0 || last <= left.len(), "left operand too short");
    assert!((tile.panel + tile.panels - 1) * panel_stride + words * LINE <= right.len(), "right operand too short");
    let last_row = (tile.rows - 1) * tile.stride;
    assert!(tile.panels * PANEL <= tile.stride && tile.sums.len() >= last_row + tile.panels * PANEL, "sums too short");
    let block = Block {
        left: left.as_ptr().wrapping_add(tile.row * row_stride),
        row_stride,
        right: right.as_ptr().wrapping_add(tile.panel * panel_stride),
        panel_stride,
        steps,
        sums: tile.sums.as_mut_ptr(),
        sums_stride: tile.stride,
        resume,
    };
    // SAFETY: the asserts above prove that every word and sum of the block lies inside its slice.
    unsafe { tiles.run(&block, tile.panels) };
    let rest = words - steps * STEP;
    if rest == 0 {
        return;
    }
    for (i, end) in ends.left[..tile.rows].iter_mut().enumerate() {
        let first = (tile.row + i) * row_stride + steps * STEP * WORD;
        let bytes = rest * WORD - half;
        let (words, after) = bytemuck::cast_slice_mut(end).split_at_mut(bytes);
        words.copy_from_slice(&left[first..first + bytes]);
        after.fill(0);
    }
    let last = Block {
        left: ends.left.as_ptr().cast(),
        row_stride: STEP * WORD,
        right: ends.right.as_ptr().cast(),
        panel_stride: STEP * LINE,
        steps: 1,
        resume: true,
        ..block
    };
    // SAFETY: `ends` contains a full step for every row and panel of a tile.
    unsafe { tiles.run(&last, tile.panels) };
}

/// Returns the row stride of the output of [`transpose`], in elements: an odd number of full steps, so that the rows of a
/// tile fall into different cache sets.
pub(super) fn transposed_stride(tokens: usize) -> usize {
    (tokens.div_ceil(VALUES) | 1) * VALUES
}

/// Transposes x `[t, k]` to `[k][transposed_stride(t)]`, with zeros after the tokens.
pub(super) fn transpose<E: Elem>(pool: &Pool, isa: Isa, x: &[E], k: usize, out: &mut [E]) {
    let tokens = x.len() / k;
    let cells = Cells::new(&mut out[..k * transposed_stride(tokens)], transposed_stride(tokens));
    pool.run(tokens.div_ceil(VALUES), |i| {
        let rows = &x[i * VALUES * k..x.len().min((i + 1) * VALUES * k)];
        for first in (0..k).step_by(VALUES) {
            transpose_block::<E>(isa, rows, k, first..k.min(first + VALUES), i * VALUES, &cells);
        }
    });
}

/// Transposes some columns of at most 32 rows of x. The first row is token `token`.
fn transpose_block<E: Elem>(isa: Isa, rows: &[E], k: usize, columns: Range<usize>, token: usize, to: &Cells<'_, E>) {
    #[cfg(target_arch = "x86_64")]
    if isa.vectors() == Isa::Avx512 && rows.len() == VALUES * k && columns.len() == VALUES && k.is_multiple_of(2) {
        let from = rows[columns.start..].as_ptr().cast();
        // SAFETY: the device has checked that it has this instruction set. There are 32 rows of k elements of two
        // bytes, and each block of a job writes its own words of each output row.
        unsafe { block::transpose(from, k / 2, |i| to.piece(columns.start + i, token, VALUES).as_mut_ptr().cast()) };
        return;
    }
    transpose_part::<E>(isa, rows, k, columns, token, to);
}

cpu_kernel! {
    /// Transposes any block, element by element.
    fn transpose_part<E: Elem>(rows: &[E], k: usize, columns: Range<usize>, token: usize, to: &Cells<'_, E>) {
        for column in columns {
            // SAFETY: each block of a job writes its own words of each output row.
            let out = unsafe { to.piece(column, token, VALUES) };
            out.fill(E::from_f32(0.0));
            for (out, row) in out.iter_mut().zip(rows.chunks_exact(k)) {
                *out = row[column];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod block {
    use std::arch::x86_64::*;

    use super::super::transpose::avx512::transpose16;

    /// Transposes thirty-two rows of thirty-two bf16, `stride` words apart. `out(i)` returns the address of output row
    /// i.
    ///
    /// # Safety
    ///
    /// The rows must be readable, and the addresses returned by `out` writable, for 64 bytes each.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn transpose(from: *const i32, stride: usize, out: impl Fn(usize) -> *mut i32) {
        let even: [i16; 32] = std::array::from_fn(|i| 2 * i as i16);
        let odd = even.map(|i| i + 1);
        // SAFETY: the index arrays have 64 bytes; the caller guarantees the rest.
        unsafe {
            let (even, odd) = (_mm512_loadu_si512(even.as_ptr().cast()), _mm512_loadu_si512(odd.as_ptr().cast()));
            // Word l of sixteen rows contains their columns 2 l and 2 l + 1.
            let (top, bottom) = (transpose16(from, stride), transpose16(from.wrapping_add(16 * stride), stride));
            for l in 0..16 {
                _mm512_storeu_si512(out(2 * l).cast(), _mm512_permutex2var_epi16(top[l], even, bottom[l]));
                _mm512_storeu_si512(out(2 * l + 1).cast(), _mm512_permutex2var_epi16(top[l], odd, bottom[l]));
            }
        }
    }
}

//! Runs a CPU product on the thread pool, tile by tile.

use super::amx;
use super::block::{Block, Kernel, kernel};
use super::cells::prefetch_tile;
use super::lanes::MAX_ROWS;
use super::panels::PANEL;
use super::product::Product;
use super::tile::{Epilogue, MAX_PANELS, Tile, in_jobs, in_slices};
use super::widened::{self, Part};
use crate::device::{Isa, Pool};
use crate::tensor::DType;

/// Size up to which a left operand stays in the L2 cache together with a panel, in bytes.
const LEFT_BYTES: usize = 384 << 10;
/// Steps of a block if K is cut and sums are updated in place. A panel with that many words is 32 KiB.
const STEP_BLOCK: usize = 256;
/// Steps of a block if K is cut and sums are copied in and out for each block. Copying costs more than reading words
/// from the L2 cache, so the block is longer.
const COPIED_BLOCK: usize = 1024;

/// Returns the number of steps of a block of a product whose K is cut.
fn step_block<P: Epilogue>() -> usize {
    if P::IN_PLACE { STEP_BLOCK } else { COPIED_BLOCK }
}

/// Computes `product` on the pool, tile by tile into `epilogue`.
pub(in crate::ops) fn run<P: Epilogue>(pool: &Pool, isa: Isa, product: &Product<'_>, epilogue: &P) {
    if product.rows == 0 || product.panels == 0 {
        return;
    }
    if product.dtype == DType::Bf16 && isa.has_tiles() {
        return amx::run(pool, isa, product, epilogue);
    }
    let kernel = kernel(isa, product.dtype, product.contiguous);
    let steps = if P::CUT { product.steps.min(step_block::<P>()) } else { product.steps };
    let most = if P::CUT { 384 } else { 192 };
    let fits = (LEFT_BYTES / (steps * 4).max(1)).clamp(24, most) / MAX_ROWS * MAX_ROWS;
    in_jobs::<P>(pool, product, MAX_ROWS, fits, |rows, panels| run_job(isa, &kernel, product, epilogue, rows, panels));
}

/// Sums of the largest tile, aligned to a cache line.
#[repr(align(64))]
struct TileSums([f32; MAX_ROWS * MAX_PANELS * PANEL]);

fn run_job<P: Epilogue>(
    isa: Isa,
    kernel: &Kernel,
    product: &Product<'_>,
    epilogue: &P,
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
) {
    const { assert!(P::UNIT <= MAX_PANELS && (P::START || !P::CUT && !P::IN_PLACE)) };
    assert!(!P::START || product.slice == 0 && product.second.is_none(), "slices or a second pair of a gradient");
    let mut sums = TileSums([0.0; MAX_ROWS * MAX_PANELS * PANEL]);
    let units = rows.len().div_ceil(P::ROW_UNIT);
    let tiles = rows.len().div_ceil(kernel.max_rows.max(P::ROW_UNIT));
    let tallest = units.div_ceil(tiles) * P::ROW_UNIT;
    let group = if P::IN_PLACE { 1 } else { kernel.max_panels[tallest.min(kernel.max_rows) - 1].max(P::UNIT) };
    if product.codes.is_some() {
        let part = Part { rows, panels, tall: tallest, group };
        return widened::job(isa, product, epilogue, part, &mut |product, tile, resume| {
            multiply(kernel, product, tile, 0, product.steps, product.odd, resume);
        });
    }
    let step_block = if P::CUT { step_block::<P>() } else { product.steps.max(1) };
    let rows_of = |tile: usize| {
        let end = rows.end.min(rows.start + (tile + 1) * units / tiles * P::ROW_UNIT);
        rows.start + tile * units / tiles * P::ROW_UNIT..end
    };
    let mut step = 0;
    loop {
        let steps = step_block.min(product.steps - step);
        let last = step + steps == product.steps;
        let odd = last && product.odd;
        let mut panel = panels.start;
        while panel < panels.end {
            let count = group.min(panels.end - panel);
            for i in 0..tiles {
                let rows = rows_of(i);
                let stride = count * PANEL;
                let sums = if P::IN_PLACE {
                    let next = rows_of((i + 1) % tiles);
                    prefetch_tile(epilogue.place(next.start, next.len(), panel));
                    epilogue.place(rows.start, rows.len(), panel)
                } else {
                    &mut sums.0[..rows.len() * stride]
                };
                let mut tile = Tile { row: rows.start, rows: rows.len(), panel, panels: count, sums, stride };
                if P::IN_PLACE {
                    multiply(kernel, product, &mut tile, step, steps, odd, true);
                    continue;
                }
                if P::START {
                    epilogue.start(isa, &mut tile);
                }
                epilogue.prefetch(&tile);
                match product.slice {
                    0 => multiply(kernel, product, &mut tile, step, steps, odd, P::START),
                    _ => in_slices(product, &mut tile, |slice, tile| {
                        multiply(kernel, slice, tile, 0, slice.steps, slice.odd, false);
                    }),
                }
                if let Some(second) = product.second {
                    multiply(kernel, second, &mut tile, 0, second.steps, second.odd, true);
                }
                epilogue.finish(isa, &mut tile);
            }
            panel += count;
        }
        step += steps;
        if last {
            return;
        }
    }
}

/// Runs the kernel on one tile for some of the steps.
fn multiply(
    kernel: &Kernel,
    product: &Product<'_>,
    tile: &mut Tile<'_>,
    step: usize,
    steps: usize,
    odd: bool,
    resume: bool,
) {
    let panel_stride = product.panel_stride;
    let end = tile.row + tile.rows;
    let last = (end - 1) * product.row_stride + (step + steps).saturating_sub(1) * product.step_stride;
    let left_bytes = if odd { 2 } else { 4 };
    assert!(steps == 0 || last + left_bytes <= product.left.len(), "left operand too short");
    let last = (tile.panel + tile.panels - 1) * panel_stride + (step + steps) * PANEL * 4;
    assert!(last <= product.right.len(), "right operand too short");
    let last_row = (tile.rows - 1) * tile.stride;
    assert!(tile.panels * PANEL <= tile.stride && tile.sums.len() >= last_row + tile.panels * PANEL, "sums too short");
    let mut done = 0;
    while done < tile.rows {
        let rows = kernel.max_rows.min(tile.rows - done);
        let row = tile.row + done;
        let block = Block {
            left: product.left.as_ptr().wrapping_add(row * product.row_stride + step * product.step_stride),
            row_stride: product.row_stride,
            step_stride: product.step_stride,
            right: product.right.as_ptr().wrapping_add(tile.panel * panel_stride + step * PANEL * 4),
            panel_stride,
            steps,
            odd,
            sums: tile.sums.as_mut_ptr().wrapping_add(done * tile.stride),
            sums_stride: tile.stride,
            resume,
            half: product.half && tile.panel + tile.panels == product.panels,
        };
        // SAFETY: the asserts above prove that every word and sum of the block lies inside its slice; the device has
        // checked that it has the instruction set.
        unsafe { (kernel.run)(&block, rows, tile.panels) };
        done += rows;
    }
}

//! Runs a CPU product on the thread pool, tile by tile.

use super::amx;
use super::block::{Block, Kernel, kernel};
use super::fused::Fused;
use super::lanes::MAX_ROWS;
use super::panels::PANEL;
use super::product::Product;
use super::tile::{Epilogue, MAX_PANELS, Tile, in_jobs, in_slices};
use super::widened::{self, Part};
use crate::device::{Isa, Pool};
use crate::tensor::DType;

/// Size up to which a left operand stays in the L2 cache together with a panel, in bytes.
const LEFT_BYTES: usize = 384 << 10;

/// Computes `product` on the pool, tile by tile into `epilogue`.
pub(in crate::ops) fn run<P: Epilogue>(pool: &Pool, isa: Isa, product: &Product<'_>, epilogue: &P) {
    if product.rows == 0 || product.panels == 0 {
        return;
    }
    if product.dtype == DType::Bf16 && isa.has_tiles() {
        return amx::run(pool, isa, product, epilogue);
    }
    let kernel = kernel(isa, product.dtype, product.contiguous);
    let most = if P::START { 384 } else { 192 };
    let fits = (LEFT_BYTES / (product.steps * 4).max(1)).clamp(24, most) / MAX_ROWS * MAX_ROWS;
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
    const { assert!(P::UNIT <= MAX_PANELS) };
    assert!(!P::START || product.slice == 0 && product.second.is_none(), "a gradient with slices or second operands");
    let mut sums = TileSums([0.0; MAX_ROWS * MAX_PANELS * PANEL]);
    let units = rows.len().div_ceil(P::ROW_UNIT);
    let tiles = rows.len().div_ceil(kernel.max_rows.max(P::ROW_UNIT));
    let from = |tile: usize| rows.start + tile * units / tiles * P::ROW_UNIT;
    let tallest = units.div_ceil(tiles) * P::ROW_UNIT;
    let group = kernel.max_panels[tallest.min(kernel.max_rows) - 1].max(P::UNIT);
    if product.codes.is_some() {
        let part = Part { rows, panels, tall: tallest, group };
        return widened::job(isa, product, epilogue, part, &mut |product, tile, resume| {
            multiply(kernel, product, tile, resume);
        });
    }
    let mut fused = Fused::new(isa, product, tallest, (0..tiles).map(|i| from(i)..rows.end.min(from(i + 1))));
    for panel in panels.clone().step_by(group) {
        let count = group.min(panels.end - panel);
        if let Some(fused) = &mut fused {
            fused.widen_panels(product, panel..panel + count);
        }
        for i in 0..tiles {
            let (row, end) = (from(i), rows.end.min(from(i + 1)));
            let stride = count * PANEL;
            let sums = &mut sums.0[..MAX_ROWS * stride];
            let mut tile = Tile { row, rows: end - row, panel, panels: count, sums, stride };
            if P::START {
                epilogue.start(isa, &mut tile);
            }
            epilogue.prefetch(&tile);
            match (&fused, product.slice) {
                (Some(fused), _) => fused.multiply(i, &mut tile, P::START),
                (None, 0) => multiply(kernel, product, &mut tile, P::START),
                _ => in_slices(product, &mut tile, |slice, tile| multiply(kernel, slice, tile, false)),
            }
            if let Some(second) = product.second {
                multiply(kernel, second, &mut tile, true);
            }
            epilogue.finish(isa, &mut tile);
        }
    }
}

/// Runs the kernel on one tile.
fn multiply(kernel: &Kernel, product: &Product<'_>, tile: &mut Tile<'_>, resume: bool) {
    let Product { steps, odd, panel_stride, .. } = *product;
    let end = tile.row + tile.rows;
    let last = (end - 1) * product.row_stride + steps.saturating_sub(1) * product.step_stride;
    let left_bytes = if odd { 2 } else { 4 };
    assert!(steps == 0 || last + left_bytes <= product.left.len(), "left operand too short");
    let last = (tile.panel + tile.panels - 1) * panel_stride + steps * PANEL * 4;
    assert!(last <= product.right.len(), "right operand too short");
    let last_row = (tile.rows - 1) * tile.stride;
    assert!(tile.panels * PANEL <= tile.stride && tile.sums.len() >= last_row + tile.panels * PANEL, "sums too short");
    let mut done = 0;
    while done < tile.rows {
        let rows = kernel.max_rows.min(tile.rows - done);
        let row = tile.row + done;
        let block = Block {
            left: product.left.as_ptr().wrapping_add(row * product.row_stride),
            row_stride: product.row_stride,
            step_stride: product.step_stride,
            right: product.right.as_ptr().wrapping_add(tile.panel * panel_stride),
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

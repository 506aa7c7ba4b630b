//! CPU matrix products: activations [rows, K] times a weight in column panels.
//!
//! Every output is one chain over ascending K, from zero or from a given start: no split-K, and a row computed
//! alone has the bits it has in a batch. Activations are read in place; sums stay in registers; an
//! `Epilogue` turns finished sums into what the op stores.

mod amx;
mod block;
mod cells;
mod epilogue;
mod gradient;
mod lanes;
mod panels;
mod repack;
mod transpose;

pub use panels::{
    Order, PANEL, Weight, index, pack, pack_order, panel_count, panel_len, panel_stride, row_stride, unpack,
    unpack_order,
};

pub(in crate::ops) use cells::Cells;
pub(in crate::ops) use epilogue::{Gelu, InputGradient, Linear, SwiGlu};
pub(in crate::ops) use gradient::{WeightGradient, weight_gradient, weight_gradient_scratch};
pub(in crate::ops) use transpose::transpose;

use block::{Across, Block, kernel};
use cells::near;

use crate::device::{Isa, Pool};
use crate::tensor::{DType, Elem};

/// Most rows of any kernel's block.
const MAX_ROWS: usize = 12;
/// Most panels of a tile that an epilogue sees.
const MAX_PANELS: usize = 4;
/// Left operands of this many bytes stay in the second-level cache beside a panel.
const LEFT_BYTES: usize = 384 << 10;
/// Steps of a block of a product that goes on from given sums: a panel of as many words is 32 KiB.
const STEP_BLOCK: usize = 256;
/// The same where sums are copied in and out for each block, which costs more than words from the second-level cache.
const COPIED_BLOCK: usize = 1024;
/// Below this many multiply-adds a job is not worth waking a second thread.
const SMALL: usize = 1 << 17;

/// A left operand, a right operand in panels, and how many steps they share.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Product<'a> {
    left: &'a [u8],
    across: Across,
    /// Bytes from row to row and from step to step of the left operand.
    row_stride: usize,
    step_stride: usize,
    rows: usize,
    right: &'a [u8],
    panels: usize,
    dtype: DType,
    /// Words over K, and whether the last is half a word.
    steps: usize,
    odd: bool,
}

impl<'a> Product<'a> {
    /// x [rows, k] times panels over the same k ([`panel_len`] of n columns).
    pub fn rows<E: Elem>(x: &'a [E], rows: usize, k: usize, right: &'a [E], n: usize) -> Product<'a> {
        assert_eq!((x.len(), right.len()), (rows * k, panel_len(E::DTYPE, n, k)), "product [{rows}, {k}] x [{n}, {k}]");
        let paired = E::DTYPE == DType::Bf16;
        Product {
            left: bytemuck::cast_slice(x),
            across: Across::Steps,
            row_stride: k * size_of::<E>(),
            step_stride: 4,
            rows,
            right: bytemuck::cast_slice(right),
            panels: panel_count(n),
            dtype: E::DTYPE,
            steps: if paired { k.div_ceil(2) } else { k },
            odd: paired && k % 2 == 1,
        }
    }

    /// The columns of `left` (`[steps][rows]` words) times panels over `steps` words: a weight gradient.
    fn columns(dtype: DType, left: &'a [u32], rows: usize, right: &'a [u32], n: usize) -> Product<'a> {
        let steps = left.len().checked_div(rows).unwrap_or(0);
        assert_eq!(
            (left.len(), right.len()),
            (rows * steps, panel_count(n) * steps * PANEL),
            "columns [{rows}] x [{n}]"
        );
        Product {
            left: bytemuck::cast_slice(left),
            across: Across::Rows,
            row_stride: 4,
            step_stride: rows * 4,
            rows,
            right: bytemuck::cast_slice(right),
            panels: panel_count(n),
            dtype,
            steps,
            odd: false,
        }
    }

    /// The rows of `left` (bf16 `[rows][stride]`) times panels over `tokens`: a weight gradient by tiles.
    fn turned<E: Elem>(left: &'a [E], stride: usize, tokens: usize, right: &'a [E], n: usize) -> Product<'a> {
        Product {
            left: bytemuck::cast_slice(left),
            across: Across::Steps,
            row_stride: stride * size_of::<E>(),
            step_stride: 4,
            rows: left.len() / stride,
            right: bytemuck::cast_slice(right),
            panels: panel_count(n),
            dtype: E::DTYPE,
            steps: tokens.div_ceil(2),
            odd: false,
        }
    }
}

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

/// Steps of a block of a product that is cut.
fn step_block<P: Epilogue>() -> usize {
    if P::IN_PLACE { STEP_BLOCK } else { COPIED_BLOCK }
}

/// Computes `product` on the pool, tile by tile into `epilogue`.
pub(in crate::ops) fn run<P: Epilogue>(pool: &Pool, isa: Isa, product: &Product<'_>, epilogue: &P) {
    let (rows, panels) = (product.rows, product.panels);
    if rows == 0 || panels == 0 {
        return;
    }
    if product.dtype == DType::Bf16 && isa.has_tiles() {
        return amx::run(pool, isa, product, epilogue);
    }
    let kernel = kernel(isa, product.dtype, product.across);
    let units = panels.div_ceil(P::UNIT);
    // Six jobs a thread even out; a small product is one job.
    let jobs = if rows * panels * PANEL * product.steps < SMALL { 1 } else { 6 * pool.threads() };
    // A block of rows small enough for its cache, and for every job to have one; whole tiles of it.
    let steps = if P::CUT { product.steps.min(step_block::<P>()) } else { product.steps };
    let most = if P::CUT { 384 } else { 192 };
    let fits = (LEFT_BYTES / (steps * 4).max(1)).clamp(24, most) / MAX_ROWS * MAX_ROWS;
    let row_block = rows.div_ceil(jobs.div_ceil(units)).next_multiple_of(MAX_ROWS).clamp(MAX_ROWS, fits);
    let row_blocks = rows.div_ceil(row_block);
    let unit_blocks = jobs.div_ceil(row_blocks).clamp(1, units);
    pool.run(row_blocks * unit_blocks, |job| {
        let (rb, ub) = (job / unit_blocks, job % unit_blocks);
        let row = rb * row_block..rows.min((rb + 1) * row_block);
        let panel = ub * units / unit_blocks * P::UNIT..panels.min((ub + 1) * units / unit_blocks * P::UNIT);
        run_job(isa, &kernel, product, epilogue, row, panel);
    });
}

/// Sums of the largest tile, on a cache line of their own.
#[repr(align(64))]
struct Sums([f32; MAX_ROWS * MAX_PANELS * PANEL]);

fn run_job<P: Epilogue>(
    isa: Isa,
    kernel: &block::Kernel,
    product: &Product<'_>,
    epilogue: &P,
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
) {
    const { assert!(P::UNIT <= MAX_PANELS && (P::START || !P::CUT && !P::IN_PLACE)) };
    let mut sums = Sums([0.0; MAX_ROWS * MAX_PANELS * PANEL]);
    let units = rows.len().div_ceil(P::ROW_UNIT);
    let tiles = rows.len().div_ceil(kernel.max_rows.max(P::ROW_UNIT));
    let tallest = units.div_ceil(tiles) * P::ROW_UNIT;
    let group = if P::IN_PLACE { 1 } else { (kernel.max_panels)(tallest.min(kernel.max_rows)).max(P::UNIT) };
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
                    near(epilogue.place(next.start, next.len(), panel));
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
                epilogue.ahead(&tile);
                multiply(kernel, product, &mut tile, step, steps, odd, P::START);
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

/// Runs the kernel over one tile and some of the steps.
fn multiply(
    kernel: &block::Kernel,
    product: &Product<'_>,
    tile: &mut Tile<'_>,
    step: usize,
    steps: usize,
    odd: bool,
    resume: bool,
) {
    let panel_stride = product.steps * PANEL * 4;
    let end = tile.row + tile.rows;
    let last = (end - 1) * product.row_stride + (step + steps).saturating_sub(1) * product.step_stride;
    let left_bytes = if odd { 2 } else { 4 };
    assert!(steps == 0 || last + left_bytes <= product.left.len(), "left operand too short");
    assert!((tile.panel + tile.panels) * panel_stride <= product.right.len(), "right operand too short");
    assert!(tile.panels * PANEL <= tile.stride && tile.sums.len() >= tile.rows * tile.stride, "sums too short");
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
        };
        // SAFETY: the asserts above hold every word and sum the block names inside its slice; the instruction
        // set is the device's, which checked it.
        unsafe { (kernel.run)(&block, rows, tile.panels) };
        done += rows;
    }
}

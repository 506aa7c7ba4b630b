//! Products with a quantised right operand. A job widens the codes of one panel, some steps at a time, to a buffer in the
//! L1 cache, and multiplies all its rows from there. It reads each panel's codes in order, because processors prefetch
//! one stream well. The sums stay in memory between the steps and keep their bits.

use std::cell::RefCell;
use std::ops::Range;

use super::panels::PANEL;
use super::product::Product;
use super::tile::{Epilogue, MAX_PANELS, Tile};
use crate::device::Isa;
use crate::tensor::DType;

/// Steps that are widened at a time: for few rows, and for more. Multiples of 16, the step of AMX, and even, because a pair
/// of terms is two words in f32.
const STEPS: [usize; 2] = [64, 256];
/// Maximum number of rows that count as few. Their product is limited by reading the codes.
const FEW: usize = 16;

/// Memory of a thread's jobs, so that no job clears it.
struct Buffers {
    words: AlignedWords,
    sums: Vec<f32>,
}

#[repr(align(64))]
struct AlignedWords([u32; STEPS[1] * PANEL]);

thread_local! {
    static BUFFERS: RefCell<Box<Buffers>> =
        RefCell::new(Box::new(Buffers { words: AlignedWords([0; STEPS[1] * PANEL]), sums: Vec::new() }));
}

/// Part of a product that one job computes, and the size of its tiles.
pub(super) struct Part {
    pub rows: Range<usize>,
    pub panels: Range<usize>,
    /// Rows of a tile.
    pub tall: usize,
    /// Panels of a tile.
    pub group: usize,
}

/// Computes `part` of a product with a quantised right operand, tile by tile. `multiply(product, tile, resume)` adds
/// the terms of a product to the sums of a tile, or starts them at zero if `resume` is false.
pub(super) fn job<P: Epilogue>(
    isa: Isa,
    product: &Product<'_>,
    epilogue: &P,
    part: Part,
    multiply: &mut impl FnMut(&Product<'_>, &mut Tile<'_>, bool),
) {
    let Part { rows, panels, tall, group } = part;
    let Some(codes) = product.codes else { unreachable!("a product without codes") };
    assert!(!P::START && product.slice == 0, "a gradient or a sliced product of a quantised weight");
    let group = group.min(MAX_PANELS);
    BUFFERS.with_borrow_mut(|buffers| {
        let Buffers { words: AlignedWords(buffer), sums } = &mut **buffers;
        sums.resize(sums.len().max(rows.len() * group * PANEL), 0.0);
        // A pair of terms is one word in bf16 and two words in f32.
        let words = if product.dtype == DType::Bf16 { 1 } else { 2 };
        let chunk = STEPS[usize::from(rows.len() > FEW)];
        for panel in panels.clone().step_by(group) {
            let count = group.min(panels.end - panel);
            let stride = count * PANEL;
            for (i, step) in
                (0..count).flat_map(|i| (0..product.steps.max(1)).step_by(chunk).map(move |step| (i, step)))
            {
                let steps = chunk.min(product.steps - step);
                let pairs = step / words..(step + steps).div_ceil(words);
                let buffer = &mut buffer[..pairs.len() * words * PANEL];
                codes.widen(isa, product.dtype, panel + i, pairs, buffer);
                let part = Product {
                    left: &product.left[step * product.step_stride..],
                    right: bytemuck::cast_slice(buffer),
                    panels: 1,
                    half: product.half && panel + i + 1 == product.panels,
                    steps,
                    odd: product.odd && step + steps == product.steps,
                    panel_stride: size_of_val(buffer),
                    second: None,
                    codes: None,
                    ..*product
                };
                for first in rows.clone().step_by(tall) {
                    let height = tall.min(rows.end - first);
                    let sums = &mut sums[(first - rows.start) * stride + i * PANEL..][..height * stride - i * PANEL];
                    let mut tile = Tile { row: first, rows: height, panel: 0, panels: 1, sums, stride };
                    multiply(&part, &mut tile, step > 0);
                }
            }
            for first in rows.clone().step_by(tall) {
                let height = tall.min(rows.end - first);
                let sums = &mut sums[(first - rows.start) * stride..][..height * stride];
                let mut tile = Tile { row: first, rows: height, panel, panels: count, sums, stride };
                if let Some(second) = product.second {
                    multiply(second, &mut tile, true);
                }
                epilogue.finish(isa, &mut tile);
            }
        }
    })
}

//! Products of bf16 by fused multiply-adds of f32, for processors on which `vdpbf16ps` takes longer than two of them. The
//! bits are the same: `vdpbf16ps` adds the product of the higher k, then that of the lower k, rounds each sum once, and
//! takes subnormal numbers as zero (Intel's manual, volume 2, VDPBF16PS). If both factors are NaN, the result is that of
//! the row, which is the first factor here as in the instruction.
//!
//! A job widens its rows and each panel once, with the higher k of a pair first.

use std::arch::x86_64::*;
use std::cell::RefCell;
use std::ops::Range;

use bytemuck::{Pod, Zeroable, cast_slice, cast_slice_mut};

use super::block::ContiguousAxis;
use super::lanes::{Avx512, Lanes, Pairs};
use super::panels::PANEL;
use super::product::Product;
use super::tile::Tile;
use super::transpose::avx512::transpose16;
use crate::device::Isa;
use crate::tensor::DType;

/// Rows of a block.
pub const TALL: usize = 12;
/// Rows of a block if the tiles of a job have at most this number.
pub const LOW: usize = 8;
/// Maximum number of words in K. Beyond it, the widened rows and a panel would not stay in the L2 cache.
const MAX_STEPS: usize = 2048;
/// Lanes of a vector.
pub const LANES: usize = 16;

/// A vector in memory.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

thread_local! {
    /// Memory of a thread's jobs, so that no job clears it.
    static BUFFERS: RefCell<[Vec<Line>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Operands of a job, widened to f32.
pub struct Fused {
    /// Blocks of rows `[tiles][2 * steps][height]`, each followed by a line that is not used.
    left: Vec<Line>,
    /// Panels `[panels][2 * steps][32]`.
    right: Vec<Line>,
    height: usize,
    steps: usize,
}

impl Fused {
    /// Widens the rows of a job with the tiles `tiles` of at most `tallest` rows. Returns `None` if `vdpbf16ps` must
    /// compute the product.
    pub fn new(
        isa: Isa,
        product: &Product<'_>,
        tallest: usize,
        tiles: impl Iterator<Item = Range<usize>> + Clone,
    ) -> Option<Fused> {
        let fits = (LOW..=TALL).contains(&tallest) && (1..=MAX_STEPS).contains(&product.steps);
        if product.dtype != DType::Bf16 || product.slice > 0 || product.odd || !fits || !isa.has_slow_dot() {
            return None;
        }
        Some(Fused::widened(product, tiles, if tallest > LOW { TALL } else { LOW }))
    }

    /// Widens the rows of a job like [`Fused::new`], on any processor with AVX-512, in blocks of `height` rows.
    pub fn widened(product: &Product<'_>, tiles: impl Iterator<Item = Range<usize>> + Clone, height: usize) -> Fused {
        let [left, right] = BUFFERS.take();
        let mut fused = Fused { left, right, height, steps: product.steps };
        let block = fused.block();
        fused.left.resize(fused.left.len().max(tiles.clone().count() * block), Line::zeroed());
        for (rows, out) in tiles.zip(fused.left.chunks_exact_mut(block)) {
            let last = (rows.end - 1) * product.row_stride + (product.steps - 1) * product.step_stride;
            assert!(rows.len() <= height && last + 4 <= product.left.len(), "left operand too short");
            // SAFETY: the processor has AVX-512; the rows are inside the operand, and `out` holds a block.
            unsafe { widen_rows(product, rows, height, cast_slice_mut(out)) };
        }
        fused
    }

    /// Returns the size of a widened block of rows, in lines.
    fn block(&self) -> usize {
        (2 * self.steps * self.height).div_ceil(LANES) + 1
    }

    /// Returns the size of a widened panel, in lines.
    fn panel(&self) -> usize {
        2 * self.steps * PANEL / LANES
    }

    /// Widens the panels `panels`, which the next tiles are multiplied by.
    pub fn widen_panels(&mut self, product: &Product<'_>, panels: Range<usize>) {
        let size = self.panel();
        self.right.resize(self.right.len().max(panels.len() * size), Line::zeroed());
        for (panel, out) in panels.zip(self.right.chunks_exact_mut(size)) {
            let words: &[u32] = cast_slice(&product.right[panel * product.panel_stride..][..self.steps * PANEL * 4]);
            // SAFETY: the processor has AVX-512.
            unsafe { widen_panel(words, cast_slice_mut(out)) };
        }
    }

    /// Adds the products of tile `index` and the widened panels to its sums, or starts them at zero. Uses the sums of
    /// `height` rows.
    pub fn multiply(&self, index: usize, tile: &mut Tile<'_>, resume: bool) {
        let size = self.panel();
        let left = &self.left[index * self.block()..][..self.block()];
        let run = if self.height == TALL { tall } else { low };
        for panel in 0..tile.panels {
            let sums = &mut tile.sums[panel * PANEL..][..(self.height - 1) * tile.stride + PANEL];
            let right = &self.right[panel * size..][..size];
            // SAFETY: the processor has AVX-512; the operands have `steps` pairs of terms, and the sums `height` rows.
            unsafe { run(left, right, 2 * self.steps, sums, tile.stride, resume) };
        }
    }
}

impl Drop for Fused {
    fn drop(&mut self) {
        BUFFERS.set([std::mem::take(&mut self.left), std::mem::take(&mut self.right)]);
    }
}

#[target_feature(enable = "avx512f")]
unsafe fn widen_panel(words: &[u32], out: &mut [f32]) {
    for (words, out) in words.chunks_exact(PANEL).zip(out.chunks_exact_mut(2 * PANEL)) {
        for i in [0, LANES] {
            // SAFETY: both pieces have the size that is read and written here.
            unsafe {
                let Pairs { low, high } = Avx512::widen(words.as_ptr().add(i).cast());
                _mm512_storeu_ps(out.as_mut_ptr().add(i), high);
                _mm512_storeu_ps(out.as_mut_ptr().add(PANEL + i), low);
            }
        }
    }
}

/// Writes `[2 * steps][height]` values and up to sixteen more. Rows beyond `rows` are zero.
#[target_feature(enable = "avx512f")]
unsafe fn widen_rows(product: &Product<'_>, rows: Range<usize>, height: usize, out: &mut [f32]) {
    let Product { row_stride, step_stride, steps, .. } = *product;
    assert!(out.len() >= 2 * steps * height + LANES, "a block of {steps} steps");
    let (left, out) = (product.left.as_ptr().wrapping_add(rows.start * row_stride), out.as_mut_ptr());
    let mask = |count: usize| ((1_u32 << count.min(LANES)) - 1) as u16;
    // SAFETY: the caller has checked the left operand, masks leave out what is beyond it, and the assert covers `out`.
    unsafe {
        let put = |step: usize, words: __m512i| {
            let Pairs { low, high } = Avx512::halves(words);
            _mm512_storeu_ps(out.add(2 * step * height), high);
            _mm512_storeu_ps(out.add((2 * step + 1) * height), low);
        };
        if product.contiguous == ContiguousAxis::Rows {
            for step in 0..steps {
                put(step, _mm512_maskz_loadu_epi32(mask(rows.len()), left.wrapping_add(step * step_stride).cast()));
            }
            return;
        }
        for step in (0..steps).step_by(LANES) {
            let mut words = [[0_i32; LANES]; LANES];
            for (i, words) in words.iter_mut().enumerate().take(rows.len()) {
                let from = left.wrapping_add(i * row_stride + step * step_stride).cast();
                _mm512_storeu_si512(words.as_mut_ptr().cast(), _mm512_maskz_loadu_epi32(mask(steps - step), from));
            }
            let columns = transpose16(words.as_ptr().cast(), LANES);
            for (i, column) in columns.into_iter().enumerate().take(steps - step) {
                put(step + i, column);
            }
        }
    }
}

/// Defines a function that adds the products of `$rows` widened rows and one widened panel to sums `[$rows][stride]`, or
/// starts them at zero. A row is given by its offset in bytes and by the registers of its two sums and of its value.
macro_rules! block {
    ($name:ident, $rows:literal, $([$at:literal, $first:literal, $second:literal, $value:literal])*) => {
        #[target_feature(enable = "avx512f")]
        unsafe fn $name(left: &[Line], right: &[Line], terms: usize, sums: &mut [f32], stride: usize, resume: bool) {
            assert!(terms > 0 && left.len() * LANES >= terms * $rows && right.len() * LANES >= terms * PANEL);
            assert!(sums.len() >= ($rows - 1) * stride + PANEL, "sums of a block");
            // The control word before, and one that takes subnormal numbers as zero and rounds to nearest.
            let mut control = [0_u32, 0x9fc0];
            // SAFETY: the asserts cover everything that is read and written; the control word is restored.
            unsafe {
                std::arch::asm!(
                    "stmxcsr [{control}]", "ldmxcsr [{control} + 4]",
                    $(concat!("vpxord zmm", $first, ", zmm", $first, ", zmm", $first),
                      concat!("vpxord zmm", $second, ", zmm", $second, ", zmm", $second),)*
                    "test {resume}, {resume}", "jz 2f", "mov {at}, {sums}",
                    $(concat!("vmovups zmm", $first, ", [{at}]"), concat!("vmovups zmm", $second, ", [{at} + 64]"),
                      "add {at}, {stride}",)*
                    "2:", "vmovaps zmm24, [{right}]", "vmovaps zmm25, [{right} + 64]",
                    $(concat!("vbroadcastss zmm", $value, ", dword ptr [{left} + ", $at, "]"),
                      concat!("vfmadd231ps zmm", $first, ", zmm", $value, ", zmm24"),
                      concat!("vfmadd231ps zmm", $second, ", zmm", $value, ", zmm25"),)*
                    concat!("add {left}, ", $rows, " * 4"), "add {right}, 128", "dec {terms}", "jnz 2b",
                    $(concat!("vmovups [{sums}], zmm", $first), concat!("vmovups [{sums} + 64], zmm", $second),
                      "add {sums}, {stride}",)*
                    "ldmxcsr [{control}]",
                    control = in(reg) &mut control, sums = inout(reg) sums.as_mut_ptr() => _, at = out(reg) _,
                    stride = in(reg) 4 * stride, resume = in(reg) usize::from(resume),
                    left = inout(reg) left.as_ptr() => _, right = inout(reg) right.as_ptr() => _,
                    terms = inout(reg) terms => _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
                    out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
                    out("zmm12") _, out("zmm13") _, out("zmm14") _, out("zmm15") _, out("zmm16") _, out("zmm17") _,
                    out("zmm18") _, out("zmm19") _, out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _,
                    out("zmm24") _, out("zmm25") _, out("zmm26") _, out("zmm27") _, out("zmm28") _, out("zmm29") _,
                    options(nostack),
                );
            }
        }
    };
}
block! { low, 8,
    [0, 0, 1, 26] [4, 2, 3, 27] [8, 4, 5, 28] [12, 6, 7, 29] [16, 8, 9, 26] [20, 10, 11, 27] [24, 12, 13, 28] [28, 14, 15, 29]
}
block! { tall, 12,
    [0, 0, 1, 26] [4, 2, 3, 27] [8, 4, 5, 28] [12, 6, 7, 29] [16, 8, 9, 26] [20, 10, 11, 27] [24, 12, 13, 28] [28, 14, 15, 29]
    [32, 16, 17, 26] [36, 18, 19, 27] [40, 20, 21, 28] [44, 22, 23, 29]
}

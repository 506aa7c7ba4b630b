//! AMX tiles of a thread, and the blocks computed with them.

use std::marker::PhantomData;

use super::block::{Block, ROWS, STEP, TILE};
#[cfg(target_arch = "x86_64")]
use super::block::{PANEL_BYTES, TILE_BYTES};
use super::twin;
use crate::device::isa::Isa;

/// AMX tiles of this thread, configured for blocks with a fixed number of rows. Dropping the value releases them. For
/// [`Isa::AmxTwin`], plain Rust emulates the tiles.
pub struct Tiles {
    isa: Isa,
    rows: usize,
    /// Makes the type neither `Send` nor `Sync`, because the tiles belong to the thread.
    _thread: PhantomData<*const ()>,
}

/// Configuration that `ldtilecfg` reads.
#[cfg(target_arch = "x86_64")]
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Tiles {
    /// Configures the tiles for blocks of `rows` rows (1 to [`ROWS`]). [`Isa::has_tiles`] must be true for `isa`.
    pub fn new(isa: Isa, rows: usize) -> Tiles {
        assert!(isa.has_tiles() && (1..=ROWS).contains(&rows), "tiles of {rows} rows by {isa:?}");
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Amx {
            let mut config = Config { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
            config.row_bytes[..8].fill(TILE_BYTES as u16);
            let [first, second, words] = [rows.min(TILE), rows.saturating_sub(TILE), STEP].map(|n| n as u8);
            // Four tiles of sums, then the operands: two left and two right tiles, or one left and three right tiles.
            config.rows[..8].copy_from_slice(&match second {
                0 => [first, first, first, first, first, words, words, words],
                _ => [first, first, second, second, first, second, words, words],
            });
            // SAFETY: `config` has 64 bytes and a valid palette. `Device::cpu` refuses `Isa::Amx` if the operating
            // system does not allow the tile state.
            unsafe { std::arch::asm!("ldtilecfg [{}]", in(reg) &config, options(nostack)) };
        }
        Tiles { isa, rows, _thread: PhantomData }
    }

    /// Computes a block of the configured rows by `panels`.
    ///
    /// # Safety
    /// The block's pointers must be valid for the sizes that it states.
    pub unsafe fn run(&self, block: &Block, panels: usize) {
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx {
            // Four tiles of sums at a time hide the latency: two tiles of rows by one panel, or one tile of rows by two
            // panels.
            let wide = if self.rows > TILE { 1 } else { 2 };
            for panel in (0..panels).step_by(wide) {
                let block = Block {
                    right: block.right.wrapping_add(panel * block.panel_stride),
                    sums: block.sums.wrapping_add(panel * 2 * TILE),
                    ..*block
                };
                // SAFETY: guaranteed by the caller; the tiles are configured for the block's rows.
                unsafe {
                    match wide {
                        1 => two_by_one(&block),
                        _ => one_by_two(&block, usize::from(panel + 1 < panels)),
                    }
                }
            }
            return;
        }
        let vectors = self.isa.vectors();
        // SAFETY: guaranteed by the caller.
        unsafe { twin::block(vectors, block, self.rows, panels) }
    }

    /// Runs `rounds` rounds of four full tile products and nothing else, to measure the peak rate of the unit. Does
    /// nothing for the twin. Panics unless the tiles are configured for [`ROWS`] rows.
    pub fn spin(&self, rounds: usize) {
        assert_eq!(self.rows, ROWS, "rows of tiles that only multiply");
        #[cfg(not(target_arch = "x86_64"))]
        let _ = rounds;
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx && rounds > 0 {
            // SAFETY: the tiles are configured, and no memory is accessed.
            unsafe {
                std::arch::asm!(
                    "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
                    "2:",
                    "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
                    "dec {rounds}", "jnz 2b",
                    rounds = inout(reg) rounds => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, nomem),
                );
            }
        }
    }

    /// Additions and multiplications in one round of [`Tiles::spin`] with tiles of [`ROWS`] rows.
    pub const ROUND: usize = 4 * 2 * TILE * TILE * 2 * STEP;
}

impl Drop for Tiles {
    fn drop(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.isa == Isa::Amx {
            // SAFETY: releases this thread's tiles, which are no longer in use.
            unsafe { std::arch::asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

/// Multiplies two tiles of rows by one panel. In the assembly, `sums` is the address of rows 0 to 15 and `sums2` the
/// address of the other rows.
///
/// # Safety
/// The tiles must be configured for the block's rows, and its pointers must be valid for the sizes that it states.
#[cfg(target_arch = "x86_64")]
unsafe fn two_by_one(block: &Block) {
    let sums_stride = 4 * block.sums_stride;
    // SAFETY: guaranteed by the caller; only the registers named here change.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "test {resume}, {resume}", "jz 2f",
            "tileloadd tmm0, [{sums} + {by}*1]", "tileloadd tmm1, [{sums} + {by}*1 + 64]",
            "tileloadd tmm2, [{sums2} + {by}*1]", "tileloadd tmm3, [{sums2} + {by}*1 + 64]",
            "2:", "test {steps}, {steps}", "jz 4f",
            "3:",
            "tileloadd tmm4, [{left} + {row}*1]", "tileloadd tmm6, [{right} + {line}*1]",
            "tileloadd tmm7, [{right} + {line}*1 + 64]", "tileloadd tmm5, [{left2} + {row}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6", "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6", "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left}, 64", "add {left2}, 64", "add {right}, 2048", "dec {steps}", "jnz 3b",
            "4:",
            "tilestored [{sums} + {by}*1], tmm0", "tilestored [{sums} + {by}*1 + 64], tmm1",
            "tilestored [{sums2} + {by}*1], tmm2", "tilestored [{sums2} + {by}*1 + 64], tmm3",
            resume = in(reg) usize::from(block.resume),
            sums = in(reg) block.sums, sums2 = in(reg) block.sums.wrapping_byte_add(TILE * sums_stride),
            by = in(reg) sums_stride, row = in(reg) block.row_stride, line = in(reg) PANEL_BYTES,
            left = inout(reg) block.left => _, left2 = inout(reg) block.left.wrapping_add(TILE * block.row_stride) => _,
            right = inout(reg) block.right => _, steps = inout(reg) block.steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Multiplies one tile of rows by the block's first panel and by the panel with index `next`. If `next` is 0, the first
/// panel is computed twice.
///
/// # Safety
/// The same conditions as for [`two_by_one`].
#[cfg(target_arch = "x86_64")]
unsafe fn one_by_two(block: &Block, next: usize) {
    // SAFETY: guaranteed by the caller; only the registers named here change.
    unsafe {
        std::arch::asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "test {resume}, {resume}", "jz 2f",
            "tileloadd tmm0, [{sums} + {by}*1]", "tileloadd tmm1, [{sums} + {by}*1 + 64]",
            "tileloadd tmm2, [{sums2} + {by}*1]", "tileloadd tmm3, [{sums2} + {by}*1 + 64]",
            "2:", "test {steps}, {steps}", "jz 4f",
            "3:",
            "tileloadd tmm4, [{left} + {row}*1]", "tileloadd tmm5, [{right} + {line}*1]",
            "tileloadd tmm6, [{right} + {line}*1 + 64]", "tileloadd tmm7, [{right2} + {line}*1]",
            "tdpbf16ps tmm0, tmm4, tmm5", "tileloadd tmm5, [{right2} + {line}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm6", "tdpbf16ps tmm2, tmm4, tmm7", "tdpbf16ps tmm3, tmm4, tmm5",
            "add {left}, 64", "add {right}, 2048", "add {right2}, 2048", "dec {steps}", "jnz 3b",
            "4:",
            "tilestored [{sums} + {by}*1], tmm0", "tilestored [{sums} + {by}*1 + 64], tmm1",
            "tilestored [{sums2} + {by}*1], tmm2", "tilestored [{sums2} + {by}*1 + 64], tmm3",
            resume = in(reg) usize::from(block.resume),
            sums = in(reg) block.sums, sums2 = in(reg) block.sums.wrapping_add(next * 2 * TILE),
            by = in(reg) 4 * block.sums_stride, row = in(reg) block.row_stride, line = in(reg) PANEL_BYTES,
            left = inout(reg) block.left => _, right = inout(reg) block.right => _,
            right2 = inout(reg) block.right.wrapping_add(next * block.panel_stride) => _,
            steps = inout(reg) block.steps => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

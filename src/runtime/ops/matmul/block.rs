//! The inner kernels of CPU products. They compute a block of a few rows by a few panels and keep its sums in registers
//! from the first step to the last. Every sum adds its terms in ascending K, whatever the block's shape.

use super::lanes::*;
use super::panels::PANEL;
use crate::device::Isa;
use crate::tensor::DType;

/// One block product: `sums[rows][panels * 32]` = (or +=) left rows times right panels.
///
/// A "word" is one f32, or a pair of bf16 that are adjacent in K. `steps` counts words.
#[derive(Clone, Copy)]
pub struct Block {
    /// First word of the left operand.
    pub left: *const u8,
    /// Bytes from one row's word to the next row's.
    pub row_stride: usize,
    /// Bytes from one step's word to the next step's.
    pub step_stride: usize,
    /// First panel: `[steps][32]` words.
    pub right: *const u8,
    /// Bytes from one panel to the next.
    pub panel_stride: usize,
    /// Number of steps: the number of words in K values.
    pub steps: usize,
    /// True if the last word of the left operand has only its low half (bf16 rows with odd K).
    pub odd: bool,
    /// The sums, row-major.
    pub sums: *mut f32,
    /// f32s from one row of sums to the next.
    pub sums_stride: usize,
    /// True if the sums start from their present values; otherwise they start from zero.
    pub resume: bool,
    /// True if only the first 16 columns of the last panel are computed.
    pub half: bool,
}

/// A compiled kernel for one instruction set and element type.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// Computes a block of `rows` (1 to `max_rows`) by `panels` (any number).
    ///
    /// # Safety
    ///
    /// The CPU must support the instruction set, and the block's pointers must be valid for its sizes and strides.
    pub run: unsafe fn(&Block, rows: usize, panels: usize),
    /// Maximum number of rows of a block.
    pub max_rows: usize,
    /// Number of panels that are computed at once for a block of 1, 2, ... rows.
    pub max_panels: [usize; MAX_ROWS],
}

/// Returns the kernel for `isa` and elements of `dtype`. `contiguous` is the axis along which the left operand's words are
/// contiguous: K for rows of activations, rows for columns of activations (weight gradients).
pub fn kernel(isa: Isa, dtype: DType, contiguous: ContiguousAxis) -> Kernel {
    // AMX tiles compute bf16 only.
    let isa = if dtype == DType::Bf16 { isa } else { isa.vectors() };
    match (isa, dtype) {
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, DType::Bf16) if isa.has_bf16_dot() => {
            of::<Dot>([avx512_dot::<true>, avx512_dot::<false>], contiguous)
        }
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, DType::Bf16) => of::<Widened<Avx512>>([avx512_bf16::<true>, avx512_bf16::<false>], contiguous),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx512, _) => of::<Single<Avx512>>([avx512_f32::<true>, avx512_f32::<false>], contiguous),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, DType::Bf16) => of::<Widened<Avx2>>([avx2_bf16::<true>, avx2_bf16::<false>], contiguous),
        #[cfg(target_arch = "x86_64")]
        (Isa::Avx2, _) => of::<Single<Avx2>>([avx2_f32::<true>, avx2_f32::<false>], contiguous),
        (_, DType::Bf16) => {
            of::<Widened<Portable>>([tall::<Widened<Portable>, true>, tall::<Widened<Portable>, false>], contiguous)
        }
        _ => of::<Single<Portable>>([tall::<Single<Portable>, true>, tall::<Single<Portable>, false>], contiguous),
    }
}

/// Makes a kernel from its two variants, one for each [`ContiguousAxis`].
fn of<X: Step>(run: [unsafe fn(&Block, usize, usize); 2], contiguous: ContiguousAxis) -> Kernel {
    Kernel { run: run[contiguous as usize], max_rows: X::MAX_ROWS, max_panels: X::L::MAX_PANELS }
}

/// Axis along which the words of the left operand are contiguous.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContiguousAxis {
    /// The K axis: `step_stride` is one word.
    K = 0,
    /// The row axis: `row_stride` is one word.
    Rows = 1,
}

macro_rules! compiled {
    ($($name:ident, $step:ty, $features:literal;)*) => {$(
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $name<const STEPS: bool>(block: &Block, rows: usize, panels: usize) {
            // SAFETY: the caller guarantees that the block is valid; the features are enabled here.
            unsafe { tall::<$step, STEPS>(block, rows, panels) }
        }
    )*};
}
compiled! {
    avx512_f32, Single<Avx512>, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma";
    avx512_bf16, Widened<Avx512>, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma";
    avx512_dot, Dot, "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma";
    avx2_f32, Single<Avx2>, "avx2,fma";
    avx2_bf16, Widened<Avx2>, "avx2,fma";
}

/// Selects the code for `rows` rows, so that the number is a compile-time constant from here on.
///
/// The conditions here and in [`wide`] and [`group`] are `const` blocks: no code is generated for a block that does not
/// fit in the registers of `X`.
#[inline(always)]
unsafe fn tall<X: Step, const STEPS: bool>(block: &Block, rows: usize, panels: usize) {
    macro_rules! rows {
        ($($m:literal),*) => {
            match rows {
                // SAFETY: the caller guarantees that the block is valid.
                $($m if const { $m <= X::MAX_ROWS } => unsafe { wide::<X, $m, STEPS>(block, panels) },)*
                _ => unreachable!("a block of {rows} rows"),
            }
        };
    }
    rows!(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
}

/// Processes the panels in the largest groups that fit in the registers.
#[inline(always)]
unsafe fn wide<X: Step, const M: usize, const STEPS: bool>(block: &Block, panels: usize) {
    let panels = panels - usize::from(block.half);
    let mut done = 0;
    let rest = |done: usize| Block {
        right: block.right.wrapping_add(done * block.panel_stride),
        sums: block.sums.wrapping_add(done * PANEL),
        ..*block
    };
    if const { X::L::MAX_PANELS[M - 1] >= 4 } {
        while done + 4 <= panels {
            // SAFETY: the caller guarantees that the block is valid, and the group lies inside its panels.
            unsafe { group::<X, M, 4, STEPS>(rest(done)) };
            done += 4;
        }
    }
    if const { X::L::MAX_PANELS[M - 1] >= 2 } {
        while done + 2 <= panels {
            // SAFETY: same as for groups of 4.
            unsafe { group::<X, M, 2, STEPS>(rest(done)) };
            done += 2;
        }
    }
    while done < panels {
        // SAFETY: same as for groups of 4.
        unsafe { group::<X, M, 1, STEPS>(rest(done)) };
        done += 1;
    }
    if block.half {
        // SAFETY: same as for groups of 4.
        unsafe { sum::<X, M, 1, 1, STEPS>(&rest(done)) };
    }
}

/// Computes `M` rows by `P` panels, in full or in two halves of 16 columns.
#[inline(always)]
unsafe fn group<X: Step, const M: usize, const P: usize, const STEPS: bool>(block: Block) {
    if const { X::L::HALVES } {
        let second = Block { right: block.right.wrapping_add(64), sums: block.sums.wrapping_add(16), ..block };
        // SAFETY: the caller guarantees that the block is valid; the words and sums of the second half start 16
        // further.
        unsafe {
            sum::<X, M, P, 1, STEPS>(&block);
            sum::<X, M, P, 1, STEPS>(&second);
        }
    } else {
        // SAFETY: the caller guarantees that the block is valid.
        unsafe { sum::<X, M, P, 2, STEPS>(&block) }
    }
}

/// Computes `M` rows by `H` vectors of 16 columns of each of `P` panels.
#[inline(always)]
unsafe fn sum<X: Step, const M: usize, const P: usize, const H: usize, const STEPS: bool>(block: &Block) {
    // One of the two strides is a constant, which saves address arithmetic for every row or step.
    let step_stride = if STEPS { 4 } else { block.step_stride };
    let row_stride = if STEPS { block.row_stride } else { 4 };
    let (mut left, mut right) = (block.left, block.right);
    // SAFETY: the caller guarantees that every word and sum of the block is readable and every sum writable.
    unsafe {
        let mut sums = [[[X::L::zero(); H]; P]; M];
        if block.resume {
            for (i, row) in sums.iter_mut().enumerate() {
                for (p, panel) in row.iter_mut().enumerate() {
                    for (h, sum) in panel.iter_mut().enumerate() {
                        *sum = X::L::load(block.sums.add(i * block.sums_stride + p * PANEL + h * 16));
                    }
                }
            }
        }
        let whole = block.steps - usize::from(block.odd);
        for _ in 0..whole {
            // Loops fill the array, because closures would not inherit the enabled instruction set.
            let mut b = [[X::right(right); H]; P];
            for (p, panel) in b.iter_mut().enumerate() {
                for (h, words) in panel.iter_mut().enumerate() {
                    *words = X::right(right.wrapping_add(p * block.panel_stride + h * 64));
                }
            }
            for (i, row) in sums.iter_mut().enumerate() {
                let a = X::left(left.add(i * row_stride));
                for (panel, b) in row.iter_mut().zip(&b) {
                    for (sum, &b) in panel.iter_mut().zip(b) {
                        *sum = X::step(a, b, *sum);
                    }
                }
            }
            left = left.wrapping_add(step_stride);
            right = right.wrapping_add(128);
        }
        if block.odd {
            for (i, row) in sums.iter_mut().enumerate() {
                let a = X::left_half(left.add(i * row_stride));
                for (p, panel) in row.iter_mut().enumerate() {
                    let at = right.wrapping_add(p * block.panel_stride);
                    for (h, sum) in panel.iter_mut().enumerate() {
                        *sum = X::step(a, X::right(at.add(h * 64)), *sum);
                    }
                }
            }
        }
        for (i, row) in sums.iter().enumerate() {
            for (p, panel) in row.iter().enumerate() {
                for (h, sum) in panel.iter().enumerate() {
                    X::L::store(block.sums.add(i * block.sums_stride + p * PANEL + h * 16), *sum);
                }
            }
        }
    }
}

//! What device is emulated, and how it schedules.

use crate::device::images::{Arch, Images, PROGRAM};

/// When queued work runs and asynchronous copies land.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Completion {
    /// At once.
    Eager = 0,
    /// When somebody waits for it, and no more than that.
    Lazy = 1,
    /// At seeded moments.
    Random = 2,
}

/// How a k16 step of a matrix instruction is added to its sums.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sums {
    /// One fused multiply-add after the other, k ascending: whatever begins a chain anew gives the same bits.
    Chain = 0,
    /// As tensor cores do: products and the sum so far are exact, aligned to the largest of them, cut, added, and cut to
    /// f32. What a sum is then depends on where a step begins.
    #[cfg_attr(
        private_tree,
        expect(dead_code, reason = "tests prove that no bit of a kernel depends on such sums by chance")
    )]
    Aligned = 1,
}

/// What device is emulated, and how it schedules.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of schedules; 0 is the fixed one.
    pub seed: u64,
    /// When queued work runs.
    pub completion: Completion,
    /// Streaming multiprocessors: how many CTAs are resident at once depends on it.
    pub multiprocessors: u32,
    /// What kind of card is emulated: compute capability 8.0, whose limits kernels for both kinds keep to, or 9.0.
    pub arch: Arch,
    /// Whether shared memory has shadow state, which finds races and unwritten reads and takes most of the time.
    pub shadow: bool,
    /// Whether memory is guarded and poisoned: a tensor's pages open when it is placed and hold NaN until they are written.
    /// Without it regions are mapped whole and zero-filled, as on a card.
    pub guarded: bool,
    /// How matrix instructions add.
    pub sums: Sums,
    /// Whether `Counters::bank_conflicts` has those of single loads and stores, which takes time.
    pub banks: bool,
    /// Whether of a grid only the first and the last CTA run, and nothing is copied or filled: what launches of any size do
    /// with their lengths, not what they compute. For memory that is not guarded.
    pub corners: bool,
    /// The kernels, each file of the first that has it.
    pub images: &'static [&'static Images],
    /// Kernel sources besides those, or in their place, as (`kernels/NAME.cu`, text). `OMR_EMU_SITES` lists none of
    /// their sites.
    pub sources: Vec<(String, String)>,
}

impl Default for Options {
    /// The fixed schedule, as late as possible, on two multiprocessors: few enough that CTAs of small tests queue up.
    fn default() -> Options {
        Options {
            seed: 0,
            completion: Completion::Lazy,
            multiprocessors: 2,
            arch: Arch::Sm80,
            shadow: true,
            guarded: true,
            sums: Sums::Chain,
            banks: false,
            corners: false,
            images: &PROGRAM,
            sources: Vec::new(),
        }
    }
}

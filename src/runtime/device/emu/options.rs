//! Options of the emulator: the emulated device and its schedule.

use crate::device::images::{Arch, Images, PROGRAM};
use crate::device::limits::{AMPERE, HOPPER, Limits};

/// Time at which queued work runs and asynchronous copies complete.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Completion {
    /// Immediately.
    Eager = 0,
    /// The latest possible time: only when something waits for it.
    Lazy = 1,
    /// At seeded random times.
    Random = 2,
}

/// Arithmetic with which a k16 step of a matrix instruction is added to its sums.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Sums {
    /// Sequential fused multiply-adds in ascending k. Starting a new instruction at any step does not change the
    /// result.
    Chain = 0,
    /// The arithmetic that is reported for the tensor cores of the emulated instruction set: Hopper for 9.0, Ampere and
    /// Ada for 8.0 (`SumRule` in kernels/emu/operand.h). The result depends on where a step begins.
    Aligned = 1,
}

/// Options of an emulated device.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seed of the schedules; 0 selects the fixed schedule.
    pub seed: u64,
    /// Time at which queued work runs.
    pub completion: Completion,
    /// Number of streaming multiprocessors. It determines how many CTAs are resident at once.
    pub multiprocessors: u32,
    /// Number of these multiprocessors that another kernel occupies. The CTAs that launches have for them start late,
    /// when others have ended.
    pub occupied: u32,
    /// Emulated instruction set.
    pub arch: Arch,
    /// Limits of the emulated GPU. `None` selects those of compute capability 8.0 or 9.0, the lowest one of `arch`.
    pub limits: Option<Limits>,
    /// True to keep shadow state of shared memory. The shadow state finds races and reads of unwritten bytes. Keeping
    /// it takes about a fifth of the emulator's time (docs/dev/measured.md, "The emulator").
    pub shadow: bool,
    /// True to guard and poison memory: a tensor's pages become accessible when it is placed and contain NaN until they
    /// are written. If false, each region is mapped completely and zero-filled, as on a real GPU.
    pub guarded: bool,
    /// Arithmetic of matrix instructions.
    pub sums: Sums,
    /// True to count the bank conflicts of single loads and stores in `Counters::bank_conflicts`, too. Counting them
    /// takes time.
    pub banks: bool,
    /// True to run only the first and last CTA of each grid and no copies or fills. This checks the lengths and
    /// addresses of launches of any size, but not their results. It requires unguarded memory.
    pub corners: bool,
    /// Kernel images. If several contain a file, the first one is used.
    pub images: &'static [&'static Images],
    /// Additional or replacement kernel sources, as (`kernels/NAME.cu`, text). `OMR_EMU_SITES` does not list their
    /// sites.
    pub sources: Vec<(String, String)>,
}

impl Options {
    /// Returns the limits of the emulated GPU.
    pub fn limits(&self) -> Limits {
        self.limits.unwrap_or(match self.arch {
            Arch::Sm80 => AMPERE,
            Arch::Sm90a => HOPPER,
        })
    }
}

impl Default for Options {
    /// Returns the fixed, lazy schedule on two multiprocessors. With so few, even the CTAs of small tests have to
    /// queue.
    fn default() -> Options {
        Options {
            seed: 0,
            completion: Completion::Lazy,
            multiprocessors: 2,
            occupied: 0,
            arch: Arch::Sm80,
            limits: None,
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

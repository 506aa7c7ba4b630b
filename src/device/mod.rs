//! Where memory and compute live.
//!
//! A [`Device`] owns four [`Region`]s of memory, each a stack with mark and release, and a backend that
//! executes ops. The `Cpu` backend is the embedded default; `Count` executes nothing and records how high
//! each stack grew, so that a plan is the run's own code (DESIGN section 3). Ops ask for the backend they
//! have a body for; model code never does. `unsafe` lives here (views into memory, the thread pool), in the
//! matrix kernels of `ops` and where a `cpu_kernel` body is entered.

mod file;
mod isa;
mod memory;
mod pool;

pub use file::MappedFile;
pub use isa::{Isa, cpu_kernel};
pub use memory::{Mark, Memory, Plan, Region, Span, View, ViewMut};
pub use pool::{Parts, Pool};

use crate::error::{Error, Result};

/// The CPU backend's parts, borrowed apart so that an op can hold views while the pool runs.
pub struct Cpu<'a> {
    /// The regions.
    pub memory: &'a mut Memory,
    /// The compute threads.
    pub pool: &'a Pool,
    /// Which kernel bodies to run.
    pub isa: Isa,
}

enum Backend {
    Cpu { pool: Pool, isa: Isa },
    Count { threads: usize },
}

/// Memory regions and the backend that computes on them.
pub struct Device {
    memory: Memory,
    backend: Backend,
}

impl Device {
    /// A CPU device with `plan`'s bytes mapped (lazily touched, so a generous plan costs nothing),
    /// `threads` compute threads (this one included) and the given kernel bodies. Errors when the machine cannot run
    /// these, has no such memory or refuses a thread.
    pub fn cpu(plan: &Plan, threads: usize, isa: Isa) -> Result<Device> {
        if !isa.available() {
            return Err(Error::Failed(format!("this machine cannot run the {} kernel bodies", isa.name())));
        }
        Ok(Device { memory: Memory::map(plan)?, backend: Backend::Cpu { pool: Pool::new(threads)?, isa } })
    }

    /// A device that only counts: every allocation succeeds, no op computes; [`Device::high_water`] is the plan.
    /// It stands for a device of one thread; see [`Device::count_for`].
    pub fn count() -> Device {
        Device::count_for(1)
    }

    /// [`Device::count`] for a device of `threads` threads: ops take scratch for each.
    pub fn count_for(threads: usize) -> Device {
        Device { memory: Memory::count(), backend: Backend::Count { threads } }
    }

    /// The CPU parts, or `None` when this device only counts (the op then returns without computing).
    pub fn on_cpu(&mut self) -> Option<Cpu<'_>> {
        match &self.backend {
            Backend::Cpu { pool, isa } => Some(Cpu { memory: &mut self.memory, pool, isa: *isa }),
            Backend::Count { .. } => None,
        }
    }

    /// True when nothing computes.
    pub fn counts_only(&self) -> bool {
        matches!(self.backend, Backend::Count { .. })
    }

    /// Compute threads.
    pub fn threads(&self) -> usize {
        match &self.backend {
            Backend::Cpu { pool, .. } => pool.threads(),
            Backend::Count { threads } => *threads,
        }
    }

    /// The kernel bodies in use (recorded in checkpoints: bits are promised per body for bf16).
    pub fn isa(&self) -> Isa {
        match &self.backend {
            Backend::Cpu { isa, .. } => *isa,
            Backend::Count { .. } => Isa::detect(),
        }
    }

    /// The regions.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The regions, for marks, releases and host copies.
    pub fn memory_mut(&mut self) -> &mut Memory {
        &mut self.memory
    }

    /// The top of `region`'s stack, to be given back to [`Device::release`].
    pub fn mark(&self, region: Region) -> Mark {
        self.memory.mark(region)
    }

    /// Frees everything allocated in the mark's region since the mark.
    pub fn release(&mut self, mark: Mark) {
        self.memory.release(mark);
    }

    /// The most bytes each region ever held: a run's plan.
    pub fn high_water(&self) -> Plan {
        self.memory.high_water()
    }
}

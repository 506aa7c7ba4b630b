//! The device: regions of memory, and the backend that computes on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::body::Body;
use super::driver::{Driver, Stream};
use super::gpu::Gpu;
use super::isa::Isa;
use super::memory::{GUARD, Mark, Memory, Placing, Plan, Region, Span};
use super::pool::Pool;
use super::readback::{Readback, Sink};
use super::target::{Kind, Target};
use super::work::Work;
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

pub(super) enum Backend {
    Cpu {
        pool: Pool,
        isa: Isa,
    },
    Gpu {
        driver: Box<dyn Driver>,
        kind: Kind,
        body: Body,
        refused: bool,
        attention_refused: bool,
        attention_bwd_refused: bool,
        open_ranges: usize,
        readback: Option<Readback>,
    },
    Count {
        target: Target,
        work: Vec<Work>,
    },
}

/// Where an op computes.
pub enum On<'a> {
    /// Nothing computes: allocations are counted.
    Count,
    /// The CPU body runs.
    Cpu(Cpu<'a>),
    /// A kernel is launched.
    Gpu(Gpu<'a>),
}

/// Memory regions and the backend that computes on them.
pub struct Device {
    memory: Memory,
    pub(super) backend: Backend,
    stop: Option<Arc<AtomicBool>>,
}

impl Device {
    /// A CPU device with `plan`'s bytes mapped (lazily touched, so a generous plan costs nothing),
    /// `threads` compute threads (this one included) and the given kernel bodies. Errors when the machine cannot run
    /// these, has no such memory or refuses a thread.
    pub fn cpu(plan: &Plan, threads: usize, isa: Isa) -> Result<Device> {
        if !isa.available() {
            return Err(Error::Failed(format!("this machine cannot run the {} kernel bodies", isa.name())));
        }
        Ok(Device { memory: Memory::map(plan)?, backend: Backend::Cpu { pool: Pool::new(threads)?, isa }, stop: None })
    }

    /// A device that launches kernels through `driver`, with `plan`'s bytes taken at once. Errors when it has no such
    /// memory.
    pub fn gpu(mut driver: Box<dyn Driver>, kind: Kind, plan: &Plan) -> Result<Device> {
        let memory = Memory::on(&mut *driver, plan)?;
        let backend = Backend::Gpu {
            driver,
            kind,
            body: Body::Mma,
            refused: false,
            attention_refused: false,
            attention_bwd_refused: false,
            open_ranges: 0,
            readback: None,
        };
        Ok(Device { memory, backend, stop: None })
    }

    /// A device that only counts, in place of `target`: every allocation succeeds, no op computes, and
    /// [`Device::high_water`] is the plan. Ops take scratch by the target's threads, and tensors are placed as there.
    pub fn count_for(target: Target) -> Device {
        let placing = match target.kind {
            Kind::Cpu => Placing::HOST,
            Kind::Cuda => Placing::device(0),
            Kind::Emu => Placing::device(GUARD),
        };
        Device { memory: Memory::count(placing), backend: Backend::Count { target, work: Vec::new() }, stop: None }
    }

    /// From here on passes end where they are once `asked` is true.
    pub fn stop_by(&mut self, asked: Arc<AtomicBool>) {
        self.stop = Some(asked);
    }

    /// Errors with [`Error::Stopped`] once the user asked to stop: passes look between layers, so that what is queued is soon
    /// over. What only some of changed, an update of weights, does not look.
    pub fn go_on(&self) -> Result<()> {
        match &self.stop {
            Some(asked) if asked.load(Ordering::Relaxed) => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Where `op` computes.
    pub fn on(&mut self) -> On<'_> {
        match &mut self.backend {
            Backend::Cpu { pool, isa } => On::Cpu(Cpu { memory: &mut self.memory, pool, isa: *isa }),
            Backend::Gpu { driver, body, attention_refused, attention_bwd_refused, readback, .. } => {
                let (memory, driver, wgmma) = (&self.memory, &mut **driver, *body == Body::Wgmma);
                if let Some(readback) = readback {
                    readback.poll(driver);
                }
                let wgmma_attention = wgmma && !*attention_refused;
                let wgmma_attention_bwd = wgmma_attention && !*attention_bwd_refused;
                On::Gpu(Gpu { memory, driver, stream: Stream::COMPUTE, wgmma, wgmma_attention, wgmma_attention_bwd })
            }
            Backend::Count { .. } => On::Count,
        }
    }

    /// The CPU parts, or `None` on every other device.
    pub fn on_cpu(&mut self) -> Option<Cpu<'_>> {
        match self.on() {
            On::Cpu(cpu) => Some(cpu),
            On::Count | On::Gpu(_) => None,
        }
    }

    /// The driver, for copies, streams and graphs; `None` where no kernels run.
    pub fn driver(&mut self) -> Option<&mut dyn Driver> {
        match &mut self.backend {
            Backend::Gpu { driver, .. } => Some(&mut **driver),
            _ => None,
        }
    }

    /// Begins to read `spans` as they are now beside the work that follows; their bytes go into `sink` in order, cut into
    /// messages nobody may rely on. Nothing may write to them before [`Device::finish_readback`]. Errors where no
    /// kernels run.
    pub fn begin_readback(&mut self, spans: &[Span], sink: Sink) -> Result<()> {
        let Backend::Gpu { driver, readback, .. } = &mut self.backend else {
            return Err(Error::Failed("reading beside the work of a device without streams".into()));
        };
        let readback = match readback {
            Some(readback) => readback,
            None => readback.insert(Readback::new(&mut **driver)?),
        };
        let pieces = spans.iter().map(|span| (self.memory.address(*span), span.bytes));
        readback.begin(&mut **driver, pieces, sink)
    }

    /// Waits until everything is read that [`Device::begin_readback`] began.
    pub fn finish_readback(&mut self) -> Result<()> {
        match &mut self.backend {
            Backend::Gpu { driver, readback: Some(readback), .. } => readback.finish(&mut **driver),
            _ => Ok(()),
        }
    }

    /// True when nothing computes.
    pub fn counts_only(&self) -> bool {
        matches!(self.backend, Backend::Count { .. })
    }

    /// The kind of device, also where it is only counted for.
    pub fn kind(&self) -> Kind {
        match &self.backend {
            Backend::Cpu { .. } => Kind::Cpu,
            Backend::Gpu { kind, .. } => *kind,
            Backend::Count { target, .. } => target.kind,
        }
    }

    /// Compute threads.
    pub fn threads(&self) -> usize {
        match &self.backend {
            Backend::Cpu { pool, .. } => pool.threads(),
            Backend::Gpu { .. } => 1,
            Backend::Count { target, .. } => target.threads,
        }
    }

    /// The kernel bodies in use (recorded in checkpoints: bits are promised per body for bf16).
    pub fn isa(&self) -> Isa {
        match &self.backend {
            Backend::Cpu { isa, .. } => *isa,
            Backend::Gpu { .. } | Backend::Count { .. } => Isa::detect(),
        }
    }

    /// The top of `region`'s stack, to be given back to [`Device::release`].
    pub fn mark(&self, region: Region) -> Mark {
        self.memory.mark(region)
    }

    /// Frees everything allocated in the mark's region since the mark.
    pub fn release(&mut self, mark: Mark) {
        let (address, bytes) = self.memory.above(mark);
        self.memory.release(mark);
        if let Backend::Gpu { driver, .. } = &mut self.backend
            && bytes > 0
        {
            // A failed launch before this is reported by the next call that can: releasing has no error of its own.
            let _ = driver.close(address, bytes);
        }
    }

    /// Takes `bytes` from the top of `region`'s stack. The content is undefined.
    pub fn take(&mut self, region: Region, bytes: usize) -> Result<Span> {
        let span = self.memory.alloc(region, bytes)?;
        if let Backend::Gpu { driver, .. } = &mut self.backend {
            driver.open(self.memory.address(span), bytes)?;
        }
        Ok(span)
    }

    /// Forgets how high the stacks grew: the next high-water mark begins at their present tops.
    pub fn reset_high_water(&mut self) {
        self.memory.reset_high_water();
    }

    /// The most bytes each region ever held: a run's plan.
    pub fn high_water(&self) -> Plan {
        self.memory.high_water()
    }
}

//! The device: its memory regions and the backend that computes on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::driver::{Driver, Stream};
use super::gpu::Gpu;
use super::isa::Isa;
use super::kernel_variant::Variants;
use super::memory::{GUARD, Mark, Memory, Placing, Plan, Region, Span};
use super::pool::Pool;
use super::readback::{Readback, ReadbackSender};
use super::side_stream::SideStream;
use super::target::{Kind, Target};
use super::work::Work;
use omr_base::error::{Error, Result};

/// Bytes of [`Gpu::counter`].
const COUNTER_BYTES: usize = size_of::<u32>();

/// Parts of the CPU backend, borrowed separately so that an op can hold views while the pool runs.
pub struct Cpu<'a> {
    /// Memory regions.
    pub memory: &'a mut Memory,
    /// Compute threads.
    pub pool: &'a Pool,
    /// Kernel variants to run.
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
        variants: Variants,
        /// Maximum CTAs of a wgmma kernel, see [`Device::limit_ctas`].
        max_ctas: Option<usize>,
        open_ranges: usize,
        readback: Option<Box<Readback>>,
        /// See [`Gpu::counter`].
        counter: Span,
        /// Stream that ops run on.
        stream: Stream,
        side_stream: Option<SideStream>,
    },
    Count {
        target: Target,
        work: Vec<Work>,
    },
}

/// Backend that an op runs on.
pub enum On<'a> {
    /// No computation: only allocations are counted.
    Count,
    /// The op runs its CPU variant.
    Cpu(Cpu<'a>),
    /// The op launches a kernel.
    Gpu(Gpu<'a>),
}

impl On<'_> {
    /// Runs the op: `cpu` or `gpu`, as the device computes. A device that only counts runs neither.
    pub fn run<D: Done>(self, cpu: impl FnOnce(Cpu<'_>) -> D, gpu: impl FnOnce(Gpu<'_>) -> Result<()>) -> Result<()> {
        match self {
            On::Count => Ok(()),
            On::Cpu(parts) => cpu(parts).done(),
            On::Gpu(parts) => gpu(parts),
        }
    }
}

/// Return value of the CPU variant of an op: nothing if it cannot fail, or a result.
pub trait Done {
    /// Returns the result.
    fn done(self) -> Result<()>;
}

impl Done for () {
    fn done(self) -> Result<()> {
        Ok(())
    }
}

impl Done for Result<()> {
    fn done(self) -> Result<()> {
        self
    }
}

/// Memory regions and the backend that computes on them.
pub struct Device {
    memory: Memory,
    pub(super) backend: Backend,
    stop: Option<Arc<AtomicBool>>,
}

impl Device {
    /// Creates a CPU device with `plan`'s bytes mapped, `threads` compute threads (including the calling thread) and
    /// the given kernel variants. The memory is touched lazily, so a large plan costs nothing. Errors if the machine
    /// cannot run these variants, cannot map the memory or refuses to create a thread.
    pub fn cpu(plan: &Plan, threads: usize, isa: Isa) -> Result<Device> {
        if !isa.available() {
            return Err(Error::Failed(format!("this machine cannot run the {} kernel variants", isa.name())));
        }
        Ok(Device { memory: Memory::map(plan)?, backend: Backend::Cpu { pool: Pool::new(threads)?, isa }, stop: None })
    }

    /// Creates a device that launches kernels through `driver`. All of `plan`'s bytes are allocated at once. Errors if
    /// the driver does not have that much memory.
    pub fn gpu(mut driver: Box<dyn Driver>, kind: Kind, plan: &Plan) -> Result<Device> {
        let mut memory = Memory::on(&mut *driver, plan)?;
        let counter = memory.alloc(Region::Workspace, COUNTER_BYTES)?;
        driver.open(memory.address(counter), COUNTER_BYTES)?;
        driver.fill(Stream::COMPUTE, memory.address(counter), 0, COUNTER_BYTES)?;
        let backend = Backend::Gpu {
            driver,
            kind,
            variants: Variants::new(),
            max_ctas: None,
            open_ranges: 0,
            readback: None,
            counter,
            stream: Stream::COMPUTE,
            side_stream: None,
        };
        Ok(Device { memory, backend, stop: None })
    }

    /// Creates a device that only counts the allocations and the work of a run on `target`. Every allocation succeeds,
    /// no op computes, and [`Device::high_water`] returns the memory plan. Scratch sizes follow the target's number of
    /// threads, and tensors are placed as they are on the target.
    pub fn count_for(target: Target) -> Device {
        let placing = match target.kind {
            Kind::Cpu => Placing::HOST,
            Kind::Cuda => Placing::device(0),
            Kind::Emu => Placing::device(GUARD),
        };
        let mut memory = Memory::count(placing);
        if target.kind.is_gpu() {
            // The counter of [`Device::gpu`]. Memory that only counts has no limit.
            let _ = memory.alloc(Region::Workspace, COUNTER_BYTES);
        }
        Device { memory, backend: Backend::Count { target, work: Vec::new() }, stop: None }
    }

    /// Sets the flag that stops passes: after it becomes true, [`Device::check_stop`] returns an error.
    pub fn set_stop_flag(&mut self, flag: Arc<AtomicBool>) {
        self.stop = Some(flag);
    }

    /// Removes the flag that stops passes and returns it, if there is one.
    pub fn take_stop_flag(&mut self) -> Option<Arc<AtomicBool>> {
        self.stop.take()
    }

    /// Errors with [`Error::Stopped`] if the user asked to stop. Passes check this between layers, so the queued work
    /// ends soon. An update of weights does not check, because it must not stop when only some of the weights are
    /// updated.
    pub fn check_stop(&self) -> Result<()> {
        match &self.stop {
            Some(flag) if flag.load(Ordering::Relaxed) => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Returns the backend that ops run on.
    pub fn on(&mut self) -> On<'_> {
        self.op("")
    }

    /// Returns the backend to run `op` on, which is the op's name in errors.
    pub fn op(&mut self, op: &'static str) -> On<'_> {
        match &mut self.backend {
            Backend::Cpu { pool, isa } => On::Cpu(Cpu { memory: &mut self.memory, pool, isa: *isa }),
            Backend::Gpu { driver, variants, max_ctas, readback, counter, stream, .. } => {
                let (memory, driver) = (&self.memory, &mut **driver);
                if let Some(readback) = readback {
                    readback.poll(driver);
                }
                let most = driver.properties().multiprocessors as usize;
                let max_ctas = max_ctas.map_or(most, |limit| most.min(limit));
                On::Gpu(Gpu { memory, driver, stream: *stream, variants, max_ctas, counter: *counter, op })
            }
            Backend::Count { .. } => On::Count,
        }
    }

    /// Returns the CPU parts, or `None` on every other device.
    pub fn on_cpu(&mut self) -> Option<Cpu<'_>> {
        match self.on() {
            On::Cpu(cpu) => Some(cpu),
            On::Count | On::Gpu(_) => None,
        }
    }

    /// Returns the driver, for copies, streams and graphs, or `None` if the device runs no kernels.
    pub fn driver(&mut self) -> Option<&mut dyn Driver> {
        match &mut self.backend {
            Backend::Gpu { driver, .. } => Some(&mut **driver),
            _ => None,
        }
    }

    /// Begins to read `spans`, as they are now, in parallel with the work that follows. Their bytes are sent to `sink`
    /// in order, as messages of unspecified sizes. Nothing may write to the spans before [`Device::finish_readback`].
    /// Errors if the device runs no kernels.
    pub fn begin_readback(&mut self, spans: &[Span], sink: ReadbackSender) -> Result<()> {
        let Backend::Gpu { driver, readback, .. } = &mut self.backend else {
            return Err(Error::Failed("only a device with streams can read in the background".into()));
        };
        let readback = match readback {
            Some(readback) => readback,
            None => readback.insert(Box::new(Readback::new(&mut **driver)?)),
        };
        let pieces = spans.iter().map(|span| (self.memory.address(*span), span.bytes));
        readback.begin(&mut **driver, pieces, sink)
    }

    /// Waits until everything that [`Device::begin_readback`] started is read.
    pub fn finish_readback(&mut self) -> Result<()> {
        match &mut self.backend {
            Backend::Gpu { driver, readback: Some(readback), .. } => readback.finish(&mut **driver),
            _ => Ok(()),
        }
    }

    /// Runs `work`, whose ops are queued on the side stream: they run after everything that is queued so far, and
    /// beside later work of the compute stream. `work` must not allocate or free memory. The memory that its ops use
    /// may be used by other ops after [`Device::join_side_stream`]. On the CPU and on a device that only counts, the ops
    /// run at once.
    pub fn on_side_stream<R>(&mut self, work: impl FnOnce(&mut Device) -> Result<R>) -> Result<R> {
        if let Backend::Gpu { driver, side_stream, stream, .. } = &mut self.backend {
            let side = match side_stream {
                Some(side) => *side,
                None => *side_stream.insert(SideStream::new(&mut **driver)?),
            };
            side.begin(&mut **driver)?;
            *stream = side.stream;
        }
        let out = work(self);
        if let Backend::Gpu { driver, side_stream: Some(side), stream, .. } = &mut self.backend {
            *stream = Stream::COMPUTE;
            side.end(&mut **driver)?;
        }
        out
    }

    /// Makes later work of the compute stream wait for the work of the side stream. Does not wait on the host.
    pub fn join_side_stream(&mut self) -> Result<()> {
        match &mut self.backend {
            Backend::Gpu { driver, side_stream: Some(side), .. } => side.join(&mut **driver),
            _ => Ok(()),
        }
    }

    /// Returns true if all work of the side stream is known to have run. Does not wait.
    pub fn side_stream_is_idle(&mut self) -> Result<bool> {
        match &mut self.backend {
            Backend::Gpu { driver, side_stream: Some(side), .. } => driver.is_idle(side.stream),
            _ => Ok(true),
        }
    }

    /// Returns true if the device only counts and computes nothing.
    pub fn counts_only(&self) -> bool {
        matches!(self.backend, Backend::Count { .. })
    }

    /// Returns the kind of device. For a counting device, this is the kind of its target.
    pub fn kind(&self) -> Kind {
        match &self.backend {
            Backend::Cpu { .. } => Kind::Cpu,
            Backend::Gpu { kind, .. } => *kind,
            Backend::Count { target, .. } => target.kind,
        }
    }

    /// Returns the number of compute threads.
    pub fn threads(&self) -> usize {
        match &self.backend {
            Backend::Cpu { pool, .. } => pool.threads(),
            Backend::Gpu { .. } => 1,
            Backend::Count { target, .. } => target.threads,
        }
    }

    /// Returns the kernel variants in use. Checkpoints record them, because bf16 results are reproducible only per
    /// variant.
    pub fn isa(&self) -> Isa {
        match &self.backend {
            Backend::Cpu { isa, .. } => *isa,
            Backend::Gpu { .. } | Backend::Count { .. } => Isa::detect(),
        }
    }

    /// Returns the current top of `region`'s stack, for a later [`Device::release`].
    pub fn mark(&self, region: Region) -> Mark {
        self.memory.mark(region)
    }

    /// Frees everything that was allocated in the mark's region since the mark.
    pub fn release(&mut self, mark: Mark) {
        let (address, bytes) = self.memory.above(mark);
        self.memory.release(mark);
        if let Backend::Gpu { driver, .. } = &mut self.backend
            && bytes > 0
        {
            // Releasing cannot report an error. If an earlier launch failed, the next call that can report it does.
            let _ = driver.close(address, bytes);
        }
    }

    /// Runs `work`, then frees everything that it allocated in `region`.
    pub fn scope<R>(&mut self, region: Region, work: impl FnOnce(&mut Device) -> Result<R>) -> Result<R> {
        let mark = self.mark(region);
        let done = work(self);
        self.release(mark);
        done
    }

    /// Allocates `bytes` on top of `region`'s stack. The content is undefined.
    pub fn take(&mut self, region: Region, bytes: usize) -> Result<Span> {
        let span = self.memory.alloc(region, bytes)?;
        if let Backend::Gpu { driver, .. } = &mut self.backend {
            driver.open(self.memory.address(span), bytes)?;
        }
        Ok(span)
    }

    /// Resets the high-water marks to the current tops of the stacks.
    pub fn reset_high_water(&mut self) {
        self.memory.reset_high_water();
    }

    /// Returns the highest number of bytes that each region has held: the memory plan of a run.
    pub fn high_water(&self) -> Plan {
        self.memory.high_water()
    }
}

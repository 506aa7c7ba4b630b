//! Where memory and compute live.
//!
//! A [`Device`] owns four [`Region`]s of memory, each a stack with mark and release, and a backend that
//! executes ops. The `Cpu` backend is the embedded default; `Count` executes nothing and records how high
//! each stack grew, so that a plan is the run's own code (DESIGN section 3). Ops ask for the backend they
//! have a body for; model code never does. `unsafe` lives here (views into memory, the thread pool), in the
//! matrix kernels of `ops` and where a `cpu_kernel` body is entered.

pub mod amx;
mod body;
pub mod cuda;
mod driver;
pub mod emu;
mod file;
mod gpu;
pub mod images;
mod isa;
pub mod listing;
mod memory;
pub mod nccl;
pub mod pace;
mod pool;
pub mod readback;
mod tensor_map;

pub use body::Body;
pub use driver::{Address, Driver, EncodedMap, Event, Graph, Kernel, Launch, Pinned, Properties, Stream, TensorMap};
pub use file::MappedFile;
pub use gpu::Gpu;
pub use isa::{Isa, cpu_kernel};
pub use memory::{Mark, Memory, Placing, Plan, Region, Span, View, ViewMut};
pub use pool::{Parts, Pool};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use readback::{Readback, Sink};

/// What kind of device a run is on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// The host's processor.
    Cpu,
    /// A card.
    Cuda,
    /// The host emulating a card.
    Emu,
}

impl Kind {
    /// Its name on the command line, in checkpoints and in summaries.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Cuda => "cuda",
            Kind::Emu => "emu",
        }
    }

    /// True where kernels run.
    pub fn is_gpu(self) -> bool {
        self != Kind::Cpu
    }
}

/// The device a plan is made for: what scratch and placing depend on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target {
    /// Kind of device.
    pub kind: Kind,
    /// Compute threads of the CPU; 1 elsewhere.
    pub threads: usize,
    /// Bytes a plan may take; none: as many as it wants.
    pub memory: Option<usize>,
}

impl Target {
    /// The CPU with `threads` threads.
    pub fn cpu(threads: usize) -> Target {
        Target { kind: Kind::Cpu, threads, memory: None }
    }

    /// A device of `kind` that launches kernels.
    pub fn gpu(kind: Kind) -> Target {
        Target { kind, threads: 1, memory: None }
    }

    /// The same with at most `bytes`, where it had more.
    pub fn within(self, bytes: Option<usize>) -> Target {
        Target { memory: [self.memory, bytes].into_iter().flatten().min(), ..self }
    }
}

/// Arithmetic and memory traffic of an op, as a device that only counts notes them: what each operand and result costs
/// when it is moved once.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Work {
    /// The op.
    pub op: &'static str,
    /// Additions and multiplications.
    pub flops: f64,
    /// Bytes read and written.
    pub bytes: f64,
    /// Of a product its rows, columns and the length of its sums.
    pub product: Option<[usize; 3]>,
}

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
    backend: Backend,
    stop: Option<Arc<AtomicBool>>,
}

/// Behind a guarded tensor on the emulator: a page of the host.
pub const GUARD: usize = 4096;

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

    /// Runs linear layers, their gradients and logits by `wanted` from here on: a run has one. Errors where the device
    /// lacks it.
    pub fn use_body(&mut self, wanted: Body) -> Result<()> {
        let has = wanted == Body::Mma || self.has_wgmma();
        match &mut self.backend {
            Backend::Gpu { body, .. } if has => {
                *body = wanted;
                Ok(())
            }
            Backend::Gpu { refused: true, .. } => Err(Error::Failed("wgmma on a card whose products disagree".into())),
            Backend::Gpu { driver, .. } => {
                let (major, minor) = driver.properties().compute_capability;
                Err(Error::Failed(format!("wgmma on compute capability {major}.{minor}: 9.0 has it")))
            }
            _ => Err(Error::Failed(format!("{} on a device that is no GPU", wanted.name()))),
        }
    }

    /// Whether products can run by wgmma.
    pub fn has_wgmma(&self) -> bool {
        matches!(&self.backend, Backend::Gpu { driver, refused: false, .. } if driver.properties().compute_capability == (9, 0))
    }

    /// From here on products cannot run by wgmma: they were found to disagree.
    pub fn refuse_wgmma(&mut self) {
        if let Backend::Gpu { body, refused, .. } = &mut self.backend {
            (*body, *refused) = (Body::Mma, true);
        }
    }

    /// From here on attention runs by mma.sync whatever products run by: it was found to have other bits.
    pub fn refuse_wgmma_attention(&mut self) {
        if let Backend::Gpu { attention_refused, .. } = &mut self.backend {
            *attention_refused = true;
        }
    }

    /// The same of attention's backward alone.
    pub fn refuse_wgmma_attention_bwd(&mut self) {
        if let Backend::Gpu { attention_bwd_refused, .. } = &mut self.backend {
            *attention_bwd_refused = true;
        }
    }

    /// How matrix products run on a GPU; none elsewhere.
    pub fn body(&self) -> Option<Body> {
        match self.backend {
            Backend::Gpu { body, .. } => Some(body),
            _ => None,
        }
    }

    /// A device that only counts: every allocation succeeds, no op computes; [`Device::high_water`] is the plan.
    /// It stands for a CPU of one thread; see [`Device::count_for`].
    pub fn count() -> Device {
        Device::count_for(Target::cpu(1))
    }

    /// [`Device::count`] for another device: ops take scratch by its threads, and tensors are placed as there.
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

    /// The CPU parts for an op that has no kernel, or `None` when this device only counts (the op then returns
    /// without computing). Errors on a GPU, naming the op: nothing falls back to the host silently.
    pub fn cpu_only(&mut self, op: &'static str) -> Result<Option<Cpu<'_>>> {
        match self.on() {
            On::Cpu(cpu) => Ok(Some(cpu)),
            On::Count => Ok(None),
            On::Gpu(_) => Err(Error::Failed(format!("{op} has no kernel: it runs on the CPU only"))),
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

    /// Runs `work` in a range that profilers show as `name`: the name is made only while one records.
    pub fn range<R>(&mut self, name: fmt::Arguments<'_>, work: impl FnOnce(&mut Device) -> R) -> R {
        let before = self.open_ranges();
        self.open_range(name);
        let done = work(self);
        // An error inside may have left ranges of its own open.
        while self.open_ranges() > before {
            self.close_range();
        }
        done
    }

    /// True while somebody records ranges.
    pub fn records_ranges(&self) -> bool {
        matches!(&self.backend, Backend::Gpu { driver, .. } if driver.records_ranges())
    }

    /// Opens a range that [`Device::close_range`] closes, or the end of the [`Device::range`] around it.
    pub fn open_range(&mut self, name: fmt::Arguments<'_>) {
        if let Backend::Gpu { driver, open_ranges, .. } = &mut self.backend
            && driver.records_ranges()
        {
            driver.range_push(&name.to_string());
            *open_ranges += 1;
        }
    }

    /// Closes the innermost range that is open.
    pub fn close_range(&mut self) {
        if let Backend::Gpu { driver, open_ranges, .. } = &mut self.backend
            && *open_ranges > 0
        {
            driver.range_pop();
            *open_ranges -= 1;
        }
    }

    fn open_ranges(&self) -> usize {
        if let Backend::Gpu { open_ranges, .. } = &self.backend { *open_ranges } else { 0 }
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

    /// The regions.
    pub fn memory(&self) -> &Memory {
        &self.memory
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

    /// Notes an op's arithmetic and traffic on a device that only counts or lists; elsewhere nothing happens.
    pub fn note_work(&mut self, op: &'static str, flops: f64, bytes: f64) {
        self.note(Work { op, flops, bytes, product: None });
    }

    /// [`Device::note_work`] of a product `[rows, columns]` with sums of `k` terms.
    pub fn note_product(&mut self, op: &'static str, product: [usize; 3], bytes: f64) {
        let [rows, columns, k] = product;
        self.note(Work { op, flops: 2.0 * rows as f64 * (columns * k) as f64, bytes, product: Some(product) });
    }

    fn note(&mut self, noted: Work) {
        match &mut self.backend {
            Backend::Count { work, .. } => work.push(noted),
            Backend::Gpu { driver, .. } => driver.note_work(noted),
            Backend::Cpu { .. } => {}
        }
    }

    /// What was noted since the last call, in order.
    pub fn take_work(&mut self) -> Vec<Work> {
        match &mut self.backend {
            Backend::Count { work, .. } => std::mem::take(work),
            _ => Vec::new(),
        }
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

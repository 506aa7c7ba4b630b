//! The environment of a command besides its own arguments: device, threads, console, ranks and signals.

mod connect;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use clap::ValueEnum;

use super::console::Console;
use super::global::{DeviceKind, Global, VariantChoice};
use super::progress::Progress;
use super::ranks::{RankRole, Started};
use super::start_check;
use omr_base::answers::RunStore;
use omr_base::config::{JudgeConfig, Mode, Rewards, ScorerConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::{Observer, bytes};
use omr_base::signal;
use omr_data::reward::Scorer;
use omr_runtime::device::cuda::{self, Cuda};
use omr_runtime::device::emu::{Completion, Emu, Options};
use omr_runtime::device::images::{Arch, Images, OWN};
use omr_runtime::device::{Device, Isa, KernelVariant, Kind, Plan, Region, Target, WaitLimit, WgmmaKernels, amx};
use omr_runtime::machine::{FreeMemory, Machine};
use omr_runtime::ops::variants;

/// Time of a wait for the GPU after which the start check counts as hung. Its kernels run for less than a second.
const START_CHECK_LIMIT: Duration = Duration::from_secs(20);

/// Returns the bytes of this rank's GPU that a plan may use, without the `taken` bytes.
fn gpu_memory(rank_role: &RankRole, taken: u64) -> Option<usize> {
    let gpus = cuda::find().ok()?;
    let gpu = gpus.get(rank_role.gpu(gpus.len()).ok()?)?;
    Some(gpu.memory.saturating_sub(cuda::GPU_OVERHEAD + taken) as usize)
}

/// Device, threads, console and signals, as set by the global flags.
pub struct Context {
    console: Console,
    progress: Progress,
    global: Global,
    auto: OnceLock<Kind>,
    /// Images read from `--kernel-images`.
    images: OnceLock<&'static Images>,
    /// Kernels that the start check has refused, after it has run on this process's GPU.
    refused: OnceLock<Vec<WgmmaKernels>>,
    /// Number of compute threads.
    pub threads: usize,
    rank_role: RankRole,
    pub(crate) started: Started,
    /// True once this rank has tried to meet the others.
    has_met: AtomicBool,
    /// Bytes of this rank's GPU that NCCL has allocated.
    taken: OnceLock<u64>,
    /// Bytes of host memory that a plan may use, if the system reports them.
    host_memory: OnceLock<Option<usize>>,
    runtime: OnceLock<tokio::runtime::Runtime>,
}

impl Context {
    pub(crate) fn new(global: &Global, rank_role: RankRole) -> Context {
        // Rank 0 prints all messages. The other ranks print only their errors.
        let name = if rank_role.rank() == 0 { String::new() } else { format!("rank {}: ", rank_role.rank()) };
        let console = Console::new(global.quiet || rank_role.rank() != 0, name);
        let progress = Progress::new(console.clone());
        let available =
            || std::thread::available_parallelism().map_or(1, |n| (n.get() / rank_role.local_ranks()).max(1));
        let threads = if global.threads == 0 { available() } else { global.threads };
        Context {
            console,
            progress,
            global: global.clone(),
            auto: OnceLock::new(),
            images: OnceLock::new(),
            refused: OnceLock::new(),
            threads,
            rank_role,
            started: Started::default(),
            has_met: AtomicBool::new(false),
            taken: OnceLock::new(),
            host_memory: OnceLock::new(),
            runtime: OnceLock::new(),
        }
    }

    /// Starts logging and installs the signal handlers. Must be called once, before the command.
    pub(crate) fn start(&self) -> Result<()> {
        self.console.install_tracing(&self.global.log_level)?;
        let (console, rank) = (self.console.clone(), self.rank_role.rank());
        let answer = move |listens: bool| match listens {
            true => console.line("stopping: no new work is started; a second Ctrl-C after 2 s ends it at once"),
            false => report(&console, &Error::Stopped, rank),
        };
        signal::install(answer).map_err(|error| Error::Failed(format!("signal handlers: {error}")))
    }

    /// Returns the kind of device to use.
    pub fn kind(&self) -> Kind {
        match self.global.device {
            DeviceKind::Auto => *self.auto.get_or_init(|| match cuda::is_usable() {
                Ok(true) => Kind::Cuda,
                Ok(false) => Kind::Cpu,
                Err(error) => {
                    self.say(&format!("warning: computing on the CPU, because the GPU cannot be used: {error}"));
                    Kind::Cpu
                }
            }),
            DeviceKind::Cpu => Kind::Cpu,
            DeviceKind::Cuda => Kind::Cuda,
            DeviceKind::Emu => Kind::Emu,
        }
    }

    /// Returns the device that plans are made for.
    pub fn target(&self) -> Target {
        match self.kind() {
            Kind::Cpu => Target::cpu(self.threads).within(self.host_memory()),
            // Without a GPU the plan has no limit. Opening the device then reports what is missing.
            Kind::Cuda => {
                Target::gpu(Kind::Cuda).within(gpu_memory(&self.rank_role, self.taken.get().copied().unwrap_or(0)))
            }
            Kind::Emu => Target::gpu(Kind::Emu).within(self.host_memory()),
        }
    }

    /// Returns the bytes of host memory that a plan may use. They are read once, so that every plan of the command has
    /// the same limit.
    fn host_memory(&self) -> Option<usize> {
        *self.host_memory.get_or_init(|| FreeMemory::for_plan(self.rank_role.memory_ranks()))
    }

    /// Errors if the optimizer state that `plan` keeps on the host exceeds the free memory of the host.
    pub fn check_host(&self, plan: &Plan) -> Result<()> {
        let (need, free) = (plan.bytes(Region::Host), self.host_memory().unwrap_or(usize::MAX));
        if need <= free {
            return Ok(());
        }
        let found = format!("true, with {} of optimizer state per process", bytes(need as u64));
        let expected = format!("at most {}, the free memory of the host for each process", bytes(free as u64));
        let hint = "set optimizer_offload=false, use more GPUs, or choose an `optim` with fewer bits";
        Err(Error::input_hint("optimizer_offload", found, expected, hint))
    }

    /// Describes for the user where a run computes.
    pub fn place(&self) -> String {
        match self.kind() {
            Kind::Cpu if self.threads == 1 => "the CPU (1 thread)".to_owned(),
            Kind::Cpu => format!("the CPU ({} threads)", self.threads),
            Kind::Cuda => "a GPU".to_owned(),
            Kind::Emu => "the emulated GPU".to_owned(),
        }
    }

    /// Makes a device with exactly the memory of `plan`. After a signal, its passes end early.
    pub fn device(&self, plan: &Plan) -> Result<Device> {
        self.open(plan, false)
    }

    /// Returns an error if there is no device of the requested kind, or if this is one of several ranks on a machine whose
    /// GPUs cannot be used.
    pub fn find_device(&self) -> Result<()> {
        if self.global.device == DeviceKind::Auto && self.rank_role != RankRole::ALONE {
            cuda::is_usable()?;
        }
        if self.kind() == Kind::Cuda { self.rank_role.gpu(cuda::find()?.len()).map(drop) } else { Ok(()) }
    }

    /// Returns the kernel images to load: those of this program, or those in the folder of `--kernel-images`.
    fn images(&self) -> Result<&'static Images> {
        match (&self.global.kernel_images, self.images.get()) {
            (None, _) => Ok(&OWN),
            (_, Some(images)) => Ok(images),
            (Some(dir), None) => Images::read(dir).map(|images| *self.images.get_or_init(|| images)),
        }
    }

    /// Makes a device as [`Context::device`] does. With `checks_always`, the start check runs even if the GPU has a
    /// record of having passed it.
    pub fn open(&self, plan: &Plan, checks_always: bool) -> Result<Device> {
        self.check_host(plan)?;
        if let (Some(dir), false) = (&self.global.kernel_images, self.kind() == Kind::Cuda) {
            let found = format!("{} with --device {}", dir.display(), self.kind().name());
            return Err(Error::input("--kernel-images", found, "a GPU, which loads the kernels"));
        }
        // The start check of kernel variants needs this workspace.
        let check_bytes = variants::start_check_bytes(self.kind());
        let with_check = plan.max(&Plan::default().with(Region::Workspace, check_bytes));
        let mut dev = match self.kind() {
            Kind::Cpu => {
                if self.global.kernel_variant != VariantChoice::Auto {
                    let found = "a GPU kernel variant with --device cpu";
                    return Err(Error::input("--kernel-variant", found, "auto, or a GPU"));
                }
                let isa = requested_isa()?;
                // If the processor has AMX but the program may not use it, the user should know.
                let refusal = amx::refusal().filter(|refusal| refusal.is_there && isa == Isa::detect());
                if let Some(refusal) = refusal {
                    self.say(&format!("{}: {} is used instead", refusal.why, isa.name()));
                }
                Device::cpu(plan, self.threads, isa)?
            }
            Kind::Cuda => {
                let gpu = self.rank_role.gpu(cuda::find()?.len())?;
                let dev = Device::gpu(Box::new(Cuda::open(gpu, &[self.images()?])?), Kind::Cuda, &with_check)?;
                self.with_variant(dev, checks_always)?
            }
            // The complete shadow state of shared memory is only useful in tests.
            Kind::Emu => {
                let arch =
                    if self.requested_variant()? == Some(KernelVariant::Wgmma) { Arch::Sm90a } else { Arch::Sm80 };
                let options = Options { arch, shadow: false, completion: Completion::Eager, ..Options::default() };
                let emu = Emu::new(options)?;
                emu.compile()?;
                self.with_variant(Device::gpu(Box::new(emu), Kind::Emu, &with_check)?, checks_always)?
            }
        };
        signal::requested().into_iter().for_each(|flag| dev.set_stop_flag(flag));
        Ok(dev)
    }

    /// Selects the kernel variant: the requested one, otherwise wgmma if the device has it. Kernels in which the start
    /// check of wgmma finds a fault use mma.sync, and a message is printed. If the user has requested wgmma, the fault is
    /// an error. The check runs at most once per process, because a benchmark opens its GPU for each case. Unless
    /// `checks_always` is true, it does not run on a GPU with a record of having passed it.
    fn with_variant(&self, mut dev: Device, checks_always: bool) -> Result<Device> {
        let requested = self.requested_variant()?;
        let best = if dev.has_wgmma() { KernelVariant::Wgmma } else { KernelVariant::Mma };
        match (requested.unwrap_or(best), self.refused.get()) {
            (KernelVariant::Mma, _) => dev.use_variant(KernelVariant::Mma)?,
            (KernelVariant::Wgmma, Some(refused)) => {
                dev.use_variant(KernelVariant::Wgmma)?;
                refused.iter().for_each(|kernels| dev.refuse_wgmma(*kernels));
            }
            (KernelVariant::Wgmma, None) => {
                let faults = start_check::faults(&mut dev, checks_always, |dev| self.checked_wgmma(dev))?;
                if let (Some(fault), true) = (faults.first(), requested.is_some()) {
                    let found = format!("wgmma, but {fault}");
                    return Err(Error::input("--kernel-variant", found, "auto or mma.sync on this GPU"));
                }
                faults.iter().for_each(|line| self.say(line));
                let _ = self.refused.set(dev.refused_kernels());
            }
        }
        if requested.is_some() {
            dev.keep_variant();
        }
        Ok(dev)
    }

    /// Selects wgmma and returns the faults that its start check finds. Ends the process if a kernel does not end.
    fn checked_wgmma(&self, dev: &mut Device) -> Result<Vec<String>> {
        const OTHER: &str = "start again with --kernel-variant mma.sync";
        self.say("the start check of the wgmma kernels runs");
        let console = self.console.clone();
        let expire = move || {
            let waited = START_CHECK_LIMIT.as_secs();
            console.error(&format!(
                "the start check of the wgmma kernels has waited for the GPU for {waited} s: a kernel does not end. {OTHER}"
            ));
            // The context of a GPU whose kernel does not end cannot be closed.
            signal::exit(1);
        };
        let mut limit = Some(WaitLimit { limit: START_CHECK_LIMIT, expire: Arc::new(expire) });
        dev.driver().into_iter().for_each(|driver| driver.limit_waits(limit.take()));
        let faults = variants::select_wgmma(dev);
        dev.driver().into_iter().for_each(|driver| driver.limit_waits(None));
        faults.map_err(|error| Error::Failed(format!("the start check of the wgmma kernels: {error}; {OTHER}")))
    }

    /// Returns the GPU kernel variant that `--kernel-variant` or, if it is `auto`, `OMR_BODY` requests. With `wgmma` the
    /// emulated GPU has compute capability 9.0.
    fn requested_variant(&self) -> Result<Option<KernelVariant>> {
        match self.global.kernel_variant {
            VariantChoice::Auto => variant_of_environment(),
            VariantChoice::Wgmma => Ok(Some(KernelVariant::Wgmma)),
            VariantChoice::MmaSync => Ok(Some(KernelVariant::Mma)),
        }
    }

    /// Returns the value of `--kernel-variant`.
    pub fn kernel_variant(&self) -> String {
        self.global.kernel_variant.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Returns the asynchronous runtime for distillation and judges. It is created at the first call.
    pub fn runtime(&self) -> Result<&tokio::runtime::Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.threads)
            .enable_all()
            .build()
            .map_err(|e| Error::Failed(format!("the asynchronous runtime: {e}")))?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    /// Makes the scorer that a config describes. Verdicts of a judge are stored in `store`.
    pub fn scorer(
        &self,
        mode: Mode,
        judge: Option<&JudgeConfig>,
        reward: &ScorerConfig,
        rewards: &Rewards,
        store: Option<Arc<RunStore>>,
    ) -> Result<Arc<Scorer>> {
        let runtime = || Ok(self.runtime()?.handle().clone());
        let scorer = Scorer::new(mode, judge, reward, "reward", store, runtime)?;
        scorer.with_programs(rewards, "rewards").map(Arc::new)
    }

    /// Passes the resources that a job needs to `act`.
    pub fn with_machine<T>(&self, act: impl FnOnce(&Machine) -> Result<T>) -> Result<T> {
        let (target, threads, place, observer) = (self.target(), self.threads, self.place(), self.observer());
        let runtime = || -> Result<_> { Ok(self.runtime()?.handle().clone()) };
        act(&Machine { target, threads, place, device: &|plan| self.device(plan), runtime: &runtime, observer })
    }

    /// Returns the receiver of progress.
    pub fn observer(&self) -> &dyn Observer {
        &self.progress
    }

    /// Prints a line for the user on stderr (unless --quiet) and in the log.
    pub fn say(&self, text: &str) {
        self.console.line(text);
    }

    /// Appends all further output to this file, too.
    pub fn log_to(&self, file: &Path) -> Result<()> {
        self.console.log_to(file)
    }

    /// True if this process prints messages and writes files for the run, that is if it is the only process or rank 0.
    pub fn leads(&self) -> bool {
        self.rank_role.rank() == 0
    }

    /// Returns an error if the run has several processes. `why` explains why the command supports only one.
    pub fn alone(&self, why: &str) -> Result<()> {
        let place = match &self.rank_role {
            RankRole::Starts(1) => return Ok(()),
            RankRole::Starts(_) => "--gpus".to_owned(),
            RankRole::Launched(place) | RankRole::Node(place) => {
                format!("processes that {} has started", place.launcher.name())
            }
        };
        let found = self.rank_role.size().to_string();
        Err(Error::input(place, found, format!("1: {why}")))
    }

    pub(crate) fn fail(&self, error: &Error) {
        self.progress.end();
        report(&self.console, error, self.rank_role.rank());
    }
}

/// Prints an error of `rank`. An error that ends all ranks is printed by rank 0 only.
fn report(console: &Console, error: &Error, rank: usize) {
    if rank == 0 || !matches!(error, Error::Stopped | Error::Rank { reported: true, .. }) {
        console.error(&error.to_string());
    }
}

/// Returns the CPU kernel variant named in `OMR_BODY`, to reproduce the results of another machine or to measure.
/// Returns the best one if `OMR_BODY` is not set or names a GPU kernel variant.
pub fn requested_isa() -> Result<Isa> {
    let Some(value) = std::env::var_os("OMR_BODY") else { return Ok(Isa::detect()) };
    let name = value.to_str().unwrap_or_default();
    if name.parse::<KernelVariant>().is_ok() {
        return Ok(Isa::detect());
    }
    let names = Isa::ALL.map(Isa::name).join(", ");
    Isa::named(name).ok_or_else(|| Error::Failed(format!("OMR_BODY={}: expected one of {names}", value.display())))
}

/// Returns the GPU kernel variant named in `OMR_BODY`.
fn variant_of_environment() -> Result<Option<KernelVariant>> {
    let Some(value) = std::env::var_os("OMR_BODY") else { return Ok(None) };
    let variant = value.to_str().and_then(|name| name.parse().ok());
    variant.map(Some).ok_or_else(|| Error::Failed(format!("OMR_BODY={}: expected mma.sync or wgmma", value.display())))
}

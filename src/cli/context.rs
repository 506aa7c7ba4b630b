//! What a command needs besides its own arguments.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::args::{DeviceKind, Global};
use super::console::Console;
use super::progress::Progress;
use super::signal;
use crate::answers::RunStore;
use crate::config::{Dtype, JudgeConfig, Mode, ScorerConfig};
use crate::device::cuda::{self, Cuda};
use crate::device::emu::{Completion, Emu, Options};
use crate::device::images::{Arch, PROGRAM};
use crate::device::{Body, Device, Isa, Kind, Plan, Region, Target};
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::ops::{body, linear};
use crate::reward::Scorer;
use crate::tensor::DType;

/// Bytes of the first card that a plan may take.
fn card_memory() -> Option<usize> {
    let card = cuda::find().ok()?.cards.into_iter().next()?;
    Some(card.memory.saturating_sub(cuda::CARD_OVERHEAD) as usize)
}

/// True when the first card is one that the kernels run on.
fn has_card() -> bool {
    cuda::find().is_ok_and(|found| found.cards.first().is_some_and(|card| card.arch().is_some()))
}

/// Device, threads, stderr and signals, as the global flags ask for.
pub struct Context {
    console: Console,
    progress: Progress,
    device: DeviceKind,
    auto: OnceLock<Kind>,
    threads: usize,
    log_level: String,
    runtime: OnceLock<tokio::runtime::Runtime>,
}

impl Context {
    pub(crate) fn new(global: &Global) -> Context {
        let console = Console::new(global.quiet);
        let progress = Progress::new(console.clone());
        let available = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let threads = if global.threads == 0 { available() } else { global.threads };
        let (auto, runtime) = (OnceLock::new(), OnceLock::new());
        let log_level = global.log_level.clone();
        Context { console, progress, device: global.device, auto, threads, log_level, runtime }
    }

    /// Turns on logging and the signal handlers; called once, before the command.
    pub(crate) fn start(&self) -> Result<()> {
        self.console.install_tracing(&self.log_level)?;
        let console = self.console.clone();
        let answer = move |listens: bool| match listens {
            true => console.line("stopping: nothing new begins; a second signal ends this at once"),
            false => console.error(&Error::Stopped.to_string()),
        };
        signal::install(answer).map_err(|error| Error::Failed(format!("signal handlers: {error}")))
    }

    /// Compute threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The kind of device asked for.
    pub fn kind(&self) -> Kind {
        match self.device {
            DeviceKind::Auto => *self.auto.get_or_init(|| if has_card() { Kind::Cuda } else { Kind::Cpu }),
            DeviceKind::Cpu => Kind::Cpu,
            DeviceKind::Cuda => Kind::Cuda,
            DeviceKind::Emu => Kind::Emu,
        }
    }

    /// What [`DType::of`] makes of `dtype` on this device, as a config that a run records.
    pub fn dtype(&self, dtype: Dtype) -> Dtype {
        match DType::of(dtype, self.kind()) {
            DType::Bf16 => Dtype::Bf16,
            _ => Dtype::F32,
        }
    }

    /// The device that plans are made for.
    pub fn target(&self) -> Target {
        match self.kind() {
            Kind::Cpu => Target::cpu(self.threads),
            // Without a card the plan has no limit and opening the device says what is missing.
            Kind::Cuda => Target::gpu(Kind::Cuda).within(card_memory()),
            Kind::Emu => Target::gpu(Kind::Emu),
        }
    }

    /// Where a run computes, for people.
    pub fn place(&self) -> String {
        match self.kind() {
            Kind::Cpu => format!("the CPU ({} threads)", self.threads),
            Kind::Cuda => "a card".to_owned(),
            Kind::Emu => "the emulated card".to_owned(),
        }
    }

    /// The device's kind, as checkpoints and summaries record it.
    pub fn device_kind(&self) -> &'static str {
        self.kind().name()
    }

    /// A device with `plan`'s memory and no more. Its passes end once a signal came.
    pub fn device(&self, plan: &Plan) -> Result<Device> {
        let mut dev = self.open(plan)?;
        signal::requested().into_iter().for_each(|asked| dev.stop_by(asked));
        Ok(dev)
    }

    fn open(&self, plan: &Plan) -> Result<Device> {
        // What the check of a device's bodies at its start takes.
        let with_check = plan.max(&Plan::default().with(Region::Workspace, linear::AGREEMENT_BYTES));
        match self.kind() {
            Kind::Cpu => Device::cpu(plan, self.threads, Isa::detect()),
            Kind::Cuda => self.by_body(Device::gpu(Box::new(Cuda::open(0, &PROGRAM)?), Kind::Cuda, &with_check)?),
            // All of shared memory's shadow state is for tests: here the answer is wanted.
            Kind::Emu => {
                let arch = if asked_body()? == Some(Body::Wgmma) { Arch::Sm90a } else { Arch::Sm80 };
                let options = Options { arch, shadow: false, completion: Completion::Eager, ..Options::default() };
                let emu = Emu::new(options)?;
                emu.compile()?;
                self.by_body(Device::gpu(Box::new(emu), Kind::Emu, &with_check)?)
            }
        }
    }

    /// The device with the body of matrix products that is asked for, else with wgmma where it has that; what is wrong by
    /// wgmma runs by mma.sync, and that is said.
    fn by_body(&self, mut dev: Device) -> Result<Device> {
        let wanted = match asked_body()? {
            Some(asked) => asked == Body::Wgmma,
            None => dev.has_wgmma(),
        };
        let fault = if wanted { body::take_wgmma(&mut dev)? } else { None };
        fault.iter().for_each(|line| self.say(line));
        Ok(dev)
    }

    /// The one asynchronous runtime: for distillation and judges, made when the first of them needs it.
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

    /// Who scores, as a config says; `place` names its group of keys. Verdicts of a judge are kept in `store`.
    pub fn scorer(
        &self,
        mode: Mode,
        judge: Option<&JudgeConfig>,
        reward: (&ScorerConfig, &str),
        store: Option<Arc<RunStore>>,
    ) -> Result<Arc<Scorer>> {
        let runtime = || Ok(self.runtime()?.handle().clone());
        Ok(Arc::new(Scorer::new(mode, judge, reward, store, runtime)?))
    }

    /// Whom long work reports to.
    pub fn observer(&self) -> &dyn Observer {
        &self.progress
    }

    /// A line for people, on stderr (unless --quiet) and in the log.
    pub fn say(&self, text: &str) {
        self.console.line(text);
    }

    /// From here on everything said is also appended to this file.
    pub fn log_to(&self, file: &Path) -> Result<()> {
        self.console.log_to(file)
    }

    pub(crate) fn fail(&self, error: &Error) {
        self.progress.end();
        self.console.error(&error.to_string());
    }
}

/// The body that `OMR_BODY` asks for, to measure one beside the other; with `wgmma` the emulated card is one of compute
/// capability 9.0.
fn asked_body() -> Result<Option<Body>> {
    let Some(value) = std::env::var_os("OMR_BODY") else { return Ok(None) };
    let body = value.to_str().and_then(|name| Body::ALL.into_iter().find(|body| body.name() == name));
    match body {
        Some(body) => Ok(Some(body)),
        None => Err(Error::Failed(format!("OMR_BODY={}: expected mma.sync or wgmma", value.display()))),
    }
}

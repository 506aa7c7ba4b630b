//! Implements the [`Driver`] trait with the emulator.

use std::any::Any;
use std::panic::Location;
use std::sync::OnceLock;

use super::compile::{Cache, Compiler};
use super::graph::{Capture, LaunchBytes, Op, Ticket};
use super::machine::Machine;
use super::options::Options;
use super::pages::{PAGE, POISON};
use super::sites::{Passed, Site};
use super::streams::Streams;
use super::tensor_map;
use crate::device::driver::{
    Address, Driver, EncodedMap, Event, Graph, Kernel, Launch, Pinned, Properties, Stream, TensorMap,
};
use omr_base::error::{Error, Result};

/// Counts of the calls and work of a driver so far.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Calls of [`Driver::launch`], whether the launch was queued or captured. Replays are not counted.
    pub launches: u64,
    /// Kernels run, including those of graphs.
    pub kernels: u64,
    /// Nodes of the captured graphs: launches, copies and fills.
    pub nodes: u64,
    /// Graphs replayed.
    pub replays: u64,
    /// Calls that made the host wait.
    pub synchronizations: u64,
    /// Profiler starts.
    pub profiler_starts: u64,
    /// Profiler stops.
    pub profiler_stops: u64,
    /// Extra cycles caused by bank conflicts in shared memory. Matrix loads and stores are always counted. All other
    /// accesses are counted only with [`Options::banks`].
    pub bank_conflicts: u64,
}

/// State of an event's last recording.
#[derive(Clone, Copy)]
enum Recorded {
    Never,
    Queued(Ticket),
    Captured(Ticket),
}

/// Driver that runs kernels in the emulator.
pub struct Emu {
    properties: Properties,
    streams: Streams,
    events: Vec<Recorded>,
    tickets: Ticket,
    capture: Option<Capture>,
    counters: Counters,
    depth: usize,
    profiling: bool,
    guarded: bool,
    ranges: Vec<(usize, String)>,
}

impl Emu {
    /// Creates an emulated device whose kernels are compiled into the user's cache. The first device on a machine
    /// compiles the runtime. Errors if there is no C++ compiler, or if the processor is not supported.
    pub fn new(options: Options) -> Result<Emu> {
        let files = options.images.iter().rev().flat_map(|images| images.sources);
        let files = files.map(|(path, text)| (format!("kernels/{path}"), text.to_string()));
        let sources = files.chain(options.sources.iter().cloned()).collect();
        // The compiler is looked up once per process, because tests create many devices.
        static COMPILER: OnceLock<Compiler> = OnceLock::new();
        let compiler = COMPILER.get().cloned().map_or_else(Compiler::find, Ok)?;
        let compiler = COMPILER.get_or_init(|| compiler).clone();
        Emu::with_cache(Cache::new(Cache::folder()?, compiler, sources), options)
    }

    /// Creates a device as [`Emu::new`] does, with another cache. Only the sources of that cache are used.
    pub fn with_cache(cache: Cache, options: Options) -> Result<Emu> {
        Ok(Emu {
            properties: options.limits().properties("emulated GPU", options.multiprocessors.max(1), 1 << 40),
            streams: Streams::new(Machine::new(cache, &options)?, &options),
            events: Vec::new(),
            tickets: 0,
            capture: None,
            counters: Counters::default(),
            depth: 0,
            profiling: false,
            guarded: options.guarded,
            ranges: Vec::new(),
        })
    }

    /// Compiles every kernel now, in parallel, for a run that will need most of them. Otherwise each file is compiled
    /// at its first launch.
    pub fn compile(&self) -> Result<()> {
        self.streams.machine.cache.fill()
    }

    /// Errors if `stream` is being captured. With `None`, errors if any stream is being captured. The error also
    /// invalidates the capture.
    fn outside_capture(&mut self, stream: Option<Stream>, call: &str) -> Result<()> {
        match &mut self.capture {
            Some(capture) if stream.is_none_or(|s| capture.has(s)) => Err(capture.refuse(call)),
            _ => Ok(()),
        }
    }

    fn push(&mut self, stream: Stream, op: Op) -> Result<()> {
        self.streams.known(stream)?;
        match self.capture.as_mut().filter(|c| c.has(stream)) {
            Some(capture) => {
                let is_node = !matches!(op, Op::Open(..) | Op::Close(..) | Op::Record(..));
                self.counters.nodes += u64::from(is_node);
                capture.push(stream, op);
                Ok(())
            }
            None => self.streams.push(stream, op),
        }
    }

    fn wait_for(&mut self, stream: Stream, call: &str) -> Result<()> {
        self.streams.known(stream)?;
        self.outside_capture(Some(stream), call)?;
        self.counters.synchronizations += 1;
        self.streams.drain(stream, None)
    }

    fn recording(&self, event: Event) -> Result<Recorded> {
        let unknown = || Error::Failed(format!("event {} was never created", event.0));
        self.events.get(event.0 as usize).copied().ok_or_else(unknown)
    }
}

impl Emu {
    /// Makes the calls at `site` (in a kernel or in host code) do nothing from now on. `None` skips no site.
    pub fn skip(&mut self, site: Option<Site>) {
        self.streams.machine.skip(site);
    }

    /// Returns the synchronising calls that have run so far, including skipped ones, each with its exemption reason if
    /// it has one.
    pub fn sites(&self) -> Vec<(Passed, Option<String>)> {
        let sources = &self.streams.machine.cache.sources;
        self.streams.machine.sites.passed.iter().map(|passed| (passed.clone(), passed.exempt(sources))).collect()
    }

    /// Returns the names of the kernels loaded so far.
    pub fn kernels(&self) -> Vec<&'static str> {
        self.streams.machine.kernels()
    }

    /// Returns the counters so far.
    pub fn counters(&self) -> Counters {
        let machine = &self.streams.machine;
        Counters { kernels: machine.run, bank_conflicts: machine.instance.bank_conflicts(), ..self.counters }
    }

    /// Returns the named ranges opened while the profiler was on, in order. Each has its depth: 0 for the outermost.
    pub fn ranges(&self) -> &[(usize, String)] {
        &self.ranges
    }
}

impl Driver for Emu {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn map(&mut self, bytes: usize) -> Result<Address> {
        self.streams.healthy()?;
        self.outside_capture(None, "an allocation")?;
        self.streams.machine.pages.map(bytes, self.guarded)
    }

    fn guard(&self) -> usize {
        if self.guarded { PAGE as usize } else { 0 }
    }

    fn open(&mut self, address: Address, bytes: usize) -> Result<()> {
        if self.guarded { self.push(Stream::COMPUTE, Op::Open(address, bytes)) } else { Ok(()) }
    }

    fn close(&mut self, address: Address, bytes: usize) -> Result<()> {
        if self.guarded { self.push(Stream::COMPUTE, Op::Close(address, bytes)) } else { Ok(()) }
    }

    fn kernel(&mut self, file: &'static str, name: &'static str) -> Result<Kernel> {
        self.streams.machine.kernel(file, name)
    }

    fn launch(&mut self, stream: Stream, kernel: Kernel, launch: &Launch, params: &[u8]) -> Result<()> {
        self.streams.known(stream)?;
        self.streams.machine.check(kernel, launch, params.len(), &self.properties)?;
        self.counters.launches += 1;
        self.push(stream, Op::Launch(kernel, *launch, LaunchBytes::new(params)))
    }

    fn upload(&mut self, stream: Stream, to: Address, from: &[u8]) -> Result<()> {
        self.outside_capture(Some(stream), "a copy from pageable memory")?;
        self.push(stream, Op::Upload(to, from.to_vec()))
    }

    fn download(&mut self, stream: Stream, from: Address, to: &mut [u8]) -> Result<()> {
        self.wait_for(stream, "a copy to pageable memory")?;
        self.streams.machine.pages.read(from, to)
    }

    fn copy(&mut self, stream: Stream, to: Address, from: Address, bytes: usize) -> Result<()> {
        self.push(stream, Op::Copy(to, from, bytes))
    }

    fn fill(&mut self, stream: Stream, to: Address, value: u8, bytes: usize) -> Result<()> {
        self.push(stream, Op::Fill(to, value, bytes))
    }

    fn pinned(&mut self, bytes: usize) -> Result<Pinned> {
        self.streams.healthy()?;
        self.outside_capture(None, "an allocation")?;
        Ok(self.streams.machine.pin(bytes))
    }

    fn pinned_bytes(&mut self, buffer: Pinned) -> &mut [u8] {
        self.streams.machine.pinned(buffer)
    }

    fn download_pinned(&mut self, stream: Stream, from: Address, to: Pinned, bytes: usize) -> Result<()> {
        let have = self.streams.machine.pinned(to).len();
        if bytes > have {
            return Err(Error::Failed(format!("a copy of {bytes} bytes, but the pinned buffer has {have}")));
        }
        if self.capture.is_none() && self.guarded {
            // Code that reads the buffer before the copy has run finds this value.
            self.streams.machine.pinned(to)[..bytes].fill(POISON);
        }
        self.push(stream, Op::DownloadPinned(from, to, bytes))
    }

    fn stream(&mut self) -> Result<Stream> {
        self.streams.healthy()?;
        Ok(self.streams.queues.add())
    }

    fn synchronize(&mut self, stream: Stream) -> Result<()> {
        self.wait_for(stream, "a synchronisation")
    }

    fn is_idle(&mut self, stream: Stream) -> Result<bool> {
        self.streams.known(stream)?;
        if self.capture.is_some() { Ok(false) } else { self.streams.is_idle(stream) }
    }

    fn handle(&mut self, stream: Stream) -> Result<usize> {
        // A null handle would be the default stream.
        self.wait_for(stream, "work of a library").map(|()| stream.0 as usize + 1)
    }

    fn synchronizations(&self) -> u64 {
        self.counters.synchronizations
    }

    fn event(&mut self) -> Result<Event> {
        self.streams.healthy()?;
        self.events.push(Recorded::Never);
        Ok(Event(self.streams.machine.event()))
    }

    fn record_at(&mut self, event: Event, stream: Stream, site: &'static Location<'static>) -> Result<()> {
        self.streams.known(stream)?;
        self.recording(event)?;
        if self.streams.machine.skips_host(site, "record") {
            return Ok(());
        }
        self.tickets += 1;
        let captured = self.capture.as_ref().is_some_and(|c| c.has(stream));
        let recorded = if captured { Recorded::Captured(self.tickets) } else { Recorded::Queued(self.tickets) };
        self.events[event.0 as usize] = recorded;
        self.push(stream, Op::Record(event, self.tickets))
    }

    fn wait_at(&mut self, stream: Stream, event: Event, site: &'static Location<'static>) -> Result<()> {
        self.streams.known(stream)?;
        let recorded = self.recording(event)?;
        if self.streams.machine.skips_host(site, "wait") {
            return Ok(());
        }
        match (recorded, &mut self.capture) {
            (Recorded::Never, _) => Ok(()),
            (Recorded::Captured(ticket), Some(capture)) if capture.recorded(ticket) => {
                capture.push(stream, Op::Wait(ticket));
                Ok(())
            }
            (Recorded::Captured(_), _) => {
                Err(Error::Failed(format!("event {} was recorded in a capture that has ended", event.0)))
            }
            (Recorded::Queued(_), Some(capture)) if capture.has(stream) => {
                Err(capture.refuse("a wait for work outside it"))
            }
            (Recorded::Queued(ticket), _) => self.push(stream, Op::Wait(ticket)),
        }
    }

    fn elapsed_ms(&mut self, from: Event, to: Event) -> Result<f32> {
        self.streams.healthy()?;
        self.outside_capture(None, "a synchronisation")?;
        self.counters.synchronizations += 1;
        for event in [from, to] {
            if let Recorded::Queued(ticket) = self.recording(event)?
                && let Some(stream) = self.streams.queues.recorder(ticket)
            {
                self.streams.drain(stream, Some(ticket))?;
            }
        }
        match (self.streams.machine.reached(from.0), self.streams.machine.reached(to.0)) {
            (Some(from), Some(to)) => Ok(to.saturating_duration_since(from).as_secs_f32() * 1e3),
            _ => Err(Error::Failed("the time between events, one of which was not recorded".into())),
        }
    }

    fn begin_capture(&mut self, stream: Stream) -> Result<()> {
        self.streams.known(stream)?;
        self.outside_capture(None, "another capture")?;
        self.capture = Some(Capture::new(stream));
        Ok(())
    }

    fn end_capture(&mut self, stream: Stream) -> Result<Graph> {
        self.streams.healthy()?;
        let capture = self.capture.take().ok_or_else(|| Error::Failed("no capture is in progress".into()))?;
        Ok(self.streams.keep(capture.end(stream)?))
    }

    fn replay(&mut self, graph: Graph, stream: Stream) -> Result<()> {
        self.streams.captured(graph)?;
        self.outside_capture(Some(stream), "a replay")?;
        self.counters.replays += 1;
        self.push(stream, Op::Replay(graph))
    }

    fn drop_graph(&mut self, graph: Graph) {
        self.streams.forget(graph);
    }

    fn records_ranges(&self) -> bool {
        self.profiling
    }

    fn range_push(&mut self, name: &str) {
        if self.profiling {
            self.ranges.push((self.depth, name.to_owned()));
        }
        self.depth += 1;
    }

    fn range_pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn profiler(&mut self, on: bool) -> Result<()> {
        let count = if on { &mut self.counters.profiler_starts } else { &mut self.counters.profiler_stops };
        *count += 1;
        self.profiling = on;
        Ok(())
    }

    fn tensor_map(&mut self, map: &TensorMap) -> Result<EncodedMap> {
        tensor_map::encode(map)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

//! The driver of a real GPU, through CUDA's driver API. The library is opened at run time, so one program runs with and
//! without a GPU.
//!
//! Every call here is asynchronous, except the ones that wait (`synchronize`, `download`, `elapsed_ms`). A fault in a
//! kernel is reported by a later call and persists. The error message names the kernel that was launched last on any
//! stream. Copies from and to the host use the unified call, which also takes device addresses of the host's memory.

pub mod find;
mod host;
mod launch;
pub mod module;
mod nvtx;
mod staging;

use std::any::Any;
use std::collections::HashMap;
use std::ffi::CString;
use std::panic::Location;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::result::{self, event, graph, stream};
use cudarc::driver::sys;
use cudarc::driver::{CudaContext, DriverError};

pub use find::{find, is_usable};

use crate::device::driver::{Kernel, Pinned, Properties};
use crate::device::images::{Arch, Images};
use crate::device::{
    Address, Driver, EncodedMap, Event, Graph, Launch, Stream, TensorMap, WaitLimit, WgmmaKernels, limits,
};
use launch::Function;
use nvtx::Nvtx;
use omr_base::error::{Error, Result};
use staging::Staging;

/// Bytes of GPU memory that no memory plan may use: an allowance for the driver's context, the loaded kernels, captured
/// graphs, and local memory of all threads that fit on the GPU. A kernel has at most 272 bytes per thread (`stack` in
/// `ptx/MANIFEST`), which is 79 MiB on 148 multiprocessors with 2,048 threads each.
pub const GPU_OVERHEAD: u64 = 1 << 30;

/// A GPU, its loaded kernels and everything allocated on it. Dropping the value frees all of it.
pub struct Cuda {
    context: Arc<CudaContext>,
    properties: Properties,
    identity: Option<String>,
    modules: Vec<sys::CUmodule>,
    functions: Vec<Function>,
    by_name: HashMap<(&'static str, &'static str), Kernel>,
    regions: Vec<sys::CUdeviceptr>,
    pinned: Vec<*mut [u8]>,
    /// Memory of [`Driver::map_host`].
    host: Vec<memmap2::MmapMut>,
    streams: Vec<sys::CUstream>,
    events: Vec<sys::CUevent>,
    graphs: Vec<Option<(sys::CUgraph, sys::CUgraphExec)>>,
    staging: Staging,
    synchronizations: u64,
    wait_limit: Option<WaitLimit>,
    capturing: bool,
    last_launch: Option<&'static str>,
    nvtx: Option<Nvtx>,
}

// SAFETY: the handles belong to the context, which `bind` makes current on the calling thread before each use. No
// handle is shared: only the owner of this value calls the driver with them.
unsafe impl Send for Cuda {}

/// Priority of streams beside the compute stream: the highest, because other ranks wait for their work. Not measured.
const HIGHEST: i32 = -100;

impl Cuda {
    /// Opens GPU `ordinal`, loads every kernel of `images` and allows each kernel the maximum shared memory of a CTA.
    /// Errors with one line if the driver or the GPU is missing or too old, and with the driver's log if a kernel does
    /// not load.
    pub fn open(ordinal: usize, images: &[&Images]) -> Result<Cuda> {
        let (properties, arch) = find::gpu_at(ordinal)?;
        let failed = |e: DriverError| Error::Failed(format!("opening {}: {}", properties.name, find::describe(e)));
        let context = CudaContext::new(ordinal).map_err(failed)?;
        // SAFETY: none of cudarc's own buffers are used, so its events have nothing to order.
        unsafe { context.disable_event_tracking() };
        let compute = stream::create(stream::StreamKind::NonBlocking).map_err(failed)?;
        let mut cuda = Cuda {
            context,
            properties,
            identity: None,
            modules: Vec::new(),
            functions: Vec::new(),
            by_name: HashMap::new(),
            regions: Vec::new(),
            pinned: Vec::new(),
            host: Vec::new(),
            streams: vec![compute],
            events: Vec::new(),
            graphs: Vec::new(),
            staging: Staging::new(),
            synchronizations: 0,
            wait_limit: None,
            capturing: false,
            last_launch: None,
            nvtx: Nvtx::find(),
        };
        let mut hash = blake3::Hasher::new();
        for images in images {
            for (file, code) in module::code(images, &cuda.context, &cuda.properties, arch)? {
                hash.update(&(code.len() as u64).to_le_bytes()).update(&code);
                cuda.load(file, &code, images, arch)?;
            }
        }
        let uuid = cuda.context.uuid().map_err(|e| cuda.failed("cuDeviceGetUuid", e))?.bytes;
        let driver = &cuda.properties.driver;
        cuda.identity = Some(format!("GPU {uuid:02x?}\ndriver {driver}\nkernels {}", hash.finalize().to_hex()));
        Ok(cuda)
    }

    /// Loads the machine code of kernels/FILE.cu, made of `images` for `arch`, and looks up its kernels.
    fn load(&mut self, file: &'static str, code: &[u8], images: &Images, arch: Arch) -> Result<()> {
        let module = module::load(file, code)?;
        self.modules.push(module);
        for name in images.kernels(file) {
            let handle = module::function(module, file, name)?;
            // SAFETY: `handle` is a function of a module that stays loaded as long as `self` lives.
            let function = unsafe { Function::new(name, handle, &self.properties, images, arch) };
            self.by_name.insert((file, name), Kernel(self.functions.len() as u32));
            self.functions.push(function.map_err(|(call, e)| self.failed(&format!("{call} of {name}"), e))?);
        }
        Ok(())
    }

    /// Makes the context current on this thread.
    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| self.failed("cuCtxSetCurrent", e))
    }

    fn failed(&self, call: &str, error: DriverError) -> Error {
        let last = self.last_launch.map(|name| format!("; the last kernel launched is {name}")).unwrap_or_default();
        Error::Failed(format!("{}: {call}: {}{last}", self.properties.name, find::describe(error)))
    }

    fn done(&self, call: &str, code: sys::CUresult) -> Result<()> {
        code.result().map_err(|e| self.failed(call, e))
    }

    /// Errors if a capture is running. The driver would otherwise invalidate the whole capture.
    fn not_capturing(&self, what: &str) -> Result<()> {
        if self.capturing { Err(Error::Failed(format!("{what} during a capture"))) } else { Ok(()) }
    }

    fn on(&self, stream: Stream) -> sys::CUstream {
        self.streams[stream.0 as usize]
    }

    fn at(&self, event: Event) -> sys::CUevent {
        self.events[event.0 as usize]
    }
}

impl Driver for Cuda {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn identity(&self) -> Option<String> {
        self.identity.clone()
    }

    fn limit_waits(&mut self, limit: Option<WaitLimit>) {
        self.wait_limit = limit;
    }

    fn compile_fault(&self, kernels: WgmmaKernels) -> Option<String> {
        let mut functions = self.functions.iter().filter(|function| WgmmaKernels::of(function.name) == kernels);
        functions.find_map(|function| function.compile_fault(&self.properties))
    }

    fn map(&mut self, bytes: usize) -> Result<Address> {
        self.not_capturing("an allocation")?;
        self.bind()?;
        // SAFETY: the memory belongs to this driver until the driver is dropped.
        let taken = unsafe { result::malloc_sync(bytes.max(1)) };
        let address = taken.map_err(|e| {
            let free = result::mem_get_info().map_or_else(|_| "unknown".into(), |(free, _)| free.to_string());
            self.failed(&format!("{bytes} bytes of memory wanted, {free} free"), e)
        })?;
        self.regions.push(address);
        self.fill(Stream::COMPUTE, address, 0, bytes)?;
        self.synchronize(Stream::COMPUTE)?;
        Ok(address)
    }

    fn map_host(&mut self, bytes: usize) -> Result<Address> {
        self.not_capturing("an allocation of pinned memory")?;
        self.bind()?;
        let mut memory = host::zeroed(bytes)?;
        // SAFETY: the context is current. The memory lives until `drop` has unpinned it.
        let address = unsafe { host::pin(&mut memory) };
        self.host.push(memory);
        address.map_err(|e| self.failed(&format!("{bytes} bytes of the host's memory, to be pinned"), e))
    }

    fn kernel(&mut self, file: &'static str, name: &'static str) -> Result<Kernel> {
        let missing_error = || Error::Failed(format!("kernels/{file}.cu has no kernel {name}"));
        self.by_name.get(&(file, name)).copied().ok_or_else(missing_error)
    }

    fn launch(&mut self, stream: Stream, kernel: Kernel, launch: &Launch, params: &[u8]) -> Result<()> {
        if launch.grid.contains(&0) {
            return Ok(());
        }
        let function = &self.functions[kernel.0 as usize];
        limits::check(function.declared(), launch, params.len(), &self.properties)?;
        if let Some(fault) = function.wrong_registers(&self.properties) {
            return Err(Error::Failed(format!("launch refused: {fault}")));
        }
        self.bind()?;
        let name = function.name;
        // SAFETY: streams live as long as the driver. The op that wrote the kernel's arguments guarantees that their
        // addresses are valid for what the kernel does.
        let code = unsafe { function.launch(self.on(stream), launch, params) };
        self.last_launch = Some(name);
        self.done(&format!("launch of {name} as {launch:?}"), code)
    }

    fn upload(&mut self, stream: Stream, to: Address, from: &[u8]) -> Result<()> {
        self.not_capturing("an upload")?;
        self.bind()?;
        let (stream, _wait) = (self.on(stream), self.wait_limit.as_ref().map(WaitLimit::begin));
        self.staging.upload(stream, to, from).map_err(|e| self.failed("upload", e))
    }

    fn download(&mut self, stream: Stream, from: Address, to: &mut [u8]) -> Result<()> {
        self.not_capturing("a download")?;
        self.bind()?;
        if to.is_empty() {
            return self.synchronize(stream);
        }
        // SAFETY: `to` stays borrowed until the copy is complete: the synchronisation below waits for the copy, even if
        // queueing returned an error.
        let queued = unsafe { sys::cuMemcpyAsync(to.as_mut_ptr() as u64, from, to.len(), self.on(stream)) };
        let over = self.synchronize(stream);
        self.done("download", queued).and(over)
    }

    fn copy(&mut self, stream: Stream, to: Address, from: Address, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the calling op guarantees that both ranges are inside regions.
        let queued = unsafe { result::memcpy_dtod_async(to, from, bytes, self.on(stream)) };
        queued.map_err(|e| self.failed("copy", e))
    }

    fn fill(&mut self, stream: Stream, to: Address, value: u8, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        // SAFETY: the calling op guarantees that the range is inside a region.
        let queued = unsafe { result::memset_d8_async(to, value, bytes, self.on(stream)) };
        queued.map_err(|e| self.failed("fill", e))
    }

    fn pinned(&mut self, bytes: usize) -> Result<Pinned> {
        self.not_capturing("an allocation of pinned memory")?;
        self.bind()?;
        // The memory is not write-combined, because the host reads these buffers back.
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE | sys::CU_MEMHOSTALLOC_DEVICEMAP;
        // SAFETY: freed once, in drop.
        let start = unsafe { result::malloc_host(bytes.max(1), flags) };
        let start = start.map_err(|e| self.failed(&format!("{bytes} bytes of pinned memory"), e))?.cast::<u8>();
        // SAFETY: the driver allocated `bytes` bytes; they are initialised here, before any slice of them is made.
        unsafe { ptr::write_bytes(start, 0, bytes) };
        self.pinned.push(ptr::slice_from_raw_parts_mut(start, bytes));
        Ok(Pinned(self.pinned.len() as u32 - 1))
    }

    fn pinned_bytes(&mut self, buffer: Pinned) -> &mut [u8] {
        // SAFETY: the buffer lives as long as `self`, every byte is initialised, and `self` is borrowed mutably, so no
        // other slice of it exists. The caller has waited for the copies that touch it.
        unsafe { &mut *self.pinned[buffer.0 as usize] }
    }

    fn download_pinned(&mut self, stream: Stream, from: Address, to: Pinned, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        self.bind()?;
        let host = self.pinned[to.0 as usize];
        if bytes > host.len() {
            return Err(Error::Failed(format!("a copy of {bytes} bytes, but the pinned buffer has {}", host.len())));
        }
        // SAFETY: the buffer has `bytes` bytes (checked) and lives as long as the driver; the range is inside a region.
        let queued = unsafe { sys::cuMemcpyAsync(host.cast::<u8>() as u64, from, bytes, self.on(stream)) };
        self.done("download into a pinned buffer", queued)
    }

    fn stream(&mut self) -> Result<Stream> {
        self.bind()?;
        // Blocking streams would wait for the legacy default stream, which omr does not use but a library might.
        let made = stream::create_with_priority(stream::StreamKind::NonBlocking, HIGHEST);
        let made = made.map_err(|e| self.failed("cuStreamCreateWithPriority", e))?;
        self.streams.push(made);
        Ok(Stream(self.streams.len() as u32 - 1))
    }

    fn synchronize(&mut self, stream: Stream) -> Result<()> {
        self.bind()?;
        self.synchronizations += 1;
        let _wait = self.wait_limit.as_ref().map(WaitLimit::begin);
        // SAFETY: streams live as long as the driver.
        unsafe { stream::synchronize(self.on(stream)) }.map_err(|e| self.failed("cuStreamSynchronize", e))
    }

    fn is_idle(&mut self, stream: Stream) -> Result<bool> {
        if self.capturing {
            return Ok(false);
        }
        self.bind()?;
        // SAFETY: streams live as long as the driver.
        match unsafe { sys::cuStreamQuery(self.on(stream)) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            code => self.done("cuStreamQuery", code).map(|()| true),
        }
    }

    fn handle(&mut self, stream: Stream) -> Result<usize> {
        self.not_capturing("work of a library")?;
        self.bind()?;
        Ok(self.on(stream) as usize)
    }

    fn free_memory(&mut self) -> Result<Option<u64>> {
        self.bind()?;
        let (free, _) = result::mem_get_info().map_err(|e| self.failed("cuMemGetInfo", e))?;
        Ok(Some(free as u64))
    }

    fn synchronizations(&self) -> u64 {
        self.synchronizations
    }

    fn event(&mut self) -> Result<Event> {
        self.bind()?;
        // The default flags record timestamps, which `elapsed_ms` reads.
        let made = event::create(sys::CUevent_flags::CU_EVENT_DEFAULT).map_err(|e| self.failed("cuEventCreate", e))?;
        self.events.push(made);
        Ok(Event(self.events.len() as u32 - 1))
    }

    fn record_at(&mut self, event: Event, stream: Stream, _: &'static Location<'static>) -> Result<()> {
        self.bind()?;
        // SAFETY: events and streams live as long as the driver.
        unsafe { event::record(self.at(event), self.on(stream)) }.map_err(|e| self.failed("cuEventRecord", e))
    }

    fn wait_at(&mut self, stream: Stream, event: Event, _: &'static Location<'static>) -> Result<()> {
        self.bind()?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: events and streams live as long as the driver.
        let queued = unsafe { stream::wait_event(self.on(stream), self.at(event), flags) };
        queued.map_err(|e| self.failed("cuStreamWaitEvent", e))
    }

    fn elapsed_ms(&mut self, from: Event, to: Event) -> Result<f32> {
        self.bind()?;
        self.synchronizations += 1;
        let (from, to, _wait) = (self.at(from), self.at(to), self.wait_limit.as_ref().map(WaitLimit::begin));
        // SAFETY: events live as long as the driver.
        unsafe { event::synchronize(to) }.map_err(|e| self.failed("cuEventSynchronize", e))?;
        // SAFETY: events live as long as the driver.
        unsafe { event::elapsed(from, to) }.map_err(|e| self.failed("cuEventElapsedTime", e))
    }

    fn begin_capture(&mut self, stream: Stream) -> Result<()> {
        self.not_capturing("a capture")?;
        self.bind()?;
        // Thread-local mode: calls that other threads make at the same time (copies of a checkpoint) do not affect the
        // capture.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: streams live as long as the driver.
        let begun = unsafe { stream::begin_capture(self.on(stream), mode) };
        begun.map_err(|e| self.failed("cuStreamBeginCapture", e))?;
        self.capturing = true;
        Ok(())
    }

    fn end_capture(&mut self, stream: Stream) -> Result<Graph> {
        if !self.capturing {
            return Err(Error::Failed("the end of a capture that was not started".into()));
        }
        self.bind()?;
        self.capturing = false;
        // SAFETY: streams live as long as the driver.
        let ended = unsafe { stream::end_capture(self.on(stream)) };
        let captured = ended.map_err(|e| self.failed("cuStreamEndCapture", e))?;
        let mut exec = ptr::null_mut();
        // SAFETY: `captured` is a live graph, or null if nothing was captured; the driver refuses a null graph.
        let code = unsafe { sys::cuGraphInstantiateWithFlags(&mut exec, captured, 0) };
        if let Err(e) = self.done("cuGraphInstantiate", code) {
            // SAFETY: destroyed once; no copy of the handle is kept.
            let _ = unsafe { graph::destroy(captured) };
            return Err(e);
        }
        self.graphs.push(Some((captured, exec)));
        // The graph is uploaded now, so that the first replay is not slower than later ones.
        // SAFETY: `exec` and the stream are live.
        let sent = unsafe { graph::upload(exec, self.on(stream)) };
        sent.map_err(|e| self.failed("cuGraphUpload", e))?;
        Ok(Graph(self.graphs.len() as u32 - 1))
    }

    fn replay(&mut self, graph: Graph, stream: Stream) -> Result<()> {
        self.bind()?;
        let Some(Some((_, exec))) = self.graphs.get(graph.0 as usize) else {
            return Err(Error::Failed(format!("graph {} was never captured, or is already dropped", graph.0)));
        };
        // SAFETY: graphs and streams live as long as the driver, and so does all the memory that a graph refers to.
        let queued = unsafe { graph::launch(*exec, self.on(stream)) };
        queued.map_err(|e| self.failed("cuGraphLaunch", e))
    }

    fn drop_graph(&mut self, graph: Graph) {
        let dropped = self.graphs.get_mut(graph.0 as usize).and_then(Option::take);
        if let (Some((captured, exec)), Ok(())) = (dropped, self.bind()) {
            // SAFETY: destroyed once; the driver keeps an executable graph until its queued launches have run.
            unsafe { destroy(captured, exec) };
        }
    }

    fn records_ranges(&self) -> bool {
        self.nvtx.is_some()
    }

    fn range_push(&mut self, name: &str) {
        if let (Some(nvtx), Ok(name)) = (self.nvtx, CString::new(name)) {
            nvtx.push(&name);
        }
    }

    fn range_pop(&mut self) {
        if let Some(nvtx) = self.nvtx {
            nvtx.pop();
        }
    }

    fn profiler(&mut self, on: bool) -> Result<()> {
        self.bind()?;
        // SAFETY: the calls take no arguments; without a profiler they do nothing.
        let code = unsafe { if on { sys::cuProfilerStart() } else { sys::cuProfilerStop() } };
        self.done("cuProfilerStart", code)
    }

    fn tensor_map(&mut self, map: &TensorMap) -> Result<EncodedMap> {
        map.check()?;
        self.bind()?;
        let (code, encoded) = launch::encode(map);
        self.done(&format!("cuTensorMapEncodeTiled of {map:?}"), code)?;
        Ok(encoded)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Destroys a graph and its executable form.
///
/// # Safety
/// The context must be current, and no copy of the handles may be used.
unsafe fn destroy(captured: sys::CUgraph, exec: sys::CUgraphExec) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let _ = graph::exec_destroy(exec);
        let _ = graph::destroy(captured);
    }
}

impl Drop for Cuda {
    /// Waits for all work, then frees everything. Errors are ignored, because drop cannot report them.
    fn drop(&mut self) {
        if self.bind().is_err() {
            return;
        }
        let _ = self.context.synchronize();
        // SAFETY: this value made each handle and destroys it once, and no work that uses it is left.
        unsafe {
            self.graphs.drain(..).flatten().for_each(|(captured, exec)| destroy(captured, exec));
            self.staging.free();
            self.events.drain(..).for_each(|made| _ = event::destroy(made));
            self.streams.drain(..).for_each(|made| _ = stream::destroy(made));
            self.pinned.drain(..).for_each(|host| _ = result::free_host(host.cast()));
            self.host.drain(..).for_each(|mut memory| _ = sys::cuMemHostUnregister(memory.as_mut_ptr().cast()));
            self.regions.drain(..).for_each(|address| _ = result::free_sync(address));
            self.modules.drain(..).for_each(|module| _ = result::module::unload(module));
        }
    }
}

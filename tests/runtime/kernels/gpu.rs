//! The GPU under test: a real one, or the emulator restricted to what a GPU offers. It is opened once per process and
//! lent to one device after the other, because opening it loads every kernel.

use std::any::Any;
use std::panic::Location;
use std::sync::{Mutex, PoisonError};

use omr_base::error::Result;
use omr_runtime::device::cuda::Cuda;
use omr_runtime::device::driver::{Kernel, Pinned, Properties};
use omr_runtime::device::emu::{Emu, Options};
use omr_runtime::device::images::{Arch, Images};
use omr_runtime::device::{Address, Device, Driver, EncodedMap, Event, Graph, Kind, Launch, Plan, Stream, TensorMap};

use super::cu::CALIBRATION;
use super::{IMAGES, Under, alone, only_on_a_gpu, under_test};

/// Bytes of each region of a test's device. On a GPU all these bytes are allocated, even if a test does not use them.
pub const REGION_BYTES: usize = 2 << 30;

/// Multiprocessors of an H200. Their number decides which CTAs run at the same time.
const MULTIPROCESSORS: u32 = 132;

/// Returns a device with the memory of `plan`. Devices that exist at the same time have separate drivers, like separate
/// GPUs, but on a real GPU they share its context.
pub fn device(plan: &Plan) -> Result<Device> {
    Device::gpu(Box::new(Lent::new()?), Kind::Cuda, plan)
}

/// A mapped region. Tensors used at most its first `used` bytes.
struct Taken {
    base: Address,
    bytes: usize,
    used: usize,
}

/// A GPU with the regions and streams that its earlier devices have created.
struct Idle {
    driver: Box<dyn Driver>,
    regions: Vec<Taken>,
    streams: u32,
}

static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());

fn idle() -> std::sync::MutexGuard<'static, Vec<Idle>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Driver of a device: a GPU that is returned when this value is dropped. [`Driver::as_any`] returns this value, so a
/// test cannot reach the emulator behind it.
struct Lent {
    gpu: Option<Idle>,
    /// Number of regions that belong to this device. They are the first ones of `gpu.regions`.
    mine: usize,
}

impl Lent {
    fn new() -> Result<Lent> {
        let found = idle().pop();
        let gpu = match found {
            Some(gpu) => gpu,
            None => Idle { driver: open()?, regions: Vec::new(), streams: 0 },
        };
        Ok(Lent { gpu: Some(gpu), mine: 0 })
    }

    fn gpu(&mut self) -> &mut Idle {
        self.gpu.as_mut().unwrap()
    }

    fn driver(&mut self) -> &mut dyn Driver {
        &mut *self.gpu().driver
    }
}

fn open() -> Result<Box<dyn Driver>> {
    if under_test() == Under::Gpu {
        return Ok(Box::new(Cuda::open(0, &IMAGES)?));
    }
    let emulated = Options {
        arch: Arch::Sm90a,
        multiprocessors: MULTIPROCESSORS,
        shadow: false,
        guarded: false,
        images: &IMAGES,
        ..Options::default()
    };
    Ok(Box::new(Emu::new(emulated)?))
}

impl Drop for Lent {
    /// Returns the GPU for later devices after its work is done. If a failed test may have left work unfinished, or if
    /// the GPU has an error, the GPU is discarded instead.
    fn drop(&mut self) {
        let Some(mut gpu) = self.gpu.take() else { return };
        let over = |gpu: &mut Idle| (0..=gpu.streams).all(|s| gpu.driver.synchronize(Stream(s)).is_ok());
        if !std::thread::panicking() && over(&mut gpu) {
            idle().push(gpu);
        }
    }
}

impl Driver for Lent {
    fn properties(&self) -> &Properties {
        self.gpu.as_ref().unwrap().driver.properties()
    }

    /// Reuses a region of the same size from an earlier device and sets its used bytes to zero. If there is no such
    /// region, maps a new one.
    fn map(&mut self, bytes: usize) -> Result<Address> {
        let mine = self.mine;
        let gpu = self.gpu();
        match (mine..gpu.regions.len()).find(|i| gpu.regions[*i].bytes == bytes) {
            Some(found) => {
                gpu.regions.swap(mine, found);
                let Taken { base, used, .. } = gpu.regions[mine];
                gpu.driver.fill(Stream::COMPUTE, base, 0, used)?;
                gpu.regions[mine].used = 0;
            }
            None => {
                let base = gpu.driver.map(bytes)?;
                gpu.regions.insert(mine, Taken { base, bytes, used: 0 });
            }
        }
        self.mine += 1;
        Ok(self.gpu().regions[mine].base)
    }

    fn map_host(&mut self, bytes: usize) -> Result<Address> {
        self.gpu().driver.map_host(bytes)
    }

    fn guard(&self) -> usize {
        self.gpu.as_ref().unwrap().driver.guard()
    }

    fn open(&mut self, address: Address, bytes: usize) -> Result<()> {
        let gpu = self.gpu();
        let holds = |r: &&mut Taken| r.base <= address && address < r.base + r.bytes as u64;
        if let Some(region) = gpu.regions.iter_mut().find(holds) {
            region.used = region.used.max((address - region.base) as usize + bytes);
        }
        gpu.driver.open(address, bytes)
    }

    fn close(&mut self, address: Address, bytes: usize) -> Result<()> {
        self.driver().close(address, bytes)
    }

    fn kernel(&mut self, file: &'static str, name: &'static str) -> Result<Kernel> {
        self.driver().kernel(file, name)
    }

    fn launch(&mut self, stream: Stream, kernel: Kernel, launch: &Launch, params: &[u8]) -> Result<()> {
        self.driver().launch(stream, kernel, launch, params)
    }

    fn upload(&mut self, stream: Stream, to: Address, from: &[u8]) -> Result<()> {
        self.driver().upload(stream, to, from)
    }

    fn download(&mut self, stream: Stream, from: Address, to: &mut [u8]) -> Result<()> {
        self.driver().download(stream, from, to)
    }

    fn copy(&mut self, stream: Stream, to: Address, from: Address, bytes: usize) -> Result<()> {
        self.driver().copy(stream, to, from, bytes)
    }

    fn fill(&mut self, stream: Stream, to: Address, value: u8, bytes: usize) -> Result<()> {
        self.driver().fill(stream, to, value, bytes)
    }

    fn pinned(&mut self, bytes: usize) -> Result<Pinned> {
        self.driver().pinned(bytes)
    }

    fn pinned_bytes(&mut self, buffer: Pinned) -> &mut [u8] {
        self.driver().pinned_bytes(buffer)
    }

    fn download_pinned(&mut self, stream: Stream, from: Address, to: Pinned, bytes: usize) -> Result<()> {
        self.driver().download_pinned(stream, from, to, bytes)
    }

    fn stream(&mut self) -> Result<Stream> {
        let made = self.driver().stream()?;
        self.gpu().streams = made.0;
        Ok(made)
    }

    fn synchronize(&mut self, stream: Stream) -> Result<()> {
        self.driver().synchronize(stream)
    }

    fn is_idle(&mut self, stream: Stream) -> Result<bool> {
        self.driver().is_idle(stream)
    }

    fn handle(&mut self, stream: Stream) -> Result<usize> {
        self.driver().handle(stream)
    }

    fn free_memory(&mut self) -> Result<Option<u64>> {
        self.driver().free_memory()
    }

    fn synchronizations(&self) -> u64 {
        self.gpu.as_ref().unwrap().driver.synchronizations()
    }

    fn event(&mut self) -> Result<Event> {
        self.driver().event()
    }

    fn record_at(&mut self, event: Event, stream: Stream, site: &'static Location<'static>) -> Result<()> {
        self.driver().record_at(event, stream, site)
    }

    fn wait_at(&mut self, stream: Stream, event: Event, site: &'static Location<'static>) -> Result<()> {
        self.driver().wait_at(stream, event, site)
    }

    fn elapsed_ms(&mut self, from: Event, to: Event) -> Result<f32> {
        self.driver().elapsed_ms(from, to)
    }

    fn begin_capture(&mut self, stream: Stream) -> Result<()> {
        self.driver().begin_capture(stream)
    }

    fn end_capture(&mut self, stream: Stream) -> Result<Graph> {
        self.driver().end_capture(stream)
    }

    fn replay(&mut self, graph: Graph, stream: Stream) -> Result<()> {
        self.driver().replay(graph, stream)
    }

    fn drop_graph(&mut self, graph: Graph) {
        self.driver().drop_graph(graph);
    }

    fn records_ranges(&self) -> bool {
        self.gpu.as_ref().unwrap().driver.records_ranges()
    }

    fn range_push(&mut self, name: &str) {
        self.driver().range_push(name);
    }

    fn range_pop(&mut self) {
        self.driver().range_pop();
    }

    fn profiler(&mut self, on: bool) -> Result<()> {
        self.driver().profiler(on)
    }

    fn tensor_map(&mut self, map: &TensorMap) -> Result<EncodedMap> {
        self.driver().tensor_map(map)
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// A program that was built without `ptxas` has no machine code, and the driver compiles its PTX, instructions of 9.0a
/// included. The child has an empty cache.
#[test]
fn the_driver_compiles_what_has_no_machine_code() {
    const CHILD: &str = "OMR_TEST_COMPILES";
    static TEXT: Images = Images { cubins: &[], ..CALIBRATION };
    if only_on_a_gpu("a program without machine code") {
        return;
    }
    if std::env::var_os(CHILD).is_some() {
        drop(Cuda::open(0, &[&TEXT]).unwrap());
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let mut child = alone("kernels::gpu::the_driver_compiles_what_has_no_machine_code");
    let output = child.env(CHILD, "1").env("XDG_CACHE_HOME", cache.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

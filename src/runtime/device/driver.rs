//! The interface between omr and a GPU. `cuda.rs` implements it for a real GPU and `emu.rs` for the host emulator. All
//! code above it (memory plans, launch shapes, the model, the engine) is the same for both.

use std::any::Any;
use std::panic::Location;

use crate::device::{WaitLimit, WgmmaKernels, Work};
use omr_base::error::{Error, Result};

/// Address in a device's memory.
pub type Address = u64;

/// Queue of work. Work on one stream runs in order. [`Stream::COMPUTE`] always exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stream(pub u32);

impl Stream {
    /// The stream that ops run on.
    pub const COMPUTE: Stream = Stream(0);
}

/// A point in a stream that other streams can wait for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Event(pub u32);

/// Captured work that can be replayed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Graph(pub u32);

/// A loaded kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Kernel(pub u32);

/// Page-locked host memory of a driver.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Pinned(pub u32);

/// Shape of a launch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Launch {
    /// CTAs in x, y and z. If one of them is zero, nothing is launched.
    pub grid: [u32; 3],
    /// Threads per CTA.
    pub block: u32,
    /// CTAs per cluster, along x.
    pub cluster: u32,
    /// Bytes of dynamic shared memory per CTA.
    pub smem: u32,
}

impl Launch {
    /// Creates a launch of `grid` CTAs without clusters. Each CTA has `block` threads and `smem` bytes of dynamic
    /// shared memory.
    pub fn new(grid: [u32; 3], block: u32, smem: usize) -> Launch {
        Launch { grid, block, cluster: 1, smem: smem as u32 }
    }
}

/// Description of a tiled tensor map: bf16 or f32 elements, row-major, innermost dimension first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorMap {
    /// Address of the first element; a multiple of 16.
    pub address: Address,
    /// Bytes per element: 2 (bf16) or 4 (f32).
    pub element: usize,
    /// Number of elements in each dimension, innermost first (2 to 5 dimensions).
    pub dims: Vec<u64>,
    /// Bytes between neighbours in each dimension except the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of a box in each dimension, at most 256.
    pub box_dims: Vec<u32>,
    /// Swizzle span in bytes: 0 for none, or 32, 64 or 128, which must equal the length of a box row.
    pub swizzle: u32,
}

impl TensorMap {
    /// Returns the map of `[rows, columns]` in bf16, whose rows start `stride` elements apart, in boxes of `boxed` =
    /// `[rows, columns]`.
    pub fn rows(address: Address, dims: [usize; 2], stride: usize, boxed: [usize; 2], swizzle: u32) -> TensorMap {
        let [rows, columns] = dims.map(|n| n as u64);
        let box_dims = vec![boxed[1] as u32, boxed[0] as u32];
        TensorMap {
            address,
            element: 2,
            dims: vec![columns, rows],
            strides: vec![2 * stride as u64],
            box_dims,
            swizzle,
        }
    }
}

/// A tensor map in its driver's encoding. It is a member of a kernel's `Args`, where its type is `isa::TensorMap`.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Zeroable, bytemuck::Pod)]
pub struct EncodedMap(pub [u64; 16]);

/// Properties of a device, which `omr doctor` prints and launches are checked against.
#[derive(Clone, PartialEq, Debug)]
pub struct Properties {
    /// Product name of the GPU.
    pub name: String,
    /// Compute capability, for example (9, 0).
    pub compute_capability: (u32, u32),
    /// Number of streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Maximum bytes of dynamic shared memory that a CTA can opt in to.
    pub shared_memory_per_block: usize,
    /// Maximum number of registers of a CTA.
    pub registers_per_block: u32,
    /// Version of the driver, for example "580.65", or the emulator's own version.
    pub driver: String,
    /// CUDA version of the driver in its own numbering: 12040 for 12.4. 0 if there is no driver.
    pub cuda: u32,
}

/// A device that launches kernels. Errors of queued work are reported by the call itself or by a later synchronisation,
/// as on a real GPU. Each error names the kernel.
pub trait Driver: Send {
    /// Returns the properties of the device.
    fn properties(&self) -> &Properties;

    /// Returns a text that identifies the GPU, its driver and the machine code of its kernels. The emulator has none.
    fn identity(&self) -> Option<String> {
        None
    }

    /// Sets the limit for each wait of the host for this GPU. The emulator ignores it, because it detects a kernel that
    /// does not end.
    fn limit_waits(&mut self, _limit: Option<WaitLimit>) {}

    /// Returns why the wgmma variant of `kernels` must not run as it was compiled, or `None` if it may: it would hang
    /// without the registers that it needs, and it would be slow if the compiler has serialised its wgmma.
    fn compile_fault(&self, _kernels: WgmmaKernels) -> Option<String> {
        None
    }

    /// Allocates `bytes` of zero-filled device memory for the lifetime of the driver. Called once per region.
    fn map(&mut self, bytes: usize) -> Result<Address>;

    /// Allocates `bytes` of zero-filled memory of the host that kernels can read and write, for the lifetime of the
    /// driver. The emulator has no other memory than the host's.
    fn map_host(&mut self, bytes: usize) -> Result<Address> {
        self.map(bytes)
    }

    /// Returns the number of inaccessible bytes after every tensor: one page on the emulator, 0 on a real GPU.
    fn guard(&self) -> usize {
        0
    }

    /// Reports that a tensor was placed at `address`. The call takes effect in the order of the compute stream. The
    /// emulator makes the tensor's pages accessible and poisons them.
    fn open(&mut self, _address: Address, _bytes: usize) -> Result<()> {
        Ok(())
    }

    /// Reports that all tensors in this range were released. The call takes effect in the order of the compute stream.
    fn close(&mut self, _address: Address, _bytes: usize) -> Result<()> {
        Ok(())
    }

    /// Returns kernel `name` of `kernels/FILE.cu`, which is loaded once. Errors if there is no such kernel.
    fn kernel(&mut self, file: &'static str, name: &'static str) -> Result<Kernel>;

    /// Queues a launch; `params` are the bytes of the kernel's `Args`.
    fn launch(&mut self, stream: Stream, kernel: Kernel, launch: &Launch, params: &[u8]) -> Result<()>;

    /// Queues a copy from the host; `from` may be reused on return. Refused during capture.
    fn upload(&mut self, stream: Stream, to: Address, from: &[u8]) -> Result<()>;

    /// Copies to the host after all work of `stream`, and waits for the copy. Refused during capture.
    fn download(&mut self, stream: Stream, from: Address, to: &mut [u8]) -> Result<()>;

    /// Queues a copy inside the device.
    fn copy(&mut self, stream: Stream, to: Address, from: Address, bytes: usize) -> Result<()>;

    /// Queues a fill that sets every byte to `value`.
    fn fill(&mut self, stream: Stream, to: Address, value: u8, bytes: usize) -> Result<()>;

    /// Allocates `bytes` of page-locked host memory for the lifetime of the driver.
    fn pinned(&mut self, bytes: usize) -> Result<Pinned>;

    /// Returns the bytes of a pinned buffer. The caller must have waited for every copy that touches them.
    fn pinned_bytes(&mut self, buffer: Pinned) -> &mut [u8];

    /// Queues a copy into the first `bytes` of `to`, which may be read after a synchronisation. Can be captured.
    fn download_pinned(&mut self, stream: Stream, from: Address, to: Pinned, bytes: usize) -> Result<()>;

    /// Creates a new stream.
    fn stream(&mut self) -> Result<Stream>;

    /// Waits for all work of `stream`.
    fn synchronize(&mut self, stream: Stream) -> Result<()>;

    /// Returns true if all work of `stream` is known to have run. Does not wait. Always false during a capture.
    fn is_idle(&mut self, stream: Stream) -> Result<bool>;

    /// Returns the native handle of `stream` for a library (NCCL) that adds its own work to the stream. The emulator
    /// first runs all work of `stream`, because a library cannot wait for work of the emulator.
    fn handle(&mut self, _stream: Stream) -> Result<usize> {
        Err(Error::Failed(format!("{} has no streams for libraries", self.properties().name)))
    }

    /// Returns the number of free bytes of device memory, or `None` if the device has no such number.
    fn free_memory(&mut self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Returns the number of calls so far that made the host wait for queued work: [`Driver::synchronize`],
    /// [`Driver::download`] and [`Driver::elapsed_ms`].
    fn synchronizations(&self) -> u64;

    /// Creates a new event.
    fn event(&mut self) -> Result<Event>;

    /// Records `event` after the work of `stream`. `site` is the line of the caller (see `record`).
    fn record_at(&mut self, event: Event, stream: Stream, site: &'static Location<'static>) -> Result<()>;

    /// Makes later work of `stream` wait for the last recording of `event`. `site` is the line of the caller (see
    /// `wait`).
    fn wait_at(&mut self, stream: Stream, event: Event, site: &'static Location<'static>) -> Result<()>;

    /// Waits for event `to` and returns the milliseconds between the two recorded events.
    fn elapsed_ms(&mut self, from: Event, to: Event) -> Result<f32>;

    /// Begins a capture: work of `stream` is added to a graph and does not run.
    fn begin_capture(&mut self, stream: Stream) -> Result<()>;

    /// Ends the capture and returns its graph.
    fn end_capture(&mut self, stream: Stream) -> Result<Graph>;

    /// Queues the work of a graph.
    fn replay(&mut self, graph: Graph, stream: Stream) -> Result<()>;

    /// Destroys a graph. Work of the graph that is already queued still runs.
    fn drop_graph(&mut self, graph: Graph);

    /// Returns true while ranges are recorded, by a profiler around the program or by a test on the emulator.
    fn records_ranges(&self) -> bool;

    /// Opens a named range for profilers.
    fn range_push(&mut self, name: &str);

    /// Closes the innermost range.
    fn range_pop(&mut self);

    /// Records the cost of a model op, in addition to its launches. Most drivers ignore it.
    fn note_work(&mut self, _work: Work) {}

    /// Records the rows, the columns and the length of the sums of the product that the next launch computes. Most drivers
    /// ignore it.
    fn note_product(&mut self, _product: [usize; 3]) {}

    /// Starts or stops a profiler's recording.
    fn profiler(&mut self, on: bool) -> Result<()>;

    /// Encodes a tensor map. Errors if it breaks a rule of the driver, and names the rule.
    fn tensor_map(&mut self, map: &TensorMap) -> Result<EncodedMap>;

    /// Returns the driver as `Any`, for tests that inspect the emulator.
    fn as_any(&mut self) -> &mut dyn Any;
}

// A method of a trait object loses its `track_caller` location, and the emulator distinguishes call sites. Therefore
// these two methods are outside the trait.
impl dyn Driver + '_ {
    /// Records `event` after the work of `stream`.
    #[track_caller]
    pub fn record(&mut self, event: Event, stream: Stream) -> Result<()> {
        self.record_at(event, stream, Location::caller())
    }

    /// Makes later work of `stream` wait for the last recording of `event`. Does nothing if `event` was never recorded.
    #[track_caller]
    pub fn wait(&mut self, stream: Stream, event: Event) -> Result<()> {
        self.wait_at(stream, event, Location::caller())
    }
}

//! The seam between omr and a GPU: what `cuda.rs` (a card) and `emu.rs` (the host emulator) both do. Everything
//! above it (plans, launch shapes, the model, the engine) is one code for both.

use std::any::Any;
use std::panic::Location;

use crate::device::work::Work;
use crate::error::{Error, Result};

/// An address in a device's memory.
pub type Address = u64;

/// A queue of work; work on one stream runs in order. [`Stream::COMPUTE`] always exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stream(pub u32);

impl Stream {
    /// The stream ops run on.
    pub const COMPUTE: Stream = Stream(0);
}

/// A point in a stream that others can wait for.
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
    /// CTAs in x, y and z; with a zero among them nothing is launched.
    pub grid: [u32; 3],
    /// Threads of a CTA.
    pub block: u32,
    /// CTAs of a cluster, along x.
    pub cluster: u32,
    /// Bytes of dynamic shared memory.
    pub smem: u32,
}

impl Launch {
    /// `grid` CTAs of `block` threads, `smem` bytes of dynamic shared memory each, no clusters.
    pub fn new(grid: [u32; 3], block: u32, smem: usize) -> Launch {
        Launch { grid, block, cluster: 1, smem: smem as u32 }
    }
}

/// What is asked of a tiled tensor map: bf16 or f32 elements, row-major, innermost dimension first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorMap {
    /// First element; a multiple of 16.
    pub address: Address,
    /// Bytes of an element: 2 (bf16) or 4 (f32).
    pub element: usize,
    /// Elements of each dimension, innermost first (2 to 5 of them).
    pub dims: Vec<u64>,
    /// Bytes between neighbours of each dimension but the innermost; multiples of 16.
    pub strides: Vec<u64>,
    /// Elements of a box in each dimension, at most 256.
    pub box_dims: Vec<u32>,
    /// Swizzle span in bytes: 0, or 32, 64 or 128, which is then a box row's length.
    pub swizzle: u32,
}

/// A tensor map as its driver encodes it: a member of a kernel's `Args`, where it is `isa::TensorMap`.
#[repr(C, align(64))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, bytemuck::Zeroable, bytemuck::Pod)]
pub struct EncodedMap(pub [u64; 16]);

/// A device, as `omr doctor` prints it and launches are checked against.
#[derive(Clone, PartialEq, Debug)]
pub struct Properties {
    /// The card's name.
    pub name: String,
    /// Compute capability, such as (9, 0).
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Most bytes of dynamic shared memory a CTA can opt in to.
    pub shared_memory_per_block: usize,
    /// Version of the driver, such as "580.65" or the emulator's own.
    pub driver: String,
}

/// A device that launches kernels. Errors of queued work come up at the call or at a later synchronisation, as
/// on a card; each names the kernel.
pub trait Driver: Send {
    /// What this is.
    fn properties(&self) -> &Properties;

    /// Takes `bytes` of device memory, zero-filled, for the life of the driver: one call a region.
    fn map(&mut self, bytes: usize) -> Result<Address>;

    /// Bytes of inaccessible memory kept behind every tensor: a page on the emulator, 0 on a card.
    fn guard(&self) -> usize {
        0
    }

    /// A tensor was placed at `address` (in the order of the compute stream): the emulator makes its pages
    /// accessible and poisons them.
    fn open(&mut self, _address: Address, _bytes: usize) -> Result<()> {
        Ok(())
    }

    /// All tensors in this range were released (in the order of the compute stream).
    fn close(&mut self, _address: Address, _bytes: usize) -> Result<()> {
        Ok(())
    }

    /// Kernel `name` of `kernels/FILE.cu`, loaded once. Errors when there is none.
    fn kernel(&mut self, file: &'static str, name: &'static str) -> Result<Kernel>;

    /// Queues a launch; `params` are the bytes of the kernel's `Args`.
    fn launch(&mut self, stream: Stream, kernel: Kernel, launch: &Launch, params: &[u8]) -> Result<()>;

    /// Queues a copy from the host; `from` may be reused on return. Refused during capture.
    fn upload(&mut self, stream: Stream, to: Address, from: &[u8]) -> Result<()>;

    /// Copies to the host after all work of `stream`, and waits for it. Refused during capture.
    fn download(&mut self, stream: Stream, from: Address, to: &mut [u8]) -> Result<()>;

    /// Queues a copy inside the device.
    fn copy(&mut self, stream: Stream, to: Address, from: Address, bytes: usize) -> Result<()>;

    /// Queues setting every byte to `value`.
    fn fill(&mut self, stream: Stream, to: Address, value: u8, bytes: usize) -> Result<()>;

    /// Takes `bytes` of page-locked host memory for the life of the driver.
    fn pinned(&mut self, bytes: usize) -> Result<Pinned>;

    /// The bytes of a pinned buffer. The caller has waited for every copy that touches them.
    fn pinned_bytes(&mut self, buffer: Pinned) -> &mut [u8];

    /// Queues a copy into the first `bytes` of `to`, to be read after a synchronisation. Can be captured.
    fn download_pinned(&mut self, stream: Stream, from: Address, to: Pinned, bytes: usize) -> Result<()>;

    /// Another stream.
    fn stream(&mut self) -> Result<Stream>;

    /// Waits for all work of `stream`.
    fn synchronize(&mut self, stream: Stream) -> Result<()>;

    /// True when all work of `stream` is known to have run; waits for nothing, and knows nothing during a capture.
    fn is_idle(&mut self, stream: Stream) -> Result<bool>;

    /// The stream as a library knows it that queues work of its own behind what `stream` has. What no library can wait for,
    /// the emulator's work, has run.
    fn handle(&mut self, _stream: Stream) -> Result<usize> {
        Err(Error::Failed(format!("{} has no streams that a library could use", self.properties().name)))
    }

    /// Bytes of the device's memory that nobody has; none where there is no such number.
    fn free_memory(&mut self) -> Result<Option<u64>> {
        Ok(None)
    }

    /// Calls so far that made the host wait for queued work: [`Driver::synchronize`], [`Driver::download`] and
    /// [`Driver::elapsed_ms`].
    #[cfg_attr(private_tree, expect(dead_code, reason = "tests count how often a step makes the host wait"))]
    fn synchronizations(&self) -> u64;

    /// A new event.
    fn event(&mut self) -> Result<Event>;

    /// Records `event` behind the work of `stream`; `site` is the line that asks (see `record`).
    fn record_at(&mut self, event: Event, stream: Stream, site: &'static Location<'static>) -> Result<()>;

    /// Later work of `stream` waits for the last recording of `event`; `site` is the line that asks (see `wait`).
    fn wait_at(&mut self, stream: Stream, event: Event, site: &'static Location<'static>) -> Result<()>;

    /// Milliseconds between two recorded events; waits for the second.
    fn elapsed_ms(&mut self, from: Event, to: Event) -> Result<f32>;

    /// From here on the work of `stream` is captured, not run.
    fn begin_capture(&mut self, stream: Stream) -> Result<()>;

    /// Ends the capture.
    fn end_capture(&mut self, stream: Stream) -> Result<Graph>;

    /// Queues captured work.
    fn replay(&mut self, graph: Graph, stream: Stream) -> Result<()>;

    /// Forgets a graph; work of it that is queued still runs.
    fn drop_graph(&mut self, graph: Graph);

    /// True while somebody records ranges: a profiler around the program, or a test on the emulator.
    fn records_ranges(&self) -> bool;

    /// Opens a named range for profilers.
    fn range_push(&mut self, name: &str);

    /// Closes the innermost range.
    fn range_pop(&mut self);

    /// Hears what an op of the model costs, beside its launches.
    fn note_work(&mut self, _work: Work) {}

    /// Starts or stops a profiler's recording.
    fn profiler(&mut self, on: bool) -> Result<()>;

    /// Encodes a tensor map. Errors where the driver's rules are broken, naming the rule.
    fn tensor_map(&mut self, map: &TensorMap) -> Result<EncodedMap>;

    /// The driver itself, for tests that look into the emulator.
    fn as_any(&mut self) -> &mut dyn Any;
}

// A trait object's own methods forget their caller, and the emulator tells call sites apart.
impl dyn Driver + '_ {
    /// Records `event` behind the work of `stream`.
    #[track_caller]
    pub fn record(&mut self, event: Event, stream: Stream) -> Result<()> {
        self.record_at(event, stream, Location::caller())
    }

    /// Later work of `stream` waits for the last recording of `event`; for none when it was never recorded.
    #[track_caller]
    pub fn wait(&mut self, stream: Stream, event: Event) -> Result<()> {
        self.wait_at(stream, event, Location::caller())
    }
}

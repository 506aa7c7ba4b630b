//! The recording driver: a driver without a GPU that records the launches and computes nothing. `tools/roofline`
//! predicts speed from the record.

use std::any::Any;
use std::panic::Location;

use crate::device::driver::{
    Address, Driver, EncodedMap, Event, Graph, Kernel, Launch, Pinned, Properties, Stream, TensorMap,
};
use crate::device::images::{self, Arch, Built};
use crate::device::limits::{self, Declared, HOPPER};
use crate::device::memory::GUARD;
use crate::device::work::Work;
use omr_base::error::{Error, Result};

/// One recorded event.
#[derive(Clone, PartialEq, Debug)]
pub enum Entry {
    /// A launch: the kernel's name, the shape of the launch, and the innermost surrounding range.
    Launch(&'static str, Launch, String),
    /// Rows, columns and length of the sums of the product that the next launch computes, if it is a wgmma kernel.
    Product([usize; 3]),
    /// The number of bytes that are set to one value.
    Fill(usize),
    /// The cost of an op, as reported by the model.
    Work(Work),
}

/// The recording driver.
pub struct RecordingDriver {
    properties: Properties,
    next: Address,
    kernels: Vec<(&'static str, &'static str)>,
    pinned: Vec<Vec<u8>>,
    streams: u32,
    events: u32,
    ranges: Vec<String>,
    entries: Vec<Entry>,
    /// Number of entries when the current capture began.
    capture: Option<usize>,
    graphs: Vec<Vec<Entry>>,
}

impl RecordingDriver {
    /// Creates a driver for a GPU with these properties.
    pub fn new(properties: Properties) -> RecordingDriver {
        RecordingDriver {
            properties,
            next: GUARD as Address,
            kernels: Vec::new(),
            pinned: Vec::new(),
            streams: 0,
            events: 0,
            ranges: Vec::new(),
            entries: Vec::new(),
            capture: None,
            graphs: Vec::new(),
        }
    }

    /// Creates a driver for a GPU of compute capability 9.0 with the multiprocessors of an H100 and an H200.
    pub fn hopper(name: &str, memory: u64) -> RecordingDriver {
        RecordingDriver::new(HOPPER.properties(name, 132, memory))
    }

    /// Returns the entries recorded since the last call.
    pub fn take(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }
}

impl Driver for RecordingDriver {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn map(&mut self, bytes: usize) -> Result<Address> {
        let address = self.next;
        self.next += bytes.next_multiple_of(GUARD) as Address;
        Ok(address)
    }

    fn kernel(&mut self, file: &'static str, name: &'static str) -> Result<Kernel> {
        let known = self.kernels.iter().position(|&kernel| kernel == (file, name));
        let index = known.unwrap_or_else(|| {
            self.kernels.push((file, name));
            self.kernels.len() - 1
        });
        Ok(Kernel(index as u32))
    }

    fn launch(&mut self, _: Stream, kernel: Kernel, launch: &Launch, params: &[u8]) -> Result<()> {
        let (_, name) = self.kernels[kernel.0 as usize];
        let arch = self.properties.arch().unwrap_or(Arch::Sm80);
        if let Some(Built { args, threads, registers, .. }) = images::OWN.kernel(name, arch) {
            let declared = Declared { name, args: args as usize, threads, registers };
            limits::check(declared, launch, params.len(), &self.properties)?;
        }
        // The innermost range belongs to the kernel itself and has its name, so it is skipped.
        let range = self.ranges.iter().rev().find(|range| *range != name).cloned();
        self.entries.push(Entry::Launch(name, *launch, range.unwrap_or_default()));
        Ok(())
    }

    fn upload(&mut self, _: Stream, _: Address, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn download(&mut self, _: Stream, _: Address, to: &mut [u8]) -> Result<()> {
        to.fill(0);
        Ok(())
    }

    fn copy(&mut self, _: Stream, _: Address, _: Address, _: usize) -> Result<()> {
        Ok(())
    }

    fn fill(&mut self, _: Stream, _: Address, _: u8, bytes: usize) -> Result<()> {
        self.entries.push(Entry::Fill(bytes));
        Ok(())
    }

    fn pinned(&mut self, bytes: usize) -> Result<Pinned> {
        self.pinned.push(vec![0; bytes]);
        Ok(Pinned(self.pinned.len() as u32 - 1))
    }

    fn pinned_bytes(&mut self, buffer: Pinned) -> &mut [u8] {
        &mut self.pinned[buffer.0 as usize]
    }

    fn download_pinned(&mut self, _: Stream, _: Address, _: Pinned, _: usize) -> Result<()> {
        Ok(())
    }

    fn stream(&mut self) -> Result<Stream> {
        self.streams += 1;
        Ok(Stream(self.streams))
    }

    fn synchronize(&mut self, _: Stream) -> Result<()> {
        Ok(())
    }

    fn is_idle(&mut self, _: Stream) -> Result<bool> {
        Ok(true)
    }

    fn synchronizations(&self) -> u64 {
        0
    }

    fn event(&mut self) -> Result<Event> {
        self.events += 1;
        Ok(Event(self.events - 1))
    }

    fn record_at(&mut self, _: Event, _: Stream, _: &'static Location<'static>) -> Result<()> {
        Ok(())
    }

    fn wait_at(&mut self, _: Stream, _: Event, _: &'static Location<'static>) -> Result<()> {
        Ok(())
    }

    fn elapsed_ms(&mut self, _: Event, _: Event) -> Result<f32> {
        Err(Error::Failed("a time measurement without a GPU".into()))
    }

    fn begin_capture(&mut self, _: Stream) -> Result<()> {
        self.capture = Some(self.entries.len());
        Ok(())
    }

    fn end_capture(&mut self, _: Stream) -> Result<Graph> {
        let begun =
            self.capture.take().ok_or_else(|| Error::Failed("the end of a capture that was not started".into()))?;
        self.graphs.push(self.entries.split_off(begun));
        Ok(Graph(self.graphs.len() as u32 - 1))
    }

    fn replay(&mut self, graph: Graph, _: Stream) -> Result<()> {
        self.entries.extend_from_slice(&self.graphs[graph.0 as usize]);
        Ok(())
    }

    fn drop_graph(&mut self, graph: Graph) {
        self.graphs[graph.0 as usize].clear();
    }

    fn records_ranges(&self) -> bool {
        true
    }

    fn range_push(&mut self, name: &str) {
        self.ranges.push(name.to_owned());
    }

    fn range_pop(&mut self) {
        self.ranges.pop();
    }

    fn note_work(&mut self, work: Work) {
        self.entries.push(Entry::Work(work));
    }

    fn note_product(&mut self, product: [usize; 3]) {
        self.entries.push(Entry::Product(product));
    }

    fn profiler(&mut self, _: bool) -> Result<()> {
        Ok(())
    }

    fn tensor_map(&mut self, _: &TensorMap) -> Result<EncodedMap> {
        Ok(EncodedMap([0; 16]))
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

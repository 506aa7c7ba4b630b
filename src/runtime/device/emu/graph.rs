//! Work that is queued on streams, and captured work (graphs).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::device::driver::{Address, Event, Graph, Kernel, Launch, Pinned, Stream};
use omr_base::error::{Error, Result};

/// Identifier of one recording of an event.
pub type Ticket = u64;

/// A part of a kernel's `Args`, with an alignment that is sufficient for any argument (a tensor map requires 64).
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(128))]
struct Line([u8; 128]);

/// Parameters of a launch, as they were at the call.
#[derive(Clone)]
pub struct LaunchBytes {
    lines: Vec<Line>,
    bytes: usize,
}

impl LaunchBytes {
    /// Copies `bytes`.
    pub fn new(bytes: &[u8]) -> LaunchBytes {
        // There is at least one line, because a kernel without parameters still receives an address.
        let mut lines = vec![Line([0; 128]); bytes.len().div_ceil(128).max(1)];
        bytemuck::cast_slice_mut(&mut lines)[..bytes.len()].copy_from_slice(bytes);
        LaunchBytes { lines, bytes: bytes.len() }
    }

    /// Returns the bytes, aligned to 128.
    pub fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.lines)[..self.bytes]
    }
}

/// One unit of queued work.
#[derive(Clone)]
pub enum Op {
    /// Launch of a kernel.
    Launch(Kernel, Launch, LaunchBytes),
    /// Upload of bytes that were copied from the host at the call.
    Upload(Address, Vec<u8>),
    /// Download into a pinned buffer: source, buffer, bytes.
    DownloadPinned(Address, Pinned, usize),
    /// Copy: destination, source, bytes.
    Copy(Address, Address, usize),
    /// Fill: destination, value, bytes.
    Fill(Address, u8, usize),
    /// Start of a tensor's lifetime: address, bytes.
    Open(Address, usize),
    /// End of the lifetime of all tensors in the range: address, bytes.
    Close(Address, usize),
    /// Recording of an event.
    Record(Event, Ticket),
    /// Wait: the work that follows waits for this recording.
    Wait(Ticket),
    /// Replay of captured work.
    Replay(Graph),
}

/// Queues of the work that the streams have not run yet.
#[derive(Default)]
pub struct Queues {
    streams: Vec<VecDeque<Op>>,
    pending: BTreeSet<Ticket>,
}

impl Queues {
    /// Adds a stream.
    pub fn add(&mut self) -> Stream {
        self.streams.push(VecDeque::new());
        Stream(self.streams.len() as u32 - 1)
    }

    /// Returns true if the stream exists.
    pub fn has(&self, stream: Stream) -> bool {
        (stream.0 as usize) < self.streams.len()
    }

    /// Returns all streams.
    pub fn streams(&self) -> impl Iterator<Item = Stream> + use<> {
        (0..self.streams.len() as u32).map(Stream)
    }

    /// Appends work to a stream.
    pub fn push(&mut self, stream: Stream, op: Op) {
        if let Op::Record(_, ticket) = op {
            self.pending.insert(ticket);
        }
        self.streams[stream.0 as usize].push_back(op);
    }

    /// Returns true if the stream has no work left.
    pub fn is_empty(&self, stream: Stream) -> bool {
        self.streams[stream.0 as usize].is_empty()
    }

    /// Returns the recording that the stream's next work waits for, or `None` if that work can run.
    pub fn blocked_on(&self, stream: Stream) -> Option<Ticket> {
        match self.streams[stream.0 as usize].front() {
            Some(Op::Wait(ticket)) if self.pending.contains(ticket) => Some(*ticket),
            _ => None,
        }
    }

    /// Returns the stream whose queue contains a recording.
    pub fn recorder(&self, ticket: Ticket) -> Option<Stream> {
        let holds = |ops: &VecDeque<Op>| ops.iter().any(|op| matches!(op, Op::Record(_, t) if *t == ticket));
        self.streams.iter().position(holds).map(|i| Stream(i as u32))
    }

    /// Removes and returns the stream's next work.
    pub fn pop(&mut self, stream: Stream) -> Option<Op> {
        let op = self.streams[stream.0 as usize].pop_front();
        if let Some(Op::Record(_, ticket)) = &op {
            self.pending.remove(ticket);
        }
        op
    }

    /// Returns true if the recording has not happened yet.
    pub fn is_pending(&self, ticket: Ticket) -> bool {
        self.pending.contains(&ticket)
    }

    /// Returns the streams whose next work can run.
    pub fn ready(&self) -> Vec<Stream> {
        self.streams().filter(|s| !self.is_empty(*s) && self.blocked_on(*s).is_none()).collect()
    }

    /// Removes all work, after an error.
    pub fn clear(&mut self) {
        self.streams.iter_mut().for_each(VecDeque::clear);
        self.pending.clear();
    }
}

/// Per stream, how many of its operations are known to be complete.
type Clock = BTreeMap<u32, usize>;

fn merge(into: &mut Clock, other: &Clock) {
    for (stream, count) in other {
        let mine = into.entry(*stream).or_default();
        *mine = (*mine).max(*count);
    }
}

/// A capture in progress.
pub struct Capture {
    origin: Stream,
    ops: Vec<(Stream, Op)>,
    seen: BTreeMap<u32, Clock>,
    records: BTreeMap<Ticket, Clock>,
    refused: Option<String>,
}

impl Capture {
    /// Begins a capture of the work of `origin` and of the streams that wait for it later.
    pub fn new(origin: Stream) -> Capture {
        Capture {
            origin,
            ops: Vec::new(),
            seen: BTreeMap::from([(origin.0, Clock::new())]),
            records: BTreeMap::new(),
            refused: None,
        }
    }

    /// Returns true if the work of `stream` is captured.
    pub fn has(&self, stream: Stream) -> bool {
        self.seen.contains_key(&stream.0)
    }

    /// Returns true if this recording was captured.
    pub fn recorded(&self, ticket: Ticket) -> bool {
        self.records.contains_key(&ticket)
    }

    /// Records that `call` cannot be captured and returns the error. The capture becomes invalid, as on a real GPU.
    pub fn refuse(&mut self, call: &str) -> Error {
        let text = format!("{call} during a capture");
        self.refused.get_or_insert_with(|| text.clone());
        Error::Failed(text)
    }

    /// Captures work.
    pub fn push(&mut self, stream: Stream, op: Op) {
        let clock = self.seen.entry(stream.0).or_default();
        if let Op::Wait(ticket) = op
            && let Some(at) = self.records.get(&ticket)
        {
            merge(clock, at);
        }
        *clock.entry(stream.0).or_default() += 1;
        if let Op::Record(_, ticket) = op {
            self.records.insert(ticket, clock.clone());
        }
        self.ops.push((stream, op));
    }

    /// Ends the capture on `stream` and returns the work. Errors if the capture began on another stream, a call
    /// invalidated it, or the work of a stream was not waited for.
    pub fn end(self, stream: Stream) -> Result<Vec<(Stream, Op)>> {
        if stream != self.origin {
            return Err(Error::Failed("a capture must end on the stream that it began on".into()));
        }
        if let Some(call) = self.refused {
            return Err(Error::Failed(format!("the capture is invalid because of {call}")));
        }
        let known = &self.seen[&self.origin.0];
        for (stream, clock) in &self.seen {
            if known.get(stream).copied().unwrap_or(0) < clock.get(stream).copied().unwrap_or(0) {
                return Err(Error::Failed(format!("the capture ends without waiting for stream {stream}")));
            }
        }
        Ok(self.ops)
    }
}

/// Returns captured work in an order that respects the order within each stream and every wait. If several streams can
/// continue, `choose` returns the index of one of them (they are in ascending order).
pub fn order(captured: &[(Stream, Op)], mut choose: impl FnMut(usize) -> usize) -> Vec<Op> {
    let mut queues = Queues::default();
    for (stream, op) in captured {
        while !queues.has(*stream) {
            queues.add();
        }
        queues.push(*stream, op.clone());
    }
    let mut order = Vec::with_capacity(captured.len());
    loop {
        let ready = queues.ready();
        // Every wait was captured after its recording, so some stream is ready until all work is done.
        if ready.is_empty() {
            return order;
        }
        order.extend(queues.pop(ready[choose(ready.len())]));
    }
}

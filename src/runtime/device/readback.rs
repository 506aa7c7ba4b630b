//! Reads tensors back to the host in parallel with the compute stream, through two pinned buffers. The receiver of a
//! channel gets the bytes and writes them to disk.
//!
//! The host forwards the bytes that have arrived whenever it queues work ([`Readback::poll`]), so no launch waits for a
//! copy or for the disk. [`Readback::finish`] waits for the copies, but not for the disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::device::driver::{Address, Driver, Event, Pinned, Stream};
use omr_base::error::{Error, Result};

/// Bytes of a pinned buffer: 0.3 ms of a PCIe 5 bus, so neither the calls nor the forwarding of a chunk limit the
/// copies.
const PIECE: usize = 16 << 20;

/// Maximum bytes that wait in host memory for a slow disk while [`Readback::poll`] forwards chunks.
/// [`Readback::finish`] has no such limit.
const BEHIND: usize = 256 << 20;

/// Maximum host memory that reading uses, without the tensor that the receiver assembles: both buffers, the bytes that
/// wait for the disk, and one chunk in transit.
pub const HOST_BYTES: usize = 3 * PIECE + BEHIND;

/// Sending end of a readback.
pub struct ReadbackSender {
    sender: Sender<Vec<u8>>,
    behind: Arc<AtomicUsize>,
}

/// Receiving end of a readback. The bytes arrive in the order in which they are read.
pub struct ReadbackReceiver {
    receiver: Receiver<Vec<u8>>,
    behind: Arc<AtomicUsize>,
    rest: Vec<u8>,
}

/// Creates the two ends of a readback.
pub fn ends() -> (ReadbackSender, ReadbackReceiver) {
    let (sender, receiver) = channel();
    let behind = Arc::new(AtomicUsize::new(0));
    (ReadbackSender { sender, behind: behind.clone() }, ReadbackReceiver { receiver, behind, rest: Vec::new() })
}

impl ReadbackReceiver {
    /// Returns the next `bytes` bytes. Errors if the device stopped reading before.
    pub fn take(&mut self, bytes: usize) -> Result<Vec<u8>> {
        while self.rest.len() < bytes {
            let piece = self.receiver.recv().map_err(|_| Error::Failed("the device stopped reading".to_owned()))?;
            self.behind.fetch_sub(piece.len(), Ordering::Relaxed);
            if self.rest.is_empty() {
                self.rest = piece;
            } else {
                self.rest.reserve_exact(bytes - self.rest.len() + piece.len());
                self.rest.extend_from_slice(&piece);
            }
        }
        let rest = self.rest.split_off(bytes);
        Ok(std::mem::replace(&mut self.rest, rest))
    }
}

/// A pinned buffer and the stream that fills it. Each buffer has its own stream, so waiting for the copy into one
/// buffer does not wait for the copy into the other.
struct Lane {
    stream: Stream,
    buffer: Pinned,
    /// Bytes of the last queued copy, until they are forwarded.
    filled: Option<usize>,
}

/// The state of a readback: its streams, buffers and remaining work.
pub struct Readback {
    /// Event on the compute stream at the start. The copies read the memory as it was at that point.
    begun: Event,
    lanes: [Lane; 2],
    /// Chunks that no copy is queued for yet.
    queue: VecDeque<(Address, usize)>,
    /// Counter that selects the lane to forward next. The lanes alternate, so the bytes stay in order.
    turn: usize,
    sink: Option<ReadbackSender>,
    /// Error from [`Readback::poll`], which cannot return one.
    fault: Option<Error>,
}

impl Readback {
    /// Allocates an event, two streams and two buffers for the lifetime of the driver.
    pub fn new(driver: &mut dyn Driver) -> Result<Readback> {
        let mut lane =
            || -> Result<Lane> { Ok(Lane { stream: driver.stream()?, buffer: driver.pinned(PIECE)?, filled: None }) };
        let lanes = [lane()?, lane()?];
        Ok(Readback { begun: driver.event()?, lanes, queue: VecDeque::new(), turn: 0, sink: None, fault: None })
    }

    /// Begins to read `pieces` as they are after the work queued so far. Their bytes are sent to `sink` in order, as
    /// messages of unspecified sizes. Nothing may write to the pieces before [`Readback::finish`].
    pub fn begin(
        &mut self,
        driver: &mut dyn Driver,
        pieces: impl Iterator<Item = (Address, usize)>,
        sink: ReadbackSender,
    ) -> Result<()> {
        self.finish(driver)?;
        for (address, bytes) in pieces {
            self.queue.extend((0..bytes).step_by(PIECE).map(|at| (address + at as Address, PIECE.min(bytes - at))));
        }
        (self.sink, self.turn) = (Some(sink), 0);
        driver.record(self.begun, Stream::COMPUTE)?;
        for lane in &mut self.lanes {
            driver.wait(lane.stream, self.begun)?;
            lane.fill(driver, &mut self.queue)?;
        }
        Ok(())
    }

    /// Forwards the next chunk if it has arrived and begins to read another. Does not wait. Errors are reported by
    /// [`Readback::finish`].
    pub fn poll(&mut self, driver: &mut dyn Driver) {
        let Some(sink) = &self.sink else { return };
        let lane = &self.lanes[self.turn % 2];
        if lane.filled.is_some() && sink.behind.load(Ordering::Relaxed) < BEHIND && self.fault.is_none() {
            let arrived = driver.is_idle(lane.stream);
            let handed = arrived.and_then(|arrived| if arrived { self.hand_over(driver) } else { Ok(()) });
            self.fault = handed.err();
        }
    }

    /// Waits until everything is read and forwarded. If the receiver was dropped, the remaining bytes are not read.
    pub fn finish(&mut self, driver: &mut dyn Driver) -> Result<()> {
        if let Some(fault) = self.fault.take() {
            self.sink = None;
            return Err(fault);
        }
        while self.sink.is_some() && self.lanes[self.turn % 2].filled.is_some() {
            driver.synchronize(self.lanes[self.turn % 2].stream)?;
            self.hand_over(driver)?;
        }
        self.sink = None;
        Ok(())
    }

    /// Forwards the chunk of the lane that is next. The chunk must have arrived.
    fn hand_over(&mut self, driver: &mut dyn Driver) -> Result<()> {
        let lane = &mut self.lanes[self.turn % 2];
        let (Some(bytes), Some(sink)) = (lane.filled.take(), &self.sink) else { return Ok(()) };
        let piece = driver.pinned_bytes(lane.buffer)[..bytes].to_vec();
        self.turn += 1;
        lane.fill(driver, &mut self.queue)?;
        sink.behind.fetch_add(bytes, Ordering::Relaxed);
        if sink.sender.send(piece).is_err() {
            self.queue.clear();
        } else if self.queue.is_empty() && self.lanes.iter().all(|lane| lane.filled.is_none()) {
            // Dropping the sink now ends the channel, so the writer need not wait for the next update to see the end of
            // the data.
            self.sink = None;
        }
        Ok(())
    }
}

impl Lane {
    fn fill(&mut self, driver: &mut dyn Driver, queue: &mut VecDeque<(Address, usize)>) -> Result<()> {
        if let Some((from, bytes)) = queue.pop_front() {
            driver.download_pinned(self.stream, from, self.buffer, bytes)?;
            self.filled = Some(bytes);
        }
        Ok(())
    }
}

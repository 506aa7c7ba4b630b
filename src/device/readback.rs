//! Reading tensors back beside the work of the compute stream, through two pinned buffers, for whoever takes the bytes
//! from a channel and writes them to disk. The host hands over what has arrived where it queues work ([`Readback::poll`]),
//! so no launch waits for a copy or for the disk; [`Readback::finish`] waits for the copies, and for the disk neither.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::device::driver::{Address, Driver, Event, Pinned, Stream};
use crate::error::{Error, Result};

/// Bytes of a pinned buffer: 0.3 ms of a PCIe 5 bus, so that neither calls nor the hand-over of a piece bound the copies.
const PIECE: usize = 16 << 20;

/// Bytes that lie in host memory for a disk that is slower than the bus, while nobody waits for the copies.
const BEHIND: usize = 256 << 20;

/// Host memory that reading takes at most, the tensor apart that is being put together: both buffers, what lies there for
/// the disk, and a piece on its way.
pub const HOST_BYTES: usize = 3 * PIECE + BEHIND;

/// Where bytes are handed over.
pub struct Sink {
    sender: Sender<Vec<u8>>,
    behind: Arc<AtomicUsize>,
}

/// Where they arrive, in the order they are read.
pub struct Arriving {
    receiver: Receiver<Vec<u8>>,
    behind: Arc<AtomicUsize>,
    rest: Vec<u8>,
}

/// The two ends of a readback.
pub fn ends() -> (Sink, Arriving) {
    let (sender, receiver) = channel();
    let behind = Arc::new(AtomicUsize::new(0));
    (Sink { sender, behind: behind.clone() }, Arriving { receiver, behind, rest: Vec::new() })
}

impl Arriving {
    /// The next `bytes` bytes. Errors when the device stopped reading before.
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

/// A pinned buffer with the stream that fills it: waiting for one copy does not wait for the other's.
struct Lane {
    stream: Stream,
    buffer: Pinned,
    /// Bytes of the copy that was queued last, until they are handed over.
    filled: Option<usize>,
}

/// What is being read, and what it is read with.
pub struct Readback {
    /// Recorded on the compute stream: what is read is the memory as it was then.
    begun: Event,
    lanes: [Lane; 2],
    /// Pieces that no copy is queued for yet.
    queue: VecDeque<(Address, usize)>,
    /// Whose bytes are handed over next: the lanes take turns, so that the bytes stay in order.
    turn: usize,
    sink: Option<Sink>,
    /// What went wrong where nobody could be told.
    fault: Option<Error>,
}

impl Readback {
    /// Takes an event, two streams and two buffers for the life of the driver.
    pub fn new(driver: &mut dyn Driver) -> Result<Readback> {
        let mut lane =
            || -> Result<Lane> { Ok(Lane { stream: driver.stream()?, buffer: driver.pinned(PIECE)?, filled: None }) };
        let lanes = [lane()?, lane()?];
        Ok(Readback { begun: driver.event()?, lanes, queue: VecDeque::new(), turn: 0, sink: None, fault: None })
    }

    /// Begins to read `pieces` as they are after the work queued so far; their bytes go into `sink` in order, cut into
    /// messages nobody may rely on. Nothing may write to them before [`Readback::finish`].
    pub fn begin(
        &mut self,
        driver: &mut dyn Driver,
        pieces: impl Iterator<Item = (Address, usize)>,
        sink: Sink,
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

    /// Hands over the next piece if it has arrived, and begins to read another; waits for nothing. An error is told by
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

    /// Waits until everything is read and handed over. When the receiver is gone the rest is left out.
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

    /// Hands over what the lane has whose turn it is, and which has arrived.
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
            // Whoever writes need not wait for the next update to know that this was all.
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

//! Reading tensors back beside the work of the compute stream, through two pinned buffers, for whoever takes the bytes
//! from a channel and writes them to disk. Launches only queue work: the host is free while a step computes, so it feeds
//! the copies where it would otherwise wait, in [`Readback::finish`].

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;

use crate::device::driver::{Address, Driver, Event, Pinned, Stream};
use crate::error::Result;

/// Bytes of a pinned buffer: 0.3 ms of a PCIe 5 bus, so that neither calls nor the hand-over of a piece bound the copies.
const PIECE: usize = 16 << 20;

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
    sink: Option<SyncSender<Vec<u8>>>,
}

impl Readback {
    /// Takes an event, two streams and two buffers for the life of the driver.
    pub fn new(driver: &mut dyn Driver) -> Result<Readback> {
        let mut lane =
            || -> Result<Lane> { Ok(Lane { stream: driver.stream()?, buffer: driver.pinned(PIECE)?, filled: None }) };
        let lanes = [lane()?, lane()?];
        Ok(Readback { begun: driver.event()?, lanes, queue: VecDeque::new(), sink: None })
    }

    /// Begins to read `pieces` as they are after the work queued so far; their bytes go into `sink` in order, cut into
    /// messages nobody may rely on. Nothing may write to them before [`Readback::finish`].
    pub fn begin(
        &mut self,
        driver: &mut dyn Driver,
        pieces: impl Iterator<Item = (Address, usize)>,
        sink: SyncSender<Vec<u8>>,
    ) -> Result<()> {
        self.finish(driver)?;
        for (address, bytes) in pieces {
            self.queue.extend((0..bytes).step_by(PIECE).map(|at| (address + at as Address, PIECE.min(bytes - at))));
        }
        self.sink = Some(sink);
        driver.record(self.begun, Stream::COMPUTE)?;
        for lane in &mut self.lanes {
            driver.wait(lane.stream, self.begun)?;
            lane.fill(driver, &mut self.queue)?;
        }
        Ok(())
    }

    /// Waits until everything is read and handed over. When the receiver is gone the rest is left out.
    pub fn finish(&mut self, driver: &mut dyn Driver) -> Result<()> {
        let Some(sink) = self.sink.take() else { return Ok(()) };
        // The lanes take turns, so that the bytes arrive in order.
        for turn in 0.. {
            let lane = &mut self.lanes[turn % 2];
            let Some(bytes) = lane.filled.take() else { break };
            driver.synchronize(lane.stream)?;
            let piece = driver.pinned_bytes(lane.buffer)[..bytes].to_vec();
            lane.fill(driver, &mut self.queue)?;
            if sink.send(piece).is_err() {
                self.queue.clear();
            }
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

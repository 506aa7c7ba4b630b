//! The side stream of a GPU, for work that runs beside the work of the compute stream: the exchange of gradients while
//! backward continues.

use super::driver::{Driver, Event, Stream};
use omr_base::error::Result;

/// A second stream, and the events that order it with the compute stream.
#[derive(Clone, Copy)]
pub struct SideStream {
    /// The stream.
    pub stream: Stream,
    /// Event on the compute stream. Work of the side stream runs after it.
    begun: Event,
    /// Event on the side stream after its last work.
    done: Event,
}

impl SideStream {
    /// Creates the stream and its events, for the lifetime of the driver.
    pub fn new(driver: &mut dyn Driver) -> Result<SideStream> {
        Ok(SideStream { stream: driver.stream()?, begun: driver.event()?, done: driver.event()? })
    }

    /// Makes later work of the side stream wait for the work of the compute stream that is queued so far.
    pub fn begin(self, driver: &mut dyn Driver) -> Result<()> {
        driver.record(self.begun, Stream::COMPUTE)?;
        driver.wait(self.stream, self.begun)
    }

    /// Marks the end of the work that [`SideStream::join`] waits for.
    pub fn end(self, driver: &mut dyn Driver) -> Result<()> {
        driver.record(self.done, self.stream)
    }

    /// Makes later work of the compute stream wait for the work of the side stream. Does not wait on the host.
    pub fn join(self, driver: &mut dyn Driver) -> Result<()> {
        driver.wait(Stream::COMPUTE, self.done)
    }
}

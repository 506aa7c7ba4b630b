//! Keeps a bounded number of requests in flight.

use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::observe::Observer;

/// Interval for checking whether the user requested a stop while nothing arrives.
const LOOK: Duration = Duration::from_millis(100);

/// Requests in flight. Their results are handled one at a time, in the order in which they arrive. The requests that are
/// still in flight are cancelled when this value is dropped.
pub struct InFlight<'a, T: 'static, F> {
    runtime: &'a Handle,
    observer: &'a dyn Observer,
    most: usize,
    requests: JoinSet<T>,
    /// Handles a result.
    pub take: F,
}

impl<'a, T: Send + 'static, F: FnMut(T) -> Result<()>> InFlight<'a, T, F> {
    /// Keeps at most `most` requests in flight and passes their results to `take`.
    pub fn new(runtime: &'a Handle, observer: &'a dyn Observer, most: usize, take: F) -> InFlight<'a, T, F> {
        InFlight { runtime, observer, most, requests: JoinSet::new(), take }
    }

    /// Sends a request as soon as fewer than the maximum are in flight. Returns errors of `take`, and
    /// [`Error::Stopped`] if the user requests a stop while it waits.
    pub fn send(&mut self, request: impl Future<Output = T> + Send + 'static) -> Result<()> {
        while self.requests.len() >= self.most {
            self.receive()?;
        }
        self.requests.spawn_on(request, self.runtime);
        Ok(())
    }

    /// Waits for the remaining requests.
    pub fn finish(&mut self) -> Result<()> {
        while !self.requests.is_empty() {
            self.receive()?;
        }
        Ok(())
    }

    /// Waits for one request. Checks at intervals whether the user requests a stop.
    fn receive(&mut self) -> Result<()> {
        loop {
            self.observer.check_stop()?;
            let next = async { tokio::time::timeout(LOOK, self.requests.join_next()).await };
            if let Ok(ended) = self.runtime.block_on(next) {
                let failed = |error| Error::Failed(format!("a request failed: {error}"));
                return ended.map_or(Ok(()), |ended| (self.take)(ended.map_err(failed)?));
            }
        }
    }
}

impl<T: 'static, F> Drop for InFlight<'_, T, F> {
    fn drop(&mut self) {
        // Requests in flight must release what they share with the caller before this function returns.
        self.runtime.block_on(self.requests.shutdown());
    }
}

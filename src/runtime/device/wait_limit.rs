//! A limit for the time that the host waits for a GPU. Such a wait cannot be interrupted.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

/// A limit for each wait.
#[derive(Clone)]
pub struct WaitLimit {
    /// The limit.
    pub limit: Duration,
    /// Function that is called if a wait exceeds the limit, on another thread: the waiting one is blocked in the driver.
    pub expire: Arc<dyn Fn() + Send + Sync>,
}

impl WaitLimit {
    /// Begins a wait, which ends when the returned value is dropped.
    pub fn begin(&self) -> Sender<()> {
        let (ended, receiver) = mpsc::channel();
        let WaitLimit { limit, expire } = self.clone();
        std::thread::spawn(move || {
            if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                expire();
            }
        });
        ended
    }
}

//! Work on many items in threads, without Python's lock.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

/// Time after which Python's signals are looked at.
const SIGNALS: Duration = Duration::from_millis(50);

/// Returns the results of all items in order. The threads end with this call, so a fork afterwards loses none.
/// `KeyboardInterrupt` ends the work after the items that are in progress.
pub fn map<T: Sync, R: Send>(
    py: Python,
    items: &[T],
    threads: Option<usize>,
    each: impl Fn(&T) -> R + Sync,
) -> PyResult<Vec<R>> {
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (next, each) = (&AtomicUsize::new(0), &each);
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    py.detach(|| {
        std::thread::scope(|scope| {
            let (send, done) = mpsc::channel();
            for _ in 0..threads.clamp(1, items.len().max(1)) {
                let send = send.clone();
                scope.spawn(move || {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        let Some(item) = items.get(i) else { break };
                        // Nobody receives after an interrupt.
                        if send.send((i, each(item))).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(send);
            let mut looked = Instant::now();
            loop {
                match done.recv_timeout(SIGNALS) {
                    Ok((i, result)) => results[i] = Some(result),
                    Err(RecvTimeoutError::Disconnected) => return PyResult::Ok(()),
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if looked.elapsed() >= SIGNALS {
                    Python::attach(|py| py.check_signals())?;
                    looked = Instant::now();
                }
            }
        })
    })?;
    Ok(results.into_iter().flatten().collect())
}

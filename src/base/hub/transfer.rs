//! Runs the transfers of a job, several at once, and reports their progress.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::observe::Observer;

/// Interval for checking whether the user requested a stop, and for reporting progress.
const LOOK: Duration = Duration::from_millis(200);

/// Number of bytes of the unit in which progress is reported.
pub(super) const MEGABYTE: u64 = 1_000_000;

/// Runs `transfers`, at most `workers` at once. They count their bytes in `moved`. After an error, the others are
/// cancelled.
pub(super) async fn run<F: Future<Output = Result<()>> + Send + 'static>(
    transfers: impl IntoIterator<Item = F>,
    workers: usize,
    moved: &AtomicU64,
    observer: &dyn Observer,
) -> Result<()> {
    let (mut transfers, mut running) = (transfers.into_iter(), JoinSet::new());
    loop {
        while running.len() < workers.max(1)
            && let Some(transfer) = transfers.next()
        {
            running.spawn(transfer);
        }
        match tokio::time::timeout(LOOK, running.join_next()).await {
            Ok(Some(Ok(result))) => result?,
            Ok(Some(Err(panic))) => return Err(Error::Failed(format!("a transfer ended early: {panic}"))),
            Ok(None) => break,
            Err(_) => {}
        }
        observer.check_stop()?;
        observer.step(moved.load(Relaxed) / MEGABYTE, &[]);
    }
    observer.end();
    Ok(())
}

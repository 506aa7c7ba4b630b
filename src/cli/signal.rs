//! Ctrl-C, SIGTERM and a closed terminal: the first asks the job to stop after a checkpoint, the second ends the
//! process.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Installs the handlers; a second call does nothing.
pub fn install() -> std::io::Result<()> {
    let mut result = Ok(());
    STOP.get_or_init(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let hangup = (!ignores_hangup()).then_some(SIGHUP);
        result = [SIGINT, SIGTERM].into_iter().chain(hangup).try_for_each(|signal| {
            // In this order: the shutdown only sees a flag that an earlier signal has set.
            flag::register_conditional_shutdown(signal, 130, stop.clone())?;
            flag::register(signal, stop.clone()).map(drop)
        });
        stop
    });
    result
}

/// True when whoever started the process asked it to outlive its terminal (`nohup`), or the system does not say.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// From here on the first signal ends the process: for commands that have nothing to save.
pub fn end_at_once() {
    if let Some(stop) = STOP.get() {
        stop.store(true, Ordering::Relaxed);
    }
}

/// True once a signal has asked the process to stop.
pub fn stop_requested() -> bool {
    STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed))
}

//! Signals: Ctrl-C, SIGTERM, a closed terminal, and SIGUSR1 and SIGUSR2, which batch systems send before a preemption.
//!
//! - The first signal requests a stop and prints a message at once. Further signals are the same request, because launchers
//!   such as `srun torchrun` deliver a signal several times. Only a second SIGINT, at least two seconds after the first
//!   one, ends the process at once: a person has pressed Ctrl-C again.
//! - If the running work does not check for stop requests, the first signal ends the process.
//! - If the work checks for stop requests but has nothing to save, it has two seconds to end. Files on disk are
//!   complete at any time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::{flag, low_level};

/// Stop request, set by a signal here or on another rank.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static LISTENS: AtomicBool = AtomicBool::new(false);
static WAITS: AtomicBool = AtomicBool::new(false);

/// True once this process has received a signal, and once the signal was answered.
static SIGNALLED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Time that work with nothing to save has to end by itself. It may be waiting for a request or a judge.
const GRACE: Duration = Duration::from_secs(2);

/// Time after the first SIGINT from which another one ends the process at once.
const AGAIN: Duration = Duration::from_secs(2);

/// Installs the handlers. Further calls do nothing. The first signal calls `answer` with true if the work checks for
/// stop requests, and with false if the process ends.
pub fn install(answer: impl Fn(bool) + Send + 'static) -> std::io::Result<()> {
    let mut result = Ok(());
    STOP.get_or_init(|| {
        let stop = Arc::new(AtomicBool::new(false));
        result = handle(&stop, answer);
        stop
    });
    result
}

fn handle(stop: &Arc<AtomicBool>, answer: impl Fn(bool) + Send + 'static) -> std::io::Result<()> {
    let hangup = (!ignores_hangup()).then_some(SIGHUP);
    let signalled = SIGNALLED.get_or_init(Arc::default).clone();
    let handled: Vec<i32> = [SIGINT, SIGTERM, SIGUSR1, SIGUSR2].into_iter().chain(hangup).collect();
    for &signal in &handled {
        flag::register(signal, signalled.clone())?;
        flag::register(signal, stop.clone())?;
    }
    let (mut signals, mut interrupted) = (Signals::new(&handled)?, None);
    let (sender, first) = mpsc::channel();
    let listen = move || {
        for signal in signals.forever() {
            let _ = sender.send(());
            let is_again = signal == SIGINT && interrupted.get_or_insert_with(Instant::now).elapsed() >= AGAIN;
            if is_again {
                low_level::exit(130);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen)?;
    // `answer` runs on its own thread, because a signal can arrive at any point of the work.
    let wait = move || {
        if first.recv().is_err() {
            return;
        }
        let (listens, waits) = (LISTENS.load(Ordering::Relaxed), WAITS.load(Ordering::Relaxed));
        if listens {
            answer(true);
            ANSWERED.store(true, Ordering::Release);
            if waits {
                return;
            }
            std::thread::sleep(GRACE);
        }
        answer(false);
        low_level::exit(130);
    };
    std::thread::Builder::new().name("answer".to_owned()).spawn(wait).map(drop)
}

/// True if the parent started the process with SIGHUP ignored (`nohup`), or if this is unknown.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// Sets whether the running work checks for stop requests.
pub fn listen(listens: bool) {
    set(&LISTENS, listens);
}

/// Sets a flag. After a stop request a flag can no longer be cleared, because the work is still saving its state.
fn set(flag: &AtomicBool, value: bool) {
    if value || !stop_requested() {
        flag.store(value, Ordering::Relaxed);
    }
}

/// Waits, for at most a second, until the line that confirms a received signal is printed. Without this wait, work that
/// stops quickly could end the process before the line.
pub fn answered() {
    let is_open =
        || SIGNALLED.get().is_some_and(|came| came.load(Ordering::Relaxed)) && !ANSWERED.load(Ordering::Acquire);
    let deadline = Instant::now() + Duration::from_secs(1);
    while is_open() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Sets whether the process waits for the running work after a stop request.
pub fn wait(waits: bool) {
    set(&WAITS, waits);
}

/// Ends the process at once, without waiting for other threads.
pub fn exit(status: u8) -> ! {
    low_level::exit(status.into())
}

/// Returns the flag that is set once a signal, here or on another rank, requests a stop.
pub fn requested() -> Option<Arc<AtomicBool>> {
    STOP.get().cloned()
}

/// True once a signal has requested a stop.
pub fn stop_requested() -> bool {
    STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed))
}

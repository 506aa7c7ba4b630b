//! Ctrl-C, SIGTERM, a closed terminal, and SIGUSR1 and SIGUSR2, which batch systems send ahead of a preemption: the first asks
//! the work under way to stop and is answered at once, the second ends the process. Where nobody looks for a request to stop, the
//! first ends it, too, and where work has nothing to put in order it is waited for two seconds: whatever is on disk is whole.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};

/// The request to stop: by a signal here or at another rank.
static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static LISTENS: AtomicBool = AtomicBool::new(false);
static WAITS: AtomicBool = AtomicBool::new(false);

/// A signal has come here, and has been answered.
static SIGNALLED: OnceLock<Arc<AtomicBool>> = OnceLock::new();
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// What work that has nothing to put in order is given to end by itself: a request or a judge may answer late.
const GRACE: Duration = Duration::from_secs(2);

/// Installs the handlers; a second call does nothing. The first signal is told to `answer`, with false where it ends the
/// process.
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
    let (mut told, tell) = UnixStream::pair()?;
    let hangup = (!ignores_hangup()).then_some(SIGHUP);
    let signalled = SIGNALLED.get_or_init(Arc::default).clone();
    for signal in [SIGINT, SIGTERM, SIGUSR1, SIGUSR2].into_iter().chain(hangup) {
        // In this order: the shutdown only sees a flag that an earlier signal has set. Not the request itself, which may have come
        // from another rank before the launcher's signal is here.
        flag::register_conditional_shutdown(signal, 130, signalled.clone())?;
        flag::register(signal, signalled.clone())?;
        flag::register(signal, stop.clone())?;
        low_level::pipe::register(signal, tell.try_clone()?)?;
    }
    // A thread of its own: the work may be in the middle of anything.
    let wait = move || {
        let _ = told.read(&mut [0]);
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
    std::thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
}

/// True when whoever started the process asked it to outlive its terminal (`nohup`), or the system does not say.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask >> (SIGHUP - 1) & 1 == 1)
}

/// Whether the work under way looks for requests to stop.
pub fn listen(listens: bool) {
    set(&LISTENS, listens);
}

/// What ends because it was asked to is still putting things in order.
fn set(flag: &AtomicBool, value: bool) {
    if value || !stop_requested() {
        flag.store(value, Ordering::Relaxed);
    }
}

/// Waits until a signal that came is answered: work that stops at once must not end the process before.
pub fn answered() {
    let is_open =
        || SIGNALLED.get().is_some_and(|came| came.load(Ordering::Relaxed)) && !ANSWERED.load(Ordering::Acquire);
    let deadline = Instant::now() + Duration::from_secs(1);
    while is_open() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether the work under way, asked to stop, is waited for.
pub fn wait(waits: bool) {
    set(&WAITS, waits);
}

/// Ends the process at once, whatever its other threads do.
pub fn exit(status: u8) -> ! {
    low_level::exit(status.into())
}

/// Set once a signal has asked the process to stop, here or at another rank.
pub fn requested() -> Option<Arc<AtomicBool>> {
    STOP.get().cloned()
}

/// True once a signal has asked the process to stop.
pub fn stop_requested() -> bool {
    STOP.get().is_some_and(|stop| stop.load(Ordering::Relaxed))
}

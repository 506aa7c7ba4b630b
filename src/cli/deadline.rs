//! A limit for the time of a call that cannot be interrupted.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Calls a function on another thread unless it is dropped in time.
pub struct Deadline {
    _ended: mpsc::Sender<()>,
}

impl Deadline {
    /// Calls `expire` after `limit` unless the returned value is dropped before.
    pub fn start(limit: Duration, expire: impl FnOnce() + Send + 'static) -> Deadline {
        let (ended, receiver) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            if receiver.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                expire();
            }
        });
        Deadline { _ended: ended }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_expires_unless_it_is_dropped() {
        let (sender, receiver) = mpsc::channel();
        let expire = |name: &'static str| {
            let sender = sender.clone();
            move || sender.send(name).unwrap()
        };
        let dropped = Deadline::start(Duration::from_secs(3600), expire("dropped"));
        let _kept = Deadline::start(Duration::from_millis(1), expire("kept"));
        drop((dropped, sender));
        // The channel closes after both threads have ended.
        assert_eq!(receiver.iter().collect::<Vec<_>>(), ["kept"]);
    }
}

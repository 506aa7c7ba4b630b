//! Tests the limit of waits.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use omr_runtime::device::WaitLimit;

#[test]
fn a_wait_expires_unless_it_ends_within_the_limit() {
    let (sender, receiver) = mpsc::channel();
    let limit = |limit, name: &'static str| {
        let sender = sender.clone();
        WaitLimit { limit, expire: Arc::new(move || sender.send(name).unwrap()) }
    };
    drop(limit(Duration::from_secs(3600), "ended").begin());
    let _kept = limit(Duration::from_millis(1), "kept").begin();
    drop(sender);
    // The channel closes after both threads have ended.
    assert_eq!(receiver.iter().collect::<Vec<_>>(), ["kept"]);
}

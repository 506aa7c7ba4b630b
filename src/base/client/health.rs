//! Tracks which of several addresses respond. An address that failed is not used for a while, and then tried with a
//! single request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time for which an address is not used after its first failure. It doubles with each further failure.
const FIRST_REST: Duration = Duration::from_secs(5);
/// Maximum time for which an address is not used.
const LONGEST_REST: Duration = Duration::from_secs(120);

/// State of the addresses of a server.
pub struct Health(Mutex<Vec<Address>>);

#[derive(Clone, Copy, Default)]
struct Address {
    /// Number of failures since the last answer.
    failures: u32,
    /// Time before which the address is not used.
    rests_until: Option<Instant>,
}

impl Health {
    /// Creates the state of `count` addresses, all of them in use.
    pub fn new(count: usize) -> Health {
        Health(Mutex::new(vec![Address::default(); count]))
    }

    /// Returns the address for a request that prefers `wanted`: the first address from `wanted` on that is in use at
    /// `now`, or `wanted` if none is. If the chosen address has failed before, it is blocked for other requests until
    /// this request returns.
    pub fn choose(&self, wanted: usize, now: Instant) -> usize {
        let mut addresses = self.lock();
        let count = addresses.len();
        let is_resting = |address: &Address| address.rests_until.is_some_and(|until| now < until);
        let chosen = (0..count).map(|k| (wanted + k) % count).find(|&k| !is_resting(&addresses[k]));
        let chosen = chosen.unwrap_or(wanted % count);
        let address = &mut addresses[chosen];
        if address.failures > 0 {
            address.rests_until = Some(now + rest(address.failures));
        }
        chosen
    }

    /// Records whether a request to `address` was answered.
    pub fn record(&self, address: usize, answered: bool, now: Instant) {
        let address = &mut self.lock()[address];
        if answered {
            *address = Address::default();
        } else {
            address.failures = address.failures.saturating_add(1);
            address.rests_until = Some(now + rest(address.failures));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Address>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn rest(failures: u32) -> Duration {
    FIRST_REST.saturating_mul(1 << failures.saturating_sub(1).min(8)).min(LONGEST_REST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_fails_rests_and_is_then_tried_by_one_request() {
        let (health, begun) = (Health::new(3), Instant::now());
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!([0, 1, 2, 3].map(|item| health.choose(item, begun)), [0, 1, 2, 0]);
        health.record(1, false, begun);
        assert_eq!([0, 1, 2].map(|item| health.choose(item, after(1))), [0, 2, 2]);
        assert_eq!(health.choose(1, after(6)), 1);
        assert_eq!(health.choose(1, after(6)), 2, "one request tries it");
        health.record(1, false, after(7));
        assert_eq!(health.choose(1, after(16)), 2, "it rests longer");
        assert_eq!(health.choose(1, after(18)), 1);
        health.record(1, true, after(18));
        assert_eq!(health.choose(1, after(18)), 1);
        (0..3).for_each(|address| health.record(address, false, after(20)));
        assert_eq!(health.choose(1, after(21)), 1, "where all rest the one that was meant is asked");
    }
}

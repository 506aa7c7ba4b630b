//! Limits on the effects of untrusted input: memory in use by all threads together, and panics of libraries.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Condvar, Mutex, Once, PoisonError};

/// Maximum number of values in untrusted JSON. A value takes about 80 bytes of memory, however short its text is.
const MOST_VALUES: usize = 3_000_000;

/// Returns an error text if untrusted JSON has too many values. The estimate counts punctuation, before any value is
/// parsed.
pub fn excess(json: &[u8]) -> Option<String> {
    let marks = json.iter().filter(|byte| b",:[{".contains(byte)).count();
    (marks > MOST_VALUES).then(|| format!("more than {MOST_VALUES} JSON values"))
}

/// Limit on the bytes that all threads together may use.
pub struct Budget {
    limit: u64,
    taken: Mutex<u64>,
    returned: Condvar,
}

impl Budget {
    /// Creates a budget of `limit` bytes.
    pub const fn new(limit: u64) -> Budget {
        Budget { limit, taken: Mutex::new(0), returned: Condvar::new() }
    }

    /// Waits until `bytes` fit and takes them. A request above the limit waits until no other bytes are taken. A thread
    /// must drop its [`Taken`] before it takes again, or it may wait forever.
    pub fn take(&self, bytes: u64) -> Taken<'_> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |taken: &mut u64| *taken > 0 && taken.saturating_add(bytes) > self.limit;
        let mut taken = self.returned.wait_while(taken, full).unwrap_or_else(PoisonError::into_inner);
        *taken += bytes;
        Taken { budget: self, bytes }
    }
}

/// Bytes taken from a budget; dropping the value returns them.
pub struct Taken<'a> {
    budget: &'a Budget,
    bytes: u64,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.returned.notify_all();
    }
}

thread_local! {
    /// True while a panic of this thread is caught and returned as an error.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Calls a library that panics on some inputs. Returns the panic's message as the error, and prints nothing.
pub fn caught<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !CAUGHT.get() {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let done = catch_unwind(AssertUnwindSafe(call));
    CAUGHT.set(outer);
    done.map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        text.unwrap_or("a panic").to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_message() {
        assert_eq!(caught(|| 7), Ok(7));
        assert_eq!(caught(|| panic!("no {}", 7)), Err::<(), _>("no 7".to_owned()));
        assert_eq!(caught(|| caught(|| panic!("inner"))), Ok(Err::<(), _>("inner".to_owned())));
    }
}

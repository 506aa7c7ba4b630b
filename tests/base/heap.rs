//! The allocator of the tests, which measures what a piece of work takes from the heap.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator. It records the largest allocation of each thread that requested it.
struct Watched;

thread_local! {
    static LARGEST: Cell<Option<usize>> = const { Cell::new(None) };
}

fn note(bytes: usize) {
    // In a thread that is ending, the thread-local cell no longer exists. Such a thread needs no record.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().map(|most| most.max(bytes))));
}

// SAFETY: every call goes to the system's allocator unchanged; `note` touches only a thread's own cell, which needs
// neither allocation nor destructor.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller fulfils the requirements of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller fulfils the requirements of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller fulfils the requirements of `realloc`.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller fulfils the requirements of `dealloc`.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Returns the largest allocation of this thread while `work` runs, in bytes.
pub fn largest_allocation(work: impl FnOnce()) -> usize {
    LARGEST.set(Some(0));
    work();
    LARGEST.replace(None).unwrap()
}

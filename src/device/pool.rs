//! The compute threads: a fixed pool that runs one indexed job at a time. Which thread runs which index is
//! left to chance; bodies therefore may not let results depend on it (DESIGN section 8).

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

/// Spins before a waiting worker parks: about 50 us, longer than the gap between two ops of a step, so that
/// a training step wakes nobody up.
const SPINS: usize = 20_000;

type Job<'a> = &'a (dyn Fn(usize) + Sync + 'a);

struct Shared {
    /// Goes up by one for every job; workers wait for it to change.
    epoch: AtomicUsize,
    /// Points at the running job (a `Job` on the caller's stack).
    job: AtomicPtr<()>,
    /// The next index to run and the number of indices.
    next: AtomicUsize,
    len: AtomicUsize,
    /// Workers that have not finished the current epoch.
    busy: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    parked: Mutex<usize>,
    wake: Condvar,
}

/// A fixed number of compute threads, the caller's included.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `threads` compute threads: the caller and `threads - 1` workers. At least one.
    pub fn new(threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            next: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: Mutex::new(0),
            wake: Condvar::new(),
        });
        let workers = (1..threads.max(1))
            .map(|i| {
                let shared = shared.clone();
                std::thread::Builder::new()
                    .name(format!("compute-{i}"))
                    .spawn(move || work(&shared))
                    .expect("the system refuses a thread")
            })
            .collect();
        Pool { shared, workers }
    }

    /// Number of compute threads.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(i)` for every `i` in `0..len`, each once, and returns when all are done.
    /// Not reentrant: `f` must not call the pool. A panic in `f` is raised again here.
    pub fn run(&self, len: usize, f: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || len <= 1 {
            (0..len).for_each(f);
            return;
        }
        let s = &*self.shared;
        let job: Job<'_> = &f;
        s.job.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        s.next.store(0, Ordering::Relaxed);
        s.len.store(len, Ordering::Relaxed);
        s.busy.store(self.workers.len(), Ordering::Relaxed);
        s.epoch.fetch_add(1, Ordering::Release);
        if *s.parked.lock().unwrap_or_else(|e| e.into_inner()) > 0 {
            s.wake.notify_all();
        }
        let mine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drain(s, job)));
        if mine.is_err() {
            s.next.store(usize::MAX / 2, Ordering::Relaxed);
        }
        let mut spins = 0;
        while s.busy.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        if let Err(panic) = mine {
            std::panic::resume_unwind(panic);
        }
        assert!(!s.panicked.swap(false, Ordering::Relaxed), "a compute thread panicked (its message is above)");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.epoch.fetch_add(1, Ordering::Release);
        drop(self.shared.parked.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            worker.join().ok();
        }
    }
}

fn drain(s: &Shared, job: Job<'_>) {
    let len = s.len.load(Ordering::Relaxed);
    loop {
        let i = s.next.fetch_add(1, Ordering::Relaxed);
        if i >= len {
            return;
        }
        job(i);
    }
}

fn work(s: &Shared) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while s.epoch.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            let mut parked = s.parked.lock().unwrap_or_else(|e| e.into_inner());
            *parked += 1;
            while s.epoch.load(Ordering::Acquire) == seen {
                parked = s.wake.wait(parked).unwrap_or_else(|e| e.into_inner());
            }
            *parked -= 1;
        }
        seen = s.epoch.load(Ordering::Acquire);
        if s.stop.load(Ordering::Relaxed) {
            return;
        }
        let job: *const Job<'_> = s.job.load(Ordering::Relaxed).cast();
        // SAFETY: `run` stored a pointer to a live `Job` before raising the epoch and does not return, nor
        // raise the epoch again, before this worker has lowered `busy`.
        let job = unsafe { *job };
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drain(s, job))).is_err() {
            s.panicked.store(true, Ordering::Relaxed);
            s.next.store(usize::MAX / 2, Ordering::Relaxed);
        }
        s.busy.fetch_sub(1, Ordering::Release);
    }
}

/// A slice cut into chunks that the indices of one job take, each chunk once: disjoint `&mut` for parallel
/// bodies without `unsafe` at the call.
pub struct Parts<'a, T> {
    base: *mut T,
    len: usize,
    chunk: usize,
    taken: Vec<AtomicBool>,
    _slice: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: `take` hands out each chunk at most once (the flag), so threads get disjoint `&mut [T]`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// `slice` in chunks of `chunk` elements (the last may be shorter).
    pub fn new(slice: &'a mut [T], chunk: usize) -> Parts<'a, T> {
        let chunk = chunk.max(1);
        let taken = (0..slice.len().div_ceil(chunk)).map(|_| AtomicBool::new(false)).collect();
        Parts { base: slice.as_mut_ptr(), len: slice.len(), chunk, taken, _slice: std::marker::PhantomData }
    }

    /// Number of chunks.
    pub fn count(&self) -> usize {
        self.taken.len()
    }

    /// Chunk `i`. Panics when it was taken before.
    #[allow(clippy::mut_from_ref)]
    pub fn take(&self, i: usize) -> &'a mut [T] {
        assert!(!self.taken[i].swap(true, Ordering::Relaxed), "chunk {i} taken twice");
        let start = i * self.chunk;
        let len = self.chunk.min(self.len - start);
        // SAFETY: chunk `i` lies inside the slice, is handed out once, and chunks do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            for len in [0, 1, 7, 1000] {
                let mut out = vec![0u32; len];
                let parts = Parts::new(&mut out, 1);
                pool.run(len, |i| parts.take(i)[0] += i as u32 + 1);
                assert!(out.iter().enumerate().all(|(i, &v)| v == i as u32 + 1));
            }
        }
    }

    #[test]
    #[should_panic]
    fn a_panic_in_a_job_reaches_the_caller() {
        Pool::new(3).run(100, |i| assert!(i != 57));
    }
}

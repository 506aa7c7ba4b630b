//! The compute threads: a fixed pool that runs one indexed job at a time. Which thread runs which index is not
//! determined, so the results of a job must not depend on it (`docs/dev/design/runtime.md`).

use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use omr_base::error::{Error, Result};

/// Spins before a waiting thread gives up its core. This is longer than the gap between two ops of a step, so no thread
/// has to be woken up during a training step.
const SPINS: usize = 10_000;

type Job<'a> = &'a (dyn Fn(usize) + Sync + 'a);

/// The next index to run, the number of indices and the job's number, packed into one word. Therefore a thread that
/// slept through one or more jobs can never mistake an index of one job for an index of another.
#[derive(Clone, Copy)]
struct Ticket {
    next: u64,
    len: u64,
    epoch: u64,
}

impl Ticket {
    /// Maximum number of indices in one job.
    const MAX_LEN: usize = (1 << 20) - 1;

    fn pack(self) -> u64 {
        self.next | self.len << 20 | self.epoch << 40
    }

    fn unpack(word: u64) -> Ticket {
        Ticket { next: word & 0xf_ffff, len: word >> 20 & 0xf_ffff, epoch: word >> 40 }
    }
}

struct Shared {
    ticket: AtomicU64,
    /// Pointer to the running job (a `Job` on the caller's stack). Only threads that hold an index of the job read it.
    job: AtomicPtr<()>,
    /// Number of indices of the running job that are done.
    done: AtomicUsize,
    /// True while a job is running. `run` panics if it is called again in this time, because it is not reentrant.
    running: AtomicBool,
    panicked: AtomicBool,
    stop: AtomicBool,
    parked: Mutex<usize>,
    wake: Condvar,
}

/// A fixed number of compute threads, including the caller's.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Creates `threads` compute threads (at least one): the caller and `threads - 1` workers. Errors if the system
    /// refuses to create a thread.
    pub fn new(threads: usize) -> Result<Pool> {
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(0),
            job: AtomicPtr::new(std::ptr::null_mut()),
            done: AtomicUsize::new(0),
            running: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: Mutex::new(0),
            wake: Condvar::new(),
        });
        let mut pool = Pool { shared, workers: Vec::new() };
        for i in 1..threads.max(1) {
            let shared = pool.shared.clone();
            let worker = std::thread::Builder::new().name(format!("compute-{i}")).spawn(move || work(&shared));
            let refused = |e| Error::Failed(format!("starting compute thread {i} of {threads}: {e}"));
            // If this returns an error, the pool is dropped, which ends the workers created so far.
            pool.workers.push(worker.map_err(refused)?);
        }
        Ok(pool)
    }

    /// Returns the number of compute threads.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `f(i)` once for every `i` in `0..len` and returns when all are done. The calling thread takes indices, too.
    /// At the end it waits only for indices that workers have taken, so a worker that the busy system does not schedule
    /// costs nothing. Not reentrant: `f` must not call the pool. A panic in `f` is raised again here.
    pub fn run(&self, len: usize, f: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || len <= 1 {
            (0..len).for_each(f);
            return;
        }
        let mut start = 0;
        while start < len {
            let part = (len - start).min(Ticket::MAX_LEN);
            self.run_part(part, &|i| f(start + i));
            start += part;
        }
    }

    fn run_part(&self, len: usize, job: Job<'_>) {
        let s = &*self.shared;
        assert!(!s.running.swap(true, Ordering::Acquire), "a job is already running: the pool runs one at a time");
        let epoch = Ticket::unpack(s.ticket.load(Ordering::Relaxed)).epoch.wrapping_add(1) & 0xff_ffff;
        s.job.store((&raw const job).cast_mut().cast(), Ordering::Relaxed);
        s.done.store(0, Ordering::Relaxed);
        s.ticket.store(Ticket { next: 0, len: len as u64, epoch }.pack(), Ordering::SeqCst);
        if *s.parked.lock().unwrap_or_else(|e| e.into_inner()) > 0 {
            s.wake.notify_all();
        }
        let mut mine = Ok(());
        while let Some(i) = take(s) {
            if mine.is_ok() {
                mine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(i)));
            }
            s.done.fetch_add(1, Ordering::Release);
        }
        let mut spins = 0;
        while s.done.load(Ordering::Acquire) != len {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        s.running.store(false, Ordering::Release);
        if let Err(panic) = mine {
            s.panicked.store(false, Ordering::Relaxed);
            std::panic::resume_unwind(panic);
        }
        assert!(!s.panicked.swap(false, Ordering::Relaxed), "a compute thread panicked (see its message above)");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(self.shared.parked.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            worker.join().ok();
        }
    }
}

/// Takes the next index of the running job, if one is left.
fn take(s: &Shared) -> Option<usize> {
    let mut word = s.ticket.load(Ordering::Acquire);
    loop {
        let ticket = Ticket::unpack(word);
        if ticket.next >= ticket.len {
            return None;
        }
        match s.ticket.compare_exchange_weak(word, word + 1, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => return Some(ticket.next as usize),
            Err(now) => word = now,
        }
    }
}

fn has_work(s: &Shared) -> bool {
    let ticket = Ticket::unpack(s.ticket.load(Ordering::SeqCst));
    ticket.next < ticket.len || s.stop.load(Ordering::SeqCst)
}

fn work(s: &Shared) {
    loop {
        let mut spins = 0;
        while !has_work(s) {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            let mut parked = s.parked.lock().unwrap_or_else(|e| e.into_inner());
            *parked += 1;
            while !has_work(s) {
                parked = s.wake.wait(parked).unwrap_or_else(|e| e.into_inner());
            }
            *parked -= 1;
        }
        if s.stop.load(Ordering::SeqCst) {
            return;
        }
        while let Some(i) = take(s) {
            let job: *const Job<'_> = s.job.load(Ordering::Relaxed).cast();
            // SAFETY: this thread holds an index of the running job. The job is on the stack of `run_part`, which does
            // not return and stores no other job before `done` counts that index. The pointer was stored before the
            // ticket that the index was taken from (release, acquire).
            let job = unsafe { *job };
            if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(i))).is_err() {
                s.panicked.store(true, Ordering::Relaxed);
            }
            s.done.fetch_add(1, Ordering::Release);
        }
    }
}

/// A slice cut into chunks. Each chunk can be taken once. This gives parallel code disjoint `&mut` slices without
/// `unsafe` in the caller.
pub struct Parts<'a, T> {
    base: *mut T,
    len: usize,
    cut: Cut,
    taken: Vec<AtomicBool>,
    _slice: std::marker::PhantomData<&'a mut [T]>,
}

enum Cut {
    /// Chunks of this many elements; the last may be shorter.
    Every(usize),
    /// Start of each chunk, ascending, followed by the slice's length.
    At(Vec<usize>),
}

// SAFETY: `take` returns each chunk at most once (checked by the flag), so threads get disjoint `&mut [T]`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Cuts `slice` into chunks of `chunk` elements; the last may be shorter.
    pub fn new(slice: &'a mut [T], chunk: usize) -> Parts<'a, T> {
        let chunk = chunk.max(1);
        Parts::cut(slice, slice.len().div_ceil(chunk), Cut::Every(chunk))
    }

    /// Cuts `slice` at `starts`: chunk i is `starts[i]..starts[i + 1]`. Panics unless the starts ascend and end with
    /// the slice's length.
    pub fn at(slice: &'a mut [T], starts: Vec<usize>) -> Parts<'a, T> {
        assert!(starts.is_sorted() && starts.last() == Some(&slice.len()), "cuts of {} elements", slice.len());
        Parts::cut(slice, starts.len() - 1, Cut::At(starts))
    }

    fn cut(slice: &'a mut [T], count: usize, cut: Cut) -> Parts<'a, T> {
        let taken = (0..count).map(|_| AtomicBool::new(false)).collect();
        Parts { base: slice.as_mut_ptr(), len: slice.len(), cut, taken, _slice: std::marker::PhantomData }
    }

    /// Returns the number of chunks.
    pub fn count(&self) -> usize {
        self.taken.len()
    }

    /// Returns chunk `i`. Panics if it was taken before.
    #[allow(clippy::mut_from_ref)]
    pub fn take(&self, i: usize) -> &'a mut [T] {
        assert!(!self.taken[i].swap(true, Ordering::Relaxed), "chunk {i} taken twice");
        let (start, len) = match &self.cut {
            Cut::Every(chunk) => (i * chunk, *chunk.min(&(self.len - i * chunk))),
            Cut::At(starts) => (starts[i], starts[i + 1] - starts[i]),
        };
        // SAFETY: chunk `i` lies inside the slice and is returned only once, and chunks do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(start), len) }
    }
}

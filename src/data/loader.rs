//! Prepares samples in the background. Worker threads work a limited number of groups ahead. Samples are returned by
//! index and not by order of completion, so the number of workers changes nothing except the time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::data::samples::{Made, Samples};
use crate::error::{Error, Result};

/// The samples that a run will request: an iterator over the indices of one group after another.
pub type Groups = Box<dyn Iterator<Item = Result<Vec<usize>>> + Send>;

/// Samples of a group, in order, each with its index. A sample that could not be made is present with the reason.
pub type Group<T> = Vec<(usize, Made<T>)>;

/// Groups of samples that are prepared in advance.
pub struct Loader<T: Send + Sync + 'static> {
    shared: Arc<Shared<T>>,
    workers: Vec<JoinHandle<()>>,
}

struct Shared<T> {
    samples: Arc<dyn Samples<T>>,
    ahead: u64,
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// One sample of a group; `None` until it is made.
type PendingSample<T> = Option<(usize, Result<Made<T>>)>;

struct State<T> {
    groups: Groups,
    /// Samples of the current group that no worker has taken yet, last first, as (position in the group, sample).
    rest: Vec<(usize, usize)>,
    given: u64,
    /// Groups in progress, by number: a slot for each sample, and the number of missing samples.
    made: BTreeMap<u64, (Vec<PendingSample<T>>, usize)>,
    /// Number of the group that is requested next.
    next: u64,
    /// End of the groups: `None` while there are more, `Some(None)` at the end, `Some(Some(error))` on failure.
    ended: Option<Option<Error>>,
    stopped: bool,
}

impl<T: Send + Sync + 'static> Loader<T> {
    /// Starts `workers` threads that make the samples of `groups`, at most `ahead` groups beyond the requested one.
    pub fn new(samples: Arc<dyn Samples<T>>, groups: Groups, workers: usize, ahead: usize) -> Result<Loader<T>> {
        let state =
            State { groups, rest: Vec::new(), given: 0, made: BTreeMap::new(), next: 0, ended: None, stopped: false };
        let shared = Shared { samples, ahead: ahead as u64, state: Mutex::new(state), changed: Condvar::new() };
        let mut loader = Loader { shared: Arc::new(shared), workers: Vec::new() };
        for i in 0..workers.max(1) {
            let shared = loader.shared.clone();
            let worker = std::thread::Builder::new().name(format!("load-{i}")).spawn(move || shared.work());
            loader.workers.push(worker.map_err(|e| Error::Failed(format!("starting a data thread: {e}")))?);
        }
        Ok(loader)
    }

    /// Returns the next group, for a caller that expects one. See [`Loader::next_group`].
    pub fn take(&mut self) -> Result<Group<T>> {
        self.next_group()?.ok_or_else(|| Error::Failed("fewer samples than planned: no sample is left".to_owned()))
    }

    /// Returns the next group, or `None` after the last. Returns errors of the group iterator and of [`Samples::get`].
    pub fn next_group(&mut self) -> Result<Option<Group<T>>> {
        let mut state = self.shared.lock();
        loop {
            let number = state.next;
            if state.made.get(&number).is_some_and(|(_, missing)| *missing == 0) {
                let (group, _) = state.made.remove(&number).unwrap_or_default();
                state.next += 1;
                self.shared.changed.notify_all();
                drop(state);
                return group.into_iter().flatten().map(|(i, made)| Ok((i, made?))).collect::<Result<_>>().map(Some);
            }
            if !state.made.contains_key(&number)
                && let Some(error) = &mut state.ended
            {
                return error.take().map_or(Ok(None), Err);
            }
            state = self.shared.wait(state);
        }
    }
}

impl<T: Send + Sync + 'static> Drop for Loader<T> {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        // A worker that panicked has already printed its message.
        self.workers.drain(..).for_each(|worker| drop(worker.join()));
    }
}

impl<T: Send + Sync> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<T>>) -> MutexGuard<'a, State<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let _gone = WakeOnDrop(self);
        let mut state = self.lock();
        loop {
            if state.stopped {
                return;
            }
            let Some((place, i)) = state.rest.pop() else {
                if state.ended.is_some() {
                    return;
                }
                if state.given > state.next + self.ahead {
                    state = self.wait(state);
                    continue;
                }
                state.advance();
                // A group without samples is complete immediately.
                self.changed.notify_all();
                continue;
            };
            let group = state.given - 1;
            drop(state);
            // A panic in a decoder must end the run, not leave it waiting.
            let made = catch_unwind(AssertUnwindSafe(|| self.samples.get(i)));
            let died = |_| Err(Error::Failed(format!("sample {i} could not be prepared (see the message above)")));
            let made = made.unwrap_or_else(died).and_then(|made| match made {
                Err(bad) => Ok(Err(bad.of_row()?)),
                made => Ok(made),
            });
            state = self.lock();
            if let Some((places, missing)) = state.made.get_mut(&group) {
                places[place] = Some((i, made));
                *missing -= 1;
            }
            self.changed.notify_all();
        }
    }
}

impl<T> State<T> {
    /// Starts the next group.
    fn advance(&mut self) {
        match self.groups.next() {
            Some(Ok(group)) => {
                let places = group.iter().map(|_| None).collect();
                self.made.insert(self.given, (places, group.len()));
                self.rest = group.into_iter().enumerate().rev().collect();
                self.given += 1;
            }
            Some(Err(error)) => self.ended = Some(Some(error)),
            None => self.ended = Some(None),
        }
    }
}

/// Wakes the other threads when a worker ends, even by a panic.
struct WakeOnDrop<'a, T: Send + Sync>(&'a Shared<T>);

impl<T: Send + Sync> Drop for WakeOnDrop<'_, T> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let died = Error::Failed("a data thread panicked (see its message above)".to_owned());
            self.0.lock().ended = Some(Some(died));
        }
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Makes sample i from i after a varying delay, and counts the calls.
    struct Slow {
        made: AtomicUsize,
    }

    impl Samples<usize> for Slow {
        fn get(&self, i: usize) -> Result<Made<usize>> {
            assert_ne!(i, 667, "seven");
            if i == 666 {
                return Err(Error::Failed("six".to_owned()));
            }
            std::thread::sleep(std::time::Duration::from_micros((i as u64 * 7919) % 300));
            self.made.fetch_add(1, Ordering::Relaxed);
            Ok(Ok(Arc::new(i)))
        }
    }

    fn groups(sizes: &'static [usize]) -> Groups {
        let mut next = 0;
        Box::new(sizes.iter().map(move |&n| {
            next += n;
            Ok((next - n..next).collect())
        }))
    }

    #[test]
    fn groups_come_in_order_and_no_more_than_asked_for_ahead() {
        for workers in [1, 2, 5] {
            let slow = Arc::new(Slow { made: AtomicUsize::new(0) });
            let sizes = &[3, 1, 0, 4, 2, 5, 1];
            let mut loader = Loader::new(slow.clone(), groups(sizes), workers, 1).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(slow.made.load(Ordering::Relaxed), 4, "two groups before the first is asked for");
            let mut seen = Vec::new();
            let mut lengths = Vec::new();
            while let Some(group) = loader.next_group().unwrap() {
                lengths.push(group.len());
                seen.extend(group.into_iter().map(|(i, made)| (i, *made.unwrap())));
            }
            assert_eq!(lengths, sizes);
            assert_eq!(seen, (0..16).map(|i| (i, i)).collect::<Vec<_>>());
            assert!(loader.next_group().unwrap().is_none());
        }
    }

    #[test]
    fn errors_come_where_they_belong_and_an_endless_loader_can_be_dropped() {
        let slow = Arc::new(Slow { made: AtomicUsize::new(0) });
        let endless: Groups = Box::new((665..).map(|i| Ok(vec![i])));
        let mut loader = Loader::new(slow, endless, 2, 3).unwrap();
        assert!(loader.next_group().unwrap().is_some());
        assert!(loader.next_group().is_err_and(|e| e.to_string() == "six"));
        assert!(loader.next_group().is_err_and(|e| e.to_string().contains("sample 667")));
        assert!(loader.next_group().unwrap().is_some());
        drop(loader);
        let failing: Groups = Box::new([Ok(vec![0]), Err(Error::Failed("plan".to_owned()))].into_iter());
        let mut loader = Loader::new(Arc::new(Slow { made: AtomicUsize::new(0) }), failing, 1, 3).unwrap();
        assert_eq!(loader.next_group().unwrap().unwrap().len(), 1);
        assert!(loader.next_group().is_err_and(|e| e.to_string() == "plan"));
        assert!(loader.next_group().unwrap().is_none());
    }
}

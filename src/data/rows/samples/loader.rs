//! Prepares samples in the background. Worker threads work a limited number of groups ahead. Samples are returned by
//! index and not by order of completion, so the number of workers changes nothing except the time.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::{Made, Samples};
use omr_base::error::{Error, Result};

/// The samples that a run will request: an iterator over the indices of one group after another.
pub type Groups = Box<dyn Iterator<Item = Result<Vec<usize>>> + Send>;

/// Samples of a group, in order, each with its index. A sample that could not be made is present with the reason.
pub type Group<T> = Vec<(usize, Made<T>)>;

/// Groups of samples that are prepared in advance.
pub struct Loader<T: Send + Sync + 'static> {
    /// The groups that were begun, in order.
    begun: Receiver<Result<Vec<PendingSample<T>>>>,
    /// Each message permits to begin another group.
    permits: Sender<()>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A sample that a worker makes: its index, and where its result will arrive.
type PendingSample<T> = (usize, Receiver<Result<Made<T>>>);

/// A sample to make: its index, and where its result is expected.
type Job<T> = (usize, Sender<Result<Made<T>>>);

impl<T: Send + Sync + 'static> Loader<T> {
    /// Starts `workers` threads that make the samples of `groups`, at most `ahead` groups beyond the requested one.
    pub fn new(samples: Arc<dyn Samples<T>>, groups: Groups, workers: usize, ahead: usize) -> Result<Loader<T>> {
        let ((permits, permitted), (groups_sender, begun), (jobs_sender, jobs)) = (channel(), channel(), channel());
        let mut loader = Loader { begun, permits, stopped: Arc::default(), threads: Vec::new() };
        (0..=ahead).for_each(|_| loader.permit());
        let stopped = loader.stopped.clone();
        loader.start("groups".to_owned(), move || {
            begin(groups, &permitted, &stopped, &jobs_sender, &groups_sender);
        })?;
        let jobs = Arc::new(Mutex::new(jobs));
        for i in 0..workers.max(1) {
            let (samples, jobs, stopped) = (samples.clone(), jobs.clone(), loader.stopped.clone());
            loader.start(format!("load-{i}"), move || work(&*samples, &jobs, &stopped))?;
        }
        Ok(loader)
    }

    fn start(&mut self, name: String, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let thread = Builder::new().name(name).spawn(work);
        self.threads.push(thread.map_err(|e| Error::Failed(format!("starting a data thread: {e}")))?);
        Ok(())
    }

    fn permit(&self) {
        // Fails if there are no more groups.
        let _ = self.permits.send(());
    }

    /// Returns the next group, for a caller that expects one. See [`Loader::next_group`].
    pub fn take(&mut self) -> Result<Group<T>> {
        self.next_group()?.ok_or_else(|| Error::Failed("fewer samples than planned: no sample is left".to_owned()))
    }

    /// Returns the next group, or `None` after the last. Returns errors of the group iterator and of [`Samples::get`].
    pub fn next_group(&mut self) -> Result<Option<Group<T>>> {
        let Ok(group) = self.begun.recv() else { return Ok(None) };
        let made = |(i, made): PendingSample<T>| Ok((i, made.recv().map_err(|_| panicked())??));
        let group = group?.into_iter().map(made).collect::<Result<_>>();
        self.permit();
        group.map(Some)
    }
}

impl<T: Send + Sync + 'static> Drop for Loader<T> {
    fn drop(&mut self) {
        self.stopped.store(true, Relaxed);
        self.permit();
        // A worker that panicked has already printed its message.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Begins a group for each permit: passes its samples to the workers, and then the group to the caller.
fn begin<T>(
    mut groups: Groups,
    permits: &Receiver<()>,
    stopped: &AtomicBool,
    jobs: &Sender<Job<T>>,
    begun: &Sender<Result<Vec<PendingSample<T>>>>,
) {
    while permits.recv().is_ok() && !stopped.load(Relaxed) {
        let next = catch_unwind(AssertUnwindSafe(|| groups.next()));
        let Some(group) = next.unwrap_or_else(|_| Some(Err(panicked()))) else { return };
        let is_last = group.is_err();
        let pending = |i| {
            let (result, made) = channel();
            // Fails if no worker is left. The caller then finds that no result arrives.
            let _ = jobs.send((i, result));
            (i, made)
        };
        let sent = begun.send(group.map(|group| group.into_iter().map(pending).collect()));
        if is_last || sent.is_err() {
            return;
        }
    }
}

/// Makes samples until there are no more, or until the loader is dropped.
fn work<T>(samples: &dyn Samples<T>, jobs: &Mutex<Receiver<Job<T>>>, stopped: &AtomicBool) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Some((i, result)) = job.ok().filter(|_| !stopped.load(Relaxed)) else { return };
        // A panic in a decoder must end the run, not leave it waiting.
        let made = catch_unwind(AssertUnwindSafe(|| samples.get(i)));
        let died = |_| Err(Error::Failed(format!("sample {i} could not be prepared (see the message above)")));
        let made = made.unwrap_or_else(died).and_then(|made| match made {
            Err(bad) => Ok(Err(bad.of_row()?)),
            made => Ok(made),
        });
        // Fails if the caller no longer expects the sample.
        let _ = result.send(made);
    }
}

fn panicked() -> Error {
    Error::Failed("a data thread panicked (see its message above)".to_owned())
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
            while slow.made.load(Ordering::Relaxed) < 4 {
                std::thread::yield_now();
            }
            // Time for samples that must not come.
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

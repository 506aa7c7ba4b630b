//! Reads and prepares a task's questions while earlier ones are answered. One thread reads rows in order, and several
//! threads prepare them. The number of questions in memory is bounded.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use rayon::prelude::*;

use super::survey::Survey;
use omr_base::error::{Error, Result};
use omr_data::rows::Row;
use omr_data::task::TaskRows;

/// Number of questions per worker thread that are prepared ahead of the requested one.
const MADE_AHEAD: usize = 4;

/// A prepared question with its number.
type Question<T> = (usize, Arc<T>);

/// Reads `rows` a second time and prepares the questions `wanted`, in ascending order, with `make`, `workers` at a time.
/// `ask` obtains them, in this order, by calling the function that it receives. Returns an error if a row has changed
/// since the survey.
pub fn stream<T: Send + Sync>(
    rows: &TaskRows,
    survey: &Survey,
    wanted: &[usize],
    workers: usize,
    make: impl Fn(Row) -> Result<T> + Send + Sync,
    ask: impl FnOnce(&mut dyn FnMut() -> Result<Option<Question<T>>>) -> Result<()>,
) -> Result<()> {
    // The questions that are being prepared are ahead, too.
    let (send, receive) = sync_channel((MADE_AHEAD - 1) * workers);
    std::thread::scope(|scope| {
        let make = |group: Vec<(usize, Row)>| -> Vec<Result<Question<T>>> {
            group.into_par_iter().map(|(i, row)| Ok((i, Arc::new(make(row)?)))).collect()
        };
        let reader = std::thread::Builder::new().name("rows".to_owned());
        let reader = reader.spawn_scoped(scope, move || read(rows, survey, wanted, workers, make, &send));
        let reader =
            reader.map_err(|error| Error::Failed(format!("cannot start a thread that reads rows: {error}")))?;
        let mut left = wanted.len();
        let asked = ask(&mut || {
            if left == 0 {
                return Ok(None);
            }
            left -= 1;
            let fewer = |_| Error::Failed("the data has fewer rows than at the start of the run".to_owned());
            receive.recv().map_err(fewer)?.map(Some)
        });
        // The reader ends when it can send no more. Its error comes first, because an invalid row is the cause of an
        // error of `ask`.
        drop(receive);
        match reader.join() {
            Ok(read) => read.and(asked),
            Err(_) => Err(Error::Failed("the thread that reads rows panicked (its message is above)".to_owned())),
        }
    })
}

/// Prepares the wanted rows with `make`, `together` at a time, and sends them until the receiver is dropped.
fn read<T>(
    rows: &TaskRows,
    survey: &Survey,
    wanted: &[usize],
    together: usize,
    make: impl Fn(Vec<(usize, Row)>) -> Vec<Result<Question<T>>>,
    send: &SyncSender<Result<Question<T>>>,
) -> Result<()> {
    let (mut i, mut left, mut group) = (0, wanted.iter().copied().peekable(), Vec::new());
    let read = rows.each(|_, row| {
        let Ok(row) = row else { return Ok(ControlFlow::Continue(())) };
        let at = i;
        i += 1;
        if left.next_if_eq(&at).is_none() {
            return Ok(ControlFlow::Continue(()));
        }
        if survey.contents.get(at) != Some(&row.content()?) {
            let found = "a question that differs from that at the start of the run";
            return Err(Error::input(&row.place, found, "unchanged data"));
        }
        group.push((at, row));
        let is_last = left.peek().is_none();
        let is_heard = (group.len() < together && !is_last)
            || make(std::mem::take(&mut group)).into_iter().all(|made| send.send(made).is_ok());
        Ok(if is_heard && !is_last { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    });
    read.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_base::config::{DatasetConfig, Mode};
    use omr_data::reward::Scorer;
    use omr_data::rows::read;
    use omr_data::task::{Source, digits};
    use std::io::Write;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn write(path: &Path, count: usize, word: &str) -> [DatasetConfig; 1] {
        let mut file = std::fs::File::create(path).unwrap();
        for i in 0..count {
            writeln!(file, "{{\"problem\": \"{word} {i}\", \"answer\": \"{i}\"}}").unwrap();
        }
        [read::entry(path)]
    }

    fn rows(datasets: &[DatasetConfig]) -> TaskRows<'_> {
        let source = Source { datasets, folder: None, mode: Mode::Strict, seed: 0, shuffle_seed: 0, file: None };
        TaskRows::new(&digits::TASK, source, None, Arc::new(Scorer::rules(Mode::Strict)), false)
    }

    /// A question in memory, which decreases a counter when it is dropped.
    struct Held(Arc<AtomicUsize>, String);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_bounded_number_of_questions_is_in_memory_however_many_there_are() {
        let dir = tempfile::tempdir().unwrap();
        for count in [40, 400] {
            let files = write(&dir.path().join("rows.jsonl"), count, "question");
            let rows = rows(&files);
            let survey = Survey::of(&rows, None).unwrap();
            let wanted: Vec<usize> = (0..count).filter(|i| i % 3 > 0).collect();
            let (held, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let (now, peak) = (held.clone(), most.clone());
            let make = move |row: Row| {
                peak.fetch_max(now.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                Ok(Held(now.clone(), row.question()))
            };
            let mut seen = Vec::new();
            let done = stream(&rows, &survey, &wanted, 2, make, |next| {
                while let Some((i, question)) = next()? {
                    assert_eq!(question.1, format!("question {i}"));
                    std::thread::sleep(std::time::Duration::from_micros(200));
                    seen.push(i);
                }
                Ok(())
            });
            done.unwrap();
            assert_eq!(seen, wanted);
            let most = most.load(Ordering::Relaxed);
            assert!(most <= 2 * MADE_AHEAD + 4 && held.load(Ordering::Relaxed) == 0, "{most} at once");
        }
    }

    #[test]
    fn rows_that_changed_are_refused_by_name_and_whoever_stops_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let files = write(&path, 50, "question");
        let rows = rows(&files);
        let survey = Survey::of(&rows, None).unwrap();
        let wanted: Vec<usize> = (0..50).collect();
        let make = |row: Row| Ok(row.id);
        let stopped = stream(&rows, &survey, &wanted, 3, make, |next| next().and(Err(Error::Stopped)));
        assert!(matches!(stopped, Err(Error::Stopped)));
        write(&path, 50, "another");
        let all = |next: &mut dyn FnMut() -> Result<Option<(usize, Arc<String>)>>| {
            while next()?.is_some() {}
            Ok(())
        };
        let error = stream(&rows, &survey, &wanted, 3, make, all).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains("rows.jsonl row 1: found"), "{error}");
    }
}

//! `omr_verify._native`: verdicts and rewards for many rows, in threads without Python's lock. `omr_verify/__init__.py`
//! prepares the rows.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use omr_verify::typed::{Details, Label, RewardType, Scores};
use omr_verify::{Format, Mode, extract, grade, grade_flexible};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Number of threads; `None` is one per core.
type Threads = Option<usize>;

/// Time after which Python's signals are handled.
const SIGNALS: Duration = Duration::from_millis(50);

/// Returns the results of all items in order. The threads end with this call, so that none is missing after a fork.
/// `KeyboardInterrupt` ends the call after the items in progress.
fn map<T: Sync, R: Send>(py: Python, items: &[T], threads: Threads, each: impl Fn(&T) -> R + Sync) -> PyResult<Vec<R>> {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.unwrap_or_else(cores).min(items.len());
    if threads <= 1 {
        return items.iter().map(|item| py.check_signals().map(|()| py.detach(|| each(item)))).collect();
    }
    let next = AtomicUsize::new(0);
    let work = || {
        let indices = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        indices.map_while(|i| items.get(i).map(|item| (i, each(item)))).collect::<Vec<_>>()
    };
    let run = || {
        std::thread::scope(|scope| {
            let (send, done) = mpsc::channel();
            for _ in 0..threads {
                let (send, work) = (send.clone(), &work);
                scope.spawn(move || send.send(work()));
            }
            drop(send);
            let mut results = Vec::with_capacity(items.len());
            loop {
                match done.recv_timeout(SIGNALS) {
                    Ok(part) => results.extend(part),
                    Err(RecvTimeoutError::Disconnected) => return PyResult::Ok(results),
                    Err(RecvTimeoutError::Timeout) => Python::attach(|py| py.check_signals())
                        .inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?,
                }
            }
        })
    };
    let mut results = py.detach(run)?;
    results.sort_by_key(|(i, _)| *i);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}

/// Returns the one of `all` that a setting names.
fn named<T: Copy>(found: &str, all: &[T], name: fn(T) -> &'static str) -> PyResult<T> {
    let names = || all.iter().map(|one| name(*one)).collect::<Vec<_>>();
    let wrong = || PyValueError::new_err(format!("found {found:?}, expected one of {:?}", names()));
    all.iter().copied().find(|one| name(*one) == found).ok_or_else(wrong)
}

const MODES: [Mode; 2] = [Mode::Strict, Mode::Compat];

/// A response to be scored, with what the rules read from its row.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Row {
    response: String,
    /// Right answers, at least one. The score of a wrong response is that for the first.
    labels: Vec<String>,
    question: Option<String>,
    reward_type: Option<String>,
    tolerance: Option<f64>,
    image_size: Option<(f64, f64)>,
    processed_size: Option<(f64, f64)>,
    normalize_bbox_to_1000: bool,
    iou_threshold: Option<f64>,
    component_weights: Option<[f64; 3]>,
}

/// Reward types without a rule in either mode.
const BY_PROGRAM: [&str; 3] = ["instruction_following", "instruction_following_llm_judge", "llm_judge"];

/// `acc_score`, `format_reward_score`, `predict_str` and `why`.
type Parts = (f64, f64, String, String);

impl Row {
    /// Returns the scores by the rule of the row's reward type.
    fn by_type(&self, name: &str, label: &str, mode: Mode) -> Result<Parts, String> {
        let unknown = (mode == Mode::Compat && !BY_PROGRAM.contains(&name)).then_some(RewardType::Unknown);
        let Some(kind) = RewardType::of(name).filter(|kind| *kind != RewardType::LlmJudge).or(unknown) else {
            let known = RewardType::names().filter(|known| *known != "llm_judge").collect::<Vec<_>>();
            return Err(format!("found the reward_type {name:?}, expected one of {known:?}"));
        };
        let Row { tolerance, image_size, processed_size, normalize_bbox_to_1000, iou_threshold, .. } = *self;
        let component_weights = self.component_weights;
        let details =
            Details { tolerance, image_size, processed_size, normalize_bbox_to_1000, iou_threshold, component_weights };
        let label = Label::read(kind, label, &details, mode).map_err(|bad| format!("{bad} (reward_type {name})"))?;
        let Scores { accuracy, format, prediction } = label.score(&self.response);
        Ok((accuracy, format, prediction, name.to_owned()))
    }

    /// Returns the scores of `omr score` for rows without a reward type.
    fn by_answer(&self, label: &str, mode: Mode, format: Format, flexible_extract: bool) -> Parts {
        let grade = if flexible_extract { grade_flexible } else { grade };
        let graded = grade(&self.response, label, self.question.as_deref(), mode);
        let format_score = extract::format_score(&self.response, mode, format);
        (f64::from(graded.correct), format_score, graded.answer.into_owned(), graded.why.to_owned())
    }
}

#[pymodule(name = "_native")]
mod module {
    use super::*;

    #[pyfunction]
    fn verify_many(py: Python, pairs: Vec<(String, String)>, mode: &str, threads: Threads) -> PyResult<Vec<bool>> {
        let mode = named(mode, &MODES, Mode::name)?;
        map(py, &pairs, threads, |(gold, answer)| omr_verify::verify(gold, answer, mode).equal)
    }

    #[pyfunction]
    fn extract(response: &str, mode: &str) -> PyResult<(String, &'static str)> {
        let (answer, path) = omr_verify::extract::predict_str(response, named(mode, &MODES, Mode::name)?);
        Ok((answer.into_owned(), path.name()))
    }

    /// `set` is `mode`, `format` and `flexible_extract`.
    #[pyfunction]
    fn score_many(py: Python, rows: Vec<Row>, set: (String, String, bool), threads: Threads) -> PyResult<Vec<Parts>> {
        let formats = [Format::ThinkAnswerBoxed, Format::ThinkAnswer, Format::ThinkBoxed];
        let (mode, format) = (named(&set.0, &MODES, Mode::name)?, named(&set.1, &formats, Format::name)?);
        let scored = map(py, &rows, threads, |row| {
            let score = |label: &String| match &row.reward_type {
                Some(name) => row.by_type(name, label, mode),
                None => Ok(row.by_answer(label, mode, format, set.2)),
            };
            let is_wrong = |parts: &Parts| parts.0 == 0.0;
            let first = score(&row.labels[0])?;
            let others = if is_wrong(&first) { &row.labels[1..] } else { &[] };
            others.iter().map(score).find(|one| !one.as_ref().is_ok_and(is_wrong)).unwrap_or(Ok(first))
        });
        let placed = |i, bad: String| PyValueError::new_err(format!("response {i}: {bad}"));
        scored?.into_iter().enumerate().map(|(i, one)| one.map_err(|bad| placed(i, bad))).collect()
    }
}

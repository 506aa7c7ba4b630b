//! Requests the missing answers from a teacher. Rows are streamed, many requests run concurrently, and each answer is
//! stored as soon as it arrives.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::answers::{Key, RunStore};
use crate::client::{Completion, Endpoint, Failure};
use crate::config::{DistillConfig, EndpointConfig};
use crate::data::answer::label;
use crate::data::{BadRow, Rejected, RejectedRows};
use crate::error::{Error, Result};
use crate::pipeline::distill::question::{Question, request_seed};
use crate::pipeline::stage::{Input, Work};

/// Interval for checking whether the user requested a stop while no answer arrives.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Reason why there is no answer to store.
pub enum NoAnswer {
    /// The request failed permanently; contains the last error.
    Failed(String),
    /// The teacher's answer was empty. It is not stored, so another run requests it again.
    Empty(Completion),
    /// The row cannot be converted to a request.
    Bad(BadRow),
}

/// A request job: the rows, the teacher, and the store for the answers.
pub struct TeacherRequests<'a> {
    /// Settings of the stage.
    pub config: &'a DistillConfig,
    /// Settings of the teacher.
    pub teacher: &'a EndpointConfig,
    /// Connection to the teacher.
    pub endpoint: &'a Arc<Endpoint>,
    /// Store of the answers.
    pub store: &'a Arc<RunStore>,
    /// The stage's data sets and machine.
    pub work: &'a Work<'a>,
}

/// A request to send.
struct PendingRequest {
    key: Key,
    question: Arc<Question>,
    seed: u64,
    label: String,
    number: usize,
}

impl TeacherRequests<'_> {
    /// Requests answers for every row that has a label but no answer in the store. Returns, by key, the answers that
    /// are still missing.
    ///
    /// Returns an error if too many rows are bad, if the server refuses everything or many requests in a row fail, or
    /// if the user stops. Answers received before are in the store.
    pub fn all(&self, runtime: &Handle) -> Result<HashMap<Key, NoAnswer>> {
        let concurrency = self.endpoint.concurrency();
        let (send, receive) = mpsc::channel(2 * concurrency);
        let total = (self.work.rows() * self.config.num_rollouts) as u64;
        self.work.machine.observer.begin(self.work.kind, "answers", total, 0);
        let missing = std::thread::scope(|scope| {
            let reader = Reader {
                config: self.config,
                teacher: self.teacher,
                store: self.store,
                inputs: &self.work.inputs,
                rows: self.work.rows(),
            };
            let reader = scope.spawn(move || reader.read(&send));
            let missing = runtime.block_on(self.request(receive));
            let read = reader.join().map_err(|_| Error::Failed("reading rows panicked".to_owned()))?;
            // If `request` fails, the channel closes and the reader ends. The error of `request` is then the one to return.
            missing.and_then(|missing| read.map(|()| missing))
        })?;
        self.work.machine.observer.end();
        let failed = missing.values().filter(|missing| !matches!(missing, NoAnswer::Bad(_))).count();
        if failed > 0 {
            let kind = self.work.kind;
            self.work
                .machine
                .observer
                .note(&format!("{kind}: {failed} requests failed; run the same command again to repeat them"));
        }
        Ok(missing)
    }

    async fn request(
        &self,
        pending: mpsc::Receiver<std::result::Result<PendingRequest, u64>>,
    ) -> Result<HashMap<Key, NoAnswer>> {
        let pending = Arc::new(Mutex::new(pending));
        let (send, mut receive) = mpsc::channel(1024);
        let mut workers = JoinSet::new();
        for _ in 0..self.endpoint.concurrency() {
            let (pending, send) = (pending.clone(), send.clone());
            let (endpoint, store, teacher) = (self.endpoint.clone(), self.store.clone(), self.teacher.clone());
            workers.spawn(async move {
                loop {
                    let next = pending.lock().await.recv().await;
                    let outcome = match next {
                        None => return,
                        Some(Err(known)) => Outcome::Known(known),
                        Some(Ok(pending)) => one(&endpoint, &store, &teacher, pending).await,
                    };
                    if send.send(outcome).await.is_err() {
                        return;
                    }
                }
            });
        }
        drop((send, pending));
        let observer = self.work.machine.observer;
        let mut tally = Tally::new(self.endpoint);
        let outcome: Result<()> = loop {
            if observer.stop_requested() {
                break Err(Error::Stopped);
            }
            let Ok(outcome) = tokio::time::timeout(STOP_CHECK_INTERVAL, receive.recv()).await else { continue };
            let Some(outcome) = outcome else { break tally.over() };
            if let Err(error) = tally.take(outcome) {
                break Err(error);
            }
            observer.step(tally.done, &[("failed", tally.failed as f64)]);
        };
        // When the workers end, the queue closes, which ends the reader.
        workers.shutdown().await;
        outcome.map(|()| tally.missing)
    }
}

/// Reads rows and determines the requests to send.
struct Reader<'a> {
    config: &'a DistillConfig,
    teacher: &'a EndpointConfig,
    store: &'a RunStore,
    inputs: &'a [Input],
    /// Total number of rows.
    rows: usize,
}

impl Reader<'_> {
    /// Sends the missing requests to `send`, in the order of the rows, until the receiver is closed. Also sends
    /// `Err(n)` for every `n` answers that need no request.
    fn read(&self, send: &mpsc::Sender<std::result::Result<PendingRequest, u64>>) -> Result<()> {
        let store = self.store.get()?;
        // Rows with the same content are requested once.
        let mut seen: HashSet<Key> = HashSet::new();
        let (mut number, mut over) = (0, false);
        let mut bad = RejectedRows { rows: self.rows as u64, rejected: Vec::new() };
        for (set, input) in self.inputs.iter().enumerate() {
            input.for_each(|at, row| {
                if over {
                    return Ok(());
                }
                let n = self.config.num_rollouts;
                let labelled = row.and_then(|row| match label(&row) {
                    None => Ok(None),
                    Some(_) => Question::new(&row, self.config.teacher_system_prompt.as_deref())
                        .map(|question| Some((Arc::new(question), row))),
                });
                let (question, row) = match labelled {
                    Ok(Some(found)) => found,
                    Ok(None) => {
                        over |= send.blocking_send(Err(n as u64)).is_err();
                        return Ok(());
                    }
                    Err(fault) => {
                        over |= send.blocking_send(Err(n as u64)).is_err();
                        let BadRow { reason, id, error } = fault.of_row()?;
                        let detail = error.to_string();
                        bad.rejected.push(Rejected { dataset: set as u32, index: at.index, id, reason, detail });
                        return bad.check(self.config.stage.max_bad_rows);
                    }
                };
                for rollout in 0..n {
                    let key = question.key(self.teacher, self.config.seed, rollout);
                    let known = !seen.insert(key) || store.get(&key)?.is_some();
                    let pending = match known {
                        true => Err(1),
                        false => Ok(PendingRequest {
                            key,
                            question: question.clone(),
                            seed: request_seed(self.config.seed, &input.name, at.index as usize, rollout),
                            label: format!("{} {} rollout {rollout}", input.name, row.id),
                            number,
                        }),
                    };
                    number += 1;
                    over |= send.blocking_send(pending).is_err();
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Outcome that a worker reports.
enum Outcome {
    /// Number of answers that need no request.
    Known(u64),
    /// An answer is in the store.
    Answered,
    /// There is no answer for this key.
    Missing(Key, NoAnswer),
    /// The request failed in a way that indicates a failing server.
    Down(Key, String),
    /// No request can succeed.
    Fatal(Error),
}

/// Requests one answer and stores it.
async fn one(endpoint: &Endpoint, store: &RunStore, teacher: &EndpointConfig, pending: PendingRequest) -> Outcome {
    let PendingRequest { key, question, seed, label, number } = pending;
    let body = match question.body(teacher, seed) {
        Ok(body) => body,
        Err(bad) => return bad.of_row().map_or_else(Outcome::Fatal, |bad| Outcome::Missing(key, NoAnswer::Bad(bad))),
    };
    match endpoint.complete(&body, number).await {
        Ok(completion) if completion.text.trim().is_empty() => Outcome::Missing(key, NoAnswer::Empty(completion)),
        Ok(completion) => match store.get().and_then(|store| store.put(&key, &label, &completion)) {
            Ok(()) => Outcome::Answered,
            Err(error) => Outcome::Fatal(error),
        },
        Err(Failure::Fatal(error)) => Outcome::Fatal(error),
        Err(Failure::Refused(what)) => Outcome::Missing(key, NoAnswer::Failed(what)),
        Err(Failure::Passing(what, _)) => Outcome::Down(key, what),
    }
}

/// Progress of the requests.
struct Tally {
    url: String,
    missing: HashMap<Key, NoAnswer>,
    done: u64,
    answered: u64,
    failed: u64,
    /// Number of consecutive failures (`in_a_row`), and the number at which the stage gives up (`patience`).
    in_a_row: usize,
    patience: usize,
    last: String,
}

impl Tally {
    fn new(endpoint: &Endpoint) -> Tally {
        let (url, patience) = (endpoint.url(), (4 * endpoint.concurrency()).max(16));
        let (missing, last) = (HashMap::new(), String::new());
        Tally { url, missing, done: 0, answered: 0, failed: 0, in_a_row: 0, patience, last }
    }

    /// Counts the outcome of a request. Returns an error if all requests must stop.
    fn take(&mut self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Known(count) => {
                self.done += count;
                self.answered += count;
                return Ok(());
            }
            Outcome::Answered => (self.answered, self.in_a_row) = (self.answered + 1, 0),
            Outcome::Missing(key, missing) => {
                match &missing {
                    NoAnswer::Failed(what) => (self.failed, self.last) = (self.failed + 1, what.clone()),
                    NoAnswer::Empty(_) => (self.answered, self.in_a_row) = (self.answered + 1, 0),
                    NoAnswer::Bad(_) => {}
                }
                self.missing.insert(key, missing);
            }
            Outcome::Down(key, what) => {
                (self.failed, self.in_a_row, self.last) = (self.failed + 1, self.in_a_row + 1, what.clone());
                self.missing.insert(key, NoAnswer::Failed(what));
            }
            Outcome::Fatal(error) => return Err(error),
        }
        self.done += 1;
        if self.in_a_row >= self.patience { self.down() } else { Ok(()) }
    }

    /// Checks the result after the last request. Returns an error if requests failed and none was answered.
    fn over(&self) -> Result<()> {
        if self.answered == 0 && self.failed > 0 { self.down() } else { Ok(()) }
    }

    fn down(&self) -> Result<()> {
        let what =
            format!("{} requests failed, the last: {}; run the same command again to continue", self.failed, self.last);
        Err(Error::Server { url: self.url.clone(), what })
    }
}

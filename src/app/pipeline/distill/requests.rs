//! Requests the missing answers from a teacher. Rows are streamed, many requests run concurrently, and each answer is
//! stored as soon as it arrives.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::pipeline::distill::question::{Question, request_seed};
use crate::pipeline::stage::Work;
use omr_base::answers::{Key, RunStore};
use omr_base::client::{Completion, Endpoint, Failure, InFlight};
use omr_base::config::{DistillConfig, EndpointConfig};
use omr_base::error::{Error, Result};
use omr_data::rows::forms::answer::label;
use omr_data::rows::{BadRow, Rejected, RejectedRows};

/// Reason why there is no answer to store.
pub enum NoAnswer {
    /// The request failed; contains the last error. Another run sends it again.
    Failed(String),
    /// The server refused the request, for example because the prompt is too long, and would refuse it again.
    Refused(String),
    /// The teacher's answer was empty. It is not stored, so another run requests it again.
    Empty(Completion),
    /// The row cannot be converted to a request.
    Bad(BadRow),
}

/// The stage with its settings, and the connection to the teacher.
pub struct Distill<'a> {
    /// Settings of the stage.
    pub config: &'a DistillConfig,
    /// Settings of the teacher.
    pub teacher: &'a EndpointConfig,
    /// Connection to the teacher.
    pub endpoint: Arc<Endpoint>,
}

impl Distill<'_> {
    /// Requests answers for every row of `work` that has a label but no answer in `store`. Returns, by key, the answers
    /// that are still missing.
    ///
    /// Returns an error if too many rows are bad, if the server refuses everything or many requests in a row fail, or
    /// if the user stops. Answers received before are in the store.
    pub fn request_all(&self, work: &Work, store: &Arc<RunStore>) -> Result<HashMap<Key, NoAnswer>> {
        let (runtime, observer) = ((work.machine.runtime)()?, work.machine.observer);
        observer.begin(work.kind, "answers", (work.rows() * self.config.num_rollouts) as u64, 0);
        let mut tally = Tally { url: self.endpoint.url(), patience: self.endpoint.patience(), ..Tally::default() };
        let mut requests = InFlight::new(&runtime, observer, self.endpoint.concurrency(), |outcome| {
            tally.take(outcome?)?;
            observer.step(tally.done, &[("failed", tally.failed as f64)]);
            Ok(())
        });
        self.send(work, store, &mut requests)?;
        requests.finish()?;
        drop(requests);
        tally.over()?;
        observer.end();
        let count = |which: fn(&NoAnswer) -> bool| tally.missing.values().filter(|missing| which(missing)).count();
        let refused = count(|missing| matches!(missing, NoAnswer::Refused(_)));
        let failed = count(|missing| matches!(missing, NoAnswer::Failed(_) | NoAnswer::Empty(_)));
        let kind = work.kind;
        if refused > 0 {
            observer.note(&format!("{kind}: the server refused {refused} requests (see rejected.jsonl)"));
        }
        if failed > 0 {
            observer.note(&format!("{kind}: {failed} requests failed; run the same command again to repeat them"));
        }
        Ok(tally.missing)
    }

    /// Sends the missing requests in the order of the rows.
    fn send<F: FnMut(Result<Outcome>) -> Result<()>>(
        &self,
        work: &Work,
        run_store: &Arc<RunStore>,
        requests: &mut InFlight<'_, Result<Outcome>, F>,
    ) -> Result<()> {
        let store = run_store.get()?;
        // Rows with the same content are requested once.
        let mut seen: HashSet<Key> = HashSet::new();
        let mut number = 0;
        let mut bad = RejectedRows { rows: work.rows() as u64, rejected: Vec::new() };
        for (set, input) in work.inputs.iter().enumerate() {
            input.for_each(|at, row| {
                work.machine.observer.check_stop()?;
                let n = self.config.num_rollouts;
                let labelled = row.and_then(|row| match label(&row) {
                    None => Ok(None),
                    Some(_) => Question::new(&row, self.config.teacher_system_prompt.as_deref())
                        .map(|question| Some((Arc::new(question), row))),
                });
                let (question, row) = match labelled {
                    Ok(Some(found)) => found,
                    Ok(None) => return (requests.take)(Ok(Outcome::Skipped(n as u64))),
                    Err(fault) => {
                        (requests.take)(Ok(Outcome::Skipped(n as u64)))?;
                        let BadRow { reason, id, error } = fault.of_row()?;
                        let detail = error.to_string();
                        bad.rejected.push(Rejected { dataset: set as u32, index: at.index, id, reason, detail });
                        // The answers in flight are stored before the stage ends.
                        let refused = bad.check(self.config.stage.max_bad_rows);
                        return refused.or_else(|error| requests.finish().and(Err(error)));
                    }
                };
                for rollout in 0..n {
                    let key = question.key(self.teacher, self.config.seed, rollout);
                    if !seen.insert(key) || store.get(&key)?.is_some() {
                        (requests.take)(Ok(Outcome::Known))?;
                    } else {
                        let seed = request_seed(self.config.seed, &input.name, at.index as usize, rollout);
                        let label = format!("{} {} rollout {rollout}", input.name, row.id);
                        requests.send(self.request(run_store, key, &question, seed, label, number))?;
                    }
                    number += 1;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Requests one answer and stores it. Returns an error if no request can succeed.
    fn request(
        &self,
        store: &Arc<RunStore>,
        key: Key,
        question: &Arc<Question>,
        seed: u64,
        label: String,
        number: usize,
    ) -> impl Future<Output = Result<Outcome>> + Send + use<> {
        let (endpoint, store) = (self.endpoint.clone(), store.clone());
        let (teacher, question) = (self.teacher.clone(), question.clone());
        async move {
            let body = match question.body(&teacher, seed) {
                Ok(body) => body,
                Err(bad) => return Ok(Outcome::Missing(key, NoAnswer::Bad(bad.of_row()?))),
            };
            Ok(match endpoint.complete(&body, number).await {
                Ok(completion) if completion.text.trim().is_empty() => {
                    Outcome::Missing(key, NoAnswer::Empty(completion))
                }
                Ok(completion) => {
                    store.get()?.put(&key, &label, &completion)?;
                    Outcome::Answered
                }
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Refused(what)) => Outcome::Missing(key, NoAnswer::Refused(what)),
                Err(Failure::Passing(what, _)) => Outcome::Down(key, what),
            })
        }
    }
}

/// Outcome of a request, or of answers that need none.
enum Outcome {
    /// Number of answers of a row that cannot be requested.
    Skipped(u64),
    /// An answer is in the store, or was requested for an equal row.
    Known,
    /// An answer is in the store.
    Answered,
    /// There is no answer for this key.
    Missing(Key, NoAnswer),
    /// The request failed in a way that indicates a failing server.
    Down(Key, String),
}

/// Number of refused requests without one answer at which the stage gives up.
const HOPELESS: u64 = 1000;

/// Progress of the requests.
#[derive(Default)]
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
    /// Counts the outcome of a request. Returns an error if all requests must stop.
    fn take(&mut self, outcome: Outcome) -> Result<()> {
        match outcome {
            Outcome::Skipped(count) => {
                self.done += count;
                return Ok(());
            }
            Outcome::Known => self.answered += 1,
            Outcome::Answered => (self.answered, self.in_a_row) = (self.answered + 1, 0),
            Outcome::Missing(key, missing) => {
                match &missing {
                    NoAnswer::Failed(what) | NoAnswer::Refused(what) => {
                        (self.failed, self.last) = (self.failed + 1, what.clone())
                    }
                    NoAnswer::Empty(_) => (self.answered, self.in_a_row) = (self.answered + 1, 0),
                    NoAnswer::Bad(_) => {}
                }
                self.missing.insert(key, missing);
            }
            Outcome::Down(key, what) => {
                (self.failed, self.in_a_row, self.last) = (self.failed + 1, self.in_a_row + 1, what.clone());
                self.missing.insert(key, NoAnswer::Failed(what));
            }
        }
        self.done += 1;
        let is_hopeless = self.answered == 0 && self.failed >= HOPELESS;
        if self.in_a_row >= self.patience || is_hopeless { self.down() } else { Ok(()) }
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

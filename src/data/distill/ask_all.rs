//! Many requests to a teacher: bounded concurrency, answers in order, and a cache on disk that outlives the run.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{Completion, Endpoint, Failure};
use crate::data::distill::LOOK;
use crate::data::distill::cache::Cache;
use crate::error::{Error, Result};
use crate::observe::Observer;

/// What became of a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Answered, now or by an earlier run.
    Given(Completion),
    /// Failed for good: what happened last.
    Failed(String),
}

/// A request to be sent.
pub struct Request {
    /// Says which it is, in the cache.
    pub label: String,
    /// The body, JSON.
    pub body: Arc<str>,
}

/// Builds request i; called on any thread, at most once for each i.
pub type Build = dyn Fn(usize) -> Result<Request> + Send + Sync;

/// Sends requests `0..count`, those the cache has no answer to, and gives the answers in their order.
/// An answer is in the cache before the next is waited for; an empty one is not kept there, so that another run asks
/// again. Errors when a request cannot be built, when the server refuses everything or fails for one request after
/// another (what was answered stays in the cache), and when the user stops.
pub async fn ask_all(
    endpoint: Arc<Endpoint>,
    stage: &str,
    count: usize,
    build: Arc<Build>,
    cache: &mut Cache,
    observer: &dyn Observer,
) -> Result<Vec<Answer>> {
    let mut tally = Tally::new(&endpoint, count);
    let (known, next) = (cache.known(), Arc::new(AtomicUsize::new(0)));
    let (send, mut receive) = mpsc::channel(1024);
    let mut workers = JoinSet::new();
    for _ in 0..endpoint.concurrency().min(count) {
        let (endpoint, build, known, next, send) =
            (endpoint.clone(), build.clone(), known.clone(), next.clone(), send.clone());
        workers.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count || send.send(ask(&endpoint, &build, &known, i).await).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(send);

    observer.begin(stage, "answers", count as u64, 0);
    let outcome: Result<()> = async {
        while tally.done < count as u64 {
            if observer.stop_requested() {
                return Err(Error::Stopped);
            }
            let Ok(received) = tokio::time::timeout(LOOK, receive.recv()).await else { continue };
            let Some(outcome) = received else {
                return Err(Error::Failed(format!("{stage}: a worker died")));
            };
            tally.take(outcome, cache)?;
            observer.step(tally.done, &[("failed", tally.failed as f64)]);
        }
        Ok(())
    }
    .await;
    if outcome.is_err() {
        // What had been answered is not asked again.
        while let Ok(outcome) = receive.try_recv() {
            if let Outcome { key: Some(key), result: Ok(completion), .. } = outcome {
                keep(cache, key, &completion)?;
            }
        }
    }
    outcome?;
    observer.end();
    let failed = tally.failed;
    if failed > 0 {
        observer.note(&format!("{stage}: {failed} of {count} requests failed; run again to ask them again"));
    }
    Ok(tally.answers.into_iter().flatten().collect())
}

/// What became of request `i`, from the cache or from the server.
async fn ask(endpoint: &Endpoint, build: &Arc<Build>, known: &HashMap<String, Completion>, i: usize) -> Outcome {
    let request = match build(i) {
        Err(error) => return Outcome { i, key: None, result: Err(Failure::Fatal(error)) },
        Ok(request) => request,
    };
    let key = Cache::key(&request.body);
    match known.get(&key) {
        Some(completion) => Outcome { i, key: None, result: Ok(completion.clone()) },
        None => {
            let result = endpoint.complete(&request.body, i).await;
            Outcome { i, key: Some((key, request.label)), result }
        }
    }
}

/// Puts an answer into the cache, an empty one aside.
fn keep(cache: &mut Cache, (key, label): (String, String), completion: &Completion) -> Result<()> {
    match completion.text.trim().is_empty() {
        true => Ok(()),
        false => cache.add(&key, &label, completion),
    }
}

/// The answers so far, and how it goes.
struct Tally {
    url: String,
    answers: Vec<Option<Answer>>,
    done: u64,
    answered: u64,
    failed: u64,
    /// Failures one after another, and how many of them are one too many.
    in_a_row: usize,
    patience: usize,
    last: String,
}

impl Tally {
    fn new(endpoint: &Endpoint, count: usize) -> Tally {
        Tally {
            url: endpoint.url().to_owned(),
            answers: vec![None; count],
            done: 0,
            answered: 0,
            failed: 0,
            in_a_row: 0,
            patience: (4 * endpoint.concurrency()).max(16),
            last: String::new(),
        }
    }

    /// Takes what became of a request. Errors when it is for all of them to stop.
    fn take(&mut self, outcome: Outcome, cache: &mut Cache) -> Result<()> {
        let Outcome { i, key, result } = outcome;
        self.answers[i] = Some(match result {
            Ok(completion) => {
                (self.answered, self.in_a_row) = (self.answered + 1, 0);
                if let Some(key) = key {
                    keep(cache, key, &completion)?;
                }
                Answer::Given(completion)
            }
            Err(Failure::Fatal(error)) => return Err(error),
            Err(Failure::Refused(what)) => self.fail(what, 0),
            Err(Failure::Passing(what, _)) => self.fail(what, 1),
        });
        self.done += 1;
        let all_failed = self.done == self.answers.len() as u64 && self.answered == 0 && self.failed > 0;
        if self.in_a_row >= self.patience || all_failed {
            let what = format!("{} requests failed, the last: {}; run again to go on", self.failed, self.last);
            return Err(Error::Server { url: self.url.clone(), what });
        }
        Ok(())
    }

    /// A failure, `in_a_row` 1 when it speaks against the server.
    fn fail(&mut self, what: String, in_a_row: usize) -> Answer {
        (self.failed, self.in_a_row) = (self.failed + 1, self.in_a_row + in_a_row);
        self.last.clone_from(&what);
        Answer::Failed(what)
    }
}

struct Outcome {
    i: usize,
    /// Key and label, when the answer is not in the cache.
    key: Option<(String, String)>,
    result: std::result::Result<Completion, Failure>,
}

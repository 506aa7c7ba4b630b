//! Many requests to a teacher: bounded concurrency, answers in order, and a cache on disk that outlives the run.

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
    let url = endpoint.url().to_owned();
    let patience = (4 * endpoint.concurrency()).max(16);
    let (known, next) = (cache.known(), Arc::new(AtomicUsize::new(0)));
    let (send, mut receive) = mpsc::channel(1024);
    let mut workers = JoinSet::new();
    for _ in 0..endpoint.concurrency().min(count) {
        let (endpoint, build, known, next, send) =
            (endpoint.clone(), build.clone(), known.clone(), next.clone(), send.clone());
        workers.spawn(async move {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= count {
                    return;
                }
                let outcome = match build(i) {
                    Err(error) => Outcome { i, key: None, result: Err(Failure::Fatal(error)) },
                    Ok(request) => {
                        let key = Cache::key(&request.body);
                        match known.get(&key) {
                            Some(completion) => Outcome { i, key: None, result: Ok(completion.clone()) },
                            None => {
                                let result = endpoint.complete(&request.body, i).await;
                                Outcome { i, key: Some((key, request.label)), result }
                            }
                        }
                    }
                };
                if send.send(outcome).await.is_err() {
                    return;
                }
            }
        });
    }
    drop(send);

    let mut answers: Vec<Option<Answer>> = vec![None; count];
    let (mut done, mut failed, mut in_a_row, mut answered) = (0u64, 0u64, 0, 0u64);
    let mut last = String::new();
    observer.begin(stage, "answers", count as u64, 0);
    let outcome: Result<()> = async {
        while done < count as u64 {
            if observer.stop_requested() {
                return Err(Error::Stopped);
            }
            let Ok(received) = tokio::time::timeout(LOOK, receive.recv()).await else { continue };
            let Some(Outcome { i, key, result }) = received else {
                return Err(Error::Failed(format!("{stage}: a worker died")));
            };
            answers[i] = Some(match result {
                Ok(completion) => {
                    (answered, in_a_row) = (answered + 1, 0);
                    if let Some((key, label)) = key.filter(|_| !completion.text.trim().is_empty()) {
                        cache.add(&key, &label, &completion)?;
                    }
                    Answer::Given(completion)
                }
                Err(Failure::Fatal(error)) => return Err(error),
                Err(Failure::Refused(what)) => {
                    failed += 1;
                    last.clone_from(&what);
                    Answer::Failed(what)
                }
                Err(Failure::Passing(what, _)) => {
                    (failed, in_a_row) = (failed + 1, in_a_row + 1);
                    last.clone_from(&what);
                    Answer::Failed(what)
                }
            });
            done += 1;
            if in_a_row >= patience || (done == count as u64 && answered == 0 && failed > 0) {
                let what = format!("{failed} requests failed, the last: {last}; run again to go on");
                return Err(Error::Server { url, what });
            }
            observer.step(done, &[("failed", failed as f64)]);
        }
        Ok(())
    }
    .await;
    if outcome.is_err() {
        // What had been answered is not asked again.
        while let Ok(outcome) = receive.try_recv() {
            if let Outcome { key: Some((key, label)), result: Ok(completion), .. } = outcome
                && !completion.text.trim().is_empty()
            {
                cache.add(&key, &label, &completion)?;
            }
        }
    }
    outcome?;
    observer.end();
    if failed > 0 {
        observer.note(&format!("{stage}: {failed} of {count} requests failed; run again to ask them again"));
    }
    Ok(answers.into_iter().flatten().collect())
}

struct Outcome {
    i: usize,
    /// Key and label, when the answer is not in the cache.
    key: Option<(String, String)>,
    result: std::result::Result<Completion, Failure>,
}

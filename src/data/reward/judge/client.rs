//! Client of a judge on a server. Equal requests are sent once, verdicts are stored beyond the run, and repeated
//! failures of the server end the run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, Semaphore};

use super::{Inquiry, Judged, Reply, Request, Ruling, body, rating, start};
use crate::reward::Score;
use omr_base::answers::{Key, RunStore, Store};
use omr_base::client::{Endpoint, Failure};
use omr_base::config::{JudgeConfig, Mode, Rubric};
use omr_base::error::{Error, Result};

/// Condition on replies that are stored.
type Usable = fn(&Reply) -> bool;

/// Connection to a judge. Clones share all state.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    config: JudgeConfig,
    endpoint: Endpoint,
    store: Option<Arc<RunStore>>,
    /// Replies by the key of the request. Equal requests share one cell, so that only one of them is sent.
    asked: Mutex<HashMap<Key, Arc<OnceCell<Reply>>>>,
    permits: Semaphore,
    breaker: Mutex<Breaker>,
    /// Number of requests to the server, without retries.
    sent: AtomicU64,
}

/// Circuit breaker: the number of failures since the last answer and, once the breaker is open, the reason why no more
/// requests are sent.
#[derive(Default)]
struct Breaker {
    failures: usize,
    open: Option<String>,
}

impl Client {
    /// Creates a client and checks the addresses. Verdicts are stored in the config's cache file if it is set,
    /// otherwise in `store`. `place` names the config key for errors.
    pub fn new(config: &JudgeConfig, place: &str, store: Option<Arc<RunStore>>) -> Result<Client> {
        config.check(|key| format!("{place}.{key}"))?;
        let deadline = Duration::try_from_secs_f64(config.deadline_s)
            .map_err(|e| Error::input(format!("{place}.deadline_s"), config.deadline_s.to_string(), e.to_string()))?;
        let endpoint = Endpoint::new(&config.endpoint(), place)?.with_deadline(deadline);
        let shared = config.cache.as_deref().map(Store::shared).transpose()?;
        let store = shared.map(RunStore::of).or(store);
        Ok(Client(Arc::new(Shared {
            permits: Semaphore::new(config.concurrency.min(Semaphore::MAX_PERMITS)),
            config: config.clone(),
            endpoint,
            store,
            asked: Mutex::default(),
            breaker: Mutex::default(),
            sent: AtomicU64::new(0),
        })))
    }

    /// Returns the name of the model.
    pub fn model(&self) -> &str {
        &self.0.config.model
    }

    /// Returns the server's address.
    pub fn url(&self) -> String {
        self.0.endpoint.url()
    }

    /// Returns the maximum number of concurrent requests in the config.
    pub fn concurrency(&self) -> usize {
        self.0.config.concurrency
    }

    /// Sends the necessary requests about a response. `score` is the score of the rules.
    pub async fn score(
        &self,
        score: Score,
        response: &str,
        ground_truth: &str,
        question: Option<&str>,
        rubric: impl Into<Rubric>,
    ) -> Result<Judged> {
        let mut inquiry = Inquiry::new(score, response, ground_truth, question, rubric.into());
        loop {
            let Some(request) = inquiry.request() else { return Ok(inquiry.judged()) };
            let reply = self.ask(&request).await?;
            inquiry.record_reply(&reply);
        }
    }

    /// Returns the score that the judge gives to a response, from 1 to 10. `score` is the score of the rules, with the
    /// answer that is sent.
    pub async fn rate(&self, score: Score, label: &str, question: Option<&str>, rubric: Rubric) -> Result<Judged> {
        let request = Request { question, ground_truth: label, prediction: &score.predict_str, full_response: false };
        let body = body(&self.0.config, request.rating_prompt()).to_string();
        let is_score = |reply: &Reply| matches!(reply, Reply::Said(text) if rating::of(text, Mode::Strict).is_some());
        let reply = self.send(&request, body, is_score).await?;
        Ok(rating::judged(score, &reply, rubric))
    }

    /// Returns the reply to one request. Returns an error if the server refuses everything, if too many requests in a
    /// row failed, or if a verdict cannot be stored.
    pub async fn ask(&self, request: &Request<'_>) -> Result<Reply> {
        let is_verdict = |reply: &Reply| matches!(Ruling::of(reply, Mode::Strict), Ruling::Said(_));
        self.send(request, request.payload(&self.0.config)?.to_string(), is_verdict).await
    }

    /// Sends `body`. Only replies that are `usable` are stored.
    async fn send(&self, request: &Request<'_>, body: String, usable: Usable) -> Result<Reply> {
        let key = Key::new(&self.0.config.model, body.as_bytes(), "judge");
        let cell = self.asked().entry(key).or_default().clone();
        let reply = cell.get_or_try_init(|| self.fetch(&key, request, body.into(), usable)).await?.clone();
        if !usable(&reply) {
            // A reply without a verdict is forgotten, so a later request is sent again.
            let mut asked = self.asked();
            if asked.get(&key).is_some_and(|other| Arc::ptr_eq(other, &cell)) {
                asked.remove(&key);
            }
        }
        Ok(reply)
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<OnceCell<Reply>>>> {
        self.0.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fetch(&self, key: &Key, request: &Request<'_>, body: Arc<str>, usable: Usable) -> Result<Reply> {
        if let Some(store) = &self.0.store
            && let Some(answer) = store.get()?.get(key)?
        {
            return Ok(Reply::Said(answer.text));
        }
        // The semaphore is never closed, so this cannot fail.
        let _permit = self.0.permits.acquire().await.map_err(|e| Error::Failed(e.to_string()))?;
        self.closed()?;
        let item = self.0.sent.fetch_add(1, Ordering::Relaxed);
        let reply = self.0.endpoint.complete(&body, item as usize).await;
        let mut breaker = self.0.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let reply = match reply {
            Ok(completion) => {
                breaker.failures = 0;
                let reply = Reply::Said(completion.text.clone());
                if let Some(store) = self.0.store.as_ref().filter(|_| usable(&reply)) {
                    let label = format!("judge: {:?} for {:?}", start(request.prediction), start(request.ground_truth));
                    store.get()?.put(key, &label, &completion)?;
                }
                reply
            }
            Err(Failure::Fatal(error)) => {
                breaker.open = Some(match &error {
                    Error::Server { what, .. } => what.clone(),
                    other => other.to_string(),
                });
                return Err(error);
            }
            Err(Failure::Passing(what, _) | Failure::Refused(what)) => {
                breaker.failures += 1;
                if breaker.failures >= self.0.config.max_failures {
                    let n = breaker.failures;
                    breaker.open = Some(format!("{n} consecutive requests to the judge failed, the last: {what}"));
                }
                Reply::Failed(what)
            }
        };
        drop(breaker);
        // Checked after the verdict is stored, because another request may have opened the breaker meanwhile.
        self.closed()?;
        Ok(reply)
    }

    /// Returns an error if the breaker is open.
    fn closed(&self) -> Result<()> {
        let breaker = self.0.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        match &breaker.open {
            None => Ok(()),
            Some(what) => Err(Error::Server {
                url: self.url(),
                what: format!("{what}; the verdicts so far are stored: run the same command again to continue"),
            }),
        }
    }
}

//! A client of OpenAI-compatible servers: bounded concurrency, time-outs, retries with growing random waits, several
//! addresses, and a cache on disk that outlives the run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::config::EndpointConfig;
use crate::data::distill::cache::Cache;
use crate::error::{Error, Result};
use crate::observe::Observer;

/// The first wait before a retry; it doubles each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait before a retry, also when the server asks for a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often a stop by the user is looked for while nothing arrives.
const LOOK: Duration = Duration::from_millis(100);

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// What it said; reasoning that the server split off stands in front in think tags.
    pub text: String,
    /// `stop`, `length` or whatever else ended it.
    pub finish_reason: String,
    /// Tokens of the prompt, by the server's count.
    pub prompt_tokens: u64,
    /// Tokens of the answer, by the server's count.
    pub completion_tokens: u64,
}

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

/// A server, or several that serve the same model.
pub struct Endpoint {
    client: reqwest::Client,
    config: EndpointConfig,
    urls: Vec<String>,
}

enum Failure {
    /// Worth another try: what happened, and how long the server asks to wait.
    Passing(String, Option<Duration>),
    /// This request is refused and will be again.
    Refused(String),
    /// Every request will fail.
    Fatal(Error),
}

impl Endpoint {
    /// Checks the addresses. `place` names the config key, for errors.
    pub fn new(config: &EndpointConfig, place: &str) -> Result<Endpoint> {
        if config.base_url.is_empty() {
            return Err(Error::input(format!("{place}.base_url"), "nothing", "the server's address up to /v1"));
        }
        let mut local = true;
        for url in &config.base_url {
            let parsed = reqwest::Url::parse(url)
                .ok()
                .filter(|u| ["http", "https"].contains(&u.scheme()) && u.host_str().is_some())
                .ok_or_else(|| Error::input(format!("{place}.base_url"), url, "an http or https address up to /v1"))?;
            local &=
                parsed.scheme() == "http" && matches!(parsed.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        }
        // A second caller finds it installed, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let timeout = Duration::try_from_secs_f64(config.timeout_s)
            .map_err(|e| Error::input(format!("{place}.timeout_s"), config.timeout_s.to_string(), e.to_string()))?;
        let mut client = reqwest::Client::builder()
            .timeout(timeout)
            .connect_timeout(timeout.min(Duration::from_secs(30)))
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(config.concurrency);
        if local {
            client = client.no_proxy();
        }
        let client = client.build().map_err(|e| Error::Failed(format!("{place}: {}", chain(&e))))?;
        let urls = config.base_url.iter().map(|u| format!("{}/chat/completions", u.trim_end_matches('/'))).collect();
        Ok(Endpoint { client, config: config.clone(), urls })
    }

    /// Sends a body, as often as it takes. `item` spreads requests over the addresses.
    async fn complete(&self, body: &Arc<str>, item: usize) -> std::result::Result<Completion, Failure> {
        let mut attempt = 0;
        loop {
            let url = &self.urls[(item + attempt) % self.urls.len()];
            let failure = match self.once(url, body).await {
                Err(Failure::Passing(what, after)) if attempt < self.config.max_retries => {
                    tracing::debug!("{url}: {what}; trying again");
                    after
                }
                done => return done,
            };
            let doubled = FIRST_WAIT.saturating_mul(1 << attempt.min(16)).mul_f64(jitter());
            tokio::time::sleep(failure.unwrap_or(doubled).min(LONGEST_WAIT)).await;
            attempt += 1;
        }
    }

    async fn once(&self, url: &str, body: &Arc<str>) -> std::result::Result<Completion, Failure> {
        let passing = |e: reqwest::Error| Failure::Passing(chain(&e), None);
        let mut request =
            self.client.post(url).header("content-type", "application/json").body(body.as_bytes().to_vec());
        if let Some(key) = &self.config.api_key.0 {
            request = request.bearer_auth(key);
        }
        let reply = request.send().await.map_err(passing)?;
        let status = reply.status();
        let seconds = reply.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let bytes = reply.bytes().await.map_err(passing)?;
        if status.is_success() {
            return completion(&bytes).map_err(|what| Failure::Passing(what, None));
        }
        let said = String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).trim().to_owned();
        let what = format!("status {status}: {said}");
        Err(match status.as_u16() {
            401 | 403 | 404 | 405 => Failure::Fatal(Error::Server { url: url.to_owned(), what }),
            408 | 425 | 429 | 500.. => Failure::Passing(what, seconds.map(Duration::from_secs)),
            _ => Failure::Refused(what),
        })
    }
}

/// Between a half and one and a half, by the clock: clients that failed together must not come back together.
fn jitter() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.subsec_nanos());
    0.5 + f64::from(now % 1_000_003) / 1_000_003.0
}

/// An error with its causes: reqwest's own text names the address alone.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

fn completion(bytes: &[u8]) -> std::result::Result<Completion, String> {
    let reply: Value = serde_json::from_slice(bytes).map_err(|e| format!("the reply is not JSON: {e}"))?;
    let choice = reply["choices"].get(0).ok_or("the reply has no choices")?;
    let message = choice.get("message").filter(|m| m.is_object()).ok_or("the reply's choice has no message")?;
    let text = match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        _ => return Err("the reply's content is not a text".to_owned()),
    };
    let reasoning = message["reasoning_content"].as_str().or(message["reasoning"].as_str()).unwrap_or_default();
    let text = match reasoning.is_empty() || text.contains("<think>") {
        true => text,
        false => format!("<think>{reasoning}</think>{text}"),
    };
    let count = |name: &str| reply["usage"][name].as_u64().unwrap_or_default();
    Ok(Completion {
        text,
        finish_reason: choice["finish_reason"].as_str().unwrap_or("stop").to_owned(),
        prompt_tokens: count("prompt_tokens"),
        completion_tokens: count("completion_tokens"),
    })
}

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
    let url = endpoint.urls[0].clone();
    let patience = (4 * endpoint.config.concurrency).max(16);
    let (known, next) = (cache.known(), Arc::new(AtomicUsize::new(0)));
    let (send, mut receive) = mpsc::channel(1024);
    let mut workers = JoinSet::new();
    for _ in 0..endpoint.config.concurrency.min(count) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read_with_split_off_reasoning() {
        let read = |text: &str| completion(text.as_bytes());
        let plain = read(
            r#"{"choices":[{"message":{"content":"x"},"finish_reason":"length"}],"usage":{"completion_tokens":3}}"#,
        );
        let plain = plain.unwrap();
        assert_eq!((plain.text.as_str(), plain.finish_reason.as_str(), plain.completion_tokens), ("x", "length", 3));
        let split = read(r#"{"choices":[{"message":{"content":"<answer>2</answer>","reasoning_content":"1+1"}}]}"#);
        assert_eq!(split.unwrap().text, "<think>1+1</think><answer>2</answer>");
        for broken in
            ["", "{", "{}", r#"{"choices":[]}"#, r#"{"choices":[{}]}"#, r#"{"choices":[{"message":{"content":5}}]}"#]
        {
            assert!(read(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn addresses_are_checked() {
        for bad in [vec![], vec!["localhost:8000".to_owned()], vec!["ftp://x/v1".to_owned()]] {
            let config = EndpointConfig { base_url: bad, model: "m".into(), ..EndpointConfig::default() };
            assert!(Endpoint::new(&config, "teacher").is_err_and(|e| e.to_string().contains("teacher.base_url")));
        }
    }
}

//! The request handlers' side of the engine thread: sends requests and cancels them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::time::Instant;

use axum::http::StatusCode;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::errors::{Api, ApiError};
use omr_base::error::Error;
use omr_model::engine::{EngineCoreOutput, EngineCoreRequest};

/// Seconds after which a client may try again when the queue is full.
const RETRY_AFTER: u32 = 2;

/// Number of prompts that may wait.
const QUEUE: usize = 1024;
/// Maximum number of log-probs in an answer.
pub const MOST_LOGPROBS: usize = 1 << 22;
/// Maximum number of log-probs in all answers that are not yet sent. Each takes up to 60 bytes.
const LOGPROBS: usize = 4 * MOST_LOGPROBS;

/// Number of one prompt of a request, unique in the process.
pub type Ticket = u64;

/// A message to the engine thread.
pub enum Command {
    /// Answer a prompt.
    Add(Box<Addition>),
    /// Nobody will send further commands.
    Finish,
    /// A choice of a prompt has reached a stop string.
    AbortChoice(Ticket, usize),
    /// The client has gone away.
    Abort(Ticket),
    /// Change or report the state of the engine.
    Control(Control, oneshot::Sender<Api<Value>>),
}

/// A prompt to answer.
pub struct Addition {
    /// Number of the prompt.
    pub ticket: Ticket,
    /// The id of the request that the client knows.
    pub name: Arc<str>,
    /// The engine's request.
    pub request: EngineCoreRequest,
    /// Receives the results.
    pub events: mpsc::Sender<(Ticket, Event)>,
    /// True if each result is sent at once, false if the results of a choice are sent together when it ends. Waking the
    /// receiver for each token would take time from the threads that compute.
    pub is_immediate: bool,
    /// Results that are not sent yet.
    pub unsent: Vec<Event>,
    /// Number of choices that have not ended.
    pub unfinished: usize,
    /// The request's place in the queue, until all choices have ended: a client that does not read its answer keeps no
    /// place.
    pub permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// A result of a prompt.
pub enum Event {
    /// The engine has sampled a token at this time, or a choice has ended.
    Output(EngineCoreOutput, Instant),
    /// The engine refuses the prompt.
    Refused(Error),
    /// An administrator, or the end of the server, has ended the prompt.
    Aborted,
}

/// A request of an administrator.
#[derive(Debug)]
pub enum Control {
    /// Stop computing.
    Pause(PauseMode),
    /// Continue computing.
    Resume,
    /// Report whether the engine is paused.
    IsPaused,
    /// End the requests with these ids.
    AbortRequests(HashSet<String>),
    /// Read the weights of another model directory with the same configuration.
    UpdateWeights(std::path::PathBuf),
}

/// Treatment of the requests in flight at a pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PauseMode {
    /// They end with the finish reason `abort`.
    Abort,
    /// They are finished first.
    Wait,
    /// They continue after the pause.
    Keep,
}

/// States of the client: new requests are accepted in the first one only.
const ACCEPTING: u8 = 0;
const DRAINING: u8 = 1;
const DEAD: u8 = 2;

/// Sends requests to the engine thread.
pub struct EngineClient {
    commands: std_mpsc::Sender<Command>,
    /// One permit for each prompt that waits or runs.
    queue: Arc<Semaphore>,
    /// One permit for each log-prob of the answers that are not yet sent, which limits their memory.
    logprobs: Arc<Semaphore>,
    max_num_seqs: usize,
    /// Maximum number of tokens of an image.
    pub vision_rows: usize,
    next: AtomicU64,
    state: AtomicU8,
    names: Mutex<HashSet<Arc<str>>>,
}

impl EngineClient {
    /// Creates a client of an engine that runs `max_num_seqs` choices at once. The engine thread takes the commands.
    pub fn new(max_num_seqs: usize, vision_rows: usize) -> (EngineClient, std_mpsc::Receiver<Command>) {
        let (commands, inbox) = std_mpsc::channel();
        let client = EngineClient {
            commands,
            queue: Arc::new(Semaphore::new(max_num_seqs.saturating_add(QUEUE))),
            logprobs: Arc::new(Semaphore::new(LOGPROBS)),
            max_num_seqs,
            vision_rows,
            next: AtomicU64::new(0),
            state: AtomicU8::new(ACCEPTING),
            names: Mutex::default(),
        };
        (client, inbox)
    }

    /// Returns the maximum number of choices of a request.
    pub fn max_choices(&self) -> usize {
        self.max_num_seqs.saturating_add(QUEUE)
    }

    /// Returns true if a request with this number of choices must leave places to others.
    pub fn is_wide(&self, choices: usize) -> bool {
        choices > self.max_num_seqs / 16
    }

    /// Returns the right to have this number of log-probs in memory. Errors if all answers together would have too many.
    pub fn hold_logprobs(&self, count: usize) -> Api<OwnedSemaphorePermit> {
        let permit = self.logprobs.clone().try_acquire_many_owned(count as u32);
        permit.map_err(|_| full("log-probs of answers that are not yet sent fill the memory for them"))
    }

    /// Refuses new requests from now on. Those in flight are finished.
    pub fn drain(&self) {
        self.state.fetch_max(DRAINING, Ordering::Relaxed);
    }

    /// Records that the engine thread has ended.
    pub fn end(&self) {
        self.state.fetch_max(DEAD, Ordering::Relaxed);
    }

    /// Ends the engine thread. All requests must have ended.
    pub fn finish(&self) {
        // If the engine thread has ended, there is nothing to do.
        let _ = self.commands.send(Command::Finish);
    }

    /// Errors unless new requests are accepted.
    pub fn check(&self) -> Api<()> {
        let unavailable = |message: &str| ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, message, 30);
        match self.state.load(Ordering::Relaxed) {
            ACCEPTING => Ok(()),
            DRAINING => Err(unavailable("the server is shutting down and accepts no new requests")),
            _ => Err(unavailable("the engine has stopped")),
        }
    }

    /// Sends the prompts of a request, whose client knows it as `name`. If not `is_immediate`, the results of a choice
    /// arrive when it ends. Errors if the queue is full.
    pub fn submit(&self, name: &str, prompts: Vec<EngineCoreRequest>, is_immediate: bool) -> Api<Submitted> {
        self.check()?;
        let permit = self.queue.clone().try_acquire_many_owned(prompts.len() as u32);
        let permit = Arc::new(permit.map_err(|_| full("the queue of requests is full"))?);
        let name: Arc<str> = name.into();
        if !self.names().insert(name.clone()) {
            return Err(ApiError::field("request_id", format!("{name:?}, which is in flight"), "a unique id"));
        }
        // Results are never more than the tokens of all choices, so the channel cannot be full.
        let results: usize = prompts.iter().map(|prompt| prompt.n * (prompt.params.max_tokens + 2)).sum();
        let (events, results) = mpsc::channel(results.clamp(1, Semaphore::MAX_PERMITS));
        let first = self.next.fetch_add(prompts.len() as u64, Ordering::Relaxed);
        let tickets = first..first + prompts.len() as u64;
        let submitted = Submitted { tickets: tickets.clone(), results, commands: self.commands.clone() };
        for (ticket, request) in tickets.zip(prompts) {
            let (name, events, unsent, permit) = (name.clone(), events.clone(), Vec::new(), Some(permit.clone()));
            let unfinished = request.n;
            let addition = Addition { ticket, name, request, events, is_immediate, unsent, unfinished, permit };
            self.commands.send(Command::Add(Box::new(addition))).map_err(|_| ended())?;
        }
        Ok(submitted)
    }

    /// Forgets the id of a request that has ended, so that it may be used again.
    pub fn forget(&self, name: &str) {
        self.names().remove(name);
    }

    fn names(&self) -> std::sync::MutexGuard<'_, HashSet<Arc<str>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request of an administrator and waits for the result.
    pub async fn control(&self, control: Control) -> Api<Value> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Control(control, sender)).map_err(|_| ended())?;
        receiver.await.map_err(|_| ended())?
    }
}

fn full(what: &str) -> ApiError {
    ApiError::busy(StatusCode::TOO_MANY_REQUESTS, what, RETRY_AFTER)
}

fn ended() -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the engine has stopped")
}

/// A request in flight. If it is dropped, the engine cancels what is not finished.
pub struct Submitted {
    tickets: std::ops::Range<Ticket>,
    results: mpsc::Receiver<(Ticket, Event)>,
    commands: std_mpsc::Sender<Command>,
}

impl Submitted {
    /// Waits for the next result and returns it with the index of its prompt.
    pub async fn next(&mut self) -> Api<(usize, Event)> {
        let (ticket, event) = self.results.recv().await.ok_or_else(ended)?;
        Ok(((ticket - self.tickets.start) as usize, event))
    }

    /// Ends one choice of a prompt.
    pub fn abort_choice(&self, prompt: usize, choice: usize) {
        // If the engine thread has ended, nothing is left to abort.
        let _ = self.commands.send(Command::AbortChoice(self.tickets.start + prompt as u64, choice));
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        for ticket in self.tickets.clone() {
            let _ = self.commands.send(Command::Abort(ticket));
        }
    }
}

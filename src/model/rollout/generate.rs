//! Generates rollouts: runs questions through the engine and scores each response as soon as it ends.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::engine::scheduler::SchedulerStats;
use crate::engine::{CompletionOutput, Engine, EngineConfig, EngineCoreRequest, FinishReason, Prompt, RequestParams};
use crate::llm;
use crate::nn::{Model, ModelConfig};
use crate::rollout::journal::{self, Journal};
use omr_base::error::{Error, Result};
use omr_data::reward::judge::Ruling;
use omr_data::reward::{Judged, Score, typed};
use omr_data::rows::{Dataset, Encoder, Row, RowResult, Samples};
use omr_data::task::VerifiedRows;
use omr_data::text::Chat;
use omr_runtime::device::Device;

/// Interval for checking whether the user requested a stop while scores are pending.
const STOP_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// A question that is ready for generation.
#[derive(Clone, Debug)]
pub struct Question {
    /// Row of the question; its label is needed for the scores.
    pub row: Row,
    /// Tokens and images.
    pub prompt: Arc<Prompt>,
}

impl Question {
    /// Converts a row. Also returns the hash that [`Encoder::measure`] computes.
    pub fn new(encoder: &Encoder, config: &ModelConfig, row: Row) -> RowResult<(Question, u64)> {
        let (prompt, hash) = llm::prompt(encoder, config, &row)?;
        // The images are in the prompt; scoring needs only the text, and for places in an image its sizes.
        let mut extra = row.extra_info();
        if typed::is_of_places(&extra) {
            let size = config.grid().patch_size as u32;
            let seen = prompt.pixels.iter().map(|image| [image.grid_thw[2] * size, image.grid_thw[1] * size]);
            extra.insert(typed::PROCESSED_SIZES.to_owned(), json!(seen.collect::<Vec<_>>()));
        }
        let row = Row { extra, images: Vec::new(), ..row };
        Ok((Question { row, prompt: Arc::new(prompt) }, hash))
    }
}

/// Returns the rows of `data` as questions, which are created on request.
pub fn streamed(data: &Dataset, encoder: Encoder, config: ModelConfig) -> impl Samples<Question> + use<> {
    data.samples(move |row| Question::new(&encoder, &config, row))
}

/// One scored response.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Index of the question in the list of questions.
    pub question: usize,
    /// Tokens, log-probs and finish reason.
    pub output: CompletionOutput,
    /// Response as text, without the tokens that end it.
    pub response: String,
    /// Score of the response.
    pub score: Score,
    /// Verdict of the judge, if it was asked.
    pub judge: Option<Ruling>,
    /// The arithmetic with which the response was sampled, if it comes from a journal and this is another arithmetic
    /// than the device's.
    pub sampled_with: Option<String>,
}

/// Spans of time by the host's clock.
pub type Times = Vec<Range<Instant>>;

/// The rollouts of a request, and how they were made.
pub struct Generated {
    /// The rollouts, in the order of questions and rollouts.
    pub rollouts: Vec<Rollout>,
    /// The engine's statistics.
    pub stats: SchedulerStats,
    /// Time from the start to the end of sampling.
    pub sampling: Range<Instant>,
    /// Times during which at least one response waited for its score.
    pub scoring: Times,
}

/// Settings of a rollout request.
#[derive(Clone, Copy)]
pub struct RolloutRequest<'a> {
    /// Engine limits and allowed ids.
    pub engine: EngineConfig,
    /// Number of responses per question.
    pub n: usize,
    /// Parameters of the responses, with the noise of the question whose number is 0.
    pub params: &'a RequestParams,
    /// Tokenizer that decodes responses.
    pub chat: &'a Chat,
    /// Task that scores responses.
    pub task: &'a VerifiedRows,
    /// Recorded tokens of rollouts, by name. They are used as drafts, so that several tokens are verified at once.
    pub recorded: Option<&'a HashMap<journal::Name, Vec<u32>>>,
}

/// Numbers of the questions in their run. A number identifies its question in the sampling noise. Therefore the
/// rollouts of a question depend neither on the rank that generates them nor on the other questions of the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Numbers {
    /// Number of the first question.
    pub first: u64,
    /// Difference between the numbers of successive questions.
    pub every: u64,
}

impl Numbers {
    fn of(self, i: usize) -> u64 {
        self.first + i as u64 * self.every
    }
}

/// Message to the scorer's thread.
enum ScorerMessage {
    /// A response ended.
    Ended(usize, CompletionOutput),
    /// The response with this index has its score.
    Scored(usize, Result<Judged>),
    /// Generation failed or was stopped; pending scores are abandoned.
    GivenUp,
}

/// Generates `n` responses to each of `questions`, and scores them while generation continues. Errors if a
/// response receives no score.
///
/// - `numbers` identifies each question in the sampling noise.
/// - Rollouts in `journal` are reused, and new ones are added to it.
/// - `on_progress` receives the number of finished responses. `on_progress` is also called repeatedly while scores are
///   pending.
pub fn generate(
    dev: &mut Device,
    model: &Model,
    questions: &[&Question],
    numbers: Numbers,
    rollout_request: RolloutRequest<'_>,
    journal: Option<&mut Journal>,
    mut on_progress: impl FnMut(usize) -> Result<()>,
) -> Result<Generated> {
    let total = questions.len() * rollout_request.n;
    let name = |index: usize| (numbers.of(index / rollout_request.n), index % rollout_request.n);
    let known: Vec<Option<CompletionOutput>> =
        (0..total).map(|i| journal.as_ref()?.outputs.get(&name(i)).cloned()).collect();
    // The remaining rollouts: consecutive rollouts of a prompt form one request, and `firsts` has the index of each
    // request's first rollout.
    let (mut requests, mut firsts): (Vec<EngineCoreRequest>, Vec<usize>) = (Vec::new(), Vec::new());
    for i in (0..total).filter(|&i| known[i].is_none()) {
        let (question, rollout) = (i / rollout_request.n, i % rollout_request.n);
        match (requests.last_mut(), firsts.last()) {
            (Some(request), Some(from)) if rollout > 0 && from + request.n == i => request.n += 1,
            _ => {
                let first = request(numbers, question, questions[question], rollout_request);
                requests.push(EngineCoreRequest { first_choice: rollout as u32, ..first });
                firsts.push(i);
            }
        }
    }
    let begun = Instant::now();
    let mut engine = Engine::new(model, dev, rollout_request.engine)?;
    if let Some(recorded) = rollout_request.recorded {
        let each = requests.iter().enumerate().flat_map(|(i, request)| (0..request.n).map(move |rollout| (i, rollout)));
        let tokens =
            |(i, rollout): (usize, usize)| Some(((i, rollout), recorded.get(&name(firsts[i] + rollout))?.clone()));
        engine.expect(each.filter_map(tokens).collect());
    }
    let (sender, receiver) = mpsc::channel::<ScorerMessage>();
    let (over, is_over) = mpsc::channel::<()>();
    let (generated, sampled, scored) = std::thread::scope(|scope| {
        let (score_sender, inbox) = (sender.clone(), receiver);
        let scorer = scope.spawn(move || {
            let _over = over;
            score_while_generating(questions, rollout_request, name, journal, score_sender, inbox)
        });
        let mut ended = 0;
        for (index, output) in known.into_iter().enumerate() {
            let Some(output) = output else { continue };
            ended += 1;
            // If the send fails, the scorer's own error is reported below.
            let _ = sender
                .send(ScorerMessage::Ended(index, CompletionOutput { request: index / rollout_request.n, ..output }));
        }
        let mut requests = requests.into_iter();
        let mut generated = engine.stream(
            model,
            dev,
            usize::MAX,
            || Ok(requests.next()),
            |outputs| {
                for output in outputs {
                    ended += 1;
                    let index = firsts[output.request] + output.index;
                    let (request, rollout) = (index / rollout_request.n, index % rollout_request.n);
                    let output = CompletionOutput { request, index: rollout, ..output };
                    // The scorer closes the channel after a score has failed, and the error of that score is reported.
                    let hung_up = |_| Error::Failed("a response was not scored".to_owned());
                    sender.send(ScorerMessage::Ended(index, output)).map_err(hung_up)?;
                    on_progress(ended)?;
                }
                Ok(())
            },
        );
        let sampled = Instant::now();
        while generated.is_ok() && is_over.recv_timeout(STOP_CHECK_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
            generated = on_progress(ended);
        }
        if generated.is_err() {
            let _ = sender.send(ScorerMessage::GivenUp);
        }
        drop(sender);
        (generated, sampled, scorer.join())
    });
    let stats = engine.stats();
    engine.release(dev);
    match scored {
        Ok(Ok((scored, scoring))) => {
            generated?;
            let lost = || Error::Failed("a response was not scored".to_owned());
            let rollouts = scored.into_iter().collect::<Option<Vec<Rollout>>>().ok_or_else(lost)?;
            Ok(Generated { rollouts, stats, sampling: begun..sampled, scoring })
        }
        Ok(Err(failed)) => Err(failed),
        Err(_) => Err(Error::Failed("the scorer panicked (see its message above)".to_owned())),
    }
}

/// A pending score. If it is dropped without a score, it reports an error.
struct PendingScore {
    index: usize,
    sender: Option<mpsc::Sender<ScorerMessage>>,
}

impl PendingScore {
    fn report(&mut self, judged: Result<Judged>) {
        if let Some(sender) = self.sender.take() {
            // The scorer's thread has ended if another score failed.
            let _ = sender.send(ScorerMessage::Scored(self.index, judged));
        }
    }
}

impl Drop for PendingScore {
    fn drop(&mut self) {
        self.report(Err(Error::Failed("a response was not scored".to_owned())));
    }
}

/// Scores responses as they end, until all have a score or generation is given up. Also returns the times during which
/// at least one response waited for its score.
fn score_while_generating(
    questions: &[&Question],
    rollout_request: RolloutRequest<'_>,
    name: impl Fn(usize) -> journal::Name,
    journal: Option<&mut Journal>,
    sender: mpsc::Sender<ScorerMessage>,
    inbox: mpsc::Receiver<ScorerMessage>,
) -> Result<(Vec<Option<Rollout>>, Times)> {
    let (submit, submitted) = mpsc::channel::<(String, PendingScore)>();
    let (total, is_over) = (questions.len() * rollout_request.n, &AtomicBool::new(false));
    std::thread::scope(|scope| {
        // A busy reward command blocks this thread, while the scorer's thread writes the journal and notices a stop.
        scope.spawn(move || {
            // The responses to a question continue the same turn.
            let mut opened: HashMap<usize, String> = HashMap::new();
            for (response, mut pending) in submitted.into_iter().take_while(|_| !is_over.load(Ordering::Relaxed)) {
                let question = pending.index / rollout_request.n;
                let row = &questions[question].row;
                let opened = opened
                    .entry(question)
                    .or_insert_with(|| rollout_request.chat.opened(row.prompt()).unwrap_or_default());
                rollout_request.task.score(row, opened, &response, Box::new(move |judged| pending.report(judged)));
            }
        });
        let scored = collect_scores(total, rollout_request, name, journal, sender, inbox, submit);
        is_over.store(true, Ordering::Relaxed);
        scored
    })
}

/// Passes responses to `submit` as they end and collects their scores, as [`score_while_generating`] does.
fn collect_scores(
    total: usize,
    rollout_request: RolloutRequest<'_>,
    name: impl Fn(usize) -> journal::Name,
    mut journal: Option<&mut Journal>,
    sender: mpsc::Sender<ScorerMessage>,
    inbox: mpsc::Receiver<ScorerMessage>,
    submit: mpsc::Sender<(String, PendingScore)>,
) -> Result<(Vec<Option<Rollout>>, Times)> {
    let mut rollouts: Vec<Option<Rollout>> = vec![None; total];
    let mut waiting: HashMap<usize, (CompletionOutput, String)> = HashMap::new();
    let (mut scored, mut scoring, mut waiting_since) = (0, Times::new(), Instant::now());
    while scored < total {
        match inbox.recv() {
            Ok(ScorerMessage::Ended(index, output)) => {
                let response = rollout_request.chat.response_text(&output.token_ids);
                if let Some(journal) = &mut journal {
                    if !journal.outputs.contains_key(&name(index)) {
                        journal.add_output(name(index), &output)?;
                    } else if let Some((score, judge)) = journal.verdicts.get(&name(index)).cloned() {
                        let sampled_with = journal.others.get(&name(index)).cloned();
                        let question = output.request;
                        rollouts[index] = Some(Rollout { question, response, score, judge, output, sampled_with });
                        scored += 1;
                        continue;
                    }
                }
                if waiting.is_empty() {
                    waiting_since = Instant::now();
                }
                waiting.insert(index, (output, response.clone()));
                // If the thread that submits has ended, the dropped score reports it.
                let _ = submit.send((response, PendingScore { index, sender: Some(sender.clone()) }));
            }
            Ok(ScorerMessage::Scored(index, judged)) => {
                let Judged { score, judge, .. } = judged?;
                if let Some((output, response)) = waiting.remove(&index) {
                    if let Some(journal) = &mut journal {
                        journal.add_verdict(name(index), &score, judge.as_ref())?;
                    }
                    let sampled_with = journal.as_ref().and_then(|journal| journal.others.get(&name(index)).cloned());
                    let question = output.request;
                    rollouts[index] = Some(Rollout { question, response, score, judge, output, sampled_with });
                    scored += 1;
                    if waiting.is_empty() {
                        scoring.push(waiting_since..Instant::now());
                    }
                }
            }
            Ok(ScorerMessage::GivenUp) | Err(_) => break,
        }
    }
    Ok((rollouts, scoring))
}

/// Returns the engine's request for one rollout of question `i`.
fn request(numbers: Numbers, i: usize, question: &Question, of: RolloutRequest<'_>) -> EngineCoreRequest {
    let mut params = of.params.clone();
    params.noise.prompt = numbers.of(i) as u32;
    EngineCoreRequest::new(question.prompt.clone(), 1, params)
}

/// Returns true if a response was cut off by its length limit.
pub fn is_truncated(output: &CompletionOutput) -> bool {
    output.finish_reason == FinishReason::Length
}

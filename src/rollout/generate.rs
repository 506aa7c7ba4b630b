//! Generates rollouts: runs questions through the engine and scores each response as soon as it ends.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::data::{BadRow, Dataset, Encoder, Index, Reason, Row, RowResult, Samples};
use crate::device::Device;
use crate::engine::scheduler::SchedulerStats;
use crate::engine::{Engine, EngineConfig, Event, FinishReason, Output, Prompt, Request};
use crate::error::{Error, Result};
use crate::image::ImageInput;
use crate::model::{Model, ModelConfig};
use crate::ops::sample::SamplingParams;
use crate::reward::judge::Ruling;
use crate::reward::{Judged, Score};
use crate::rollout::journal::{self, Journal};
use crate::task::Task;
use crate::text::Chat;

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

/// Returns the rows of `data` as questions, which are created on request.
pub fn streamed(data: &Dataset, encoder: Encoder, config: ModelConfig) -> impl Samples<Question> + use<> {
    data.samples(move |row| {
        let (prompt, hash) = prompt(&encoder, &config, &row)?;
        // The images are in the prompt; scoring needs only the text.
        let row = Row { images: Vec::new(), ..row };
        Ok((Question { row, prompt: Arc::new(prompt) }, hash))
    })
}

/// Converts a row to the engine's prompt, named by its place. Also returns the hash that [`Encoder::measure`] computes.
pub fn prompt(encoder: &Encoder, config: &ModelConfig, row: &Row) -> RowResult<(Prompt, u64)> {
    let (prompt, hash) = encoder.prompt(row)?;
    let prompt = Prompt::new(config, &prompt.ids, &prompt.images).map_err(|e| e.within(&row.place));
    Ok((prompt.map_err(BadRow::of(Reason::WrongText))?.named(&row.place), hash))
}

/// One scored response.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Index of the question in the list of questions.
    pub question: usize,
    /// Tokens, log-probs and finish reason.
    pub output: Output,
    /// Response as text, without special tokens.
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
    /// Engine limits, allowed ids and seed.
    pub engine: EngineConfig,
    /// Sampling parameters.
    pub sampling: SamplingParams,
    /// Number of responses per question.
    pub n: usize,
    /// Maximum number of tokens of a response.
    pub max_tokens: usize,
    /// Token ids that end a response.
    pub stop_token_ids: &'a Arc<[u32]>,
    /// Tokenizer that decodes responses.
    pub chat: &'a Chat,
    /// Task that scores responses.
    pub task: &'a dyn Task,
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

impl From<u64> for Numbers {
    /// Creates consecutive numbers from `first` on.
    fn from(first: u64) -> Numbers {
        Numbers { first, every: 1 }
    }
}

/// Message to the scorer's thread.
enum ScorerMessage {
    /// A response ended.
    Ended(usize, Output),
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
    let known: Vec<Option<Output>> = (0..total).map(|i| journal.as_ref()?.output(name(i)).cloned()).collect();
    // The remaining rollouts: consecutive rollouts of a prompt form one request, and `firsts` has the index of each
    // request's first rollout.
    let (mut requests, mut firsts): (Vec<Request>, Vec<usize>) = (Vec::new(), Vec::new());
    for i in (0..total).filter(|&i| known[i].is_none()) {
        let (question, rollout) = (i / rollout_request.n, i % rollout_request.n);
        match (requests.last_mut(), firsts.last()) {
            (Some(request), Some(from)) if rollout > 0 && from + request.n == i => request.n += 1,
            _ => {
                let first_rollout = rollout as u32;
                requests.push(Request {
                    n: 1,
                    first_rollout,
                    ..request(numbers, question, questions[question], rollout_request)
                });
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
            let _ = sender.send(ScorerMessage::Ended(index, Output { request: index / rollout_request.n, ..output }));
        }
        let generated = engine.generate(model, dev, &requests, |event| {
            if let Event::Finished(output) = event {
                ended += 1;
                let index = firsts[output.request] + output.rollout;
                let (request, rollout) = (index / rollout_request.n, index % rollout_request.n);
                let output = Output { request, rollout, ..output.clone() };
                // The scorer closes the channel after a score has failed, and the error of that score is reported.
                let hung_up = |_| Error::Failed("a response was not scored".to_owned());
                sender.send(ScorerMessage::Ended(index, output)).map_err(hung_up)?;
                on_progress(ended)?;
            }
            Ok(())
        });
        let (mut generated, sampled) = (generated.map(drop), Instant::now());
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
    mut journal: Option<&mut Journal>,
    sender: mpsc::Sender<ScorerMessage>,
    inbox: mpsc::Receiver<ScorerMessage>,
) -> Result<(Vec<Option<Rollout>>, Times)> {
    let total = questions.len() * rollout_request.n;
    let mut rollouts: Vec<Option<Rollout>> = vec![None; total];
    let mut waiting: HashMap<usize, (Output, String)> = HashMap::new();
    let (mut scored, mut scoring, mut waiting_since) = (0, Times::new(), Instant::now());
    while scored < total {
        match inbox.recv() {
            Ok(ScorerMessage::Ended(index, output)) => {
                let response = response_text(rollout_request.chat, &output);
                if let Some(journal) = &mut journal {
                    if journal.output(name(index)).is_none() {
                        journal.add_output(name(index), &output)?;
                    } else if let Some((score, judge)) = journal.verdict(name(index)).cloned() {
                        let sampled_with = journal.other_arithmetic(name(index)).map(str::to_owned);
                        let question = output.request;
                        rollouts[index] = Some(Rollout { question, response, score, judge, output, sampled_with });
                        scored += 1;
                        continue;
                    }
                }
                if waiting.is_empty() {
                    waiting_since = Instant::now();
                }
                let row = &questions[output.request].row;
                waiting.insert(index, (output, response.clone()));
                let mut pending = PendingScore { index, sender: Some(sender.clone()) };
                rollout_request.task.score(row, response, Box::new(move |judged| pending.report(judged)));
            }
            Ok(ScorerMessage::Scored(index, judged)) => {
                let Judged { score, judge, .. } = judged?;
                if let Some((output, response)) = waiting.remove(&index) {
                    if let Some(journal) = &mut journal {
                        journal.add_verdict(name(index), &score, judge.as_ref())?;
                    }
                    let other = journal.as_ref().and_then(|journal| journal.other_arithmetic(name(index)));
                    let (question, sampled_with) = (output.request, other.map(str::to_owned));
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

/// Returns the engine's request for all rollouts of question `i`; see [`generate()`].
fn request(numbers: Numbers, i: usize, question: &Question, rollout_request: RolloutRequest<'_>) -> Request {
    Request {
        prompt: question.prompt.clone(),
        n: rollout_request.n,
        sampling: rollout_request.sampling,
        max_tokens: rollout_request.max_tokens,
        stop_token_ids: rollout_request.stop_token_ids.clone(),
        noise: numbers.of(i) as u32,
        first_rollout: 0,
    }
}

/// Returns the engine's requests for `questions`; see [`generate()`].
pub fn requests(questions: &[&Question], numbers: Numbers, rollout_request: RolloutRequest<'_>) -> Vec<Request> {
    questions.iter().enumerate().map(|(i, question)| request(numbers, i, question, rollout_request)).collect()
}

/// Allocates what [`generate()`] allocates, on a counting device.
pub fn plan(
    dev: &mut Device,
    model: &Model,
    questions: &[&Question],
    rollout_request: RolloutRequest<'_>,
) -> Result<()> {
    let mut engine = Engine::new(model, dev, rollout_request.engine)?;
    engine.plan(model, dev, &requests(questions, Numbers::from(0), rollout_request))?;
    engine.release(dev);
    Ok(())
}

/// Returns a response as text, without the final stop token and other special tokens.
pub fn response_text(chat: &Chat, output: &Output) -> String {
    chat.tokenizer.decode(&output.token_ids, true)
}

/// Returns the prompt as text.
pub fn prompt_text(chat: &Chat, prompt: &Prompt) -> String {
    chat.tokenizer.decode(&prompt.token_ids, false)
}

/// Returns true if a response was cut off by its length limit.
pub fn is_truncated(output: &Output) -> bool {
    output.finish_reason == FinishReason::Length
}

/// Returns the `count` questions with the most pixels, each as its position in `index` and a prompt with placeholder
/// content. Memory plans use these prompts.
pub fn largest(config: &ModelConfig, index: &Index, count: usize) -> Vec<(usize, Arc<Prompt>)> {
    let mut largest: Vec<usize> = (0..index.len()).collect();
    largest.sort_by_key(|&i| std::cmp::Reverse(index.shape(i).patches()));
    largest.truncate(count);
    let patch_size = config.grid().patch_size;
    let prompt = |i: usize| {
        let shape = index.shape(i);
        let pixels = shape.grids.iter().map(|grid| Arc::new(ImageInput::blank(*grid, patch_size))).collect();
        (i, Arc::new(Prompt { pixels, ..Prompt::text(vec![0; shape.tokens]) }))
    };
    largest.into_iter().map(prompt).collect()
}

/// Returns the number of rows of the vision cache: the rows of the largest `count` questions, so that no image is
/// encoded twice.
pub fn vision_rows(config: &ModelConfig, index: &Index, count: usize) -> usize {
    let merge = config.grid().merge_size;
    let mut rows: Vec<usize> = index.shapes().map(|shape| shape.patches() / (merge * merge)).collect();
    rows.sort_unstable_by_key(|&r| std::cmp::Reverse(r));
    rows.iter().take(count).sum()
}

//! Generates rollouts: runs questions through the engine and scores each response as soon as it ends.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use crate::data::{Bad, Dataset, Encoder, Index, Read, Reason, Row, Samples};
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
const LOOK: Duration = Duration::from_millis(100);

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
pub fn prompt(encoder: &Encoder, config: &ModelConfig, row: &Row) -> Read<(Prompt, u64)> {
    let (prompt, hash) = encoder.prompt(row)?;
    let prompt = Prompt::new(config, &prompt.ids, &prompt.images).map_err(|e| e.within(&row.place));
    Ok((prompt.map_err(Bad::of(Reason::WrongText))?.named(&row.place), hash))
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
}

/// Settings of a rollout request.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
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
enum Heard {
    /// A response ended.
    Ended(usize, Output),
    /// The response with this index has its score.
    Scored(usize, Result<Judged>),
    /// Generation failed or was stopped; pending scores are abandoned.
    GivenUp,
}

/// Generates `n` responses to each of `questions`, and scores them while generation continues. Returns them in the
/// order of questions and rollouts, with the engine's statistics.
///
/// - `numbers` identifies each question in the sampling noise.
/// - Rollouts in `journal` are reused, and new ones are added to it.
/// - `on_progress` receives the number of finished responses. `on_progress` is also called repeatedly while scores are
///   pending.
/// - If a response receives no score, generation ends with an error.
pub fn ask(
    dev: &mut Device,
    model: &Model,
    questions: &[&Question],
    numbers: Numbers,
    asking: Asking<'_>,
    journal: Option<&mut Journal>,
    mut on_progress: impl FnMut(usize) -> Result<()>,
) -> Result<(Vec<Rollout>, SchedulerStats)> {
    let total = questions.len() * asking.n;
    let name = |index: usize| (numbers.of(index / asking.n), index % asking.n);
    let known: Vec<Option<Output>> = (0..total).map(|i| journal.as_ref()?.output(name(i)).cloned()).collect();
    // The remaining rollouts: consecutive rollouts of a prompt form one request, and `firsts` has the index of each
    // request's first rollout.
    let (mut requests, mut firsts): (Vec<Request>, Vec<usize>) = (Vec::new(), Vec::new());
    for i in (0..total).filter(|&i| known[i].is_none()) {
        let (question, rollout) = (i / asking.n, i % asking.n);
        match (requests.last_mut(), firsts.last()) {
            (Some(request), Some(from)) if rollout > 0 && from + request.n == i => request.n += 1,
            _ => {
                let first_rollout = rollout as u32;
                requests.push(Request {
                    n: 1,
                    first_rollout,
                    ..request(numbers, question, questions[question], asking)
                });
                firsts.push(i);
            }
        }
    }
    let mut engine = Engine::new(model, dev, asking.engine)?;
    if let Some(recorded) = asking.recorded {
        let each = requests.iter().enumerate().flat_map(|(i, request)| (0..request.n).map(move |rollout| (i, rollout)));
        let tokens =
            |(i, rollout): (usize, usize)| Some(((i, rollout), recorded.get(&name(firsts[i] + rollout))?.clone()));
        engine.expect(each.filter_map(tokens).collect());
    }
    let (sender, receiver) = mpsc::channel::<Heard>();
    let (over, is_over) = mpsc::channel::<()>();
    let (generated, scored) = std::thread::scope(|scope| {
        let (told, tell) = (sender.clone(), receiver);
        let scorer = scope.spawn(move || {
            let _over = over;
            score_beside(questions, asking, name, journal, told, tell)
        });
        let mut ended = 0;
        for (index, output) in known.into_iter().enumerate() {
            let Some(output) = output else { continue };
            ended += 1;
            // If the send fails, the scorer's own error is reported below.
            let _ = sender.send(Heard::Ended(index, Output { request: index / asking.n, ..output }));
        }
        let generated = engine.generate(model, dev, &requests, |event| {
            if let Event::Finished(output) = event {
                ended += 1;
                let index = firsts[output.request] + output.rollout;
                let (request, rollout) = (index / asking.n, index % asking.n);
                let output = Output { request, rollout, ..output.clone() };
                // The scorer closes the channel after a score has failed, and the error of that score is reported.
                let hung_up = |_| Error::Failed("a response was not scored".to_owned());
                sender.send(Heard::Ended(index, output)).map_err(hung_up)?;
                on_progress(ended)?;
            }
            Ok(())
        });
        let mut generated = generated.map(drop);
        while generated.is_ok() && is_over.recv_timeout(LOOK) == Err(mpsc::RecvTimeoutError::Timeout) {
            generated = on_progress(ended);
        }
        if generated.is_err() {
            let _ = sender.send(Heard::GivenUp);
        }
        drop(sender);
        (generated, scorer.join())
    });
    let stats = engine.stats();
    engine.release(dev);
    match scored {
        Ok(Ok(scored)) => {
            generated?;
            let lost = || Error::Failed("a response was not scored".to_owned());
            let rollouts = scored.into_iter().collect::<Option<Vec<Rollout>>>().ok_or_else(lost)?;
            Ok((rollouts, stats))
        }
        Ok(Err(failed)) => Err(failed),
        Err(_) => Err(Error::Failed("the scorer panicked (see its message above)".to_owned())),
    }
}

/// A pending score. If it is dropped without a score, it reports an error.
struct Wanted {
    index: usize,
    told: Option<mpsc::Sender<Heard>>,
}

impl Wanted {
    fn tell(&mut self, judged: Result<Judged>) {
        if let Some(told) = self.told.take() {
            // The scorer's thread has ended if another score failed.
            let _ = told.send(Heard::Scored(self.index, judged));
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.tell(Err(Error::Failed("a response was not scored".to_owned())));
    }
}

/// Scores responses as they end, until all have a score or generation is given up.
fn score_beside(
    questions: &[&Question],
    asking: Asking<'_>,
    name: impl Fn(usize) -> journal::Name,
    mut journal: Option<&mut Journal>,
    told: mpsc::Sender<Heard>,
    tell: mpsc::Receiver<Heard>,
) -> Result<Vec<Option<Rollout>>> {
    let total = questions.len() * asking.n;
    let mut rollouts: Vec<Option<Rollout>> = vec![None; total];
    let mut waiting: HashMap<usize, (Output, String)> = HashMap::new();
    let mut scored = 0;
    while scored < total {
        match tell.recv() {
            Ok(Heard::Ended(index, output)) => {
                let response = response_text(asking.chat, &output);
                if let Some(journal) = &mut journal {
                    if journal.output(name(index)).is_none() {
                        journal.add_output(name(index), &output)?;
                    } else if let Some((score, judge)) = journal.verdict(name(index)).cloned() {
                        rollouts[index] = Some(Rollout { question: output.request, response, score, judge, output });
                        scored += 1;
                        continue;
                    }
                }
                let row = &questions[output.request].row;
                waiting.insert(index, (output, response.clone()));
                let mut wanted = Wanted { index, told: Some(told.clone()) };
                asking.task.score(row, response, Box::new(move |judged| wanted.tell(judged)));
            }
            Ok(Heard::Scored(index, judged)) => {
                let Judged { score, judge, .. } = judged?;
                if let Some((output, response)) = waiting.remove(&index) {
                    if let Some(journal) = &mut journal {
                        journal.add_verdict(name(index), &score, judge.as_ref())?;
                    }
                    rollouts[index] = Some(Rollout { question: output.request, response, score, judge, output });
                    scored += 1;
                }
            }
            Ok(Heard::GivenUp) | Err(_) => break,
        }
    }
    Ok(rollouts)
}

/// Returns the engine's request for all rollouts of question `i`; see [`ask`].
fn request(numbers: Numbers, i: usize, question: &Question, asking: Asking<'_>) -> Request {
    Request {
        prompt: question.prompt.clone(),
        n: asking.n,
        sampling: asking.sampling,
        max_tokens: asking.max_tokens,
        stop_token_ids: asking.stop_token_ids.clone(),
        noise: numbers.of(i) as u32,
        first_rollout: 0,
    }
}

/// Returns the engine's requests for `questions`; see [`ask`].
pub fn requests(questions: &[&Question], numbers: Numbers, asking: Asking<'_>) -> Vec<Request> {
    questions.iter().enumerate().map(|(i, question)| request(numbers, i, question, asking)).collect()
}

/// Allocates what [`ask`] allocates, on a counting device.
pub fn plan(dev: &mut Device, model: &Model, questions: &[&Question], asking: Asking<'_>) -> Result<()> {
    let mut engine = Engine::new(model, dev, asking.engine)?;
    engine.plan(model, dev, &requests(questions, Numbers::from(0), asking))?;
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
    let patch_size = config.vision_config.patch_size;
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
    let merge = config.vision_config.spatial_merge_size;
    let mut rows: Vec<usize> = index.shapes().map(|shape| shape.patches() / (merge * merge)).collect();
    rows.sort_unstable_by_key(|&r| std::cmp::Reverse(r));
    rows.iter().take(count).sum()
}

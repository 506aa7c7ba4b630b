//! Asking: questions through the engine, each response scored as it ends. RL and evaluation both ask this way.

use std::sync::Arc;
use std::sync::mpsc;

use rayon::prelude::*;

use crate::data::{self, Row};
use crate::device::Device;
use crate::engine::{Engine, EngineConfig, Event, FinishReason, Output, Prompt, Request};
use crate::error::{Error, Result};
use crate::image::Processor;
use crate::model::{Model, ModelConfig};
use crate::ops::sample::SamplingParams;
use crate::reward::Score;
use crate::task::Task;
use crate::text::Chat;

/// A question, ready to be asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// Where it came from; scores need its label.
    pub row: Row,
    /// Its tokens and images.
    pub prompt: Arc<Prompt>,
}

/// Turns rows into questions. Those with more than `max_prompt_length` tokens, pictures included, are left out;
/// their number comes second. Errors name the row.
pub fn questions(
    rows: &[Row],
    chat: &Chat,
    processor: &Processor,
    config: &ModelConfig,
    max_prompt_length: usize,
) -> Result<(Vec<Question>, usize)> {
    let all = rows.len();
    let ready = |row: &Row| -> Result<Option<Question>> {
        let prompt = data::prompt(row, chat, processor)?;
        if prompt.ids.len() > max_prompt_length {
            return Ok(None);
        }
        let prompt = Prompt::new(config, &prompt.ids, &prompt.images).map_err(|e| e.within(&row.place))?;
        let prompt = Arc::new(prompt);
        Ok(Some(Question { row: row.clone(), prompt }))
    };
    // All before the first error is looked for, so that it is the first row at fault that is named.
    let ready: Vec<Result<Option<Question>>> = rows.par_iter().map(ready).collect();
    let questions: Vec<Question> = ready.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?;
    if questions.is_empty() {
        let found = format!("no prompt among {all} of at most {max_prompt_length} tokens");
        return Err(Error::input("max_prompt_length", found, "at least one prompt"));
    }
    let left_out = all - questions.len();
    Ok((questions, left_out))
}

/// One scored response.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Index of the question among those asked.
    pub question: usize,
    /// Tokens, log-probs, why it ended.
    pub output: Output,
    /// The response as text, special tokens left out.
    pub response: String,
    /// The verdict.
    pub score: Score,
}

/// How to ask.
#[derive(Clone, Copy)]
pub struct Asking<'a> {
    /// Engine limits, allowed ids and seed.
    pub engine: EngineConfig,
    /// How tokens are picked.
    pub sampling: SamplingParams,
    /// Responses a question.
    pub n: usize,
    /// Most tokens of a response.
    pub max_tokens: usize,
    /// A response ends with the first of these.
    pub stop_token_ids: &'a Arc<[u32]>,
    /// Decodes responses.
    pub chat: &'a Chat,
    /// Scores them.
    pub task: &'a dyn Task,
}

/// Asks `questions` (each `n` times) and scores the responses beside the generation, in the order of questions
/// and rollouts. `first` names the first question in the sampling noise. `on_progress` hears how many ended.
pub fn ask(
    dev: &mut Device,
    model: &Model,
    questions: &[&Question],
    first: u64,
    asking: Asking<'_>,
    mut on_progress: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<Rollout>> {
    let requests = requests(questions, first, asking);
    let mut engine = Engine::new(model, dev, asking.engine)?;
    let (sender, receiver) = mpsc::channel::<(usize, Output)>();
    let total = questions.len() * asking.n;
    let (generated, mut scored) = std::thread::scope(|scope| {
        let scorer = scope.spawn(move || {
            let mut scored: Vec<Option<Rollout>> = vec![None; total];
            for (index, output) in receiver {
                let row = &questions[output.request].row;
                let response = response_text(asking.chat, &output);
                let score = asking.task.score(row, &response);
                scored[index] = Some(Rollout { question: output.request, response, score, output });
            }
            scored
        });
        let mut ended = 0;
        let generated = engine.generate(model, dev, &requests, |event| {
            if let Event::Finished(output) = event {
                ended += 1;
                let index = output.request * asking.n + output.rollout;
                // The scorer hangs up only by panicking; its panic is raised below.
                let _ = sender.send((index, output.clone()));
                on_progress(ended)?;
            }
            Ok(())
        });
        drop(sender);
        (generated, scorer.join())
    });
    engine.release(dev);
    generated?;
    match &mut scored {
        Ok(scored) => {
            let lost = || Error::Failed("a response was not scored".to_owned());
            std::mem::take(scored).into_iter().collect::<Option<Vec<Rollout>>>().ok_or_else(lost)
        }
        Err(_) => Err(Error::Failed("the scorer panicked (its message is above)".to_owned())),
    }
}

/// The engine's requests for `questions`; see [`ask`].
pub fn requests(questions: &[&Question], first: u64, asking: Asking<'_>) -> Vec<Request> {
    let request = |(i, question): (usize, &&Question)| Request {
        prompt: question.prompt.clone(),
        n: asking.n,
        sampling: asking.sampling,
        max_tokens: asking.max_tokens,
        stop_token_ids: asking.stop_token_ids.clone(),
        noise: (first + i as u64) as u32,
    };
    questions.iter().enumerate().map(request).collect()
}

/// Allocates what [`ask`] allocates, on a device that only counts.
pub fn plan(dev: &mut Device, model: &Model, questions: &[&Question], asking: Asking<'_>) -> Result<()> {
    let mut engine = Engine::new(model, dev, asking.engine)?;
    engine.plan(model, dev, &requests(questions, 0, asking))?;
    engine.release(dev);
    Ok(())
}

/// A response as text: a final stop token and other special tokens left out.
pub fn response_text(chat: &Chat, output: &Output) -> String {
    chat.tokenizer.decode(&output.token_ids, true)
}

/// The prompt as text.
pub fn prompt_text(chat: &Chat, prompt: &Prompt) -> String {
    chat.tokenizer.decode(&prompt.token_ids, false)
}

/// True when a response was cut by its length limit.
pub fn is_truncated(output: &Output) -> bool {
    output.finish_reason == FinishReason::Length
}

/// Rows of the vision cache: those of the largest `count` questions, so that no image is computed twice.
pub fn vision_rows(questions: &[Question], count: usize) -> usize {
    let mut rows: Vec<usize> = questions.iter().map(|q| q.prompt.images.iter().map(|image| image.rows).sum()).collect();
    rows.sort_unstable_by_key(|&r| std::cmp::Reverse(r));
    rows.iter().take(count).sum()
}

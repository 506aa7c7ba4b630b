//! Computes the log-probs of given responses under a loaded model, as training computes them.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::others_logprobs::{self, Change, Comparison, Recorded};
use crate::training::step::{self, Sequence};
use omr_base::config::GenerateConfig;
use omr_base::error::{Error, Result};
use omr_data::text::Special;
use omr_model::engine::{Prompt, allowed_ids};
use omr_model::llm::{Line, Reader, fits};
use omr_model::nn::{LayerPolicy, Model, Policy};
use omr_runtime::device::{Device, Plan, Region};
use omr_runtime::machine::Machine;
use omr_runtime::tensor::DType;

/// Names of a response's token ids: of omr and vLLM, TRL, verl.
const TOKEN_IDS: [&str; 3] = ["token_ids", "completion_ids", "responses"];

/// Settings that an error message suggests if a row needs too much memory.
pub(super) const LOWER: &str = "image_max_pixels";

/// A question with the tokens of a response.
struct Answered {
    prompt: Arc<Prompt>,
    /// Token ids of the response.
    token_ids: Vec<u32>,
    /// Token ids of the prompt, followed by those of the response.
    input_ids: Vec<u32>,
    /// True for the tokens of the response.
    loss_mask: Vec<bool>,
    /// Log-probs that the line has already.
    recorded: Option<Recorded>,
    /// True if the program that recorded them samples from all ids.
    all_ids: bool,
}

impl Answered {
    fn new(prompt: Arc<Prompt>, token_ids: Vec<u32>, recorded: Option<Recorded>, all_ids: bool) -> Answered {
        let input_ids = [&prompt.token_ids[..], &token_ids].concat();
        let loss_mask = (0..input_ids.len()).map(|t| t >= prompt.token_ids.len()).collect();
        Answered { prompt, token_ids, input_ids, loss_mask, recorded, all_ids }
    }

    /// Computes the log-probs of the response's tokens after a change of the forward pass. On a counting device, only
    /// counts.
    fn logprobs(&self, dev: &mut Device, model: &Model, policy: Policy, change: Change) -> Result<Vec<f32>> {
        let policy = if self.all_ids { Policy { allowed: None, ..policy } } else { policy };
        // Placeholders after the prompt are plain tokens.
        let (images, prompt_len) = match change.images {
            true => (&self.prompt.pixels[..], self.prompt.token_ids.len()),
            false => (&[][..], 0),
        };
        let sequence =
            Sequence { input_ids: &self.input_ids, images, prompt_len, loss_mask: &self.loss_mask, same_prompt: false };
        let forward = step::forward_changed(dev, model, &[sequence], policy, LayerPolicy::Inputs, false, change.inputs)
            .map_err(|e| e.within(&self.prompt.place))?;
        Ok(forward.read(dev)?.concat())
    }
}

/// Reads the rows of `file`, questions with `response` or `token_ids`, and passes each line, extended with `token_ids`
/// and `logprobs`, to `put`. The model is in the directory `dir`. Log-probs that a row already has are compared, and the
/// likely fault of the program that recorded them is noted.
pub fn score(
    dir: &Path,
    file: &Path,
    config: &GenerateConfig,
    machine: &Machine,
    mut put: impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    let reader = Reader::open(dir, config)?;
    let lines = reader.lines(file)?;
    let answered = |(line, prompt): &(Line, Option<Arc<Prompt>>)| -> Result<Option<Answered>> {
        let Some(prompt) = prompt else { return Ok(None) };
        let token_ids = token_ids(&reader, line, &prompt.place)?;
        let (most, len) = (reader.config.text.max_position_embeddings, prompt.token_ids.len() + token_ids.len());
        if len > most {
            let expected = format!("at most max_position_embeddings of the model, {most}");
            return Err(Error::input(&prompt.place, format!("{len} tokens of prompt and response"), expected));
        }
        let recorded = Recorded::of(line, token_ids.len(), &prompt.place)?;
        let all_ids = config.all_ids || others_logprobs::is_foreign(line);
        Ok(Some(Answered::new(Arc::clone(prompt), token_ids, recorded, all_ids)))
    };
    // A line that `omr generate` skipped has no row.
    let mut rows: Vec<Option<Answered>> = lines.iter().map(answered).collect::<Result<_>>()?;
    let all_ids = rows.iter().flatten().all(|row| row.all_ids);
    let allowed = (!all_ids).then(|| allowed_ids(&reader.config, &reader.chat));
    let policy = |dev: &mut Device| -> Result<Policy> {
        let temperature = if config.temperature > 0.0 { config.temperature as f32 } else { 1.0 };
        let allowed = allowed.as_ref().map(|bits| dev.upload(Region::Weights, bits, &[bits.len()])).transpose()?;
        Ok(Policy { allowed, temperature })
    };
    let count = |dtype: DType| -> Result<((), Plan)> {
        let mut dev = Device::count_for(machine.target);
        let model = Model::empty_of(&mut dev, dir, reader.config.clone(), dtype)?;
        let policy = policy(&mut dev)?;
        rows.iter().flatten().try_for_each(|row| row.logprobs(&mut dev, &model, policy, Change::NONE).map(drop))?;
        Ok(((), dev.high_water()))
    };
    let dtype = DType::of(config.dtype, machine.target.kind);
    let ((), plan) = fits::within(machine.target, dtype, LOWER, count)?;

    machine.observer.note(&format!("score: {}", plan.line()));
    let skipped = rows.iter().filter(|row| row.is_none()).count();
    if skipped > 0 {
        machine.observer.note(&format!("score: {skipped} skipped lines of {} are copied unchanged", rows.len()));
    }
    let mut dev = (machine.device)(&plan)?;
    let model = Model::load_shown(&mut dev, dir, reader.config.clone(), dtype, machine.observer)?;
    let policy = policy(&mut dev)?;
    machine.observer.begin("score", "rows", rows.len() as u64, 0);
    let mut comparison = Comparison::default();
    for (done, ((mut line, _), row)) in lines.into_iter().zip(&mut rows).enumerate() {
        machine.observer.check_stop()?;
        if let Some(row) = row {
            let logprobs = row.logprobs(&mut dev, &model, policy, Change::NONE)?;
            if let Some(recorded) = row.recorded.take() {
                let difference = comparison.add(done, recorded, &logprobs, &row.prompt, reader.chat.media);
                line.insert("logprobs_diff_max".to_owned(), json!(difference));
            }
            line.insert("token_ids".to_owned(), json!(row.token_ids));
            line.insert("logprobs".to_owned(), json!(logprobs));
        }
        put(&format!("{}\n", Value::Object(line)))?;
        machine.observer.step(done as u64 + 1, &[]);
    }
    machine.observer.end();
    let again = &mut |index: usize, policy, change: &Change| match &rows[index] {
        Some(row) => row.logprobs(&mut dev, &model, policy, *change),
        None => Ok(Vec::new()),
    };
    let lines = comparison.lines(policy, again)?;
    lines.iter().for_each(|line| machine.observer.note(&format!("score: {line}")));
    Ok(())
}

/// Returns the tokens of a line's response: its `token_ids`, or those of its `response` and the end of the turn.
fn token_ids(reader: &Reader, line: &Line, place: &str) -> Result<Vec<u32>> {
    let wrong = |found: String| Error::input(place, found, "`token_ids`, a list of token ids, or `response`, a text");
    let ids = TOKEN_IDS.iter().find_map(|name| line.get(*name).filter(|ids| !ids.is_null()));
    let ids = match (ids, line.get("response")) {
        (Some(Value::Array(ids)), _) => {
            let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = |value| id(value).ok_or_else(|| wrong(format!("token id {value}")));
            ids.iter().map(id).collect::<Result<_>>()?
        }
        (None, Some(Value::String(text))) => {
            let mut ids = reader.chat.tokenizer.encode(text, Special::Plain).map_err(|e| e.within(place))?;
            ids.push(reader.chat.turn.end);
            ids
        }
        (Some(other), _) => return Err(wrong(format!("token_ids {other}"))),
        (None, Some(other)) => return Err(wrong(format!("response {other}"))),
        (None, None) => return Err(wrong("neither".to_owned())),
    };
    if ids.is_empty() { Err(wrong("no tokens".to_owned())) } else { Ok(ids) }
}

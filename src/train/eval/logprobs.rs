//! Computes the log-probs of given responses under a loaded model, as training computes them.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::changes::Change;
use super::others_logprobs::{self, Compared, Found, Recorded};
use super::verdict::Row;
use crate::training::step::{self, Sequence};
use omr_base::config::GenerateConfig;
use omr_base::error::{Error, Result};
use omr_data::text::Special;
use omr_model::engine::{Prompt, allowed_ids};
use omr_model::llm::{Line, Reader, fits};
use omr_model::nn::{Inputs, LayerPolicy, Model, Policy};
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
    /// Log-probs that the line has already.
    recorded: Option<Recorded>,
    /// True if the program that recorded them samples from all ids.
    all_ids: bool,
}

impl Answered {
    /// Computes the log-probs of the response's tokens after a change of the forward pass. On a counting device, only
    /// counts.
    fn logprobs(&self, dev: &mut Device, model: &Model, policy: Policy, change: &Change) -> Result<Vec<f32>> {
        let policy = if self.all_ids { Policy { allowed: None, ..policy } } else { policy };
        let of_prompt = (&self.prompt.token_ids, &self.prompt.pixels);
        let (prompt, images) = change.prompt.as_ref().map_or(of_prompt, |(ids, images)| (ids, images));
        let (input_ids, prompt_len) = ([&prompt[..], &self.token_ids].concat(), prompt.len());
        let loss_mask: Vec<bool> = (0..input_ids.len()).map(|t| t >= prompt_len).collect();
        let sequence =
            Sequence { input_ids: &input_ids, images, prompt_len, loss_mask: &loss_mask, same_prompt: false };
        let changed = |inputs: &mut Inputs| change.inputs.iter().for_each(|change| change(inputs));
        let forward = step::forward_changed(dev, model, &[sequence], policy, LayerPolicy::Inputs, false, changed)
            .map_err(|e| e.within(&self.prompt.place))?;
        Ok(forward.read(dev)?.concat())
    }
}

/// Reads the rows of `file`, questions with `response` or `token_ids`, and passes each line, extended with `token_ids`
/// and `logprobs`, to `put`. The model is in the directory `dir`. Log-probs that a row already has are compared: the lines
/// get `logprobs_diff_max` and `fault`, and the verdict is returned.
pub fn score(
    dir: &Path,
    file: &Path,
    config: &GenerateConfig,
    machine: &Machine,
    put: impl FnMut(&Line) -> Result<()>,
) -> Result<Option<Found>> {
    let reader = Reader::open(dir, config)?;
    let (mut lines, prompts): (Vec<Line>, Vec<_>) = reader.lines(file)?.into_iter().unzip();
    let answered = |(line, prompt): (&Line, &Option<Arc<Prompt>>)| -> Result<Option<Answered>> {
        let Some(prompt) = prompt else { return Ok(None) };
        let token_ids = token_ids(&reader, line, &prompt.place)?;
        check_length(&reader, prompt, token_ids.len())?;
        let recorded = Recorded::of(line, token_ids.len(), &prompt.place)?;
        let all_ids = config.all_ids || others_logprobs::is_foreign(line);
        Ok(Some(Answered { prompt: Arc::clone(prompt), token_ids, recorded, all_ids }))
    };
    // A line that `omr generate` skipped has no row.
    let rows: Vec<Option<Answered>> = lines.iter().zip(&prompts).map(answered).collect::<Result<_>>()?;
    let all_ids = rows.iter().flatten().all(|row| row.all_ids);
    let allowed = (!all_ids).then(|| allowed_ids(&reader.config, &reader.chat));
    let policy = |dev: &mut Device| -> Result<Policy> {
        let temperature = if config.temperature > 0.0 { config.temperature as f32 } else { 1.0 };
        let allowed = allowed.as_ref().map(|bits| dev.upload(Region::Weights, bits, &[bits.len()])).transpose()?;
        Ok(Policy { allowed, temperature })
    };
    let skipped = rows.iter().filter(|row| row.is_none()).count();
    if skipped > 0 {
        machine.observer.note(&format!("score: {skipped} skipped lines of {} are copied unchanged", rows.len()));
    }
    let same = Change::default();
    let compute = |dtype: DType| -> Result<(Device, Model, Policy, Vec<Vec<f32>>)> {
        let count = |dtype: DType| -> Result<((), Plan)> {
            let mut dev = Device::count_for(machine.target);
            let model = Model::empty_of(&mut dev, dir, reader.config.clone(), dtype)?;
            let policy = policy(&mut dev)?;
            rows.iter().flatten().try_for_each(|row| row.logprobs(&mut dev, &model, policy, &same).map(drop))?;
            Ok(((), dev.high_water()))
        };
        let ((), plan) = fits::within(machine.target, dtype, LOWER, count)?;
        machine.observer.note(&format!("score: {}", plan.line()));
        let mut dev = (machine.device)(&plan)?;
        let model = Model::load_shown(&mut dev, dir, reader.config.clone(), dtype, machine.observer)?;
        let policy = policy(&mut dev)?;
        machine.observer.begin("score", "rows", rows.len() as u64, 0);
        let mut found = Vec::new();
        for row in &rows {
            machine.observer.check_stop()?;
            let logprobs = row.as_ref().map(|row| row.logprobs(&mut dev, &model, policy, &same));
            found.push(logprobs.transpose()?.unwrap_or_default());
            machine.observer.step(found.len() as u64, &[]);
        }
        machine.observer.end();
        Ok((dev, model, policy, found))
    };
    let dtype = DType::of(config.dtype, machine.target.kind);
    let is_f32 = dtype == DType::F32;
    let compares = rows.iter().flatten().any(|row| row.recorded.is_some());
    // The rounding of bf16 is the scale of the verdict.
    let other = if is_f32 { DType::Bf16 } else { DType::F32 };
    let other = if compares { compute(other)?.3 } else { Vec::new() };
    let (mut dev, model, policy, own) = compute(dtype)?;
    let [exact, bf16] = if is_f32 { [&own, &other] } else { [&other, &own] };
    let compared = rows.iter().enumerate().filter_map(|(index, row)| {
        let Answered { prompt, token_ids, recorded, .. } = row.as_ref()?;
        let recorded = recorded.as_ref()?;
        let fault = recorded.fault_of_tokens(prompt, reader.chat.media);
        let (ids, recorded) = (token_ids.clone(), recorded.logprobs.clone());
        let row = Row { ids, recorded, exact: exact[index].clone(), bf16: bf16[index].clone() };
        Some(Compared { index, prompt, fault, own: &own[index], row })
    });
    let compared: Vec<Compared> = compared.collect();
    let again = &mut |index: usize, policy, change: &Change| match &rows[index] {
        Some(row) => row.logprobs(&mut dev, &model, policy, change),
        None => Ok(Vec::new()),
    };
    let found = compares.then(|| others_logprobs::compare(&compared, policy, reader.chat.media, again)).transpose()?;
    for ((line, row), own) in lines.iter_mut().zip(&rows).zip(&own) {
        let Some(row) = row else { continue };
        line.insert("token_ids".to_owned(), json!(row.token_ids));
        line.insert("logprobs".to_owned(), json!(own));
    }
    if let Some(found) = &found {
        compared.iter().for_each(|of| add_comparison(&mut lines[of.index], of, found));
    }
    lines.iter().try_for_each(put)?;
    Ok(found)
}

/// Errors if a prompt with a response of `tokens` tokens has more positions than the model.
fn check_length(reader: &Reader, prompt: &Prompt, tokens: usize) -> Result<()> {
    let (most, len) = (reader.config.text.max_position_embeddings, prompt.token_ids.len() + tokens);
    if len <= most {
        return Ok(());
    }
    let expected = format!("at most max_position_embeddings of the model, {most}");
    Err(Error::input(&prompt.place, format!("{len} tokens of prompt and response"), expected))
}

/// Adds the largest difference of a row's log-probs, and its fault, to its line.
fn add_comparison(line: &mut Line, of: &Compared, found: &Found) {
    let own = of.own.iter().zip(&of.row.recorded).map(|(a, b)| f64::from((a - b).abs()));
    line.insert("logprobs_diff_max".to_owned(), json!(own.fold(0.0, f64::max)));
    line.insert("fault".to_owned(), json!(found.faults.get(&of.index)));
}

/// Returns the tokens of a line's response: its `token_ids`, or those of its `response` and the end of the turn.
fn token_ids(reader: &Reader, line: &Line, place: &str) -> Result<Vec<u32>> {
    let wrong = |found: String| Error::input(place, found, "`token_ids`, a list of token ids, or `response`, a text");
    let mut named = TOKEN_IDS.iter().filter_map(|name| Some((name, line.get(*name).filter(|ids| !ids.is_null())?)));
    let ids = match (named.next(), named.next()) {
        (Some((a, ids)), Some((b, others))) if ids != others => return Err(wrong(format!("other ids in {a} and {b}"))),
        (first, _) => first.map(|(_, ids)| ids),
    };
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

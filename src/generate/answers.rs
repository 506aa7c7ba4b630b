//! Generates the answers of a loaded model, streamed or as a batch.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::questions::{Line, Reader};
use super::upload_allowed;
use crate::config::GenerateConfig;
use crate::device::{Device, Plan};
use crate::engine::{Engine, EngineConfig, Event, Output, Prompt, Request, allowed_ids, stop_token_ids};
use crate::error::{Error, Result};
use crate::eval::fits;
use crate::files;
use crate::machine::Machine;
use crate::model::{Model, ModelConfig};
use crate::observe::Observer;
use crate::ops::attend::BLOCK;
use crate::ops::sample::SamplingParams;
use crate::tensor::DType;
use crate::train::plan;

/// Settings that an error message suggests if the answers need too much memory.
const LOWER: &str = "max_num_seqs, max_num_batched_tokens, max_tokens or image_max_pixels";

/// A loaded model together with its requests.
pub struct Answers {
    reader: Reader,
    dev: Device,
    model: Model,
    engine: Engine,
    requests: Vec<Request>,
}

/// One answer.
pub struct Response {
    /// Text of the answer.
    pub text: String,
    /// Token ids of the answer and the reason why it ended.
    pub output: Output,
}

impl Answers {
    /// Loads the model in `dir` and allocates only the memory that `prompts` and their answers need.
    pub fn prepare(
        dir: &Path,
        config: &GenerateConfig,
        reader: Reader,
        prompts: Vec<Arc<Prompt>>,
        machine: &Machine,
    ) -> Result<Answers> {
        let dtype = DType::of(config.dtype, machine.target.kind);
        let stop: Arc<[u32]> = match config.ignore_eos {
            true => Arc::from([]),
            false => stop_token_ids(dir, &[reader.chat.ids.im_end, reader.chat.ids.endoftext])?,
        };
        let sampling = SamplingParams {
            temperature: config.temperature as f32,
            top_k: u32::try_from(config.top_k).unwrap_or(0),
            top_p: config.top_p as f32,
            min_p: config.min_p as f32,
        };
        let request = |(i, prompt): (usize, Arc<Prompt>)| Request {
            prompt,
            n: 1,
            sampling,
            max_tokens: config.max_tokens,
            stop_token_ids: stop.clone(),
            noise: i as u32,
            first_rollout: 0,
        };
        let requests: Vec<Request> = prompts.into_iter().enumerate().map(request).collect();
        let limits = limits(config, &reader.config, &requests);
        let allowed = (!config.all_ids).then(|| allowed_ids(&reader.config, &reader.chat));

        let budget = machine.target.memory.filter(|_| config.num_kv_blocks.is_none());
        let count = |dtype: DType| -> Result<(EngineConfig, Plan)> {
            let mut counted = Device::count_for(machine.target);
            let model = Model::empty(&mut counted, reader.config.clone(), dtype)?;
            let engine_config = EngineConfig { allowed: upload_allowed(&mut counted, allowed.as_deref())?, ..limits };
            engine_config.fitted(&model, &mut counted, &requests, budget)
        };
        let (limits, plan) = fits::within(machine.target, dtype, LOWER, count)?;

        machine.observer.note(&format!("generate: {}", plan::line(&plan)));
        let mut dev = (machine.device)(&plan)?;
        let model = Model::load_shown(&mut dev, dir, dtype, machine.observer)?;
        let engine_config = EngineConfig { allowed: upload_allowed(&mut dev, allowed.as_deref())?, ..limits };
        let engine = Engine::new(&model, &mut dev, engine_config)?;
        Ok(Answers { reader, dev, model, engine, requests })
    }

    /// Generates the answer to the only prompt and passes its text to `put`, token by token.
    pub fn stream(mut self, observer: &dyn Observer, mut put: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let tokenizer = &self.reader.chat.tokenizer;
        let mut stream = tokenizer.decode_stream(true);
        self.engine.generate(&self.model, &mut self.dev, &self.requests, |event| match event {
            _ if observer.stop_requested() => Err(Error::Stopped),
            Event::Token { token_id, .. } => put(&stream.push(tokenizer, token_id)),
            Event::Finished(_) => Ok(()),
        })?;
        put(&format!("{}\n", stream.finish()))
    }

    /// Generates the answers to all prompts, in the order of the prompts.
    pub fn all(mut self, observer: &dyn Observer) -> Result<Vec<Response>> {
        observer.begin("generate", "answers", self.requests.len() as u64, 0);
        let (begun, mut done, mut tokens) = (std::time::Instant::now(), 0, 0u64);
        let outputs = self.engine.generate(&self.model, &mut self.dev, &self.requests, |event| {
            if observer.stop_requested() {
                return Err(Error::Stopped);
            }
            match event {
                Event::Token { .. } => tokens += 1,
                Event::Finished(_) => {
                    done += 1;
                    observer.step(done, &[("tok/s", tokens as f64 / begun.elapsed().as_secs_f64())]);
                }
            }
            Ok(())
        })?;
        observer.end();
        let tokenizer = &self.reader.chat.tokenizer;
        let response = |output: Output| Response { text: tokenizer.decode(&output.token_ids, true), output };
        Ok(outputs.into_iter().map(response).collect())
    }
}

/// Computes engine limits that are no larger than these requests can use.
fn limits(config: &GenerateConfig, model: &ModelConfig, requests: &[Request]) -> EngineConfig {
    let longest = requests.iter().map(|r| r.prompt.token_ids.len().saturating_add(r.max_tokens)).max().unwrap_or(1);
    let max_model_len = config.max_model_len.unwrap_or(model.max_position_embeddings).min(longest);
    let mut blocks: Vec<usize> = requests
        .iter()
        .map(|r| r.prompt.token_ids.len().saturating_add(r.max_tokens).min(max_model_len).div_ceil(BLOCK))
        .collect();
    blocks.sort_unstable_by_key(|&n| std::cmp::Reverse(n));
    let needed = blocks.iter().take(config.max_num_seqs).sum::<usize>().max(1);
    let mut images: Vec<_> = requests.iter().flat_map(|r| &r.prompt.images).collect();
    images.sort_unstable_by_key(|image| image.key);
    images.dedup_by_key(|image| image.key);
    let largest = images.iter().map(|image| image.rows).max().unwrap_or(0);
    let together = images.iter().map(|image| image.rows).sum::<usize>();
    EngineConfig {
        max_num_seqs: config.max_num_seqs.min(requests.len().max(1)),
        max_num_batched_tokens: config.max_num_batched_tokens,
        max_model_len,
        num_kv_blocks: Some(config.num_kv_blocks.unwrap_or(needed)),
        vision_rows: together.min(largest.max(2 * config.max_num_batched_tokens)),
        enable_prefix_caching: config.enable_prefix_caching,
        draft_rows: 0,
        allowed: None,
        keep_logits: false,
        seed: config.seed,
        step: 0,
    }
}

/// Writes each line, extended with its response, to the file `out`.
pub fn write(out: &Path, lines: Vec<Line>, responses: Vec<Response>) -> Result<()> {
    files::write_with(out, |w| {
        for (mut line, Response { text, output }) in lines.into_iter().zip(responses) {
            line.insert("response".to_owned(), json!(text));
            line.insert("token_ids".to_owned(), json!(output.token_ids));
            line.insert("finish_reason".to_owned(), json!(output.finish_reason.as_str()));
            writeln!(w, "{}", Value::Object(line))?;
        }
        Ok::<(), std::io::Error>(())
    })
}

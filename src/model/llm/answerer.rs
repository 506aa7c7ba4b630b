//! Answers prompts: reads a model directory, plans the memory, loads the weights and runs the engine.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::fits;
use super::prompts::{largest, vision_rows};
use crate::engine::{CompletionOutput, Engine, EngineConfig, EngineCoreRequest, RequestParams, allowed_ids};
use crate::nn::{Model, ModelConfig};
use omr_base::client::Completion;
use omr_base::config::{Dtype, Image16Bit, ImageAlpha, ImageConfig};
use omr_base::error::Result;
use omr_base::identity;
use omr_base::observe::Observer;
use omr_data::image::{Backend, Processor};
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Encoder, Index};
use omr_runtime::device::{Device, Kind, Plan, Region, Target};
use omr_runtime::machine::Machine;
use omr_runtime::tensor::DType;

/// Everything of a model directory that answers need besides the weights.
pub struct Llm {
    dir: PathBuf,
    /// Configuration of the model.
    pub config: ModelConfig,
    /// Converts rows to prompts.
    pub encoder: Encoder,
    has_limits: bool,
    /// Variables of the chat template.
    variables: Map<String, Value>,
    dtype: Dtype,
}

/// Prompts by their sizes, and how the engine answers them.
pub struct Workload<'a> {
    /// Sizes of the prompts.
    pub index: &'a Index,
    /// Number of answers to a prompt.
    pub n: usize,
    /// Parameters of the answers.
    pub params: RequestParams,
    /// Maximum number of answers that are generated at the same time.
    pub max_num_seqs: usize,
}

impl Llm {
    /// Reads the model directory `dir`, whose configuration is `config`. `images` are the settings of images, and
    /// `dtype` is the configured type of the weights.
    pub fn open(dir: &Path, config: ModelConfig, images: &ImageConfig, dtype: Dtype) -> Result<Llm> {
        let encoder = Encoder::load(dir, &config.chat(), EncodingPurpose::Ask, images)?;
        let (dir, has_limits) = (dir.to_owned(), (images.image_min_pixels, images.image_max_pixels) != (None, None));
        Ok(Llm { dir, config, encoder, has_limits, variables: Map::new(), dtype })
    }

    /// Returns the model with these variables of the chat template.
    pub fn with_variables(self, variables: Map<String, Value>) -> Result<Llm> {
        Ok(Llm { encoder: self.encoder.with_variables(&variables)?, variables, ..self })
    }

    /// Returns the ids that end an answer.
    pub fn stop_token_ids(&self) -> Arc<[u32]> {
        self.encoder.chat.turn.stops.clone()
    }

    /// Returns the text that identifies the model on a device of `kind` in the keys of answers.
    pub fn identity(&self, kind: Kind) -> Result<String> {
        let mut who = format!("{} {:?} {}", identity::of(&self.dir)?, self.dtype(kind), kind.name());
        who.extend(self.config.quantization.as_ref().map(|quantization| format!(" {}", quantization.describe())));
        if self.has_limits {
            let bounds = |p: &Processor| format!(" {} to {} pixels", p.min_pixels, p.max_pixels);
            who.extend(self.encoder.processor.as_ref().map(bounds));
        }
        if let Some(Processor { backend, alpha, .. }) = &self.encoder.processor
            && (*backend, *alpha) != (Backend::Pil, ImageAlpha::Drop)
        {
            who.push_str(&format!(" {backend:?} {alpha:?}"));
        }
        if let Some(Processor { grey: grey @ Image16Bit::Upper, .. }) = &self.encoder.processor {
            who.push_str(&format!(" {grey:?}"));
        }
        if !self.variables.is_empty() {
            who.push_str(&format!(" {}", Value::from(self.variables.clone())));
        }
        Ok(who)
    }

    fn dtype(&self, kind: Kind) -> DType {
        DType::of(self.dtype, kind)
    }

    /// Returns the engine's limits for a workload. The bitmap of the allowed ids is allocated in `region`.
    pub fn limits(&self, dev: &mut Device, region: Region, workload: &Workload) -> Result<EngineConfig> {
        let &Workload { index, ref params, max_num_seqs, .. } = workload;
        let bitmap = allowed_ids(&self.config, &self.encoder.chat);
        let longest = index.shapes().map(|shape| shape.tokens).max().unwrap_or(1);
        Ok(EngineConfig {
            max_num_seqs,
            vision_rows: vision_rows(&self.config, index, max_num_seqs),
            allowed: Some(dev.upload(region, &bitmap, &[bitmap.len()])?),
            ..EngineConfig::new(longest.saturating_add(params.max_tokens))
        })
    }

    /// Returns as many requests as can run at once, for the prompts with the most pixels, with placeholder content.
    pub fn largest(&self, workload: &Workload) -> Vec<EngineCoreRequest> {
        let prompts = largest(&self.config, workload.index, workload.max_num_seqs).into_iter();
        prompts.map(|prompt| EngineCoreRequest::new(prompt, workload.n, workload.params.clone())).collect()
    }

    /// Returns the number of blocks of the KV cache, if it is limited, and the bytes that each memory region needs. They
    /// are counted in a dry run. Errors if `target` does not have this memory; the error suggests to lower the settings
    /// named in `lower`.
    pub fn plan(&self, target: Target, workload: &Workload, lower: &str) -> Result<(Option<usize>, Plan)> {
        let requests = self.largest(workload);
        let count = |dtype: DType| {
            let mut dev = Device::count_for(target);
            let model = Model::empty_of(&mut dev, &self.dir, self.config.clone(), dtype)?;
            let limits = self.limits(&mut dev, Region::Weights, workload)?;
            limits.fitted(&model, &mut dev, &requests, &Plan::default(), target.memory)
        };
        let (limits, plan) = fits::within(target, self.dtype(target.kind), lower, count)?;
        Ok((limits.num_kv_blocks, plan))
    }

    /// Loads the weights, with the memory of [`Llm::plan`].
    pub fn load<'a>(&'a self, machine: &Machine<'a>, workload: &Workload, lower: &str) -> Result<Answerer<'a>> {
        let (num_kv_blocks, plan) = self.plan(machine.target, workload, lower)?;
        let mut dev = (machine.device)(&plan)?;
        let dtype = self.dtype(dev.kind());
        let model = Model::load_shown(&mut dev, &self.dir, self.config.clone(), dtype, machine.observer)?;
        let limits = EngineConfig { num_kv_blocks, ..self.limits(&mut dev, Region::Weights, workload)? };
        Ok(Answerer { llm: self, dev, model, limits, observer: machine.observer })
    }

    fn completion(&self, output: &CompletionOutput, prompt_tokens: usize) -> Completion {
        Completion {
            text: self.encoder.chat.response_text(&output.token_ids),
            finish_reason: output.finish_reason.name().to_owned(),
            prompt_tokens: prompt_tokens as u64,
            completion_tokens: output.token_ids.len() as u64,
        }
    }
}

/// A loaded model that answers prompts.
pub struct Answerer<'a> {
    llm: &'a Llm,
    dev: Device,
    model: Model,
    limits: EngineConfig,
    observer: &'a dyn Observer,
}

impl Answerer<'_> {
    /// Returns the number of threads that prepare prompts.
    pub fn workers(&self) -> usize {
        self.dev.threads().max(1)
    }

    /// Answers the requests that `next` returns, each with the caller's key, until it returns `None`. A request is
    /// fetched only when the engine can use it. `keep` receives each answer when it is complete: the key of its request,
    /// its index within the request, and the answer. Returns [`Error::Stopped`](omr_base::error::Error::Stopped) if the user requests a stop.
    pub fn answer<K>(
        &mut self,
        mut next: impl FnMut() -> Result<Option<(K, EngineCoreRequest)>>,
        mut keep: impl FnMut(&K, usize, Completion) -> Result<()>,
    ) -> Result<()> {
        let Answerer { llm, dev, model, limits, observer } = self;
        let sent: RefCell<Vec<(K, usize)>> = RefCell::default();
        let mut engine = Engine::new(model, dev, *limits)?;
        let requests = || {
            let Some((key, request)) = next()? else { return Ok(None) };
            sent.borrow_mut().push((key, request.prompt.token_ids.len()));
            Ok(Some(request))
        };
        let answered = engine.stream(model, dev, limits.max_num_batched_tokens, requests, |ended| {
            for output in &ended {
                let (key, prompt_tokens) = &sent.borrow()[output.request];
                keep(key, output.index, llm.completion(output, *prompt_tokens))?;
            }
            observer.check_stop()
        });
        engine.release(dev);
        answered
    }
}

//! Benchmarks of whole jobs: a training step, a round of rollouts and decoding, with the shapes and batches of
//! `bench/peers`.

use std::sync::Arc;

use super::case::{Case, JobSize, label};
use super::inputs::{DRAWN, normals, repeat};
use super::model_shape::ModelShape;
use super::quantized;
use omr_base::choice::BaseFormat;
use omr_base::config::{LoraConfig, OptimConfig, OptimizerName, QuantizationConfig};
use omr_base::error::{Error, Result};
use omr_base::philox::{Purpose, Random};
use omr_data::image::ImageInput;
use omr_model::engine::{
    CompletionOutput, Engine, EngineConfig, EngineCoreOutput, EngineCoreRequest, Finish, FinishReason, Noise, Prompt,
    RequestParams, draft,
};
use omr_model::nn::adapter::attach::Fresh;
use omr_model::nn::weights::params::Piece;
use omr_model::nn::weights::part::Part;
use omr_model::nn::{CheckpointPolicy, Grads, LayerPolicy, Model, ModelConfig, Policy};
use omr_model::optim::{Optimizer, freeze};
use omr_runtime::device::{Device, Kind, Plan, Region, Target};
use omr_runtime::ops::attend::BLOCK;
use omr_runtime::ops::nll;
use omr_runtime::tensor::DType;
use omr_train::plan::Pages;
use omr_train::training::levels::{self, Counted};
use omr_train::training::step::{self, Sequence};

/// Size of a job.
#[derive(Clone, Copy)]
pub struct Amount {
    /// Rows of a batch, and prompts of a round.
    pub rows: usize,
    /// Tokens of a training row.
    pub row_len: usize,
    /// Tokens of a prompt.
    pub prompt_len: usize,
    pub rollouts: usize,
    pub new_tokens: usize,
}

impl Amount {
    /// Same sizes as in `bench/peers` on the CPU.
    pub const CPU: Amount = Amount { rows: 32, row_len: 64, prompt_len: 24, rollouts: 8, new_tokens: 24 };

    /// Returns the size of a job that fills a GPU, takes the emulator a minute, or is [`Amount::CPU`].
    pub fn of(kind: Kind) -> Amount {
        match kind {
            Kind::Cuda => Amount { rows: 16, row_len: 1024, prompt_len: 512, rollouts: 16, new_tokens: 128 },
            Kind::Emu => Amount { rows: 2, row_len: 16, prompt_len: 12, rollouts: 2, new_tokens: 4 },
            Kind::Cpu => Amount::CPU,
        }
    }
}

/// Patches of an image of 56 x 28 pixels, and the tokens they make.
const PATCHES: usize = 8;
const IMAGE_TOKENS: usize = 2;

/// Row `r`: text around an image near its start, if the model has a vision tower.
pub fn row(config: &ModelConfig, r: usize, len: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..len).map(|t| ((r * len + t) * 7919 % config.plain_ids()) as u32).collect();
    if let Some(media) = &config.media {
        ids[4] = media.ids.start;
        ids[5..5 + IMAGE_TOKENS].fill(media.ids.image);
        ids[5 + IMAGE_TOKENS] = media.ids.end;
    }
    ids
}

pub fn image(r: usize) -> Arc<ImageInput> {
    let pixels = (0..56 * 28 * 3).map(|i| ((i * 31 + r * 17) % 251) as u8).collect();
    Arc::new(ImageInput::image([2, 4], pixels))
}

/// Returns the number of multiplications and additions of a forward pass without attention. With `backward`, also
/// counts those of the gradients of the trained weights and of the inputs. Inputs of a frozen tower have no gradients.
pub fn flops(model: &Model, tokens: usize, images: usize, backward: bool) -> f64 {
    // A tied token table is also the output matrix and is multiplied. A separate token table is only read.
    let is_read = |id: usize| model.layout.params[id].part == Part::Table && !model.config.text.tie_word_embeddings;
    let params = &model.layout.params;
    let trains_tower = params.iter().any(|param| param.part.is_vision() && param.trains);
    let of = |(id, _, piece): (usize, usize, &Piece)| {
        let param = &params[id];
        let gradients = usize::from(param.trains) + usize::from(!param.part.is_vision() || trains_tower);
        let rows = if param.part.is_vision() { images * PATCHES } else { tokens };
        rows * piece.num_elements() * if backward { 1 + gradients } else { 1 }
    };
    2.0 * model.layout.pieces().filter(|(id, _, _)| !is_read(*id)).map(of).sum::<usize>() as f64
}

/// Returns the number of weights that are trained.
pub fn trained(model: &Model) -> usize {
    let pieces = model.layout.pieces().filter(|(id, _, _)| model.layout.params[*id].trains);
    pieces.map(|(_, _, piece)| piece.num_elements()).sum()
}

/// Makes a model with random weights. For a GPU or the emulator, a list of values is drawn once and repeated in each
/// matrix, because drawing billions of values takes minutes. Repeated values do not make matrix units faster.
pub fn random_model(dev: &mut Device, config: ModelConfig, dtype: DType) -> Result<Model> {
    if !dev.kind().is_gpu() {
        return Model::init(dev, config, dtype, 1);
    }
    let model = Model::empty(dev, config, dtype)?;
    let drawn = normals::<half::bf16>(DRAWN, model.config.text.initializer_range as f32);
    for param in &model.layout.params {
        if param.quantized.is_some() {
            quantized::draw(dev, &param.weight(), 0.02)?;
        } else if param.is_matrix {
            repeat(dev, param.tensor, &drawn)?;
        } else if !param.name().ends_with(".bias") {
            param.fill::<half::bf16>(dev, param.tensor, |_, _, out| out.fill(1.0))?;
        }
    }
    Ok(model)
}

/// The model of a job.
#[derive(Clone, Copy)]
pub struct JobModel {
    /// Shape of the base.
    pub shape: ModelShape,
    /// Rank of adapters of all linear layers of the language model. `None` trains the base.
    pub lora_rank: Option<usize>,
    /// Storage of the matrices of the language model. `None` stores them in the element type of the job.
    pub quantization: Option<BaseFormat>,
}

impl JobModel {
    /// Its name in tables of results.
    pub(super) fn name(self) -> String {
        let rank = self.lora_rank.map_or_else(String::new, |rank| format!(", rank {rank}"));
        self.shape.name() + &self.quantization.map_or_else(String::new, |base| format!(", {}", base.name())) + &rank
    }

    /// Makes the model with random weights, and new adapters.
    pub(super) fn make(self, dev: &mut Device, dtype: DType) -> Result<Model> {
        let storage = self.quantization.map(|base| QuantizationConfig { base, ..QuantizationConfig::default() });
        let mut model = random_model(dev, self.shape.config()?.quantized(storage.as_ref())?, dtype)?;
        if let Some(rank) = self.lora_rank {
            let lora = Some(LoraConfig { rank, ..LoraConfig::default() });
            freeze(dev, &mut model, &OptimConfig { lora, ..OptimConfig::default() })?;
            let fresh = Fresh::new(&model.layout, 1);
            model.set_adapters(dev, &fresh)?;
        }
        Ok(model)
    }

    /// Returns the settings of its optimizer. The released models fit on a GPU only with 8-bit Adam.
    pub(super) fn optim(self) -> OptimConfig {
        let released = matches!(self.shape, ModelShape::B3 | ModelShape::B7);
        let optim = if released { OptimizerName::Adamw8bit } else { OptimizerName::AdamwTorch };
        OptimConfig { weight_decay: 0.01, optim, ..OptimConfig::default() }
    }
}

/// Returns `, N of M layers recomputed`, or an empty text if no layer is recomputed.
pub fn recomputed(levels: CheckpointPolicy, layers: usize) -> String {
    match (0..layers).filter(|&layer| levels.text.keep(layer) != LayerPolicy::All).count() {
        0 => String::new(),
        again => format!(", {again} of {layers} layers recomputed"),
    }
}

/// Counts the memory and the work of a step with these levels.
fn counted(target: Target, dtype: DType, of: JobModel, amount: Amount, levels: CheckpointPolicy) -> Result<Counted> {
    let mut dev = Device::count_for(target);
    let mut case = train_step(&mut dev, dtype, of, amount, levels)?;
    (case.run)(&mut dev)?;
    let work = dev.take_work();
    Ok(Counted::new(dev.high_water(), &work))
}

/// Returns the activation checkpointing policy of [`train_step`] on `target`, chosen as in the plan of a run: stores as
/// much as fits besides `reserved` bytes. If nothing fits, returns the policy that needs the least memory.
pub fn train_levels(
    target: Target,
    dtype: DType,
    of: JobModel,
    amount: Amount,
    reserved: usize,
) -> Result<CheckpointPolicy> {
    let budget = target.memory.map(|memory| memory.saturating_sub(reserved));
    let count = |_, levels| counted(target, dtype, of, amount, levels);
    Ok(levels::fit(&of.shape.config()?, true, budget, &Plan::default(), 1, count)?.levels)
}

/// Makes the case of a training step: forward, backward, clipping and AdamW. `levels` is the activation checkpointing
/// policy of the pass.
pub fn train_step(
    dev: &mut Device,
    dtype: DType,
    of: JobModel,
    amount: Amount,
    levels: CheckpointPolicy,
) -> Result<Case> {
    let Amount { rows: count, row_len, .. } = amount;
    let model = of.make(dev, dtype)?;
    let config = model.config.clone();
    let mut optimizer = Optimizer::new(dev, &model.layout, of.optim(), 1)?;
    let mut grads = Grads::new(dev, &model.layout)?;
    let loss = dev.zeros(Region::Overlay, DType::F64, &[1])?;
    let rows: Vec<Vec<u32>> = (0..count).map(|r| row(&config, r, row_len)).collect();
    let images: Vec<[Arc<ImageInput>; 1]> = (0..count).map(|r| [image(r)]).collect();
    let flops = flops(&model, count * row_len, count, true);
    let parameters = model.layout.num_weights();
    let again = recomputed(levels, config.text.layers.len());
    Ok(Case {
        name: "train-step",
        shape: format!("{}, {count} rows x {row_len}{again}", of.name()),
        dtype: label(dtype),
        flops,
        // Counts only the update of AdamW with f32 moments: weights, both moments and gradients.
        bytes: (trained(&model) * 7 * 4) as f64,
        job: Some(JobSize { parameters, tokens: count * row_len, pages: Some(Pages::default()) }),
        run: Box::new(move |dev| {
            let mask = vec![true; row_len];
            let sequence = |(ids, images)| Sequence {
                input_ids: ids,
                images,
                prompt_len: row_len,
                loss_mask: &mask,
                same_prompt: false,
            };
            let rows = rows.iter().map(Vec::as_slice).zip(images.iter().map(|p| p.as_slice()));
            let sequences: Vec<Sequence<'_>> = rows.map(sequence).collect();
            grads.zero(dev)?;
            let pass = step::forward(dev, &model, &sequences, Policy::default(), levels, false)?;
            let dlog_prob = pass.like_log_prob(dev)?;
            nll::fwd(dev, pass.log_prob, 1.0 / pass.log_prob.len() as f64, dlog_prob, loss)?;
            pass.backward(dev, &mut grads, dlog_prob, None)?;
            optimizer.step(dev, &model.layout, &grads, 1e-4)
        }),
    })
}

/// Makes prompts with an image; each is requested several times.
pub fn requests(config: &ModelConfig, amount: Amount) -> Result<Vec<EngineCoreRequest>> {
    let request = |r: usize| -> Result<EngineCoreRequest> {
        let prompt = Arc::new(Prompt::new(config, &row(config, r, amount.prompt_len), &[image(r)])?);
        Ok(EngineCoreRequest::new(prompt, amount.rollouts, params(r, amount.new_tokens)))
    };
    (0..amount.rows).map(request).collect()
}

/// Returns how `tokens` tokens after prompt `r` are sampled.
fn params(r: usize, tokens: usize) -> RequestParams {
    let noise = Noise { prompt: r as u32, ..Noise::default() };
    RequestParams { noise, ..RequestParams::new(tokens, Arc::from([])) }
}

/// Samples rollouts. The tokens of `recorded` are drafts. A device that only counts returns blank
/// rollouts. If `lengths` are given, in the order of requests and choices, each rollout is dropped at its length, and
/// none is returned.
pub fn sampled(
    dev: &mut Device,
    model: &Model,
    requests: &[EngineCoreRequest],
    amount: Amount,
    recorded: &[CompletionOutput],
    lengths: &[usize],
) -> Result<Vec<CompletionOutput>> {
    let Amount { rows, prompt_len, new_tokens, .. } = amount;
    let draft_rows = if recorded.is_empty() { 0 } else { draft::ROWS };
    let limits = EngineConfig::new(prompt_len + new_tokens);
    let limits = EngineConfig { vision_rows: rows * IMAGE_TOKENS, draft_rows, ..limits };
    let mut engine = Engine::new(model, dev, limits)?;
    engine.expect(recorded.iter().map(|output| ((output.request, output.index), output.token_ids.clone())).collect());
    let outputs = if dev.counts_only() {
        engine.plan(model, dev, requests)?;
        let of = |request: usize| (0..requests[request].n).map(move |index| (request, index));
        let blank = |(request, index)| CompletionOutput {
            request,
            index,
            token_ids: vec![0; new_tokens],
            logprobs: vec![0.0; new_tokens],
            finish_reason: FinishReason::Length,
        };
        (0..requests.len()).flat_map(of).map(blank).collect()
    } else if lengths.is_empty() {
        engine.generate(model, dev, requests)?
    } else {
        requests.iter().try_for_each(|request| engine.add_request(request.clone()).map(drop))?;
        let mut left = lengths.to_vec();
        while engine.has_unfinished_requests() {
            for EngineCoreOutput { request, choice, finish, .. } in engine.step(model, dev)? {
                // The requests of a new engine are numbered from 0.
                let left = &mut left[request.0 as usize * amount.rollouts + choice];
                *left = left.checked_sub(1).ok_or_else(|| Error::Failed("a response exceeds its length".into()))?;
                match finish {
                    Some(Finish::Failed(why)) => return Err(Error::Failed(why)),
                    None if *left == 0 => _ = engine.abort_choice(request, choice),
                    _ => {}
                }
            }
        }
        Vec::new()
    };
    engine.release(dev);
    Ok(outputs)
}

/// Makes the case of rollouts of prompts with an image. If `mixed` is true, the lengths of the responses are drawn from
/// the uniform distribution between an eighth of `amount.new_tokens` and all of them.
pub fn generate(dev: &mut Device, dtype: DType, shape: ModelShape, amount: Amount, mixed: bool) -> Result<Case> {
    let config = shape.config()?;
    let Amount { rows: count, prompt_len, rollouts, new_tokens: most, .. } = amount;
    let model = random_model(dev, config.clone(), dtype)?;
    let requests = requests(&config, amount)?;
    let (least, mut random) = ((most / 8).max(1), Random::new(1, Purpose::Data, 0));
    let mut draw = |_| least + random.below((most - least + 1) as u64) as usize;
    let lengths: Vec<usize> = if mixed { (0..count * rollouts).map(&mut draw).collect() } else { Vec::new() };
    let tokens = if mixed { lengths.iter().sum() } else { count * rollouts * most };
    let range = if mixed { format!("{least} to {most}, uniform") } else { most.to_string() };
    let (flops, bytes) = (flops(&model, count * prompt_len + tokens, count, false), 0.0);
    let job = JobSize { parameters: model.layout.num_weights(), tokens, pages: None };
    Ok(Case {
        name: "generate",
        shape: format!("{}, {count} x {rollouts} x {range}", shape.name()),
        dtype: label(dtype),
        flops,
        bytes,
        job: Some(job),
        run: Box::new(move |dev| sampled(dev, &model, &requests, amount, &[], &lengths).map(drop)),
    })
}

/// Size of a decoding benchmark.
#[derive(Clone, Copy)]
pub struct Decoding {
    /// Number of sequences that decode at once.
    pub sequences: usize,
    /// Number of keys per sequence.
    pub keys: usize,
    /// Number of tokens that each sequence generates in a repetition. `None` computes the prompts in each repetition and
    /// samples one token after each.
    pub steps: Option<usize>,
}

/// Makes the case of decoding steps, whose prompts are in the cache after the first repetition, or of computing prompts.
pub fn decode(
    dev: &mut Device,
    dtype: DType,
    of: JobModel,
    Decoding { sequences, keys, steps }: Decoding,
) -> Result<Case> {
    let model = of.make(dev, dtype)?;
    let config = model.config.clone();
    let (is_decoding, steps) = (steps.is_some(), steps.unwrap_or(1));
    // The prefix cache reuses only full blocks. A prompt has one token more than its full blocks, so only this token is
    // computed again.
    let prompt = if is_decoding { keys.next_multiple_of(BLOCK) + 1 } else { keys };
    let below = config.text.vocab_size as u32 - 8;
    let request = |r: usize| {
        // The first token differs between prompts, because equal prompts would share their keys.
        let ids = (0..prompt).map(|t| (r + t * (r + 1)) as u32 % below).collect();
        EngineCoreRequest::new(Arc::new(Prompt::text(ids)), 1, params(r, steps))
    };
    let requests: Vec<EngineCoreRequest> = (0..sequences).map(request).collect();
    let limits = EngineConfig {
        max_num_seqs: sequences,
        enable_prefix_caching: is_decoding,
        ..EngineConfig::new(prompt + steps)
    };
    // The cache has twice the blocks for new tokens, so that no block of a prompt is evicted for them.
    let anew = limits.max_model_len.div_ceil(BLOCK) - keys.div_ceil(BLOCK);
    let blocks = sequences * (limits.max_model_len.div_ceil(BLOCK) + anew);
    let limits = EngineConfig { num_kv_blocks: Some(blocks), ..limits };
    let parameters = model.layout.num_weights();
    let pages = (sequences * prompt * config.token_bytes(dtype) / config.text.layers.len()) as f64;
    let read = model.layout.params.iter().filter(|param| !param.part.is_vision()).map(|param| match param.quantized {
        Some(_) => param.weight().bytes(),
        None => param.pieces.iter().map(|piece| (piece.num_elements() * dtype.size()) as f64).sum(),
    });
    let read: f64 = read.sum();
    let tokens = sequences * if is_decoding { steps } else { prompt };
    let job = JobSize { parameters, tokens, pages: is_decoding.then_some(Pages { bytes: pages, keys: prompt }) };
    // Logits are computed only for sampled tokens.
    let without_logits = (tokens - sequences * steps) * config.text.vocab_size * config.text.hidden_size;
    let flops = flops(&model, tokens, 0, false) - 2.0 * without_logits as f64;
    let mut engine = Engine::new(&model, dev, limits)?;
    let mut warm = false;
    Ok(Case {
        name: if is_decoding { "decode" } else { "prefill" },
        shape: format!("{}, {sequences} sequences of {keys}", of.name()),
        dtype: label(dtype),
        flops,
        bytes: steps as f64 * (read + config.text.layers.len() as f64 * pages),
        job: Some(job),
        run: Box::new(move |dev| {
            if dev.counts_only() {
                return engine.plan(&model, dev, &requests);
            }
            let before = engine.stats().computed_tokens;
            engine.generate(&model, dev, &requests)?;
            let computed = (engine.stats().computed_tokens - before) as usize;
            if warm && computed != tokens {
                return Err(Error::Failed(format!("{computed} tokens were computed instead of {tokens}")));
            }
            warm = true;
            Ok(())
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_runtime::device::{Isa, Plan};

    #[test]
    fn the_jobs_run_as_often_as_asked() {
        let mut dev = Device::cpu(&Plan::uniform(256 << 20), 2, Isa::detect()).unwrap();
        type Of = fn(&mut Device) -> Result<Case>;
        const DIGITS: JobModel = JobModel { shape: ModelShape::Digits, lora_rank: None, quantization: None };
        const ADAPTED: JobModel = JobModel { lora_rank: Some(4), ..DIGITS };
        let step: Of = |dev| train_step(dev, DType::F32, DIGITS, Amount::CPU, CheckpointPolicy::default());
        let adapted: Of = |dev| train_step(dev, DType::F32, ADAPTED, Amount::CPU, CheckpointPolicy::default());
        let rollouts: Of = |dev| generate(dev, DType::F32, ModelShape::Digits, Amount::CPU, true);
        let decoding: Of =
            |dev| decode(dev, DType::F32, ADAPTED, Decoding { sequences: 5, keys: 200, steps: Some(32) });
        let prefill: Of = |dev| decode(dev, DType::F32, ADAPTED, Decoding { sequences: 3, keys: 200, steps: None });
        let quantised: Of = |dev| {
            let model = JobModel { quantization: Some(BaseFormat::Int8), ..DIGITS };
            decode(dev, DType::F32, model, Decoding { sequences: 5, keys: 200, steps: Some(32) })
        };
        for make in [step, adapted, rollouts, decoding, prefill, quantised] {
            let marks = omr_runtime::device::Region::ALL.map(|region| dev.mark(region));
            let mut case = make(&mut dev).unwrap();
            for _ in 0..3 {
                (case.run)(&mut dev).unwrap();
            }
            assert!(case.flops > 1e8, "{}", case.name);
            marks.into_iter().for_each(|mark| dev.release(mark));
        }
    }

    #[test]
    fn mixed_lengths_are_uniform_from_an_eighth_to_all() {
        let mut dev = Device::count_for(Target::gpu(Kind::Cuda));
        let amount = Amount { new_tokens: 160, ..Amount::of(Kind::Cuda) };
        let case = generate(&mut dev, DType::Bf16, ModelShape::Digits, amount, true).unwrap();
        let (mean, shape) = (case.job.unwrap().tokens as f64 / 256.0, case.shape);
        // The mean of 256 uniform numbers from 20 to 160 has a deviation of 2.5.
        assert!(shape == "digits, 16 x 16 x 20 to 160, uniform" && (mean - 90.0).abs() < 7.5, "{shape}: {mean}");
    }

    /// The numbers are those of the published weights.
    #[test]
    fn the_released_shapes_have_their_weights() {
        for (shape, weights) in [(ModelShape::B3, 3_754_622_976), (ModelShape::B7, 8_292_166_656)] {
            let mut dev = Device::count_for(Target::gpu(Kind::Cuda));
            let model = Model::empty(&mut dev, shape.config().unwrap(), DType::Bf16).unwrap();
            assert_eq!(model.layout.num_weights(), weights, "{}", shape.name());
        }
    }

    /// The levels of a step equal those of a plan: everything is stored if it fits, otherwise less.
    #[test]
    fn a_step_keeps_what_fits() {
        let amount = Amount { rows: 2, ..Amount::of(Kind::Cuda) };
        let target = Target::gpu(Kind::Cuda);
        let slice = JobModel { shape: ModelShape::Slice, lora_rank: None, quantization: None };
        let takes = |levels| counted(target, DType::Bf16, slice, amount, levels).unwrap().memory.total();
        let of = |memory| train_levels(target.within(Some(memory)), DType::Bf16, slice, amount, 0).unwrap();
        let inputs = CheckpointPolicy::from(LayerPolicy::Inputs);
        let (most, least) = (takes(CheckpointPolicy::default()), takes(inputs));
        assert!(least < most);
        assert_eq!(of(most), CheckpointPolicy::default());
        let some = of((most + least) / 2);
        assert!(takes(some) <= (most + least) / 2 && some != inputs, "{some:?}");
        assert_eq!(of(least - 1), inputs);
    }
}

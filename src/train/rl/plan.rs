//! The memory plan of an RL run: the memory that rollouts and updates need on one GPU. Rollouts and updates never run
//! at the same time, so KV blocks, vision cache and the scratch of decoding use the same memory as gradients and
//! activations (see `docs/dev/design/training.md`).

use std::sync::Arc;

use crate::rl::distillation::Teacher;
use crate::rl::experience::Experience;
use crate::rl::group::{Group, responses};
use crate::rl::update::{self, Learner, MicroBatchStats, Reference};
use crate::training::exchange::Collector;
use crate::training::largest::{Made, Size, Tower, grown};
use crate::training::levels::{self, Counted, FittedLadder, SizeClass};
use crate::training::plan::{self, Planned, Training};
use crate::training::step::{self, Computed, Cost};
use omr_base::config::RlConfig;
use omr_base::error::Result;
use omr_data::rows::{Index, Row, Sample, Shape};
use omr_model::engine::{EngineConfig, EngineCoreRequest, Noise, Prompt, RequestParams};
use omr_model::llm;
use omr_model::nn::adapter::adapter_files;
use omr_model::nn::vision::CHUNK_PATCHES;
use omr_model::nn::{CheckpointPolicy, GradientSink, Model, ModelConfig, Policy};
use omr_model::optim::frozen;
use omr_model::rollout::Question;
use omr_runtime::device::{Device, Plan, Region, Target, Work};
use omr_runtime::ops::attend::BLOCK;
use omr_runtime::ops::policy_loss;
use omr_runtime::ops::sample::SamplingParams;
use omr_runtime::ranks::{OneRank, Ranks};
use omr_runtime::tensor::{DType, Tensor};

/// Settings that an error message suggests if the run needs too much memory.
pub const LOWER: &str = "micro_batch_tokens, rollout.max_num_batched_tokens, rollout.max_num_seqs, train_batch_size or \
    image_max_pixels; optim: adamw_8bit needs less memory, and optimizer_offload: true moves state from a GPU to its \
    host";

/// Returns the engine's limits. `vision_rows` is the number of rows of the images in the largest
/// batch of questions.
pub fn engine_config(
    config: &RlConfig,
    vision_rows: usize,
    num_kv_blocks: Option<usize>,
    allowed: Tensor,
) -> EngineConfig {
    let r = &config.rollout;
    EngineConfig {
        max_num_seqs: r.max_num_seqs,
        max_num_batched_tokens: r.max_num_batched_tokens,
        num_kv_blocks,
        vision_rows,
        enable_prefix_caching: r.enable_prefix_caching,
        allowed: Some(allowed),
        ..EngineConfig::new(config.max_prompt_length + config.max_response_length)
    }
}

/// Returns the parameters of the responses of step `step`, with the noise of the question whose number is 0.
pub fn params(config: &RlConfig, step: u64, stop_token_ids: Arc<[u32]>) -> RequestParams {
    let r = &config.rollout;
    RequestParams {
        sampling: SamplingParams {
            temperature: r.temperature as f32,
            top_p: r.top_p as f32,
            top_k: u32::try_from(r.top_k).unwrap_or(0),
            min_p: r.min_p as f32,
        },
        noise: Noise { seed: config.seed, step, prompt: 0 },
        ..RequestParams::new(config.max_response_length, stop_token_ids)
    }
}

/// Returns true if the run trains new adapters, without which its model is the reference policy. A run that continues an
/// adapter has the model with this adapter as its reference.
pub fn trains_new_adapters(config: &RlConfig) -> bool {
    config.optimizer.lora.is_some() && !config.model.as_deref().is_some_and(adapter_files::exist_in)
}

/// Plans `config` for questions of the sizes in `index`. Each region has the larger size of a rollout and an update.
/// Returns the plan and the number of KV cache blocks, if it is limited.
///
/// - If `target` limits the memory, the activation checkpointing policy with the least recomputation that fits is
///   chosen. The KV cache takes the remaining memory, up to the size that the rollouts can use.
/// - `allowed` has one bit per token id.
/// - Errors if a rollout or an update does not fit. With [`levels::LEAST`] there is no error, and the policy that takes
///   the least memory is planned.
pub fn rl(
    model_config: ModelConfig,
    config: &RlConfig,
    target: Target,
    ranks: OneRank,
    allowed: &[u32],
    index: &Index,
) -> Result<(Planned, Option<usize>)> {
    let mut training = Training::new(model_config.clone(), config.dtype, config.optimizer.clone(), target, ranks)?;
    let reference = match config.has_reference() {
        true if trains_new_adapters(config) => Some(training.model.base()),
        true => {
            let dtype = DType::of(config.dtype, target.kind);
            Some(frozen(&mut training.dev, model_config, dtype, &config.optimizer)?)
        }
        false => None,
    };
    let teacher = Teacher::empty(&mut training.dev, config, allowed)?;
    let allowed = training.dev.upload(Region::State, allowed, &[allowed.len()])?;
    let policy = Policy { allowed: Some(allowed), temperature: config.rollout.temperature as f32 };
    let mut classes = size_classes(config, &training.model.config, index);
    let largest = classes.last().map_or(Vec::new(), |class| class.batches.clone());
    let longest = longest_micro_batch(config, &training.model.config, index);
    classes.iter_mut().rev().take(1).for_each(|class| class.batches.push(longest.clone()));
    // These batches are micro-batches already and must not be cut again.
    let config = &RlConfig { micro_batch_tokens: usize::MAX, ..config.clone() };

    let Training { dev, model, .. } = &mut training;
    let asked = RlConfig { train_batch_size: share(config, ranks), ..config.clone() };
    let rollouts = Rollouts::new(&asked, &model.config, index, allowed);
    // A single sequence of full length must fit.
    let least = (config.max_prompt_length + config.max_response_length).div_ceil(BLOCK);
    let least = config.rollout.num_kv_blocks.unwrap_or(least);
    let mut rest = rollouts.engine(Some(least)).counted(model, dev, &rollouts.requests)?;
    let mark = dev.mark(Region::Overlay);
    let reference = reference.as_ref().map(|model| Reference { model, policy });
    for by in reference.into_iter().chain(teacher.as_ref().map(Teacher::reference)) {
        for groups in largest.iter().chain([&longest]) {
            update::ref_log_prob(dev, by, groups, &responses(groups), config.micro_batch_tokens)?;
        }
        rest = rest.max(&dev.high_water());
    }

    let (mut grads, update) = training.gradients()?;
    let whole_layers = training.exchange.bytes_for_whole_layers(&grads);
    let Training { dev, model, exchange, ranks, .. } = &mut training;
    rest = rest.max(&dev.high_water());
    let stats = MicroBatchStats::new(dev, config)?.of(0);
    let (reaches, before) = (plan::all_reach(ranks.size()), ranks.handed());
    let mut run = |groups: &Vec<Group>, levels: CheckpointPolicy| -> Result<(Plan, Vec<Work>)> {
        dev.reset_high_water();
        ranks.set_handed(before);
        let learner = Learner { model, policy, config, levels, step: 0 };
        let mut collector = Collector::new(exchange, ranks, &mut grads, &reaches);
        update::accumulate(dev, learner, &mut collector, groups, stats)?;
        collector.finish(dev)?;
        Ok((dev.high_water(), dev.take_work()))
    };
    let images = index.shapes().any(|shape| !shape.grids.is_empty());
    let count = |groups: &Vec<Group>, levels| run(groups, levels).map(|(memory, work)| Counted::new(memory, &work));
    let FittedLadder { ladder, memory } = levels::ladder(&model.config, images, target.memory, &rest, &classes, count)?;
    // The planned time belongs to the longest batch, which can occur. The largest batches may not occur, because they may
    // combine the maxima of all quantities.
    let (_, pass) = run(&longest, ladder.levels(usize::MAX))?;
    dev.release(mark);

    let planned = Planned {
        ladder,
        memory,
        budget: target.memory,
        held: 0,
        passes: memory.bytes(Region::Overlay),
        whole_layers,
        pass,
        pass_exposed: exchange.exposed(config.training.dist.overlap),
        pass_handed: ranks.handed().since(before),
        update,
    };
    if target.memory == levels::LEAST {
        return Ok((planned, Some(least)));
    }
    let planned = planned.check(LOWER)?;
    let configured = config.rollout.num_kv_blocks;
    let (engine, budget) = (rollouts.engine(configured), planned.budget.filter(|_| configured.is_none()));
    let (engine, memory) = engine.fitted(model, dev, &rollouts.requests, &planned.memory, budget)?;
    Ok((Planned { memory, ..planned }, engine.num_kv_blocks))
}

/// Returns the maximum number of prompts of a generation batch that one rank processes.
pub fn share(config: &RlConfig, ranks: OneRank) -> usize {
    config.gen_batch().div_ceil(ranks.size())
}

/// Returns the work of a mini-batch of `groups` prompts with responses of full length.
pub fn passes(config: &RlConfig, groups: usize, prompt: usize) -> Computed {
    let n = config.rollout.n;
    let cost = |i: usize| Cost { prompt, own: config.max_response_length, same_prompt: !i.is_multiple_of(n) };
    let costs: Vec<Cost> = (0..groups * n).map(cost).collect();
    let cuts = step::micro_batches(&costs, config.micro_batch_tokens);
    let tokens = cuts.iter().map(|cut| step::computed(&costs[cut.clone()])).sum();
    let targets = groups * n * config.max_response_length;
    let shared_tokens = groups * n * prompt + targets - tokens;
    Computed { targets, tokens, shared_tokens, micro_batches: cuts.len() }
}

/// Runs one training pass over a micro-batch on `dev`.
pub fn pass(
    dev: &mut Device,
    model: &Model,
    grads: &mut dyn GradientSink,
    config: &RlConfig,
    levels: CheckpointPolicy,
    groups: &[Group],
) -> Result<()> {
    let policy = Policy { allowed: None, temperature: config.rollout.temperature as f32 };
    let stats = policy_loss::stats(dev, Region::Overlay)?;
    update::accumulate(dev, Learner { model, policy, config, levels, step: 0 }, grads, groups, stats).map(drop)
}

/// The largest questions of the run, with which the memory of rollouts is counted.
struct Rollouts<'a> {
    config: &'a RlConfig,
    allowed: Tensor,
    vision_rows: usize,
    requests: Vec<EngineCoreRequest>,
}

impl Rollouts<'_> {
    fn new<'a>(config: &'a RlConfig, model: &ModelConfig, index: &Index, allowed: Tensor) -> Rollouts<'a> {
        let mut largest: Vec<usize> = (0..index.len()).collect();
        // The longest prompts and the prompts with the largest images may differ, and a step may contain either.
        let mut with_images = largest.clone();
        largest.sort_by_key(|&i| std::cmp::Reverse(index.tokens(i)));
        largest.truncate(config.train_batch_size);
        with_images.sort_by_key(|&i| std::cmp::Reverse(index.shape(i).patches()));
        with_images.truncate(config.train_batch_size);
        with_images.retain(|i| !largest.contains(i));
        let answered = largest.len();
        largest.extend(with_images);
        let params = params(config, 0, Arc::from([]));
        let request = |(k, &i): (usize, &usize)| {
            // If there are fewer rows than a batch needs, rows are repeated.
            let n = if k < answered { config.rollout.n * config.train_batch_size.div_ceil(answered) } else { 0 };
            EngineCoreRequest::new(question(plan::blank(model, index.shape(i))).prompt, n, params.clone())
        };
        Rollouts {
            config,
            allowed,
            vision_rows: llm::vision_rows(model, index, config.train_batch_size),
            requests: largest.iter().enumerate().map(request).collect(),
        }
    }

    /// Returns the engine's limits with this number of KV cache blocks.
    fn engine(&self, num_kv_blocks: Option<usize>) -> EngineConfig {
        engine_config(self.config, self.vision_rows, num_kv_blocks, self.allowed)
    }
}

fn question(prompt: Sample) -> Question {
    let prompt = Prompt { pixels: prompt.images, ..Prompt::text(prompt.input_ids) };
    Question { row: Row::default(), prompt: Arc::new(prompt) }
}

/// Returns a micro-batch that is as large as any other of its class, for each class of sizes.
fn size_classes(config: &RlConfig, model: &ModelConfig, index: &Index) -> Vec<SizeClass<Vec<Group>>> {
    let most = config.micro_batch_tokens;
    let shortest = index.shapes().map(|shape| shape.tokens).min().unwrap_or(0);
    let class = |tokens: usize| {
        let max_response_length = config.max_response_length.min(tokens - shortest);
        let config = RlConfig { micro_batch_tokens: tokens, max_response_length, ..config.clone() };
        SizeClass { tokens, batches: vec![largest_micro_batch(&config, model, index)] }
    };
    levels::sizes(most, most).into_iter().filter(|&tokens| tokens > shortest).map(class).collect()
}

/// Returns a micro-batch that is at least as large as any micro-batch of the run in every quantity that affects memory,
/// for any combination of questions and any length of answers. If a micro-batch that can occur is that large, it is
/// returned; otherwise one is made up from the maximum of each quantity.
fn largest_micro_batch(config: &RlConfig, model: &ModelConfig, index: &Index) -> Vec<Group> {
    let tower = Tower::new(model);
    let bound = bound(config, tower, index);
    let mut shortest: Vec<usize> = (0..index.len()).collect();
    shortest.sort_by_key(|&i| index.tokens(i));
    let mut longest = shortest.clone();
    longest.reverse();
    for order in [shortest, longest] {
        let batch = mini_batch(config, index, &order, config.max_response_length);
        let segments = batch.chunk_by(|a, b| a.0 == b.0).flat_map(|group| segments(index.shape(group[0].0), group));
        if Size::of(tower, segments).covers(&bound) {
            return groups(config, model, index, &batch);
        }
    }
    // Start from the smallest micro-batch. If it already had all tokens of the bound, the tokens of the added images
    // would exceed the bound.
    let least = [Shape { tokens: 2, targets: 1, grids: &[] }];
    let made = grown(tower, least, &bound);
    let shapes: Vec<Shape<'_>> = made.iter().map(Made::shape).collect();
    if config.rollout.n == 1 {
        let whole = |(index, shape): (usize, &Shape<'_>)| {
            // Tokens of images may be targets, so all tokens count as those of the prompt.
            let sample = plan::blank(model, *shape);
            let (prompt, response) = sample.input_ids.split_at(sample.input_ids.len() - shape.targets);
            let experience = made_up(config, prompt, response);
            Group::made_up(index, question(sample), vec![experience])
        };
        return shapes.iter().enumerate().map(whole).collect();
    }
    // One prompt has all images. The other sequences are its responses, of one token each. The largest numbers of
    // images and of targets together may exceed the tokens, so tokens of the prompt are targets, too.
    let grids: Vec<_> = shapes.iter().flat_map(|shape| shape.grids).copied().collect();
    let (tokens, responses) = (shapes.iter().map(|shape| shape.tokens).sum::<usize>(), shapes.len() - 1);
    let prompt = plan::blank(model, Shape { tokens: tokens - responses, targets: 0, grids: &grids });
    let mut experience = vec![made_up(config, &prompt.input_ids, &[0]); responses];
    let targets = shapes.iter().map(|shape| shape.targets).sum::<usize>().saturating_sub(responses);
    if let Some(Experience { loss_mask, old_log_prob, ref_log_prob, teacher_log_prob, .. }) = experience.first_mut() {
        loss_mask.iter_mut().rev().skip(1).take(targets).for_each(|counts| *counts = true);
        old_log_prob.resize(1 + targets, 0.0);
        ref_log_prob.iter_mut().chain(teacher_log_prob).for_each(|log_prob| log_prob.resize(1 + targets, 0.0));
    }
    vec![Group::made_up(0, question(prompt), experience)]
}

/// Returns the sequences of a micro-batch that consist of a question of size `shape` and its responses, which are pairs
/// of the question and a number of tokens.
fn segments<'a>(shape: Shape<'a>, group: &[(usize, usize)]) -> Vec<Shape<'a>> {
    let Shape { tokens, grids, .. } = shape;
    match *group {
        [(_, response)] => vec![Shape { tokens: tokens + response, targets: response, grids }],
        _ => {
            let response = |&(_, targets): &(usize, usize)| Shape { tokens: targets, targets, grids: &[] };
            [Shape { tokens, targets: 0, grids }].into_iter().chain(group.iter().map(response)).collect()
        }
    }
}

/// Returns a micro-batch of the longest questions with answers of full length.
pub fn longest_micro_batch(config: &RlConfig, model: &ModelConfig, index: &Index) -> Vec<Group> {
    let mut longest: Vec<usize> = (0..index.len()).collect();
    longest.sort_by_key(|&i| std::cmp::Reverse(index.tokens(i)));
    groups(config, model, index, &mini_batch(config, index, &longest, config.max_response_length))
}

/// Returns the maximum of each quantity of a micro-batch's size, where each maximum is independent of the others.
pub fn bound(config: &RlConfig, tower: Tower, index: &Index) -> Size {
    let (room, response, n) = (config.micro_batch_tokens, config.max_response_length, config.rollout.n);
    let most = config.ppo_mini_batch_size * n;
    let often = repeats(config, index);
    let mut prompts: Vec<usize> = (0..index.len()).map(|i| index.tokens(i)).collect();
    prompts.sort_unstable();
    let shortest = prompts.first().copied().unwrap_or(0);
    // The shortest prompts leave the most room. Responses of one token give the most sequences, and complete responses
    // the most targets. After the groups with all their responses, the last group is incomplete.
    let most_of = |response: usize| {
        let (groups, rest) = (room / (shortest + n * response), room % (shortest + n * response));
        groups * n * response + rest.saturating_sub(shortest).min(n * response)
    };
    let responses = most.min(most_of(1));
    // Each prompt with several responses is a sequence of its own.
    let prompts = if n == 1 { 0 } else { config.ppo_mini_batch_size.min(responses / 2) };
    let sequences = responses + prompts;
    // Returns an upper bound of a quantity that each prompt adds once, independent of its number of responses. The
    // bound is the smaller of two sums:
    //
    // - The prompts with the most of this quantity per token, each with one response token, until the micro-batch is
    //   full. The last prompt counts in part.
    // - The prompts with the most of this quantity, as many as a mini-batch has.
    let dense = |of: &dyn Fn(&Size) -> usize| -> usize {
        let whole = |i: usize| (of(&Size::of(tower, [index.shape(i)])), index.tokens(i) + 1);
        let mut counts: Vec<(usize, usize)> = (0..index.len()).map(whole).collect();
        counts.sort_unstable_by_key(|(count, _)| std::cmp::Reverse(*count));
        let largest = counts.iter().flat_map(|&(count, _)| std::iter::repeat_n(count, often));
        let at_once: usize = largest.take(config.ppo_mini_batch_size).sum();
        counts.sort_by(|a, b| (b.0 * a.1).cmp(&(a.0 * b.1)));
        let (mut sum, mut left) = (0, room);
        for (count, tokens) in counts.into_iter().flat_map(|row| std::iter::repeat_n(row, often)) {
            if tokens > left {
                sum += (count * left).div_ceil(tokens);
                break;
            }
            (sum, left) = (sum + count, left - tokens);
        }
        sum.min(at_once)
    };
    let patches = dense(&|size| size.patches);
    let images = dense(&|size| size.images);
    let single = index.shapes().map(|shape| Size::of(tower, [shape]).largest).max().unwrap_or(0);
    // Two consecutive chunks together have more patches than the maximum of one chunk.
    let chunks =
        if patches <= CHUNK_PATCHES { usize::from(images > 0) } else { images.min(2 * patches / CHUNK_PATCHES + 1) };
    Size {
        tokens: longest_mini_batch(config, index).min(room),
        targets: most_of(response).min(most * response),
        sequences,
        chunks,
        patches,
        largest: single.max(patches.min(CHUNK_PATCHES)),
        windows: dense(&|size| size.windows),
        images,
        pixels: dense(&|size| size.pixels),
    }
}

/// Returns the number of tokens of a mini-batch of the longest questions with answers of full length.
fn longest_mini_batch(config: &RlConfig, index: &Index) -> usize {
    let mut prompts: Vec<usize> = (0..index.len()).map(|i| index.tokens(i)).collect();
    prompts.sort_unstable_by_key(|&tokens| std::cmp::Reverse(tokens));
    let often = repeats(config, index);
    let longest = prompts.iter().flat_map(|p| std::iter::repeat_n(p, often)).take(config.ppo_mini_batch_size);
    longest.map(|p| p + config.max_response_length * config.rollout.n).sum()
}

/// Returns how often a mini-batch can contain the same row. Epochs follow one another without a gap, and the group
/// filter combines groups of several batches.
fn repeats(config: &RlConfig, index: &Index) -> usize {
    let (rows, batch) = (index.len().max(1), config.ppo_mini_batch_size);
    if config.filter_groups.enable {
        batch
    } else if rows.is_multiple_of(batch) {
        1
    } else {
        (batch - 1).div_ceil(rows) + 1
    }
}

/// Returns one micro-batch of the questions in `order`, each with n responses, whose prompt is computed once. Each
/// response is a pair of its question and its number of tokens. The last response is truncated to fit.
fn mini_batch(config: &RlConfig, index: &Index, order: &[usize], response: usize) -> Vec<(usize, usize)> {
    let (mut batch, mut room) = (Vec::new(), config.micro_batch_tokens);
    let rollouts = order.iter().cycle().flat_map(|&i| std::iter::repeat_n(i, config.rollout.n));
    for i in rollouts.take(config.ppo_mini_batch_size * config.rollout.n) {
        let same_prompt = batch.last().is_some_and(|&(question, _)| question == i);
        let prompt = if same_prompt { 0 } else { index.tokens(i) };
        if prompt >= room {
            break;
        }
        let response = response.min(room - prompt);
        room -= prompt + response;
        batch.push((i, response));
    }
    batch
}

/// Makes up the groups of a mini-batch.
fn groups(config: &RlConfig, model: &ModelConfig, index: &Index, batch: &[(usize, usize)]) -> Vec<Group> {
    // The rollouts of one question are consecutive.
    let group = |(place, rollouts): (usize, &[(usize, usize)])| {
        let question = question(plan::blank(model, index.shape(rollouts[0].0)));
        let prompt = &question.prompt.token_ids;
        let experience = rollouts.iter().map(|&(_, response)| made_up(config, prompt, &vec![0; response])).collect();
        Group::made_up(place, question, experience)
    };
    batch.chunk_by(|a, b| a.0 == b.0).enumerate().map(group).collect()
}

/// Makes up a response that can move the policy, with an advantage of 1.
fn made_up(config: &RlConfig, prompt: &[u32], response: &[u32]) -> Experience {
    let log_prob = vec![0.0; response.len()];
    let ref_log_prob = config.use_kl_loss.then(|| log_prob.clone());
    let teacher_log_prob = config.distillation.is_some().then(|| log_prob.clone());
    Experience { ref_log_prob, teacher_log_prob, advantage: 1.0, ..Experience::of_tokens(prompt, response, log_prob) }
}

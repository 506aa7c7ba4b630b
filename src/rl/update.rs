//! The policy update: a mini-batch of rollouts, cut into micro-batches, to gradients and verl's figures.
//!
//! Denominators are counted over the whole mini-batch before it is cut (verl's newer engine; its older actor
//! weighs micro-batches as if they were alike), so the cut changes no term of the loss.

use crate::config::RlConfig;
use crate::device::Device;
use crate::engine::ask::{Question, Rollout};
use crate::error::Result;
use crate::model::{Grads, Keep, Levels, Model, Policy};
use crate::ops::policy_loss::{self, Batch, Denominators, PolicyLoss, PolicyStats, Sums};
use crate::rl::correction::ProbsDiff;
use crate::train::step::{self, Sequence};

/// One response to learn from.
#[derive(Clone, Debug)]
pub struct Experience {
    /// Prompt and response tokens.
    pub input_ids: Vec<u32>,
    /// `[len]`: true for the response.
    pub loss_mask: Vec<bool>,
    /// Log-probs of the response tokens under the policy that sampled them.
    pub old_log_prob: Vec<f32>,
    /// Log-probs under the reference policy, with a KL term.
    pub ref_log_prob: Option<Vec<f32>>,
    /// Group-relative advantage.
    pub advantage: f64,
    /// Index of the question among those asked.
    pub question: usize,
}

impl Experience {
    /// Of a rollout and its advantage.
    pub fn new(question: &Question, rollout: &Rollout, advantage: f64) -> Experience {
        let prompt = &question.prompt.token_ids;
        let response = &rollout.output.token_ids;
        let mut loss_mask = vec![false; prompt.len()];
        loss_mask.resize(prompt.len() + response.len(), true);
        Experience {
            input_ids: [&prompt[..], &response[..]].concat(),
            loss_mask,
            old_log_prob: rollout.output.logprobs.clone(),
            ref_log_prob: None,
            advantage,
            question: rollout.question,
        }
    }

    /// It as a sequence to be trained on.
    pub fn sequence<'a>(&'a self, questions: &[&'a Question]) -> Sequence<'a> {
        let prompt = &questions[self.question].prompt;
        Sequence {
            input_ids: &self.input_ids,
            images: &prompt.pixels,
            prompt_len: prompt.token_ids.len(),
            loss_mask: &self.loss_mask,
        }
    }
}

/// What a mini-batch's pass saw.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Loss and clip figures.
    pub stats: PolicyStats,
    /// Tokens computed.
    pub tokens: usize,
    /// log p of each response token as the trainer computes it.
    pub log_prob: Vec<f32>,
    /// The same as the sampler recorded it.
    pub rollout_log_prob: Vec<f32>,
}

impl Seen {
    /// How far trainer and sampler are apart: 0 before the first update of a batch (DESIGN section 8).
    pub fn probs_diff(&self) -> ProbsDiff {
        ProbsDiff::of(&vec![1; self.log_prob.len()], &self.log_prob, &self.rollout_log_prob)
    }
}

/// Adds the gradients of a mini-batch's loss to `grads`.
///
/// Responses that cannot move the policy (advantage 0, no KL or entropy term) are computed apart from the others and
/// forward only, for the figures: what their backward would add is exactly 0.
#[allow(clippy::too_many_arguments)]
pub fn accumulate(
    dev: &mut Device,
    model: &Model,
    grads: &mut Grads,
    batch: &[Experience],
    questions: &[&Question],
    policy: Policy,
    config: &RlConfig,
    levels: Levels,
) -> Result<Seen> {
    let loss = PolicyLoss::from(config);
    let whole = response_borders(batch);
    let mask = vec![1; whole.last().copied().unwrap_or(0) as usize];
    let denominators = Denominators::new(&whole, &mask, Some(config.max_response_length as f64));
    let advantage_alone = loss.kl_loss.is_none() && loss.entropy_coeff == 0.0;
    let idle = |e: &&Experience| advantage_alone && e.advantage == 0.0;
    let (mut idle, mut moving): (Vec<&Experience>, Vec<&Experience>) = batch.iter().partition(idle);
    // A parameter only idle responses reach (the tower, when no other has a picture) still has a gradient, of 0, and
    // its update: momentum and decay go on as in torch.
    let pictures = |e: &&Experience| !questions[e.question].prompt.pixels.is_empty();
    if moving.is_empty() || (idle.iter().any(pictures) && !moving.iter().any(pictures)) {
        moving = batch.iter().collect();
        idle.clear();
    }
    let (mut seen, mut sums) = (Seen::default(), Sums::NONE);
    for (group, moves) in [(moving, true), (idle, false)] {
        let lengths: Vec<usize> = group.iter().map(|e| e.input_ids.len()).collect();
        for range in step::micro_batches(&lengths, config.micro_batch_tokens)? {
            let part = &group[range];
            let sequences: Vec<Sequence<'_>> = part.iter().map(|e| e.sequence(questions)).collect();
            let forward = step::forward(dev, model, &sequences, policy, levels, true)?;
            seen.tokens += sequences.iter().map(|s| s.input_ids.len()).sum::<usize>();
            let part = Part::new(part);
            let batch = part.batch();
            let mut dlog_prob = vec![0.0; forward.log_prob.len()];
            let mut dentropy = dlog_prob.clone();
            let entropy = forward.entropy.as_deref().map(|h| (h, &mut dentropy[..]));
            sums += policy_loss::compute(&loss, &denominators, &batch, &forward.log_prob, &mut dlog_prob, entropy)?;
            seen.log_prob.extend_from_slice(&forward.log_prob);
            seen.rollout_log_prob.extend_from_slice(batch.old_log_prob);
            if moves {
                let dentropy = (loss.entropy_coeff != 0.0).then_some(&dentropy[..]);
                forward.backward(dev, grads, &dlog_prob, dentropy)?;
            } else {
                forward.discard(dev);
            }
        }
    }
    seen.stats = PolicyStats::new(&loss, &denominators, &sums);
    Ok(seen)
}

/// Log-probs of every response under `model`, filled into `ref_log_prob`.
pub fn reference(
    dev: &mut Device,
    model: &Model,
    batch: &mut [Experience],
    questions: &[&Question],
    policy: Policy,
    micro_batch_tokens: usize,
) -> Result<()> {
    let lengths: Vec<usize> = batch.iter().map(|e| e.input_ids.len()).collect();
    for range in step::micro_batches(&lengths, micro_batch_tokens)? {
        let part = &mut batch[range];
        let sequences: Vec<Sequence<'_>> = part.iter().map(|e| e.sequence(questions)).collect();
        let forward = step::forward(dev, model, &sequences, policy, Keep::Inputs, false)?;
        for (experience, borders) in part.iter_mut().zip(forward.cu_targets.windows(2)) {
            experience.ref_log_prob = Some(forward.log_prob[borders[0] as usize..borders[1] as usize].to_vec());
        }
        forward.discard(dev);
    }
    Ok(())
}

/// Borders of the responses, one after another.
fn response_borders<'a>(batch: impl IntoIterator<Item = &'a Experience>) -> Vec<u32> {
    let mut borders = vec![0u32];
    borders.extend(batch.into_iter().scan(0, |end, e| {
        *end += e.old_log_prob.len() as u32;
        Some(*end)
    }));
    borders
}

/// A micro-batch's response tokens, one response after another.
struct Part {
    cu_seqlens: Vec<u32>,
    old_log_prob: Vec<f32>,
    ref_log_prob: Option<Vec<f32>>,
    advantages: Vec<f64>,
}

impl Part {
    fn new(part: &[&Experience]) -> Part {
        let cu_seqlens = response_borders(part.iter().copied());
        let old_log_prob = part.iter().flat_map(|e| e.old_log_prob.iter().copied()).collect::<Vec<f32>>();
        let reference: Option<Vec<&Vec<f32>>> = part.iter().map(|e| e.ref_log_prob.as_ref()).collect();
        Part {
            cu_seqlens,
            old_log_prob,
            ref_log_prob: reference.map(|rows| rows.into_iter().flatten().copied().collect()),
            advantages: part.iter().map(|e| e.advantage).collect(),
        }
    }

    fn batch(&self) -> Batch<'_, f32> {
        Batch {
            cu_seqlens: &self.cu_seqlens,
            mask: None,
            old_log_prob: &self.old_log_prob,
            ref_log_prob: self.ref_log_prob.as_deref(),
            advantages: &self.advantages,
            rollout_is_weights: None,
        }
    }
}

//! Benchmark of an RL update: forward, policy loss and backward over groups of responses, clipping and AdamW.

use std::sync::Arc;

use super::case::{Case, JobSize, label};
use super::jobs::{JobModel, flops, image, row, trained};
use super::model_shape::ModelShape;
use omr_base::config::{RlConfig, RolloutConfig};
use omr_base::error::Result;
use omr_data::rows::Row;
use omr_model::engine::Prompt;
use omr_model::nn::{CheckpointPolicy, Grads, Policy};
use omr_model::optim::Optimizer;
use omr_model::rollout::Question;
use omr_runtime::device::{Device, Kind, Region};
use omr_runtime::ops::policy_loss;
use omr_runtime::tensor::DType;
use omr_train::rl::experience::Experience;
use omr_train::rl::group::{Group, responses, sequences};
use omr_train::rl::update::{self, Learner};
use omr_train::training::step::Computed;

/// Number of prompts of an update, and of tokens of each prompt and response. Each prompt has [`ROLLOUTS`] responses.
struct Sizes {
    prompts: usize,
    prompt_len: usize,
    response_len: usize,
}

const ROLLOUTS: usize = 8;

impl Sizes {
    /// Returns the sizes of `bench/peers/rl_step.py`, or smaller ones for the emulator.
    fn of(shape: ModelShape, kind: Kind) -> Sizes {
        match shape {
            _ if kind == Kind::Emu => Sizes { prompts: 1, prompt_len: 12, response_len: 4 },
            ModelShape::Digits => Sizes { prompts: 32, prompt_len: 24, response_len: 24 },
            _ => Sizes { prompts: 1, prompt_len: 500, response_len: 256 },
        }
    }
}

/// Makes the case of an update in one micro-batch. If `apart` is true, each response has its own copy of the prompt, so
/// that the prompt is computed for each response.
pub fn rl_step(dev: &mut Device, dtype: DType, of: JobModel, apart: bool) -> Result<Case> {
    let Sizes { prompts, prompt_len, response_len } = Sizes::of(of.shape, dev.kind());
    let model = of.make(dev, dtype)?;
    let config = model.config.clone();
    let mut optimizer = Optimizer::new(dev, &model.layout, of.optim(), 1)?;
    let mut grads = Grads::new(dev, &model.layout)?;
    let stats = policy_loss::stats(dev, Region::Overlay)?;
    let mut groups = Vec::new();
    for p in 0..prompts {
        let prompt = Arc::new(Prompt::new(&config, &row(&config, p, prompt_len), &[image(p)])?);
        let response = |r: usize| {
            let tokens = (0..response_len).map(|t| ((r * response_len + t) * 7919) as u32 % 400).collect::<Vec<_>>();
            let made = Experience::of_tokens(&prompt.token_ids, &tokens, vec![-6.0; response_len]);
            Experience { advantage: if r.is_multiple_of(2) { 1.0 } else { -1.0 }, ..made }
        };
        let all: Vec<Experience> = (0..ROLLOUTS).map(response).collect();
        let question = || Question { row: Row::default(), prompt: prompt.clone() };
        for some in all.chunks(if apart { 1 } else { ROLLOUTS }) {
            groups.push(Group::made_up(groups.len(), question(), some.to_vec()));
        }
    }
    let rollout = RolloutConfig { n: ROLLOUTS, ..RolloutConfig::default() };
    let config = RlConfig { micro_batch_tokens: usize::MAX, rollout, ..RlConfig::default() };
    let computed = Computed::micro_batch(&sequences(&groups, &responses(&groups))).tokens;
    let parameters = model.layout.num_weights();
    let what = if apart { ", prompts apart" } else { "" };
    Ok(Case {
        name: "rl-step",
        shape: format!("{}, {prompts} x {prompt_len} + {ROLLOUTS} x {response_len}{what}", of.name()),
        dtype: label(dtype),
        flops: flops(&model, computed, if apart { prompts * ROLLOUTS } else { prompts }, true),
        bytes: (trained(&model) * 7 * 4) as f64,
        job: Some(JobSize { parameters, tokens: prompts * ROLLOUTS * (prompt_len + response_len), pages: None }),
        run: Box::new(move |dev| {
            let (policy, levels) = (Policy::default(), CheckpointPolicy::default());
            let learner = Learner { model: &model, policy, config: &config, levels, step: 0 };
            grads.zero(dev)?;
            update::accumulate(dev, learner, &mut grads, &groups, stats)?;
            optimizer.step(dev, &model.layout, &grads, 1e-4)
        }),
    })
}

//! The plan of reinforcement learning with invented questions.

use serde_json::json;

use super::assumptions::Rows;
use super::floor::Floor;
use super::launches::{self, predicted};
use super::layout::{GpuLayout, Weights};
use super::page::Page;
use super::pass::Pass;
use super::shapes;
use super::training::{
    GpuSet, Keys, Overrides, RowSize, Training, layout, minimal_target, parameters, quantized_note, target,
};
use crate::rl;
use omr_base::config::RlConfig;
use omr_base::error::{Error, Result};
use omr_data::image::Grid;
use omr_data::rows::{Index, Shape};
use omr_model::nn::ModelConfig;
use omr_model::rollout::wire;
use omr_runtime::device::perf_model::Range;

/// Returns the host memory of a rollout: as sampled, as exchanged between ranks, and as used for training.
fn rollout_bytes(prompt: usize, response: usize, ranks: usize) -> usize {
    let sampled = if ranks > 1 { 2 } else { 1 };
    // Ids and a mask for all tokens, log-probs for the response.
    sampled * wire::BYTES_A_TOKEN * response + 5 * (prompt + response) + 4 * response
}

impl Training for RlConfig {
    fn keys(&mut self) -> Keys<'_> {
        let RlConfig { model, dtype, optimizer, training, total_training_steps: steps, total_epochs, .. } = self;
        let (epochs, response) = (*total_epochs as f64, Some(&mut self.max_response_length));
        let model = model.as_ref();
        Keys { model, dtype, optimizer, training, steps: *steps, epochs, micro_batch_tokens: None, response }
    }

    fn page(&self, gpus: GpuSet, rows: &Rows, model: ModelConfig) -> Result<Page> {
        if let Some(lengths) = &rows.lengths {
            return Err(Error::input("--data", lengths.path.display().to_string(), "a config of `omr sft` with it"));
        }
        let (on, ceilings) = (gpus.gpu_options, gpus.gpu_options.gpu.ceilings());
        let response = self.max_response_length;
        let Questions { prompt, grids, index } = Questions::new(self, rows, &model)?;
        let allowed = vec![u32::MAX; model.text.vocab_size.div_ceil(32)];
        let (config, layout) = layout(gpus, &model, self)?;
        let config = &config;
        let target = target(gpus, config.training.max_memory_gib);
        let (planned, num_kv_blocks) = rl::plan::rl(model.clone(), config, target, layout.fullest, &allowed, &index)?;
        let planned = planned.widened();
        let share = RlConfig { train_batch_size: rl::plan::share(config, layout.fullest), ..config.clone() };
        let rollouts = shapes::Rollouts::new(&model, &share, prompt, num_kv_blocks);
        let sequences = config.train_batch_size * config.rollout.n;
        // A micro-batch contains responses to questions of one gradient lane only.
        let groups = config.ppo_mini_batch_size.div_ceil(layout.lanes);
        let lane = RlConfig { ppo_mini_batch_size: groups, ..config.clone() };
        let updates = config.train_batch_size / config.ppo_mini_batch_size * config.ppo_epochs;
        let of_lane = rl::plan::passes(config, groups, prompt);
        let lanes = layout.lanes.min(config.ppo_mini_batch_size);
        let trained = of_lane.tokens as f64 / groups as f64;
        let passes = updates * (lanes * of_lane.micro_batches).div_ceil(layout.count);
        let pass = Pass::Rl { groups: rl::plan::longest_micro_batch(&lane, &model, &index), config: Box::new(lane) };
        let levels = planned.ladder.levels(pass.tokens());
        let predicted = predicted(on, |launches| {
            let weights = Weights { dtype: config.dtype, optimizer: config.optimizer.clone() };
            let [pass, update] = launches.training(&model, weights.clone(), layout.fullest, &pass, levels)?;
            if on.launches.is_some() {
                for batch in launches::BATCHES {
                    launches.decoding(&model, weights.clone(), batch, launches::CONTEXT)?;
                }
            }
            let at_once = launches.decoding(&model, weights, rollouts.batch as usize, prompt + response / 2)?;
            let prefill = Range::exact(rollouts.prefill(&ceilings).seconds);
            let rollouts = [prefill, rollouts.steps() * at_once].into_iter().sum();
            Ok(vec![rollouts, passes as f64 * pass, updates as f64 * update])
        })?;
        let mut host = layout.host(&planned);
        let images = (1 + rl::run::AHEAD) * config.train_batch_size * shapes::pixels(&model, &grids);
        host.push(("images of questions made ahead", images));
        host.push(("rollouts of a step", sequences * rollout_bytes(prompt, response, layout.count)));
        Ok(Page {
            stage: "rl",
            parameters: parameters(&model, &config.optimizer)?,
            assumes: format!(
                "{sequences} rollouts of {prompt} + {response} tokens per step, all of full length{}",
                shapes::described(&model, &grids)
            ),
            notes: [vec![("kv cache", rollouts.describe())], quantized_note(&model, &config.optimizer)?].concat(),
            host,
            parts: vec![
                ("rollouts", rollouts.floor(&ceilings)),
                ("passes", Floor::sum(&planned.pass, &ceilings).times(passes as f64)),
                ("updates", Floor::sum(&planned.update.work, &ceilings).times(updates as f64)),
            ],
            predicted,
            clock: on.clock,
            updates,
            passes,
            waiting: None,
            row_tokens: prompt + response,
            rows: config.train_batch_size,
            run: None,
            tokens: [(config.train_batch_size * config.ppo_epochs) as f64 * trained, (sequences * response) as f64],
            limit: config.training.save_total_limit,
            interval: config.save_freq,
            links: on.gpu.links(),
            ceilings,
            layout,
            model,
            planned,
            pass,
        })
    }

    fn row_size(&self, rows: &Rows) -> Result<RowSize> {
        let fixed = rows.tokens(self.max_prompt_length, "max_prompt_length")?;
        Ok(RowSize { tokens: fixed + self.max_response_length, fixed })
    }

    fn row_keys(&self, rows: &Rows, tokens: usize) -> Result<Option<Overrides>> {
        let response = self.max_response_length.min(tokens.saturating_sub(self.row_size(rows)?.fixed));
        Ok((response > 0)
            .then(|| vec![("max_response_length", json!(response)), ("micro_batch_tokens", json!(tokens))]))
    }

    fn least(&self, model: &ModelConfig, rows: &Rows, layout: &GpuLayout) -> Result<usize> {
        let Questions { index, .. } = Questions::new(self, rows, model)?;
        let allowed = vec![u32::MAX; model.text.vocab_size.div_ceil(32)];
        let (planned, _) = rl::plan::rl(model.clone(), self, minimal_target(), layout.fullest, &allowed, &index)?;
        Ok(planned.memory.total())
    }
}

/// Invented questions of a config.
struct Questions {
    /// Tokens of a prompt.
    prompt: usize,
    /// Image of each prompt.
    grids: Vec<Grid>,
    index: Index,
}

impl Questions {
    fn new(config: &RlConfig, rows: &Rows, model: &ModelConfig) -> Result<Questions> {
        let RowSize { tokens, fixed: prompt } = config.row_size(rows)?;
        if tokens > config.micro_batch_tokens {
            let expected = format!("at least the longest prompt and response together, {tokens} tokens");
            return Err(Error::input("micro_batch_tokens", config.micro_batch_tokens.to_string(), expected));
        }
        let grids = shapes::grids(model, rows.image_tokens, config.training.images.image_max_pixels, prompt)?;
        let mut index = Index::default();
        (0..config.train_batch_size).for_each(|_| index.push(Shape { tokens: prompt, targets: 0, grids: &grids }));
        Ok(Questions { prompt, grids, index })
    }
}

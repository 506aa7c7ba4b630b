//! The plans of fine-tuning and of reinforcement learning on made-up rows.

use super::card::{Card, Rows};
use super::floor::Floor;
use super::launches::{self, Launches};
use super::page::Page;
use super::pass::Pass;
use super::seats::Seats;
use super::shapes;
use crate::config::{self, RlConfig, SftConfig};
use crate::data::Shape;
use crate::device::{Device, Kind, Target};
use crate::error::{Error, Result};
use crate::files;
use crate::image::Grid;
use crate::model::{Grads, Model, ModelConfig};
use crate::rl;
use crate::rollout::wire;
use crate::tensor::DType;
use crate::train::plan::{self, Planned};
use crate::train::sft::{AHEAD, LOWER};

/// Cards of a kind.
pub type Cards<'a> = (&'a Card, usize);

/// A card as the run has it: less what a plan may not take, and what the config does not allow.
pub fn target((on, count): Cards, max_memory_gib: Option<f64>) -> Target {
    let budget = on.gpu.ceilings().budget(count);
    Target::gpu(Kind::Cuda).within(Some(budget)).within(plan::gib_to_bytes(max_memory_gib))
}

fn parameters(model: &ModelConfig, dtype: config::Dtype) -> Result<usize> {
    let mut dev = Device::count_for(Target::gpu(Kind::Cuda));
    let dtype = DType::of(dtype, Kind::Cuda);
    Ok(Model::empty(&mut dev, model.clone(), dtype)?.layout.num_weights())
}

/// What `fill` lists and predicts on a Hopper card, whose launches are written where they are asked for.
fn predicted(card: &Card, fill: impl FnOnce(&mut Launches) -> Result<Vec<f64>>) -> Result<Vec<f64>> {
    if !card.gpu.is_hopper() {
        return Ok(Vec::new());
    }
    let mut launches = Launches::new(card.gpu.ceilings(), 1e6 * card.clock);
    let seconds = fill(&mut launches)?;
    card.launches.as_ref().map_or(Ok(()), |path| files::write(path, launches.text().as_bytes()))?;
    Ok(seconds)
}

/// Seconds of adding lanes up, which the list of launches leaves out: at its floor.
fn lane_sums(on: &Card, planned: &Planned) -> f64 {
    let sums: Vec<_> = planned.update.work.iter().filter(|work| work.op == "lane_sum").copied().collect();
    Floor::sum(&sums, &on.gpu.ceilings()).seconds
}

/// Bytes of the pixels of pictures.
fn pixels(model: &ModelConfig, grids: &[Grid]) -> usize {
    let patches: usize = grids.iter().map(|grid| grid.frame_patches()).sum();
    patches * model.vision_config.patch_size.pow(2) * 3
}

/// Host memory of a rollout: as it was sampled, as ranks hand it over, as it is learned from.
fn rollout_bytes(prompt: usize, response: usize, ranks: usize) -> usize {
    let sampled = if ranks > 1 { 2 } else { 1 };
    // Ids and a mask of all tokens, log-probs of the response.
    sampled * wire::BYTES_A_TOKEN * response + 5 * (prompt + response) + 4 * response
}

/// The cards of fine-tuning: an update is divided by its packs, or by its rows.
pub fn sft_seats(cards: Cards, model: &ModelConfig, config: &SftConfig) -> Result<Seats> {
    let parts = match config.train_batch_size {
        Some(rows) => ("train_batch_size", rows),
        None => ("gradient_accumulation_steps", config.gradient_accumulation_steps),
    };
    let of = (config.dtype, config.optimizer, target(cards, config.max_memory_gib));
    Seats::new(cards.1, config.gradient_lanes, parts, model, of)
}

/// The plan of fine-tuning `model` on such rows, on so many cards.
pub fn sft_page(cards: Cards, rows: &Rows, model: ModelConfig, config: &SftConfig) -> Result<Page> {
    let (on, card, length) = (cards.0, cards.0.gpu.ceilings(), config.packing_length);
    if length > config.micro_batch_tokens {
        let expected = format!("at least packing_length, which is {length}: a row of a pack's length has to fit");
        return Err(Error::input("micro_batch_tokens", config.micro_batch_tokens.to_string(), expected));
    }
    let row_tokens = rows.tokens(length, "packing_length")?;
    let grids = shapes::grids(&model, rows.image_tokens, config.image_max_pixels, row_tokens)?;
    let row = plan::blank(&model, Shape { tokens: row_tokens, targets: row_tokens - 1, grids: &grids });
    let seats = sft_seats(cards, &model, config)?;
    let config = &SftConfig { gradient_lanes: Some(seats.lanes), ..config.clone() };
    let packs = config.train_batch_size.unwrap_or(config.gradient_accumulation_steps);
    // As many packs as a micro-batch holds, and a lane has.
    let (count, of_pack) = ((config.micro_batch_tokens / length).min(packs.div_ceil(seats.lanes)), length / row_tokens);
    let pass = Pass::Sft { row, rows: count * of_pack };
    let target = target(cards, config.max_memory_gib);
    let planned = plan::sft(model.clone(), config, target, seats.fullest, &[pass.sequences()])?.check(LOWER)?;
    let passes = seats.passes(packs, count);
    let predicted = predicted(on, |launches| {
        let run = |dev: &mut Device, model: &Model, grads: &mut Grads| pass.run(dev, model, grads, planned.levels);
        let of = (config.dtype, config.optimizer, seats.fullest);
        let [pass, update] = launches.training(&model, of, pass.tokens(), run)?;
        Ok(vec![passes as f64 * pass, update + lane_sums(on, &planned)])
    })?;
    let mut host = seats.host(&planned.update);
    host.push(("pictures of rows made ahead", (1 + AHEAD) * count * of_pack * pixels(&model, &grids)));
    Ok(Page {
        stage: "sft",
        parameters: parameters(&model, config.dtype)?,
        assumes: format!(
            "an update of {packs} packs of {length} tokens, each {}{}",
            match of_pack {
                1 if row_tokens == length => "one row".to_owned(),
                1 => format!("one row of {row_tokens}"),
                _ => format!("{of_pack} rows of {row_tokens}"),
            },
            shapes::described(&model, &grids)
        ),
        parts: vec![
            ("passes", Floor::sum(&planned.pass, &card).times(passes as f64)),
            ("update", Floor::sum(&planned.update.work, &card)),
        ],
        predicted,
        clock: on.clock,
        notes: Vec::new(),
        host,
        updates: 1,
        row_tokens,
        tokens: [(packs * of_pack * row_tokens) as f64, 0.0],
        limit: config.save_total_limit,
        links: on.gpu.links(),
        card,
        seats,
        model,
        planned,
        pass,
    })
}

/// The cards of reinforcement learning: an update is divided by its questions.
pub fn rl_seats(cards: Cards, model: &ModelConfig, config: &RlConfig) -> Result<Seats> {
    let parts = ("ppo_mini_batch_size", config.ppo_mini_batch_size);
    let of = (config.dtype, config.optimizer, target(cards, config.max_memory_gib));
    Seats::new(cards.1, config.gradient_lanes, parts, model, of)
}

/// The plan of reinforcement learning of `model` on such questions, on so many cards.
pub fn rl_page(cards: Cards, rows: &Rows, model: ModelConfig, config: &RlConfig) -> Result<Page> {
    let (on, card) = (cards.0, cards.0.gpu.ceilings());
    let prompt = rows.tokens(config.max_prompt_length, "max_prompt_length")?;
    let response = config.max_response_length;
    if prompt + response > config.micro_batch_tokens {
        let expected = format!("room for the longest prompt and response, {} tokens", prompt + response);
        return Err(Error::input("micro_batch_tokens", config.micro_batch_tokens.to_string(), expected));
    }
    let grids = shapes::grids(&model, rows.image_tokens, config.image_max_pixels, prompt)?;
    let index = shapes::questions(config.train_batch_size, prompt, &grids);
    let allowed = vec![u32::MAX; model.vocab_size.div_ceil(32)];
    let seats = rl_seats(cards, &model, config)?;
    let config = &RlConfig { gradient_lanes: Some(seats.lanes), ..config.clone() };
    let target = target(cards, config.max_memory_gib);
    let (planned, num_kv_blocks) = rl::plan::rl(model.clone(), config, target, seats.fullest, &allowed, &index)?;

    let share = RlConfig { train_batch_size: rl::plan::share(config, seats.fullest), ..config.clone() };
    let rollouts = shapes::Rollouts::new(&model, &share, prompt, num_kv_blocks);
    let sequences = config.train_batch_size * config.rollout.n;
    // A micro-batch holds responses to questions of one lane.
    let groups = config.ppo_mini_batch_size.div_ceil(seats.lanes);
    let lane = RlConfig { ppo_mini_batch_size: groups, ..config.clone() };
    let per_pass = (config.micro_batch_tokens / (prompt + response)).clamp(1, groups * config.rollout.n);
    let updates = config.train_batch_size / config.ppo_mini_batch_size * config.ppo_epochs;
    let passes = updates * seats.rounds() * (groups * config.rollout.n).div_ceil(per_pass);
    let pass = Pass::Rl { groups: rl::plan::longest_micro_batch(&lane, &model, &index), config: Box::new(lane) };
    let predicted = predicted(on, |launches| {
        let run = |dev: &mut Device, model: &Model, grads: &mut Grads| pass.run(dev, model, grads, planned.levels);
        let of = (config.dtype, config.optimizer, seats.fullest);
        let [pass, update] = launches.training(&model, of, pass.tokens(), run)?;
        if on.launches.is_some() {
            for batch in launches::BATCHES {
                launches.decoding(&model, config.dtype, batch, launches::CONTEXT)?;
            }
        }
        let at_once = launches.decoding(&model, config.dtype, rollouts.batch as usize, prompt + response / 2)?;
        let rollouts = rollouts.prefill(&card).seconds + rollouts.steps() * at_once;
        Ok(vec![rollouts, passes as f64 * pass, updates as f64 * (update + lane_sums(on, &planned))])
    })?;
    let mut host = seats.host(&planned.update);
    let pictures = (1 + rl::run::AHEAD) * config.train_batch_size * pixels(&model, &grids);
    host.push(("pictures of questions made ahead", pictures));
    host.push(("rollouts of a step", sequences * rollout_bytes(prompt, response, seats.count)));
    Ok(Page {
        stage: "rl",
        parameters: parameters(&model, config.dtype)?,
        assumes: format!(
            "{sequences} rollouts of {prompt} + {response} tokens a step, all of full length{}",
            shapes::described(&model, &grids)
        ),
        notes: vec![("kv cache", rollouts.describe())],
        host,
        parts: vec![
            ("rollouts", rollouts.floor(&card)),
            ("passes", Floor::sum(&planned.pass, &card).times(passes as f64)),
            ("updates", Floor::sum(&planned.update.work, &card).times(updates as f64)),
        ],
        predicted,
        clock: on.clock,
        updates,
        row_tokens: prompt + response,
        tokens: [(sequences * (prompt + response) * config.ppo_epochs) as f64, (sequences * response) as f64],
        limit: config.save_total_limit,
        links: on.gpu.links(),
        card,
        seats,
        model,
        planned,
        pass,
    })
}

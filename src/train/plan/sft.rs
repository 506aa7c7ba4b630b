//! The plan of fine-tuning, with invented rows or the lengths of real ones.

use std::sync::Arc;

use serde_json::json;

use super::assumptions::{H200, Lengths, Rows};
use super::faster::WORTH;
use super::floor::Floor;
use super::launches::predicted;
use super::layout::{GpuLayout, Weights};
use super::page::Page;
use super::pass::Pass;
use super::rounds::{PassTimes, Rounds};
use super::shapes;
use super::training::{
    GpuSet, Keys, Overrides, RowSize, Training, layout, minimal_target, parameters, quantized_note, target,
};
use crate::training::levels;
use crate::training::plan;
use crate::training::sft::{AHEAD, LOWER, SMALLEST, SftJob, sequences};
use omr_base::config::{MicroBatchTokens, SftConfig};
use omr_base::error::{Error, Result};
use omr_data::rows::{Index, Shape};
use omr_model::nn::ModelConfig;
use omr_runtime::device::Target;
use omr_runtime::ranks::Ranks as _;

impl Training for SftConfig {
    fn keys(&mut self) -> Keys<'_> {
        let SftConfig { model, dtype, optimizer, training, max_steps: steps, num_train_epochs: epochs, .. } = self;
        Keys {
            model: model.as_ref(),
            dtype,
            optimizer,
            training,
            steps: *steps,
            epochs: *epochs,
            micro_batch_tokens: self.micro_batch_tokens.get(),
            chosen_tokens: Some(&mut self.micro_batch_tokens),
            response: None,
        }
    }

    fn page(&self, gpus: GpuSet, rows: &Rows, model: ModelConfig) -> Result<Page> {
        let (on, ceilings, length) = (gpus.gpu_options, gpus.gpu_options.gpu.ceilings(), self.packing_length);
        let (config, layout) = layout(gpus, &model, self)?;
        let config = &config;
        let PlannedRows { index, packs, left_out } = PlannedRows::new(config, rows, &model)?;
        let target = target(gpus, config.training.max_memory_gib);
        let micro_batch_tokens = micro_batch_tokens(config, &model, &index, target, layout)?.into();
        let config = &SftConfig { micro_batch_tokens, ..config.clone() };
        let rounds = Rounds::new(config, &model, &index, layout.count)?;
        let row = rounds.largest.row(&model);
        let (pass, grids) = (Pass::Sft { row, rows: rounds.largest.count }, &rounds.largest.grids);
        let classes = sequences(&rounds.classes);
        let planned = plan::sft(model.clone(), config, target, layout.fullest, rounds.most_micro_batches, &classes)?;
        let planned = planned.check(LOWER)?.widened();
        let clock = on.gpu.has_predictions().then_some(1e6 * on.clock);
        let (time, waiting) =
            PassTimes::new(target, ceilings, clock, config, &model, &layout, &planned.ladder).update(&rounds)?;
        let levels = planned.ladder.levels(pass.tokens());
        let predicted = predicted(on, |launches| {
            let weights = Weights { dtype: config.dtype, optimizer: config.optimizer.clone() };
            let [_, update] = launches.training(&model, weights, layout.fullest, &pass, levels)?;
            Ok(time.predicted.into_iter().chain([update]).collect())
        })?;
        let mut host = layout.host(&planned);
        host.push(("images of rows made ahead", (1 + AHEAD) * rounds.largest.count * shapes::pixels(&model, grids)));
        let tokens = rounds.per_update(rounds.tokens);
        let assumes = match &rows.lengths {
            Some(Lengths { path, .. }) => {
                let longest = index.shapes().map(|shape| shape.tokens).max().unwrap_or(0);
                let rows = format!(
                    "{} rows of {} with {} tokens on average, the longest with {longest}",
                    index.len(),
                    path.display(),
                    rounds.tokens / rounds.rows.max(1)
                );
                let left_out = if left_out > 0 {
                    format!("; {left_out} longer than packing_length are left out")
                } else {
                    String::new()
                };
                format!("updates of {packs} packs of {length} tokens, made of {rows}{left_out}")
            }
            None => {
                let (row_tokens, of_pack) = (rounds.largest.tokens, (length / rounds.largest.tokens).min(rounds.rows));
                let each = match of_pack {
                    1 if row_tokens == length => "one row".to_owned(),
                    1 => format!("one row of {row_tokens}"),
                    _ => format!("{of_pack} rows of {row_tokens}"),
                };
                format!("updates of {packs} packs of {length} tokens, each {each}{}", shapes::described(&model, grids))
            }
        };
        Ok(Page {
            stage: "sft",
            parameters: parameters(&model, &config.optimizer)?,
            assumes,
            parts: vec![("passes", time.floor), ("update", Floor::sum(&planned.update.work, &ceilings))],
            predicted,
            clock: on.clock,
            notes: quantized_note(&model, &config.optimizer)?,
            host,
            updates: 1,
            passes: rounds.per_update(rounds.rounds.len()).ceil() as usize,
            waiting: (layout.count > 1).then_some(waiting),
            row_tokens: rounds.largest.tokens,
            rows: rounds.per_update(rounds.rows).round() as usize,
            run: None,
            tokens: [tokens, 0.0],
            limit: config.training.save_total_limit,
            interval: config.save_steps,
            links: on.gpu.links(),
            ceilings,
            layout,
            model,
            planned,
            pass,
        })
    }

    fn row_size(&self, rows: &Rows) -> Result<RowSize> {
        Ok(RowSize { tokens: rows.longest(self.packing_length, "packing_length")?, fixed: 0 })
    }

    fn row_keys(&self, rows: &Rows, tokens: usize) -> Result<Option<Overrides>> {
        let least = rows.row_tokens.max(rows.image_tokens.map(|image| image + shapes::AROUND));
        let fits = least.is_none_or(|least| least <= tokens);
        Ok(fits.then(|| vec![("packing_length", json!(tokens)), ("micro_batch_tokens", json!(tokens))]))
    }

    fn least(&self, model: &ModelConfig, rows: &Rows, layout: &GpuLayout) -> Result<usize> {
        // A size that is chosen is one that fits.
        let micro_batch_tokens = match self.micro_batch_tokens {
            MicroBatchTokens::Auto => SMALLEST.into(),
            given => given,
        };
        let config = &SftConfig { micro_batch_tokens, ..self.clone() };
        let rounds = Rounds::new(config, model, &PlannedRows::new(self, rows, model)?.index, layout.count)?;
        let classes = sequences(&rounds.classes);
        let most = rounds.most_micro_batches;
        Ok(plan::sft(model.clone(), config, minimal_target(), layout.fullest, most, &classes)?.memory.total())
    }
}

/// Returns the size of micro-batches of `config`: its own, or for `auto` the one with the least arithmetic among
/// `packing_length` and the powers of two below it that fit into `target`. It depends on the rows and the memory, and not on
/// the speed of a machine. Errors if none fits.
pub fn micro_batch_tokens(
    config: &SftConfig,
    model: &ModelConfig,
    index: &Arc<Index>,
    target: Target,
    layout: GpuLayout,
) -> Result<usize> {
    if let MicroBatchTokens::AtMost(tokens) = config.micro_batch_tokens {
        return Ok(tokens);
    }
    let whole = config.packing_length;
    let (mut best, mut refused): (Option<(f64, usize)>, Result<usize>) = (None, Ok(whole));
    for tokens in std::iter::once(whole).chain(levels::smaller(whole, SMALLEST)) {
        let config = &SftConfig { micro_batch_tokens: tokens.into(), ..config.clone() };
        let rounds = Rounds::new(config, model, index, layout.count)?;
        let classes = sequences(&rounds.classes);
        let planned = plan::sft(model.clone(), config, target, layout.fullest, rounds.most_micro_batches, &classes)?;
        match planned.check(LOWER) {
            Err(error) => refused = Err(error),
            Ok(planned) => {
                let ceilings = H200.gpu.ceilings();
                let (time, _) =
                    PassTimes::new(target, ceilings, None, config, model, &layout, &planned.ladder).update(&rounds)?;
                // Still smaller micro-batches recompute no less and have more passes. Sizes are rounded, so a smaller
                // difference says nothing.
                if best.is_some_and(|(least, _)| time.floor.seconds >= WORTH * least) {
                    break;
                }
                best = Some((time.floor.seconds, tokens));
            }
        }
    }
    best.map_or(refused, |(_, tokens)| Ok(tokens))
}

/// Chooses the size of micro-batches of a job that leaves it to omr, for a device with the memory of `target`.
pub fn choose_micro_batch_tokens(job: &mut SftJob, target: Target) -> Result<()> {
    let (config, common) = (&job.config, &job.common);
    let target = target.within(plan::gib_to_bytes(config.training.max_memory_gib));
    let (optimizer, size) = (config.optimizer.clone(), common.ranks.size());
    let owned = plan::owned(&common.model_config, config.dtype, optimizer, target, size)?;
    let layout = GpuLayout::new(config.training.lanes(), &owned);
    let tokens = micro_batch_tokens(config, &common.model_config, &common.index, target, layout)?;
    job.config.micro_batch_tokens = tokens.into();
    Ok(())
}

/// The rows of a plan.
struct PlannedRows {
    index: Arc<Index>,
    /// Number of packs of an update.
    packs: usize,
    /// Number of rows that are longer than a pack.
    left_out: usize,
}

impl PlannedRows {
    /// Returns the rows of `--data`, or else the equal rows of an update of `config`.
    fn new(config: &SftConfig, rows: &Rows, model: &ModelConfig) -> Result<PlannedRows> {
        let length = config.packing_length;
        let packs = |of_pack: usize| match config.train_batch_size {
            Some(rows) => rows.div_ceil(of_pack),
            None => config.gradient_accumulation_steps,
        };
        if let Some(Lengths { index: data, .. }) = &rows.lengths {
            let mut index = Index::default();
            data.shapes().filter(|shape| shape.tokens <= length).for_each(|shape| index.push(shape));
            if index.is_empty() {
                let found = format!("{} rows, all of them longer than packing_length={length}", data.len());
                return Err(Error::input("--data", found, "rows that fit into a pack"));
            }
            let mean = index.shapes().map(|shape| shape.tokens).sum::<usize>().div_ceil(index.len());
            let left_out = data.len() - index.len();
            return Ok(PlannedRows { index: Arc::new(index), packs: packs((length / mean).max(1)), left_out });
        }
        let tokens = rows.tokens(length, "packing_length")?;
        let grids = shapes::grids(model, rows.image_tokens, config.training.images.image_max_pixels, tokens)?;
        let (mut index, of_pack) = (Index::default(), length / tokens);
        let count = config.train_batch_size.unwrap_or(packs(of_pack) * of_pack);
        (0..count).for_each(|_| index.push(Shape { tokens, targets: tokens - 1, grids: &grids }));
        Ok(PlannedRows { index: Arc::new(index), packs: packs(of_pack), left_out: 0 })
    }
}

//! The plan of fine-tuning, with invented rows or the lengths of real ones.

use serde_json::json;

use super::assumptions::{Lengths, Rows};
use super::floor::Floor;
use super::launches::predicted;
use super::layout::{GpuLayout, Weights};
use super::micro_batch_tokens::micro_batch_tokens;
use super::page::Page;
use super::pass::Pass;
use super::planned_rows::PlannedRows;
use super::rounds::{PassTimes, Rounds};
use super::shapes;
use super::training::{
    GpuSet, Keys, Overrides, RowSize, Training, layout, minimal_target, parameters, quantized_note, target,
};
use crate::training::plan;
use crate::training::sft::{AHEAD, LOWER, SMALLEST, sequences};
use omr_base::config::{MicroBatchTokens, SftConfig};
use omr_base::error::Result;
use omr_model::nn::ModelConfig;

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
            micro_batch_tokens: Some(&mut self.micro_batch_tokens),
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
            PassTimes::new(target, ceilings, clock, config, &model, &layout, &planned.ladder)?.update(&rounds)?;
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

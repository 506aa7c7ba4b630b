//! The plan of fine-tuning with invented rows.

use serde_json::json;

use super::assumptions::Rows;
use super::floor::Floor;
use super::launches::predicted;
use super::layout::{GpuLayout, Weights};
use super::page::Page;
use super::pass::Pass;
use super::shapes;
use super::training::{
    GpuSet, Keys, Overrides, RowSize, Training, layout, minimal_target, parameters, quantized_note, target,
};
use crate::training::plan;
use crate::training::sft::{AHEAD, LOWER};
use crate::training::step::Sequence;
use omr_base::config::SftConfig;
use omr_base::error::{Error, Result};
use omr_data::image::Grid;
use omr_data::rows::{Sample, Shape};
use omr_model::nn::ModelConfig;

impl Training for SftConfig {
    fn keys(&mut self) -> Keys<'_> {
        let SftConfig { model, dtype, optimizer, training, max_steps: steps, num_train_epochs: epochs, .. } = self;
        Keys { model: model.as_ref(), dtype, optimizer, training, steps: *steps, epochs: *epochs, response: None }
    }

    fn page(&self, gpus: GpuSet, rows: &Rows, model: ModelConfig) -> Result<Page> {
        let (on, ceilings, length) = (gpus.gpu_options, gpus.gpu_options.gpu.ceilings(), self.packing_length);
        let (config, layout) = layout(gpus, &model, self)?;
        let config = &config;
        let Largest { grids, row, at_once: count, of_pack } = Largest::new(config, rows, &model)?;
        let (row_tokens, packs) = (row.input_ids.len(), packs(config, of_pack));
        let rows = config.train_batch_size.unwrap_or(packs * of_pack);
        let pass = Pass::Sft { row, rows: count * of_pack };
        let target = target(gpus, config.training.max_memory_gib);
        let planned = plan::sft(model.clone(), config, target, layout.fullest, packs, &[pass.sequences()])?;
        let planned = planned.check(LOWER)?.widened();
        let passes = layout.passes(packs, count);
        let predicted = predicted(on, |launches| {
            let weights = Weights { dtype: config.dtype, optimizer: config.optimizer.clone() };
            let [pass, update] = launches.training(&model, weights, layout.fullest, &pass, planned.levels)?;
            Ok(vec![passes as f64 * pass, update])
        })?;
        let mut host = layout.host(&planned);
        host.push(("images of rows made ahead", (1 + AHEAD) * count * of_pack * shapes::pixels(&model, &grids)));
        Ok(Page {
            stage: "sft",
            parameters: parameters(&model, &config.optimizer)?,
            assumes: format!(
                "updates of {packs} packs of {length} tokens, each {}{}",
                match of_pack {
                    1 if row_tokens == length => "one row".to_owned(),
                    1 => format!("one row of {row_tokens}"),
                    _ => format!("{of_pack} rows of {row_tokens}"),
                },
                shapes::described(&model, &grids)
            ),
            parts: vec![
                ("passes", Floor::sum(&planned.pass, &ceilings).times(passes as f64)),
                ("update", Floor::sum(&planned.update.work, &ceilings)),
            ],
            predicted,
            clock: on.clock,
            notes: quantized_note(&model, &config.optimizer)?,
            host,
            updates: 1,
            passes,
            row_tokens,
            rows,
            run: None,
            tokens: [(rows * row_tokens) as f64, 0.0],
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

    fn row_size(&self, _: &Rows) -> Result<RowSize> {
        Ok(RowSize { tokens: self.packing_length, fixed: 0 })
    }

    fn row_keys(&self, rows: &Rows, tokens: usize) -> Result<Option<Overrides>> {
        let least = rows.row_tokens.max(rows.image_tokens.map(|image| image + shapes::AROUND));
        let fits = least.is_none_or(|least| least <= tokens);
        Ok(fits.then(|| vec![("packing_length", json!(tokens)), ("micro_batch_tokens", json!(tokens))]))
    }

    fn least(&self, model: &ModelConfig, rows: &Rows, layout: &GpuLayout) -> Result<usize> {
        let Largest { row, at_once, of_pack, .. } = Largest::new(self, rows, model)?;
        let batches = [vec![Sequence::from(&row); at_once * of_pack]];
        Ok(plan::sft(model.clone(), self, minimal_target(), layout.fullest, packs(self, of_pack), &batches)?
            .memory
            .total())
    }
}

/// Returns the number of packs of an update, each with at most `of_pack` rows.
fn packs(config: &SftConfig, of_pack: usize) -> usize {
    config.train_batch_size.map_or(config.gradient_accumulation_steps, |rows| rows.div_ceil(of_pack))
}

/// The largest micro-batch of a config.
struct Largest {
    /// Image of each row.
    grids: Vec<Grid>,
    row: Sample,
    /// Number of packs.
    at_once: usize,
    /// Number of rows in a pack.
    of_pack: usize,
}

impl Largest {
    /// Makes the largest micro-batch of `config`, in which `gradient_lanes` is set.
    fn new(config: &SftConfig, rows: &Rows, model: &ModelConfig) -> Result<Largest> {
        let (length, micro) = (config.packing_length, config.micro_batch_tokens);
        if length > micro {
            let expected = format!("at least packing_length, which is {length}: a row may be as long as a pack");
            return Err(Error::input("micro_batch_tokens", micro.to_string(), expected));
        }
        let tokens = rows.tokens(length, "packing_length")?;
        let grids = shapes::grids(model, rows.image_tokens, config.training.images.image_max_pixels, tokens)?;
        let row = plan::blank(model, Shape { tokens, targets: tokens - 1, grids: &grids });
        // A micro-batch contains as many packs as fit into it. All packs of a micro-batch belong to one gradient lane.
        let of_pack = length / tokens;
        let at_once = (micro / length).min(packs(config, of_pack).div_ceil(config.training.lanes()));
        Ok(Largest { grids, row, at_once, of_pack })
    }
}

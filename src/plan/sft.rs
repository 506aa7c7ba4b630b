//! The plan of fine-tuning with invented rows.

use super::assumptions::Rows;
use super::floor::Floor;
use super::layout::{GpuLayout, Parts, Weights};
use super::page::Page;
use super::pass::Pass;
use super::predicted::predicted;
use super::shapes;
use super::training::{GpuSet, Keys, Training, layout, minimal_target, parameters, target};
use crate::config::SftConfig;
use crate::data::Shape;
use crate::device::Target;
use crate::error::{Error, Result};
use crate::model::ModelConfig;
use crate::train::plan;
use crate::train::sft::{self, AHEAD, LOWER};

fn run<'a>(config: &'a SftConfig, target: Target, layout: &GpuLayout) -> plan::Run<'a> {
    let most_micro_batches = config.parts().count;
    plan::Run { config, target, ranks: layout.fullest, most_micro_batches }
}

impl Training for SftConfig {
    fn keys(&mut self) -> Keys<'_> {
        let SftConfig { model, dtype, optimizer, max_memory_gib, gradient_lanes, dist, max_steps, .. } = self;
        let (model, steps) = (model.as_ref(), *max_steps);
        Keys { model, dtype, optimizer, max_memory_gib, gradient_lanes, dist, steps }
    }

    fn parts(&self) -> Parts {
        match self.train_batch_size {
            Some(count) => Parts { key: "train_batch_size", count },
            None => Parts { key: "gradient_accumulation_steps", count: self.gradient_accumulation_steps },
        }
    }

    fn page(&self, gpus: GpuSet, rows: &Rows, model: ModelConfig) -> Result<Page> {
        let (on, ceilings, length) = (gpus.gpu_options, gpus.gpu_options.gpu.ceilings(), self.packing_length);
        if length > self.micro_batch_tokens {
            let expected = format!("at least packing_length, which is {length}: a row may be as long as a pack");
            return Err(Error::input("micro_batch_tokens", self.micro_batch_tokens.to_string(), expected));
        }
        let row_tokens = rows.tokens(length, "packing_length")?;
        let grids = shapes::grids(&model, rows.image_tokens, self.image_max_pixels, row_tokens)?;
        let row = plan::blank(&model, Shape { tokens: row_tokens, targets: row_tokens - 1, grids: &grids });
        let layout = layout(gpus, &model, self)?;
        let config = &SftConfig { gradient_lanes: Some(layout.lanes), ..self.clone() };
        let packs = config.train_batch_size.unwrap_or(config.gradient_accumulation_steps);
        // A micro-batch contains as many packs as fit into it. All packs of a micro-batch belong to one gradient lane.
        let (count, of_pack) =
            ((config.micro_batch_tokens / length).min(packs.div_ceil(layout.lanes)), length / row_tokens);
        let pass = Pass::Sft { row, rows: count * of_pack };
        let target = target(gpus, config.max_memory_gib);
        let planned = plan::sft(model.clone(), run(config, target, &layout), &[pass.sequences()])?.check(LOWER)?;
        let passes = layout.passes(packs, count);
        let predicted = predicted(on, |launches| {
            let weights = Weights { dtype: config.dtype, optimizer: config.optimizer };
            let [pass, update] = launches.training(&model, weights, layout.fullest, &pass, planned.levels)?;
            Ok(vec![passes as f64 * pass, update])
        })?;
        let mut host = layout.host(&planned.update);
        host.push(("pictures of rows made ahead", (1 + AHEAD) * count * of_pack * shapes::pixels(&model, &grids)));
        Ok(Page {
            stage: "sft",
            parameters: parameters(&model, config.dtype)?,
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
            notes: Vec::new(),
            host,
            updates: 1,
            passes,
            row_tokens,
            tokens: [(packs * of_pack * row_tokens) as f64, 0.0],
            limit: config.save_total_limit,
            links: on.gpu.links(),
            ceilings,
            layout,
            model,
            planned,
            pass,
        })
    }

    fn resized(&self, rows: &Rows, tokens: usize) -> Result<Option<SftConfig>> {
        let least = rows.row_tokens.max(rows.image_tokens.map(|picture| picture + shapes::AROUND));
        let fits = least.is_none_or(|least| least <= tokens);
        let (packing_length, micro_batch_tokens) = (tokens, tokens);
        Ok(fits.then(|| SftConfig { packing_length, micro_batch_tokens, ..self.clone() }))
    }

    fn least(&self, model: &ModelConfig, rows: &Rows, layout: &GpuLayout) -> Result<usize> {
        let row = rows.tokens(self.packing_length, "packing_length")?;
        let grids = shapes::grids(model, rows.image_tokens, self.image_max_pixels, row)?;
        let sample = plan::blank(model, Shape { tokens: row, targets: row - 1, grids: &grids });
        let batches = [vec![sft::sequence(&sample); self.packing_length / row]];
        let config = SftConfig { gradient_lanes: Some(layout.lanes), ..self.clone() };
        Ok(plan::sft(model.clone(), run(&config, minimal_target(), layout), &batches)?.memory.total())
    }
}

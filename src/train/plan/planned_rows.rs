//! The rows of a plan of fine-tuning: those of `--data`, or equal ones.

use std::sync::Arc;

use super::assumptions::{Lengths, Rows};
use super::shapes;
use omr_base::config::SftConfig;
use omr_base::error::{Error, Result};
use omr_data::rows::{Index, Shape};
use omr_model::nn::ModelConfig;

/// The rows of a plan.
pub struct PlannedRows {
    /// Sizes of the rows.
    pub index: Arc<Index>,
    /// Number of packs of an update.
    pub packs: usize,
    /// Number of rows that are longer than a pack.
    pub left_out: usize,
}

impl PlannedRows {
    /// Returns the rows of `--data`, or else the equal rows of an update of `config`.
    pub fn new(config: &SftConfig, rows: &Rows, model: &ModelConfig) -> Result<PlannedRows> {
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

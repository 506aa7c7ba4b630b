//! Prompts: of rows, and of the sizes in an index.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::engine::Prompt;
use crate::nn::ModelConfig;
use omr_data::image::ImageInput;
use omr_data::rows::{BadRow, Encoder, Index, Reason, Row, RowResult};

/// Converts a row to the engine's prompt, named by its place. Also returns the hash that [`Encoder::measure`] computes.
pub fn prompt(encoder: &Encoder, config: &ModelConfig, row: &Row) -> RowResult<(Prompt, u64)> {
    let (prompt, hash) = encoder.prompt(row)?;
    let prompt = Prompt::new(config, &prompt.ids, &prompt.images).map_err(|e| e.within(&row.place));
    Ok((prompt.map_err(BadRow::of(Reason::WrongText))?.named(&row.place), hash))
}

/// Returns prompts with placeholder content for the `count` questions with the most pixels. Memory plans use them.
pub fn largest(config: &ModelConfig, index: &Index, count: usize) -> Vec<Arc<Prompt>> {
    let mut largest: Vec<usize> = (0..index.len()).collect();
    largest.sort_by_key(|&i| Reverse(index.shape(i).patches()));
    largest.truncate(count);
    let patch_size = config.grid().patch_size;
    let prompt = |i: usize| {
        let shape = index.shape(i);
        let pixels = shape.grids.iter().map(|grid| Arc::new(ImageInput::blank(*grid, patch_size))).collect();
        Arc::new(Prompt { pixels, ..Prompt::text(vec![0; shape.tokens]) })
    };
    largest.into_iter().map(prompt).collect()
}

/// Returns the number of rows of the vision cache: the rows of the largest `count` questions, so that no image is
/// encoded twice.
pub fn vision_rows(config: &ModelConfig, index: &Index, count: usize) -> usize {
    let merge = config.grid().merge_size;
    let mut rows: Vec<usize> = index.shapes().map(|shape| shape.patches() / (merge * merge)).collect();
    rows.sort_unstable_by_key(|&r| Reverse(r));
    rows.iter().take(count).sum()
}

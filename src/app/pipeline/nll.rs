//! Measures how likely a model finds the answers of rows, for stage `filter`.

use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use crate::pipeline::stage::{Input, Work};
use omr_base::config::Dtype;
use omr_base::error::Result;
use omr_data::rows::read::RowPosition;
use omr_data::rows::samples::encoder::Measured;
use omr_data::rows::{Encoder, Index, Made, Row, RowResult, Sample, Shape};
use omr_model::llm::fits;
use omr_model::nn::{Model, ModelConfig};
use omr_runtime::device::{Device, Plan};
use omr_runtime::tensor::DType;
use omr_train::training::val_loss::HeldOut;

/// Number of rows whose sizes are measured together.
const CHUNK: usize = 128;
/// Maximum number of tokens that are computed at once, unless a row is longer. Results do not depend on it.
const MICRO_BATCH_TOKENS: usize = 8192;
/// Setting that an error message suggests if a row needs too much memory.
const LOWER: &str = "max_tokens";

/// A model that measures the answers of rows.
pub struct Scorer<'a> {
    /// Model directory.
    pub dir: &'a Path,
    /// Its `config.json`.
    pub model_config: ModelConfig,
    /// Its encoder for training.
    pub encoder: Encoder,
    /// Data type of weights and activations.
    pub dtype: Dtype,
}

impl Scorer<'_> {
    /// Returns the mean negative log-prob of each row's answer, in nats per token, or the reason why its sample cannot
    /// be made. Covers the rows of `work` for which `size` returns the size of their sample, in order.
    pub fn measure(
        &self,
        work: &Work,
        size: &(dyn Fn(&Row) -> Option<Measured> + Sync),
    ) -> Result<Vec<RowResult<f64>>> {
        let Scorer { dir, model_config, encoder, .. } = self;
        let (machine, datasets) = (work.machine, &work.stage.datasets);
        let inputs = datasets.iter().map(|entry| Input::open(entry, work.shard)).collect::<Result<Vec<Input>>>()?;
        let (index, places) = sizes(work, &inputs, size)?;
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let longest = index.shapes().map(|shape| shape.tokens).max().unwrap_or(0);
        let encoder = encoder.clone();
        // Rows are read again when their samples are needed.
        let sample = move |i: usize| -> Result<Made<Sample>> {
            let (input, at): (usize, RowPosition) = places[i];
            let made = inputs[input].row(at)?.and_then(|row| encoder.sample(&row));
            Ok(made.map(|(sample, _)| Arc::new(sample)))
        };
        let held = HeldOut::of(Arc::new(sample), index, MICRO_BATCH_TOKENS.max(longest), machine.threads);
        let count = |dtype: DType| -> Result<((), Plan)> {
            let mut dev = Device::count_for(machine.target);
            let model = Model::empty_of(&mut dev, dir, model_config.clone(), dtype)?;
            held.count(&mut dev, &model)?;
            Ok(((), dev.high_water()))
        };
        let dtype = DType::of(self.dtype, machine.target.kind);
        let ((), plan) = fits::within(machine.target, dtype, LOWER, count)?;
        let mut dev = (machine.device)(&plan)?;
        let model = Model::load_shown(&mut dev, dir, model_config.clone(), dtype, machine.observer)?;
        machine.observer.begin("filter: log-likelihood", "rows", held.rows() as u64, 0);
        let found = held.of_rows(&mut dev, &model, &mut |done| machine.observer.step(done as u64, &[]));
        machine.observer.end();
        found
    }
}

/// Returns the sizes and the places of the rows for which `size` returns a size.
fn sizes(
    work: &Work,
    inputs: &[Input],
    size: &(dyn Fn(&Row) -> Option<Measured> + Sync),
) -> Result<(Index, Vec<(usize, RowPosition)>)> {
    let (mut index, mut places) = (Index::default(), Vec::new());
    for (number, input) in inputs.iter().enumerate() {
        input.for_chunks(CHUNK, |rows| {
            let sized: Vec<(RowPosition, Measured)> =
                rows.into_par_iter().filter_map(|(at, row)| Some((at, size(&row.ok()?)?))).collect();
            for (at, Measured { tokens, targets, grids, .. }) in sized {
                index.push(Shape { tokens, targets, grids: &grids });
                places.push((number, at));
            }
            work.machine.observer.check_stop()
        })?;
    }
    Ok((index, places))
}

//! The validation loss: the mean negative log-prob of the answers' tokens in rows that are not trained on. The sum is in
//! the order of the rows, so the loss depends neither on the number of ranks nor on the cut into micro-batches.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::largest::Largest;
use super::metrics::VAL_LOSS;
use super::plan::blank;
use super::step::{self, Cost, Sequence};
use omr_base::config::SftConfig;
use omr_base::error::{Error, Result};
use omr_data::rows::{BadRow, Encoder, Index, Loader, Made, Row, RowResult, Sample, Samples, Shape};
use omr_model::nn::{LayerPolicy, Model, Policy};
use omr_runtime::device::{Device, Region};
use omr_runtime::ranks::{self, Ranks};

/// Number of micro-batches whose samples are prepared ahead of use.
const AHEAD: usize = 2;

/// Rows with answers that are not trained on.
pub struct HeldOut {
    samples: Arc<dyn Samples<Sample>>,
    index: Index,
    micro_batches: Vec<Vec<usize>>,
    left_out: String,
    workers: usize,
}

/// Rows in memory, which become samples on request.
struct Held {
    rows: Vec<Row>,
    encoder: Encoder,
}

impl Samples<Sample> for Held {
    fn get(&self, i: usize) -> Result<Made<Sample>> {
        Ok(self.encoder.sample(&self.rows[i]).map(|(sample, _)| Arc::new(sample)))
    }
}

impl HeldOut {
    /// Cuts `rows` into micro-batches as `config` does in training. As in training, a row has a sample per trained turn if
    /// the chat template rewrites earlier turns, and samples longer than `packing_length`
    /// are left out. Errors if a row cannot become a sample, or if no row is left.
    pub fn new(rows: Vec<Row>, encoder: Encoder, config: &SftConfig) -> Result<HeldOut> {
        let longest = config.packing_length;
        let (mut index, mut kept, mut all) = (Index::default(), Vec::new(), 0);
        for row in rows {
            for (turn, measured) in encoder.measure_samples(&row).map_err(Error::from)? {
                all += 1;
                if measured.tokens <= longest {
                    index.push(Shape { tokens: measured.tokens, targets: measured.targets, grids: &measured.grids });
                    kept.push(row.clone().of_turn(turn));
                }
            }
        }
        let left_out = match all - kept.len() {
            0 => String::new(),
            longer => format!(" ({longer} rows longer than packing_length are left out)"),
        };
        if kept.is_empty() {
            let found = format!("{longest}, but all {all} rows to validate on are longer");
            return Err(Error::input("packing_length", found, "more"));
        }
        let samples = Arc::new(Held { rows: kept, encoder });
        let held = HeldOut::of(samples, index, config.micro_batch_tokens.get(), config.training.dataloader_num_workers);
        Ok(HeldOut { left_out, ..held })
    }

    /// Cuts `samples` of the sizes in `index` into micro-batches of at most `micro_batch_tokens` tokens, or of a single
    /// sample. `workers` threads make the samples.
    pub fn of(samples: Arc<dyn Samples<Sample>>, index: Index, micro_batch_tokens: usize, workers: usize) -> HeldOut {
        let costs: Vec<Cost> = index.shapes().map(|shape| Cost::whole(shape.tokens)).collect();
        let ranges = step::micro_batches(&costs, micro_batch_tokens);
        let micro_batches = ranges.into_iter().map(Iterator::collect).collect();
        HeldOut { samples, index, micro_batches, left_out: String::new(), workers }
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.index.len()
    }

    /// Describes the rows for users.
    pub fn describe(&self) -> String {
        format!("{VAL_LOSS} of {} rows{}", self.rows(), self.left_out)
    }

    /// Makes the allocations of [`HeldOut::measure`] on a counting device.
    pub fn count(&self, dev: &mut Device, model: &Model) -> Result<()> {
        let mut largest = Largest::new(&model.config);
        for part in &self.micro_batches {
            largest.push(part.iter().map(|&i| self.index.shape(i)).collect());
        }
        for samples in largest.into_samples(&model.config) {
            log_probs(dev, model, &samples)?;
        }
        Ok(())
    }

    /// Returns the loss of `model`. It is the same on each of `ranks` and for any number of ranks. `on_progress`
    /// receives the number of rows that this rank has computed. Errors with [`Error::Stopped`] on every rank if any rank
    /// was asked to stop.
    pub fn measure(
        &self,
        dev: &mut Device,
        model: &Model,
        ranks: &mut dyn Ranks,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<f64> {
        const WHAT: &str = "the validation loss";
        let (rank, size) = (ranks.rank(), ranks.size());
        let of_rank = |rank: usize| self.micro_batches.iter().skip(rank).step_by(size);
        let own = self.sums(dev, model, of_rank(rank), &mut |_, bad| Err(bad.into()), on_progress);
        let own = ranks::agreed_at_last(ranks, WHAT, own)?;
        let mut sums = vec![0.0; self.index.len()];
        for (rank, bytes) in ranks.gather(WHAT, bytemuck::cast_slice(&own))?.iter().enumerate() {
            let found: Vec<f64> = bytemuck::pod_collect_to_vec(bytes);
            let rows: Vec<usize> = of_rank(rank).flatten().copied().collect();
            if rows.len() != found.len() {
                return Err(Error::Failed(format!("{WHAT}: {} sent another number of rows", ranks.name(rank))));
            }
            rows.into_iter().zip(found).for_each(|(row, sum)| sums[row] = sum);
        }
        let targets: usize = self.index.shapes().map(|shape| shape.targets).sum();
        Ok(-sums.into_iter().sum::<f64>() / targets as f64)
    }

    /// Returns the time in seconds that `size` ranks need for the loss, from the time of the first micro-batch.
    pub fn seconds(&self, dev: &mut Device, model: &Model, size: usize) -> Result<f64> {
        let begun = Instant::now();
        self.sums(dev, model, self.micro_batches.iter().take(1), &mut |_, bad| Err(bad.into()), &mut |_| ())?;
        Ok(begun.elapsed().as_secs_f64() * self.micro_batches.len().div_ceil(size) as f64)
    }

    /// Returns the mean negative log-prob of each row's answer, or the reason why its sample cannot be made. It is the
    /// loss of a validation on this row alone. `on_progress` receives the number of computed rows.
    pub fn of_rows(
        &self,
        dev: &mut Device,
        model: &Model,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<RowResult<f64>>> {
        let mut bad = HashMap::new();
        let mut on_bad = |row, found: BadRow| found.of_row().map(|found| drop(bad.insert(row, found)));
        let sums = self.sums(dev, model, self.micro_batches.iter(), &mut on_bad, on_progress)?;
        let mean = |(row, (sum, shape)): (usize, (f64, Shape<'_>))| match bad.remove(&row) {
            Some(found) => Err(found),
            None => Ok(-sum / shape.targets as f64),
        };
        Ok(sums.into_iter().zip(self.index.shapes()).enumerate().map(mean).collect())
    }

    /// Returns the sum of the log-probs of each row in `parts`. The sum of a row whose sample cannot be made has no
    /// meaning: `on_bad` receives the row, and may end the computation.
    fn sums<'a>(
        &self,
        dev: &mut Device,
        model: &Model,
        parts: impl Iterator<Item = &'a Vec<usize>>,
        on_bad: &mut dyn FnMut(usize, BadRow) -> Result<()>,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<f64>> {
        let parts: Vec<Vec<usize>> = parts.cloned().collect();
        let (count, groups) = (parts.len(), Box::new(parts.into_iter().map(Ok)));
        let mut loader = Loader::new(self.samples.clone(), groups, self.workers, AHEAD)?;
        let mut sums = Vec::new();
        for _ in 0..count {
            dev.check_stop()?;
            let sample = |(row, made): (usize, Made<Sample>)| match made {
                Ok(sample) => Ok(sample),
                // The memory is planned for the complete micro-batch, so a blank sample takes the place of a bad one.
                Err(bad) => on_bad(row, bad).map(|()| Arc::new(blank(&model.config, self.index.shape(row)))),
            };
            let samples = loader.take()?.into_iter().map(sample).collect::<Result<Vec<Arc<Sample>>>>()?;
            sums.extend(log_probs(dev, model, &samples)?);
            on_progress(sums.len());
        }
        Ok(sums)
    }
}

/// Returns the sum of the log-probs of each sample's targets.
fn log_probs(dev: &mut Device, model: &Model, samples: &[impl Borrow<Sample>]) -> Result<Vec<f64>> {
    let mark = dev.mark(Region::Overlay);
    let sequences: Vec<Sequence<'_>> = samples.iter().map(|sample| sample.borrow().into()).collect();
    let forward = step::forward(dev, model, &sequences, Policy::default(), LayerPolicy::Inputs, false)?;
    let sums = forward.read(dev)?.iter().map(|row| row.iter().map(|&p| f64::from(p)).sum()).collect();
    dev.release(mark);
    Ok(sums)
}

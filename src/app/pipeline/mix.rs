//! Stage `mix`: mixes several data sets into one, by weights and limits.

use std::collections::VecDeque;

use crate::pipeline::files::{Rejection, Rejections, unfit};
use crate::pipeline::stage::{Stage, StageJob, Work};
use crate::pipeline::summary::Summary;
use omr_base::config::{Images, MixConfig};
use omr_base::error::Result;
use omr_base::philox::{self, Purpose};
use omr_data::rows::read::{RowPosition, epoch};
use omr_runtime::machine::Machine;

/// Number of rows between two checks for a stop by the user.
const LOOK: usize = 256;
/// Philox counter for the order of the mixture. [`epoch`] uses the counters from 2^63 on for fractional weights.
const TURNS: u64 = (1 << 63) - 1;

impl Stage for MixConfig {
    const WHOLE: Option<&'static str> = Some("no --shard: `mix` draws rows from all datasets in turn");

    fn job<'a>(&'a self, _: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>> {
        Ok(Box::new(self))
    }
}

/// A row of a mixture: the number of the data set and the number of the row in it.
pub type MixRow = (usize, usize);

impl StageJob for &MixConfig {
    fn describe(&self) -> String {
        let weights: Vec<String> = self.stage.datasets.iter().map(|entry| entry.weight.to_string()).collect();
        format!("weights {} into {}", weights.join(", "), self.name)
    }

    fn run(&mut self, work: &Work) -> Result<Summary> {
        let mut rejected = Rejections::new(work)?;
        let mut places: Vec<Vec<Option<RowPosition>>> = Vec::new();
        for (number, input) in work.inputs.iter().enumerate() {
            let mut found = Vec::with_capacity(input.count);
            input.for_each(|at, row| {
                found.push(row.as_ref().ok().map(|_| at));
                row.map_or_else(|bad| rejected.bad(number, at.index as usize, bad), |_| Ok(()))
            })?;
            places.push(found);
        }
        let counts: Vec<usize> = work.inputs.iter().map(|input| input.count).collect();
        let turns = row_order(self, &counts)?;
        let mut drawn: Vec<Vec<bool>> = counts.iter().map(|&count| vec![false; count]).collect();
        let mut kept = work.writer(&self.name);
        work.machine.observer.begin("mix", "rows", turns.len() as u64, 0);
        for (done, &(set, index)) in turns.iter().enumerate() {
            if done % LOOK == 0 {
                work.machine.observer.check_stop()?;
            }
            drawn[set][index] = true;
            let Some(at) = places[set][index] else { continue };
            let row = work.inputs[set].row(at)?;
            if let Some(rejection) = row.as_ref().ok().and_then(|row| unfit(work.stage, row)) {
                // The row would be rejected each time it is drawn, so it is rejected once.
                places[set][index] = None;
                rejected.push(set, index, None, &rejection)?;
                continue;
            }
            match row.and_then(|row| if work.stage.images == Images::Embed { row.embedded() } else { Ok(row) }) {
                Ok(row) => {
                    kept.push(row)?;
                    rejected.summary.kept += 1;
                }
                // The row would fail each time it is drawn, so it is rejected once.
                Err(bad) => {
                    places[set][index] = None;
                    rejected.bad(set, index, bad)?;
                }
            }
            work.machine.observer.step(done as u64 + 1, &[]);
        }
        kept.finish()?;
        work.machine.observer.end();
        for (set, (drawn, places)) in drawn.iter().zip(&places).enumerate() {
            let left = drawn.iter().zip(places).enumerate().filter(|(_, (drawn, at))| !**drawn && at.is_some());
            for (index, _) in left {
                rejected.push(set, index, None, &Rejection::row("not_drawn", "by weight or max_rows"))?;
            }
        }
        let mut summary = rejected.finish()?;
        // A row that is drawn twice counts as read twice.
        summary.rows = summary.kept + summary.rejected.values().sum::<usize>();
        Ok(summary)
    }
}

/// Returns the rows of a mixture of data sets with `counts` rows, in order. Returns an error if a weight is invalid.
pub fn row_order(config: &MixConfig, counts: &[usize]) -> Result<Vec<MixRow>> {
    let short: Vec<u32> = counts.iter().map(|&count| count as u32).collect();
    let mut queues: Vec<VecDeque<usize>> = vec![VecDeque::new(); counts.len()];
    let ends: Vec<usize> = (1..=counts.len()).map(|sets| counts[..sets].iter().sum()).collect();
    for number in epoch(&config.stage.datasets, &short, config.seed)? {
        let set = ends.partition_point(|&end| end <= number as usize);
        queues[set].push_back(number as usize - (ends[set] - counts[set]));
    }
    let sets = queues.iter().enumerate().flat_map(|(set, queue)| std::iter::repeat_n(set as u32, queue.len()));
    let mut order: Vec<u32> = sets.collect();
    if config.interleave {
        philox::shuffle(config.seed, Purpose::Shuffle, TURNS, &mut order);
    }
    order.truncate(config.max_rows.unwrap_or(usize::MAX));
    let turn = |set: u32| queues[set as usize].pop_front().map(|row| (set as usize, row));
    Ok(order.into_iter().filter_map(turn).collect())
}

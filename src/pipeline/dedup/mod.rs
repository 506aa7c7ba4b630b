//! `dedup`: rows whose question and pictures are those of another row, of an earlier data set or of a benchmark.
//!
//! A first pass writes what rows are compared by, a line each (`--shard` parts this one); the lines are grouped in
//! memory; a second pass writes the rows that stay.

mod find;
mod hashes;
mod page;
mod picture;
mod text;

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::json;

use crate::config::{DatasetConfig, DedupConfig, Mode, StageConfig, StepConfig};
use crate::data::Row;
use crate::error::{Error, Result};
use crate::pipeline::files::Because;
use crate::pipeline::pass::{Fate, pass};
use crate::pipeline::stage::{Input, Job, Means, Shard, Stage, Work, piece};
use crate::pipeline::summary::Summary;

impl Stage for DedupConfig {
    fn stage(&self) -> &StageConfig {
        &self.stage
    }

    fn stage_mut(&mut self) -> &mut StageConfig {
        &mut self.stage
    }

    fn beside(&mut self) -> Vec<&mut DatasetConfig> {
        self.against.iter_mut().collect()
    }

    fn of(step: &StepConfig) -> Option<&Self> {
        step.dedup.as_ref()
    }

    fn job<'a>(&'a self, _: &'a Means<'a>) -> Result<Box<dyn Job + 'a>> {
        Ok(Box::new(Dedup(self)))
    }
}

struct Dedup<'a>(&'a DedupConfig);

/// Rows that go, by data set and number: the reason, and the row that stays.
type Dropped = HashMap<(u32, u32), (&'static str, u32)>;

impl Job for Dedup<'_> {
    fn describe(&self) -> String {
        let DedupConfig { text_threshold, hash_distance, against, mode, .. } = self.0;
        let against = against.len();
        format!(
            "{}, text {text_threshold}, pictures {hash_distance} of 64 bits, against {against} benchmarks",
            mode.name()
        )
    }

    fn run(&mut self, work: &Work) -> Result<Summary> {
        let config = self.0;
        let benchmarks: Vec<Input> =
            config.against.iter().map(|entry| Input::open(entry, work.shard)).collect::<Result<_>>()?;
        // Benchmarks come first: of rows that are the same the first stays.
        let inputs: Vec<&Input> = benchmarks.iter().chain(&work.inputs).collect();
        let own = work.path("hashes", "jsonl");
        if work.shard.is_some() {
            hashes::write(work, &inputs, &own)?;
            return Ok(Summary::default());
        }
        let paths: Vec<PathBuf> = match work.parts {
            Some(count) => {
                (0..count).map(|index| piece(&work.dir, "hashes", "jsonl", Some(Shard { index, count }))).collect()
            }
            None => {
                hashes::write(work, &inputs, &own)?;
                vec![own.clone()]
            }
        };
        let rows = hashes::Rows::read(&paths, inputs.len(), text::band_len(config.text_threshold))?;
        let groups = find::groups(&rows, config)?.several();
        let dropped = dropped(config, &rows, &groups, benchmarks.len() as u32);
        let fate = |row: u32| {
            let (set, at) = rows.places[row as usize];
            dropped.get(&(set, at.index)).map(|(reason, _)| *reason)
        };
        page::write(work, &inputs, &rows, &groups, &fate)?;
        let mut summary = write(work, &inputs, &rows, &dropped)?;
        summary.more.insert("groups".to_owned(), json!(groups.len()));
        if work.parts.is_none() {
            std::fs::remove_file(&own).map_err(Error::io(&own))?;
        }
        Ok(summary)
    }

    fn gathers(&self) -> bool {
        true
    }
}

/// What goes of groups of rows that are the same. The first `benchmarks` sets are none of ours.
fn dropped(config: &DedupConfig, rows: &hashes::Rows, groups: &[Vec<u32>], benchmarks: u32) -> Dropped {
    let set = |row: u32| rows.places[row as usize].0;
    let mut dropped = Dropped::new();
    for group in groups {
        for (k, &row) in group.iter().enumerate().filter(|(_, row)| set(**row) >= benchmarks) {
            let stays = match config.mode {
                _ if set(group[0]) < benchmarks => Some(("benchmark", group[0])),
                // Of several data sets the row in the last stays, and a data set is not compared with itself.
                Mode::Compat => group.iter().find(|&&other| set(other) > set(row)).map(|&other| ("duplicate", other)),
                Mode::Strict if config.within => (k > 0).then_some(("duplicate", group[0])),
                Mode::Strict => (set(group[0]) < set(row)).then_some(("duplicate", group[0])),
            };
            if let Some(stays) = stays {
                let (set, at) = rows.places[row as usize];
                dropped.insert((set, at.index), stays);
            }
        }
    }
    dropped
}

/// Writes the rows that stay, and names those that do not.
fn write(work: &Work, inputs: &[&Input], rows: &hashes::Rows, dropped: &Dropped) -> Result<Summary> {
    let broken: HashMap<(u32, u32), &str> =
        rows.broken.iter().map(|(set, index, what)| ((*set, *index), what.as_str())).collect();
    let first = inputs.len() - work.inputs.len();
    pass(work, &mut |input, numbered| {
        let number = work.inputs.iter().position(|other| other.name == input.name).unwrap_or_default();
        let fate = |index: usize, row: Row| -> Result<Fate> {
            let key = ((first + number) as u32, index as u32);
            if let Some(what) = broken.get(&key) {
                return Ok(Fate::Bad(hashes::undecodable(what)));
            }
            let Some(&(reason, stays)) = dropped.get(&key) else { return Ok(Fate::Kept(row)) };
            let (set, at) = rows.places[stays as usize];
            let (name, id) = (&inputs[set as usize].name, rows.text(stays as usize)?.1);
            Ok(Fate::Rejected(Because::row(reason, format!("the same as {name} row {}, id {id}", at.index + 1))))
        };
        numbered.into_iter().map(|one| Ok(vec![fate(one.index, one.row)?])).collect()
    })
}

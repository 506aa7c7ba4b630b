//! Stage `dedup`: removes duplicates. A row is a duplicate if its question and images are equal, within the thresholds
//! of the config, to those of a remaining row or of a benchmark row.
//!
//! 1. A first pass writes one line of hashes per row and, with a model, the embedding of each image. Only this pass is
//!    split by `--shard`.
//! 2. The hashes are grouped in memory.
//! 3. A second pass writes the rows that remain.

mod find;
mod hashes;
mod image;
mod near;
mod page;
mod text;
mod tower;

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::json;

use crate::pipeline::dedup::near::Near;
use crate::pipeline::dedup::tower::{Embeddings, Tower};
use crate::pipeline::files::Rejection;
use crate::pipeline::pass::{Fate, pass};
use crate::pipeline::stage::{Input, Shard, Stage, StageJob, Work, piece};
use crate::pipeline::summary::Summary;
use omr_base::config::{DedupConfig, Mode};
use omr_base::error::{Error, Result};
use omr_data::rows::{BadRow, Reason, Row};
use omr_runtime::machine::Machine;

impl Stage for DedupConfig {
    fn computes(&self) -> bool {
        self.model.is_some()
    }

    fn job<'a>(&'a self, _: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>> {
        Ok(Box::new(Dedup { config: self, tower: self.model.as_deref().map(Tower::of).transpose()? }))
    }
}

struct Dedup<'a> {
    config: &'a DedupConfig,
    tower: Option<Tower>,
}

/// Files of the first pass, as (stem, extension). They are removed after the comparison.
const FILES: [(&str, &str); 2] = [("hashes", "jsonl"), ("embeddings", "bin")];

/// Removed rows, by data set and row number: the reason, and the row that remains instead.
type Dropped = HashMap<(u32, u32), (&'static str, u32)>;

/// Errors if more rows of a benchmark than allowed could not be read, because training rows are not compared with them.
fn check(benchmark: &Input, max_bad_rows: f64) -> Result<()> {
    let (seen, rows) = (benchmark.seen()?, benchmark.rows.len());
    seen.check()?;
    let bad = rows - seen.rows as usize;
    if bad as f64 > max_bad_rows * rows as f64 {
        let found = format!("{bad} of {rows} rows that cannot be read");
        return Err(Error::input(
            &benchmark.entry.path,
            found,
            "at most the share max_bad_rows of them (omr data inspect says why)",
        ));
    }
    Ok(())
}

impl StageJob for Dedup<'_> {
    fn describe(&self) -> String {
        let DedupConfig { text_threshold, hash_distance, model, embed_threshold, against, mode, .. } = self.config;
        let (mode, against) = (mode.name(), against.len());
        let tower = |model: &PathBuf| {
            format!(" or cosine {embed_threshold} of embeddings by the vision tower of {}", model.display())
        };
        let tower = model.as_ref().map(tower).unwrap_or_default();
        format!("{mode}, text {text_threshold}, images {hash_distance} of 64 bits{tower}, against {against} benchmarks")
    }

    fn run(&mut self, work: &Work) -> Result<Summary> {
        let config = self.config;
        let benchmarks: Vec<Input> =
            config.against.iter().map(|entry| Input::open(entry, work.shard)).collect::<Result<_>>()?;
        // Benchmarks come first, because the first of several equal rows remains.
        let inputs: Vec<&Input> = benchmarks.iter().chain(&work.inputs).collect();
        let own = FILES.map(|(stem, ending)| work.path(stem, ending));
        if work.parts.is_none() {
            let tower = self.tower.as_ref().map(|tower| tower.start(work.machine, own[1].clone())).transpose()?;
            hashes::write(work, &inputs, &own[0], tower)?;
            benchmarks.iter().try_for_each(|input| check(input, work.stage.max_bad_rows))?;
        }
        if work.shard.is_some() {
            return Ok(Summary::default());
        }
        let [hashes, embeddings] = FILES.map(|(stem, ending)| -> Vec<PathBuf> {
            let part = |count: usize, index| piece(&work.dir, stem, ending, Some(Shard { index, count }));
            work.parts
                .map_or_else(|| vec![work.path(stem, ending)], |count| (0..count).map(|i| part(count, i)).collect())
        });
        let rows = hashes::RowHashes::read(&hashes, inputs.len(), text::band_len(config.text_threshold))?;
        let mut groups = find::groups(&rows, config)?;
        let mut by_tower = None;
        if let Some(tower) = &self.tower {
            let embeddings = Embeddings::open(&embeddings, tower.width())?;
            let buckets = find::same_questions(&rows, config)?;
            let mut near = Near::new(&rows, config, embeddings)?;
            by_tower = Some(near.join(&buckets, &mut groups, work.machine.observer)?);
        }
        let groups = groups.several();
        let dropped = dropped(config, &rows, &groups, benchmarks.len() as u32);
        let fate = |row: u32| {
            let (set, at) = rows.places[row as usize];
            dropped.get(&(set, at.index)).map(|(reason, _)| *reason)
        };
        page::write(work, &inputs, &rows, &groups, &fate)?;
        let mut summary = write(work, &inputs, &rows, &dropped)?;
        summary.more.insert("groups".to_owned(), json!(groups.len()));
        by_tower.map(|joined| summary.more.insert("joined_by_tower".to_owned(), json!(joined)));
        for path in own.iter().filter(|path| path.exists()) {
            std::fs::remove_file(path).map_err(Error::io(path))?;
        }
        Ok(summary)
    }

    fn gathers(&self) -> bool {
        true
    }
}

/// Returns the rows to remove from groups of equal rows. `benchmarks` is the number of benchmark data sets. They
/// precede the other data sets, and their rows are not written.
fn dropped(config: &DedupConfig, rows: &hashes::RowHashes, groups: &[Vec<u32>], benchmarks: u32) -> Dropped {
    let set = |row: u32| rows.places[row as usize].0;
    let mut dropped = Dropped::new();
    for group in groups {
        for (k, &row) in group.iter().enumerate().filter(|(_, row)| set(**row) >= benchmarks) {
            let stays = match config.mode {
                _ if set(group[0]) < benchmarks => Some(("benchmark", group[0])),
                // In compat mode the row of the last data set remains, and a data set is not compared with itself.
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

/// Writes the remaining rows, and lists the removed ones as rejected.
fn write(work: &Work, inputs: &[&Input], rows: &hashes::RowHashes, dropped: &Dropped) -> Result<Summary> {
    let broken: HashMap<(u32, u32), &str> =
        rows.broken.iter().map(|(set, index, what)| ((*set, *index), what.as_str())).collect();
    let first = inputs.len() - work.inputs.len();
    pass(work, &mut |input, numbered| {
        let number = work.inputs.iter().position(|other| other.name == input.name).unwrap_or_default();
        let fate = |index: usize, row: Row| -> Result<Fate> {
            let key = ((first + number) as u32, index as u32);
            if let Some(what) = broken.get(&key) {
                return Ok(Fate::Bad(BadRow::of(Reason::BrokenImage)(Error::Failed((*what).to_owned()))));
            }
            let Some(&(reason, stays)) = dropped.get(&key) else { return Ok(Fate::Kept(row)) };
            let (set, at) = rows.places[stays as usize];
            let (name, id) = (&inputs[set as usize].name, rows.text(stays as usize)?.1);
            Ok(Fate::Rejected(Rejection::row(reason, format!("duplicate of {name} row {}, id {id}", at.index + 1))))
        };
        numbered.into_iter().map(|one| Ok(vec![fate(one.index, one.row)?])).collect()
    })
}

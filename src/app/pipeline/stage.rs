//! Interfaces of a stage: its settings, its inputs and the environment it runs in.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::pipeline::summary::Summary;
use omr_base::answers::{self, RunStore, Store};
use omr_base::config::{DatasetConfig, JudgeConfig, Mode, ScorerConfig, StageConfig, StageKeys};
use omr_base::error::{Error, Result};
use omr_data::reward::Scorer;
use omr_data::rows::chunks::{Chunk, Chunks};
use omr_data::rows::read::{self, RowFile, RowPosition};
use omr_data::rows::{ReadCounts, Row, RowResult, Writer};
use omr_runtime::machine::Machine;

/// A kind of stage, implemented by its settings.
pub trait Stage: StageKeys {
    /// Reason why the stage cannot be sharded, or `None` if it can.
    const WHOLE: Option<&'static str> = None;
    /// Returns the number of outcomes per row; each is kept, rejected or unjudged.
    fn outcomes(&self) -> usize {
        1
    }
    /// Returns true if the stage needs a device.
    fn computes(&self) -> bool {
        false
    }
    /// Creates the job. Checks everything that can be checked before a row is read.
    fn job<'a>(&'a self, machine: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>>;
}

/// A stage whose settings have been checked.
pub trait StageJob {
    /// Returns a description of the stage for the user.
    fn describe(&self) -> String;
    /// Runs the stage. Everything except the summary and the record of the inputs is written when this returns.
    fn run(&mut self, work: &Work) -> Result<Summary>;
    /// Returns true if the stage merges shards by running again. Otherwise their rows are joined.
    fn gathers(&self) -> bool {
        false
    }
    /// Returns true if nothing is left to do.
    fn is_final(&self, _summary: &Summary) -> bool {
        true
    }
}

/// One of several shards of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    /// Number of the shard, from 0.
    pub index: usize,
    /// Number of shards.
    pub count: usize,
}

impl Shard {
    /// Returns the suffix in the names of the shard's files.
    pub fn suffix(self) -> String {
        format!("-{}-of-{}", self.index, self.count)
    }

    /// Returns the shard's part of `rows` rows, a consecutive range.
    pub fn range(self, rows: usize) -> Range<usize> {
        rows * self.index / self.count..rows * (self.index + 1) / self.count
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Shard, String> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) if index < count => Ok(Shard { index, count }),
            _ => Err("expected i/n with i from 0 to n - 1, such as 0/4".to_owned()),
        }
    }
}

/// A data set that a stage reads.
pub struct Input {
    /// Name of the data set and of its output.
    pub name: String,
    /// Entry of the config.
    pub entry: DatasetConfig,
    /// Files of the data set. Each file has the number that its first row has in the data set.
    pub files: Vec<(usize, RowFile)>,
    /// Number of rows in the data set.
    pub count: usize,
    /// Range of the rows that are read; a part of the data set if there is a shard.
    pub rows: Range<usize>,
    /// Counts of the rows at the last reading.
    seen: Mutex<ReadCounts>,
}

impl Input {
    /// Opens a data set to read a shard's part of it, or all of it.
    pub fn open(entry: &DatasetConfig, shard: Option<Shard>) -> Result<Input> {
        let (mut files, mut count) = (Vec::new(), 0);
        for file in RowFile::open(std::slice::from_ref(entry))? {
            let rows = file.count()?;
            files.push((count, file));
            count += rows;
        }
        let count = count.min(entry.limit.unwrap_or(usize::MAX));
        let rows = shard.map_or(0..count, |shard| shard.range(count));
        Ok(Input { name: read::name(entry), entry: entry.clone(), files, count, rows, seen: Mutex::default() })
    }

    /// Returns the counts of the last reading, and the columns that are not read.
    pub fn seen(&self) -> Result<ReadCounts> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.with_columns(self.files.iter().map(|(_, file)| file))
    }

    /// Passes each row to be read to `take`, in order. Positions use row numbers of the data set, not of the file.
    pub fn for_each(&self, mut take: impl FnMut(RowPosition, RowResult<Row>) -> Result<()>) -> Result<()> {
        let mut seen = ReadCounts::default();
        for (k, (first, file)) in self.files.iter().enumerate() {
            let end = self.files.get(k + 1).map_or(self.count, |next| next.0).min(self.rows.end);
            let range = self.rows.start.max(*first)..end;
            if !range.is_empty() {
                let local = range.start - first..range.end - first;
                file.for_range(local, |at, row| {
                    row.iter().for_each(|row| seen.add(row));
                    take(RowPosition { index: at.index + *first as u32, ..at }, row)
                })?;
            }
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }

    /// Passes the rows to `take` as [`Input::for_each`] does, at most `most` at a time.
    pub fn for_chunks(&self, most: usize, take: impl FnMut(Chunk) -> Result<()>) -> Result<()> {
        let mut chunks = Chunks::new(most, take);
        self.for_each(|at, row| chunks.push(at, row))?;
        chunks.finish()
    }

    /// Returns the row at a position that [`Input::for_each`] passed. Returns an outer error if its file cannot be read
    /// there.
    pub fn row(&self, at: RowPosition) -> Result<RowResult<Row>> {
        let k = self.files.partition_point(|(first, _)| *first <= at.index as usize).saturating_sub(1);
        let Some((first, file)) = self.files.get(k) else {
            return Err(Error::Failed(format!("{}: no row {}", self.name, at.index + 1)));
        };
        file.row(RowPosition { index: at.index - *first as u32, ..at })
    }
}

/// Returns an error if an entry has a weight that a stage of this kind does not follow.
pub fn check_weights(kind: &str, entries: &[DatasetConfig]) -> Result<()> {
    let Some(entry) = entries.iter().find(|entry| kind != "mix" && entry.weight != 1.0) else { return Ok(()) };
    let found = format!("{} for {}", entry.weight, entry.path.display());
    Err(Error::input("datasets.weight", found, "1: only `mix` repeats or draws rows"))
}

/// Everything that a stage needs to run: the folder, the inputs, the shard and the machine.
pub struct Work<'a> {
    /// Kind of the stage.
    pub kind: &'static str,
    /// Folder of the stage.
    pub dir: PathBuf,
    /// Settings that every stage has.
    pub stage: &'a StageConfig,
    /// Data sets to read.
    pub inputs: Vec<Input>,
    /// Number of outcomes per row; each is kept, rejected or unjudged.
    pub outcomes: usize,
    /// Shard to process, or `None` for all rows.
    pub shard: Option<Shard>,
    /// Number of shards that were processed before, if any.
    pub parts: Option<usize>,
    /// Device, runtime and observer.
    pub machine: &'a Machine<'a>,
}

impl<'a> Work<'a> {
    /// Opens the data sets of `config`. Returns an error that names the file if a file cannot be opened. Also returns
    /// an error if two data sets have the same name, because they would write the same output.
    pub fn open<C: Stage>(
        config: &'a C,
        dir: &Path,
        shard: Option<Shard>,
        machine: &'a Machine<'a>,
    ) -> Result<Work<'a>> {
        let stage = config.stage();
        if stage.datasets.is_empty() {
            return Err(Error::input("datasets", "nothing", "at least one dataset"));
        }
        check_weights(C::NAME, &config.reads())?;
        let mut inputs: Vec<Input> = Vec::new();
        for entry in &stage.datasets {
            let mut name = read::name(entry);
            // Several configurations of one repository.
            if !entry.name.is_empty() && inputs.iter().any(|other| other.name == name) {
                name = format!("{name}-{}", entry.name.join("-").replace(['*', '?', '/'], ""));
            }
            if inputs.iter().any(|other| other.name == name) {
                let expected = "names of files (without endings) or of configurations that differ, because outputs are named after them";
                return Err(Error::input("datasets", format!("two datasets named {name}"), expected));
            }
            inputs.push(Input { name, ..Input::open(entry, shard)? });
        }
        Ok(Work {
            kind: C::NAME,
            dir: dir.to_owned(),
            stage,
            inputs,
            outcomes: config.outcomes(),
            shard,
            parts: None,
            machine,
        })
    }

    /// Returns the number of rows that are read.
    pub fn rows(&self) -> usize {
        self.inputs.iter().map(|input| input.rows.len()).sum()
    }

    /// Returns the store of answers. For a shard, this is the shard's own store. Otherwise it is the store of the run,
    /// which includes the answers of all shards.
    pub fn store(&self) -> Result<Arc<RunStore>> {
        match self.shard {
            None => Ok(RunStore::new(&self.dir)),
            Some(Shard { index, count }) => Store::open(&answers::shard(&self.dir, index, count)).map(RunStore::of),
        }
    }

    /// Creates the scorer of answers. Rulings of the judge are kept in `store`.
    pub fn scorer(&self, mode: Mode, judge: &Option<JudgeConfig>, store: Arc<RunStore>) -> Result<Scorer> {
        Scorer::new(mode, judge.as_ref(), &ScorerConfig::default(), "reward", Some(store), self.machine.runtime)
    }

    /// Creates the writer of the kept rows of the output `name`.
    pub fn writer(&self, name: &str) -> Writer {
        Writer::new(&self.path(name, "parquet"), self.stage.form)
    }

    /// Returns the path `DIR/STEM.ENDING`, or `DIR/STEM-i-of-n.ENDING` for a shard.
    pub fn path(&self, stem: &str, ending: &str) -> PathBuf {
        piece(&self.dir, stem, ending, self.shard)
    }
}

/// Returns the path `DIR/STEM.ENDING`, or `DIR/STEM-i-of-n.ENDING` for a shard.
pub fn piece(dir: &Path, stem: &str, ending: &str, shard: Option<Shard>) -> PathBuf {
    let part = shard.map(Shard::suffix).unwrap_or_default();
    let dot = if ending.is_empty() { "" } else { "." };
    dir.join(format!("{stem}{part}{dot}{ending}"))
}

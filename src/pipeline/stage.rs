//! What a stage is, what it reads, and what it works with.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::answers::{self, RunStore, Store};
use crate::config::{Config, DatasetConfig, RowForm, StageConfig, StepConfig};
use crate::data::read::{self, At, RowFile};
use crate::data::{Form, Read, Row, Seen};
use crate::error::{Error, Result};
use crate::machine::Machine;
use crate::pipeline::summary::Summary;

/// A kind of stage, by its settings.
pub trait Stage: Config {
    /// Why it cannot be done in parts; none where it can.
    const WHOLE: Option<&'static str> = None;
    /// Outcomes of a row: kept, rejected or unjudged each.
    fn outcomes(&self) -> usize {
        1
    }
    /// The settings every stage has.
    fn stage(&self) -> &StageConfig;
    /// The same, to be resolved.
    fn stage_mut(&mut self) -> &mut StageConfig;
    /// Files it reads beside its data sets.
    fn beside(&mut self) -> Vec<&mut DatasetConfig> {
        Vec::new()
    }
    /// The model directory that decides what it writes.
    fn model(&self) -> Option<&Path> {
        None
    }
    /// True where it needs a device.
    fn computes(&self) -> bool {
        false
    }
    /// The settings of this kind that a pipeline's stage has.
    fn of(step: &StepConfig) -> Option<&Self>;
    /// Checks what can be checked before a row is read.
    fn job<'a>(&'a self, means: &'a Machine<'a>) -> Result<Box<dyn StageJob + 'a>>;
}

/// A stage with its settings checked.
pub trait StageJob {
    /// What it will do, for people.
    fn describe(&self) -> String;
    /// Does it. Everything but the summary and the record of the inputs is written when this returns.
    fn run(&mut self, work: &Work) -> Result<Summary>;
    /// True where what shards left is taken in by running, and not by joining the rows they wrote.
    fn gathers(&self) -> bool {
        false
    }
    /// False when another run would find something left to do.
    fn is_final(&self, _summary: &Summary) -> bool {
        true
    }
}

/// One of several parts of a stage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    /// Which, from 0.
    pub index: usize,
    /// Of how many.
    pub count: usize,
}

impl Shard {
    /// What ends the names of its files.
    pub fn suffix(self) -> String {
        format!("-{}-of-{}", self.index, self.count)
    }

    /// Its part of `rows` rows: consecutive ones.
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

/// A data set that is read.
pub struct Input {
    /// Its name, and that of what is written of it.
    pub name: String,
    /// Its entry.
    pub entry: DatasetConfig,
    /// Its files, each with the number of its first row.
    pub files: Vec<(usize, RowFile)>,
    /// Rows in it.
    pub count: usize,
    /// Rows that are read of it.
    pub rows: Range<usize>,
    /// What was found when they were last read.
    seen: Mutex<Seen>,
}

impl Input {
    /// Opens a data set, to read a shard's part of it or all.
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

    /// What was found when its rows were last read, and which columns were not.
    pub fn seen(&self) -> Result<Seen> {
        let unused = Seen::of(self.files.iter().map(|(_, file)| file))?.unused;
        Ok(Seen { unused, ..self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone() })
    }

    /// Gives each row that is to be read to `take`, in order; places are by the number in the data set.
    pub fn for_each(&self, mut take: impl FnMut(At, Read<Row>) -> Result<()>) -> Result<()> {
        let mut seen = Seen::default();
        for (k, (first, file)) in self.files.iter().enumerate() {
            let end = self.files.get(k + 1).map_or(self.count, |next| next.0).min(self.rows.end);
            let range = self.rows.start.max(*first)..end;
            if !range.is_empty() {
                let local = range.start - first..range.end - first;
                file.for_range(local, |at, row| {
                    row.iter().for_each(|row| seen.add(row));
                    take(At { index: at.index + *first as u32, ..at }, row)
                })?;
            }
        }
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(())
    }

    /// The row at a place that [`Input::for_each`] gave. Errors when its file cannot be read there.
    pub fn row(&self, at: At) -> Result<Read<Row>> {
        let k = self.files.partition_point(|(first, _)| *first <= at.index as usize).saturating_sub(1);
        let Some((first, file)) = self.files.get(k) else {
            return Err(Error::Failed(format!("{}: no row {}", self.name, at.index + 1)));
        };
        file.row(At { index: at.index - *first as u32, ..at })
    }
}

/// A stage at work: where, on what, and which part.
pub struct Work<'a> {
    /// Kind of the stage.
    pub kind: &'static str,
    /// Its folder.
    pub dir: PathBuf,
    /// The settings every stage has.
    pub stage: &'a StageConfig,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// Outcomes of a row: kept, rejected or unjudged each.
    pub outcomes: usize,
    /// The part of the rows, where it is one.
    pub shard: Option<Shard>,
    /// How many parts it was done in before.
    pub parts: Option<usize>,
    /// The machine.
    pub means: &'a Machine<'a>,
}

impl<'a> Work<'a> {
    /// Opens the data sets of `config`. Errors name the file, or the two that share a name, as they would share an output.
    pub fn open<C: Stage>(config: &'a C, dir: &Path, shard: Option<Shard>, means: &'a Machine<'a>) -> Result<Work<'a>> {
        let stage = config.stage();
        if stage.datasets.is_empty() {
            return Err(Error::input("datasets", "nothing", "at least one data set"));
        }
        let mut inputs: Vec<Input> = Vec::new();
        for entry in &stage.datasets {
            let name = read::name(entry);
            if inputs.iter().any(|other| other.name == name) {
                let expected = "file names that differ before their ending: they name the outputs";
                return Err(Error::input("datasets", format!("two data sets named {name}"), expected));
            }
            inputs.push(Input::open(entry, shard)?);
        }
        Ok(Work {
            kind: C::NAME,
            dir: dir.to_owned(),
            stage,
            inputs,
            outcomes: config.outcomes(),
            shard,
            parts: None,
            means,
        })
    }

    /// Rows that are read.
    pub fn rows(&self) -> usize {
        self.inputs.iter().map(|input| input.rows.len()).sum()
    }

    /// The answers of the run, those of its shards among them, or of this shard.
    pub fn store(&self) -> Result<Arc<RunStore>> {
        match self.shard {
            None => Ok(RunStore::new(&self.dir)),
            Some(Shard { index, count }) => Store::open(&answers::shard(&self.dir, index, count)).map(RunStore::of),
        }
    }

    /// `DIR/STEM.ENDING`, of a shard `DIR/STEM-i-of-n.ENDING`.
    pub fn path(&self, stem: &str, ending: &str) -> PathBuf {
        piece(&self.dir, stem, ending, self.shard)
    }
}

/// The columns for rows like this first one.
pub fn form(stage: &StageConfig, first: &Row) -> Form {
    match stage.form {
        RowForm::Sft => Form::Sft,
        RowForm::Rl => Form::Rl,
        RowForm::Auto if first.messages.last().is_some_and(|m| m.role == "assistant") => Form::Sft,
        RowForm::Auto => Form::Rl,
    }
}

/// `DIR/STEM.ENDING`, of a shard `DIR/STEM-i-of-n.ENDING`.
pub fn piece(dir: &Path, stem: &str, ending: &str, shard: Option<Shard>) -> PathBuf {
    let part = shard.map(Shard::suffix).unwrap_or_default();
    let dot = if ending.is_empty() { "" } else { "." };
    dir.join(format!("{stem}{part}{dot}{ending}"))
}

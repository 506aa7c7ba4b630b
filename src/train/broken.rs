//! Rows that turn out to be broken in the middle of a run: taken out, named in `rejected.jsonl`, counted, and kept in
//! checkpoints, so that a run that goes on knows them and ends where it would have ended.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::data::loader::Group;
use crate::data::{Dataset, Rejected, RejectedRows};
use crate::error::{Error, Result};
use crate::observe::Observer;

/// What checkpoints keep it under.
const KEY: &str = "rejected";

/// The rows a run does not use.
pub struct Broken<'a> {
    dir: &'a Path,
    data: &'a Dataset,
    max_bad_rows: f64,
    /// Those the index names, then those found since.
    rows: RejectedRows,
    found: usize,
    /// Those of samples made since the last [`Broken::found`].
    fresh: Vec<Rejected>,
    /// False where another rank writes `rejected.jsonl`.
    writes: bool,
    observer: &'a dyn Observer,
}

impl<'a> Broken<'a> {
    /// Of a run in `dir`: what the index names and what its checkpoint has in `extra`. Rank 0 `writes` `rejected.jsonl`, and
    /// says what is left out.
    pub fn new(
        dir: &'a Path,
        data: &'a Dataset,
        max_bad_rows: f64,
        extra: &Map<String, Value>,
        writes: bool,
        observer: &'a dyn Observer,
    ) -> Result<Broken<'a>> {
        let mut rows = data.rejected.clone();
        let found: Vec<Rejected> = match extra.get(KEY) {
            Some(found) => serde_json::from_value(found.clone())
                .map_err(|e| Error::Failed(format!("the checkpoint's rejected rows: {e}")))?,
            None => Vec::new(),
        };
        let known = rows.rejected.len();
        rows.rejected.extend(found);
        let found = rows.rejected.len() - known;
        if writes {
            rows.write(dir, &data.names())?;
        }
        data.notes().iter().for_each(|note| observer.note(note));
        Ok(Broken { dir, data, max_bad_rows, rows, found, fresh: Vec::new(), writes, observer })
    }

    /// The samples of `group` that could be made, in its order. The others are for [`Broken::record`].
    pub fn sound<T>(&mut self, group: Group<T>) -> Vec<Arc<T>> {
        let mut sound = Vec::with_capacity(group.len());
        for (i, made) in group {
            match made {
                Ok(sample) => sound.push(sample),
                Err(bad) => {
                    let (dataset, index) = self.data.row(i);
                    let (reason, detail) = (bad.reason, bad.error.to_string());
                    self.fresh.push(Rejected { dataset, index, id: bad.id, reason, detail });
                }
            }
        }
        sound
    }

    /// What this rank has found since it was last asked.
    pub fn found(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.fresh)
    }

    /// Names and counts what was `found`, by whichever rank, and is not known yet. Errors when there are more bad rows than
    /// `max_bad_rows` allows.
    pub fn record(&mut self, found: Vec<Rejected>) -> Result<()> {
        let before = self.found;
        for row in found {
            let known = |r: &Rejected| (r.dataset, r.index) == (row.dataset, row.index);
            if !self.rows.rejected.iter().any(known) {
                self.observer.note(&format!("left out: {}", row.detail));
                self.rows.rejected.push(row);
                self.found += 1;
            }
        }
        if self.found == before {
            return Ok(());
        }
        if self.writes {
            self.rows.write(self.dir, &self.data.names())?;
        }
        self.rows.check(self.max_bad_rows)
    }

    /// Puts what was found since the run began into what its checkpoints keep.
    pub fn keep(&self, extra: &mut Map<String, Value>) -> Result<()> {
        if self.found > 0 {
            let first = self.rows.rejected.len() - self.found;
            let found = serde_json::to_value(&self.rows.rejected[first..]);
            extra.insert(KEY.to_owned(), found.map_err(|e| Error::Failed(format!("rejected rows: {e}")))?);
        }
        Ok(())
    }
}

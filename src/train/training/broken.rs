//! Rows that turn out to be broken during a run. They are left out, listed in `rejected.jsonl`, counted, and stored in
//! checkpoints, so that a resumed run also skips them and ends with the same result.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use omr_base::error::{Error, Result};
use omr_base::observe::Observer;
use omr_data::rows::samples::loader::Group;
use omr_data::rows::{Dataset, Rejected, RejectedRows};

/// Key of a checkpoint's `extra` that holds these rows.
const KEY: &str = "rejected";

/// The rows that a run does not use.
pub struct Broken<'a> {
    dir: &'a Path,
    data: &'a Dataset,
    max_bad_rows: f64,
    /// Broken rows of the run: first the rows that the index rejected, then the rows found during the run.
    rows: RejectedRows,
    found: usize,
    /// Broken rows among the samples made since the last call of [`Broken::found`].
    fresh: Vec<Rejected>,
    /// True if this rank writes `rejected.jsonl`; exactly one rank does.
    writes: bool,
    observer: &'a dyn Observer,
}

impl<'a> Broken<'a> {
    /// Collects the rejected rows of the run in `dir`: the rows that the index rejected, and the rows that the
    /// checkpoint stores in `extra`. `writes` is true on rank 0, which writes `rejected.jsonl` and reports the rows
    /// that are left out.
    pub fn new(
        dir: &'a Path,
        data: &'a Dataset,
        max_bad_rows: f64,
        extra: &Map<String, Value>,
        writes: bool,
        observer: &'a dyn Observer,
    ) -> Result<Broken<'a>> {
        let mut rows = data.rejected.clone();
        let broken = |e: serde_json::Error| Error::Failed(format!("the checkpoint's rejected rows: {e}"));
        let stored = extra.get(KEY).map(|stored| serde_json::from_value(stored.clone()).map_err(broken)).transpose()?;
        let stored: Vec<Rejected> = stored.unwrap_or_default();
        let found = stored.len();
        rows.rejected.extend(stored);
        if writes {
            rows.write(dir, &data.names())?;
        }
        data.notes().iter().for_each(|note| observer.note(note));
        Ok(Broken { dir, data, max_bad_rows, rows, found, fresh: Vec::new(), writes, observer })
    }

    /// Returns the samples of `group` that could be made, in the order of the group. Stores the other rows for
    /// [`Broken::record`].
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

    /// Returns the broken rows that this rank has found since the last call.
    pub fn found(&mut self) -> Vec<Rejected> {
        std::mem::take(&mut self.fresh)
    }

    /// Adds the rows in `found`, from any rank, that are not recorded yet: each one is counted and reported. Errors if
    /// there are more bad rows than `max_bad_rows` allows.
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

    /// Stores the rows found since the start of the run in `extra`, which checkpoints save.
    pub fn keep(&self, extra: &mut Map<String, Value>) -> Result<()> {
        if self.found > 0 {
            let first = self.rows.rejected.len() - self.found;
            let found = serde_json::to_value(&self.rows.rejected[first..]);
            extra.insert(KEY.to_owned(), found.map_err(|e| Error::Failed(format!("rejected rows: {e}")))?);
        }
        Ok(())
    }
}

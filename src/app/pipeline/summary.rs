//! Summary of a stage: the counts in `summary.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use omr_base::error::{Error, Result};
use omr_data::reward::judge;

/// Counts of a stage. `in` times the outcomes per row (`num_rollouts` in distillation, otherwise 1) equals kept +
/// rejected + unjudged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of rows read.
    #[serde(rename = "in")]
    pub rows: usize,
    /// Number of rows written.
    pub kept: usize,
    /// Number of rejected rows or answers, by reason.
    pub rejected: BTreeMap<String, usize>,
    /// Number of answers that the rules score as wrong and for which the judge gave no ruling.
    pub unjudged: usize,
    /// Number of answers requested by this run and the runs that it resumes.
    pub requests: usize,
    /// Tokens of the answers, as counted by the teacher or engine.
    pub tokens: u64,
    /// Judge and counts of its rulings; null if there is no judge.
    #[serde(default)]
    pub judge: Option<judge::Summary>,
    /// Additional fields of a single stage.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Summary {
    /// Counts a rejected row.
    pub fn reject(&mut self, reason: &str) {
        *self.rejected.entry(reason.to_owned()).or_default() += 1;
    }

    /// Adds the counts of another part.
    pub fn add(&mut self, other: &Summary) {
        self.rows += other.rows;
        self.kept += other.kept;
        for (reason, count) in &other.rejected {
            *self.rejected.entry(reason.clone()).or_default() += count;
        }
        self.unjudged += other.unjudged;
        self.requests += other.requests;
        self.tokens += other.tokens;
        match (&mut self.judge, &other.judge) {
            (Some(judge), Some(other)) => judge.add(other),
            (none, other) => *none = none.take().or_else(|| other.clone()),
        }
    }

    /// Returns an error if the counts do not add up, with `outcomes` per row read.
    pub fn check(&self, outcomes: usize) -> Result<()> {
        let rejected: usize = self.rejected.values().sum();
        match self.rows * outcomes == self.kept + rejected + self.unjudged {
            true => Ok(()),
            false => Err(Error::Failed(format!("the counts of the summary do not add up: {self:?}"))),
        }
    }

    /// Formats the summary as one line for the user.
    pub fn line(&self) -> String {
        let rejected: Vec<String> = self.rejected.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        let rejected = if rejected.is_empty() { "none rejected".to_owned() } else { rejected.join(", ") };
        format!("{} rows in, {} kept; {rejected}", self.rows, self.kept)
    }
}

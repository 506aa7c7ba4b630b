//! What a stage came to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::reward::judge;

/// What a stage came to: `in` = kept + the rejected, in distillation `in * num_rollouts` = kept + the rejected +
/// unjudged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Rows read.
    #[serde(rename = "in")]
    pub rows: usize,
    /// Rows written.
    pub kept: usize,
    /// Rows, or answers, rejected, by reason.
    pub rejected: BTreeMap<String, usize>,
    /// Answers the rules call wrong and a judge was asked about without success.
    pub unjudged: usize,
    /// Answers asked for, by this run and by those it goes on from.
    pub requests: usize,
    /// Tokens of the answers, by the count of who gave them.
    pub tokens: u64,
    /// The judge and what it said; null where none was asked.
    #[serde(default)]
    pub judge: Option<judge::Summary>,
    /// What only this stage has to say.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Summary {
    /// Counts a rejected row.
    pub fn reject(&mut self, reason: &str) {
        *self.rejected.entry(reason.to_owned()).or_default() += 1;
    }

    /// Adds another part's.
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

    /// Errors when the counts do not add up, each row read giving `outcomes`.
    pub fn check(&self, outcomes: usize) -> Result<()> {
        let rejected: usize = self.rejected.values().sum();
        match self.rows * outcomes == self.kept + rejected + self.unjudged {
            true => Ok(()),
            false => Err(Error::Failed(format!("the summary does not add up: {self:?}"))),
        }
    }

    /// In a line, for people.
    pub fn line(&self) -> String {
        let rejected: Vec<String> = self.rejected.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        let rejected = if rejected.is_empty() { "none rejected".to_owned() } else { rejected.join(", ") };
        format!("{} rows in, {} kept; {rejected}", self.rows, self.kept)
    }
}

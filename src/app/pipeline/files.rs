//! Lines about the rows and answers that a stage does not keep.

use std::io::Write;

use serde_json::json;

use crate::pipeline::stage::Work;
use crate::pipeline::summary::Summary;
use omr_base::config::{RowForm, StageConfig};
use omr_base::error::{Error, Result};
use omr_base::files::Staged;
use omr_data::rows::{BadRow, Rejected, RejectedRows, Row};

/// Rejected rows and answers: counts them and lists them in `rejected.jsonl`.
pub struct Rejections<'a> {
    work: &'a Work<'a>,
    lines: Lines,
    bad: RejectedRows,
    /// Counts of the stage so far.
    pub summary: Summary,
}

impl<'a> Rejections<'a> {
    /// Starts without rejections.
    pub fn new(work: &'a Work<'a>) -> Result<Rejections<'a>> {
        let summary = Summary { rows: work.rows(), ..Summary::default() };
        let bad = RejectedRows { rows: work.rows() as u64, rejected: Vec::new() };
        Ok(Rejections { work, lines: Lines::create(work, "rejected")?, bad, summary })
    }

    /// Rejects a valid row of data set `number`, or an answer to one.
    pub fn push(&mut self, number: usize, index: usize, id: Option<&str>, rejection: &Rejection) -> Result<()> {
        self.summary.reject(rejection.reason);
        self.lines.push(&self.work.inputs[number].name, index, id, rejection)
    }

    /// Rejects a row that cannot be read, once for each outcome that it would have had. Returns an error if too many
    /// rows are bad or if the system failed to read this one.
    pub fn bad(&mut self, number: usize, index: usize, bad: BadRow) -> Result<()> {
        let bad = bad.of_row()?;
        let rejection = Rejection::row(bad.reason.name(), bad.error.to_string());
        for _ in 0..self.work.outcomes {
            self.push(number, index, bad.id.as_deref(), &rejection)?;
        }
        let (id, reason, detail) = (bad.id, bad.reason, rejection.detail);
        self.bad.rejected.push(Rejected { dataset: number as u32, index: index as u32, id, reason, detail });
        self.bad.check(self.work.stage.max_bad_rows)
    }

    /// Moves the file to its path and returns the counts.
    pub fn finish(self) -> Result<Summary> {
        self.lines.finish()?;
        Ok(self.summary)
    }
}

/// Writer of lines about rows or answers that are not kept.
pub struct Lines(Staged);

/// Reason why a row or an answer is not kept.
pub struct Rejection {
    /// Short name of the reason.
    pub reason: &'static str,
    /// Details: what was found.
    pub detail: String,
    /// Number of the answer, if it is one of several answers to a row.
    pub rollout: Option<usize>,
}

impl Rejection {
    /// Creates a reason that applies to an entire row.
    pub fn row(reason: &'static str, detail: impl Into<String>) -> Rejection {
        Rejection { reason, detail: detail.into(), rollout: None }
    }
}

/// Returns the reason why a row cannot be written in the format that the stage's settings require, or `None` if it can.
pub fn unfit(stage: &StageConfig, row: &Row) -> Option<Rejection> {
    let keys = "`form: rl` keeps rows without an answer; `omr data distill` requests answers from a teacher";
    if stage.form == RowForm::Sft { unanswered(row, keys) } else { None }
}

/// Returns a rejection that suggests `keys` if the row has no answer to train on.
pub fn unanswered(row: &Row, keys: &str) -> Option<Rejection> {
    (!row.is_answered()).then(|| {
        let label = if row.ground_truth.is_some() { "a label, and " } else { "" };
        let found = format!("found {label}no answer at the end of the conversation");
        Rejection::row("no_answer", format!("{}: {found}, expected an assistant turn with text ({keys})", row.place))
    })
}

impl Lines {
    /// Creates the file `STEM.jsonl`.
    pub fn create(work: &Work, stem: &str) -> Result<Lines> {
        Staged::create(work.path(stem, "jsonl")).map(Lines)
    }

    /// Adds a line.
    pub fn push(&mut self, dataset: &str, index: usize, id: Option<&str>, rejection: &Rejection) -> Result<()> {
        let Rejection { reason, detail, rollout } = rejection;
        let mut line = json!({"dataset": dataset, "index": index, "id": id, "reason": reason, "detail": detail});
        if let (Some(rollout), Some(map)) = (rollout, line.as_object_mut()) {
            map.insert("rollout".to_owned(), json!(rollout));
        }
        self.append(format!("{line}\n").as_bytes())
    }

    /// Adds complete lines unchanged.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(|e| Error::Failed(format!("a line for people: {e}")))
    }

    /// Moves the file to its path.
    pub fn finish(self) -> Result<()> {
        self.0.commit()
    }
}

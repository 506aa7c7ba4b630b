//! The files a stage leaves: kept rows by data set, lines of those that are not.

use std::io::Write;

use serde_json::json;

use crate::config::{RowForm, StageConfig};
use crate::data::{Bad, Rejected, RejectedRows, Row, Writer, text_of};
use crate::error::{Error, Result};
use crate::files::Staged;
use crate::pipeline::stage::{Work, form};
use crate::pipeline::summary::Summary;

/// The kept rows of one data set.
pub struct Kept<'a> {
    work: &'a Work<'a>,
    name: &'a str,
    /// Begun with the first row, which says in which form.
    writer: Option<Writer>,
}

impl<'a> Kept<'a> {
    /// Of the data set that is to be named `name`.
    pub fn new(work: &'a Work<'a>, name: &'a str) -> Kept<'a> {
        Kept { work, name, writer: None }
    }

    /// Adds a row.
    pub fn push(&mut self, row: Row) -> Result<()> {
        let mut writer = match self.writer.take() {
            Some(writer) => writer,
            None => Writer::create(&self.work.path(self.name, "parquet"), form(self.work.stage, &row))?,
        };
        writer.push(row)?;
        self.writer = Some(writer);
        Ok(())
    }

    /// Puts the file at its place; one without rows, too, is a whole file.
    pub fn finish(self) -> Result<()> {
        let empty = || Writer::create(&self.work.path(self.name, "parquet"), form(self.work.stage, &Row::default()));
        self.writer.map_or_else(empty, Ok)?.finish()
    }
}

/// Rows, and answers, that are not kept: named in `rejected.jsonl` and counted.
pub struct Rejections<'a> {
    work: &'a Work<'a>,
    lines: Lines,
    bad: RejectedRows,
    /// What the stage came to so far.
    pub summary: Summary,
}

impl<'a> Rejections<'a> {
    /// None yet.
    pub fn new(work: &'a Work<'a>) -> Result<Rejections<'a>> {
        let summary = Summary { rows: work.rows(), ..Summary::default() };
        let bad = RejectedRows { rows: work.rows() as u64, rejected: Vec::new() };
        Ok(Rejections { work, lines: Lines::create(work, "rejected")?, bad, summary })
    }

    /// A sound row, or an answer to one, of data set `number`.
    pub fn push(&mut self, number: usize, index: usize, id: Option<&str>, because: &Because) -> Result<()> {
        self.summary.reject(because.reason);
        self.lines.push(&self.work.inputs[number].name, index, id, because)
    }

    /// A row that cannot be read: all that would have become of it is missing. Errors when there are too many, or the
    /// system failed on it.
    pub fn bad(&mut self, number: usize, index: usize, bad: Bad) -> Result<()> {
        let bad = bad.of_row()?;
        let because = Because::row(bad.reason.name(), bad.error.to_string());
        for _ in 0..self.work.outcomes {
            self.push(number, index, bad.id.as_deref(), &because)?;
        }
        let (id, reason, detail) = (bad.id, bad.reason, because.detail);
        self.bad.rejected.push(Rejected { dataset: number as u32, index: index as u32, id, reason, detail });
        self.bad.check(self.work.stage.max_bad_rows)
    }

    /// Puts the file at its place.
    pub fn finish(self) -> Result<Summary> {
        self.lines.finish()?;
        Ok(self.summary)
    }
}

/// Lines about rows, or answers, that are not kept.
pub struct Lines(Staged);

/// Why a row, or an answer, is not kept.
pub struct Because {
    /// In a word.
    pub reason: &'static str,
    /// What was found.
    pub detail: String,
    /// Which of the row's answers.
    pub rollout: Option<usize>,
}

impl Because {
    /// Of a whole row.
    pub fn row(reason: &'static str, detail: impl Into<String>) -> Because {
        Because { reason, detail: detail.into(), rollout: None }
    }
}

/// Why a row cannot be written in the form that the stage's settings name; none where it can.
pub fn unfit(stage: &StageConfig, row: &Row) -> Option<Because> {
    let answered = row.messages.last().is_some_and(|m| m.role == "assistant" && !text_of(m).trim().is_empty());
    (stage.form == RowForm::Sft && !answered).then(|| {
        let label = if row.ground_truth.is_some() { "a label, and " } else { "" };
        let found = format!("found {label}no answer at the end of the conversation");
        let keys = "form: rl writes the label, omr data distill has a teacher answer";
        Because::row("no_answer", format!("{}: {found}, expected an assistant turn with text ({keys})", row.place))
    })
}

impl Lines {
    /// Begins `STEM.jsonl`.
    pub fn create(work: &Work, stem: &str) -> Result<Lines> {
        Staged::create(work.path(stem, "jsonl")).map(Lines)
    }

    /// Adds a line.
    pub fn push(&mut self, dataset: &str, index: usize, id: Option<&str>, because: &Because) -> Result<()> {
        let Because { reason, detail, rollout } = because;
        let mut line = json!({"dataset": dataset, "index": index, "id": id, "reason": reason, "detail": detail});
        if let (Some(rollout), Some(map)) = (rollout, line.as_object_mut()) {
            map.insert("rollout".to_owned(), json!(rollout));
        }
        self.append(format!("{line}\n").as_bytes())
    }

    /// Adds lines as they stand.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).map_err(|e| Error::Failed(format!("a line for people: {e}")))
    }

    /// Puts the file at its place.
    pub fn finish(self) -> Result<()> {
        self.0.commit()
    }
}

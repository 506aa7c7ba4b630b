//! Rows that are not used: why, how many are too many, and where they are named.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};
use crate::files;

/// Why a row is not used.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It cannot be read at all: bad JSON, no UTF-8, a broken page.
    BrokenRow,
    /// Columns are missing or of another type than expected.
    WrongColumns,
    /// Places for images and images differ in number.
    WrongImageCount,
    /// An image file is not there, or not inside the data folder.
    MissingImage,
    /// A picture cannot be read.
    BrokenImage,
    /// A picture has no size a model takes.
    WrongImageSize,
    /// It cannot be turned into tokens: no answer to train on, an id outside the vocabulary.
    WrongText,
    /// It has no label to hold answers against.
    NoGroundTruth,
    /// It is sound and longer than the run takes.
    Overlong,
}

impl Reason {
    /// The word in `rejected.jsonl`.
    pub fn name(self) -> &'static str {
        match self {
            Reason::BrokenRow => "broken_row",
            Reason::WrongColumns => "wrong_columns",
            Reason::WrongImageCount => "wrong_image_count",
            Reason::MissingImage => "missing_image",
            Reason::BrokenImage => "broken_image",
            Reason::WrongImageSize => "wrong_image_size",
            Reason::WrongText => "wrong_text",
            Reason::NoGroundTruth => "no_ground_truth",
            Reason::Overlong => "overlong",
        }
    }

    /// True for what is wrong with a row itself, and not only with its length.
    pub fn is_bad(self) -> bool {
        self != Reason::Overlong
    }
}

/// A row that is not used, with the error that names it.
#[derive(Debug)]
pub struct Bad {
    /// Why.
    pub reason: Reason,
    /// Its id, where that could be read.
    pub id: Option<String>,
    /// What was found.
    pub error: Box<Error>,
}

impl Bad {
    /// The same fault, of another row with the same content.
    pub fn again(&self) -> Bad {
        let error = match &*self.error {
            Error::Unreadable { place, source } => {
                let source = std::io::Error::from_raw_os_error(source.raw_os_error().unwrap_or_default());
                Error::Unreadable { place: place.clone(), source }
            }
            error => Error::Failed(error.to_string()),
        };
        Bad { reason: self.reason, id: None, error: Box::new(error) }
    }

    /// The fault, where it is the row's own; errors where the system failed on it, so that the run ends and nothing keeps
    /// what another try would not meet.
    pub fn of_row(self) -> Result<Bad> {
        match *self.error {
            error @ Error::Unreadable { .. } => Err(error),
            error => Ok(Bad { error: Box::new(error), ..self }),
        }
    }

    /// Gives errors a reason: `result.map_err(Bad::of(Reason::BrokenImage))`.
    pub fn of(reason: Reason) -> impl Fn(Error) -> Bad + Copy {
        move |error| Bad { reason, id: None, error: Box::new(error) }
    }
}

/// What reading a row gives.
pub type Read<T> = std::result::Result<T, Bad>;

impl From<Bad> for Error {
    fn from(bad: Bad) -> Error {
        *bad.error
    }
}

/// A line of `rejected.jsonl`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rejected {
    /// The number of its file among those of the data sets.
    pub dataset: u32,
    /// The row's number in its file, from 0.
    pub index: u32,
    /// The row's id, where it could be read.
    pub id: Option<String>,
    /// Why.
    pub reason: Reason,
    /// What was found.
    pub detail: String,
}

/// Rows that are not used of `rows` in all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RejectedRows {
    /// Rows read.
    pub rows: u64,
    /// Those not used, by data set and row.
    pub rejected: Vec<Rejected>,
}

impl RejectedRows {
    /// How many have each reason.
    pub fn counts(&self) -> BTreeMap<Reason, usize> {
        let mut counts = BTreeMap::new();
        self.rejected.iter().for_each(|r| *counts.entry(r.reason).or_default() += 1);
        counts
    }

    /// Bad ones.
    pub fn bad(&self) -> usize {
        self.rejected.iter().filter(|r| r.reason.is_bad()).count()
    }

    /// `2 of 1000 rows are left out: 1 broken_image, 1 overlong`; nothing where none is.
    pub fn line(&self) -> Option<String> {
        let counts: Vec<String> = self.counts().iter().map(|(reason, n)| format!("{n} {}", reason.name())).collect();
        let (left_out, rows) = (self.rejected.len(), self.rows);
        (left_out > 0).then(|| format!("{left_out} of {rows} rows are left out: {}", counts.join(", ")))
    }

    /// Errors when more than `max_bad_rows`, a share, are bad: with each reason and its first row.
    pub fn check(&self, max_bad_rows: f64) -> Result<()> {
        let bad = self.bad();
        if bad as f64 <= max_bad_rows * self.rows as f64 {
            return Ok(());
        }
        let reason = |(reason, count): (Reason, usize)| {
            let first = self.rejected.iter().find(|r| r.reason == reason).map_or("", |r| r.detail.as_str());
            format!("{count} {}, the first: {first}", reason.name())
        };
        let reasons: Vec<String> =
            self.counts().into_iter().filter(|(reason, _)| reason.is_bad()).map(reason).collect();
        let (found, most) = (format!("{bad} bad rows of {}", self.rows), max_bad_rows * 100.0);
        let expected = format!("at most {most} % of the rows");
        Err(Error::input_hint("max_bad_rows", found, expected, reasons.join("; ")))
    }

    /// Writes `DIR/rejected.jsonl`, whole; `names` are the files'. No file where every row is used.
    pub fn write(&self, dir: &Path, names: &[&str]) -> Result<()> {
        let path = dir.join("rejected.jsonl");
        if self.rejected.is_empty() && !path.exists() {
            return Ok(());
        }
        let mut text = String::new();
        for r in &self.rejected {
            let dataset = names.get(r.dataset as usize).copied().unwrap_or_default();
            let line = json!({"dataset": dataset, "index": r.index, "id": r.id, "reason": r.reason.name(),
                "detail": r.detail});
            text.push_str(&format!("{line}\n"));
        }
        files::write(path, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(reasons: &[Reason], rows: u64) -> RejectedRows {
        let one = |(i, &reason): (usize, &Reason)| Rejected {
            dataset: 0,
            index: i as u32,
            id: None,
            reason,
            detail: format!("file row {}", i + 1),
        };
        RejectedRows { rows, rejected: reasons.iter().enumerate().map(one).collect() }
    }

    #[test]
    fn the_share_counts_bad_rows_and_not_long_ones() {
        use Reason::{BrokenImage, Overlong, WrongColumns};
        assert!(rows(&[Overlong; 50], 100).check(0.0).is_ok());
        assert!(rows(&[BrokenImage], 100).check(0.01).is_ok());
        let error = rows(&[BrokenImage, Overlong], 99).check(0.01).unwrap_err().to_string();
        assert!(
            error.contains("1 bad rows of 99") && error.contains("(1 broken_image, the first: file row 1)"),
            "{error}"
        );
        let table = rows(&[BrokenImage, WrongColumns, WrongColumns], 10).check(0.01).unwrap_err().to_string();
        assert!(
            table.contains("2 wrong_columns, the first: file row 2") && table.contains("1 broken_image"),
            "{table}"
        );
        assert_eq!(table.lines().count(), 1, "{table}");
        let line = rows(&[BrokenImage, Overlong], 99).line().unwrap();
        assert_eq!(line, "2 of 99 rows are left out: 1 broken_image, 1 overlong");
    }
}

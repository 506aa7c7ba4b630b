//! Rejected rows: why a row is not used, how many bad rows are allowed, and the file that lists them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use omr_base::choice::choice;
use omr_base::error::{Error, Result};
use omr_base::files;

choice! {
    /// Reason why a row is not used, with its name in `rejected.jsonl`.
    #[derive(PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Reason {
        /// The row cannot be read at all: invalid JSON, invalid UTF-8, or a damaged Parquet page.
        BrokenRow = "broken_row",
        /// Columns are missing or have an unexpected type.
        WrongColumns = "wrong_columns",
        /// The number of image placeholders differs from the number of images.
        WrongImageCount = "wrong_image_count",
        /// The row has an image, and the model has no vision tower.
        NoVisionTower = "no_vision_tower",
        /// An image file is missing or lies outside the data folder.
        MissingImage = "missing_image",
        /// An image cannot be read.
        BrokenImage = "broken_image",
        /// An image has a size that the model does not accept.
        WrongImageSize = "wrong_image_size",
        /// The row cannot be converted to tokens: no answer to train on, or an id outside the vocabulary.
        WrongText = "wrong_text",
        /// The row has no label to compare answers with.
        NoGroundTruth = "no_ground_truth",
        /// The reward type of the row is unknown, or its rule cannot use the label.
        WrongLabel = "wrong_label",
        /// The row is valid but longer than the run allows.
        Overlong = "overlong",
    }
}

impl Reason {
    /// Returns true if the row itself is faulty. A row that is only too long is not bad.
    pub fn is_bad(self) -> bool {
        self != Reason::Overlong
    }
}

/// A row that is not used, with the error that describes the fault.
#[derive(Debug)]
pub struct BadRow {
    /// Reason of the rejection.
    pub reason: Reason,
    /// Id of the row, if it could be read.
    pub id: Option<String>,
    /// Error with the place, what was found and what was expected.
    pub error: Box<Error>,
}

impl BadRow {
    /// Returns a copy of the fault, without the id, for another row that has the same content.
    pub fn again(&self) -> BadRow {
        let error = match &*self.error {
            Error::Unreadable { place, source } => {
                let source = std::io::Error::from_raw_os_error(source.raw_os_error().unwrap_or_default());
                Error::Unreadable { place: place.clone(), source }
            }
            error => Error::Failed(error.to_string()),
        };
        BadRow { reason: self.reason, id: None, error: Box::new(error) }
    }

    /// Returns the fault if the row itself is faulty. If the system failed to read the row (I/O error), returns that
    /// error instead. The run then ends, because another attempt might read the row, so it must not be recorded as bad.
    pub fn of_row(self) -> Result<BadRow> {
        match *self.error {
            error @ Error::Unreadable { .. } => Err(error),
            error => Ok(BadRow { error: Box::new(error), ..self }),
        }
    }

    /// Returns a function that adds a reason to an error: `result.map_err(BadRow::of(Reason::BrokenImage))`.
    pub fn of(reason: Reason) -> impl Fn(Error) -> BadRow + Copy {
        move |error| BadRow { reason, id: None, error: Box::new(error) }
    }
}

/// Result of reading a row.
pub type RowResult<T> = std::result::Result<T, BadRow>;

impl From<BadRow> for Error {
    fn from(bad: BadRow) -> Error {
        *bad.error
    }
}

/// One line of `rejected.jsonl`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rejected {
    /// Index of the row's file in the list of all files of the data sets.
    pub dataset: u32,
    /// Number of the row in its file, from 0.
    pub index: u32,
    /// Id of the row, if it could be read.
    pub id: Option<String>,
    /// Reason of the rejection.
    pub reason: Reason,
    /// Text of the error.
    pub detail: String,
}

/// The rejected rows of a run, and the number of rows read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RejectedRows {
    /// Number of rows read. A row with one sample per turn counts once per sample.
    pub rows: u64,
    /// Rejected rows, ordered by file and row.
    pub rejected: Vec<Rejected>,
}

impl RejectedRows {
    /// Returns the number of rejected rows for each reason.
    pub fn counts(&self) -> BTreeMap<Reason, usize> {
        let mut counts = BTreeMap::new();
        self.rejected.iter().for_each(|r| *counts.entry(r.reason).or_default() += 1);
        counts
    }

    /// Returns the number of bad rows; rows that are only too long do not count.
    pub fn bad(&self) -> usize {
        self.rejected.iter().filter(|r| r.reason.is_bad()).count()
    }

    /// Returns a summary such as `2 of 1000 rows are left out: 1 broken_image, 1 overlong`, or `None` if every row is
    /// used.
    pub fn line(&self) -> Option<String> {
        let counts: Vec<String> = self.counts().iter().map(|(reason, n)| format!("{n} {}", reason.name())).collect();
        let (left_out, rows) = (self.rejected.len(), self.rows);
        (left_out > 0).then(|| format!("{left_out} of {rows} rows left out: {}", counts.join(", ")))
    }

    /// Returns an error if the share of bad rows is larger than `max_bad_rows` (a fraction of 1). The error lists each
    /// reason with its first row.
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

    /// Writes `DIR/rejected.jsonl` atomically. `names` are the names of the files. Writes nothing if every row is used
    /// and the file does not exist yet.
    pub fn write(&self, dir: &Path, names: &[&str]) -> Result<()> {
        let path = dir.join("rejected.jsonl");
        if self.rejected.is_empty() && !path.exists() {
            return Ok(());
        }
        let line = |Rejected { dataset, index, id, reason, detail }: &Rejected| {
            let dataset = names.get(*dataset as usize).copied().unwrap_or_default();
            let line = json!({"dataset": dataset, "index": index, "id": id, "reason": reason, "detail": detail});
            format!("{line}\n")
        };
        files::write(path, self.rejected.iter().map(line).collect::<String>().as_bytes())
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
        assert_eq!(line, "2 of 99 rows left out: 1 broken_image, 1 overlong");
    }
}

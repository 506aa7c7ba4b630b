//! What was found in a data set, for people and for programs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::spread::Spread;
use crate::data::bad::Reason;
use crate::data::read::Column;
use crate::data::{Row, Seen};
use crate::error::{Error, Result};
use crate::text::Part;

/// Characters of a message shown.
const SHOWN: usize = 400;

/// What was found in one data set.
pub struct Inspection {
    /// The data set's name.
    pub name: String,
    /// Its files; 0 where the rows are not a data set's.
    pub files: usize,
    /// Columns of the first file.
    pub columns: Vec<Column>,
    /// Rows, those that cannot be read included.
    pub rows: usize,
    /// What those that can be used hold.
    pub seen: Seen,
    /// Rows that end with an assistant's answer: SFT form.
    pub answered: usize,
    /// Rows with a label.
    pub labelled: usize,
    /// Ids that more than one row has.
    pub shared_ids: usize,
    /// Pictures a row.
    pub images: Spread,
    /// Widths and heights of the pictures.
    pub image_sizes: [Spread; 2],
    /// Characters of the messages of a row.
    pub characters: Spread,
    /// Characters of the answers of those rows that have one.
    pub answer_characters: Spread,
    /// Tokens of a row with its pictures expanded, when a model was given: the training sample of an answered row, the
    /// prompt of another.
    pub tokens: Option<Spread>,
    /// Labels by kind, the most frequent first.
    pub kinds: Vec<(&'static str, usize)>,
    /// The first faults, naming row and cause.
    pub faults: Vec<String>,
    /// Rows that cannot be used, by why: unreadable, a broken picture, not encodable.
    pub reasons: BTreeMap<Reason, usize>,
    /// The first rows, as text.
    pub samples: Vec<String>,
    /// Rows drawn at random, in their order.
    pub drawn: Vec<DrawnRow>,
}

/// A row drawn at random.
pub struct DrawnRow {
    /// The row.
    pub row: Row,
    /// What [`Options::shown`](super::Options::shown) made of its pictures, up to the first that is broken.
    pub pictures: Vec<Option<String>>,
}

/// A row as text.
pub(super) fn show_row(row: &Row) -> String {
    let mut out = format!("  {} ({})\n", row.id, row.place);
    for message in &row.messages {
        let text: String = message
            .content
            .iter()
            .map(|part| match part {
                Part::Text(text) => text.as_str(),
                Part::Image => "[image]",
                Part::Video { .. } => "[video]",
            })
            .collect();
        let mut shown: String = text.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push_str(" ...");
        }
        out.push_str(&format!("    {}: {}\n", message.role, shown.replace('\n', "\n      ")));
    }
    if let Some(truth) = &row.ground_truth {
        out.push_str(&format!("    ground truth: {truth}\n"));
    }
    out
}

impl Inspection {
    /// Rows that cannot be used.
    pub fn faulty(&self) -> usize {
        self.reasons.values().sum()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = format!("{}: {} rows", self.name, self.rows);
        let mut counts = vec![format!("{} with an answer", self.answered), format!("{} with a label", self.labelled)];
        if self.shared_ids > 0 {
            counts.push(format!("{} ids shared by several rows", self.shared_ids));
        }
        if self.files > 1 {
            counts.push(format!("in {} files", self.files));
        }
        out.push_str(&format!(" ({})\n", counts.join(", ")));
        if !self.columns.is_empty() {
            let columns: Vec<String> = self.columns.iter().map(|c| format!("{} ({})", c.name, c.kind)).collect();
            out.push_str(&format!("  columns: {}\n", columns.join(", ")));
        }
        out.push_str(&format!("  {}\n  images: {}\n", self.seen.line(), self.images.sum));
        if self.images.sum > 0 {
            out.push_str(&format!("    width: {}\n", self.image_sizes[0].line()));
            out.push_str(&format!("    height: {}\n", self.image_sizes[1].line()));
        }
        out.push_str(&format!("  characters a row: {}\n", self.characters.line()));
        if let Some(tokens) = &self.tokens {
            out.push_str(&format!("  tokens a row: {}, {} in all\n", tokens.line(), tokens.sum));
        }
        if !self.kinds.is_empty() {
            let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            out.push_str(&format!("  labels: {}\n", kinds.join(", ")));
        }
        if self.faulty() > 0 {
            out.push_str(&format!("  rows at fault: {}\n", self.faulty()));
            out.extend(self.faults.iter().map(|fault| format!("    {fault}\n")));
            if self.faulty() > self.faults.len() {
                out.push_str(&format!("    and {} more\n", self.faulty() - self.faults.len()));
            }
        }
        out.extend(self.samples.iter().map(String::as_str));
        out
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let columns: Vec<Value> =
            self.columns.iter().map(|c| json!({"name": c.name, "type": c.kind, "read_as": c.read_as})).collect();
        let rejected: BTreeMap<&str, usize> = self.reasons.iter().map(|(why, count)| (why.name(), *count)).collect();
        json!({
            "name": self.name, "in": self.rows, "kept": self.rows - self.faulty(), "rejected": rejected,
            "files": self.files, "columns": columns,
            "answered": self.answered, "labelled": self.labelled, "shared_ids": self.shared_ids,
            "images": self.images.sum, "images_a_row": self.images.json(),
            "width": self.image_sizes[0].json(), "height": self.image_sizes[1].json(),
            "characters": self.characters.json(), "answer_characters": self.answer_characters.json(),
            "tokens": self.tokens.as_ref().map(Spread::json),
            "labels": self.kinds.iter().map(|(kind, count)| ((*kind).to_owned(), json!(count))).collect::<serde_json::Map<_, _>>(),
            "faults": self.faults,
        })
    }
}

/// The first of the sets' faults, as an error: rows at fault are the user's to mend.
pub fn refuse_faults(place: &str, found: &[Inspection]) -> Result<()> {
    let faulty: usize = found.iter().map(Inspection::faulty).sum();
    match found.iter().find(|found| found.faulty() > 0) {
        None => Ok(()),
        Some(first) => {
            let found = format!("{faulty} rows at fault, the first: {}", first.faults.join("; ").trim());
            Err(Error::input(place, found, "rows that can be used"))
        }
    }
}

//! Result of inspecting a data set, as text and as JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::spread::Spread;
use crate::rows::read::Column;
use crate::rows::{ReadCounts, Reason, Row};
use crate::text::Part;
use omr_base::error::{Error, Result};

/// Number of characters of a message that are shown.
const SHOWN: usize = 400;

/// Result of inspecting one data set.
#[derive(Default)]
pub struct Inspection {
    /// Name of the data set.
    pub name: String,
    /// Number of files; 0 if the rows do not come from a data set.
    pub files: usize,
    /// Columns of the first file.
    pub columns: Vec<Column>,
    /// Number of rows, including those that cannot be read.
    pub rows: usize,
    /// Counts of what the usable rows contain.
    pub seen: ReadCounts,
    /// Number of rows that end with an assistant's answer (SFT form).
    pub answered: usize,
    /// Number of rows with a label.
    pub labelled: usize,
    /// Number of ids that more than one row has.
    pub shared_ids: usize,
    /// Images per row.
    pub images: Spread,
    /// Widths and heights of the images.
    pub image_sizes: [Spread; 2],
    /// Characters per row, over all its messages.
    pub characters: Spread,
    /// Characters of the answers, over the rows that have one.
    pub answer_characters: Spread,
    /// Tokens per row with images expanded, if a model was given. Counts the training sample of a row with an answer
    /// and the prompt of any other row.
    pub tokens: Option<Spread>,
    /// Number of labels of each kind, the most frequent kind first.
    pub kinds: Vec<(&'static str, usize)>,
    /// The first faults with different causes, each with its row.
    pub faults: Vec<String>,
    /// The first unusable row as it stands in its file, as JSON with its long texts shortened.
    pub raw: Option<String>,
    /// The key `columns` that names the columns which look like questions, answers and images, if rows are unusable.
    pub mapping: Option<String>,
    /// Number of unusable rows for each reason.
    pub reasons: BTreeMap<Reason, usize>,
    /// The first rows as text.
    pub samples: Vec<String>,
    /// Rows drawn at random, in the order of the data set.
    pub drawn: Vec<DrawnRow>,
}

/// A row drawn at random.
pub struct DrawnRow {
    /// The drawn row.
    pub row: Row,
    /// Results of [`Options::shown`](super::Options::shown) for the row's images, up to the first broken image.
    pub images: Vec<Option<String>>,
}

/// Formats a row as text.
pub(super) fn show_row(row: &Row) -> String {
    let mut out = format!("  {} ({})\n", row.id, row.place);
    for message in &row.messages {
        let parts = message.content.iter().map(|part| match part {
            Part::Text(text) => text.as_str(),
            Part::Image => "[image]",
            Part::Video { .. } => "[video]",
        });
        let text: String = parts.collect();
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
    /// Returns the number of rows that cannot be used.
    pub fn faulty(&self) -> usize {
        self.reasons.values().sum()
    }

    /// Formats the result as text for people.
    pub fn text(&self) -> String {
        let mut out = format!("{}: {} rows", self.name, self.rows);
        let mut counts =
            vec![format!("{} with an assistant answer", self.answered), format!("{} with a label", self.labelled)];
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
        out.push_str(&format!("  characters per row: {}\n", self.characters.line()));
        if let Some(tokens) = &self.tokens {
            out.push_str(&format!("  tokens per row: {}; total {}\n", tokens.line(), tokens.sum));
        }
        if !self.kinds.is_empty() {
            let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
            out.push_str(&format!("  labels: {}\n", kinds.join(", ")));
        }
        if self.faulty() > 0 {
            out.push_str(&format!("  unusable rows: {}\n", self.faulty()));
            out.extend(self.faults.iter().map(|fault| format!("    {fault}\n")));
            if self.faulty() > self.faults.len() {
                out.push_str(&format!("    and {} more\n", self.faulty() - self.faults.len()));
            }
            out.extend(self.raw.iter().map(|row| format!("  the first of them: {row}\n")));
            let mapping = self.mapping.iter();
            out.extend(mapping.map(|mapping| format!("  these columns may be meant: {mapping}\n")));
        }
        out.extend(self.samples.iter().map(String::as_str));
        out
    }

    /// Returns the result as JSON for programs.
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
            "warnings": self.seen.warnings(), "faults": self.faults, "raw": self.raw, "mapping": self.mapping,
        })
    }
}

/// Returns an error with the first fault of the data sets, because the user must correct faulty rows.
pub fn refuse_faults(place: &str, found: &[Inspection]) -> Result<()> {
    let faulty: usize = found.iter().map(Inspection::faulty).sum();
    let Some(first) = found.iter().find(|found| found.faulty() > 0) else { return Ok(()) };
    let first = first.faults.first().map_or("", |fault| fault.trim());
    let found = format!("{faulty} unusable rows, the first: {first}");
    Err(Error::input(place, found, "only usable rows"))
}

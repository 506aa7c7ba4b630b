//! Counts what was read. The counts are printed as one line, so that the user notices ignored images and columns at
//! once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::forms::table;
use crate::rows::Row;
use crate::rows::read::RowFile;
use omr_base::error::{Error, Result};

/// Counts of what the used rows contain.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReadCounts {
    /// Number of rows.
    pub rows: u64,
    /// Number of images.
    #[serde(rename = "pictures")]
    pub images: u64,
    /// Number of messages.
    pub turns: u64,
    /// Number of trained tokens; 0 if the rows are not used for training.
    pub targets: u64,
    /// True if an image is a JPEG. Known only if the images' headers were read.
    pub has_jpeg: bool,
    /// Number of rows of each form.
    forms: BTreeMap<String, u64>,
    /// Columns of the files, each with its canonical name if rows can be read from it.
    columns: BTreeMap<String, Option<String>>,
    /// Columns that contain images and are not read, each with its file.
    unread: Vec<[String; 2]>,
    /// Columns of text that are not used and that no message contains, each with its file.
    #[serde(default)]
    texts: Vec<[String; 2]>,
}

impl ReadCounts {
    /// Creates counts of 0 with the columns of `files`.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a RowFile>) -> Result<ReadCounts> {
        let (mut counts, mut sets) = (ReadCounts::default(), BTreeSet::new());
        for file in files {
            let columns = file.columns()?.into_iter();
            counts.columns.extend(columns.map(|column| (column.name, column.read_as.map(str::to_owned))));
            let path = file.path.display().to_string();
            counts.unread.extend(file.unread_images()?.into_iter().map(|column| [path.clone(), column]));
            // The files of a data set have the same columns.
            if sets.insert(file.set) {
                counts.texts.extend(file.unread_texts()?.into_iter().map(|column| [path.clone(), column]));
            }
        }
        Ok(counts)
    }

    /// Returns these counts with the columns of `files`, if any of the rows were read from a data set.
    pub fn with_columns<'a>(self, files: impl IntoIterator<Item = &'a RowFile>) -> Result<ReadCounts> {
        if self.forms.is_empty() {
            return Ok(self);
        }
        let ReadCounts { columns, unread, texts, .. } = ReadCounts::of(files)?;
        Ok(ReadCounts { columns, unread, texts, ..self })
    }

    /// Counts one more row with its messages and images.
    pub fn add(&mut self, row: &Row) {
        self.count(row.form, row.messages.len(), row.images.len(), 0);
    }

    /// Counts one more row of a form with these numbers of messages, images and trained tokens.
    pub fn count(&mut self, form: &str, turns: usize, images: usize, targets: usize) {
        self.rows += 1;
        self.turns += turns as u64;
        self.images += images as u64;
        self.targets += targets as u64;
        if !form.is_empty() {
            *self.forms.entry(form.to_owned()).or_default() += 1;
        }
    }

    /// Returns the columns that the rows were read from, or the others.
    pub fn columns(&self, used: bool) -> Vec<&str> {
        let read: Vec<&str> = self.forms.keys().flat_map(|form| table::columns_of(form)).collect();
        let is_used = |ours: &Option<String>| ours.as_ref().is_some_and(|ours| read.contains(&ours.as_str()));
        self.columns.iter().filter(|(_, ours)| is_used(ours) == used).map(|(name, _)| name.as_str()).collect()
    }

    /// Returns an error if a column that is not read contains images.
    pub fn check(&self) -> Result<()> {
        match self.unread.first() {
            Some([file, column]) if self.images > 0 => {
                let found = format!("a column `{column}` with images that is not read");
                let expected =
                    format!("all images in one column, or columns: {{{column}: ''}} to use the others alone");
                Err(Error::input(file, found, expected))
            }
            Some([file, column]) if self.rows > 0 => {
                let found = format!("a column `{column}` with images that is not read, and no other images");
                let expected = format!("columns: {{images: {column}}} in the data set's entry");
                let hint = "set columns.images to an empty text to use the rows without images";
                Err(Error::input_hint(file, found, expected, hint))
            }
            _ => Ok(()),
        }
    }

    /// Returns an error if a column of text may belong to the question or the answer and is not read.
    pub fn check_texts(&self) -> Result<()> {
        let Some([file, column]) = self.texts.first() else { return Ok(()) };
        let found = format!("a column `{column}` of text that is not read and that no message contains");
        Err(Error::input(file, found, self.remedy(column)))
    }

    /// Returns a warning for each column of text that may belong to the question or the answer and is not read.
    pub fn warnings(&self) -> Vec<String> {
        let line = |[file, column]: &[String; 2]| {
            let remedy = self.remedy(column);
            format!("warning: {file}: the column `{column}` of text is not read, and no message contains it: {remedy}")
        };
        self.texts.iter().map(line).collect()
    }

    fn remedy(&self, column: &str) -> String {
        let is_question = |ours: &Option<String>| ours.as_deref().is_some_and(|ours| table::QUESTION.contains(&ours));
        let question = self.columns.iter().find(|(_, ours)| is_question(ours)).map(|(name, _)| name);
        let prompt =
            question.map(|name| format!("prompt: \"{{{{ {column} }}}}\\n\\n{{{{ {name} }}}}\" in the entry adds it, "));
        format!("{}columns: {{{column}: ''}} ignores it", prompt.unwrap_or_default())
    }

    /// Formats the counts as a line for the user, followed by the warnings.
    pub fn line(&self) -> String {
        let ReadCounts { rows, images, turns, targets, forms, .. } = self;
        let mut line = format!("read {rows} rows: {images} images, {turns} turns");
        if *targets > 0 {
            line.push_str(&format!(", {targets} target tokens"));
        }
        let several =
            |(form, count): (&String, &u64)| if forms.len() > 1 { format!("{form} ({count})") } else { form.clone() };
        if !forms.is_empty() {
            line.push_str(&format!("; form: {}", forms.iter().map(several).collect::<Vec<_>>().join(", ")));
        }
        for (title, used) in [("columns used", true), ("columns not used", false)] {
            let columns = self.columns(used);
            // If no row could be read, the form is unknown.
            if !columns.is_empty() && !forms.is_empty() {
                line.push_str(&format!("; {title}: {}", columns.join(", ")));
            }
        }
        self.warnings().iter().for_each(|warning| line.push_str(&format!("\n{warning}")));
        line
    }
}

//! Reads data sets from files of any supported format into rows. Every error names the file and the row.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::files::content::Content;
use super::files::folder::Folder;
use super::files::paths::{self, base, kind, unpacked};
use super::forms::fields::{Fields, LOOKED_AT, RawImage, RowContext};
use super::forms::form;
use super::forms::names::{self, Names};
use super::forms::templates::{COLUMNS, Templates};
use super::forms::{table, unread};
use super::readers::arrow_rows::ArrowRows;
use super::readers::class_folder::ClassFolder;
use super::readers::columns::Table;
use super::readers::delimited::Delimited;
use super::readers::json::Layout;
use super::readers::row_source::{JsonRows, RowSource, SAMPLED};
use super::readers::webdataset::WebDataset;
use crate::rows::{Row, RowResult};
use omr_base::config::{ColumnsConfig, DataType, DatasetConfig};
use omr_base::error::{Error, Result};
use omr_base::philox::{self, Purpose};

pub use super::files::paths::name;
pub use super::readers::row_source::RowPosition;

/// Creates an entry with a path and default settings.
pub fn entry(path: impl Into<PathBuf>) -> DatasetConfig {
    DatasetConfig { path: path.into(), ..DatasetConfig::default() }
}

/// Reads the first `limit` rows of a data set. `weight` is not applied (see [`load`]).
pub fn read(entry: &DatasetConfig) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for_each(entry, |row| {
        rows.push(row?);
        Ok(())
    })?;
    Ok(rows)
}

/// Passes each row of a data set to `take`, in order. For a row that cannot be read, `take` receives the fault; reading
/// continues unless `take` returns an error. Returns an error if an entire file cannot be read.
pub fn for_each(entry: &DatasetConfig, mut take: impl FnMut(RowResult<Row>) -> Result<()>) -> Result<()> {
    let mut left = RowsLeft::default();
    for file in RowFile::open_all(std::slice::from_ref(entry), true)? {
        left.each(&file, |_, row| take(row))?;
    }
    Ok(())
}

/// Counts how many rows may still be taken from data sets with a `limit`, while their files are read in order.
#[derive(Default)]
pub struct RowsLeft {
    taken: std::collections::HashMap<usize, usize>,
}

impl RowsLeft {
    /// Returns the number of rows that may still be taken from the data set of `file`.
    pub fn of(&self, file: &RowFile) -> usize {
        file.limit - self.taken.get(&file.set).copied().unwrap_or(0).min(file.limit)
    }

    /// Passes the rows of `file` that may still be taken to `take`, and counts them.
    pub fn each(
        &mut self,
        file: &RowFile,
        mut take: impl FnMut(RowPosition, RowResult<Row>) -> Result<()>,
    ) -> Result<()> {
        file.for_range(0..self.of(file), |at, row| {
            *self.taken.entry(file.set).or_default() += 1;
            take(at, row)
        })
    }
}

/// One file of a data set, read in order or row by row.
pub struct RowFile {
    /// Path of the file.
    pub path: PathBuf,
    /// Stem of the file name.
    pub name: String,
    /// Number of the data set that the file belongs to.
    pub set: usize,
    /// Name of the data set.
    set_name: String,
    entry: DatasetConfig,
    folder: Arc<Folder>,
    names: Names,
    templates: Arc<Templates>,
    limit: usize,
    pub(super) rows: Box<dyn RowSource>,
}

impl RowFile {
    /// Opens the files of data sets and their image folders, in order.
    pub fn open(entries: &[DatasetConfig]) -> Result<Vec<RowFile>> {
        RowFile::open_all(entries, false)
    }

    /// Works like [`RowFile::open`]. With `keeps_all`, the rows have [`Row::columns`].
    pub fn open_all(entries: &[DatasetConfig], keeps_all: bool) -> Result<Vec<RowFile>> {
        let mut files = Vec::new();
        for (set, entry) in entries.iter().enumerate() {
            let (set_name, root) = (name(entry), base(&entry.path));
            let templates = Arc::new(Templates::of(entry)?);
            // The files of a folder are often in one folder, so the image folders are opened again only for another one.
            let mut folders: Option<(PathBuf, Arc<Folder>)> = None;
            for path in paths::of(entry)? {
                let beside = if path.is_dir() { path.clone() } else { base(&path) };
                let folder = match folders.take().filter(|(known, _)| *known == beside) {
                    Some((_, folder)) => folder,
                    None => Arc::new(Folder::of_rows(entry.data_folder.as_deref(), &[&beside, &root])?),
                };
                folders = Some((beside, folder.clone()));
                let name = unpacked(&path).file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                let names = Names::of(entry, &name, &templates, keeps_all);
                let rows: Box<dyn RowSource> = match kind(&path, entry.data_type) {
                    _ if path.is_dir() => Box::new(ClassFolder::open(&path)?),
                    DataType::Parquet => Box::new(Table::open(&path, &names)?),
                    DataType::Arrow => Box::new(ArrowRows::open(&path, &names)?),
                    DataType::Csv => Box::new(Delimited::open(&path, b',', &names)?),
                    DataType::Tsv => Box::new(Delimited::open(&path, b'\t', &names)?),
                    DataType::Tar => Box::new(WebDataset { path: path.clone(), names: names.clone() }),
                    kind @ (DataType::Jsonl | DataType::Json) => {
                        let file = Content::open(&path)?;
                        let layout = if kind == DataType::Jsonl { Layout::Lines } else { Layout::of(&file)? };
                        Box::new(JsonRows { file, layout, names: names.clone() })
                    }
                };
                if entry.columns != ColumnsConfig::default() {
                    let check = |most| {
                        let columns = rows.columns(most)?;
                        names.check(&path, &columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
                    };
                    // A column may occur only after the first rows.
                    check(LOOKED_AT).or_else(|_| check(usize::MAX))?;
                    check_unused(&path, &*rows, &entry.columns.unused)?;
                }
                let set_name = set_name.clone();
                let limit = entry.limit.unwrap_or(usize::MAX);
                let (entry, templates) = (entry.clone(), templates.clone());
                files.push(RowFile { path, name, set, set_name, entry, folder, names, templates, limit, rows });
            }
        }
        Ok(files)
    }

    /// Passes the rows with the numbers in `range`, from 0, to `take`, in order and with their positions; see
    /// [`for_each`].
    pub fn for_range(
        &self,
        range: Range<usize>,
        mut take: impl FnMut(RowPosition, RowResult<Row>) -> Result<()>,
    ) -> Result<()> {
        self.rows.for_range(range, &mut |at, fields| take(at, self.made(at, fields)))
    }

    /// Returns the number of rows, including bad ones. Most formats are read completely to count them.
    pub fn count(&self) -> Result<usize> {
        self.rows.count()
    }

    /// Returns the row at a position that [`RowFile::for_range`] passed. Returns an outer error if the file cannot be
    /// read there.
    pub fn row(&self, at: RowPosition) -> Result<RowResult<Row>> {
        Ok(self.made(at, self.rows.row(at)?))
    }

    /// Returns the fields of the row at a position that [`RowFile::for_range`] passed.
    pub(super) fn fields(&self, at: RowPosition) -> Result<RowResult<Fields>> {
        let mut found = self.rows.row(at)?;
        found.iter_mut().for_each(|(fields, _)| drop(fields.remove(COLUMNS)));
        Ok(found)
    }

    /// Returns the columns that are not read although they contain images.
    pub fn unread_images(&self) -> Result<Vec<String>> {
        let mut found = if self.names.ignores_images() { Vec::new() } else { self.rows.unread_images()? };
        found.retain(|column| column != COLUMNS && !self.entry.columns.unused.contains(column));
        Ok(found)
    }

    /// Returns the columns of text that are not used and that no message contains. A column counts if most of the first
    /// rows have several words in it, which are not the same in each row and do not repeat the question.
    pub fn unread_texts(&self) -> Result<Vec<String>> {
        let (others, mut number, mut read) = (self.rows.sampled()?, 0, 0);
        let mut found: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        if self.names.makes_question() {
            return Ok(Vec::new());
        }
        self.rows.for_range(0..SAMPLED, &mut |at, fields| {
            let (row, other) = (self.made(at, fields), others.get(number));
            number += 1;
            let (Ok(row), Some(other)) = (row, other) else { return Ok(()) };
            read += 1;
            let of_form = table::columns_of(row.form);
            for (name, value) in other {
                let is_known = of_form.contains(&name.as_str())
                    || self.names.used_as(name).is_some_and(|ours| of_form.contains(&ours));
                if !is_known && let Some(text) = unread::text(name, value, &row) {
                    found.entry(name).or_default().push(text);
                }
            }
            Ok(())
        })?;
        let is_one = |texts: &[String]| read > 1 && texts.iter().all(|text| *text == texts[0]);
        found.retain(|name, texts| {
            2 * texts.len() > read && !is_one(texts) && !self.entry.columns.unused.iter().any(|unused| unused == name)
        });
        Ok(found.into_keys().map(str::to_owned).collect())
    }

    /// Returns the columns with their types: from the schema of a parquet file, from the first rows of a JSON file.
    pub fn columns(&self) -> Result<Vec<Column>> {
        let columns = self.rows.columns(LOOKED_AT)?;
        let meaning = |(name, kind): (String, String)| Column { read_as: self.names.used_as(&name), name, kind };
        Ok(columns.into_iter().map(meaning).collect())
    }

    fn made(&self, at: RowPosition, fields: RowResult<Fields>) -> RowResult<Row> {
        let (mut fields, images) = fields?;
        let index = at.index as usize;
        let place = self.place(index);
        let (dataset, file) = (self.set_name.as_str(), self.name.as_str());
        let at = RowContext { folder: &self.folder, entry: &self.entry, dataset, file, index, place };
        let columns = self.templates.apply(&mut fields, &at)?;
        Ok(Row { columns, ..row_from(fields, images, &at)? })
    }

    /// Returns file and row as text for messages.
    pub fn place(&self, index: usize) -> String {
        format!("{} row {}", self.path.display(), index + 1)
    }
}

/// Returns an error if one of the names that are not needed is neither a column nor a field inside of one.
fn check_unused(path: &Path, rows: &dyn RowSource, unused: &[String]) -> Result<()> {
    let columns = if unused.is_empty() { Vec::new() } else { rows.columns(usize::MAX)? };
    let columns: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
    for name in unused.iter().filter(|name| !columns.contains(&name.as_str()) && unread::name(name).is_none()) {
        let mut is_field = columns.is_empty();
        rows.for_range(0..usize::MAX, &mut |_, row| {
            let (fields, images) = row.unwrap_or_default();
            is_field = is_field || images.iter().flatten().any(|image| image.unread.contains(name));
            is_field = is_field || Value::Object(fields).to_string().contains(&format!("{name:?}:"));
            // The other rows are not needed.
            if is_field { Err(Error::Stopped) } else { Ok(()) }
        })
        .or_else(|error| if is_field { Ok(()) } else { Err(error) })?;
        if !is_field {
            return Err(names::lacking(path, &columns, &format!("`{name}`, which columns.{name} names")));
        }
    }
    Ok(())
}

/// A column of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name in the file.
    pub name: String,
    /// Readable name of the type.
    pub kind: String,
    /// Canonical name that the column is read as, or `None` if it is not read.
    pub read_as: Option<&'static str>,
}

/// Reads several data sets. Returns their rows and the row numbers of one epoch, in file order. Each row occurs as
/// often as the weight of its data set specifies. `seed` selects the rows of a fractional weight.
pub fn load(entries: &[DatasetConfig], seed: u64) -> Result<(Vec<Row>, Vec<u32>)> {
    let (mut rows, mut counts) = (Vec::new(), Vec::new());
    for entry in entries {
        let more = read(entry)?;
        if more.is_empty() {
            return Err(Error::input(&entry.path, "no rows", "at least one row"));
        }
        counts.push(more.len() as u32);
        rows.extend(more);
    }
    let order = epoch(entries, &counts, seed)?;
    Ok((rows, order))
}

/// Maximum number of rows of an epoch. Its order takes 4 bytes per row.
const LONGEST_EPOCH: f64 = 268_435_456.0;

/// Returns the row numbers of one epoch, in file order, for data sets with `counts` rows. Each row occurs as often as
/// the weight of its data set specifies; `seed` selects the rows of a fractional weight. Returns an error on an invalid
/// weight.
pub fn epoch(entries: &[DatasetConfig], counts: &[u32], seed: u64) -> Result<Vec<u32>> {
    let (mut index, mut first) = (Vec::new(), 0);
    for (k, (entry, &count)) in entries.iter().zip(counts).enumerate() {
        let weight = entry.weight;
        if !(0.0..=1e6).contains(&weight) {
            return Err(Error::input(format!("datasets[{k}].weight"), weight.to_string(), "a number from 0 to 1e6"));
        }
        if index.len() as f64 + weight * f64::from(count) > LONGEST_EPOCH {
            let found = format!("{weight}, with {count} rows");
            let expected = format!("a weight with which an epoch has at most {LONGEST_EPOCH} rows");
            return Err(Error::input(format!("datasets[{k}].weight"), found, expected));
        }
        let all: Vec<u32> = (first..first + count).collect();
        first += count;
        for _ in 0..weight as usize {
            index.extend_from_slice(&all);
        }
        let more = (weight.fract() * all.len() as f64).round() as usize;
        let mut order = all;
        // Epoch numbers stay below 2^63, so this random stream differs from the stream of every epoch.
        philox::shuffle(seed, Purpose::Shuffle, 1 << 63 | k as u64, &mut order);
        order.truncate(more);
        order.sort_unstable();
        index.extend(order);
    }
    Ok(index)
}

/// Reads one row from its fields. `images` is the image column, if it was read separately.
pub fn row_from(mut fields: Map<String, Value>, images: Option<Vec<RawImage>>, at: &RowContext) -> RowResult<Row> {
    let others = ["images", "image", "image_urls"].into_iter().find_map(|name| fields.remove(name));
    let images = match (images, others) {
        (Some(images), _) => images,
        (None, Some(value)) => form::json_images(&value, at)?,
        (None, None) => Vec::new(),
    };
    form::read_row(fields, images, at)
}

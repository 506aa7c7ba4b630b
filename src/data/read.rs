//! Reads data sets from parquet and JSON files into rows. Every error names the file and the row.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::config::{DataType, DatasetConfig};
use crate::data::Row;
use crate::data::bad_row::{BadRow, Reason, RowResult};
use crate::data::columns::{Fields, Table};
use crate::data::folder::Folder;
use crate::data::form::{self, RawImage, RowContext};
use crate::data::json::Layout;
use crate::data::names::Names;
use crate::data::paths::{self, base, kind};
use crate::error::{Error, Result};
use crate::philox::{self, Purpose};

pub use crate::data::paths::name;

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
    for file in RowFile::open(std::slice::from_ref(entry))? {
        file.for_each(left.of(&file), |_, row| {
            left.take(&file);
            take(row)
        })?;
    }
    Ok(())
}

/// Position of a row in its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RowPosition {
    /// Number of the row, from 0.
    pub index: u32,
    /// Byte at which the row begins; in a parquet file, the number of the row.
    pub offset: u64,
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

    /// Counts one row taken from `file`.
    pub fn take(&mut self, file: &RowFile) {
        *self.taken.entry(file.set).or_default() += 1;
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
    folder: Arc<Folder>,
    names: Names,
    limit: usize,
    rows: Rows,
}

enum Rows {
    Parquet(Box<Table>),
    Json(Layout),
}

impl RowFile {
    /// Opens the files of data sets and their image folders, in order.
    pub fn open(entries: &[DatasetConfig]) -> Result<Vec<RowFile>> {
        let mut files = Vec::new();
        for (set, entry) in entries.iter().enumerate() {
            let folder = match &entry.data_folder {
                Some(folder) => Folder::open(folder)?,
                None => Folder::open(base(&entry.path))?,
            };
            let (folder, set_name) = (Arc::new(folder), name(entry));
            for path in paths::files(&entry.path)? {
                let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                let names = Names::of(&entry.columns).in_file(&name);
                let rows = match kind(&path, entry.data_type) {
                    DataType::Parquet => Rows::Parquet(Box::new(Table::open(&path, &names)?)),
                    DataType::Jsonl => Rows::Json(Layout::Lines),
                    DataType::Json => Rows::Json(Layout::of(&path)?),
                };
                let (set_name, folder) = (set_name.clone(), folder.clone());
                let limit = entry.limit.unwrap_or(usize::MAX);
                files.push(RowFile { path, name, set, set_name, folder, names, limit, rows });
            }
        }
        Ok(files)
    }

    /// Passes each of the first `limit` rows to `take`, in order, with its position; see [`for_each`].
    pub fn for_each(&self, limit: usize, take: impl FnMut(RowPosition, RowResult<Row>) -> Result<()>) -> Result<()> {
        self.for_range(0..limit, take)
    }

    /// Passes the rows with the numbers in `range`, from 0, to `take`, in order and with their positions.
    pub fn for_range(
        &self,
        range: Range<usize>,
        mut take: impl FnMut(RowPosition, RowResult<Row>) -> Result<()>,
    ) -> Result<()> {
        match &self.rows {
            Rows::Parquet(table) => table.read(range, |index, fields| {
                take(RowPosition { index: index as u32, offset: index as u64 }, self.of_columns(index, fields))
            }),
            Rows::Json(layout) => layout.read(&self.path, range.end, |line, fields| {
                if line.index < range.start {
                    return Ok(());
                }
                let at = RowPosition { index: line.index as u32, offset: line.offset };
                take(at, self.of_json(line.index, fields))
            }),
        }
    }

    /// Returns the number of rows, including bad ones. A JSON file is read completely to count them.
    pub fn count(&self) -> Result<usize> {
        let mut count = 0;
        match &self.rows {
            Rows::Parquet(table) => count = table.rows(),
            Rows::Json(layout) => layout.read(&self.path, usize::MAX, |_, _| {
                count += 1;
                Ok(())
            })?,
        }
        Ok(count)
    }

    /// Returns the row at a position that [`RowFile::for_each`] passed. Returns an outer error if the file cannot be
    /// read there.
    pub fn row(&self, at: RowPosition) -> Result<RowResult<Row>> {
        let index = at.index as usize;
        match &self.rows {
            Rows::Parquet(table) => Ok(self.of_columns(index, table.row(index)?)),
            Rows::Json(layout) => {
                let fields = layout.object(&self.path, at.offset, &format!("row {}", index + 1))?;
                Ok(self.of_json(index, fields))
            }
        }
    }

    /// Returns the parquet table, or `None` for a JSON file.
    pub fn table(&self) -> Option<&Table> {
        match &self.rows {
            Rows::Parquet(table) => Some(table),
            Rows::Json(_) => None,
        }
    }

    /// Returns the columns with their types: from the schema of a parquet file, from the first rows of a JSON file.
    pub fn columns(&self) -> Result<Vec<Column>> {
        let columns = match &self.rows {
            Rows::Parquet(table) => table.columns(),
            Rows::Json(layout) => form::json_columns(&self.path, *layout, form::LOOKED_AT)?,
        };
        let meaning = |(name, kind): (String, String)| Column { read_as: self.names.meaning(&name), name, kind };
        Ok(columns.into_iter().map(meaning).collect())
    }

    fn of_columns(&self, index: usize, fields: Result<Fields>) -> RowResult<Row> {
        let (fields, images) = fields.map_err(BadRow::of(Reason::WrongColumns))?;
        self.made(index, fields, images)
    }

    fn of_json(&self, index: usize, fields: Result<Map<String, Value>>) -> RowResult<Row> {
        let fields = fields.map_err(BadRow::of(Reason::BrokenRow))?;
        self.made(index, self.names.rename(fields), None)
    }

    fn made(&self, index: usize, fields: Map<String, Value>, images: Option<Vec<RawImage>>) -> RowResult<Row> {
        let place = self.place(index);
        let (dataset, file) = (self.set_name.as_str(), self.name.as_str());
        row_from(fields, images, &RowContext { folder: &self.folder, dataset, file, index, place })
    }

    /// Returns file and row as text for messages.
    pub fn place(&self, index: usize) -> String {
        format!("{} row {}", self.path.display(), index + 1)
    }
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
            return Err(Error::input(entry.path.display().to_string(), "no rows", "at least one row"));
        }
        counts.push(more.len() as u32);
        rows.extend(more);
    }
    let order = epoch(entries, &counts, seed)?;
    Ok((rows, order))
}

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

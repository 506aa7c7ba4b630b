//! Parquet reader: reads the columns that a row can have, with any Arrow type that they were written with.

mod paged;

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use arrow_array::{Array, RecordBatch};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::PageIndexPolicy;
use serde_json::{Map, Value};

use super::cells::{self, type_name, value};
use super::row_source::{RowPosition, RowSink, RowSource, SAMPLED};
use crate::rows::bad_row::{BadRow, Reason, RowResult};
use crate::rows::files::declared;
use crate::rows::files::paths::{endings, has_ending};
use crate::rows::forms::fields::{Fields, RawImage};
use crate::rows::forms::names::{self, Names};
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_base::observe::Observer;

/// Approximate number of bytes that are decoded at once. It limits the memory, because images are large.
const UNIT_BYTES: usize = 32 << 20;
/// Upper bound of the bytes decoded at once, computed as if every row contained the longest entry of the row group's
/// dictionaries.
const MOST_UNIT_BYTES: usize = 256 << 20;
/// Maximum number of rows that are decoded at once.
const UNIT_ROWS: usize = 1024;
/// Approximate number of bytes of decoded rows that are cached for the next request.
const KEPT_BYTES: usize = 128 << 20;

/// A parquet file that is read in order or row by row.
pub struct Table {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    roots: Vec<usize>,
    names: Names,
    /// Maximum number of rows that are decoded at once, for each row group; computed on first use.
    at_once: Vec<OnceLock<usize>>,
    /// Cache of the rows decoded last.
    units: Mutex<VecDeque<(Unit, RecordBatch)>>,
    /// Path of the copy that is made if single rows are expensive to read. `copy` is the opened copy once it exists.
    copy_path: OnceLock<PathBuf>,
    copy: OnceLock<Box<Table>>,
}

/// Consecutive rows of one row group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Unit {
    group: usize,
    /// Number of the first row within the group (`offset`) and within the file (`first`).
    offset: usize,
    first: usize,
    len: usize,
}

impl Table {
    /// Opens a file whose columns have these `names`. Returns an error if the file is not a complete parquet file or
    /// has none of the columns that rows are read from.
    pub fn open(path: &Path, names: &Names) -> Result<Table> {
        let all = Table::of(path, |_| false)?;
        let names = names.with_columns(path, &all.names())?;
        // Columns of bytes are images that the rows do not use.
        let mut plain = all.types();
        plain.retain(|(name, kind)| names.keeps(name) && !kind.contains("bytes"));
        let wanted = |name: &str| names.reads(name) || plain.iter().any(|(kept, _)| kept == name);
        Ok(Table { names: names.clone(), ..Table::of(path, wanted)? })
    }

    /// Opens a file to read its `wanted` columns.
    fn of(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Table> {
        let file = files::open(path).map_err(Error::io(path))?;
        // The offset index lists where pages begin. With it, a row in the middle of a large group is found quickly.
        let options = ArrowReaderOptions::default().with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load(&file, options).map_err(|e| match has_ending(path, "parquet") {
            true => Error::format(path, format!("an incomplete or damaged Parquet file: {e}")),
            false => {
                let found = path.file_name().unwrap_or_default().to_string_lossy();
                Error::input(path, found, format!("a file of rows: {}", endings()))
            }
        })?;
        let fields = metadata.schema().fields().iter().enumerate();
        let roots: Vec<usize> = fields.filter(|(_, field)| wanted(field.name())).map(|(i, _)| i).collect();
        declared::check(path, metadata.metadata(), &roots, file.metadata().map_err(Error::io(path))?.len())?;
        let at_once = metadata.metadata().row_groups().iter().map(|_| OnceLock::new()).collect();
        let (path, names, units) = (path.to_owned(), Names::default(), Mutex::default());
        let (copy_path, copy) = (OnceLock::new(), OnceLock::new());
        Ok(Table { path, metadata, roots, names, at_once, units, copy_path, copy })
    }

    fn names(&self) -> Vec<&str> {
        self.metadata.schema().fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// Returns the names and types of the columns.
    fn types(&self) -> Vec<(String, String)> {
        let fields = self.metadata.schema().fields().iter();
        fields.map(|field| (field.name().clone(), type_name(field.data_type()))).collect()
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.metadata.metadata().file_metadata().num_rows().max(0) as usize
    }

    /// Passes the rows of `range` to `take` until `take` returns `Break`. The arguments are a batch, the row's number
    /// in the batch and its number in the file.
    fn each(
        &self,
        range: Range<usize>,
        mut take: impl FnMut(&RecordBatch, usize, usize) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        self.batches(range, |batch, first| {
            for i in 0..batch.num_rows() {
                if take(batch, i, first + i)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Passes the rows of `range` to `take` in batches, each with the number of its first row, until `take` returns
    /// `Break`.
    fn batches(
        &self,
        range: Range<usize>,
        mut take: impl FnMut(&RecordBatch, usize) -> Result<ControlFlow<()>>,
    ) -> Result<ControlFlow<()>> {
        let (mut len, mut first) = (UNIT_ROWS, 0);
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let next = first + group.num_rows() as usize;
            if first < range.end && range.start < next {
                len = len.min(self.at_once(number)?);
            }
            first = next;
        }
        let reader = self.reader()?.with_offset(range.start).with_limit(range.len()).with_batch_size(len).build();
        let broken =
            |e: &dyn std::fmt::Display, first| Error::format(&self.path, unreadable(first, len, &e.to_string()));
        let mut first = range.start;
        for batch in reader.map_err(|e| broken(&e, 0))? {
            let batch = batch.map_err(|e| broken(&e, first))?;
            if take(&batch, first)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
            first += batch.num_rows();
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Returns the fields of row `i` of a batch. `row` is the number of the same row in the file; errors name it.
    fn fields(&self, batch: &RecordBatch, i: usize, row: usize) -> RowResult<Fields> {
        let wrong = |what| Error::format(&self.path, format!("row {}: {what}", row + 1));
        cells::fields(batch, i, &self.names).map_err(wrong).map_err(BadRow::of(Reason::WrongColumns))
    }

    /// Returns the unit of rows that is decoded together with row `row`: about one page, or an entire small row group.
    fn unit(&self, row: usize) -> Result<Option<Unit>> {
        let mut first = 0;
        for (group, meta) in self.metadata.metadata().row_groups().iter().enumerate() {
            let rows = meta.num_rows() as usize;
            if row < first + rows {
                let most = self.at_once(group)?;
                let most = self.rows_of_page(group).map_or(most, |rows| rows.clamp(1, most));
                let offset = (row - first) / most * most;
                return Ok(Some(Unit { group, offset, first: first + offset, len: most.min(rows - offset) }));
            }
            first += rows;
        }
        Ok(None)
    }

    /// Returns the maximum number of rows of a row group that are decoded at once.
    fn at_once(&self, number: usize) -> Result<usize> {
        if let Some(rows) = self.at_once[number].get() {
            return Ok(*rows);
        }
        let group = self.metadata.metadata().row_group(number);
        let (rows, bytes) = (group.num_rows() as usize, group.total_byte_size().max(0) as u128);
        let file = files::open(&self.path).map_err(Error::io(&self.path))?;
        let longest = declared::longest(&self.path, number, group, &self.roots, file)?;
        let fitting = (UNIT_BYTES as u128 * rows as u128 / bytes.max(1)).clamp(1, UNIT_ROWS as u128) as usize;
        let rows = fitting.min(MOST_UNIT_BYTES / longest).max(1);
        Ok(*self.at_once[number].get_or_init(|| rows))
    }

    fn reader(&self) -> Result<ParquetRecordBatchReaderBuilder<File>> {
        let file = files::open(&self.path).map_err(Error::io(&self.path))?;
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let mask = ProjectionMask::roots(builder.parquet_schema(), self.roots.iter().copied());
        Ok(builder.with_projection(mask))
    }

    fn decode(&self, unit: Unit) -> Result<RecordBatch> {
        let Unit { group, offset, first, len } = unit;
        let reader =
            self.reader()?.with_row_groups(vec![group]).with_offset(offset).with_limit(len).with_batch_size(len);
        let read = || -> std::result::Result<RecordBatch, String> {
            let batch = reader.build().map_err(|e| e.to_string())?.next().transpose().map_err(|e| e.to_string())?;
            let fewer = || "fewer rows than the file declares".to_owned();
            batch.filter(|batch| batch.num_rows() == len).ok_or_else(fewer)
        };
        let batch = read().map_err(|what| Error::format(&self.path, unreadable(first, len, &what)))?;
        self.keep(unit, batch.clone());
        Ok(batch)
    }

    fn kept(&self, unit: Unit) -> Option<RecordBatch> {
        let units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        units.iter().find(|(kept, _)| *kept == unit).map(|(_, batch)| batch.clone())
    }

    fn keep(&self, unit: Unit, batch: RecordBatch) {
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        units.retain(|(kept, _)| *kept != unit);
        units.push_back((unit, batch));
        let bytes = |units: &VecDeque<(Unit, RecordBatch)>| -> usize {
            units.iter().map(|(_, batch)| batch.get_array_memory_size()).sum()
        };
        while units.len() > 1 && bytes(&units) > KEPT_BYTES {
            units.pop_front();
        }
    }
}

impl RowSource for Table {
    fn for_range(&self, range: Range<usize>, take: RowSink) -> Result<()> {
        let rows = self.each(range, |batch, i, row| {
            take(RowPosition { index: row as u32, offset: row as u64 }, self.fields(batch, i, row))
                .map(ControlFlow::<()>::Continue)
        });
        rows.map(drop)
    }

    fn row(&self, at: RowPosition) -> Result<RowResult<Fields>> {
        let row = at.index as usize;
        let outside = || Error::format(&self.path, format!("no row {}", row + 1));
        let from = self.copied().unwrap_or(self);
        let unit = from.unit(row)?.ok_or_else(outside)?;
        let batch = from.kept(unit).map_or_else(|| from.decode(unit), Ok)?;
        Ok(self.fields(&batch, row - unit.first, row))
    }

    fn columns(&self, _: usize) -> Result<Vec<(String, String)>> {
        Ok(self.types())
    }

    fn count(&self) -> Result<usize> {
        Ok(self.rows())
    }

    fn unread_images(&self) -> Result<Vec<String>> {
        let mut found = BTreeSet::new();
        // A fault in a column that is not read is no fault of the file.
        if let Ok(others) = Table::of(&self.path, |name| !self.names.reads(name)) {
            let _ = others.batches(0..others.rows().min(SAMPLED), |batch, _| {
                found.extend(cells::image_columns(batch));
                Ok(ControlFlow::Continue(()))
            });
        }
        Ok(found.into_iter().collect())
    }

    fn sampled(&self) -> Result<Vec<Map<String, Value>>> {
        let mut found = Vec::new();
        // A fault in a column that is not read is no fault of the file.
        if let Ok(others) = Table::of(&self.path, |name| !self.names.reads(name)) {
            let _ = others.batches(0..others.rows().min(SAMPLED), |batch, _| {
                found.extend(cells::rows(batch));
                Ok(ControlFlow::Continue(()))
            });
        }
        Ok(found)
    }

    fn set_copy(&self, folder: &Path, hash: &str) {
        self.copied_to(folder, hash);
    }

    fn copy(&self, observer: &dyn Observer) -> Result<()> {
        self.make_copy(observer)
    }
}

/// Formats the parquet reader's error for `len` rows from `first` on. Only the text after the last `error: ` of the
/// library's message is kept.
fn unreadable(first: usize, len: usize, what: &str) -> String {
    let what = what.rsplit("error: ").next().unwrap_or(what);
    format!("rows {} to {}: {what}", first + 1, first + len)
}

/// Columns to read from a file that does not have the format of a data set row.
pub struct Columns<'a> {
    /// Columns that must exist.
    pub needed: &'a [&'a str],
    /// Columns that may exist.
    pub optional: &'a [&'a str],
    /// Columns that contain one image per row. They may also be listed in `needed`.
    pub images: &'a [&'a str],
}

/// One row of [`Columns`]: the values that are not null, and the images with the names of their columns.
pub type Chosen = (Map<String, Value>, Vec<(String, RawImage)>);

/// Passes the rows of a parquet file to `take`, in order and with their numbers from 0, until `take` returns `Break`.
/// Errors name the file and, if one row is faulty, the row and column.
pub fn choose(
    path: &Path,
    columns: &Columns,
    mut take: impl FnMut(usize, Chosen) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let wanted = [columns.needed, columns.optional, columns.images].concat();
    let table = Table::of(path, |name| wanted.contains(&name))?;
    if let Some(missing) = columns.needed.iter().find(|needed| !table.names().contains(needed)) {
        return Err(names::lacking(path, &table.names(), &format!("`{missing}`")));
    }
    table.each(0..usize::MAX, |batch, i, row| {
        let (mut values, mut images) = (Map::new(), Vec::new());
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            let name = field.name();
            let wrong = |what: String| Error::format(path, format!("row {}: column `{name}`: {what}", row + 1));
            if column.is_null(i) {
                continue;
            }
            match columns.images.contains(&name.as_str()) {
                true => images
                    .extend(cells::images(field, column, i).map_err(wrong)?.into_iter().map(|raw| (name.clone(), raw))),
                false => drop(values.insert(name.clone(), value(field, column, i, false).map_err(wrong)?)),
            }
        }
        take(row, (values, images))
    })
}

/// Returns the names of a parquet file's columns.
pub fn names(path: &Path) -> Result<Vec<String>> {
    Ok(Table::of(path, |_| false)?.names().into_iter().map(str::to_owned).collect())
}

/// Returns the number of rows of a parquet file.
pub fn count(path: &Path) -> Result<usize> {
    Ok(Table::of(path, |_| false)?.rows())
}

//! Makes a copy of a parquet file with small pages, for files in which single rows are expensive to read. By default
//! pandas and pyarrow write one row group whose dictionary and pages each hold a thousand images, so reading any row
//! means decompressing all these images.

use std::ops::ControlFlow;
use std::path::Path;

use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::properties::{EnabledStatistics, WriterProperties};

use super::{Table, UNIT_BYTES};
use crate::rows::index::places::changed;
use crate::rows::write::parquet_error;
use omr_base::error::{Error, Result};
use omr_base::files::{self, Staged, size_and_time};
use omr_base::observe::{Observer, bytes};

/// Maximum number of bytes that may be read for one row before the file is copied.
const COSTLY: u64 = 64 << 20;
/// Size of a page of the copy, in bytes.
const PAGE_BYTES: usize = 256 << 10;

impl Table {
    /// Sets the path of a copy in `folder` if single rows are expensive to read. Rows are read from the copy once
    /// [`Table::make_copy`] has made it, in this or another process. `hash` is the hash of the file's content.
    pub(crate) fn copied_to(&self, folder: &Path, hash: &str) {
        let groups = 0..self.metadata.metadata().num_row_groups();
        if groups.map(|group| self.chunks(group).map(cost).sum()).max() > Some(COSTLY) {
            let key = blake3::hash(format!("{hash} {:?}", self.roots).as_bytes());
            self.copy_path.get_or_init(|| folder.join(format!("{}.parquet", &key.to_hex()[..16])));
        }
    }

    /// Makes the copy if rows are expensive to read and no copy exists. If the copy fails, reports the reason to
    /// `observer`, and rows are read from the original file.
    pub(crate) fn make_copy(&self, observer: &dyn Observer) -> Result<()> {
        let Some(to) = self.copy_path.get().filter(|_| self.copied().is_none()) else { return Ok(()) };
        let outcome = match self.write_copy(to, observer) {
            Ok(size) => format!("rows are read from a copy of {} in index/", bytes(size)),
            Err(Error::Stopped) => return Err(Error::Stopped),
            Err(error) => format!("no copy was made, so reading its rows is slow: {error}"),
        };
        observer.note(&format!("{} has large row groups: {outcome}", self.path.display()));
        Ok(())
    }

    /// Returns the copy if it exists.
    pub(crate) fn copied(&self) -> Option<&Table> {
        if self.copy.get().is_none() {
            let copy = Table::of(self.copy_path.get()?, |_| true).ok()?;
            if copy.rows() == self.rows() {
                self.copy.get_or_init(|| Box::new(copy));
            }
        }
        self.copy.get().map(|copy| &**copy)
    }

    /// Returns the number of rows per page in the widest column of a row group, or `None` if the file has no offset
    /// index.
    pub(crate) fn rows_of_page(&self, group: usize) -> Option<usize> {
        let widest = self.chunks(group).max_by_key(|(chunk, _)| chunk.uncompressed_size())?;
        let pages = widest.1.filter(|_| self.chunks(group).all(|(_, pages)| pages.is_some()))?;
        Some(self.metadata.metadata().row_group(group).num_rows() as usize / pages.len().max(1))
    }

    /// Returns the chunks of a row group that belong to the columns to read.
    fn chunks(&self, group: usize) -> impl Iterator<Item = Chunk<'_>> {
        let metadata = self.metadata.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let chunks = metadata.row_group(group).columns().iter().enumerate();
        let wanted = chunks.filter(move |(leaf, _)| self.roots.contains(&schema.get_column_root_idx(*leaf)));
        wanted.map(move |(leaf, chunk)| (chunk, metadata.page_index().and_then(|i| i.page_locations(group, leaf))))
    }

    /// Writes the copy and returns its size in bytes.
    fn write_copy(&self, to: &Path, observer: &dyn Observer) -> Result<u64> {
        let groups = 0..self.metadata.metadata().num_row_groups();
        let declared: u64 = groups.flat_map(|group| self.chunks(group)).map(|chunk| decoded(chunk.0)).sum();
        let of_file = || size_and_time(&self.path).map_err(Error::io(&self.path));
        let before = of_file()?;
        let mut staged = Some(Staged::create(to)?);
        let free = files::free(to.parent().unwrap_or(to))?;
        if declared > free / 2 {
            let needed = format!("{}, twice the size of the rows", bytes(2 * declared));
            return Err(Error::input(to, format!("{} free", bytes(free)), needed));
        }
        let failed = |e| parquet_error(to, e);
        let mut out: Option<ArrowWriter<Staged>> = None;
        observer.begin("copying", "rows", self.rows() as u64, 0);
        let copied = self.batches(0..usize::MAX, |batch, first| {
            observer.check_stop()?;
            if let Some(staged) = staged.take() {
                out = Some(ArrowWriter::try_new(staged, batch.schema(), Some(properties())).map_err(failed)?);
            }
            let Some(out) = &mut out else { return Ok(ControlFlow::Break(())) };
            out.write(batch).map_err(failed)?;
            // The declared size may be too small, because a dictionary can expand to far more than its own bytes.
            if out.bytes_written() as u64 / 2 > declared {
                let found = format!("rows of more than twice the {declared} bytes declared by the file");
                return Err(Error::format(&self.path, found));
            }
            observer.step((first + batch.num_rows()) as u64, &[]);
            Ok(ControlFlow::Continue(()))
        });
        observer.end();
        copied.map(drop)?;
        if of_file()? != before {
            return Err(changed(&self.path.display().to_string(), "the unchanged file"));
        }
        if let Some(out) = out {
            out.into_inner().map_err(failed)?.commit()?;
        }
        Ok(to.metadata().map_err(Error::io(to))?.len())
    }
}

/// A column chunk, with the locations of its pages if the file has an offset index.
type Chunk<'a> = (&'a ColumnChunkMetaData, Option<&'a Vec<PageLocation>>);

fn decoded(chunk: &ColumnChunkMetaData) -> u64 {
    chunk.uncompressed_size().max(0) as u64
}

/// Returns the maximum number of bytes read for one value: the dictionary and the largest page, or the entire chunk if
/// the file has no offset index.
fn cost((chunk, pages): Chunk<'_>) -> u64 {
    let Some(first) = pages.and_then(|pages| pages.first()) else { return decoded(chunk) };
    let dictionary = (first.offset.max(0) as u64).saturating_sub(chunk.byte_range().0);
    let largest = pages.into_iter().flatten().map(|page| page.compressed_page_size.max(0)).max();
    dictionary + largest.unwrap_or(0) as u64
}

/// Returns writer properties with small pages, an offset index, and no dictionary, because reading any single row would
/// require reading the dictionary.
fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_max_row_group_bytes(Some(UNIT_BYTES))
        .build()
}

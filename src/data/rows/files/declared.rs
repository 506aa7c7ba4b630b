//! Checks the sizes that a parquet file declares against its size on disk before anything is decoded. A file of
//! kilobytes can expand to gigabytes through compression, repetition or a dictionary.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Encoding, Type};
use parquet::column::page::{Page, PageReader};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::file::serialized_reader::SerializedPageReader;

use omr_base::error::{Error, Result};

/// A row group may always be decoded if it declares at most `ALWAYS` bytes. Above that, it may declare at most `RATIO`
/// times its stored bytes. Text compresses to a twentieth of its size, seldom to a hundredth.
const ALWAYS: u64 = 256 << 20;
const RATIO: u64 = 200;
/// Maximum ratio of decompressed to stored bytes of a column of lists. The decompressed size is computed as if every
/// element were the longest dictionary entry. Real data sets stay far below this ratio.
const LISTED: u64 = 10_000;

/// Returns an error if the wanted columns of a row group would be far larger than their stored bytes.
pub(crate) fn check(path: &Path, metadata: &ParquetMetaData, roots: &[usize], len: u64) -> Result<()> {
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let (mut declared, mut stored) = (0, 0);
        for chunk in wanted(group, roots) {
            let values = chunk.num_values().max(0) as u64;
            // In memory, each value takes 8 bytes for its levels and its offset, even if nothing is stored for it.
            declared += (chunk.uncompressed_size().max(0) as u64).max(values.saturating_mul(8));
            stored += chunk.compressed_size().max(0) as u64;
        }
        refuse(path, number, declared, stored.min(len), RATIO)?;
    }
    Ok(())
}

/// Returns an upper bound, in bytes, of the length of a text or image that many rows can contain although it is stored
/// only once. Dictionary and delta encodings allow this. Returns 1 if no column has such an encoding.
pub(crate) fn longest(
    path: &Path,
    number: usize,
    group: &RowGroupMetaData,
    roots: &[usize],
    file: File,
) -> Result<usize> {
    let file = Arc::new(file);
    let mut longest = 1;
    for chunk in wanted(group, roots).filter(|chunk| chunk.column_type() == Type::BYTE_ARRAY) {
        let mut here = 0;
        if chunk.dictionary_page_offset().is_some() {
            here = in_dictionary(&file, chunk, group.num_rows() as usize)
                .map_err(|e| Error::format(path, format!("row group {}: unreadable dictionary: {e}", number + 1)))?;
        }
        // A delta-encoded text shares its beginning with the previous one, so it may be as long as all previous texts
        // together.
        if chunk.encodings().any(|encoding| encoding == Encoding::DELTA_BYTE_ARRAY) {
            here = here.max(chunk.uncompressed_size().max(0) as usize / 16);
        }
        if chunk.column_descr().max_rep_level() > 0 {
            let declared = (chunk.num_values().max(0) as u64).saturating_mul(here as u64);
            refuse(path, number, declared, chunk.compressed_size().max(0) as u64, LISTED)?;
        }
        longest = longest.max(here);
    }
    Ok(longest)
}

fn refuse(path: &Path, number: usize, declared: u64, stored: u64, ratio: u64) -> Result<()> {
    if declared <= ALWAYS.max(stored.saturating_mul(ratio)) {
        return Ok(());
    }
    let what = format!("row group {}: {declared} decompressed bytes from {stored} stored bytes", number + 1);
    Err(Error::format(path, format!("{what}, expected at most {ratio} times the stored bytes, or {ALWAYS} bytes")))
}

/// Returns the chunks of the columns `roots` and of their nested columns.
fn wanted<'a>(group: &'a RowGroupMetaData, roots: &'a [usize]) -> impl Iterator<Item = &'a ColumnChunkMetaData> {
    let schema = group.schema_descr();
    let root = |leaf: usize| schema.get_column_root_idx(leaf);
    group.columns().iter().enumerate().filter(move |(leaf, _)| roots.contains(&root(*leaf))).map(|(_, chunk)| chunk)
}

/// Returns the length in bytes of the longest entry of a chunk's dictionary. Each entry is a 4-byte length followed by
/// that many bytes.
fn in_dictionary(file: &Arc<File>, chunk: &ColumnChunkMetaData, rows: usize) -> parquet::errors::Result<usize> {
    let mut pages = SerializedPageReader::new(file.clone(), chunk, rows, None)?;
    let Some(Page::DictionaryPage { buf, .. }) = pages.get_next_page()? else { return Ok(0) };
    let (mut rest, mut longest) = (&buf[..], 0);
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        longest = longest.max(len);
        rest = after.get(len..).unwrap_or_default();
    }
    Ok(longest)
}

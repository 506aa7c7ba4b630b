//! Checks the sizes that a parquet file declares against its size on disk before anything is decoded. A file of
//! kilobytes can expand to gigabytes through compression, repetition or a dictionary.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_ipc::root_as_message;
use parquet::basic::{Compression, Encoding, Type};
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
            if let codec @ (Compression::LZO | Compression::BROTLI(_)) = chunk.compression() {
                let what = format!("found compression {codec}, expected none, snappy, zstd, gzip or lz4");
                let way = "write the file again, for example with pyarrow.parquet.write_table(pyarrow.parquet.read_table(OLD), NEW)";
                return Err(Error::format(path, format!("{what}: {way}")));
            }
            let values = chunk.num_values().max(0) as u64;
            // In memory, each value takes 8 bytes for its levels and its offset, even if nothing is stored for it.
            declared += (chunk.uncompressed_size().max(0) as u64).max(values.saturating_mul(8));
            stored += chunk.compressed_size().max(0) as u64;
        }
        refuse(path, &format!("row group {}", number + 1), declared, stored.min(len), RATIO)?;
    }
    Ok(())
}

/// Returns an error if the compressed buffers of an Arrow message, whose body begins at byte `start`, would be far larger
/// than their stored bytes.
pub(crate) fn check_message(path: &Path, message: &[u8], start: usize) -> Result<()> {
    let damaged = |e| Error::format(path, format!("an incomplete or damaged Arrow file: {e}"));
    let (head, body) = message.split_at(start);
    let head = root_as_message(&head[8..]).map_err(damaged)?;
    let dictionary = head.header_as_dictionary_batch().and_then(|dictionary| dictionary.data());
    let batch = head.header_as_record_batch().or(dictionary).filter(|batch| batch.compression().is_some());
    let buffers = batch.and_then(|batch| batch.buffers()).into_iter().flatten();
    // The length of the decompressed bytes precedes each buffer.
    let length = |buffer: &arrow_ipc::Buffer| {
        let length = body.get(usize::try_from(buffer.offset()).ok()?..)?.first_chunk::<8>()?;
        u64::try_from(i64::from_le_bytes(*length)).ok()
    };
    let declared = buffers.filter_map(length).fold(0, u64::saturating_add);
    refuse(path, "record batch", declared, body.len() as u64, RATIO)
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
            refuse(
                path,
                &format!("row group {}", number + 1),
                declared,
                chunk.compressed_size().max(0) as u64,
                LISTED,
            )?;
        }
        longest = longest.max(here);
    }
    Ok(longest)
}

fn refuse(path: &Path, part: &str, declared: u64, stored: u64, ratio: u64) -> Result<()> {
    if declared <= ALWAYS.max(stored.saturating_mul(ratio)) {
        return Ok(());
    }
    let what = format!("{part}: {declared} decompressed bytes from {stored} stored bytes");
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

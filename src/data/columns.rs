//! Parquet in: the columns a row may have, whatever Arrow type they were written with.

use std::fs::File;
use std::ops::ControlFlow;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, StructArray};
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde_json::{Map, Value};

use crate::data::form::RawImage;
use crate::error::{Error, Result};

/// The columns rows are made of; others are not read.
const COLUMNS: [&str; 12] = [
    "id",
    "ids",
    "messages",
    "prompt",
    "problem",
    "answer",
    "images",
    "image",
    "data_source",
    "reward_model",
    "extra_info",
    "ground_truth",
];

/// Rows decoded at once: pictures are large.
const BATCH: usize = 256;

/// A row's fields and its image column's entries.
pub type Fields = (Map<String, Value>, Option<Vec<RawImage>>);

/// Gives the first `limit` rows of a parquet file to `take`, in order, with their numbers from 0.
/// Errors name the file and, where one is at fault, the row and column.
pub fn read(path: &Path, limit: usize, mut take: impl FnMut(usize, Result<Fields>) -> Result<()>) -> Result<()> {
    let reader = open(path)?;
    let mut first = 0;
    for batch in reader {
        let batch = batch.map_err(|e| Error::format(path, unreadable(first, &e.to_string())))?;
        for i in 0..batch.num_rows().min(limit - first) {
            take(first + i, fields(path, &batch, i, first + i))?;
        }
        first += batch.num_rows();
        if first >= limit {
            break;
        }
    }
    Ok(())
}

/// The reader's word on the rows from `first` on, without the names of its layers.
fn unreadable(first: usize, what: &str) -> String {
    let what = what.rsplit("error: ").next().unwrap_or(what);
    match what.split_once("Disabled feature at compile time: ") {
        Some((_, codec)) => format!("found compression {codec}, expected none, snappy, zstd or gzip"),
        None => format!("rows {} to {}: {what}", first + 1, first + BATCH),
    }
}

/// The columns to read of a file that is not in our own form.
pub struct Columns<'a> {
    /// Those that must be there.
    pub needed: &'a [&'a str],
    /// Those that may be.
    pub optional: &'a [&'a str],
    /// Those that hold one picture a row, among `needed` or not.
    pub pictures: &'a [&'a str],
}

/// A row of [`Columns`]: values that are not null, and pictures with their columns' names.
pub type Chosen = (Map<String, Value>, Vec<(String, RawImage)>);

/// Gives the rows of a parquet file to `take`, in order, with their numbers from 0, until it breaks off. Errors name the
/// file and, where one is at fault, the row and column.
pub fn choose(
    path: &Path,
    columns: &Columns,
    mut take: impl FnMut(usize, Chosen) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let (builder, names) = builder(path)?;
    if let Some(missing) = columns.needed.iter().find(|needed| !names.iter().any(|name| name == *needed)) {
        return Err(Error::format(path, format!("found columns {}, expected `{missing}`", names.join(", "))));
    }
    let wanted = [columns.needed, columns.optional, columns.pictures].concat();
    let mut first = 0;
    for batch in projected(path, builder, |name| wanted.contains(&name))? {
        let batch = batch.map_err(|e| Error::format(path, unreadable(first, &e.to_string())))?;
        for i in 0..batch.num_rows() {
            let (mut values, mut pictures) = (Map::new(), Vec::new());
            for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
                let (name, row) = (field.name(), first + i + 1);
                let wrong = |what: String| Error::format(path, format!("row {row}: column `{name}`: {what}"));
                if column.is_null(i) {
                    continue;
                }
                match columns.pictures.contains(&name.as_str()) {
                    true => pictures.push((name.clone(), image(column, i).map_err(wrong)?)),
                    false => drop(values.insert(name.clone(), value(column, i).map_err(wrong)?)),
                }
            }
            if take(first + i, (values, pictures))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        first += batch.num_rows();
    }
    Ok(ControlFlow::Continue(()))
}

/// Rows of a parquet file.
pub fn count(path: &Path) -> Result<usize> {
    let (builder, _) = builder(path)?;
    Ok(builder.metadata().file_metadata().num_rows().max(0) as usize)
}

type Builder = ParquetRecordBatchReaderBuilder<File>;

fn broken(path: &Path) -> impl Fn(parquet::errors::ParquetError) -> Error {
    move |e| Error::format(path, format!("not a whole parquet file: {e}"))
}

/// The file with the names of its columns.
fn builder(path: &Path) -> Result<(Builder, Vec<String>)> {
    if path.is_dir() {
        return Err(Error::input(path.display().to_string(), "a folder", "a parquet file; list each of them"));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(broken(path))?;
    let names = builder.schema().fields().iter().map(|f| f.name().clone()).collect();
    Ok((builder, names))
}

fn projected(path: &Path, builder: Builder, wanted: impl Fn(&str) -> bool) -> Result<ParquetRecordBatchReader> {
    let fields = builder.schema().fields().iter().enumerate();
    let roots: Vec<usize> = fields.filter(|(_, f)| wanted(f.name())).map(|(i, _)| i).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    builder.with_projection(mask).with_batch_size(BATCH).build().map_err(broken(path))
}

fn open(path: &Path) -> Result<ParquetRecordBatchReader> {
    let (builder, names) = builder(path)?;
    if !names.iter().any(|name| COLUMNS.contains(&name.as_str())) {
        let expected = "`messages` (SFT form), `prompt` or `problem` (RL form)";
        return Err(Error::format(path, format!("found columns {}, expected {expected}", names.join(", "))));
    }
    projected(path, builder, |name| COLUMNS.contains(&name))
}

fn fields(path: &Path, batch: &RecordBatch, i: usize, row: usize) -> Result<Fields> {
    let mut map = Map::new();
    let mut pictures = None;
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name();
        let wrong = |what: String| Error::format(path, format!("row {}: column `{name}`: {what}", row + 1));
        if name == "images" || name == "image" {
            if !column.is_null(i) {
                pictures = Some(images(column, i).map_err(wrong)?);
            }
        } else {
            let value = value(column, i).map_err(wrong)?;
            if !value.is_null() {
                map.insert(name.clone(), value);
            }
        }
    }
    Ok((map, pictures))
}

type Read<T> = std::result::Result<T, String>;

fn unsupported<T>(array: &dyn Array) -> Read<T> {
    Err(format!("found type {}, expected text, numbers, lists or structs", array.data_type()))
}

/// Element `i` as JSON.
fn value(array: &dyn Array, i: usize) -> Read<Value> {
    if array.is_null(i) {
        return Ok(Value::Null);
    }
    if let Some(text) = text(array, i) {
        return Ok(Value::String(text.to_owned()));
    }
    if let Some(list) = list(array, i) {
        return (0..list.len()).map(|j| value(&list, j)).collect::<Read<Vec<_>>>().map(Value::Array);
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(array.as_boolean().value(i)),
        DataType::Float16 => number(f64::from(array.as_primitive::<Float16Type>().value(i))),
        DataType::Float32 => number(f64::from(array.as_primitive::<Float32Type>().value(i))),
        DataType::Float64 => number(array.as_primitive::<Float64Type>().value(i)),
        t if t.is_integer() => integer(array, i).map(|n| Value::Number(n.into())).unwrap_or_default(),
        DataType::Struct(_) => {
            let group = array.as_struct();
            let mut map = Map::new();
            for (name, column) in group.column_names().into_iter().zip(group.columns()) {
                // Bytes have no place in a row outside its image column.
                if bytes(column, i).is_none() {
                    map.insert(name.to_owned(), value(column, i)?);
                }
            }
            Value::Object(map)
        }
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let key = integer(dictionary.keys(), i).and_then(|key| usize::try_from(key).ok());
            key.map_or(Ok(Value::Null), |key| value(dictionary.values().as_ref(), key))?
        }
        _ => return unsupported(array),
    })
}

fn number(x: f64) -> Value {
    serde_json::Number::from_f64(x).map_or(Value::Null, Value::Number)
}

fn integer(array: &dyn Array, i: usize) -> Option<i64> {
    use arrow_array::types::*;
    Some(match array.data_type() {
        DataType::Int8 => array.as_primitive::<Int8Type>().value(i).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(i).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(i).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(i),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(i).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(i).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(i).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(i).try_into().ok()?,
        _ => return None,
    })
}

fn text(array: &dyn Array, i: usize) -> Option<&str> {
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(i)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(i)),
        DataType::Utf8View => Some(array.as_string_view().value(i)),
        _ => None,
    }
}

fn bytes(array: &dyn Array, i: usize) -> Option<&[u8]> {
    match array.data_type() {
        DataType::Binary => Some(array.as_binary::<i32>().value(i)),
        DataType::LargeBinary => Some(array.as_binary::<i64>().value(i)),
        DataType::BinaryView => Some(array.as_binary_view().value(i)),
        _ => None,
    }
}

fn list(array: &dyn Array, i: usize) -> Option<ArrayRef> {
    match array.data_type() {
        DataType::List(_) => Some(array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => Some(array.as_list::<i64>().value(i)),
        DataType::FixedSizeList(..) => Some(array.as_fixed_size_list().value(i)),
        _ => None,
    }
}

/// Element `i` of an image column: a list of pictures, or one.
fn images(array: &dyn Array, i: usize) -> Read<Vec<RawImage>> {
    match list(array, i) {
        Some(list) => (0..list.len()).map(|j| image(&list, j)).collect(),
        None => Ok(vec![image(array, i)?]),
    }
}

fn image(array: &dyn Array, i: usize) -> Read<RawImage> {
    if array.is_null(i) {
        return Ok(RawImage::default());
    }
    if let Some(bytes) = bytes(array, i) {
        return Ok(RawImage { bytes: Some(bytes.into()), path: None });
    }
    if let Some(url) = text(array, i) {
        return Ok(RawImage { bytes: None, path: Some(url.to_owned()) });
    }
    let Some(group) = array.as_any().downcast_ref::<StructArray>() else {
        return Err(format!("found type {}, expected structs of `bytes` and `path`", array.data_type()));
    };
    let column = |name: &str| group.column_by_name(name).filter(|c| !c.is_null(i));
    let bytes = match column("bytes") {
        None => None,
        Some(c) => match bytes(c, i) {
            Some(b) => Some(b.into()),
            None => return Err(format!("`bytes` has type {}, expected binary", c.data_type())),
        },
    };
    let path = column("path").and_then(|c| text(c, i)).map(str::to_owned);
    Ok(RawImage { bytes, path })
}

#[cfg(test)]
mod tests {
    use super::unreadable;

    #[test]
    fn a_compression_that_is_not_built_in_is_named_with_those_that_are() {
        let found = unreadable(0, "Parquet argument error: Parquet error: Disabled feature at compile time: lz4");
        assert_eq!(found, "found compression lz4, expected none, snappy, zstd or gzip");
        assert_eq!(unreadable(256, "Parquet error: page is broken"), "rows 257 to 512: page is broken");
    }
}

//! Rows out, as parquet, whole. What is written is read back as the same rows.

use std::path::Path;
use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{ArrowError, DataType, Field, Fields};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::data::form::IMAGE_MARKER;
use crate::data::{ImageSource, Row};
use crate::error::{Error, Result};
use crate::files;
use crate::text::{Message, Part};

/// Rows written as one Arrow batch, and bytes of their pictures: bounds the memory of a large file, and keeps a
/// column of pictures below the 2 GiB its offsets can name.
const BATCH: usize = 4096;
const BATCH_BYTES: u64 = 32 << 20;

/// Which columns rows are written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `id`, `messages` of parts, `images`.
    Sft,
    /// verl's: `data_source`, `prompt`, `images`, `reward_model`, `extra_info`.
    Rl,
}

/// Writes rows to a parquet file, whole. In SFT form pictures that are files stay urls; in RL form all pictures
/// are embedded.
pub fn write(path: &Path, rows: &[Row], form: Form) -> Result<()> {
    let extra = ExtraColumns::of(rows);
    files::write_with(path, |w| {
        let schema = batch(&[], form, &extra)?.schema();
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut writer = ArrowWriter::try_new(w, schema, Some(properties)).map_err(|e| parquet_error(path, e))?;
        let mut rest = rows;
        while !rest.is_empty() {
            let (rows, after) = rest.split_at(batch_len(rest, BATCH, BATCH_BYTES));
            rest = after;
            writer.write(&batch(rows, form, &extra)?).map_err(|e| parquet_error(path, e))?;
            // A row group is what a reader decodes for one row of it.
            writer.flush().map_err(|e| parquet_error(path, e))?;
        }
        writer.close().map(drop).map_err(|e| parquet_error(path, e))
    })
}

/// How many of the first rows make a batch: at least one, at most `most`, and no more than hold `bytes` of pictures.
fn batch_len(rows: &[Row], most: usize, bytes: u64) -> usize {
    // A file that cannot be read is named when it is read.
    let size = |picture: &ImageSource| picture.encoded_len();
    let mut total = 0;
    let fits = rows.iter().take(most).take_while(|row| {
        total += row.images.iter().map(size).sum::<u64>();
        total <= bytes
    });
    fits.count().max(1)
}

fn parquet_error(path: &Path, e: parquet::errors::ParquetError) -> Error {
    match e {
        parquet::errors::ParquetError::External(source) => match source.downcast::<std::io::Error>() {
            Ok(source) => Error::Io { path: path.to_owned(), source: *source },
            Err(other) => Error::Failed(format!("{}: {other}", path.display())),
        },
        other => Error::Failed(format!("{}: {other}", path.display())),
    }
}

fn batch(rows: &[Row], form: Form, extra: &ExtraColumns) -> Result<RecordBatch> {
    let text = |f: fn(&Row) -> &str| Arc::new(StringArray::from_iter_values(rows.iter().map(f))) as ArrayRef;
    let mut columns: Vec<(&str, ArrayRef)> = vec![("id", text(|r| &r.id)), ("data_source", text(|r| &r.data_source))];
    match form {
        Form::Sft => columns.push(("messages", messages(rows, parts)?)),
        Form::Rl => {
            columns.push(("prompt", messages(rows, marked)?));
            let truth: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.ground_truth.as_deref())));
            let style: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "rule")));
            columns.push(("reward_model", group(vec![("ground_truth", truth), ("style", style)], None)?));
        }
    }
    columns.push(("images", images(rows, form)?));
    if let Some(column) = extra.column(rows)? {
        columns.push(("extra_info", column));
    }
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(arrow_error)
}

fn arrow_error(e: ArrowError) -> Error {
    Error::Failed(format!("rows to columns: {e}"))
}

fn group(columns: Vec<(&str, ArrayRef)>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let fields: Fields = columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, c)| c).collect();
    Ok(Arc::new(StructArray::try_new(fields, arrays, nulls).map_err(arrow_error)?))
}

fn list(values: ArrayRef, lengths: impl IntoIterator<Item = usize>) -> Result<ArrayRef> {
    // The name Parquet's three-level lists use.
    let field = Arc::new(Field::new("element", values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, None).map_err(arrow_error)?))
}

/// A message in its row, and how many of the row's pictures stand before it.
type Placed<'a> = (&'a Row, &'a Message, usize);

fn messages(rows: &[Row], content: fn(&[Placed]) -> Result<ArrayRef>) -> Result<ArrayRef> {
    let mut all = Vec::new();
    for row in rows {
        let mut first_image = 0;
        for message in &row.messages {
            all.push((row, message, first_image));
            first_image += message.content.iter().filter(|p| **p == Part::Image).count();
        }
    }
    let roles: ArrayRef = Arc::new(StringArray::from_iter_values(all.iter().map(|(_, m, _)| m.role.as_str())));
    let messages = group(vec![("role", roles), ("content", content(&all)?)], None)?;
    list(messages, rows.iter().map(|r| r.messages.len()))
}

/// Content as text with marks.
fn marked(messages: &[Placed]) -> Result<ArrayRef> {
    let text = |message: &Message| -> String {
        let pieces = message.content.iter().map(|p| match p {
            Part::Text(text) => text.as_str(),
            Part::Image => IMAGE_MARKER,
            Part::Video => "<video>",
        });
        pieces.collect()
    };
    Ok(Arc::new(StringArray::from_iter_values(messages.iter().map(|(_, m, _)| text(m)))))
}

/// Content as parts: text, image_url for files, image for pictures of the image column.
fn parts(messages: &[Placed]) -> Result<ArrayRef> {
    let (mut kinds, mut texts, mut urls) = (Vec::new(), Vec::new(), Vec::new());
    for (row, message, first_image) in messages {
        let mut image = *first_image;
        let embedded = embeds(row);
        for part in &message.content {
            let (kind, text, url) = match part {
                Part::Text(text) => ("text", Some(text.as_str()), None),
                Part::Image => {
                    image += 1;
                    match row.images.get(image - 1) {
                        Some(ImageSource::File { url, .. }) if !embedded => ("image_url", None, Some(url.as_str())),
                        _ => ("image", None, None),
                    }
                }
                Part::Video => ("video", None, None),
            };
            kinds.push(kind);
            texts.push(text);
            urls.push(url);
        }
    }
    let present: NullBuffer = urls.iter().map(Option::is_some).collect::<Vec<bool>>().into();
    let url = group(vec![("url", Arc::new(StringArray::from_iter(urls)))], Some(present))?;
    let kind: ArrayRef = Arc::new(StringArray::from_iter_values(kinds));
    let text: ArrayRef = Arc::new(StringArray::from_iter(texts));
    let parts = group(vec![("type", kind), ("text", text), ("image_url", url)], None)?;
    list(parts, messages.iter().map(|(_, m, _)| m.content.len()))
}

/// A row with any embedded picture or one of a zip file, embeds all of them: its image column is all or nothing.
fn embeds(row: &Row) -> bool {
    row.images.iter().any(|i| !matches!(i, ImageSource::File { .. }))
}

fn images(rows: &[Row], form: Form) -> Result<ArrayRef> {
    let (mut bytes, mut paths, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let pictures = if form == Form::Rl || embeds(row) { &row.images[..] } else { &[] };
        for picture in pictures {
            bytes.push(picture.bytes(&row.place)?);
            paths.push(picture.name());
        }
        lengths.push(pictures.len());
    }
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(bytes.iter()));
    let paths: ArrayRef = Arc::new(StringArray::from_iter(paths));
    list(group(vec![("bytes", bytes), ("path", paths)], None)?, lengths)
}

/// The fields of `extra_info`: every key any row has, with the narrowest type that holds all its values.
struct ExtraColumns(Vec<(String, DataType)>);

impl ExtraColumns {
    fn of(rows: &[Row]) -> ExtraColumns {
        let mut columns: Vec<(String, DataType)> = Vec::new();
        for (key, value) in rows.iter().flat_map(|r| &r.extra) {
            let kind = match value {
                Value::Null => continue,
                Value::Bool(_) => DataType::Boolean,
                Value::Number(n) if n.is_i64() => DataType::Int64,
                Value::Number(_) => DataType::Float64,
                _ => DataType::Utf8,
            };
            match columns.iter_mut().find(|(k, _)| k == key) {
                None => columns.push((key.clone(), kind)),
                Some((_, known)) if *known == kind => {}
                Some((_, known)) => {
                    let numbers = |t: &DataType| matches!(t, DataType::Int64 | DataType::Float64);
                    *known = if numbers(known) && numbers(&kind) { DataType::Float64 } else { DataType::Utf8 };
                }
            }
        }
        ExtraColumns(columns)
    }

    fn column(&self, rows: &[Row]) -> Result<Option<ArrayRef>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut columns = Vec::new();
        for (key, kind) in &self.0 {
            let values = rows.iter().map(|r| r.extra.get(key).filter(|v| !v.is_null()));
            let column: ArrayRef = match kind {
                DataType::Boolean => Arc::new(BooleanArray::from_iter(values.map(|v| v.and_then(Value::as_bool)))),
                DataType::Int64 => Arc::new(Int64Array::from_iter(values.map(|v| v.and_then(Value::as_i64)))),
                DataType::Float64 => Arc::new(Float64Array::from_iter(values.map(|v| v.and_then(Value::as_f64)))),
                _ => Arc::new(StringArray::from_iter(
                    values.map(|v| v.map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned))),
                )),
            };
            columns.push((key.as_str(), column));
        }
        Ok(Some(group(columns, None)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_ends_with_its_rows_or_its_pictures() {
        let row = |bytes: usize| Row {
            images: vec![ImageSource::Bytes { bytes: vec![0; bytes].into(), path: None }],
            ..Row::default()
        };
        let rows: Vec<Row> = [3, 3, 9, 1, 1, 1].map(row).into();
        assert_eq!(batch_len(&rows, 4, 7), 2);
        assert_eq!(batch_len(&rows[2..], 4, 7), 1, "one row that is too large is a batch of its own");
        assert_eq!(batch_len(&rows[3..], 2, 7), 2);
    }
}

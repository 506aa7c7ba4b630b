//! Writes rows to parquet files. A file appears only when it is complete, and reading it returns the same rows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, BinaryArray, BooleanArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use serde_json::{Value, json};

use super::forms::extra::{self, ExtraColumns, arrow_error};
use super::forms::form::{IMAGE_MARKER, WRITTEN_LABEL};
use crate::rows::{ImageSource, Row};
use crate::text::{Message, Part};
pub use omr_base::config::RowForm as Form;
use omr_base::error::{Error, Result};
use omr_base::files::Staged;

/// Maximum number of rows in one Arrow batch, and of bytes of their images. The limits bound the memory for a large
/// file and keep an image column below the 2 GiB that its offsets can address.
const BATCH: usize = 4096;
const BATCH_BYTES: u64 = 32 << 20;

/// Returns the form of a file that is written in the form `asked` and whose first row is `first`.
pub fn form_of(asked: Form, first: &Row) -> Form {
    match asked {
        Form::Auto if first.messages.last().is_some_and(|m| m.role == "assistant") => Form::Sft,
        Form::Auto => Form::Rl,
        form => form,
    }
}

/// Writes rows to a parquet file, atomically. In SFT form, an image in a file is stored as its url. In RL form, all
/// images are embedded.
pub fn write(path: &Path, rows: &[Row], form: Form) -> Result<()> {
    let mut writer = Writer::new(path, form);
    writer.extra = writer.extra.with(rows.iter().map(|row| &row.extra));
    for row in rows {
        writer.push(if form == Form::Sft {
            row.clone()
        } else {
            row.clone().embedded().map_err(|bad| *bad.error)?
        })?;
    }
    writer.finish()
}

/// A parquet file to which rows are added. The file appears at its path when it is finished. An image in a file is
/// stored as its url.
pub struct Writer {
    path: PathBuf,
    form: Form,
    /// True if the first row determines the form. All rows have this form.
    auto: bool,
    extra: ExtraColumns,
    out: Option<ArrowWriter<Staged>>,
    batch: Vec<Row>,
    batch_bytes: u64,
}

impl Writer {
    /// Creates a writer. Nothing is written before the first batch. The first row determines an automatic form.
    pub fn new(path: &Path, form: Form) -> Writer {
        let (extra, batch) = (ExtraColumns::default(), Vec::new());
        Writer { path: path.to_owned(), form, auto: form == Form::Auto, extra, out: None, batch, batch_bytes: 0 }
    }

    /// Adds a row. In RL form, an answer at its end is left out. Returns an error if the row has a video, because the
    /// columns cannot hold its frames, if it has an answer but not the label that RL form needs, or if it has not the form
    /// that the first row determined.
    pub fn push(&mut self, mut row: Row) -> Result<()> {
        self.form = form_of(self.form, &row);
        let form = form_of(Form::Auto, &row);
        // A label beside a question becomes an answer in rows for SFT.
        let fits = form == self.form || (self.form == Form::Sft && row.reply.is_some());
        if self.auto && !fits {
            let found = format!("a row of form {}, after rows of form {}", form.name(), self.form.name());
            return Err(Error::input(&row.place, found, "`form: sft` or `form: rl`, which is the form of all rows"));
        }
        if form == Form::Sft && self.form != Form::Sft && row.ground_truth.is_none() {
            let expected = "`form: sft`; `omr data format` with `form: rl` makes a label of the answer";
            return Err(Error::input(&row.place, "an answer and no label, in rows of form rl", expected));
        }
        row.messages = match self.form {
            Form::Sft => row.trained_messages().into_owned(),
            // An answer behind the prompt would be continued.
            _ => row.prompt().to_vec(),
        };
        if !row.label.is_null() {
            row.extra.insert(WRITTEN_LABEL.to_owned(), row.label.take());
        }
        let parts = row.messages.iter().flat_map(|message| &message.content);
        if parts.into_iter().any(|part| matches!(part, Part::Video { .. })) {
            let expected = "text and images: omr reads videos from JSON but cannot write them";
            return Err(Error::input(&row.place, "a video", expected));
        }
        let bytes = row.image_bytes() as u64;
        if self.batch.len() == BATCH || (!self.batch.is_empty() && self.batch_bytes + bytes > BATCH_BYTES) {
            self.flush()?;
        }
        self.batch_bytes += bytes;
        self.batch.push(row);
        Ok(())
    }

    /// Writes the remaining rows and moves the file to its path.
    pub fn finish(mut self) -> Result<()> {
        self.form = form_of(self.form, &Row::default());
        self.flush()?;
        let unopened = || Error::Failed(format!("{}: the file was not opened for writing", self.path.display()));
        let out = self.out.take().ok_or_else(unopened)?;
        out.into_inner().map_err(|e| parquet_error(&self.path, e))?.commit()
    }

    fn flush(&mut self) -> Result<()> {
        let extra = self.extra.with(self.batch.iter().map(|row| &row.extra));
        let old = if extra == self.extra { None } else { self.out.take() };
        let out = if let Some(out) = self.out.take() { out } else { self.begin(&extra, old)? };
        self.extra = extra;
        let out = self.out.insert(out);
        let batch = batch(&self.batch, self.form, &self.extra)?;
        out.write(&batch).map_err(|e| parquet_error(&self.path, e))?;
        // A reader decodes an entire row group to read one row, so every batch becomes its own row group.
        out.flush().map_err(|e| parquet_error(&self.path, e))?;
        (self.batch, self.batch_bytes) = (Vec::new(), 0);
        Ok(())
    }

    /// Creates a file with these fields of `extra_info` and copies the rows of an older file into it.
    fn begin(&self, extra: &ExtraColumns, old: Option<ArrowWriter<Staged>>) -> Result<ArrowWriter<Staged>> {
        let failed = |e| parquet_error(&self.path, e);
        let schema = batch(&[], self.form, extra)?.schema();
        let features = HashMap::from([("huggingface".to_owned(), features(&schema).to_string())]);
        let schema = Arc::new(Schema::new_with_metadata(schema.fields().clone(), features));
        let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let staged = Staged::create(&self.path)?;
        let mut out = ArrowWriter::try_new(staged, schema, Some(properties)).map_err(failed)?;
        if let Some(old) = old {
            let mut old = old.into_inner().map_err(failed)?;
            let reader = ParquetRecordBatchReaderBuilder::try_new(old.reopen()?).map_err(failed)?;
            let groups: Vec<usize> = reader.metadata().row_groups().iter().map(|g| g.num_rows() as usize).collect();
            for (group, rows) in groups.into_iter().enumerate() {
                let reader = ParquetRecordBatchReaderBuilder::try_new(old.reopen()?).map_err(failed)?;
                let reader = reader.with_row_groups(vec![group]).with_batch_size(rows).build().map_err(failed)?;
                for batch in reader {
                    let batch = extra.widen(&batch.map_err(arrow_error)?)?;
                    out.write(&batch).map_err(failed)?;
                }
                out.flush().map_err(failed)?;
            }
        }
        Ok(out)
    }
}

/// Returns the schema in the format of Hugging Face `datasets`. The viewer of the Hugging Face hub displays columns of
/// type `Image` as images.
fn features(schema: &Schema) -> Value {
    json!({"info": {"features": feature("", &DataType::Struct(schema.fields().clone()))}})
}

fn feature(name: &str, kind: &DataType) -> Value {
    let value = |dtype: &str| json!({"dtype": dtype, "_type": "Value"});
    match kind {
        DataType::List(_) if name == "images" => json!([{"_type": "Image"}]),
        DataType::List(element) => json!([feature("", element.data_type())]),
        DataType::Struct(fields) => {
            Value::Object(fields.iter().map(|f| (f.name().clone(), feature(f.name(), f.data_type()))).collect())
        }
        DataType::Boolean => value("bool"),
        DataType::Int64 => value("int64"),
        DataType::Float64 => value("float64"),
        DataType::Binary => value("binary"),
        _ => value("string"),
    }
}

/// Converts the error of a parquet file that cannot be written.
pub(super) fn parquet_error(path: &Path, e: parquet::errors::ParquetError) -> Error {
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
    columns.push((if form == Form::Sft { "messages" } else { "prompt" }, messages(rows, form)?));
    let truth: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.ground_truth.as_deref())));
    let style: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|_| "rule")));
    columns.push(("reward_model", group(vec![("ground_truth", truth), ("style", style)], None)?));
    columns.push(("images", images(rows, form)?));
    if let Some(column) = extra.column(&rows.iter().map(|row| &row.extra).collect::<Vec<_>>())? {
        columns.push((extra::COLUMN, column));
    }
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true)))
        .map_err(arrow_error)
}

fn group(columns: Vec<(&str, ArrayRef)>, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    let fields: Fields = columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
    let arrays = columns.into_iter().map(|(_, c)| c).collect();
    Ok(Arc::new(StructArray::try_new(fields, arrays, nulls).map_err(arrow_error)?))
}

fn list(values: ArrayRef, lengths: impl IntoIterator<Item = usize>) -> Result<ArrayRef> {
    // Parquet's three-level lists use this name.
    let field = Arc::new(Field::new("element", values.data_type().clone(), true));
    Ok(Arc::new(ListArray::try_new(field, OffsetBuffer::from_lengths(lengths), values, None).map_err(arrow_error)?))
}

/// A row, one of its messages, and the number of the row's images before the message.
type Placed<'a> = (&'a Row, &'a Message, usize);

fn messages(rows: &[Row], form: Form) -> Result<ArrayRef> {
    let mut all = Vec::new();
    for row in rows {
        let mut first_image = 0;
        for message in &row.messages {
            all.push((row, message, first_image));
            first_image += message.content.iter().filter(|part| matches!(part, Part::Image)).count();
        }
    }
    let roles: ArrayRef = Arc::new(StringArray::from_iter_values(all.iter().map(|(_, m, _)| m.role.as_str())));
    let mut columns = vec![("role", roles)];
    match form {
        Form::Sft => {
            let loss = BooleanArray::from_iter(all.iter().map(|(_, m, _)| m.masked.then_some(false)));
            columns.extend([("content", parts(&all)?), ("loss", Arc::new(loss) as ArrayRef)]);
        }
        _ => columns.push(("content", marked(&all)?)),
    }
    list(group(columns, None)?, rows.iter().map(|r| r.messages.len()))
}

/// Returns the content of messages as text with markers.
fn marked(messages: &[Placed]) -> Result<ArrayRef> {
    let text = |message: &Message| -> String {
        let pieces = message.content.iter().map(|p| match p {
            Part::Text(text) => text.as_str(),
            Part::Image => IMAGE_MARKER,
            Part::Video { .. } => "<video>",
        });
        pieces.collect()
    };
    Ok(Arc::new(StringArray::from_iter_values(messages.iter().map(|(_, m, _)| text(m)))))
}

/// Returns the content of messages as parts: `text`, `image_url` for files, `image` for entries of the image column.
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
                Part::Video { .. } => ("video", None, None),
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

/// Returns true if the row's images must be embedded. If one image is embedded or in a zip file, all images must be
/// embedded, because the image column contains either all images or none.
fn embeds(row: &Row) -> bool {
    row.images.iter().any(|i| !matches!(i, ImageSource::File { .. }))
}

fn images(rows: &[Row], form: Form) -> Result<ArrayRef> {
    let (mut bytes, mut paths, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let images = if form == Form::Rl || embeds(row) { &row.images[..] } else { &[] };
        for image in images {
            bytes.push(if let ImageSource::Bytes { bytes, .. } = image { Some(bytes) } else { None });
            paths.push(image.name());
        }
        lengths.push(images.len());
    }
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter(bytes));
    let paths: ArrayRef = Arc::new(StringArray::from_iter(paths));
    list(group(vec![("bytes", bytes), ("path", paths)], None)?, lengths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::read::{entry, read};

    fn row(i: usize, bytes: usize, extra: Value) -> Row {
        let images = vec![ImageSource::Bytes { bytes: vec![i as u8; bytes].into(), path: None }];
        let messages =
            vec![Message { content: vec![Part::Image, Part::Text("?".into())], ..Message::text("user", "") }];
        let extra = extra.as_object().cloned().unwrap_or_default();
        Row { id: format!("r{i}"), messages, images, extra, ..Row::default() }
    }

    #[test]
    fn a_batch_ends_with_its_rows_or_its_images() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.parquet");
        let third = BATCH_BYTES as usize / 3 + 1;
        let mut writer = Writer::new(&path, Form::Sft);
        for (i, bytes) in [third, third, third, 4 * third, 1].into_iter().enumerate() {
            writer.push(row(i, bytes, json!({}))).unwrap();
        }
        writer.finish().unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&path).unwrap()).unwrap();
        let groups: Vec<i64> = reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect();
        // One row that is too large becomes its own batch.
        assert_eq!(groups, [2, 1, 1, 1]);
    }

    #[test]
    fn fields_of_later_rows_are_fields_of_all() {
        let dir = tempfile::tempdir().unwrap();
        let half = BATCH_BYTES as usize / 2 + 1;
        let extras = [json!({"a": 1}), json!({"a": 2.5, "b": true}), json!({"a": "x", "c": [1]}), json!({})];
        let rows: Vec<Row> = extras.iter().enumerate().map(|(i, extra)| row(i, half, extra.clone())).collect();
        let (streamed, at_once) = (dir.path().join("streamed.parquet"), dir.path().join("at_once.parquet"));
        let mut writer = Writer::new(&streamed, Form::Sft);
        rows.iter().for_each(|row| writer.push(row.clone()).unwrap());
        writer.finish().unwrap();
        write(&at_once, &rows, Form::Sft).unwrap();
        let back = read(&entry(&streamed)).unwrap();
        assert_eq!(
            back.iter().map(|row| row.images.clone()).collect::<Vec<_>>(),
            rows.iter().map(|row| row.images.clone()).collect::<Vec<_>>()
        );
        assert_eq!(back[0].extra, read(&entry(&at_once)).unwrap()[0].extra);
        assert_eq!(back[1].extra["a"], "2.5");
        assert_eq!((&back[2].extra["a"], &back[2].extra["c"]), (&json!("x"), &json!([1])));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside the files");
    }
}

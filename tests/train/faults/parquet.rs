//! Tests parquet files as pandas and pyarrow write them by default: one row group, with dictionaries and pages of many
//! images.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, BinaryArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::Field;
use omr_data::rows::index::indexing::Longest;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Dataset, ImageSource, Samples, read};
use omr_model_tests::models::encoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder, WriterVersion};

use crate::training::tiny::{Notes, base_model, rows};

/// Returns rows with the given numbers of images, some without a name, and with nulls for empty lists and ids. An
/// image has 1 MiB of incompressible bytes after its end. Image i equals image i % `distinct`.
fn table(images: &[usize], distinct: usize) -> RecordBatch {
    let png = rows()[0].images[0].bytes("").unwrap().to_vec();
    let image = |i: usize| {
        let mut state = (i % distinct) as u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state ^ state >> 29).to_le_bytes()
        };
        [png.clone(), (0..1 << 17).flat_map(|_| noise()).collect()].concat()
    };
    let count: usize = images.iter().sum();
    let paths: StringArray = (0..count).map(|i| (i % 4 != 0).then(|| format!("{i}.png"))).collect();
    let bytes = BinaryArray::from_iter_values((0..count).map(image));
    let structs = columns(vec![("bytes", Arc::new(bytes)), ("path", Arc::new(paths))]);
    let structs: ArrayRef = Arc::new(StructArray::from(structs));
    let nulls: Vec<bool> = images.iter().enumerate().map(|(i, n)| *n > 0 || i % 2 == 0).collect();
    let field = Arc::new(Field::new("element", structs.data_type().clone(), true));
    let lengths = OffsetBuffer::from_lengths(images.iter().copied());
    let column = ListArray::new(field, lengths, structs, Some(NullBuffer::from(nulls)));
    let ids: StringArray = (0..images.len()).map(|i| (i % 5 != 0).then(|| format!("row {i}"))).collect();
    let text = |i| format!("{}What is {}?", "<image>".repeat(images[i]), "more ".repeat(i % 9));
    let texts = StringArray::from_iter_values((0..images.len()).map(text));
    let answers = Arc::new(StringArray::from(vec!["1"; images.len()]));
    columns(vec![
        ("id", Arc::new(ids)),
        ("problem", Arc::new(texts)),
        ("answer", answers),
        ("images", Arc::new(column)),
    ])
}

fn columns(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap()
}

fn write(path: &Path, batch: &RecordBatch, properties: WriterPropertiesBuilder) {
    let mut writer =
        ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), Some(properties.build())).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

/// Returns properties for one row group and no page index.
fn one_group() -> WriterPropertiesBuilder {
    WriterProperties::builder().set_offset_index_disabled(true)
}

fn open(dir: &Path) -> (Dataset, impl Samples<(u64, Vec<ImageSource>)>) {
    let model = dir.join("model");
    base_model(&model);
    let encoder = encoder(&model, EncodingPurpose::Ask);
    let longest = Longest { tokens: 1 << 20, key: "max_prompt_length" };
    let rows = [read::entry(dir.join("rows.parquet"))];
    let data = Dataset::open(&dir.join("run"), &rows, &encoder, longest, 0.0, 1, false).unwrap();
    let samples = data.samples(move |row| {
        let hash = encoder.measure(&row)?.hash;
        Ok(((hash, row.images), hash))
    });
    (data, samples)
}

/// Copies the data that a run copies. Returns its notes.
fn keep(data: &Dataset) -> String {
    let notes = Notes::default();
    data.keep(&notes).unwrap();
    notes.0.into_inner().unwrap().join("\n")
}

/// Returns the copies in a run's index, with their sizes.
fn copies(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
    let Ok(entries) = fs::read_dir(dir.join("run/index")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.extension().unwrap() != "bin");
    paths.map(|path| (path.clone(), path.metadata().unwrap().len())).collect()
}

/// Returns the number of bytes that this thread has read so far.
fn read_so_far() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.strip_prefix("rchar: ").unwrap().lines().next().unwrap().parse().unwrap()
}

#[test]
fn a_row_of_one_large_row_group_is_read_alone_whatever_the_layout() {
    let batch = table(&(0..72).map(|i| i % 3).collect::<Vec<_>>(), 72);
    let version = |version| one_group().set_writer_version(version);
    let layouts = [
        one_group().set_max_row_group_row_count(Some(10)),
        version(WriterVersion::PARQUET_1_0).set_compression(Compression::SNAPPY),
        version(WriterVersion::PARQUET_2_0).set_compression(Compression::ZSTD(ZstdLevel::default())),
        // All images are in a dictionary, as pyarrow stores the first thousand images. The positions of pages then
        // do not matter.
        WriterProperties::builder().set_dictionary_page_size_limit(1 << 30),
    ];
    let mut want: Option<Vec<_>> = None;
    for (number, layout) in layouts.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        write(&dir.path().join("rows.parquet"), &batch, layout);
        let (mut data, samples) = open(dir.path());
        let kept = data.kept.take();
        keep(&data);
        assert!(!dir.path().join("run").exists(), "nothing is written where nothing may be");
        data.kept = kept;
        let printed = keep(&data);
        let made = copies(dir.path());
        assert_eq!(
            (made.len(), printed.contains("from a copy of 7")),
            if number > 0 { (1, true) } else { (0, false) },
            "{printed}"
        );
        for (path, _) in made.iter().filter(|_| number == 3) {
            // Another rank or the next start finds the copy damaged, and makes it again.
            fs::File::options().write(true).open(path).unwrap().set_len(9 << 20).unwrap();
            keep(&open(dir.path()).0);
            assert_eq!(copies(dir.path()), made);
        }
        let before = read_so_far();
        let mut found: Vec<_> = (0..72).map(|i| (i * 37 % 72, samples.get(i * 37 % 72).unwrap().unwrap())).collect();
        // The rows have 72 MiB. A row group of 10 rows has 10 MiB.
        let bytes = read_so_far() - before;
        assert!(bytes < if number > 0 { 144 << 20 } else { 720 << 20 }, "layout {number}: {bytes} bytes read");
        found.sort_by_key(|(i, _)| *i);
        assert!(*want.get_or_insert_with(|| found.clone()) == found, "layout {number}");
    }
}

#[test]
fn a_copy_that_would_outgrow_its_file_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    // A dictionary of 65 images for 150 rows.
    let properties = one_group().set_dictionary_page_size_limit(1 << 30);
    write(&dir.path().join("rows.parquet"), &table(&[1; 150], 65), properties);
    let (data, samples) = open(dir.path());
    let printed = keep(&data);
    assert!(printed.contains("is slow") && printed.contains("more than twice the"), "{printed}");
    assert!(copies(dir.path()).is_empty());
    let image = |i: usize| samples.get(i).unwrap().unwrap().1[0].bytes("").unwrap().to_vec();
    assert!(image(149) == image(149 - 65) && image(149) != image(148));
}

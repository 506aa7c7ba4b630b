//! Tests data formats that users have: sets as they are published, folders and file patterns, arrays, zip files of
//! images, columns with any name. Reading a set in one pass and reading each row by its index must give the same
//! rows.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, BinaryArray, Float64Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{Field, Fields};
use omr_base::config::{ColumnsConfig, DatasetConfig};
use omr_data::rows::read::{RowFile, entry};
use omr_data::rows::{Row, read};
use omr_data::text::Part;
use serde_json::json;
use tempfile::TempDir;

/// Returns the folder of `held`, which is extracted from a zip file the first time.
pub fn extracted(held: &'static OnceLock<TempDir>, zip: &[u8]) -> &'static Path {
    held.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        zip::ZipArchive::new(std::io::Cursor::new(zip)).unwrap().extract(dir.path()).unwrap();
        dir
    })
    .path()
}

pub fn image(format: image::ImageFormat, level: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(30, 28, |x, y| image::Rgb([level, x as u8, y as u8]));
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn png(level: u8) -> Vec<u8> {
    image(image::ImageFormat::Png, level)
}

/// Writes columns as a parquet file.
pub fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

pub fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

pub fn lists(values: &[&[&str]]) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for value in values {
        value.iter().for_each(|text| builder.values().append_value(text));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

pub fn structs(columns: Vec<(&str, ArrayRef)>) -> ArrayRef {
    let fields: Fields = columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
    Arc::new(StructArray::new(fields, columns.into_iter().map(|(_, c)| c).collect(), None))
}

pub fn list_of(values: ArrayRef, lengths: &[usize]) -> ArrayRef {
    let field = Arc::new(Field::new("element", values.data_type().clone(), true));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths.iter().copied()), values, None))
}

/// Returns images as the hub stores them: structs of bytes and path.
pub fn hub_images(images: &[Vec<u8>], lengths: &[usize]) -> ArrayRef {
    let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(images));
    let paths: ArrayRef = Arc::new(StringArray::from_iter(images.iter().map(|_| None::<&str>)));
    list_of(structs(vec![("bytes", bytes), ("path", paths)]), lengths)
}

fn zip(path: &Path, members: &[(&str, Vec<u8>)]) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    for (i, (name, bytes)) in members.iter().enumerate() {
        let method = if i % 2 == 0 { zip::CompressionMethod::Stored } else { zip::CompressionMethod::Deflated };
        zip.start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
}

/// Reads the rows of a set in one pass. Checks that reading each row by its position gives the same row.
pub fn rows(entry: &DatasetConfig) -> Vec<Row> {
    let all = read::read(entry).unwrap();
    let mut number = 0;
    for file in RowFile::open(std::slice::from_ref(entry)).unwrap() {
        let mut places = Vec::new();
        file.for_range(0..usize::MAX, |at, _| {
            places.push(at);
            Ok(())
        })
        .unwrap();
        // The rows are read in reverse order, because the result must not depend on the row that was read before.
        let again: Vec<Row> = places.iter().rev().map(|at| file.row(*at).unwrap().unwrap()).collect();
        for row in again.iter().rev() {
            let first = &all[number];
            let same = (&row.id, &row.messages, &row.images, &row.ground_truth, &row.place)
                == (&first.id, &first.messages, &first.images, &first.ground_truth, &first.place);
            assert!(same, "{first:?}\n{row:?}");
            number += 1;
        }
    }
    assert_eq!(number, all.len());
    all
}

pub fn decoded(row: &Row) -> Vec<u8> {
    row.images.iter().map(|image| image.decode(&row.place).unwrap().data[0]).collect()
}

pub fn text(text: &str) -> Part {
    Part::Text(text.to_owned())
}

/// ViRL39K: a parquet file of questions with `<image>` placeholders and boxed answers, and a zip file of images.
#[test]
fn virl39k_is_read_with_its_images_from_a_zip() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("39Krelease.parquet");
    parquet(
        &path,
        vec![
            ("question", texts(&["<image><image> Which is symmetric?", "<image>Count.", "What is 2 + 2?"])),
            ("answer", texts(&["\\boxed{A}", "\\boxed{1}", "\\boxed{4}"])),
            ("PassRate_32BTrained", Arc::new(Float64Array::from(vec![0.5, 1.0, 0.25]))),
            ("PassRate_7BBase", Arc::new(Float64Array::from(vec![0.5, 1.0, 0.0]))),
            ("category", texts(&["Spatial Reasoning", "counting", "text"])),
            ("source", texts(&["Processed", "Processed", "Processed"])),
            ("qid", texts(&["q-a", "q-b", "q-c"])),
            ("image", lists(&[&["images/a.png", "images/b.png"], &["images/c.tif"], &[]])),
        ],
    );
    let tiff = image(image::ImageFormat::Tiff, 3);
    zip(&dir.path().join("images.zip"), &[("images/a.png", png(1)), ("images/b.png", png(2)), ("images/c.tif", tiff)]);
    let set = DatasetConfig { data_folder: Some(dir.path().join("images.zip")), ..entry(&path) };
    let found = rows(&set);
    assert_eq!(found.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["q-a", "q-b", "q-c"]);
    assert_eq!(found.iter().map(decoded).collect::<Vec<_>>(), [vec![1, 2], vec![3], vec![]]);
    assert_eq!(found[0].messages[0].content, [Part::Image, Part::Image, text(" Which is symmetric?")]);
    assert_eq!(found[2].ground_truth.as_deref(), Some("\\boxed{4}"));
    // The label is compared without its `\boxed{}`.
    let score = omr_data::reward::score(
        "\\boxed{A}",
        found[0].ground_truth.as_deref().unwrap(),
        None,
        omr_base::config::Mode::Strict,
    );
    assert_eq!(score.acc_score, 1.0);

    let wrong = DatasetConfig { data_folder: Some(dir.path().join("39Krelease.parquet")), ..entry(&path) };
    assert!(read::read(&wrong).unwrap_err().to_string().contains("a folder or a zip file"));
    zip(&dir.path().join("other.zip"), &[("images/a.png", png(1))]);
    let missing = DatasetConfig { data_folder: Some(dir.path().join("other.zip")), ..entry(&path) };
    let error = read::read(&missing).unwrap_err().to_string();
    assert!(error.contains("row 1") && error.contains("images/b.png") && error.contains("other.zip"), "{error}");
}

/// MMR1-SFT is one array of conversations with `from` and `value`. MMR1-RL is a parquet file of problems with images.
#[test]
fn mmr1_is_read_as_published() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("images")).unwrap();
    fs::write(dir.path().join("images/1.png"), png(5)).unwrap();
    let row = |human: &str, gpt: &str| json!({"conversations": [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}], "images": ["images/1.png"]});
    let sft = json!([row("<image>How many?", "<think>One, two.</think><answer>2</answer>"), row("See this.", "[{\"]")]);
    fs::write(dir.path().join("sft.json"), serde_json::to_string_pretty(&sft).unwrap()).unwrap();
    let found = rows(&entry(dir.path().join("sft.json")));
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].messages[0].content, [Part::Image, text("How many?")]);
    assert_eq!(found[0].messages[1].role, "assistant");
    // An image without an `<image>` placeholder comes first.
    assert_eq!(found[1].messages[0].content, [Part::Image, text("See this.")]);
    assert_eq!((decoded(&found[1]), found[1].id.as_str()), (vec![5], "sft-1"));

    let path = dir.path().join("rl/data/train-00000-of-00001.parquet");
    let images = hub_images(&[png(6), png(7)], &[1, 1]);
    parquet(
        &path,
        vec![
            ("images", images),
            ("problem", texts(&["<image>Sum?", "<image>Area?"])),
            ("answer", texts(&["3", "4.5"])),
        ],
    );
    let found = rows(&entry(dir.path().join("rl")));
    assert_eq!(found.iter().map(decoded).collect::<Vec<_>>(), [[6], [7]]);
    assert_eq!((found[1].data_source.as_str(), found[1].id.as_str()), ("rl", "train-00000-of-00001-1"));
}

/// MM-Eureka: JSON lines of conversations with `role` and `content`, an answer, and `image_urls` with `file://`.
#[test]
fn mm_eureka_is_read_as_published() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.png"), png(8)).unwrap();
    let url = format!("file://{}", dir.path().join("a.png").display());
    let line = |prompt: &str, urls: &[&str]| {
        let conversations = json!([{"role": "system", "content": "Think."}, {"role": "user", "content": prompt}]);
        json!({"id": "0", "conversations": conversations, "answer": "42", "image_urls": urls}).to_string()
    };
    let lines = [line("Find x.", &[&url]), line("<image>\nFind y.", &[&url]), line("Find z.", &[])];
    fs::write(dir.path().join("dataset.jsonl"), lines.join("\n")).unwrap();
    let found = rows(&entry(dir.path().join("dataset.jsonl")));
    assert_eq!(found[0].messages[1].content, [Part::Image, text("Find x.")]);
    assert_eq!(found[1].messages[1].content, [Part::Image, text("\nFind y.")]);
    assert_eq!(found[2].messages[1].content, [text("Find z.")]);
    assert_eq!((decoded(&found[0]), found[0].ground_truth.as_deref()), (vec![8], Some("42")));
}

#[test]
fn columns_of_any_name_are_read_where_an_entry_says_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.png"), png(9)).unwrap();
    let columns = ColumnsConfig {
        question: Some("query".into()),
        answer: Some("label".into()),
        images: Some("figure".into()),
        id: Some("uid".into()),
        ..ColumnsConfig::default()
    };
    let line = json!({"query": "How many?", "label": 3, "figure": "a.png", "uid": "u1", "prompt": "not this", "answer": "nor this"});
    fs::write(dir.path().join("rows.jsonl"), line.to_string()).unwrap();
    parquet(
        &dir.path().join("rows.parquet"),
        vec![
            ("query", texts(&["How many?"])),
            ("label", Arc::new(Int32Array::from(vec![3]))),
            ("figure", texts(&["a.png"])),
            ("uid", texts(&["u1"])),
            ("prompt", texts(&["not this"])),
        ],
    );
    for name in ["rows.jsonl", "rows.parquet"] {
        let found = rows(&DatasetConfig { columns: columns.clone(), ..entry(dir.path().join(name)) });
        assert_eq!(found[0].messages[0].content, [Part::Image, text("How many?")]);
        assert_eq!((found[0].id.as_str(), found[0].ground_truth.as_deref()), ("u1", Some("3")));
    }
    let typo = ColumnsConfig { question: Some("qery".into()), ..ColumnsConfig::default() };
    let error = read::read(&DatasetConfig { columns: typo, ..entry(dir.path().join("rows.parquet")) }).unwrap_err();
    assert!(error.to_string().contains("`qery`, which columns.question names"), "{error}");
}

#[test]
fn a_set_of_several_files_is_one_set() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("set");
    for (name, from) in [("data/train-00000-of-00002.parquet", 0), ("data/train-00001-of-00002.parquet", 3)] {
        let ids: Vec<String> = (from..from + 3).map(|i| format!("row {i}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        parquet(&root.join(name), vec![("problem", texts(&ids)), ("answer", texts(&["1", "2", "3"]))]);
    }
    let asked = |set: &DatasetConfig| rows(set).iter().map(Row::question).collect::<Vec<_>>();
    let all: Vec<String> = (0..6).map(|i| format!("row {i}")).collect();
    assert_eq!(asked(&entry(&root)), all);
    assert_eq!(asked(&entry(root.join("data/train-*.parquet"))), all);
    let limited = DatasetConfig { limit: Some(4), ..entry(&root) };
    assert_eq!(read::read(&limited).unwrap().len(), 4);
    // The weight applies to the whole set and not to each of its files.
    let (taken, order) = read::load(&[DatasetConfig { weight: 0.5, ..entry(&root) }], 7).unwrap();
    assert_eq!((taken.len(), order.len()), (6, 3));
}

#[test]
fn texts_that_hold_lists_and_structs_are_read_as_those() {
    let dir = tempfile::tempdir().unwrap();
    let extra = json!({"index": 4, "question": "q"}).to_string();
    let prompt = json!([{"role": "user", "content": "2 + 2?"}]).to_string();
    let label = json!({"ground_truth": "4", "style": "rule"}).to_string();
    let path = dir.path().join("rows.parquet");
    let rates: ArrayRef = Arc::new(Float64Array::from(vec![0.25]));
    let columns = [("prompt", prompt), ("reward_model", label), ("extra_info", extra)].map(|(n, t)| (n, texts(&[&t])));
    parquet(&path, columns.into_iter().chain([("avg_reward", rates)]).collect());
    let found = rows(&entry(&path));
    assert_eq!(
        found[0].extra["avg_reward"],
        json!(0.25),
        "the column that the original implementation's difficulty sampler reads"
    );
    assert_eq!(
        (found[0].question(), found[0].ground_truth.as_deref(), found[0].id.as_str()),
        ("q".into(), Some("4"), "rows-4")
    );
}

//! Tests data formats that users have: sets as they are published, folders and file patterns, arrays, zip files of
//! images, columns with any name. Reading a set in one pass and reading each row by its index must give the same
//! rows.

use crate::models::encoder;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, BinaryArray, Float64Array, Int32Array, ListArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{Field, Fields};
use omr::config::{ColumnsConfig, DatasetConfig, RlConfig, SftConfig};
use omr::data::encoder::EncodingPurpose;
use omr::data::indexing::Longest;
use omr::data::read::{RowFile, entry};
use omr::data::{Dataset, Form, Row, Samples, read, write};
use omr::observe::Silent;
use omr::text::Part;
use serde_json::json;

use crate::train::tiny::{rl_config, rows as digit_rows, run_rl, run_sft, sft_config};

fn image(format: image::ImageFormat, level: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::RgbImage::from_fn(30, 28, |x, y| image::Rgb([level, x as u8, y as u8]));
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(level: u8) -> Vec<u8> {
    image(image::ImageFormat::Png, level)
}

/// Writes columns as a parquet file.
fn parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn lists(values: &[&[&str]]) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for value in values {
        value.iter().for_each(|text| builder.values().append_value(text));
        builder.append(true);
    }
    Arc::new(builder.finish())
}

fn structs(columns: Vec<(&str, ArrayRef)>) -> ArrayRef {
    let fields: Fields = columns.iter().map(|(name, c)| Field::new(*name, c.data_type().clone(), true)).collect();
    Arc::new(StructArray::new(fields, columns.into_iter().map(|(_, c)| c).collect(), None))
}

fn list_of(values: ArrayRef, lengths: &[usize]) -> ArrayRef {
    let field = Arc::new(Field::new("element", values.data_type().clone(), true));
    Arc::new(ListArray::new(field, OffsetBuffer::from_lengths(lengths.iter().copied()), values, None))
}

/// Returns images as the hub stores them: structs of bytes and path.
fn hub_images(images: &[Vec<u8>], lengths: &[usize]) -> ArrayRef {
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

fn text(text: &str) -> Part {
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
    let score =
        omr::reward::score("\\boxed{A}", found[0].ground_truth.as_deref().unwrap(), None, omr::config::Mode::Strict);
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

/// Tests that a set of two files gives the same index and stream as one file with the same rows, also with a weight and
/// a limit. An additional file counts as a change of the set.
#[test]
fn shards_are_indexed_and_streamed_as_one_set() {
    let dir = tempfile::tempdir().unwrap();
    let model = sft_config(dir.path()).model.unwrap();
    let encoder = encoder(&model, EncodingPurpose::Train);
    let all = digit_rows();
    let (whole, shards) = (dir.path().join("one/whole.parquet"), dir.path().join("shards"));
    let (first, second) = all.split_at(5);
    for (path, rows) in
        [(whole.clone(), &all[..]), (shards.join("a.parquet"), first), (shards.join("b.parquet"), second)]
    {
        write(&path, rows, Form::Sft).unwrap();
    }
    let longest = Longest { tokens: 256, key: "packing_length" };
    let open = |set: DatasetConfig| Dataset::open(&dir.path().join("run"), &[set], &encoder, longest, 0.0, 1, false);
    for (weight, limit) in [(1.0, None), (2.5, Some(7))] {
        let of = |path: &Path| DatasetConfig { weight, limit, ..entry(path) };
        let (one, two) = (open(of(&whole)).unwrap(), open(of(&shards)).unwrap());
        assert_eq!(one.index.len(), two.index.len());
        let make = || {
            let encoder = encoder.clone();
            move |row: Row| encoder.sample(&row)
        };
        let (ones, twos) = (one.samples(make()), two.samples(make()));
        for i in 0..one.index.len() {
            let (a, b) = (ones.get(i).unwrap().unwrap(), twos.get(i).unwrap().unwrap());
            assert_eq!((&a.input_ids, &a.loss_mask), (&b.input_ids, &b.loss_mask));
        }
        two.keep(&Silent).unwrap();
        assert!(open(of(&shards)).unwrap().warm);
    }
    write(&shards.join("c.parquet"), first, Form::Sft).unwrap();
    let error = open(entry(&shards)).err().unwrap().to_string();
    assert!(error.contains("that the run began with"), "{error}");
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

/// Writes the digit rows in the format of the published SFT set: id, messages of parts, images by path.
fn published_sft(dir: &Path) -> PathBuf {
    let path = dir.join("mmr1_filtered.parquet");
    let all = digit_rows();
    let (mut roles, mut kinds, mut words, mut urls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut parts, mut messages) = (Vec::new(), Vec::new());
    for (i, row) in all.iter().enumerate() {
        fs::write(dir.join(format!("{i}.png")), &*row.images[0].bytes("").unwrap()).unwrap();
        messages.push(row.messages.len());
        for message in &row.messages {
            roles.push(message.role.clone());
            parts.push(message.content.len());
            for part in &message.content {
                let (kind, word, url) = match part {
                    Part::Text(text) => ("text", Some(text.clone()), None),
                    _ => ("image_url", None, Some(format!("{i}.png"))),
                };
                kinds.push(kind);
                words.push(word);
                urls.push(url);
            }
        }
    }
    let none = |count: usize| Arc::new(StringArray::new_null(count)) as ArrayRef;
    let url = |urls: Vec<Option<String>>| structs(vec![("url", Arc::new(StringArray::from(urls)) as ArrayRef)]);
    let count = kinds.len();
    let part = structs(vec![
        ("type", Arc::new(StringArray::from(kinds)) as ArrayRef),
        ("text", Arc::new(StringArray::from(words))),
        ("image_url", url(urls)),
        ("audio_url", structs(vec![("url", none(count))])),
        ("video_url", structs(vec![("url", none(count))])),
    ]);
    let message =
        structs(vec![("role", Arc::new(StringArray::from(roles)) as ArrayRef), ("content", list_of(part, &parts))]);
    let ids: Vec<&str> = all.iter().map(|row| row.id.as_str()).collect();
    parquet(&path, vec![("id", texts(&ids)), ("messages", list_of(message, &messages))]);
    path
}

/// Writes the digit rows in the format of the published RL set: verl's columns.
fn published_rl(dir: &Path) -> PathBuf {
    let path = dir.join("virl39k_train.parquet");
    let all = digit_rows();
    let asked: Vec<String> = all.iter().map(|row| format!("<image>{}", row.question())).collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let truths: Vec<&str> = all.iter().map(|row| row.ground_truth.as_deref().unwrap()).collect();
    let same = |text: &str| texts(&vec![text; all.len()]);
    let one = vec![1; all.len()];
    let images: Vec<Vec<u8>> = all.iter().map(|row| row.images[0].bytes("").unwrap().to_vec()).collect();
    let numbers: Vec<i32> = (0..all.len() as i32).collect();
    parquet(
        &path,
        vec![
            ("data_source", same("virl39k")),
            ("prompt", list_of(structs(vec![("role", same("user")), ("content", texts(&asked))]), &one)),
            ("images", hub_images(&images, &one)),
            ("ability", same("math")),
            ("reward_model", structs(vec![("ground_truth", texts(&truths)), ("style", same("rule"))])),
            (
                "extra_info",
                structs(vec![
                    ("answer", texts(&truths)),
                    ("index", Arc::new(Int32Array::from(numbers)) as ArrayRef),
                    ("question", texts(&asked)),
                    ("split", same("train")),
                ]),
            ),
        ],
    );
    path
}

#[test]
fn rows_of_exactly_the_published_schema_are_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = published_sft(dir.path());
    let config = SftConfig { datasets: vec![entry(path)], max_steps: Some(2), ..sft_config(dir.path()) };
    let run = run_sft(&dir.path().join("sft"), &config, 1, &[]);
    let own = SftConfig { max_steps: Some(2), ..sft_config(dir.path()) };
    let own = run_sft(&dir.path().join("own"), &own, 1, &[]);
    // Images and texts are the same as in our own file, so the losses are the same.
    assert_eq!(run.figures("loss"), own.figures("loss"));
    assert!(run.figures("loss").iter().all(|loss| loss.is_finite() && *loss > 0.0));

    let path = published_rl(dir.path());
    let config = RlConfig { train_files: vec![entry(path)], total_training_steps: Some(1), ..rl_config(dir.path()) };
    let run = run_rl(&dir.path().join("rl"), &config, 1, &[]);
    assert_eq!(run.figures("step"), [1.0]);
    assert!(run.figures("critic/score/mean")[0] > 0.0);
}

#[test]
fn types_are_said_as_people_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = published_rl(dir.path());
    let file = RowFile::open(&[entry(path)]).unwrap().remove(0);
    let columns: Vec<_> = file.columns().unwrap().into_iter().map(|c| (c.name, c.kind, c.read_as)).collect();
    let of = |name: &str| columns.iter().find(|c| c.0 == name).map(|c| (c.1.as_str(), c.2)).unwrap();
    assert_eq!(of("images"), ("list of {bytes: bytes, path: text}", Some("images")));
    assert_eq!(of("ability"), ("text", Some("domain")));
    assert_eq!(of("extra_info").0, "{answer: text, index: int32, question: text, split: text}");
}

//! Tests that rows of exactly the published schema are trained on, and that the files of a set are indexed as one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, StringArray};
use omr_base::config::{DatasetConfig, RlConfig, SftConfig};
use omr_base::observe::Silent;
use omr_data::rows::index::indexing::Longest;
use omr_data::rows::read::{RowFile, entry};
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Dataset, Form, Row, Samples, write};
use omr_data::text::Part;
use omr_data_tests::rows::formats::{hub_images, list_of, parquet, structs, texts};
use omr_model_tests::models::encoder;

use crate::training::tiny::{rl_config, rows as digit_rows, run_rl, run_sft, sft_config};

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

//! Tests data sets of any size: an index is built first, and samples are loaded on request. Bad rows are left out and
//! reported. The result does not depend on threads, restarts or cached data.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use omr_base::config::{RlConfig, SftConfig, TrainingConfig};
use omr_base::error::Error;
use omr_base::observe::Silent;
use omr_data::reward::Scorer;
use omr_data::rows::index::indexing::Longest;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::samples::packing;
use omr_data::rows::{Dataset, Encoder, Form, ImageSource, Row, Samples, read, sft_sample, write};
use omr_data::text::Part;
use omr_model_tests::models;
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::sft::SftJob;
use serde_json::{Value, json};

use crate::training::tiny::{Files, device, rl_config, rows, run_rl, run_sft, sft_config, with};

const LONGEST: Longest = Longest { tokens: 256, key: "packing_length" };

/// Writes rows as JSON lines, with their images as files in the same folder.
fn jsonl(path: &Path, rows: &[Row]) {
    let folder = path.parent().unwrap();
    let mut text = String::new();
    for (i, row) in rows.iter().enumerate() {
        let mut urls = Vec::new();
        for (j, image) in row.images.iter().enumerate() {
            let name = format!("{i}-{j}.png");
            fs::write(folder.join(&name), &*image.bytes("").unwrap()).unwrap();
            urls.push(name);
        }
        let mut urls = urls.into_iter();
        let mut message = |m: &omr_data::text::Message| {
            let part = |part: &Part| match part {
                Part::Text(text) => json!({"type": "text", "text": text}),
                _ => json!({"type": "image_url", "image_url": {"url": urls.next().unwrap()}}),
            };
            json!({"role": m.role, "content": m.content.iter().map(part).collect::<Vec<_>>()})
        };
        let messages: Vec<Value> = row.messages.iter().map(&mut message).collect();
        text.push_str(&format!("{}\n", json!({"id": row.id, "messages": messages})));
    }
    fs::write(path, text).unwrap();
}

/// Returns an image with a valid header and invalid pixel data.
fn broken(image: &ImageSource) -> ImageSource {
    let mut bytes = image.bytes("").unwrap().to_vec();
    let at = bytes.windows(4).position(|w| w == b"IDAT").unwrap() + 8;
    bytes[at] ^= 0xff;
    ImageSource::Bytes { bytes: bytes.into(), path: None }
}

fn open(dir: &Path, path: &Path, encoder: &Encoder) -> omr_base::error::Result<Dataset> {
    Dataset::open(dir, &[read::entry(path)], encoder, LONGEST, 0.0, 1, false)
}

fn encoder(model: &Path) -> Encoder {
    models::encoder(model, EncodingPurpose::Train)
}

fn rejected(dir: &Path) -> Vec<Value> {
    let text = fs::read_to_string(dir.join("rejected.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_index_says_what_the_samples_are_and_they_are_those_made_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let model = sft_config(dir.path()).model.unwrap();
    let encoder = encoder(&model);
    let (chat, processor) = (&encoder.chat, encoder.processor.as_ref());
    jsonl(&dir.path().join("rows.jsonl"), &rows());
    for name in ["rows.jsonl", "sft.parquet"] {
        let path = dir.path().join(name);
        let eager: Vec<_> = read::read(&read::entry(&path)).unwrap();
        let eager: Vec<_> = eager.iter().map(|row| sft_sample(row, chat, processor).unwrap()).collect();
        let run = dir.path().join(format!("run {name}"));
        for warm in [false, true] {
            let data = open(&run, &path, &encoder).unwrap();
            assert_eq!((data.warm, data.index.len()), (warm, eager.len()));
            assert!(data.rejected.rejected.is_empty() && data.notes().len() == 1);
            let again = encoder.clone();
            let samples = data.samples(move |row| again.sample(&row));
            // The samples are read from the last to the first, because access by index must work in any order.
            for (i, want) in eager.iter().enumerate().rev() {
                let found = samples.get(i).unwrap().unwrap();
                assert_eq!((&found.input_ids, &found.loss_mask), (&want.input_ids, &want.loss_mask));
                assert_eq!(found.images, want.images, "{name} row {i}");
                let shape = data.index.shape(i);
                let targets = want.loss_mask.iter().skip(1).filter(|t| **t).count();
                assert_eq!((shape.tokens, shape.targets), (want.input_ids.len(), targets));
                let grids = want.images.iter().map(|image| image.grid());
                assert_eq!(shape.grids, grids.collect::<Vec<_>>());
            }
            data.keep(&Silent).unwrap();
        }
    }
}

#[test]
fn workers_and_starts_change_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let rl = rl_config(dir.path());
    let mut bad = rows();
    bad[7].images[0] = broken(&bad[7].images[0]);
    let (sft_rows, rl_rows) = (dir.path().join("bad-sft.parquet"), dir.path().join("bad-rl.parquet"));
    write::write(&sft_rows, &bad, Form::Sft).unwrap();
    write::write(&rl_rows, &bad, Form::Rl).unwrap();
    // Several micro-batches per update.
    let config = SftConfig {
        datasets: vec![read::entry(&sft_rows)],
        micro_batch_tokens: 128.into(),
        training: TrainingConfig { max_bad_rows: 0.1, dataloader_num_workers: 1, ..config.training.clone() },
        ..config
    };
    let rl = RlConfig {
        train_files: vec![read::entry(&rl_rows)],
        training: TrainingConfig { max_bad_rows: 0.1, dataloader_num_workers: 1, ..rl.training.clone() },
        ..rl
    };
    let out = |name: &str| dir.path().join(name);
    let (one, one_rl) = (run_sft(&out("1"), &config, 1, &[]), run_rl(&out("rl 1"), &rl, 1, &[]));
    let config = with(&config, |c| c.training.dataloader_num_workers = 2);
    let rl = with(&rl, |c| c.training.dataloader_num_workers = 2);
    one.assert_same(&run_sft(&out("2"), &config, 2, &[]), "two workers");
    one_rl.assert_same(&run_rl(&out("rl 2"), &rl, 2, &[]), "two workers");
    let often = SftConfig { save_steps: Some(1), ..config };
    let stopped = run_sft(&out("stopped"), &often, 2, &[1, 2, 3, 5]);
    // The state in a checkpoint contains the bad rows found so far. Metrics and weights are the same.
    one.assert_same(&stopped, "stopped four times");
    let is_met = |at: &u64| packing::order(often.seed, at / 12, 12, true)[(at % 12) as usize] == 7;
    let met = (0..32).filter(is_met).count();
    assert_eq!(one.figures("num_broken_rows").iter().sum::<f64>(), met as f64, "8 updates of 4 rows");
    for name in ["1", "2", "stopped", "rl 1", "rl 2"] {
        let lines = rejected(&out(name));
        let [line] = &lines[..] else { panic!("{name}: {lines:?}") };
        assert_eq!((&line["index"], &line["reason"]), (&json!(7), &json!("broken_image")), "{name}");
        assert_eq!(line["id"], json!(bad[7].id));
    }
    let asked = one_rl.figures("training/epoch").last().copied().unwrap() * 12.0;
    assert_eq!(asked, 16.0, "a broken image's question leaves its step, not the plan");
}

#[test]
fn a_source_that_changed_under_a_run_is_named_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rows_file = dir.path().join("rows.jsonl");
    let config = SftConfig { datasets: vec![read::entry(&rows_file)], ..sft_config(dir.path()) };
    jsonl(&rows_file, &rows());
    let out = dir.path().join("run");
    let job = SftJob::new(&out, config.clone()).unwrap();
    job.common.data.keep(&Silent).unwrap();
    // A new modification time with the same content is not a change.
    let later = SystemTime::now() + Duration::from_secs(5);
    fs::File::options().write(true).open(&rows_file).unwrap().set_modified(later).unwrap();
    assert!(SftJob::new(&out, config.clone()).unwrap().common.data.warm);
    let text = fs::read_to_string(&rows_file).unwrap();
    fs::write(&rows_file, text.replace("looks", "books")).unwrap();
    let error = SftJob::new(&out, config.clone()).err().unwrap();
    assert!(error.exit_code() == 2 && error.to_string().contains("rows.jsonl: found different content"), "{error}");
    assert!(!SftJob::open(&out, config.clone(), true).unwrap().common.data.warm, "a fresh run reads the current rows");
    // A run that has already read the rows also reports the change.
    assert!(job.samples.get(0).is_err_and(|e| e.to_string().contains("rows.jsonl: found different content")));
    fs::write(&rows_file, &text).unwrap();
    assert!(job.samples.get(0).unwrap().is_ok());
    let image = dir.path().join("3-0.png");
    let bytes = fs::read(dir.path().join("4-0.png")).unwrap();
    fs::write(&image, &bytes).unwrap();
    fs::File::options().write(true).open(&image).unwrap().set_modified(later).unwrap();
    let error = SftJob::new(&out, config.clone()).unwrap().run(&mut device(1), &Silent).unwrap_err();
    assert!(error.to_string().contains("row 4, image 3-0.png: found different content"), "{error}");
    fs::remove_file(&image).unwrap();
    let error = job.samples.get(3).err().unwrap();
    assert!(error.to_string().contains("3-0.png"), "{error}");
    // Another tokenizer or another limit requires another index.
    let config = SftConfig { packing_length: 255, ..config };
    assert!(matches!(SftJob::new(&out, config), Err(Error::Input { place, .. }) if place == "max_bad_rows"));
}

/// Writes rows of which some are bad or too long. A bad row is visible in the row or in the header of its image.
fn mixed(path: &Path, good: usize) -> usize {
    jsonl(path, &rows());
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut out: Vec<String> = (0..good).map(|i| lines[i % lines.len()].to_owned()).collect();
    let folder = path.parent().unwrap();
    // 60,000 x 60,000 pixels in the header of a small file.
    let mut bomb = fs::read(folder.join("0-0.png")).unwrap();
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    fs::write(folder.join("bomb.png"), bomb).unwrap();
    fs::write(folder.join("empty.png"), b"").unwrap();
    let mut thin = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(1, 10_000).write_to(&mut thin, image::ImageFormat::Png).unwrap();
    fs::write(folder.join("thin.png"), thin.into_inner()).unwrap();
    let long = lines[0].replace("It looks like", &"It looks like ".repeat(200));
    let bad = [
        "{\"id\": \"half".to_owned(),
        lines[1].replace("messages", "text"),
        lines[2].replace("\"role\":\"assistant\"", "\"role\":\"user\""),
        lines[3].replace("3-0.png", "gone.png"),
        lines[4].replace("4-0.png", "bomb.png"),
        lines[5].replace("5-0.png", "empty.png"),
        lines[6].replace("6-0.png", "thin.png"),
        lines[8].replace("8-0.png", "../8-0.png"),
        json!({"id": "count", "messages": [{"role": "user", "content": "<image><image>?"},
            {"role": "assistant", "content": "1"}], "images": ["0-0.png"]})
        .to_string(),
        long,
    ];
    let step = good / bad.len();
    for (k, line) in bad.iter().enumerate() {
        out.insert(k * (step + 1), line.clone());
    }
    fs::write(path, out.join("\n")).unwrap();
    bad.len() - 1
}

/// Computes the checksum of a PNG chunk.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[test]
fn bad_rows_are_named_and_left_out_until_they_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let rows_file = dir.path().join("rows.jsonl");
    let config = sft_config(dir.path());
    let bad = mixed(&rows_file, 200);
    let config = SftConfig { datasets: vec![read::entry(&rows_file)], max_steps: Some(2), ..config };
    let out = dir.path().join("run");
    // 9 of 210 are more than 1 %: the run ends before its first step and leaves no files.
    let error = SftJob::new(&out, config.clone()).err().unwrap().to_string();
    assert!(error.contains(&format!("{bad} bad rows of 210")), "{error}");
    for reason in ["broken_row", "wrong_columns", "wrong_text", "missing_image", "wrong_image_size", "broken_image"] {
        assert!(error.contains(&format!(" {reason}, the first: ")), "{reason}: {error}");
    }
    assert!(error.contains("1 wrong_image_count") && error.contains("rows.jsonl row"), "{error}");
    assert!(!error.contains("overlong") && !out.exists(), "{error}");

    let config = with(&config, |c| c.training.max_bad_rows = 0.05);
    let job = SftJob::new(&out, config.clone()).unwrap();
    assert_eq!(job.common.index.len(), 200);
    let notes = job.common.data.notes();
    assert!(notes[1].starts_with("10 of 210 rows left out: 1 broken_row, 1 wrong_columns"), "{notes:?}");
    assert!(notes[2].contains("12 ids are shared by several rows"), "{notes:?}");
    let whole = run_sft(&out, &config, 1, &[]);
    let lines = rejected(&out);
    assert_eq!(lines.len(), bad + 1);
    let of = |reason: &str| lines.iter().filter(|line| line["reason"] == reason).count();
    assert_eq!([of("overlong"), of("wrong_image_size"), of("missing_image"), of("broken_image")], [1, 2, 2, 1]);
    assert!(lines.iter().all(|line| line["dataset"] == "rows" && line["detail"].as_str().is_some()));
    assert!(lines.iter().any(|line| line["reason"] == "overlong" && line["id"].is_string()));
    // A run on only the good rows gives the same result.
    let text = fs::read_to_string(&rows_file).unwrap();
    let skip: Vec<u64> = lines.iter().map(|line| line["index"].as_u64().unwrap()).collect();
    let good = text.lines().enumerate().filter(|(i, _)| !skip.contains(&(*i as u64)));
    fs::write(dir.path().join("good.jsonl"), good.map(|(_, line)| format!("{line}\n")).collect::<String>()).unwrap();
    let config = SftConfig { datasets: vec![read::entry(dir.path().join("good.jsonl"))], ..config };
    let good = run_sft(&dir.path().join("good"), &config, 1, &[]);
    assert_eq!(whole.metrics, good.metrics);
    let model =
        |files: &Files| files.iter().filter(|(name, _)| name.starts_with("model/")).map(|f| f.1.clone()).collect();
    let models: [Vec<Vec<u8>>; 2] = [model(&whole.files), model(&good.files)];
    assert!(models[0] == models[1] && !models[0].is_empty());
}

#[test]
fn images_that_break_in_decoding_end_the_run_when_they_pass_the_share() {
    let dir = tempfile::tempdir().unwrap();
    let (config, rl) = (sft_config(dir.path()), rl_config(dir.path()));
    let mut bad = rows();
    for i in [2, 5, 9] {
        bad[i].images[0] = broken(&bad[i].images[0]);
    }
    let (sft_rows, rl_rows) = (dir.path().join("bad-sft.parquet"), dir.path().join("bad-rl.parquet"));
    write::write(&sft_rows, &bad, Form::Sft).unwrap();
    write::write(&rl_rows, &bad, Form::Rl).unwrap();
    let check = |error: Error, out: PathBuf| {
        assert_eq!(error.exit_code(), 2);
        assert!(
            error.to_string().contains("3 bad rows of 12, expected at most 20 % of the rows (3 broken_image"),
            "{error}"
        );
        assert_eq!(rejected(&out).len(), 3);
    };
    let config = SftConfig {
        datasets: vec![read::entry(&sft_rows)],
        training: TrainingConfig { max_bad_rows: 0.2, ..config.training.clone() },
        ..config
    };
    let out = dir.path().join("sft");
    let mut job = SftJob::new(&out, config).unwrap();
    job.plan(omr_runtime::device::Target::cpu(1)).unwrap();
    fs::create_dir_all(&out).unwrap();
    check(job.run(&mut device(1), &Silent).unwrap_err(), out);
    let config = RlConfig {
        train_files: vec![read::entry(&rl_rows)],
        training: TrainingConfig { max_bad_rows: 0.2, ..rl.training.clone() },
        ..rl
    };
    let out = dir.path().join("rl");
    fs::create_dir_all(&out).unwrap();
    let scorer = Arc::new(Scorer::rules(config.reward.mode));
    let job = RlJob::new(&out, config, scorer).unwrap();
    check(job.run(&mut device(1), &Silent).unwrap_err(), out);
}

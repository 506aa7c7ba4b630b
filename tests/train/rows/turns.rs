//! Tests the chat template of Qwen3 (without its tools): it has the variable `enable_thinking`, and it removes the
//! thinking parts of earlier turns, so that a row has a sample per trained turn.

use std::fs;
use std::path::{Path, PathBuf};

use omr_base::config::{SftConfig, ValidationConfig};
use omr_base::observe::Silent;
use omr_data::rows::index::indexing::Longest;
use omr_data::rows::inspect::Previewer;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::samples::sample::{per_sample, prompt_tokens};
use omr_data::rows::{Dataset, Encoder, ImageSource, Row, Samples, read, sft_sample};
use omr_data::text::{CHAT_TEMPLATE, Message, Part, Special, write_tokenizer_dir};
use omr_model_tests::models;
use serde_json::{Map, Value, json};

use crate::training::tiny::{base_model, run_sft, sft_config, tokenizer};

const ROLES: [&str; 2] = ["user", "assistant"];
const QWEN3: &str = include_str!("qwen3.jinja");

/// Writes a tiny model with Qwen3's template.
fn qwen3(dir: &Path) -> PathBuf {
    let model = dir.join("qwen3");
    base_model(&model);
    write_tokenizer_dir(&model, &tokenizer(), QWEN3).unwrap();
    model
}

fn encoder(model: &Path) -> Encoder {
    models::encoder(model, EncodingPurpose::Train)
}

fn without_thinking(encoder: Encoder) -> Encoder {
    let variables: Map<String, Value> = [("enable_thinking".to_owned(), json!(false))].into_iter().collect();
    encoder.with_variables(&variables).unwrap()
}

/// Returns a row of a user's and an assistant's turns in alternation.
fn row(turns: &[&str]) -> Row {
    let message = |(i, text): (usize, &&str)| Message::text(ROLES[i % 2], *text);
    Row { messages: turns.iter().enumerate().map(message).collect(), place: "row".to_owned(), ..Row::default() }
}

fn text(encoder: &Encoder, ids: &[u32]) -> String {
    encoder.chat.tokenizer.decode(ids, false)
}

/// Writes conversations as JSON lines. An answer that begins with `-` is not trained.
fn write(path: &Path, rows: &[&[&str]]) {
    let message = |(i, text): (usize, &&str)| match text.strip_prefix('-') {
        Some(text) => json!({"role": "assistant", "content": text, "loss": false}),
        None => json!({"role": ROLES[i % 2], "content": text}),
    };
    let line = |turns: &&[&str]| {
        let messages: Vec<Value> = turns.iter().enumerate().map(message).collect();
        format!("{}\n", json!({ "messages": messages }))
    };
    fs::write(path, rows.iter().map(line).collect::<String>()).unwrap();
}

fn open(dir: &Path, path: &Path, encoder: &Encoder, tokens: usize) -> Dataset {
    let longest = Longest { tokens, key: "packing_length" };
    Dataset::open(dir, &[read::entry(path)], encoder, longest, 1.0, 1, false).unwrap()
}

const FIRST: &str = "<think>\nIt looks like 3.\n</think>\n\n3";
const SECOND: &str = "<think>\nIt looks like 5.\n</think>\n\n5";

#[test]
fn with_thinking_off_sft_trains_the_text_that_the_sampler_continues() {
    let dir = tempfile::tempdir().unwrap();
    let thinking = encoder(&qwen3(dir.path()));
    let silent = without_thinking(thinking.clone());
    assert_eq!(thinking.clone().with_variables(&Map::new()).unwrap().key, thinking.key);
    assert_ne!(silent.key, thinking.key);
    for (encoder, opened) in [(&thinking, ""), (&silent, "<think>\n\n</think>\n\n")] {
        let asked = row(&["Add", "5"]);
        let sample = sft_sample(&asked, &encoder.chat, None).unwrap();
        let prompt = prompt_tokens(&asked, &encoder.chat, &[]).unwrap();
        assert_eq!(sample.input_ids[..prompt.len()], prompt);
        assert!(sample.loss_mask.iter().enumerate().all(|(i, trained)| *trained == (i >= prompt.len())));
        let expected = format!("<|im_start|>user\nAdd<|im_end|>\n<|im_start|>assistant\n{opened}5<|im_end|>");
        assert_eq!(text(encoder, &sample.input_ids), expected);
        assert!(text(encoder, &encoder.chat.turn.open).ends_with(&format!("assistant\n{opened}")));
    }
    // An answer that repeats the empty thinking part is the same answer.
    let [plain, empty] = [row(&["Add", "5"]), row(&["Add", "<think>\n\n</think>\n\n5"])]
        .map(|row| sft_sample(&row, &silent.chat, None).unwrap().input_ids);
    assert_eq!(plain, empty);
    let error = sft_sample(&row(&["Add", FIRST]), &silent.chat, None).unwrap_err().to_string();
    assert!(
        error.contains("row: found an answer with a thinking part") && error.contains("enable_thinking"),
        "{error}"
    );
}

#[test]
fn an_answer_without_thinking_ends_the_thinking_part_that_the_prompt_opens() {
    let dir = tempfile::tempdir().unwrap();
    let model = qwen3(dir.path());
    let opens = QWEN3.replace("<|im_start|>assistant\\n' }}", "<|im_start|>assistant\\n<think>\\n' }}");
    assert_ne!(opens, QWEN3);
    write_tokenizer_dir(&model, &tokenizer(), &opens).unwrap();
    let encoder = encoder(&model);
    for (answer, whole) in [("5", "<think>\n\n</think>\n\n5"), (SECOND, SECOND)] {
        let sample = sft_sample(&row(&["Add", answer]), &encoder.chat, None).unwrap();
        assert!(text(&encoder, &sample.input_ids).ends_with(&format!("assistant\n{whole}<|im_end|>")), "{answer}");
    }
}

#[test]
fn a_variable_that_the_template_does_not_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let variables: Map<String, Value> = [("enable_thinking".to_owned(), json!(false))].into_iter().collect();
    let error = encoder(config.model.as_deref().unwrap()).with_variables(&variables).err().unwrap().to_string();
    assert!(error.contains("enable_thinking=false in chat_template_kwargs"), "{error}");
    let mut wrong = config.clone();
    wrong.training.chat_template_kwargs.enable_thinking = Some(true);
    assert!(omr_train::training::sft::SftJob::new(&dir.path().join("run"), wrong).is_err());
    assert!(omr_train::training::sft::SftJob::new(&dir.path().join("run"), config).is_ok());
}

#[test]
fn a_row_whose_template_removes_thinking_has_a_sample_per_trained_turn() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = encoder(&qwen3(dir.path()));
    let path = dir.path().join("rows.jsonl");
    write(&path, &[&["Add", FIRST, "Again", &format!("-{SECOND}"), "More", SECOND], &["Add", SECOND]]);
    let rows = read::read(&read::entry(&path)).unwrap();
    let before = "<|im_start|>user\nAdd<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\n<|im_start|>user\nAgain<|im_end|>\n\
        <|im_start|>assistant\n5<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n";
    let expected = [
        format!("<|im_start|>user\nAdd<|im_end|>\n<|im_start|>assistant\n{FIRST}<|im_end|>"),
        format!("{before}{SECOND}<|im_end|>"),
        format!("<|im_start|>user\nAdd<|im_end|>\n<|im_start|>assistant\n{SECOND}<|im_end|>"),
    ];
    for warm in [false, true] {
        let data = open(&dir.path().join("run"), &path, &encoder, 256);
        assert_eq!((data.warm, data.index.len()), (warm, 3));
        assert_eq!((data.seen.rows, data.seen.turns, data.rejected.rows), (2, 8, 3));
        let targets: usize = data.index.shapes().map(|shape| shape.targets).sum();
        assert_eq!(data.seen.targets, targets as u64);
        assert!(data.notes()[1].contains("each trained turn is a sample, 2 of 1 rows"), "{:?}", data.notes());
        let maker = encoder.clone();
        let samples = data.samples(move |row| maker.sample(&row));
        for (i, expected) in expected.iter().enumerate() {
            let sample = samples.get(i).unwrap().unwrap();
            assert_eq!(text(&encoder, &sample.input_ids), *expected);
            assert_eq!(data.index.tokens(i), sample.input_ids.len());
            // The sample continues the prompt that a sampler sees.
            let (row, messages) = [(0, 1), (0, 5), (1, 1)][i];
            let messages = &rows[row].messages[..messages];
            let prompt = encoder.chat.encode(messages, true, Special::Plain).unwrap();
            assert_eq!(sample.input_ids[..prompt.len()], prompt);
            assert!(sample.loss_mask.iter().enumerate().all(|(t, trained)| *trained == (t >= prompt.len())));
        }
        let places = [0, 1, 2].map(|i| data.place(i));
        assert!(places[0].ends_with("row 1, message 2") && places[1].ends_with("message 6"), "{places:?}");
        assert!(places[2].ends_with("row 2"), "{places:?}");
        data.keep(&Silent).unwrap();
    }
    // The validation gets a row once, and not per sample.
    let mut data = open(&dir.path().join("run"), &path, &encoder, 256);
    let held = data.split(&[true, true, false]).unwrap();
    assert_eq!((held.len(), data.index.len()), (1, 1));
    assert_eq!(per_sample(&held[0], &encoder.chat).unwrap().len(), 2);

    let previewer = Previewer { chat: encoder.chat.clone(), processor: None, show: |_, _| None };
    let previews = previewer.rows(&read::entry(&path), 1).unwrap();
    let shown: Vec<String> = previews.iter().map(|p| p.pieces.iter().map(|piece| &*piece.text).collect()).collect();
    assert_eq!(shown, expected[..2]);
}

#[test]
fn a_template_that_appends_keeps_one_sample_per_row() {
    let dir = tempfile::tempdir().unwrap();
    let model = qwen3(dir.path());
    write_tokenizer_dir(&model, &tokenizer(), CHAT_TEMPLATE).unwrap();
    let encoder = encoder(&model);
    let path = dir.path().join("rows.jsonl");
    write(&path, &[&["Add", FIRST, "Again", &format!("-{SECOND}"), "More", SECOND]]);
    let data = open(&dir.path().join("run"), &path, &encoder, 256);
    assert_eq!((data.index.len(), data.rejected.rows, data.notes().len()), (1, 1, 1));
    let (maker, rows) = (encoder.clone(), read::read(&read::entry(&path)).unwrap());
    let sample = data.samples(move |row| maker.sample(&row)).get(0).unwrap().unwrap();
    let whole = encoder.chat.encode(&rows[0].messages, false, Special::Plain).unwrap();
    assert_eq!(sample.input_ids, whole[..whole.len() - 1], "all but the newline");
}

#[test]
fn a_template_that_removes_the_thinking_of_the_last_turn_too_has_a_sample_per_trained_turn() {
    let dir = tempfile::tempdir().unwrap();
    let model = qwen3(dir.path());
    let distilled = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content.split('</think>')[-1].strip() + \
        '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}";
    write_tokenizer_dir(&model, &tokenizer(), distilled).unwrap();
    let encoder = encoder(&model);
    let rows = per_sample(&row(&["Add", FIRST, "More", SECOND]), &encoder.chat).unwrap();
    let samples: Vec<String> =
        rows.iter().map(|row| text(&encoder, &sft_sample(row, &encoder.chat, None).unwrap().input_ids)).collect();
    assert_eq!(samples.len(), 2);
    assert!(
        samples[1].contains("assistant\n3<|im_end|>") && samples[1].ends_with(&format!("{SECOND}<|im_end|>")),
        "{samples:?}"
    );
}

#[test]
fn a_faulty_turn_rejects_its_row_and_a_long_one_only_its_sample() {
    let dir = tempfile::tempdir().unwrap();
    let encoder = encoder(&qwen3(dir.path()));
    let path = dir.path().join("rows.jsonl");
    let long = format!("<think>\n{}\n</think>\n\n3", "It looks like 3. ".repeat(60));
    let rows: [&[&str]; 5] = [
        &["Add", "", "Again", SECOND],
        &["Add", "<think>\nIt looks like 3.\n</think>", "Again", SECOND],
        &["Add", &long, "Again", SECOND],
        &["Add", &format!("-{FIRST}"), "Again", &format!("-{SECOND}")],
        &["Add", &format!("-{FIRST}"), "Again", SECOND],
    ];
    write(&path, &rows);
    let data = open(&dir.path().join("run"), &path, &encoder, 128);
    let places: Vec<String> = (0..data.index.len()).map(|i| data.place(i)).collect();
    let used: Vec<&str> = places.iter().map(|place| place.rsplit_once("row ").unwrap().1).collect();
    assert_eq!(used, ["2, message 2", "2, message 4", "3, message 4", "5, message 4"]);
    let maker = encoder.clone();
    let samples = data.samples(move |row| maker.sample(&row));
    let after_thinking = text(&encoder, &samples.get(1).unwrap().unwrap().input_ids);
    assert!(after_thinking.contains("assistant\n<|im_end|>\n<|im_start|>user\nAgain"), "{after_thinking}");
    let rejected: Vec<(u32, &str, &str)> =
        data.rejected.rejected.iter().map(|r| (r.index, r.reason.name(), r.detail.as_str())).collect();
    assert_eq!(
        rejected.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>(),
        [(0, "wrong_text"), (2, "overlong"), (3, "wrong_text")]
    );
    assert!(rejected[0].2.contains("row 1, message 2: found no answer"), "{rejected:?}");
    assert!(rejected[1].2.contains("row 3, message 2: found ") && rejected[1].2.contains("packing_length=128"));
    assert!(rejected[2].2.contains("`loss` or `weight` 0"), "{rejected:?}");
    assert_eq!((data.rejected.rows, data.seen.rows), (7, 3));
    assert_eq!(data.rejected.line().unwrap(), "3 of 7 rows left out: 2 wrong_text, 1 overlong");
}

#[test]
fn a_stopped_run_over_single_turns_ends_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let (model, path) = (qwen3(dir.path()), dir.path().join("rows.jsonl"));
    write(&path, &[&["Add", FIRST, "Again", SECOND], &["Add", SECOND], &["Again", SECOND, "Add", FIRST, "Add", FIRST]]);
    let validation = ValidationConfig { val_files: vec![read::entry(&path)], ..ValidationConfig::default() };
    let config = SftConfig {
        model: Some(model),
        datasets: vec![read::entry(&path)],
        max_steps: Some(4),
        eval_steps: Some(2),
        validation,
        ..sft_config(dir.path())
    };
    let whole = run_sft(&dir.path().join("whole"), &config, 1, &[]);
    whole.assert_same(&run_sft(&dir.path().join("stopped"), &config, 2, &[3]), "stopped once, two threads");
    assert!(whole.metrics.last().unwrap()["val/loss"].as_f64().is_some_and(|loss| loss > 0.0));
}

#[test]
fn a_turn_has_the_images_up_to_it() {
    let mut row = row(&["Add", FIRST, "Again", SECOND]);
    row.messages[0].content.push(Part::Image);
    row.messages[2].content.extend([Part::Video { frames: 2, fps: 1.0 }, Part::Image]);
    row.images = (0..4).map(|i| ImageSource::Bytes { bytes: vec![i].into(), path: None }).collect();
    let (first, last) = (row.clone().of_turn(2), row.clone().of_turn(4));
    assert_eq!((first.images.as_slice(), first.messages.len()), (&row.images[..1], 2));
    assert_eq!((last.images.as_slice(), last.messages.len()), (&row.images[..], 4));
    assert!(first.only_last && !row.clone().of_turn(0).only_last);
}

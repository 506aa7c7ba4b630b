//! Tests rows with a video: reading them from JSON, training on them and requesting answers.

use std::fs;
use std::path::Path;

use omr_base::config::{RlConfig, SftConfig};
use omr_data::image::Grid;
use omr_data::rows::inspect::{self, Options};
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Form, Media, Row, read, sft_sample, write};
use omr_data::text::Part;
use omr_model::engine::Prompt;
use omr_model::nn::family::qwen3_vl;
use omr_model::nn::{Inputs, ModelConfig};
use omr_model_tests::models::encoder;
use serde_json::{Value, json};

use crate::training::tiny::{model_of, rl_config, rows, run_rl, run_sft, sft_config};

/// Writes four frames as files to `dir`. Returns the user message of a row that shows them; `more` adds keys to the
/// video part.
fn asked(dir: &Path, more: Value) -> Value {
    let names: Vec<String> = (0..4).map(|i| format!("frame{i}.png")).collect();
    for (name, row) in names.iter().zip(rows()) {
        fs::write(dir.join(name), &*row.images[0].bytes("").unwrap()).unwrap();
    }
    let mut part = json!({"type": "video", "video": names});
    part.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"role": "user", "content": [part, {"type": "text", "text": "What is the sum?"}]})
}

/// Returns the row with an answer.
fn answered(dir: &Path, more: Value) -> Value {
    let answer = json!({"role": "assistant", "content": "<think>3</think><answer>3</answer>"});
    json!({"id": "v", "messages": [asked(dir, more), answer]})
}

fn row(dir: &Path, row: &Value) -> Result<Row, String> {
    fs::write(dir.join("rows.jsonl"), format!("{row}\n")).unwrap();
    let read = read::read(&read::entry(dir.join("rows.jsonl")));
    read.map(|rows| rows[0].clone()).map_err(|error| error.to_string())
}

#[test]
fn a_video_of_a_row_has_the_positions_of_its_rate() {
    let dir = tempfile::tempdir().unwrap();
    let model = sft_config(dir.path()).model.unwrap();
    let config = ModelConfig::load(&model.join("config.json")).unwrap();
    let encoder = encoder(&model, EncodingPurpose::Train);
    let (chat, of_media) = (&encoder.chat, config.media.as_ref().unwrap().ids);
    // Frames per second, and the position step from one temporal patch to the next: seconds times two positions per
    // second, rounded down.
    let rates = [(json!({"fps": 4}), 1), (json!({"fps": 1.5}), 2), (json!({"fps": 8}), 0)];
    for (more, step) in
        [(json!({}), 2), (json!({"fps": 0.5}), 8), (json!({"sample_fps": 0.8}), 5)].into_iter().chain(rates)
    {
        let row = row(dir.path(), &answered(dir.path(), more)).unwrap();
        assert!(matches!(row.messages[0].content[0], Part::Video { frames: 4, .. }));
        assert!(matches!(row.media()[..], [Media::Video { frames: [_, _, _, _], .. }]));
        let sample = sft_sample(&row, chat, encoder.processor.as_ref()).unwrap();
        let measured = encoder.measure(&row).unwrap();
        assert_eq!(measured.grids, [Grid { frames: 4, h: 2, w: 4 }]);
        assert_eq!((measured.tokens, measured.images), (sample.input_ids.len(), 4));
        assert_eq!(encoder.sample(&row).unwrap().1, measured.hash);
        let first = sample.input_ids.iter().position(|&id| id == of_media.video).unwrap();
        let pads = sample.input_ids.iter().filter(|&&id| id == of_media.video).count();
        assert_eq!((pads, sample.input_ids[first - 1]), (4, of_media.start));
        assert_eq!(sample.input_ids[first + 4], of_media.end);
        let mut inputs = Inputs::empty();
        let ids = &sample.input_ids;
        inputs.push(&config, ids, &sample.images, ids.len()).unwrap();
        let start = first as i32;
        let found = inputs.position_ids.each_ref().map(|axis| axis[first..first + 5].to_vec());
        // The text after the video begins at its largest position plus one, as in vLLM, verl and transformers 4.
        let next = start + (step + 1).max(2);
        assert_eq!(found[0], [start, start, start + step, start + step, next]);
        assert_eq!(found[1], [start, start, start, start, next]);
        assert_eq!(found[2], [start, start + 1, start, start + 1, next]);
    }
}

#[test]
fn the_frames_of_a_video_stand_after_their_times_in_qwen3_vl() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("base");
    model_of(&qwen3_vl::FAMILY, &model);
    let config = ModelConfig::load(&model.join("config.json")).unwrap();
    let encoder = encoder(&model, EncodingPurpose::Train);
    let row = row(dir.path(), &answered(dir.path(), json!({"fps": 0.5}))).unwrap();
    let (sample, _) = encoder.sample(&row).unwrap();
    let measured = encoder.measure(&row).unwrap();
    assert_eq!((measured.tokens, measured.images), (sample.input_ids.len(), 4));
    let text = encoder.chat.tokenizer.decode(&sample.input_ids, false);
    let pads = "<|video_pad|>".repeat(measured.grids[0].area() / 4);
    let frame = |time: &str| format!("<{time} seconds><|vision_start|>{pads}<|vision_end|>");
    // No system prompt comes first. Frames 0 and 1 are 2 seconds apart, so their mean time is 1 second.
    assert!(text.starts_with(&format!("<|im_start|>user\n{}{}What is", frame("1.0"), frame("5.0"))), "{text}");
    let mut inputs = Inputs::empty();
    let ids = &sample.input_ids;
    inputs.push(&config, ids, &sample.images, ids.len()).unwrap();
    // The engine takes each temporal patch as an image of its own, with the same positions.
    let prompt = Prompt::new(&config, ids, &sample.images).unwrap();
    assert_eq!((prompt.images.len(), prompt.position_ids), (2, inputs.position_ids));
}

#[test]
fn a_video_is_trained_on_and_asked_about() {
    let dir = tempfile::tempdir().unwrap();
    let line = |name: &str, row: &Value| {
        fs::write(dir.path().join(name), format!("{row}\n{row}\n")).unwrap();
        vec![read::entry(dir.path().join(name))]
    };
    let datasets = line("sft.jsonl", &answered(dir.path(), json!({})));
    let sft = SftConfig { datasets, max_steps: Some(1), train_batch_size: Some(2), ..sft_config(dir.path()) };
    let one = run_sft(&dir.path().join("sft"), &sft, 1, &[]);
    assert!(one.figures("loss")[0] > 0.0);
    run_sft(&dir.path().join("sft2"), &sft, 2, &[]).assert_same(&one, "two threads");

    let prompt = json!({"prompt": [asked(dir.path(), json!({}))], "reward_model": {"ground_truth": "3"}});
    let train_files = line("rl.jsonl", &prompt);
    let rl = RlConfig { train_files, total_training_steps: Some(1), ..rl_config(dir.path()) };
    run_rl(&dir.path().join("rl"), &rl, 1, &[]);
}

#[test]
fn videos_are_looked_at_by_their_frames_and_faults_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = answered(dir.path(), json!({}));
    let watched = row(dir.path(), &good).unwrap();
    let options = Options { model: None, first: 1, random: 1, seed: 1, shown: None };
    let found = inspect::inspect(&read::entry(dir.path().join("rows.jsonl")), &options).unwrap();
    assert_eq!((found.faulty(), found.images.sum, found.seen.images), (0, 4, 4));
    let error = write::write(&dir.path().join("out.parquet"), &[watched], Form::Sft).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl row 1") && error.contains("a video"), "{error}");

    let model = sft_config(dir.path()).model.unwrap();
    let encoder = encoder(&model, EncodingPurpose::Train);
    let pixels = vec![7; 28 * 28 * 3];
    let small = dir.path().join("small.png");
    image::save_buffer(small, &pixels, 28, 28, image::ExtendedColorType::Rgb8).unwrap();
    let mixed = answered(dir.path(), json!({"video": ["frame0.png", "small.png"]}));
    let mixed = row(dir.path(), &mixed).unwrap();
    let (measured, made) = (encoder.measure(&mixed).unwrap_err(), encoder.sample(&mixed).unwrap_err());
    for error in [measured.error.to_string(), made.error.to_string()] {
        assert!(error.contains("small.png") && error.contains("28 x 28 pixels"), "{error}");
    }
    for (more, named) in [
        (json!({"video": []}), "a video without frames"),
        (json!({"video": null}), "a video without frames"),
        (json!({"video": "a.mp4"}), "a list of frames"),
        (json!({"video": ["gone.png"]}), "gone.png"),
        (json!({"fps": 0}), "fps 0"),
        (json!({"fps": "2"}), "fps \"2\""),
    ] {
        let error = row(dir.path(), &answered(dir.path(), more)).unwrap_err();
        assert!(error.contains("rows.jsonl row 1") && error.contains(named), "{error}");
    }
}

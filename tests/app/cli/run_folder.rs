//! Tests what later starts and other programs find in a run folder: the checkpoint to continue from, the run of another
//! command, metrics of a reward program, and the end tokens of the model.

use std::fs;
use std::path::Path;

use omr_base::config::ImageConfig;
use omr_data::rows::{Form, read, write};
use omr_train_tests::training::tiny::{self, rows};
use serde_json::{Value, json};

use super::training::{Folder, failure, run};

#[test]
fn the_command_that_went_back_to_a_checkpoint_then_continues_its_run() {
    let folder = Folder::new();
    let (sft, out) = (folder.sft(|_| ()), folder.at("out"));
    let latest = || fs::read_to_string(Path::new(&out).join("latest")).unwrap();
    let start = |more: &[&str]| {
        let (code, _, stderr) =
            run(&[&["sft", &sft, "--out", &out, "save_steps=1", "save_total_limit=9"][..], more].concat());
        assert_eq!(code, 0, "{stderr}");
        stderr
    };
    start(&["max_steps=3"]);
    let back = format!("resume={out}/checkpoints/global_step_1");
    assert!(start(&["max_steps=4", &back]).contains("a later checkpoint was moved"), "went back");
    let again = start(&["max_steps=5", &back]);
    assert!(again.contains("continues this run") && !again.contains("was moved"), "{again}");
    assert_eq!(latest(), "global_step_5\n");
    // An ordinary start says nothing about it.
    start(&["max_steps=5"]);
    assert!(!start(&["max_steps=5"]).contains("continues this run"));
    // Another command may go back again.
    assert!(start(&["max_steps=6", &format!("resume={out}/checkpoints/global_step_4")]).contains("was moved"));
}

#[test]
fn further_numbers_of_a_reward_program_are_in_validations_too() {
    let folder = Folder::new();
    let file = folder.path().join("mine.parquet");
    let mut own = rows();
    own.truncate(3);
    own.iter_mut().for_each(|row| row.data_source = "mine".to_owned());
    write::write(&file, &own, Form::Rl).unwrap();
    let script = "while read -r line; do echo '{\"score\": 1, \"brevity\": 0.25}'; done";
    let rl = folder.rl(|c| {
        (c.total_training_steps, c.test_freq) = (Some(1), Some(1));
        c.validation.val_files = vec![read::entry(&file)];
        c.reward.scorer.command = ["sh", "-c", script].map(str::to_owned).to_vec();
        c.reward.scorer.workers = 1;
    });
    let out = folder.at("out");
    let (code, _, stderr) = run(&["rl", &rl, "--out", &out]);
    assert_eq!(code, 0, "{stderr}");
    let metrics = fs::read_to_string(Path::new(&out).join("metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["critic/score/brevity/mean"], &last["val-aux/mine/brevity/mean@1"]),
        (&json!(0.25), &json!(0.25))
    );
}

#[test]
fn the_run_of_another_command_is_named() {
    let folder = Folder::new();
    let (sft, out) = (folder.sft(|c| c.max_steps = Some(2)), folder.at("out"));
    assert_eq!(run(&["sft", &sft, "--out", &out]).0, 0);
    failure(
        &["recipe", "configs/digits.yaml", "--out", &out],
        2,
        &[&out, "found a run of `omr sft`", "a run of `omr recipe`"],
    );
}

#[test]
fn a_model_that_is_written_ends_its_turns_in_other_programs_too() {
    let folder = Folder::new();
    let [base, model] = ["base", "model"].map(|name| folder.path().join(name));
    fs::create_dir(&model).unwrap();
    tiny::base_model(&base);
    let tokenizer = tiny::tokenizer();
    let [text_end, turn_end] = ["<|endoftext|>", "<|im_end|>"].map(|token| tokenizer.id(token).unwrap());
    for (stops, expected) in [(json!(text_end), json!([text_end, turn_end])), (json!([turn_end]), json!([turn_end]))] {
        fs::write(base.join("generation_config.json"), json!({"top_p": 0.8, "eos_token_id": stops}).to_string())
            .unwrap();
        omr_train::training::saving::copy_companions(&base, &model, &ImageConfig::default()).unwrap();
        let written: Value = serde_json::from_slice(&fs::read(model.join("generation_config.json")).unwrap()).unwrap();
        assert_eq!(written, json!({"top_p": 0.8, "eos_token_id": expected}));
    }
    // Other programs read config.json if there is no generation_config.json, and only that one if it is there.
    let config: Value = serde_json::from_slice(&fs::read(base.join("config.json")).unwrap()).unwrap();
    for (of_model, of_generation, expected) in [
        (json!(text_end), None, json!({"eos_token_id": [text_end, turn_end]})),
        (json!([text_end, turn_end]), None, Value::Null),
        (json!(turn_end), Some(json!({"top_p": 0.8})), json!({"top_p": 0.8, "eos_token_id": [turn_end]})),
    ] {
        let mut config = config.clone();
        config["eos_token_id"] = of_model;
        fs::write(base.join("config.json"), config.to_string()).unwrap();
        let _ = fs::remove_file(base.join("generation_config.json"));
        let _ = fs::remove_file(model.join("generation_config.json"));
        if let Some(generation) = of_generation {
            fs::write(base.join("generation_config.json"), generation.to_string()).unwrap();
        }
        omr_train::training::saving::copy_companions(&base, &model, &ImageConfig::default()).unwrap();
        let written = fs::read(model.join("generation_config.json")).unwrap_or(b"null".to_vec());
        assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), expected);
    }
    // A base model without a chat template, as `omr export --quantize` reads it, ends as before.
    let stops = json!({"eos_token_id": text_end}).to_string();
    fs::write(base.join("generation_config.json"), &stops).unwrap();
    for name in ["tokenizer_config.json", "chat_template.jinja", "chat_template.json"] {
        let _ = fs::remove_file(base.join(name));
    }
    omr_train::training::saving::copy_companions(&base, &model, &ImageConfig::default()).unwrap();
    assert_eq!(fs::read_to_string(model.join("generation_config.json")).unwrap(), stops);
}

//! Tests that `--dry-run` ends as the job would.

use std::fs;
use std::path::Path;

use omr_base::config::ImageConfig;
use omr_train_tests::training::tiny;
use serde_json::{Value, json};

use super::recipe::CONFIG;
use super::training::{Folder, failure, run};

#[test]
fn a_dry_run_needs_the_config_and_tokenizer_of_a_model_alone() {
    let folder = Folder::new();
    let published = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/openmmreasoner-7b");
    let model = folder.path().join("Qwen2.5-VL-7B-Instruct");
    fs::create_dir(&model).unwrap();
    let base = folder.path().join("base");
    tiny::base_model(&base);
    omr_train::training::saving::copy_companions(&base, &model, &ImageConfig::default()).unwrap();
    let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
    let (mut shape, own) = (read(&published.join("model/config.json")), read(&base.join("config.json")));
    for id in ["image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"] {
        shape[id] = own[id].clone();
    }
    fs::write(model.join("config.json"), shape.to_string()).unwrap();
    let (model, out) = (model.display(), folder.at("out"));
    let dry = |command: &str, more: &[&str]| {
        let config = published.join(format!("{command}.yaml"));
        let (at, file) = (format!("model={model}"), config.to_str().unwrap());
        let (code, stdout, stderr) = run(&[&[command, file, "--dry-run", "--out", &out, &at][..], more].concat());
        // The plan is complete, but the job cannot start.
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        assert!(!Path::new(&out).exists());
        let (plan, error) = stderr.split_once("\nerror: the inputs: found ").expect(&stderr);
        assert!(error.lines().skip(1).all(|line| line.starts_with("- ")), "{error}");
        (plan.to_owned(), error.to_owned())
    };
    let sft = dry("sft", &["packing_length=4096", "micro_batch_tokens=4096"]);
    let rl = dry("rl", &["max_response_length=4096", "micro_batch_tokens=8192", "total_training_steps=580"]);
    let weights = format!("- model: found {model}, which has no weights: omr download base --to {model}");
    let rows = [
        "- datasets[0].path: found data/OpenMMReasoner-SFT-874K",
        "- train_files[0].path: found data/OpenMMReasoner-RL-74K",
    ];
    for ((_, error), (rows, command)) in [&sft, &rl].into_iter().zip(rows.into_iter().zip(["sft-data", "rl-data"])) {
        let command = format!("omr download {command}");
        let lines: Vec<&str> = error.lines().skip(1).collect();
        assert!(lines[0].starts_with(rows) && lines[0].contains(&command), "{error}");
        // The published RL config names the same rows for its validation.
        assert!(lines.len() == 2 + usize::from(lines[1].starts_with("- val_files[0].path: ")), "{error}");
        assert!(lines.last().unwrap().starts_with(&weights), "{error}");
    }
    assert!(sft.0.contains("sft: 4300 updates") && rl.0.contains("rl: 580 updates"), "{sft:?} {rl:?}");
    for part in ["memory", "weights       15.4 GiB", "disk", "predicted", "in total"] {
        assert!(sft.0.contains(part) && rl.0.contains(part), "{part}");
    }
    let config = published.join("rl.yaml");
    let at = format!("model={model}");
    let (_, stdout, stderr) = run(&[
        "rl",
        config.to_str().unwrap(),
        "--out",
        &out,
        &at,
        "--dry-run",
        "--json",
        "max_response_length=4096",
        "micro_batch_tokens=8192",
    ]);
    let planned: Value = serde_json::from_str(&stdout).expect(&stderr);
    assert!(planned["missing"][0].as_str().is_some_and(|line| line.contains("omr download rl-data")), "{stdout}");
    assert!(planned["has_weights"] == false && planned["one_card"]["job"] == "rl", "{stdout}");
    // If a run itself needs a file, the error contains the same download command.
    let command = "omr download sft-data --to data/OpenMMReasoner-SFT-874K";
    let config = published.join("sft.yaml");
    failure(&["sft", config.to_str().unwrap(), "--out", &out, &format!("model={model}")], 2, &[command]);
}

/// A dry run says yes only if the job can start. Otherwise it ends as the job would.
#[test]
fn a_dry_run_ends_with_the_error_that_the_job_would_end_with() {
    let folder = Folder::new();
    let (sft, rl, out) = (folder.sft(|_| {}), folder.rl(|_| {}), folder.at("out"));
    let foreign = folder.at("foreign");
    fs::create_dir_all(Path::new(&foreign).join("photos")).unwrap();
    let run_of_rl = folder.at("of_rl");
    assert_eq!(run(&["rl", &rl, "--out", &run_of_rl, "total_training_steps=1"]).0, 0);
    let rows = folder.at("rows.jsonl");
    let row = |image: &str| json!({ "question": "<image>How many?", "answer": "3", "images": [image] }).to_string();
    fs::write(&rows, row("first.png") + "\n" + &row("second.png") + "\n").unwrap();
    let file = folder.at("file");
    fs::write(&file, "").unwrap();
    for (args, parts) in [
        (vec!["sft", &sft, "--out", &out, "datasets=[nope.jsonl]"], ["datasets[0].path", "nope.jsonl"]),
        (vec!["rl", &rl, "--out", &out, "train_files=[nope.jsonl]"], ["train_files[0].path", "nope.jsonl"]),
        (vec!["rl", &rl, "--out", &out, "val_files=['no*.jsonl']"], ["val_files[0].path", "no*.jsonl"]),
        (vec!["sft", &sft, "--out", &foreign], ["a folder with other files, such as photos", "a run directory"]),
        (vec!["recipe", CONFIG, "--out", &foreign], ["a folder with other files, such as photos", "a run directory"]),
        (vec!["rl", &rl, "--out", &file], [&file, "a run directory"]),
        (vec!["rl", &rl, "--out", &run_of_rl, "learning_rate=0.5"], ["learning_rate was ", "and is 0.5"]),
        (vec!["sft", &sft, "--out", &run_of_rl], ["a run of `omr rl`", "choose another --out"]),
        (vec!["sft", &sft, "--out", &out, &format!("datasets=[{rows}]")], ["rows.jsonl row 1", "first.png"]),
        (vec!["rl", &rl, "--out", &out, &format!("train_files=[{rows}]")], ["rows.jsonl row 1", "first.png"]),
        (vec!["rl", &rl, "--out", &out, "judge.model=x"], ["judge.base_url", "OPENAI_BASE_URL"]),
    ] {
        let (code, stdout, stderr) = run(&[&args[..], &["--dry-run"]].concat());
        assert_eq!((code, stdout.as_str()), (2, ""), "{args:?}: {stderr}");
        let error = stderr.lines().last().unwrap();
        assert!(error.starts_with("error: ") && parts.iter().all(|part| error.contains(part)), "{args:?}: {stderr}");
        // The job itself ends with the same line.
        assert_eq!(run(&args).2.lines().last(), Some(error), "{args:?}");
    }
    assert!(!Path::new(&out).exists() && fs::read_dir(&foreign).unwrap().count() == 1);
    // Files of a batch system may be in the folder before.
    let prepared = folder.at("prepared");
    fs::create_dir(&prepared).unwrap();
    fs::write(Path::new(&prepared).join("slurm-17.out"), "").unwrap();
    fs::copy(&sft, Path::new(&prepared).join("sft.yaml")).unwrap();
    let (code, _, stderr) = run(&["sft", &sft, "--out", &prepared, "--dry-run"]);
    assert!(code == 0 && fs::read_dir(&prepared).unwrap().count() == 2, "{stderr}");
}

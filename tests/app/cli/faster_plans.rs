//! Tests `omr plan` with the lengths of real rows, and the settings that it proposes.

use serde_json::Value;

use super::plan::config;
use super::training::{failure, run};

/// Rows of real lengths: the rounds of an update are those of the trainer, and the proposed settings are faster.
#[test]
fn real_lengths_show_the_waiting_and_faster_settings() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lengths.txt");
    let data = path.to_str().unwrap();
    // Most rows are short, and one in a hundred is longer than 4,096 tokens.
    let lengths = (0..600).map(|i| if i % 100 == 0 { 9000 + i } else { 300 + i * 7 % 900 });
    std::fs::write(&path, lengths.map(|n| format!("{n}\n")).collect::<String>()).unwrap();
    let small =
        ["packing_length=12288", "micro_batch_tokens=12288", "gradient_accumulation_steps=8", "optim=adamw_8bit"];
    let sft = config("sft.yaml");
    let plan = |more: &[&str]| -> Value {
        let args = [&["plan", &sft, "--data", data, "--json", "--faster"][..], &small, more].concat();
        let (code, text, stderr) = run(&args);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&text).unwrap()
    };
    let [one, eight] = [&["--gpus", "1"][..], &["--gpus", "8"]].map(plan);
    assert_eq!(one["waiting"], Value::Null);
    assert!((0.0..0.9).contains(&eight["waiting"].as_f64().unwrap()), "{eight}");
    // Without --gpus 8, the same settings give the proposed time.
    for found in one["faster"].as_array().unwrap() {
        let (set, step) = (found["set"].as_array().unwrap(), found["step_seconds"].as_f64().unwrap());
        let set: Vec<&str> = set.iter().map(|key| key.as_str().unwrap()).collect();
        let planned = plan(&set);
        assert_eq!(planned["predicted"]["step_seconds"], found["step_seconds"]);
        assert_eq!(planned["memory"]["total"], found["memory"]);
        assert!(step < one["predicted"]["step_seconds"].as_f64().unwrap(), "{found}");
    }
    for (text, parts) in [
        ("", &["lengths.txt", "no rows"][..]),
        ("12\nx\n", &["lengths.txt, line 2", "\"x\""]),
        ("12\n1\n", &["lengths.txt, line 2", "\"1\""]),
        ("99999999999999999999\n", &["line 1", "1048576"]),
        ("70000\n", &["--data", "longer than packing_length"]),
    ] {
        std::fs::write(&path, text).unwrap();
        failure(&["plan", &sft, "--data", data], 2, parts);
    }
    failure(&["plan", &sft, "--data", dir.path().to_str().unwrap()], 2, &["--data", "a run folder of `omr sft`"]);
    failure(&["plan", &sft, "--data", "missing.txt"], 2, &["missing.txt"]);
    std::fs::write(&path, "12\n").unwrap();
    failure(&["plan", &config("rl.yaml"), "--data", data], 2, &["--data", "omr sft"]);
}

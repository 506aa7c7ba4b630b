//! Tests `omr bench first-gpu` on the CPU: the files that a killed command leaves, and wrong input.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use omr_base_tests::wait::until;
use serde_json::Value;

use super::help::omr;

/// Starts the command on the CPU, without GPUs.
fn start(json: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_omr"))
        .args(["--device", "cpu", "--threads", "1", "bench", "first-gpu", "--seconds", "0.01", "--json"])
        .arg(json)
        .env("CUDA_VISIBLE_DEVICES", "")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Returns the record. It must always be complete JSON, and each case must have a figure or a reason.
pub fn record(json: &Path) -> Value {
    let record: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let cases = record["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 15, "{record:#}");
    for case in cases {
        assert!(!case["result"].as_str().unwrap().is_empty() && case["verdict"].is_string(), "{case:#}");
    }
    record
}

/// Returns the verdicts of all cases as `name: verdict: result`.
pub fn verdicts(record: &Value) -> Vec<String> {
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    let line = |case: &Value| ["name", "verdict", "result"].map(|key| text(case, key)).join(": ");
    record["cases"].as_array().unwrap().iter().map(line).collect()
}

/// The stand-in library of `tests/app/cuda` runs all cases; here the first ones are enough.
#[test]
fn a_killed_command_leaves_a_valid_record() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("F.json");
    let mut child = start(&json);
    until("the fourth case", || {
        assert!(child.try_wait().unwrap().is_none());
        json.exists() && record(&json)["cases"][3]["verdict"] == "passed"
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let record = record(&json);
    let lines = verdicts(&record);
    assert!(record["is_complete"] == false && lines[0] == "doctor: passed: cpu: works", "{record:#}");
    assert!(lines[1].ends_with("not run: the CPU has no start check"), "{lines:#?}");
    assert!(lines[3].starts_with("sampler = trainer: passed: bitwise equal: digits"), "{lines:#?}");
    assert!(lines[14].ends_with("not run: the command was stopped before this case"), "{lines:#?}");
    let page = std::fs::read_to_string(dir.path().join("F.html")).unwrap();
    assert!(page.contains("passed, 0 failed") && page.contains("say nothing about a GPU"), "{page}");
}

#[test]
fn wrong_input_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (args, wanted) in [
        (vec![], "omr bench first-gpu: found no --json F.json, expected --json F.json".to_owned()),
        (
            vec!["--json", &at("no/F.json")],
            format!("--json: found {}, expected a file in a folder that exists", at("no/F.json")),
        ),
        (vec!["--json", &at("F.json"), "--model", &at("gone")], format!("{}: ", at("gone/config.json"))),
        (
            vec!["--json", &at("F.json"), "--data", &at("rows.jsonl")],
            "omr bench first-gpu: found one of --real and --data, expected both, or none".to_owned(),
        ),
    ] {
        let output = omr().args(["--device", "cpu", "--quiet", "bench", "first-gpu"]).args(&args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with(&format!("error: {wanted}")) && text.lines().count() == 1, "{args:?}: {text}");
        assert_eq!(output.status.code(), Some(2), "{text}");
    }
    assert!(!dir.path().join("F.json").exists());
}

//! Tests reading and printing configs from the command line.

use std::fs;

use super::help::omr;
use super::training::failure;

fn run(args: &[&str]) -> (i32, String, String) {
    let output = omr().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn print_config_writes_yaml_that_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("a.yaml"), "datasets: [{path: rows.parquet}]\nnum_rollouts: 3\n").unwrap();
    let args = ["data", "distill", &path("a.yaml"), "--out", &path("out"), "--print-config", "mode=compat"];
    let (code, stdout, stderr) = run(&args);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.contains("num_rollouts: 3\n") && stdout.contains("mode: compat\n"), "{stdout}");
    assert!(!dir.path().join("out").exists(), "nothing but printing");
    fs::write(path("b.yaml"), &stdout).unwrap();
    let (code, again, _) = run(&["data", "distill", &path("b.yaml"), "--out", &path("out"), "--print-config"]);
    assert_eq!((code, again), (0, stdout));
}

#[test]
fn a_wrong_config_is_one_line_that_names_file_key_and_cure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.yaml").to_str().unwrap().to_owned();
    let out = dir.path().join("out").to_str().unwrap().to_owned();
    let cases = [
        ("num_rolouts: 3\n", vec!["a.yaml: num_rolouts", "did you mean num_rollouts?"]),
        ("num_rollouts: three\n", vec!["a.yaml: num_rollouts", "found three", "whole number"]),
        ("num_rollouts: 0\n", vec!["found 0", "a number from 1"]),
        ("mode: strickt\n", vec!["did you mean strict?"]),
        ("num_rollouts: 3\nnum_rollouts: 4\n", vec!["a.yaml", "duplicate"]),
        ("datasets: [\n", vec!["a.yaml"]),
    ];
    for (text, parts) in cases {
        fs::write(&file, text).unwrap();
        let (code, stdout, stderr) = run(&["data", "distill", &file, "--out", &out]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{text}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{text}: {stderr}");
        parts.iter().for_each(|part| assert!(stderr.contains(part), "{text}: {part} is not in {stderr}"));
    }
    let (code, _, stderr) = run(&["data", "distill", "no/such.yaml", "--out", &out]);
    assert!(code == 2 && stderr.contains("no/such.yaml"), "{stderr}");
    fs::write(&file, "num_rollouts: 3\n").unwrap();
    let (code, _, stderr) = run(&["data", "distill", &file, "--out", &out, "num_rollouts"]);
    assert!(code == 2 && stderr.contains("key=value"), "{stderr}");
    assert!(!dir.path().join("out").exists(), "a refused command leaves nothing behind");
}

#[test]
fn counts_that_no_machine_can_hold_name_their_limit() {
    let sft = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/openmmreasoner-7b/sft.yaml");
    for (key, value, expected) in [
        ("micro_batch_tokens", "1099511627776", "from 1 to 1048576"),
        ("gradient_lanes", "2147483648", "from 1 to 4096"),
        ("save_total_limit", "9223372036854775808", "0 to 2^40"),
    ] {
        failure(&["plan", sft, &format!("{key}={value}")], 2, &[&format!("{key}: found {value}"), expected]);
    }
}

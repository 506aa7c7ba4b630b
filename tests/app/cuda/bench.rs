//! Tests of `omr bench` on a GPU: the rows of its results, and `--turns`. Every repetition takes 1.5 ms on this driver.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use super::{Machine, start_check};

const OMR: &str = env!("CARGO_BIN_EXE_omr");

/// Returns the rows that the benchmarks `names` write on an H200.
fn rows(names: &[&str]) -> Vec<Value> {
    let machine = Machine::new();
    let file = machine.folder.path().join("rows.json");
    let args =
        [&["--device", "cuda", "bench", "--seconds", "0", "--json", file.to_str().unwrap(), "--overwrite"], names]
            .concat();
    let gpu = [&start_check::HOPPER[..], &[("FAKE_NAME", "NVIDIA H200"), ("FAKE_LARGEST_COPY", "1048576")]].concat();
    let output = machine.run(Path::new(OMR), &args, &gpu);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.lines().next().unwrap().contains("burst sustained"), "{table}");
    assert!(table.lines().skip(1).all(|line| line.contains("copy") != line.contains("clock assumed)")), "{table}");
    let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    written["rows"].as_array().unwrap().clone()
}

/// The kernels of this driver compute nothing, so the stamps give no clock.
#[test]
fn a_row_lists_its_first_and_last_times_and_says_which_clock_is_assumed() {
    let rows = rows(&["rms_norm fwd", "copy", "decode", "--model-shape", "digits", "--batch-size", "2"]);
    assert_eq!(rows.iter().map(|row| &row["name"]).collect::<Vec<_>>(), ["rms_norm fwd", "copy", "decode"]);
    for row in &rows {
        let repetitions = row["repetitions"].as_u64().unwrap() as usize;
        assert!(repetitions >= 3 && row["ours_ms"] == 1.5 && row["data"] == "normal", "{row}");
        assert_eq!([&row["first_ms"], &row["last_ms"]], [&json!(vec![1.5; repetitions.min(20)]); 2]);
        assert_eq!((&row["clock_mhz"], &row["clock"]), (&Value::Null, &json!("assumed")));
        assert!(row["host_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(row["predicted_clock"] == "assumed", row["name"] != "copy", "{row}");
    }
    assert_eq!(rows[1]["bytes"], (1_u64 << 31) as f64, "1 GiB is read, and written");
}

#[test]
fn zeros_are_named_in_the_row_and_are_only_for_ops() {
    let row = rows(&["rms_norm fwd", "--data", "zeros"]).remove(0);
    assert!(row["data"] == "zeros" && row["predicted_ms"].as_f64().is_some(), "{row}");
    for (args, fault) in [
        (["decode", "zeros"], "omr bench --data zeros: found decode, expected an op"),
        (["rope", "ones"], "omr bench --data: found ones, expected normal or zeros"),
    ] {
        let command = ["--device", "emu", "bench", args[0], "--data", args[1]];
        let output = Command::new(OMR).args(command).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(fault), "{text}");
    }
}

#[test]
fn a_program_without_candidates_says_how_to_build_one() {
    let bench = |device: &str, candidate: &str| {
        Command::new(OMR).args(["--device", device, "bench", "linear fwd", "--candidate", candidate]).output().unwrap()
    };
    let listed = bench("emu", "list");
    assert!(listed.status.success() && listed.stdout.is_empty());
    for (device, fault) in [
        ("emu", "found linear fwd=linear_pair, expected a program built with --features candidates"),
        ("cpu", "omr bench --candidate: found the CPU, expected --device cuda or emu"),
    ] {
        let output = bench(device, "linear fwd=linear_pair");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(fault), "{text}");
    }
}

/// Runs `omr bench ... --turns` with lines of input on a device.
fn turns(device: &str, names: &[&str], input: &str) -> Output {
    let machine = (device == "cuda").then(Machine::new);
    let mut command = Command::new(OMR);
    command.args(["--device", device, "bench", "--turns", "--seconds", "0.001"]).args(names);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(machine) = &machine {
        command.env("LD_LIBRARY_PATH", machine.folder.path()).env("XDG_CACHE_HOME", machine.cache());
        command.env("FAKE_LARGEST_COPY", "1048576").env("FAKE_MEMORY", "4294967296");
    }
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The input ends when the last case is ready.
#[test]
fn a_case_is_measured_when_it_is_its_turn() {
    let output = turns("cuda", &["rms_norm fwd", "copy", "rope"], "turn\n turn \nnext\nnext\n");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = lines(&output);
    let names: Vec<&str> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    let expected = ["rms_norm fwd", "rms_norm fwd", "rms_norm fwd", "copy", "rope fwd"];
    assert_eq!(names, expected);
    let ready: Vec<Value> = lines.iter().map(|line| line["ready"].clone()).collect();
    assert_eq!(json!(ready), json!([true, null, null, true, true]));
    for turn in lines.iter().filter(|line| line["ready"].is_null()) {
        let listed = turn["repetitions"].as_u64().unwrap().min(20) as usize;
        assert_eq!([&turn["first_ms"], &turn["last_ms"]], [&json!(vec![1.5; listed]); 2]);
        assert!(listed > 0 && turn["median_ms"] == 1.5 && turn["clock_mhz"].is_null(), "{turn}");
    }
}

#[test]
fn the_emulator_measures_its_clock_and_another_word_is_an_error() {
    let output = turns("emu", &["copy"], "turn\ngo\nturn\n");
    let (lines, text) = (lines(&output), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code() == Some(2) && text.contains("found go, expected turn or next"), "{text}");
    assert_eq!((lines.len(), &lines[1]["repetitions"], &lines[1]["clock_mhz"]), (2, &json!(2), &json!(1000)));
    let text = String::from_utf8(turns("cpu", &["rope"], "").stderr).unwrap();
    assert!(text.contains("omr bench --turns: found the CPU, expected --device cuda or emu"), "{text}");
}

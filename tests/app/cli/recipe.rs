//! Tests a small `omr recipe` from end to end: its outputs, that a finished run is not changed, and that a run that is
//! killed repeatedly ends with the same bits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use omr_base_tests::wait::until;
use omr_data::rows::read;
use omr_train::training::metrics::{self, Metrics};
use omr_train_tests::training::tiny::{Files, files};
use serde_json::Value;

use super::help::omr;
use super::training::{failure, run};

pub const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/cli/recipe.yaml");

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns the results that must not depend on time or on kills: models, answers, rollouts, and metrics without times.
fn results(dir: &Path) -> (Files, Vec<Vec<Metrics>>) {
    let kept = |name: &str| {
        name.contains("/model/")
            || name.ends_with("samples.jsonl")
            || name.contains("/rollouts/")
            || name.ends_with(".parquet")
    };
    let files = files(dir).into_iter().filter(|(name, _)| kept(name) && !name.contains("checkpoints")).collect();
    let steps = ["sft", "control", "rl"].map(|stage| {
        let mut steps = metrics::read(&dir.join(stage).join("metrics.jsonl")).unwrap();
        steps.iter_mut().for_each(|m| m.retain(|k, _| !k.starts_with("timing_s/") && !k.starts_with("perf/")));
        steps
    });
    (files, steps.to_vec())
}

/// Checks that the recipe in `out` left four images with their questions and printed how to ask about the first.
fn assert_examples(out: &Path, stderr: &str) {
    let questions = std::fs::read_to_string(out.join("examples/questions.jsonl")).unwrap();
    assert_eq!(questions.lines().count(), 4);
    for (i, line) in questions.lines().enumerate() {
        let line: Value = serde_json::from_str(line).unwrap();
        let image = std::fs::read(out.join("examples").join(line["image"].as_str().unwrap())).unwrap();
        assert!(image.starts_with(b"\x89PNG") && line["image"] == format!("{i}.png"), "{line}");
        assert!(line["question"].as_str().unwrap().contains("<image>") && line["ground_truth"].is_string(), "{line}");
    }
    let example = out.join("examples/0.png");
    assert!(stderr.contains(&format!("--image {} --prompt '<image>", example.display())), "{stderr}");
}

#[test]
fn the_recipe_leaves_what_was_promised_and_a_killed_one_the_same() {
    // The run is stored in memory if /dev/shm exists, because its many fsyncs are slow and not under test.
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let out = dir.path().join("out");
    let (code, stdout, stderr) = run(&["recipe", CONFIG, "--out", out.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.trim(), out.join("report.html").to_str().unwrap());

    for stage in ["base", "sft", "control", "rl"] {
        for file in
            ["config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "model.safetensors"]
        {
            assert!(out.join(stage).join("model").join(file).is_file(), "{stage}/model/{file}");
        }
        assert!(out.join("eval").join(stage).join("samples.jsonl").is_file());
        assert_eq!(json(&out.join("eval").join(stage).join("summary.json"))["tasks"]["digits"]["n"], 16);
    }
    for (stage, steps) in [("sft", 200), ("control", 6), ("rl", 6)] {
        let lines = metrics::read(&out.join(stage).join("metrics.jsonl")).unwrap();
        let found: Vec<u64> = lines.iter().map(|m| m["step"].as_u64().unwrap()).collect();
        assert_eq!(found, (1..=steps).collect::<Vec<u64>>(), "{stage}");
        assert!(out.join(stage).join("config.yaml").is_file() && out.join(stage).join("tensorboard").is_dir());
        let latest = std::fs::read_to_string(out.join(stage).join("latest")).unwrap();
        assert_eq!(latest, format!("global_step_{steps}\n"));
        let summary = json(&out.join(stage).join("summary.json"));
        assert!(summary["peak_memory"]["total"].as_u64().unwrap() > 0 && summary["steps"] == steps, "{summary}");
    }
    for step in [2, 4, 6] {
        assert!(out.join(format!("rl/rollouts/{step}.parquet")).is_file());
    }
    let heldout = read::read(&read::entry(out.join("data/heldout.parquet"))).unwrap();
    assert!(heldout.len() == 16 && heldout.iter().all(|row| row.ground_truth.is_some()));
    assert_examples(&out, &stderr);
    let summary = json(&out.join("summary.json"));
    assert_eq!((&summary["seed"], &summary["device"]), (&3.into(), &"cpu".into()));
    for stage in ["base", "sft", "rl", "control"] {
        let stage = &summary["stages"][stage];
        let number = |name: &str| stage[name].as_f64().unwrap_or_else(|| panic!("no {name} in {summary}"));
        let share = |name: &str| assert!((0.0..=1.0).contains(&number(name)), "{name}: {summary}");
        ["acc", "acc_t1", "format"].into_iter().for_each(share);
        assert!(
            stage["n"] == 16 && stage["ci95"][0].as_f64().unwrap() <= stage["ci95"][1].as_f64().unwrap(),
            "{summary}"
        );
    }
    for (part, names) in
        [("seconds", &["data", "sft", "rl", "eval", "total"][..]), ("tokens_per_sec", &["sft", "rollout"])]
    {
        assert!(names.iter().all(|name| summary[part][name].as_f64().unwrap() > 0.0), "{part}: {summary}");
    }

    let before = files(&out);
    assert!(before.keys().all(|name| !name.contains(".tmp") && !name.contains(".old-")), "{:?}", before.keys());
    let (code, again, stderr) = run(&["recipe", CONFIG, "--out", out.to_str().unwrap()]);
    assert_eq!((code, &again), (0, &stdout), "{stderr}");
    assert!(stderr.contains("finished"), "{stderr}");
    for change in ["rl.learning_rate=2e-3", "sft.max_steps=300", "seed=4"] {
        let (key, _) = change.split_once('=').unwrap();
        failure(&["recipe", CONFIG, "--out", out.to_str().unwrap(), change], 2, &[key, "--fresh"]);
    }
    assert!(files(&out) == before, "a finished run was changed");

    let killed = dir.path().join("killed");
    let arguments = ["--quiet", "recipe", CONFIG, "--out", killed.to_str().unwrap()];
    let mut kills = 0;
    for i in 0..8 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        command.env("CUDA_VISIBLE_DEVICES", "");
        let mut child = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until_files(&mut child, &killed, 3 + 7 * (i % 5));
        kills += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
    }
    println!("{kills} kills");
    assert!(omr().args(arguments).output().unwrap().status.success());
    let (found, want) = (results(&killed), results(&out));
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found.0), names(&want.0));
    want.0.iter().for_each(|(name, bytes)| assert!(found.0[name] == *bytes, "{name} differs after kills"));
    assert_eq!(found.1, want.1);
    let left = files(&killed);
    assert!(left.keys().all(|name| !name.contains(".tmp") && !name.contains(".old-")), "{:?}", left.keys());
}

/// Waits until a run has changed the list of its files `changes` times, or has ended.
fn until_files(run: &mut Child, out: &Path, changes: usize) {
    fn names(folder: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        entries.flat_map(|path| if path.is_dir() { names(&path) } else { vec![path] }).collect()
    }
    let (mut last, mut seen) = (names(out), 0);
    until("files", || {
        let now = names(out);
        seen += usize::from(now != last);
        last = now;
        seen >= changes || run.try_wait().unwrap().is_some()
    });
}

#[test]
fn the_recipe_of_charts_is_planned_without_a_run() {
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/charts.yaml");
    let dir = tempfile::tempdir().unwrap();
    let (code, _, stderr) = run(&["recipe", config, "--out", dir.path().join("out").to_str().unwrap(), "--dry-run"]);
    assert!(code == 0 && stderr.contains("omr recipe: charts, seed 1"), "{stderr}");
}

/// Runs base, SFT, control, RL and four evaluations with every kernel on the emulator. A run that is killed at any time
/// ends with the same bits.
#[test]
#[ignore = "minutes: the whole recipe on the emulator"]
fn the_recipe_by_kernels_and_a_killed_one_are_the_same() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let arguments = |out: &Path| -> Vec<String> {
        let small = ["sft.max_steps=8", "sft.save_steps=2", "rl.total_training_steps=2", "rl.save_freq=1"];
        let smaller = ["rl.rollout_freq=1", "task.num_heldout_questions=6", "dtype=auto"];
        let out = ["--out", out.to_str().unwrap()];
        [&["--quiet", "--device", "emu", "recipe", CONFIG][..], &out, &small, &smaller]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect()
    };
    let out = dir.path().join("out");
    let output = omr().args(arguments(&out)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(json(&out.join("summary.json"))["device"], "emu");
    for step in metrics::read(&out.join("rl/metrics.jsonl")).unwrap() {
        assert_eq!(step["training/rollout_probs_diff_max"], 0.0, "{step:?}");
    }
    let killed = dir.path().join("killed");
    let mut kills = 0;
    for i in 0..6 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        command.env("CUDA_VISIBLE_DEVICES", "");
        let mut child = command.args(arguments(&killed)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        until_files(&mut child, &killed, 10 + 20 * (i % 3));
        kills += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
    }
    println!("{kills} kills");
    assert!(omr().args(arguments(&killed)).output().unwrap().status.success());
    let (found, want) = (results(&killed), results(&out));
    want.0.iter().for_each(|(name, bytes)| assert!(found.0[name] == *bytes, "{name} differs after kills"));
    assert_eq!(found.1, want.1);
}

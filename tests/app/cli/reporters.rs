//! Tests `report_to` with a stand-in for the package of W&B, which writes what it receives to a file. The real packages
//! were tried by hand.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use omr_base::config::to_yaml;
use omr_train::training::metrics;
use omr_train_tests::training::tiny::sft_config;
use serde_json::Value;

use super::help::omr;

/// The stand-in: a line per received step. It ends with an error after `WANDB_STEPS` steps.
const WANDB: &str = r#"
import json, os
class Settings:
    def __init__(self, **_): pass
class Run:
    resumed, step, count = False, 0, 0
    def log(self, values, step):
        if self.count == int(os.environ.get("WANDB_STEPS", "1000")): raise RuntimeError("the server is gone")
        self.count += 1
        with open(os.environ["WANDB_FILE"], "a") as file: file.write(json.dumps([step, values]) + "\n")
    def finish(self, exit_code):
        with open(os.environ["WANDB_FILE"], "a") as file: file.write(json.dumps(["end", exit_code]) + "\n")
def init(config, name, **_):
    assert config["max_steps"] == 8 and "omr" in config["start"]["command"] and name.endswith("/out")
    return Run()
"#;

type Steps = BTreeMap<u64, BTreeMap<String, f64>>;

/// Returns the steps that the stand-in received, and the exit codes of its runs.
fn received(file: &Path) -> (Steps, Vec<u64>) {
    let (mut steps, mut ends) = (Steps::new(), Vec::new());
    for line in fs::read_to_string(file).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        match line[0].as_u64() {
            Some(step) => {
                let mut values: BTreeMap<String, f64> = serde_json::from_value(line[1].clone()).unwrap();
                values.remove("_timestamp").unwrap();
                assert!(steps.insert(step, values).is_none(), "step {step} was sent twice");
            }
            None => ends.push(line[1].as_u64().unwrap()),
        }
    }
    (steps, ends)
}

/// Returns the numbers of each line of `metrics.jsonl`.
fn logged(dir: &Path) -> Steps {
    let numbers = |line: &metrics::Metrics| {
        let is_sent = |name: &str| ![metrics::WALL_TIME, "step"].contains(&name);
        line.iter()
            .filter(|(name, _)| is_sent(name))
            .filter_map(|(name, v)| Some((name.clone(), v.as_f64()?)))
            .collect()
    };
    let lines = metrics::read(&dir.join("metrics.jsonl")).unwrap();
    lines.iter().map(|line| (line["step"].as_u64().unwrap(), numbers(line))).collect()
}

#[test]
fn a_service_gets_every_number_once_and_a_dead_reporter_stops_nothing() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("this machine has no python3: report_to is not tried");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("wandb.py"), WANDB).unwrap();
    // YAML is a superset of JSON, and the stand-in reads only the keys that the test needs.
    fs::write(
        path("yaml.py"),
        "def safe_load(text): return {'max_steps': int(text.split('max_steps: ')[1].split()[0])}",
    )
    .unwrap();
    fs::write(path("sft.yaml"), to_yaml(&sft_config(folder.path())).unwrap()).unwrap();
    let run = |packages: &Path, steps: &str| {
        let mut omr = omr();
        omr.args([
            "sft",
            path("sft.yaml").to_str().unwrap(),
            "--out",
            path("out").to_str().unwrap(),
            "report_to=wandb",
        ]);
        omr.env("PYTHONPATH", packages).env("WANDB_FILE", path("received")).env("WANDB_MODE", "offline");
        let done = omr.env("WANDB_STEPS", steps).output().unwrap();
        (done.status.code().unwrap(), String::from_utf8(done.stderr).unwrap())
    };

    fs::create_dir(path("broken")).unwrap();
    fs::write(path("broken/wandb.py"), "import a_missing_package").unwrap();
    let (code, stderr) = run(&path("broken"), "0");
    let expected =
        "report_to: found wandb: No module named 'a_missing_package'; pip install wandb, expected tensorboard";
    assert!(code == 2 && stderr.contains(expected) && !path("out").exists(), "{stderr}");

    let (code, stderr) = run(folder.path(), "0");
    assert!(code == 0 && stderr.contains("to send the rest: python3 "), "{code}: {stderr}");
    assert!(!path("out/tensorboard").exists() && !path("received").exists());
    let rest = stderr.split("to send the rest: ").nth(1).unwrap().lines().next().unwrap();
    let send = |steps: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", rest]).env("PYTHONPATH", folder.path()).env("WANDB_FILE", path("received"));
        shell.env("WANDB_STEPS", steps).output().unwrap().status.success()
    };
    assert!(send("1000"), "{rest}");
    let (steps, ends) = received(&path("received"));
    assert_eq!((steps.len(), ends), (8, vec![0]));
    assert_eq!(steps, logged(&path("out")));

    // The same run again, followed while it continues.
    fs::remove_dir_all(path("out")).unwrap();
    fs::remove_file(path("received")).unwrap();
    let (code, stderr) = run(folder.path(), "1000");
    assert!(code == 0 && !stderr.contains("warning"), "{stderr}");
    assert_eq!(received(&path("received")), (logged(&path("out")), vec![0]));
    assert!(send("1000"), "nothing is left to send");
    assert_eq!(received(&path("received")).0.len(), 8);
    // A state of another run, or a damaged one: nothing is sent, and the user is told.
    fs::write(path("out/reporters/wandb.json"), r#"{"id": "x", "step": 1000000000}"#).unwrap();
    assert!(!send("1000"), "step 1000000000 was never sent");
}

//! Tests `omr sft`, `omr rl` and `omr eval` as users run them. Invalid input gives one clear error and leaves nothing
//! half-written, a finished run is not changed, and a stopped run continues.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use omr_base::config::{Dtype, ImageConfig, RlConfig, SftConfig, to_yaml};
use omr_base::error::Error;
use omr_base_tests::wait::until;
use omr_data::rows::samples::encoder::EncodingPurpose;
use omr_data::rows::{Encoder, Form, read, write};
use omr_data::text::ChatConfig;
use omr_model::nn::ModelConfig;
use omr_train_tests::training::tiny::{self, Outcome, files, rl_config, rows, run_rl, run_sft, sft_config, training};
use serde_json::{Value, json};

use super::help::omr;

/// Runs `omr` and returns its exit status, stdout and stderr.
pub fn run(args: &[&str]) -> (i32, String, String) {
    let output = omr().args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Runs a command that must fail with `code` and one line on stderr. The line must contain all of `parts`.
pub fn failure(args: &[&str], code: i32, parts: &[&str]) -> String {
    let (found, stdout, stderr) = run(&[&["--quiet"], args].concat());
    assert_eq!((found, stdout.as_str()), (code, ""), "{args:?}: {stderr}");
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{args:?}: {stderr}");
    parts.iter().for_each(|part| assert!(stderr.contains(part), "{part} is not in {stderr}"));
    stderr
}

pub struct Folder(tempfile::TempDir);

impl Folder {
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn sft(&self, change: impl FnOnce(&mut SftConfig)) -> String {
        let mut config = sft_config(self.path());
        change(&mut config);
        fs::write(self.at("sft.yaml"), to_yaml(&config).unwrap()).unwrap();
        self.at("sft.yaml")
    }

    pub fn rl(&self, change: impl FnOnce(&mut RlConfig)) -> String {
        let mut config = rl_config(self.path());
        change(&mut config);
        fs::write(self.at("rl.yaml"), to_yaml(&config).unwrap()).unwrap();
        self.at("rl.yaml")
    }
}

#[test]
fn wrong_rows_are_named_by_both_and_leave_nothing() {
    let folder = Folder::new();
    let (rows, out) = (folder.at("rows.jsonl"), folder.at("out"));
    let sft = folder.sft(|c| c.datasets = vec![read::entry(&rows)]);
    let rl = folder.rl(|c| c.train_files = vec![read::entry(&rows)]);
    let image = |bytes: &[u8]| json!({"bytes": STANDARD.encode(bytes)});
    let mut png = std::io::Cursor::new(Vec::new());
    image::GrayImage::new(28, 28).write_to(&mut png, image::ImageFormat::Png).unwrap();
    let png = png.into_inner();
    let row = |question: &str, images: Value| {
        json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "<answer>1</answer>"}],
            "images": images, "answer": "1"})
    };
    let good = row("<image>Which digit is larger?", json!([image(&png)]));
    let cases = [
        (json!({"id": 1, "text": "x"}), "messages"),
        (row("<image>?", json!([image(&png[..24])])), "row 2"),
        (row("<image>?", json!([image(b"\x89PNG\r\n\x1a\nno")])), "row 2"),
        (row("<image><image>?", json!([image(&png)])), "2 image placeholders"),
        (row("<image>?", json!(["gone.png"])), "gone.png"),
    ];
    for (line, part) in cases {
        fs::write(&rows, format!("{good}\n{line}\n")).unwrap();
        for (command, config) in [("sft", &sft), ("rl", &rl)] {
            failure(&[command, config, "--out", &out], 2, &["rows.jsonl", part]);
        }
    }
    fs::write(&rows, format!("{good}\n")).unwrap();
    let unanswered = good.to_string().replace("\"answer\"", "\"other\"");
    fs::write(folder.at("unanswered.jsonl"), unanswered).unwrap();
    let other = format!("train_files.0.path={}", folder.at("unanswered.jsonl"));
    failure(&["rl", &rl, "--out", &out, &other], 2, &["unanswered.jsonl row 1", "ground_truth"]);
    let missing = format!("datasets.0.path={}", folder.at("gone.parquet"));
    failure(&["sft", &sft, "--out", &out, &missing], 2, &["gone.parquet"]);
    assert!(!Path::new(&out).exists());
}

/// The run's `config.yaml` has the number that `auto` chose, and a later start compares it like any key.
#[test]
fn a_size_that_omr_chooses_is_a_number_of_the_run() {
    let folder = Folder::new();
    let (sft, out) = (folder.sft(|_| {}), folder.at("out"));
    let command = ["sft", &sft, "--out", &out, "micro_batch_tokens=auto"];
    let started = || {
        let (code, _, stderr) = run(&command);
        assert_eq!(code, 0, "{stderr}");
        let written = fs::read_to_string(Path::new(&out).join("config.yaml")).unwrap();
        let line = written.lines().find_map(|line| line.strip_prefix("micro_batch_tokens: ")).unwrap();
        line.parse::<usize>().unwrap_or_else(|_| panic!("{line}"))
    };
    let chosen = started();
    assert_eq!(started(), chosen);
    let other = format!("micro_batch_tokens={}", chosen / 2);
    failure(&["sft", &sft, "--out", &out, &other], 2, &["micro_batch_tokens", &chosen.to_string()]);
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/digits.yaml");
    let parts = ["sft.micro_batch_tokens", "found auto", "the same bits on every machine"];
    failure(&["recipe", recipe, "--out", &folder.at("recipe"), "sft.micro_batch_tokens=auto"], 2, &parts);
}

#[test]
fn wrong_settings_name_the_key_and_the_nearest_one() {
    let folder = Folder::new();
    let (sft, rl, out) = (folder.sft(|_| {}), folder.rl(|_| {}), folder.at("out"));
    let typo = folder.at("typo.yaml");
    fs::write(&typo, "rollout: {temprature: 1}\n").unwrap();
    failure(&["rl", &typo, "--out", &out], 2, &["typo.yaml: rollout.temprature", "did you mean temperature?"]);
    failure(&["sft", &sft, "--out", &out, "learning_rat=1"], 2, &["learning_rat", "did you mean learning_rate?"]);
    failure(&["sft", &sft, "--out", &out, "max_steps=none"], 2, &["max_steps", "none"]);
    failure(&["sft", &sft, "--out", &out, "packing_length=20"], 2, &["packing_length"]);
    let both = ["train_batch_size=2", "gradient_accumulation_steps=2"];
    failure(&[&["sft", &sft, "--out", &out][..], &both].concat(), 2, &["gradient_accumulation_steps: found 2"]);
    failure(&["rl", &rl, "--out", &out, "micro_batch_tokens=20"], 2, &["micro_batch_tokens"]);
    failure(&["rl", &rl, "--out", &out, "rollout.temperature=0"], 2, &["rollout.temperature", "0.000001 or more"]);
    failure(&["rl", &rl, "--out", &out, "ppo_mini_batch_size=3"], 2, &["ppo_mini_batch_size", "divisor"]);
    failure(&["rl", &rl, "--out", &out, "max_prompt_length=3"], 2, &["max_prompt_length"]);
    failure(&["sft", &sft, "--out", &out, "model=nowhere"], 2, &["nowhere"]);
    for (command, config, every) in [("rl", &rl, "test_freq"), ("sft", &sft, "eval_steps")] {
        let wrong = |keys: &[&str], parts: &[&str]| {
            failure(&[&[command, config, "--out", &out][..], keys].concat(), 2, parts);
        };
        let often = format!("{every}=2");
        wrong(&[&often], &[every, "found 2", "val_files, val_size or val_tasks"]);
        wrong(&["val_tasks=[digits]", "metric_for_best_model=acc"], &["metric_for_best_model", every]);
        wrong(
            &["val_tasks=[digits]", "metric_for_best_model=acc", &often],
            &["found acc", "val-core/digits/acc/mean@1"],
        );
        wrong(&["val_size=3", "early_stopping_patience=2"], &["early_stopping_patience: found 2", every]);
        wrong(&["val_size=3", "load_best_model_at_end=true"], &["load_best_model_at_end: found true", every]);
        wrong(&["val_size=3", "early_stopping_threshold=1"], &["early_stopping_threshold", "early_stopping_patience"]);
        wrong(&["val_size=3", "greater_is_better=true"], &["greater_is_better", "metric_for_best_model"]);
        wrong(&["val_size=2.5", &often], &["val_size: found 2.5", "a share below 1, or a whole number"]);
        let twice = format!("val_files=[{{path: {}, weight: 2}}]", folder.at("sft.parquet"));
        wrong(&[&twice, &often], &["val_files[0].weight: found 2", "each row is measured once"]);
        wrong(&["val_size=12", &often], &["val_size: found 12, which is 12 of 12 rows", "leaves rows to train on"]);
        wrong(&["val_tasks=[digitz]", &often], &["val_tasks", "digitz", "digits"]);
        wrong(&["val_files=gone.parquet", &often], &["gone.parquet"]);
        wrong(&["val_tasks=[digits]", "val_kwargs.n=2"], &["val_kwargs.n", "val_kwargs.temperature"]);
    }
    assert!(!Path::new(&out).exists());
}

/// On a machine without a GPU, a dry run for one has no limit but the memory of the host.
#[test]
fn optimizer_state_beyond_the_hosts_memory_is_refused() {
    let folder = Folder::new();
    let sft = folder.sft(|config| {
        config.dtype = Dtype::Bf16;
        config.optimizer.optimizer_offload = true;
    });
    let path = folder.path().join("base/config.json");
    let mut shape: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    shape["intermediate_size"] = (1 << 24).into();
    shape["num_hidden_layers"] = 400.into();
    fs::write(&path, shape.to_string()).unwrap();
    fs::remove_file(folder.path().join("base/model.safetensors")).unwrap();
    let out = folder.at("large");
    let (code, _, err) = run(&["--device", "cuda", "sft", &sft, "--out", &out, "--dry-run"]);
    println!("{err}");
    assert!(code == 2 && err.contains("more on the host"), "{code}: {err}");
    let offloaded = "optimizer_offload: found true, with ";
    assert!(
        err.contains("memory: found") || err.contains(offloaded) && err.contains("free memory of the host"),
        "{err}"
    );
}

#[test]
fn a_model_that_does_not_fit_is_named() {
    let folder = Folder::new();
    let (sft, rl) = (folder.sft(|_| {}), folder.rl(|_| {}));
    let weights = folder.path().join("base/model.safetensors");
    let whole = fs::read(&weights).unwrap();
    for len in [whole.len() - 1, whole.len() / 2, 100, 4, 0] {
        fs::write(&weights, &whole[..len]).unwrap();
        let out = folder.at("truncated");
        failure(&["sft", &sft, "--out", &out], 2, &["model.safetensors"]);
        assert!(!Path::new(&out).exists());
    }
    fs::write(&weights, &whole).unwrap();
    // A tokenizer of another model.
    for (model, command, config) in [("base", "sft", &sft), ("tuned", "rl", &rl)] {
        let path = folder.path().join(model).join("config.json");
        let mut shape: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        shape["image_token_id"] = 99.into();
        fs::write(&path, shape.to_string()).unwrap();
        let out = folder.at("tokenizer");
        failure(&[command, config, "--out", &out], 2, &[model, "image_token_id 99", "special token"]);
        assert!(!Path::new(&out).exists());
    }
}

#[test]
fn a_tokenizer_with_more_ids_than_the_model_has_rows_is_named() {
    let folder = Folder::new();
    let model = sft_config(folder.path()).model.unwrap();
    let config = ModelConfig::load(&model.join("config.json")).unwrap().chat();
    let config = ChatConfig { vocab_size: 100, ..config };
    let encoder = Encoder::load(&model, &config, EncodingPurpose::Train, &ImageConfig::default()).unwrap();
    let error = Error::from(encoder.measure(&tiny::rows()[0]).unwrap_err()).to_string();
    assert!(error.contains("row 1") && error.contains("token") && error.contains("vocab_size 100"), "{error}");
}

#[test]
fn a_finished_run_is_left_alone_and_another_config_is_refused() {
    let folder = Folder::new();
    let (sft, out) = (folder.sft(|c| c.max_steps = Some(3)), folder.at("out"));
    let model = format!("{}\n", Path::new(&out).join("model").display());
    let (code, stdout, stderr) = run(&["sft", &sft, "--out", &out, "--dry-run"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert!(stderr.contains("3 updates over 12 rows") && !Path::new(&out).exists(), "{stderr}");
    let (code, stdout, stderr) = run(&["--quiet", "sft", &sft, "--out", &out, "--dry-run", "--json"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    let planned: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&planned["job"], &planned["updates"]), (&json!("sft"), &json!(3)), "{stdout}");
    let regions = planned["memory"]["regions"].as_object().unwrap();
    let sum: u64 = regions.values().filter_map(Value::as_u64).sum();
    assert!(sum > 0 && planned["memory"]["total"] == sum && planned["disk"].as_u64() > Some(0), "{stdout}");
    // The run is on the CPU, for which no time is predicted.
    assert!(planned["one_card"].is_null() && !stderr.contains("H200"), "{stdout}");
    let (code, _, stderr) = run(&["sft", &sft, "--out", &out, "--json"]);
    assert!(code == 2 && stderr.contains("--dry-run"), "{stderr}");
    let (code, stdout, stderr) = run(&["sft", &sft, "--out", &out]);
    assert_eq!((code, &stdout), (0, &model), "{stderr}");
    let before = files(Path::new(&out));
    for name in ["config.yaml", "log.txt", "metrics.jsonl", "summary.json", "latest", "model/model.safetensors"] {
        assert!(before.contains_key(name), "{name}");
    }
    let (code, stdout, stderr) = run(&["sft", &sft, "--out", &out]);
    assert!(code == 0 && stdout == model && stderr.contains("finished"), "{stderr}");
    failure(&["sft", &sft, "--out", &out, "learning_rate=0.5"], 2, &["learning_rate was 0.01 and is 0.5", "--fresh"]);
    failure(&["sft", &sft, "--out", &out, "max_steps=2"], 2, &["max_steps was 3 and is 2"]);
    let lock = omr_base::files::Lock::take(Path::new(&out), "").unwrap();
    failure(&["sft", &sft, "--out", &out, "max_steps=4"], 2, &["another omr process", &out]);
    drop(lock);
    assert!(files(Path::new(&out)) == before, "a finished run was changed");
    let (code, _, stderr) = run(&["sft", &sft, "--out", &out, "max_steps=4"]);
    assert!(code == 0 && stderr.contains("max_steps was 3 and is 4"), "{stderr}");
    assert_eq!(fs::read_to_string(Path::new(&out).join("latest")).unwrap(), "global_step_4\n");
    let (code, _, stderr) = run(&["sft", &sft, "--out", &out, "max_steps=4", "resume=never"]);
    assert!(code == 0 && stderr.contains("finished"), "{stderr}");
    let (code, _, _) = run(&["sft", &sft, "--out", &out, "--fresh"]);
    assert!(code == 0 && folder.path().join("out.1/model").is_dir());
    assert_eq!(fs::read_to_string(Path::new(&out).join("latest")).unwrap(), "global_step_3\n");
}

#[test]
fn a_damaged_checkpoint_is_named_and_nothing_is_changed() {
    let folder = Folder::new();
    let (sft, out) = (folder.sft(|c| c.max_steps = Some(2)), folder.at("out"));
    fs::write(&out, "a file").unwrap();
    failure(&["sft", &sft, "--out", &out], 2, &[&out, "found a file"]);
    fs::remove_file(&out).unwrap();
    let (code, _, stderr) = run(&["sft", &sft, "--out", &out]);
    assert_eq!(code, 0, "{stderr}");
    let checkpoint = Path::new(&out).join("checkpoints/global_step_2");
    for (name, len) in
        [("trainer/optim-00001-of-00001.safetensors", 1000), ("trainer/state.json", 20), ("model.safetensors", 9)]
    {
        let path = checkpoint.join(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..len]).unwrap();
        let before = files(Path::new(&out));
        failure(&["sft", &sft, "--out", &out, "max_steps=3"], 2, &[path.to_str().unwrap()]);
        let mut after = files(Path::new(&out));
        for log in ["config.yaml", "log.txt", "starts.jsonl"] {
            after.insert(log.to_owned(), before[log].clone());
        }
        assert!(after == before, "{name}: {:?}", after.keys());
        fs::write(&path, &whole).unwrap();
    }
    let (code, _, stderr) = run(&["sft", &sft, "--out", &out, "max_steps=3"]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn rl_and_eval_run_once() {
    let folder = Folder::new();
    let (rl, out) = (folder.rl(|c| c.total_training_steps = Some(1)), folder.at("out"));
    let (code, stdout, stderr) = run(&["rl", &rl, "--out", &out]);
    assert_eq!((code, stdout.trim()), (0, folder.at("out/model").as_str()), "{stderr}");
    write::write(&folder.path().join("heldout.parquet"), &rows(), Form::Rl).unwrap();
    let (model, measured) = (folder.at("out/model"), folder.at("measured"));
    let args =
        ["eval", "--model", &model, "--data", &folder.at(""), "--out", &measured, "dtype=f32", "max_new_tokens=24"];
    let (code, stdout, stderr) = run(&args);
    assert_eq!((code, stdout.trim()), (0, folder.at("measured/summary.json").as_str()), "{stderr}");
    let summary: Value = serde_json::from_slice(&fs::read(folder.at("measured/summary.json")).unwrap()).unwrap();
    assert!(summary["tasks"]["digits"]["n"] == 12 && summary["judge"].is_null(), "{summary}");
    for run_dir in [&out, &measured] {
        let before = files(Path::new(run_dir));
        assert!(before.contains_key("config.yaml") && before.contains_key("log.txt"), "{:?}", before.keys());
        let (code, _, stderr) = if run_dir == &out { run(&["rl", &rl, "--out", &out]) } else { run(&args) };
        assert!(code == 0 && stderr.contains("finished"), "{stderr}");
        assert!(files(Path::new(run_dir)) == before, "{run_dir} was changed");
    }
    failure(&[&args[..], &["mode=compat"]].concat(), 2, &["mode was strict and is compat"]);
}

#[test]
fn ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on() {
    stopped_by("-INT");
}

#[test]
fn a_terminal_that_closes_leaves_a_checkpoint_too() {
    stopped_by("-HUP");
}

fn stopped_by(signal: &str) {
    let folder = Folder::new();
    let (sft, out) = (folder.sft(|c| c.max_steps = Some(3000)), folder.at("out"));
    // Under nohup, this process and therefore its child would ignore the signal.
    let mut command = Command::new("env");
    command.env("CUDA_VISIBLE_DEVICES", "").args(["--default-signal=HUP", env!("CARGO_BIN_EXE_omr")]);
    let child = command.args(["sft", &sft, "--out", &out]).stderr(Stdio::piped()).spawn().unwrap();
    let metrics = Path::new(&out).join("metrics.jsonl");
    until("a step", || fs::metadata(&metrics).is_ok_and(|m| m.len() > 0));
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("stopping: "), "{stderr}");
    assert!(stderr.contains("checkpoint of step") && stderr.contains("run the same command again"), "{stderr}");
    let latest = fs::read_to_string(Path::new(&out).join("latest")).unwrap();
    let checkpoint = Path::new(&out).join("checkpoints").join(latest.trim());
    assert!(checkpoint.join("trainer/state.json").is_file());
    let steps = fs::read_to_string(&metrics).unwrap().lines().count();
    assert_eq!(latest, format!("global_step_{steps}\n"));
}

#[test]
fn a_stop_inside_a_step_writes_no_checkpoint_and_the_next_run_takes_up_the_journal() {
    let folder = Folder::new();
    let (rl, out) = (folder.rl(|c| c.training.save_on_stop = Some(false)), folder.at("out"));
    let whole = run_rl(&folder.path().join("whole"), &rl_config(folder.path()), 1, &[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
    let child = command.args(["rl", &rl, "--out", &out]).stderr(Stdio::piped()).spawn().unwrap();
    let journal = Path::new(&out).join("journal/1.jsonl");
    until("a rollout", || fs::read_to_string(&journal).is_ok_and(|text| text.lines().count() >= 2));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    let printed = ["stopping: ", "stopped after step 0: no finished update is lost", "run the same command again"];
    printed.iter().for_each(|part| assert!(stderr.contains(part), "{part} is not in {stderr}"));
    assert!(!Path::new(&out).join("checkpoints").exists());
    let (code, _, stderr) = run(&["rl", &rl, "--out", &out]);
    assert!(code == 0 && stderr.contains("from the journal"), "{stderr}");
    whole.assert_same(&Outcome::of(Path::new(&out)), "stopped inside a step");
}

/// A folder on its own file system of 2 MiB. It does not exist if this process is not allowed to mount.
struct Small(PathBuf);

impl Small {
    fn mount(at: PathBuf) -> Option<Small> {
        fs::create_dir(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&at).output();
        mounted.is_ok_and(|out| out.status.success()).then_some(Small(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_fills_up_keeps_the_older_checkpoints_and_the_run_goes_on_later() {
    let folder = Folder::new();
    let training = training(|t| t.save_total_limit = Some(100));
    let config = SftConfig { save_steps: Some(1), training, ..sft_config(folder.path()) };
    let sft = folder.sft(|c| *c = config.clone());
    let Some(small) = Small::mount(folder.path().join("small")) else {
        println!("skipped: a tmpfs cannot be mounted here");
        return;
    };
    let out = small.0.join("out");
    let stderr = failure(&["sft", &sft, "--out", out.to_str().unwrap()], 1, &["No space left", "checkpoints"]);
    let left = files(&out);
    let whole: Vec<&String> = left.keys().filter(|name| name.ends_with("trainer/state.json")).collect();
    println!("{} checkpoints, then {stderr}", whole.len());
    assert!(!whole.is_empty() && whole.len() < 8);
    assert!(left.keys().all(|name| !name.contains(".tmp")), "{:?}", left.keys());
    assert_eq!(left["latest"], format!("global_step_{}\n", whole.len()).as_bytes());

    let larger = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&small.0).status().unwrap();
    assert!(larger.success());
    let (code, _, stderr) = run(&["sft", &sft, "--out", out.to_str().unwrap()]);
    assert_eq!(code, 0, "{stderr}");
    let undisturbed = run_sft(&folder.path().join("whole"), &config, 1, &[]);
    undisturbed.assert_same(&Outcome::of(&out), "after a full disk");
}

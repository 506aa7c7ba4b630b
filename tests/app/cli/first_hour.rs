//! Tests what a new user meets in the first hour: wrong paths, wrong words, the first report.

use std::fs;
use std::path::Path;

use omr_base::config::{LoraConfig, RlConfig, SftConfig, to_yaml};
use omr_data::rows::read;
use omr_train_tests::training::tiny;

use super::training::{failure, run};

/// Writes configs, rows and the base model of the tiny jobs, and returns the paths of both configs.
fn configs(dir: &Path, sft: impl FnOnce(&mut SftConfig), rl: impl FnOnce(&mut RlConfig)) -> [String; 2] {
    let (mut of_sft, mut of_rl) = (tiny::sft_config(dir), tiny::rl_config(dir));
    sft(&mut of_sft);
    rl(&mut of_rl);
    let write = |name: &str, text: String| {
        fs::write(dir.join(name), text).unwrap();
        dir.join(name).to_str().unwrap().to_owned()
    };
    [write("sft.yaml", to_yaml(&of_sft).unwrap()), write("rl.yaml", to_yaml(&of_rl).unwrap())]
}

#[test]
fn a_run_writes_its_report_and_its_folder_is_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [sft, rl] = configs(folder.path(), |_| {}, |_| {});
    let (code, _, stderr) = run(&["sft", &sft, "--out", &at("run")]);
    assert!(code == 0 && stderr.contains(&format!("report: {}", at("run/report.html"))), "{stderr}");
    let page = fs::read_to_string(at("run/report.html")).unwrap();
    assert!(page.contains("Loss ") && !page.contains("No step is finished yet."));
    // The folder of the run is given where a model directory is expected.
    let (code, answer, stderr) = run(&["generate", "--model", &at("run"), "--prompt", "How many?", "max_tokens=2"]);
    assert_eq!(code, 0, "{answer}{stderr}");
    let (code, _, stderr) = run(&["rl", &rl, &format!("model={}", at("run")), "--out", &at("rl"), "--dry-run"]);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = run(&["chat", &at("run"), "max_tokens=2"]);
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn a_missing_model_does_not_exist_and_a_recipes_folder_names_its_stages() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [sft, _] = configs(folder.path(), |_| {}, |_| {});
    let model = format!("model={}", at("base/nothing"));
    failure(&["sft", &sft, &model, "--out", &at("run")], 2, &["model", "base/nothing", "does not exist"]);
    failure(&["generate", "--model", &at("none"), "--prompt", "x"], 2, &["--model", "none", "does not exist"]);
    fs::create_dir(at("recipe")).unwrap();
    fs::write(at("recipe/config.yaml"), "# omr 0.1.0, on cpu\nseed: 1\n").unwrap();
    failure(
        &["generate", "--model", &at("recipe"), "--prompt", "x"],
        2,
        &["a run folder without a model", "DIR/rl/model"],
    );
    fs::create_dir(at("old")).unwrap();
    for file in fs::read_dir(at("base")).unwrap().map(|file| file.unwrap().path()) {
        fs::copy(&file, Path::new(&at("old")).join(file.file_name().unwrap())).unwrap();
    }
    fs::remove_file(at("old/model.safetensors")).unwrap();
    for (file, bytes, parts) in [
        ("pytorch_model.bin", "x", ["pytorch_model.bin", "save_pretrained"]),
        (
            "model.safetensors",
            "version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            ["Git LFS", "git lfs pull"],
        ),
    ] {
        fs::write(at("old").clone() + "/" + file, bytes).unwrap();
        failure(&["generate", "--model", &at("old"), "--prompt", "x"], 2, &parts);
    }
}

#[test]
fn an_adapter_with_other_settings_is_refused_before_it_is_planned() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let lora = LoraConfig { rank: 4, alpha: 8.0, ..LoraConfig::default() };
    let [sft, rl] = configs(folder.path(), |c| c.optimizer.lora = Some(lora.clone()), |_| {});
    assert_eq!(run(&["sft", &sft, "--out", &at("run")]).0, 0);
    let (model, out) = (format!("model={}", at("run/model")), at("refused"));
    let of_adapter = "rank 4, scale 2";
    for (setting, parts) in [
        ("lora.rank=2", ["rank 2, scale 4", of_adapter]),
        ("lora.alpha=32", ["rank 4, scale 8", of_adapter]),
        ("lora.target_modules=[q_proj]", [of_adapter, "its layers"]),
        ("lora=null", ["the directory of an adapter", "omr export --merge"]),
    ] {
        failure(&["sft", &sft, "--out", &out, "--dry-run", &model, setting], 2, &parts);
    }
    failure(
        &["rl", &rl, "--out", &out, "--dry-run", &model],
        2,
        &["the directory of an adapter", "omr export --merge"],
    );
}

#[test]
fn a_config_key_written_as_a_flag_is_explained() {
    for flag in ["--learning_rate", "--learning-rate"] {
        let (code, _, stderr) = run(&["sft", "sft.yaml", "--out", "x", flag, "1e-5"]);
        assert!(code == 2 && stderr.contains("learning_rate=VALUE"), "{stderr}");
    }
    let folder = tempfile::tempdir().unwrap();
    let [sft, _] = configs(folder.path(), |_| {}, |_| {});
    failure(&["sft", &sft, "--out", "x", "lr=1e-5"], 2, &["unknown key lr", "learning_rate"]);
    failure(&["rl", "algorithm.adv_estimator=grpo", "--out", "x"], 2, &["CONFIG", "before the first key=value"]);
    let (code, stdout, _) = run(&["config", "sft", "--grep", "per_device_train_batch_size"]);
    assert!(code == 0 && stdout.contains("per_device_train_batch_size"), "{stdout}");
    failure(&["config", "sft", "--grep", "no such name"], 2, &["--grep", "no such name"]);
    for command in ["sft", "rl", "serve", "generate"] {
        assert!(!run(&[command, "--help"]).1.contains("rl.rollout.n"), "{command}");
    }
    assert!(run(&["recipe", "--help"]).1.contains("rl.rollout.n=16"));
}

#[test]
fn files_that_are_no_rows_are_named_with_the_known_endings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.xlsx");
    fs::write(&path, "PK").unwrap();
    failure(&["data", "inspect", path.to_str().unwrap()], 2, &["rows.xlsx", ".parquet", ".jsonl"]);
}

#[test]
fn rows_that_are_all_too_long_are_refused_with_the_length_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let [sft, _] = configs(folder.path(), |c| c.packing_length = 4, |_| {});
    let out = folder.path().join("run");
    let stderr = failure(&["sft", &sft, "--out", out.to_str().unwrap()], 2, &["packing_length", "rows are longer"]);
    assert!(stderr.contains(" tokens") || stderr.contains(" bytes of text"), "{stderr}");
    fs::write(folder.path().join("bad.jsonl"), "{\"question\": 1, \"answer\": \"2\"}\n").unwrap();
    let rows = format!("datasets=[{{path: '{}'}}]", folder.path().join("bad.jsonl").display());
    let words = ["sft", &sft, "--out", out.to_str().unwrap(), &rows, "max_bad_rows=1"];
    failure(&words, 2, &["max_bad_rows: found 1 of 1 rows left out", "usable row"]);
}

/// A wrong reward function ends the command before the first rollout, with one error and without a run folder.
#[test]
fn a_wrong_reward_function_is_found_before_the_first_rollout() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [_, rl] = configs(folder.path(), |_| {}, |_| {});
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/my_reward.py");
    let function = "(data_source, solution_str, ground_truth, extra_info):\n    ";
    let out = at("run");
    for (text, part) in [
        ("import no_such_module\n".to_owned(), "No module named 'no_such_module'"),
        ("x = 1\n".to_owned(), "mine.py has no function compute_score, only none"),
        ("def compute_score(response): return 1\n".to_owned(), "compute_score(response): expected a parameter"),
        (format!("def compute_score{function}return 'high'\n"), "compute_score returned 'high', expected a number"),
    ] {
        fs::write(at("mine.py"), text).unwrap();
        let command = format!("reward.command=[python3, {}, {}]", example.display(), at("mine.py"));
        for more in [&["--dry-run"][..], &[]] {
            let args = [&["rl", &rl, "--out", &out, &command, "reward.workers=1"], more].concat();
            let stderr = failure(&args, 1, &["row ", part]);
            assert!(!stderr.contains("Traceback") && !Path::new(&at("run/metrics.jsonl")).exists(), "{stderr}");
        }
        let model = at("base");
        let args = ["eval", "--model", &model, "--tasks", "digits", "--out", &out, "--limit", "2", &command];
        failure(&args, 1, &["row ", part]);
        assert!(!Path::new(&out).exists());
    }
    // The columns of the rows reach the function, and what it prints is in the log only.
    let used = "assert extra_info['level'] > 0 and extra_info['problem'], extra_info";
    let body = format!("{used}\n    print('the function printed this')\n    return True");
    fs::write(at("mine.py"), format!("def compute_score{function}{body}\n")).unwrap();
    let row = "{\"problem\": \"How many?\", \"answer\": \"3\", \"level\": 2}\n";
    fs::write(at("rows.jsonl"), row.repeat(8)).unwrap();
    let rows = format!("train_files=[{}]", at("rows.jsonl"));
    let command = format!("reward.command=[python3, {}, {}]", example.display(), at("mine.py"));
    let (code, _, stderr) = run(&["rl", &rl, "--out", &at("run"), &command, &rows]);
    assert!(code == 0 && !stderr.contains("the function printed this"), "{stderr}");
    assert!(fs::read_to_string(at("run/log.txt")).unwrap().contains("the function printed this"));
}

/// The rewards of the first step fail: no step was made, so the corrected command is accepted.
#[test]
fn a_run_whose_first_step_failed_accepts_the_corrected_command() {
    let folder = tempfile::tempdir().unwrap();
    let [_, rl] = configs(folder.path(), |_| {}, |_| {});
    let script = folder.path().join("reward.py");
    let answers = |body: &str| fs::write(&script, format!("import sys\nfor line in sys.stdin:\n    {body}\n")).unwrap();
    // The first line is the trial before the run.
    answers(
        "print('{\"score\": \"high\"}' if 'id' in globals() else '{\"score\": 1}', flush=True); globals()['id'] = 1",
    );
    let out = folder.path().join("run");
    let command = format!("reward.command=[python3, {}]", script.display());
    let args = ["rl", &rl, "--out", out.to_str().unwrap(), &command, "reward.workers=1"];
    let (code, _, stderr) = run(&args);
    assert!(code != 0, "{stderr}");
    let (code, _, stderr) = run(&args[..4]);
    assert!(code == 0 && stderr.contains("had made no step"), "{stderr}");
}

#[test]
fn a_published_model_is_planned_before_it_is_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    let [sft, _] = configs(folder.path(), |c| c.datasets = vec![read::entry("rows.jsonl")], |_| {});
    let plan =
        |model: &str| run(&["plan", &sft, &format!("model={model}"), "--gpu", "h200", "--gpus", "8", "dtype=bf16"]);
    let (code, page, stderr) = plan("Qwen/Qwen2.5-VL-3B-Instruct");
    assert!(code == 0 && page.contains("memory"), "{page}{stderr}");
    let (code, _, stderr) = plan("Qwen/Qwen2.5-VL-5B-Instruct");
    assert!(code == 2 && stderr.contains("--include config.json"), "{stderr}");
}

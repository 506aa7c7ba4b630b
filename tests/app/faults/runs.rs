//! Tests what runs do to folders and what they write. Files of the user stay. A refused command leaves no trace. Only
//! one process works in a folder. Secrets are never shown, and a config that expands without end is refused.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use omr_base::config::{RlConfig, SftConfig, to_yaml};
use omr_base::files::Lock;
use omr_base_tests::wait::until;
use omr_train_tests::training::tiny::{files, sft_config};
use serde_json::json;

const RECIPE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/cli/recipe.yaml");

/// Runs `omr`, which must exit with `code`. Returns its stdout and stderr.
fn omr(args: &[&str], code: i32) -> String {
    with(args, &[], code)
}

fn with(args: &[&str], variables: &[(&str, &str)], code: i32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
    let command = command.args(args).env("CUDA_VISIBLE_DEVICES", "").env("HF_HUB_OFFLINE", "1");
    let Output { status, stdout, stderr } = command.envs(variables.iter().copied()).output().unwrap();
    let text = String::from_utf8([stdout, stderr].concat()).unwrap();
    assert_eq!(status.code(), Some(code), "{args:?}: {text}");
    text
}

struct Folder(tempfile::TempDir);

impl Folder {
    /// Creates a folder with the configs `sft.yaml`, `rl.yaml` and `format.yaml`, models and rows.
    fn new() -> Folder {
        let folder = Folder(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap());
        let dir = folder.0.path();
        let sft = SftConfig { max_steps: Some(1), ..sft_config(dir) };
        let rl = RlConfig { model: sft.model.clone(), train_files: sft.datasets.clone(), ..RlConfig::default() };
        fs::write(dir.join("sft.yaml"), to_yaml(&sft).unwrap()).unwrap();
        fs::write(dir.join("rl.yaml"), to_yaml(&rl).unwrap()).unwrap();
        fs::write(
            dir.join("q.jsonl"),
            json!({"id": "1", "prompt": "1+1?", "problem": "1+1?", "answer": "2"}).to_string() + "\n",
        )
        .unwrap();
        fs::write(dir.join("format.yaml"), format!("datasets: [{}]\n", folder.at("q.jsonl"))).unwrap();
        folder
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Names of temporary files and backups as people and other programs use them.
const THEIRS: &str = ".git.old-2023/x .notes.tmp-draft .env.old-backup .config.old-keep/x proj/.x.tmp-me/x .bashrc.tmp-1 \
    .vimrc.old-7 .ssh.old-20240101/id proj/.git.old-2023/x proj/.model.old-2023/x .model.old-keep/x \
    .model.old-7a/x .model.tmp-1-2-3/x .model.tmp-/x .summary.json.old-20231105 .summary.json.old-3-1 \
    .summary.json.tmp-draft .metrics.jsonl.tmp-1b .config.yaml.old-2023 .config.yaml.tmp .latest.old-7 \
    .best.tmp-a summary.json.tmp-7 model.old-7/x proj/.summary.json.tmp-7 \
    proj/checkpoints/.global_step_1.tmp-7/x .global_step_1.tmp-7/x .global_step_1.old-7/x \
    checkpoints/.summary.json.tmp-7 checkpoints/.mine.tmp-7/x rollouts/.notes.tmp-7 journal/.notes.tmp-7 \
    index/.notes.tmp-7 .train.csv.tmp-7 .parquet.tmp-7x .cache.tmp-7/x .report.pdf.tmp-7 .omr.tmp-7 .tmp-7 \
    .old-7/x";

fn put(dir: &Path, names: &str) {
    for name in names.split_whitespace() {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), name).unwrap();
    }
}

#[test]
fn files_named_like_temporaries_survive_every_command() {
    let folder = Folder::new();
    let [sft, rl, format, rows, home, plain] =
        ["sft.yaml", "rl.yaml", "format.yaml", "q.jsonl", "home", "plain"].map(|name| folder.at(name));
    let (base, answers) = (folder.at("base"), folder.at("home/answers.jsonl"));
    put(&folder.path("home"), THEIRS);
    // Names as omr uses them, in a folder in which no run has started.
    put(&folder.path("home"), ".model.old-123/x .summary.json.tmp-123 .rows.parquet.tmp-1");
    put(&folder.path("plain"), THEIRS);
    fs::write(folder.path("home/config.yaml"), "foo: 1\n").unwrap();
    fs::write(folder.path("list.yaml"), format!("stages: [{{name: a, format: {{datasets: [{rows}]}}}}]\n")).unwrap();
    fs::write(folder.path("said.jsonl"), "{\"task\": \"digits\", \"index\": 0, \"responses\": [\"1\"]}\n").unwrap();
    let (list, printed) = (folder.at("list.yaml"), folder.at("said.jsonl"));
    let before = files(&folder.path("home"));
    assert_eq!(before.len(), 44);
    for command in [
        &["sft", &sft, "--out", &home][..],
        &["rl", &rl, "--out", &home],
        &["recipe", RECIPE, "--out", &home],
        &["eval", "--model", &base, "--limit", "1", "--out", &home],
        &["eval", "--responses", &printed, "--limit", "1", "--out", &home],
        &["data", "format", &format, "--out", &home],
        &["data", "format", &format, "--out", &home, "--shard", "0/2"],
        &["data", "run", &list, "--out", &home],
        &["data", "inspect", "none.jsonl", "--out", &home],
        &["download", "base", "--to", &home],
        &["report", &home],
        &["generate", "--model", "none", "--jsonl", &rows, "--out", &answers],
        &["sft", &sft, "--out", &home, "--fresh", "resume=x"],
    ] {
        omr(command, 2);
        assert!(files(&folder.path("home")) == before, "{command:?}: {:?}", files(&folder.path("home")).keys());
    }
    // A run is created and continued. Files that a killed run left are removed or restored.
    for (name, command) in [("format", &["data", "format", &format][..]), ("sft", &["sft", &sft])] {
        let (dir, out) = (folder.path(name), folder.at(name));
        if name == "sft" {
            // A run of training does not begin in a folder with other files, but continues in one.
            omr(&[command, &["--out", &out]].concat(), 0);
        }
        put(&dir, THEIRS);
        omr(&[command, &["--out", &out]].concat(), 0);
        put(
            &dir,
            ".model.tmp-9/x .summary.json.tmp-9 .rejected-0-of-4.jsonl.tmp-9-1 .mine.parquet.tmp-9 ..ranks.tmp-9",
        );
        put(&dir, "checkpoints/.global_step_4.tmp-9/x eval/sft/.samples.jsonl.tmp-9 journal/.7.1.jsonl.tmp-9");
        put(&dir, "checkpoints/.global_step_12.old-9/x");
        omr(&[command, &["--out", &out]].concat(), 0);
        let left = files(&dir);
        THEIRS.split_whitespace().for_each(|theirs| assert!(left[theirs] == theirs.as_bytes(), "{name}: {theirs}"));
        assert!(
            !left.keys().any(|name| name.contains(".tmp-9") || name.contains(".old-9") || name.starts_with(".lock")),
            "{:?}",
            left.keys()
        );
        assert!(left.contains_key("checkpoints/global_step_12/x"));
    }
    omr(&["data", "inspect", &rows, "--out", &plain], 0);
    assert!(THEIRS.split_whitespace().all(|theirs| folder.path("plain").join(theirs).exists()));
}

#[test]
fn a_refused_command_leaves_no_trace_and_claims_nothing() {
    let folder = Folder::new();
    let (sft, out, deep) = (folder.at("sft.yaml"), folder.at("out"), folder.at("a/b/c"));
    omr(&["--device", "cuda", "sft", &sft, "dtype=auto", "--out", &deep], 2);
    omr(&["--device", "cuda", "eval", "--model", &folder.at("base"), "--limit", "1", "--out", &deep], 2);
    omr(&["--device", "cuda", "recipe", RECIPE, "--out", &deep], 2);
    let dedup = format!("{{datasets: [{}], model: {}}}", folder.at("q.jsonl"), folder.at("base"));
    fs::write(folder.path("dedup.yaml"), &dedup).unwrap();
    fs::write(folder.path("list.yaml"), format!("stages: [{{name: once, dedup: {dedup}}}]\n")).unwrap();
    omr(&["--device", "cuda", "data", "dedup", &folder.at("dedup.yaml"), "--out", &deep], 2);
    omr(&["--device", "cuda", "data", "run", &folder.at("list.yaml"), "--out", &deep], 2);
    omr(&["data", "inspect", "none.jsonl", "--out", &deep], 2);
    assert!(!folder.path("a").exists());
    let text = omr(&["sft", &sft, "--out", "/proc/x"], 2);
    assert!(text.contains("/proc/x: found a path where no folder can be created"), "{text}");
    // A run of an older version that started but made no step.
    fs::create_dir(&out).unwrap();
    let bf16 = fs::read_to_string(&sft).unwrap().replace("dtype: f32", "dtype: bf16").replace("seed: ", "seed: 1");
    fs::write(folder.path("out/config.yaml"), format!("# omr 0.1.0, on a GPU\n{bf16}")).unwrap();
    fs::write(folder.path("out/log.txt"), "error: no GPU\n").unwrap();
    let text = omr(&["sft", &sft, "--out", &out], 0);
    assert!(text.contains("made no step") && folder.path("out/model").is_dir(), "{text}");
    let text = omr(&["sft", &sft, "--out", &out, "seed=5"], 2);
    assert!(text.contains("seed was"), "{text}");
    // A missing image is reported in words.
    fs::write(folder.path("p.jsonl"), json!({"problem": "<image>?", "answer": "1", "images": ["no.png"]}).to_string())
        .unwrap();
    let text = omr(&["data", "inspect", &folder.at("p.jsonl"), "--out", &deep], 2);
    assert!(text.contains("no such file") && !text.contains("os error"), "{text}");
}

#[test]
fn a_stage_of_a_running_recipe_is_refused_and_so_is_a_part_beside_the_whole() {
    let folder = Folder::new();
    let (out, stage) = (folder.at("recipe"), folder.at("recipe/sft"));
    let mut recipe = Command::new(env!("CARGO_BIN_EXE_omr"));
    let recipe = recipe.args(["--quiet", "recipe", RECIPE, "--out", &out]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut recipe = recipe.env("CUDA_VISIBLE_DEVICES", "").spawn().unwrap();
    let config = folder.path("recipe/sft/config.yaml");
    until("the stage of SFT", || config.exists() || recipe.try_wait().unwrap().is_some());
    let text = omr(&["sft", config.to_str().unwrap(), "--out", &stage], 2);
    recipe.kill().unwrap();
    recipe.wait().unwrap();
    assert!(text.contains("another omr process"), "{text}");
    let training = Lock::take(&folder.path("recipe/sft"), "").unwrap();
    assert!(omr(&["recipe", RECIPE, "--out", &out], 2).contains("another omr process"));
    drop(training);

    let (format, out) = (folder.at("format.yaml"), folder.at("parts"));
    let part: &[&str] = &["data", "format", &format, "--out", &out, "--shard", "0/2"];
    let whole = Lock::take(&folder.path("parts"), "").unwrap();
    assert!(omr(part, 2).contains("another omr process"));
    drop(whole);
    let other = Lock::take(&folder.path("parts"), "-1-of-2").unwrap();
    assert!(omr(&part[..5], 2).contains("another omr process"));
    omr(part, 0);
    drop(other);
}

#[test]
fn secrets_of_servers_are_sent_and_written_nowhere() {
    let folder = Folder::new();
    // The server repeats in its answer what it received, as some servers do.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (send, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut text) = (stream.unwrap(), [0; 4096]);
            let len = stream.read(&mut text).unwrap();
            let head = String::from_utf8_lossy(&text[..len]).into_owned();
            let line =
                head.lines().find(|line| line.to_lowercase().starts_with("authorization")).unwrap_or("none").to_owned();
            let reply = format!("HTTP/1.1 401 No\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{line}", line.len());
            stream.write_all(reply.as_bytes()).unwrap();
            send.send(line).unwrap();
        }
    });
    let config = format!(
        "datasets: [{}]\nteacher: {{base_url: 'http://me:PASSW0RD@127.0.0.1:{port}/v1', model: m}}\n",
        folder.at("q.jsonl")
    );
    fs::write(folder.path("distill.yaml"), config).unwrap();
    let (config, out) = (folder.at("distill.yaml"), folder.at("out"));
    let distill: &[&str] = &["--log-level", "debug", "data", "distill", &config, "--out", &out];
    let plain = format!("teacher.base_url=http://127.0.0.1:{port}/v1");
    let mut printed = omr(distill, 1);
    assert_eq!(seen.recv().unwrap().split_once(": ").unwrap().1, "Basic bWU6UEFTU1cwUkQ=");
    printed += &with(&[distill, &[&plain]].concat(), &[("OAI_API_KEY", "sk-of-ours-1")], 1);
    assert_eq!(seen.recv().unwrap().split_once(": ").unwrap().1, "Bearer sk-of-ours-1");
    assert!(printed.contains("Bearer ***"), "{printed}");
    printed += &omr(&["data", "distill", &config, "--out", &out, "--print-config"], 0);
    printed += &omr(&["data", "distill", &config, "--out", &out, "teacher.api_key=[sk-of-ours-2]"], 2);
    printed += &omr(&["data", "distill", &config, "--out", &out, "teacher.api_key={sk-of-ours-2"], 2);
    printed += &omr(&["data", "distill", &config, "--out", &out, "teacher.base_url.x={api_key: sk-of-ours-2}"], 2);
    let left = files(&folder.path("out"));
    assert!(left.contains_key("config.yaml") && left.contains_key("log.txt"), "{:?}", left.keys());
    for secret in ["PASSW0RD", "bWU6UEFTU1cwUkQ=", "sk-of-ours"] {
        assert!(!printed.contains(secret), "{printed}");
        for (name, bytes) in &left {
            assert!(!String::from_utf8_lossy(bytes).contains(secret), "{name}");
        }
    }
}

#[test]
fn a_config_without_an_end_and_numbers_without_a_sense_are_refused() {
    let folder = Folder::new();
    let (out, pipe, link, huge) = (folder.at("out"), folder.at("pipe"), folder.at("zero"), folder.at("huge.yaml"));
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    symlink("/dev/zero", &link).unwrap();
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    for config in [&pipe, &link, &huge] {
        for command in [&["sft"][..], &["data", "distill"], &["plan"]] {
            let text = omr(
                &[command, &[config.as_str(), "--out", &out][..if command[0] == "plan" { 1 } else { 3 }]].concat(),
                2,
            );
            assert!(text.contains(config.as_str()) && text.contains("expected"), "{text}");
        }
    }
    // These configs once took very long, because each unknown key was searched in the tables of all commands.
    let keys: String = (0..3000).map(|i| format!("unknown_{i}: 1\n")).collect();
    fs::write(folder.path("keys.yaml"), keys).unwrap();
    fs::write(
        folder.path("merged.yaml"),
        format!("a: &a {{{}}}\nb:\n  <<: *a\n", (0..3000).map(|i| format!("k{i}: 1, ")).collect::<String>()),
    )
    .unwrap();
    for name in ["keys.yaml", "merged.yaml"] {
        let text = omr(&["rl", &folder.at(name), "--out", &out], 2);
        assert!(text.contains("unknown key") && text.lines().count() <= 1002, "{text}");
    }
    for (command, key, printed) in [
        ("rl", "rollout.n=1000000000", "from 1 to 1048576"),
        ("rl", "rollout.n=1000000", "at most 1048576 rollouts"),
        ("rl", "train_batch_size=1e12", "from 1 to 1048576"),
        ("sft", "train_batch_size=1e12", "from 1 to 1048576"),
        ("sft", "gradient_accumulation_steps=1e12", "from 1 to 1048576"),
    ] {
        let text = omr(&[command, &folder.at(&format!("{command}.yaml")), "--out", &out, key], 2);
        assert!(text.contains(printed) && text.lines().count() == 1, "{text}");
    }
    assert!(!Path::new(&out).exists());
}

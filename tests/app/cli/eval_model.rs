//! Tests `omr eval` with our own model and with a server's model. Answers are stored one by one. A run that is killed,
//! or whose server hangs, answers wrongly or dies, continues with the missing answers and gives the same result.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use omr_base::answers::FILE;
use omr_base_tests::cli::model_server::Server;
use omr_base_tests::golden;
use omr_base_tests::reward::judge_server::Server as Judge;
use omr_base_tests::wait::until;
use omr_data::rows::{Form, write};
use omr_train_tests::training::tiny::{base_model, rows};
use serde_json::{Value, json};

use super::training::{failure, run};

struct Dir(tempfile::TempDir);

impl Dir {
    /// Creates a tiny model and generated rows for every task. Two rows of each are evaluated.
    fn new() -> Dir {
        let dir = Dir(tempfile::tempdir().unwrap());
        base_model(&dir.path("model"));
        let config = dir.path("model/config.json");
        let mut model: Value = serde_json::from_slice(&fs::read(&config).unwrap()).unwrap();
        // The tokenizer is made for digits, so each byte of other text takes at least one token.
        model["max_position_embeddings"] = 65536.into();
        fs::write(config, model.to_string()).unwrap();
        for folder in golden::entries(&golden::dir().join("eval"), "", "") {
            if folder.is_dir() {
                let to = dir.path("data").join(folder.file_name().unwrap());
                fs::create_dir_all(&to).unwrap();
                fs::copy(folder.join("data.parquet"), to.join("data.parquet")).unwrap();
            }
        }
        write::write(&dir.path("data/heldout.parquet"), &rows(), Form::Rl).unwrap();
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Returns the command that evaluates the model on all tasks.
    fn all(&self, out: &str) -> Vec<String> {
        let tasks: Vec<&str> = omr_data::task::TASKS.iter().map(|task| task.name).collect();
        let tasks: Vec<&str> = tasks.into_iter().filter(|task| self.path("data").join(task).exists()).collect();
        assert!(tasks.len() > 10, "{tasks:?}");
        let (model, data, out) = (self.at("model"), self.at("data"), self.at(out));
        let args = ["--quiet", "--device", "cpu", "--threads", "2", "eval", "--model", &model, "--data", &data];
        let tasks = format!("digits,{}", tasks.join(","));
        let more = ["--out", &out, "--tasks", &tasks, "--limit", "2", "dtype=f32", "max_new_tokens=6", "repeats=2"];
        [&args[..], &more].concat().into_iter().map(str::to_owned).collect()
    }

    fn run(&self, args: &[String]) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (code, _, stderr) = run(&args);
        assert_eq!(code, 0, "{stderr}");
    }

    /// Returns the summary without the run time, and the samples.
    fn results(&self, out: &str) -> (Value, String) {
        let mut summary: Value =
            serde_json::from_slice(&fs::read(self.path(out).join("summary.json")).unwrap()).unwrap();
        summary.as_object_mut().unwrap().remove("seconds");
        (summary, fs::read_to_string(self.path(out).join("samples.jsonl")).unwrap())
    }
}

/// Subjects of the generated rows.
const SUBJECTS: [&str; 12] = [
    "mathvista_testmini_cot_reward: figure question answering",
    "mathvision_reason_test_reward: algebra",
    "mathverse_testmini_reward: Angle",
    "dynamath: algebra",
    "wemath_testmini_thinking: Perimeter of triangles",
    "logicvista_thinking: inductive",
    "mmmu_reasoning_reward: Math",
    "mmmu_pro_standard_cot_reward: Math",
    "mmmu_pro_vision_cot_reward: Math",
    "charxiv_val_reasoning_cot: cs",
    "charxiv_val_descriptive_cot: cs",
    "gpqa_diamond_thinking: Math",
];

fn count(out: &Path) -> u64 {
    omr_base_tests::answers::count(&out.join(FILE))
}

/// Runs the program, which writes to `out`, and kills it when it has stored `more` answers. Returns false if it ended
/// before.
fn kill(args: &[String], out: &Path, more: u64) -> bool {
    // The store of a program that runs can only be read by that program; its log grows with each answer.
    let len = || fs::metadata(out.join(format!("{FILE}-wal"))).map_or(0, |log| log.len());
    let (mut last, mut changes) = (len(), 0);
    let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
    let mut child = command.args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut runs = true;
    until("answers", || {
        changes += u64::from(std::mem::replace(&mut last, len()) != last);
        runs = child.try_wait().unwrap().is_none();
        !runs || changes > more
    });
    let _ = child.kill();
    child.wait().unwrap();
    runs
}

/// The first task shares some questions with the second. When the second one starts, the answer stores of the ranks
/// differ.
#[test]
fn ranks_leave_none_of_the_questions_that_tasks_share_unasked() {
    let dir = Dir::new();
    let measure = |out: &str, ranks: &str| {
        let (model, data, at) = (dir.at("model"), dir.at("data"), dir.at(out));
        let args = ["--quiet", "--device", "cpu", "--threads", "1", "eval", "--model", &model, "--data", &data];
        let tasks = "mathvision_reason_testmini_reward,mathvision_reason_test_reward";
        let more = ["--out", &at, "--tasks", tasks, "--gpus", ranks, "dtype=f32", "max_new_tokens=6"];
        dir.run(&[&args[..], &more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>());
        (dir.results(out), count(&dir.path(out)))
    };
    assert_eq!(measure("three", "3"), measure("one", "1"));
}

#[test]
fn a_measurement_killed_ten_times_or_robbed_of_answers_is_that_of_one_left_alone() {
    let dir = Dir::new();
    dir.run(&dir.all("whole"));
    let want = dir.results("whole");
    let answers = count(&dir.path("whole"));
    let page = fs::read_to_string(dir.path("whole/report.html")).unwrap();
    for subject in SUBJECTS {
        assert!(page.contains(&format!("<th scope=\"row\">{subject}</th>")), "{subject} is not in the page");
    }
    assert!(page.contains("mean length"), "lengths of the answers");

    let killed = dir.all("killed");
    let (mut kills, mut kept) = (0, Vec::new());
    for i in 0..10 {
        kills += u32::from(kill(&killed, &dir.path("killed"), i));
        if dir.path("killed").join(FILE).exists() {
            kept.push(count(&dir.path("killed")));
        }
    }
    println!("  {kills} kills, answers kept after each: {kept:?} of {answers}");
    assert!(kept.is_sorted() && kills > 0, "an answer was lost, or no run was killed: {kept:?}");
    dir.run(&killed);
    assert_eq!(dir.results("killed"), want);
    assert_eq!(count(&dir.path("killed")), answers);

    // Every third answer is deleted and generated again in different batches, with bitwise identical results. If no
    // answer is missing, the model is not even loaded.
    for rob in ["DELETE FROM answers WHERE rowid % 3 = 0", "SELECT 1"] {
        let out = dir.path("killed");
        let database = rusqlite::Connection::open(out.join(FILE)).unwrap();
        database.execute_batch(rob).unwrap();
        drop(database);
        fs::remove_file(out.join("summary.json")).unwrap();
        fs::remove_file(out.join("samples.jsonl")).unwrap();
        dir.run(&killed);
        assert_eq!(dir.results("killed"), want, "{rob}");
    }
}

#[test]
fn on_the_emulator_a_killed_measurement_goes_on_to_the_same() {
    let dir = Dir::new();
    let (model, data) = (dir.at("model"), dir.at("data"));
    let args = |out: &str| -> Vec<String> {
        let out = dir.at(out);
        let args = ["--quiet", "--device", "emu", "--threads", "2", "eval", "--model", &model, "--data", &data];
        let more = ["--out", &out, "--limit", "4", "max_new_tokens=8", "repeats=2", "max_num_seqs=2"];
        [&args[..], &more].concat().into_iter().map(str::to_owned).collect()
    };
    dir.run(&args("whole"));
    let killed = args("killed");
    kill(&killed, &dir.path("killed"), 4);
    let store = dir.path("killed").join(FILE);
    println!("  killed with {} of 12 answers", if store.exists() { count(&dir.path("killed")) } else { 0 });
    dir.run(&killed);
    assert_eq!(dir.results("killed"), dir.results("whole"));
}

#[test]
fn a_model_whose_logits_are_not_finite_has_no_score() {
    let dir = Dir::new();
    let weights = dir.path("model/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    // These bytes give weights that are so large that the computed values are not finite.
    bytes[header..].fill(0x7f);
    fs::write(weights, bytes).unwrap();
    let (model, data, out) = (dir.at("model"), dir.at("data"), dir.at("out"));
    let args = ["eval", "--model", &model, "--data", &data, "--tasks", "logicvista", "--out", &out, "max_new_tokens=4"];
    failure(&args, 1, &["logicvista_thinking/data.parquet row ", "not finite"]);
    assert!(!dir.path("out/summary.json").exists());
}

/// Almost every request fails in one of several ways when it is sent first.
#[test]
fn a_server_that_hangs_lies_and_dies_is_asked_again_for_what_is_missing() {
    let (dir, server) = (Dir::new(), Server::start());
    let (data, out) = (dir.at("data"), dir.at("out"));
    let more = ["--mode", "compat", "--limit", "5", "--out", &out, "server.concurrency=3", "server.timeout_s=2"];
    let args =
        ["eval", "--model-url", &server.base_url, "--model", "m", "--data", &data, "--tasks", "logicvista,aime24"];
    let args = [&args[..], &more, &["server.max_retries=0", "chat_template_kwargs.enable_thinking=false"]].concat();
    let stderr = failure(&args, 1, &["answers are missing", "unanswered.jsonl", "again", &server.base_url]);
    assert!(stderr.contains("index "), "{stderr}");
    assert!(!dir.path("out/summary.json").exists());
    let unanswered = fs::read_to_string(dir.path("out/unanswered.jsonl")).unwrap();
    let (asked, lost) = (server.count(), unanswered.lines().count());
    println!("  {lost} of {asked} requests without an answer");
    assert!(lost > 20 && lost < asked, "{lost} of {asked}");
    for what in ["429", "500", "not JSON", "no choices", "timed out", "end of file"] {
        assert!(unanswered.contains(what), "{what} is not in {unanswered}");
    }

    let (code, _, stderr) = run(&args);
    assert_eq!((code, server.count()), (0, asked + lost), "{stderr}");
    assert!(!dir.path("out/unanswered.jsonl").exists());
    let (summary, samples) = dir.results("out");
    assert_eq!(summary["model"], json!(format!("m at {}/chat/completions", server.base_url)));
    let tasks = &summary["tasks"];
    assert!(tasks["logicvista_thinking"]["n"] == 5 && samples.lines().count() == 10, "{summary}");
    let (code, _, stderr) = run(&args);
    assert!(code == 0 && stderr.contains("finished") && server.count() == asked + lost, "{stderr}");

    // The images are sent as they are in the file. Every greedy request has temperature 0, and every other request
    // has its own seed.
    let seen = server.bodies();
    assert!(seen.iter().all(|body| body["chat_template_kwargs"] == json!({"enable_thinking": false})));
    let image = |body: &Value| body["messages"][1]["content"][0]["image_url"]["url"].as_str().map(str::to_owned);
    assert!(seen.iter().filter_map(image).all(|url| url.starts_with("data:image/png;base64,iVBOR")));
    assert!(seen.iter().filter_map(image).count() >= 5);
    let (greedy, sampled): (Vec<&Value>, Vec<&Value>) = seen.iter().partition(|body| body["temperature"] == 0);
    assert!(greedy.iter().all(|body| body["seed"].is_null()) && !greedy.is_empty());
    let mut seeds: Vec<u64> = sampled.iter().map(|body| body["seed"].as_u64().unwrap()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), sampled.len());
    assert!(sampled.iter().all(|body| (body["top_p"].as_f64().unwrap() - 0.95).abs() < 1e-6));
}

#[test]
fn a_server_that_is_not_there_ends_the_run_soon_and_a_wrong_key_at_once() {
    let dir = Dir::new();
    let data = dir.at("data");
    let asked = |url: &str, more: &[&str], code, parts: &[&str]| {
        let (out, url) = (dir.at("out"), url.to_owned());
        let args = ["eval", "--model-url", &url, "--data", &data, "--tasks", "aime24", "--out", &out, "--fresh"];
        failure(&[&args[..], more].concat(), code, parts);
    };
    asked("http://127.0.0.1:9/v1", &["--model", "m", "server.max_retries=0"], 1, &["127.0.0.1:9", "in a row failed"]);
    asked("http://127.0.0.1:9/v1", &[], 2, &["--model", "name of the model"]);
    asked("no address", &["--model", "m"], 2, &["server.base_url", "no address"]);
    let server = Server::start();
    asked(&server.base_url, &["--model", "locked"], 1, &["401", &server.base_url]);
}

#[test]
fn a_judge_that_is_down_slow_or_talks_nonsense_leaves_the_rules() {
    let (dir, judge) = (Dir::new(), Judge::start());
    let (data, out, file) = (dir.at("data"), dir.at("out"), dir.at("answers.jsonl"));
    let words = ["A", "yes", "prose", "no", "hangs", "both", "down 1", "down 2", "down 3", "yes 2"];
    let line = |(i, word): (usize, &&str)| {
        let response = format!("<think>t</think><answer>{word}</answer>");
        format!("{}\n", json!({"task": "logicvista", "index": i, "responses": [response]}))
    };
    fs::write(&file, words.iter().enumerate().map(line).collect::<String>()).unwrap();
    let measure = |more: &[&str]| {
        let args = ["eval", "--data", &data, "--responses", &file, "--out", &out, "--limit", "10", "--fresh"];
        let (code, _, stderr) = run(&[&args[..], &["judge.model=j", "judge.max_retries=0"], more].concat());
        assert_eq!(code, 0, "{stderr}");
        let (summary, _) = dir.results("out");
        let task = &summary["tasks"]["logicvista_thinking"];
        let acc = |of: &str| (task[of]["acc_score"].as_f64().unwrap() * 10.0).round();
        (summary["judge"].clone(), acc("metrics"), acc("rule_only"), stderr)
    };
    let url = format!("judge.base_url={}", judge.base_url);
    let (judge_summary, with, rules, stderr) = measure(&[&url, "judge.timeout_s=1", "judge.max_failures=100"]);
    assert_eq!(
        (&judge_summary["model"], &judge_summary["used"], &judge_summary["hits"]),
        (&json!("j"), &json!(9), &json!(2)),
        "{stderr}"
    );
    assert!(judge_summary["unjudged"] == 6 && with == 3.0 && rules == 1.0, "{judge_summary} {with} {rules}");
    assert!(stderr.contains("judge j: 9 answers sent, 2 of them correct, 6 without a usable reply"), "{stderr}");
    let (judge_summary, with, rules, stderr) =
        measure(&["judge.base_url=http://127.0.0.1:9/v1", "judge.max_failures=2"]);
    assert!(
        judge_summary["unjudged"] == 9 && judge_summary["hits"] == 0 && with == 1.0 && rules == 1.0,
        "{judge_summary} {with} {rules}"
    );
    assert!(stderr.contains("the judge is down") && stderr.contains("the rules"), "{stderr}");
}

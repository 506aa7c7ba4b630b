//! Tests stages and lists of stages as users run them.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use super::{Server, write_lines};

/// Runs `omr data` with `args` in `dir`.
pub fn omr(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
    for variable in ["OAI_BASE_URL", "OAI_API_KEY", "MODEL_VERSION", "USE_LLM_JUDGE"] {
        command.env_remove(variable);
    }
    command.current_dir(dir).arg("data").args(args).output().unwrap()
}

/// Returns the stderr of a command.
pub fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn questions(dir: &Path) {
    let row = |i: usize| {
        json!({"id": i.to_string(), "messages": [{"role": "user", "content": format!("What is {i}?")},
            {"role": "assistant", "content": format!("<think>t</think><answer>{}</answer>", i / 2 * 2)}], "answer": i})
    };
    write_lines(&dir.join("rows.jsonl"), &(0..20).map(row).collect::<Vec<Value>>());
}

#[test]
fn a_list_of_stages_runs_once_and_a_changed_stage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    questions(dir.path());
    let config = "stages:
  - {name: right, verify: {datasets: [rows.jsonl]}}
  - {name: short, filter: {max_characters: 45}}
  - {name: both, mix: {name: all, datasets: [{path: 'stage:short/rows.parquet', weight: 2}]}}
";
    std::fs::write(dir.path().join("data.yaml"), config).unwrap();
    let args = ["run", "data.yaml", "--out", "out"];
    let dry = omr(dir.path(), &[&args[..], &["--dry-run"]].concat());
    assert_eq!(dry.status.code(), Some(0), "{}", printed(&dry));
    assert!(printed(&dry).contains("right: verify") && !dir.path().join("out").exists(), "{}", printed(&dry));
    let dry = omr(dir.path(), &[&args[..], &["--dry-run", "--json"]].concat());
    let planned: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert!(planned["stages"][0].as_str().is_some_and(|stage| stage.starts_with("right: verify")), "{planned}");
    let first = omr(dir.path(), &args);
    assert_eq!(first.status.code(), Some(0), "{}", printed(&first));
    let summary: Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!(summary["right"]["kept"], 10);
    assert_eq!(summary["short"]["kept"], 5);
    assert_eq!(summary["both"]["kept"], 10);
    assert!(dir.path().join("out/both/all.parquet").exists());
    let again = omr(dir.path(), &args);
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(printed(&again).matches("already finished").count(), 3, "{}", printed(&again));

    let changed = omr(dir.path(), &[&args[..], &["stages.1.filter.max_characters=46"]].concat());
    assert_eq!(changed.status.code(), Some(2));
    assert!(printed(&changed).contains("max_characters was 45 and is 46"), "{}", printed(&changed));

    std::fs::write(dir.path().join("data.yaml"), config.replace("stage:short", "stage:shrt")).unwrap();
    let unknown = omr(dir.path(), &args);
    assert!(unknown.status.code() == Some(2) && printed(&unknown).contains("stage:shrt"), "{}", printed(&unknown));
    std::fs::write(dir.path().join("data.yaml"), "stages: [{name: a}]").unwrap();
    let none = omr(dir.path(), &args);
    assert!(none.status.code() == Some(2) && printed(&none).contains("stages.0"), "{}", printed(&none));
}

#[test]
fn parts_are_run_by_name_and_a_changed_config_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    questions(dir.path());
    std::fs::write(dir.path().join("verify.yaml"), "datasets: [rows.jsonl]").unwrap();
    let args = ["verify", "verify.yaml", "--out", "out"];
    for part in ["0/2", "1/2"] {
        let output = omr(dir.path(), &[&args[..], &["--shard", part]].concat());
        assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
    }
    assert!(dir.path().join("out/rows-1-of-2.parquet").exists());
    let wrong = omr(dir.path(), &[&args[..], &["--shard", "2/2"]].concat());
    assert!(wrong.status.code() == Some(2) && printed(&wrong).contains("i from 0"), "{}", printed(&wrong));
    let other = omr(dir.path(), &[&args[..], &["mode=compat"]].concat());
    assert!(other.status.code() == Some(2) && printed(&other).contains("mode was strict"), "{}", printed(&other));
    let joined = omr(dir.path(), &args);
    assert_eq!(joined.status.code(), Some(0), "{}", printed(&joined));
    let summary: Value = serde_json::from_slice(&joined.stdout).unwrap();
    assert_eq!((&summary["in"], &summary["kept"]), (&json!(20), &json!(10)));
    let left: Vec<String> = std::fs::read_dir(dir.path().join("out"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("-of-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn embed_is_answered_with_the_stage_it_is_part_of() {
    let output = omr(Path::new("."), &["embed", "embed.yaml", "--out", "out", "--use-cache"]);
    assert!(output.status.code() == Some(2) && printed(&output).contains("omr data dedup"), "{}", printed(&output));
}

/// Writes questions that control the replies of the scripted server.
fn asked(dir: &Path, questions: &[&str]) {
    let rows: Vec<Value> = questions.iter().map(|q| json!({"problem": q, "answer": 5})).collect();
    write_lines(&dir.join("questions.jsonl"), &rows);
}

#[test]
fn distill_runs_once_and_a_finished_run_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start();
    asked(dir.path(), &["right", "wrong", "unanswered"]);
    let config = "datasets: [{path: questions.jsonl, data_type: jsonl}]\nteacher: {model: t}\njudge: null\n";
    std::fs::write(dir.path().join("distill.yaml"), config).unwrap();
    let url = format!("teacher.base_url={}", server.base_url);
    let args = ["distill", "distill.yaml", "--out", "out", &url, "num_rollouts=2"];
    let first = omr(dir.path(), &args);
    assert_eq!(first.status.code(), Some(0), "{}", printed(&first));
    let summary: Value = serde_json::from_slice(&first.stdout).unwrap();
    let want = json!({"in": 3, "kept": 2, "rejected": {"no_answer": 2, "wrong_answer": 2}, "unjudged": 0, "requests": 6, "tokens": 42, "judge": null});
    assert_eq!(summary, want);
    let written = std::fs::read(dir.path().join("out/summary.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), want);

    let again = omr(dir.path(), &args);
    assert_eq!(again.status.code(), Some(0));
    assert!(printed(&again).contains("finished"), "{}", printed(&again));
    assert_eq!((again.stdout, server.count()), (first.stdout, 6));
}

#[test]
fn distill_says_what_is_wrong_with_its_input() {
    let dir = tempfile::tempdir().unwrap();
    asked(dir.path(), &["right <image>"]);
    let config =
        "datasets: [{path: questions.jsonl}]\nteacher: {model: t, base_url: 'http://127.0.0.1:9/v1', max_retries: 0}\n";
    std::fs::write(dir.path().join("distill.yaml"), config).unwrap();
    let run = |extra: &[&str]| {
        let args: Vec<&str> = ["distill", "distill.yaml", "--out", "out"].iter().chain(extra).copied().collect();
        let output = omr(dir.path(), &args);
        (output.status.code(), printed(&output))
    };
    let (code, message) = run(&[]);
    assert!(code == Some(2) && message.contains("questions.jsonl row 1"), "{message}");
    let (code, message) = run(&["teacher=null"]);
    assert!(code == Some(2) && message.contains("teacher"), "{message}");
    let (code, message) = run(&["datasets.0.path=none.jsonl"]);
    assert!(code == Some(2) && message.contains("none.jsonl"), "{message}");
    let (code, message) = run(&["num_rolouts=2"]);
    assert!(code == Some(2) && message.contains("num_rollouts"), "{message}");
    assert!(!dir.path().join("out/summary.json").exists() && !dir.path().join("out/rejected.jsonl").exists());
    asked(dir.path(), &["right"]);
    let (code, message) = run(&[]);
    assert!(code == Some(1) && message.contains("127.0.0.1:9"), "{message}");
    assert!(!dir.path().join("out/summary.json").exists());
}

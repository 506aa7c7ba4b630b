//! `omr data distill` and `omr data inspect` as users run them.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::server::Server;

fn omr(dir: &Path, args: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_omr"));
    for variable in ["OAI_BASE_URL", "OAI_API_KEY", "MODEL_VERSION", "USE_LLM_JUDGE"] {
        command.env_remove(variable);
    }
    command.current_dir(dir).arg("data").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn questions(dir: &Path, questions: &[&str]) {
    let line = |q: &&str| json!({"problem": q, "answer": 5}).to_string();
    std::fs::write(dir.join("questions.jsonl"), questions.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distill_runs_once_and_a_finished_run_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    questions(dir.path(), &["right", "wrong", "unanswered"]);
    let config = "datasets: [{path: questions.jsonl, data_type: jsonl}]\nteacher: {model: t}\njudge: null\n";
    std::fs::write(dir.path().join("distill.yaml"), config).unwrap();
    let url = format!("teacher.base_url={}", server.base_url);
    let args = ["distill", "distill.yaml", "--out", "out", &url, "num_rollouts=2"];
    let first = omr(dir.path(), &args);
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    let summary: Value = serde_json::from_slice(&first.stdout).unwrap();
    let want = json!({"in": 3, "kept": 2, "rejected": {"no_answer": 2, "wrong_answer": 2}, "unjudged": 0, "requests": 6, "tokens": 42, "judge": null});
    assert_eq!(summary, want);
    let written = std::fs::read(dir.path().join("out/summary.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), want);

    let again = omr(dir.path(), &args);
    assert_eq!(again.status.code(), Some(0));
    assert!(text(&again.stderr).contains("finished"), "{}", text(&again.stderr));
    assert_eq!((again.stdout, server.count()), (first.stdout, 6));
}

#[test]
fn distill_says_what_is_wrong_with_its_input() {
    let dir = tempfile::tempdir().unwrap();
    questions(dir.path(), &["right <image>"]);
    let config =
        "datasets: [{path: questions.jsonl}]\nteacher: {model: t, base_url: 'http://127.0.0.1:9/v1', max_retries: 0}\n";
    std::fs::write(dir.path().join("distill.yaml"), config).unwrap();
    let run = |extra: &[&str]| {
        let args: Vec<&str> = ["distill", "distill.yaml", "--out", "out"].iter().chain(extra).copied().collect();
        let output = omr(dir.path(), &args);
        (output.status.code(), text(&output.stderr))
    };
    let (code, message) = run(&[]);
    assert!(code == Some(2) && message.contains("questions.jsonl row 1"), "{message}");
    let (code, message) = run(&["teacher=null"]);
    assert!(code == Some(2) && message.contains("teacher"), "{message}");
    let (code, message) = run(&["datasets.0.path=none.jsonl"]);
    assert!(code == Some(2) && message.contains("none.jsonl"), "{message}");
    let (code, message) = run(&["num_rolouts=2"]);
    assert!(code == Some(2) && message.contains("num_rollouts"), "{message}");
    assert!(!dir.path().join("out").exists());
    questions(dir.path(), &["right"]);
    let (code, message) = run(&[]);
    assert!(code == Some(1) && message.contains("127.0.0.1:9"), "{message}");
    assert!(!dir.path().join("out/summary.json").exists());
}

#[test]
fn inspect_shows_rows_and_names_faults() {
    let dir = tempfile::tempdir().unwrap();
    questions(dir.path(), &["how many?", "how few?"]);
    let output = omr(dir.path(), &["inspect", "questions.jsonl", "--show", "1", "--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(
        shown.contains("questions: 2 rows") && shown.contains("user: how many?") && !shown.contains("how few?"),
        "{shown}"
    );
    let summary: Value = serde_json::from_slice(&std::fs::read(dir.path().join("out/summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["in"], &summary["kept"]), (&json!(2), &json!(2)));

    questions(dir.path(), &["how many?", "how <image> few?"]);
    let output = omr(dir.path(), &["inspect", "questions.jsonl"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("row 2"), "{}", text(&output.stderr));
}

//! The program's own clients: evaluation, distillation, the judge and the terminal.

use std::io::Write;
use std::process::Stdio;

use omr_data::rows::{Form, Row, write};
use omr_train_tests::training::tiny::{rows, tuned_model};
use serde_json::{Value, json};

use super::program::{Server, model, png};
use crate::cli::help::{fed, omr};
use crate::cli::training::{failure, run};

fn tuned(dir: &std::path::Path) -> std::path::PathBuf {
    let model = dir.join("tuned");
    tuned_model(&model);
    model
}

/// Returns questions without answers.
fn questions() -> Vec<Row> {
    let mut rows = rows();
    rows.iter_mut().for_each(|row| row.messages.retain(|message| message.role != "assistant"));
    rows
}

#[test]
fn an_evaluation_over_the_server_equals_that_of_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let model = tuned(dir.path()).display().to_string();
    std::fs::create_dir(at("data")).unwrap();
    // The rows end with the answer that the model was trained on, which is not part of the question.
    write::write(&dir.path().join("data/heldout.parquet"), &rows(), Form::Rl).unwrap();
    let server = Server::start(model.as_ref(), &["--reasoning-parser", "qwen3"]);
    let evaluate = |out: &str, model: &[&str]| {
        let (out, data) = (at(out), at("data"));
        let more = ["--data", &data, "--tasks", "digits", "--out", &out, "dtype=f32", "repeats=0", "max_new_tokens=20"];
        let (code, _, stderr) = run(&[&["--quiet", "--device", "cpu", "eval"][..], model, &more].concat());
        assert_eq!(code, 0, "{stderr}");
        let text = std::fs::read_to_string(format!("{out}/samples.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
    };
    let url = format!("{}/v1", server.url);
    let (local, remote) =
        (evaluate("local", &["--model", &model]), evaluate("remote", &["--model-url", &url, "--model", "m"]));
    assert!(local.len() >= 12 && local.len() == remote.len(), "{} {}", local.len(), remote.len());
    for (a, b) in local.iter().zip(&remote) {
        assert_eq!(a, b);
    }
}

/// `omr serve` prints an address without a path. The limit of the benchmark is larger than the context of the server.
#[test]
fn an_evaluation_over_the_printed_address_asks_for_no_more_tokens_than_the_context_has() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let model = tuned(dir.path());
    std::fs::create_dir(at("data")).unwrap();
    write::write(&dir.path().join("data/heldout.parquet"), &rows()[..3], Form::Rl).unwrap();
    let server = Server::start(&model, &["--max-model-len", "80"]);
    let (out, data) = (at("out"), at("data"));
    let args =
        ["eval", "--model-url", &server.url, "--model", "m", "--data", &data, "--tasks", "digits", "--out", &out];
    let (code, _, stderr) = run(&[&args[..], &["repeats=0", "max_new_tokens=1000"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("3 answers to digits were limited to fewer than 1000 tokens"), "{stderr}");
    let samples = std::fs::read_to_string(format!("{out}/samples.jsonl")).unwrap();
    assert_eq!(samples.lines().count(), 3);
    // A prompt that is longer than the context is refused, and another try is no advice.
    let server = Server::start(&model, &["--max-model-len", "8"]);
    let args =
        ["eval", "--model-url", &server.url, "--model", "m", "--data", &data, "--tasks", "digits", "--out", &out];
    let stderr =
        failure(&[&args[..], &["--fresh", "repeats=0"]].concat(), 1, &["3 answers are missing", "max_model_len=8"]);
    assert!(stderr.contains("change what the server refuses") && !stderr.contains("run the same command"), "{stderr}");
    // The judge and the teacher take the same address.
    let base_url = format!("judge.base_url={}", server.url);
    let args = ["--quiet", "score", "--jsonl", &base_url, "judge.model=m", "judge.max_retries=0"];
    let response =
        json!({"response": "<think>a</think><answer>seven</answer>", "ground_truth": "apple", "question": "Which?"});
    let output = fed(omr().args(args), format!("{response}\n"));
    let printed = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && !printed.contains("404"), "{printed}");
}

#[test]
fn the_server_is_teacher_and_judge() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    write::write(&dir.path().join("rows.parquet"), &questions(), Form::Rl).unwrap();
    let server = Server::start(&tuned(dir.path()), &["--reasoning-parser", "qwen3", "--api-key", "teachers-key"]);
    let config = json!({
        "datasets": [{"path": at("rows.parquet"), "data_type": "parquet"}],
        "num_rollouts": 2,
        "teacher": {"base_url": format!("{}/v1", server.url), "model": "m", "api_key": "teachers-key", "max_tokens": 30},
        "judge": {"base_url": format!("{}/v1", server.url), "model": "m", "api_key": "teachers-key"},
    });
    std::fs::write(at("distill.yaml"), config.to_string()).unwrap();
    let (code, _, stderr) = run(&["--quiet", "data", "distill", &at("distill.yaml"), "--out", &at("out")]);
    assert_eq!(code, 0, "{stderr}");
    let summary: Value = serde_json::from_slice(&std::fs::read(at("out/summary.json")).unwrap()).unwrap();
    println!("  {summary}");
    // The model was not trained with the system prompt of distillation, so its answers may be of any kind.
    assert!(summary["requests"] == 24 && summary["tokens"].as_u64().unwrap() > 100, "{summary}");
    assert!(summary["rejected"].get("teacher_error").is_none(), "{summary}");

    let base_url = format!("judge.base_url={}/v1", server.url);
    let args =
        ["--quiet", "score", "--jsonl", &base_url, "judge.model=m", "judge.api_key=teachers-key", "judge.max_tokens=9"];
    let response =
        json!({"response": "<think>a</think><answer>seven</answer>", "ground_truth": "apple", "question": "Which?"});
    let output = fed(omr().args(args), format!("{response}\n"));
    let verdict = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("  {verdict}");
    assert!(output.status.success() && verdict.contains("\"judge\":"), "{}", String::from_utf8_lossy(&output.stderr));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut server = server;
    server.key = Some("teachers-key".to_owned());
    let ended: f64 = ["stop", "length"]
        .iter()
        .map(|reason| format!("omr:request_success_total{{finished_reason=\"{reason}\"}}"))
        .map(|name| runtime.block_on(server.metric_or_zero(&name)))
        .sum();
    assert!(ended >= 25.0, "the judge was asked: {ended}");
}

#[test]
fn a_chat_in_the_terminal_has_several_turns_and_images() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let file = dir.path().join("image.png");
    std::fs::write(&file, png(4)).unwrap();
    let talk = |lines: String| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_omr"));
        command.args(["--device", "cpu", "--quiet", "chat", "--model"]).arg(&model).args(["max_tokens=6", "seed=3"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let path = file.display();
    let first = talk(format!("One\n/image {path}\nWhat is this?\n/clear\nOne\n/image /nothing\n/what\n"));
    let lines: Vec<&str> = first.split_inclusive('\n').collect();
    assert!(first.contains("is part of the next message") && first.contains("a new conversation"), "{first}");
    assert!(first.contains("/nothing") && first.contains("unknown command /what"), "{first}");
    assert_eq!(lines.iter().filter(|line| **line == lines[0]).count(), 2, "equal turns have equal answers: {first}");
    assert_eq!(talk("One\n/exit\nTwo\n".to_owned()), lines[0]);
}

/// The requests are those that lmms-eval 0.7.3's model `openai` sent to this server, recorded between the two, for three
/// sets of `gen_kwargs` and questions with two images and with none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_lmms_eval_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&model(dir.path()), &[]);
    let requests: Vec<Value> = serde_json::from_str(include_str!("lmms_eval.json")).unwrap();
    for request in &requests {
        let answer = server.chat(request).await;
        let choices = answer["choices"].as_array().unwrap();
        assert_eq!(choices.len() as u64, request["n"].as_u64().unwrap_or(1));
        assert!(choices.iter().all(|choice| choice["message"]["content"].is_string()), "{answer}");
    }
    // lm-eval's chat models send messages with a type.
    let mut typed = super::program::chat("One");
    let plain = server.chat(&typed).await;
    typed["messages"][0]["type"] = json!("text");
    assert_eq!(server.chat(&typed).await["choices"], plain["choices"]);
}

//! Tests `omr generate --jsonl`: files of questions and of OpenAI's batch requests, which the server's code answers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use omr_base_tests::wait::until;
use serde_json::{Value, json};

use super::program::{Server, chat, chat_with, image, model, png};
use crate::cli::training::run;

/// A folder with a model, a file of questions and the answers.
struct Files {
    _dir: tempfile::TempDir,
    model: PathBuf,
    questions: PathBuf,
    answers: PathBuf,
}

impl Files {
    fn new() -> Files {
        let dir = tempfile::tempdir().unwrap();
        let (questions, answers) = (dir.path().join("questions.jsonl"), dir.path().join("answers.jsonl"));
        Files { model: model(dir.path()), _dir: dir, questions, answers }
    }

    fn ask(&self, lines: &[impl ToString]) {
        let text: String = lines.iter().map(|line| format!("{}\n", line.to_string())).collect();
        std::fs::write(&self.questions, text).unwrap();
    }

    fn args(&self, more: &[&str]) -> Vec<String> {
        let [model, questions, answers] =
            [&self.model, &self.questions, &self.answers].map(|p| p.display().to_string());
        let args = ["--device", "cpu", "--threads", "2", "generate", "--model", &model, "--jsonl", &questions];
        args.iter().chain(&["--out", &answers]).chain(more).map(|arg| (*arg).to_owned()).collect()
    }

    /// Runs the command and returns its exit status and stderr.
    fn run(&self, more: &[&str]) -> (i32, String) {
        let args = self.args(more);
        let (code, out, err) = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(out, "");
        (code, err)
    }

    /// Answers all lines and returns the output.
    fn answers(&self, more: &[&str]) -> Vec<Value> {
        let (code, err) = self.run(more);
        assert_eq!(code, 0, "{err}");
        self.read()
    }

    fn read(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.answers).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Returns the path of a file that belongs to the answers.
    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.answers.display()))
    }

    fn partial_lines(&self) -> usize {
        std::fs::read_to_string(self.beside(".partial")).unwrap_or_default().lines().count()
    }

    /// Starts the command and waits until it has answered `count` lines.
    fn until(&self, count: usize, more: &[&str]) -> std::process::Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        let command = command.args(self.args(more)).env("CUDA_VISIBLE_DEVICES", "");
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        until("answered lines", || {
            assert!(child.try_wait().unwrap().is_none(), "{count}");
            self.partial_lines() >= count
        });
        child
    }
}

/// Returns a line of OpenAI's batch API.
fn batch_line(id: &str, body: &Value) -> Value {
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": body})
}

/// Returns the bytes of the answers. Only the time of the first start may differ between two runs.
fn without_time(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let mut parts = text.split("\"created\":");
    let first = parts.next().unwrap().to_owned();
    parts.fold(first, |text, part| text + "\"created\":" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[test]
fn a_kill_at_any_time_changes_no_byte_of_the_answers() {
    let files = Files::new();
    std::fs::write(files.questions.with_file_name("seen.png"), png(4)).unwrap();
    let line = |i: usize| match i % 5 {
        0 => json!({"id": i, "prompt": "What is this?", "images": ["seen.png"]}).to_string(),
        1 => batch_line(&format!("b{i}"), &chat_with("One", &[i as u32 % 3])).to_string(),
        2 => json!({"id": i, "prompt": "One and two.", "n": 2, "stop": ["e"], "temperature": 0.5}).to_string(),
        3 => "{\"prompt\": ".to_owned(),
        _ => json!({"id": i, "messages": [{"role": "user", "content": "One"}], "seed": i, "score": 0.1}).to_string(),
    };
    files.ask(&(0..60).map(line).collect::<Vec<_>>());
    let settings = ["max_num_seqs=1", "max_tokens=40", "ignore_eos=true"];
    assert_eq!(files.answers(&["max_tokens=40", "ignore_eos=true"]).len(), 60);
    let whole = without_time(&files.answers);
    let (code, err) = files.run(&["--fresh", "max_tokens=41"]);
    assert!(code == 0 && without_time(&files.answers) != whole, "{err}");
    for (i, answered) in [1, 20, 45].into_iter().enumerate() {
        let mut child = files.until(
            answered,
            if i == 0 { &["--fresh", "max_num_seqs=1", "max_tokens=40", "ignore_eos=true"] } else { &settings },
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!files.answers.exists());
        // A line that a kill has cut.
        let partial = std::fs::read(files.beside(".partial")).unwrap();
        std::fs::write(files.beside(".partial"), &partial[..partial.len() - 9 * (i + 1)]).unwrap();
    }
    let (code, err) = files.run(&settings);
    assert!(code == 0 && err.contains(" lines are answered already"), "{err}");
    assert_eq!(without_time(&files.answers), whole);
    assert!(!files.beside(".partial").exists());
    // A finished file is not answered again.
    let time = |path: &Path| std::fs::metadata(path).unwrap().modified().unwrap();
    let before = time(&files.answers);
    let (code, err) = files.run(&settings);
    assert!(code == 0 && err.contains("is finished already") && err.contains("48 of"), "{err}");
    assert_eq!(time(&files.answers), before);
}

#[test]
fn images_answers_and_questions_that_change_between_a_kill_and_a_start_are_found() {
    let files = Files::new();
    let image = files.questions.with_file_name("seen.png");
    std::fs::write(&image, png(4)).unwrap();
    let line = |i: usize| json!({"id": i, "prompt": "What is this?", "images": ["seen.png"]});
    files.ask(&(0..30).map(line).collect::<Vec<_>>());
    let settings = ["max_num_seqs=1", "max_tokens=40", "ignore_eos=true"];
    files.answers(&settings);
    let whole = without_time(&files.answers);
    let mut child = files.until(10, &["--fresh", "max_num_seqs=1", "max_tokens=40", "ignore_eos=true"]);
    child.kill().unwrap();
    child.wait().unwrap();
    let modified = std::fs::metadata(&image).unwrap().modified().unwrap();
    let put = |level: u32| {
        std::fs::write(&image, png(level)).unwrap();
        std::fs::File::options().write(true).open(&image).unwrap().set_modified(modified).unwrap();
    };
    put(5);
    let (code, err) = files.run(&settings);
    assert!(code == 2 && err.contains("content of the images was"), "{err}");
    put(4);
    // A finished answer of which a digit differs is not used: its question is answered again.
    let partial = std::fs::read_to_string(files.beside(".partial")).unwrap();
    let at = partial.find("\"token_ids\":[").unwrap() + "\"token_ids\":[".len();
    let digit = if &partial[at..=at] == "7" { "8" } else { "7" };
    std::fs::write(files.beside(".partial"), format!("{}{digit}{}", &partial[..at], &partial[at + 1..])).unwrap();
    let (code, err) = files.run(&settings);
    assert!(code == 0 && without_time(&files.answers) == whole, "{err}");
    // Finished answers that were changed are not taken for finished.
    std::fs::write(&files.answers, "{}\n").unwrap();
    let (code, err) = files.run(&settings);
    assert!(code == 2 && err.contains("other answers than this command wrote"), "{err}");
}

#[test]
fn a_file_that_is_not_of_answers_is_never_replaced() {
    let files = Files::new();
    files.ask(&[json!({"prompt": "One"})]);
    let questions = std::fs::read(&files.questions).unwrap();
    std::fs::hard_link(&files.questions, &files.answers).unwrap();
    for more in [&[][..], &["--fresh"]] {
        let (code, err) = files.run(more);
        assert!(code == 2 && err.contains("found a file that this command reads"), "{err}");
        assert_eq!(std::fs::read(&files.answers).unwrap(), questions);
    }
    std::fs::remove_file(&files.answers).unwrap();
    std::fs::write(&files.answers, "my notes").unwrap();
    let (code, err) = files.run(&[]);
    assert!(code == 2 && err.contains("a file that this command did not write") && err.contains("--fresh"), "{err}");
    assert_eq!(std::fs::read_to_string(&files.answers).unwrap(), "my notes");
}

#[test]
fn other_questions_models_or_settings_are_refused_by_name_until_fresh() {
    let files = Files::new();
    files.ask(&[json!({"prompt": "One"}), json!({"prompt": "two"})]);
    let answers = files.answers(&["max_tokens=4"]);
    let refused = |more: &[&str], parts: &[&str]| {
        let (code, err) = files.run(more);
        assert!(code == 2 && err.contains("--fresh"), "{err}");
        parts.iter().for_each(|part| assert!(err.contains(part), "{part}: {err}"));
        assert_eq!(files.read(), answers);
    };
    refused(&["max_tokens=4", "temperature=0.5"], &["temperature was 1.0 and is 0.5"]);
    refused(&["max_tokens=5", "seed=1"], &["max_tokens was 4 and is 5", "seed was 42 and is 1"]);
    // What changes the speed only may change.
    assert_eq!(files.answers(&["max_tokens=4", "max_num_seqs=1", "enable_prefix_caching=false"]), answers);
    files.ask(&[json!({"prompt": "One"}), json!({"prompt": "three"})]);
    refused(&["max_tokens=4"], &["content of --jsonl was"]);
    let fresh = files.answers(&["max_tokens=4", "--fresh"]);
    assert!(fresh[0] == answers[0] && fresh[1] != answers[1]);
    let aside = std::fs::read_to_string(files.beside(".1")).unwrap();
    assert!(aside.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).eq(answers.iter().cloned()));
    // Another process cannot write the same answers.
    std::fs::remove_file(&files.answers).unwrap();
    files.ask(&(0..60).map(|i| json!({"prompt": format!("One {i}")})).collect::<Vec<_>>());
    let mut child = files.until(1, &["max_num_seqs=1", "ignore_eos=true", "max_tokens=300"]);
    let (code, err) = files.run(&["max_num_seqs=1"]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(code == 2 && err.contains("another omr process"), "{err}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batch_lines_are_answered_as_the_server_answers_their_bodies() {
    let files = Files::new();
    let server = Server::start(&files.model, &[]);
    let with = |mut body: Value, more: Value| {
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let bodies = [
        chat("One and two"),
        chat_with("One", &[1, 2]),
        with(chat("One"), json!({"n": 3, "temperature": 0.7, "logprobs": true, "top_logprobs": 2})),
        with(chat("What is this?"), json!({"stop": ["e", "o"], "max_tokens": 60, "repetition_penalty": 1.2})),
        with(chat("two"), json!({"seed": -2, "top_p": 0.9, "top_k": 5, "max_completion_tokens": 9, "max_tokens": 9})),
        with(chat("two"), json!({"seed": 3, "logit_bias": {"40": 5.0}, "return_token_ids": true})),
    ];
    let mut lines: Vec<Value> = bodies.iter().enumerate().map(|(i, body)| batch_line(&format!("r{i}"), body)).collect();
    let completion = json!({"model": "m", "prompt": "One and", "max_tokens": 7, "seed": 1});
    let tokens = json!({"token_ids": [50, 51], "sampling_params": {"max_tokens": 5, "seed": 2, "logprobs": 1}});
    for (url, body) in [("/v1/completions", completion), ("/inference/v1/generate", tokens)] {
        lines.push(json!({"custom_id": url, "method": "POST", "url": url, "body": body}));
    }
    files.ask(&lines);
    let kept = |mut answer: Value| {
        for key in ["id", "request_id", "created", "model"] {
            answer.as_object_mut().unwrap().shift_remove(key);
        }
        answer["usage"].as_object_mut().unwrap().shift_remove("prompt_tokens_details");
        answer
    };
    let (answers, mut ids) = (files.answers(&[]), Vec::new());
    assert_eq!(answers.len(), lines.len());
    for (line, answer) in lines.iter().zip(answers) {
        let expected = server.ok(line["url"].as_str().unwrap(), &line["body"]).await;
        assert_eq!(kept(answer["response"]["body"].clone()), kept(expected), "{line}");
        assert_eq!((&answer["custom_id"], &answer["error"]), (&line["custom_id"], &Value::Null));
        assert_eq!(answer["response"]["status_code"], 200);
        ids.push(answer["id"].to_string());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), lines.len());
    // A question of a row with the same parameters has the same answer.
    let parameters = json!({"seed": 5, "max_tokens": 12, "n": 2, "temperature": 0.8, "stop": "e"});
    let asked = with(json!({"prompt": "One and two", "kept": [1]}), parameters.clone());
    files.ask(&[asked.clone(), with(json!({"prompt": "One and two"}), json!({"seed": 5, "max_tokens": 12}))]);
    let answers = files.answers(&["--fresh"]);
    let text = |body: &Value, k: usize| body["choices"][k]["message"]["content"].clone();
    let two = server.chat(&with(chat("One and two"), parameters)).await;
    assert_eq!(answers[0]["responses"], json!([text(&two, 0), text(&two, 1)]));
    assert_eq!(
        answers[0]["finish_reason"],
        json!([two["choices"][0]["finish_reason"], two["choices"][1]["finish_reason"]])
    );
    assert!(asked.as_object().unwrap().iter().all(|(key, value)| answers[0][key] == *value));
    assert_eq!(answers[0]["token_ids"].as_array().unwrap().len(), 2);
    assert_eq!(answers[1]["response"], text(&server.chat(&chat("One and two")).await, 0));
}

#[test]
fn equal_questions_have_different_answers_and_each_line_its_own_parameters() {
    let files = Files::new();
    files.ask(&[
        json!({"prompt": "One"}),
        json!({"prompt": "One"}),
        json!({"prompt": "One", "temperature": 0, "max_tokens": 3}),
        json!({"prompt": "One", "temperature": 0}),
    ]);
    let answers = files.answers(&["max_tokens=20", "ignore_eos=true"]);
    let ids = |i: usize| answers[i]["token_ids"].as_array().unwrap().clone();
    assert!(ids(0) != ids(1) && ids(0).len() == 20);
    assert_eq!(ids(3)[..3], ids(2));
    assert_eq!(files.answers(&["max_tokens=20", "ignore_eos=true", "--fresh", "max_num_seqs=1"]), answers);
    let other = files.answers(&["max_tokens=20", "ignore_eos=true", "--fresh", "seed=43"]);
    assert!(other[0] != answers[0] && other[3] == answers[3]);
}

#[test]
fn fields_that_a_plain_line_cannot_have_are_refused() {
    let files = Files::new();
    let chats = json!([{"role": "user", "content": "One"}]);
    files.ask(&[
        json!({"prompt": "One", "top_logprobs": 2}),
        json!({"prompt": "One", "chat_template_kwargs": {"enable_thinking": false}}),
        json!({"prompt": "One", "logprobs": true}),
        json!({"prompt": "One", "messages": chats}),
        json!({"prompt": "One", "logprobs": [-0.5]}),
    ]);
    let (code, err) = files.run(&["max_tokens=4"]);
    assert!(code == 0 && err.contains("1 of the lines answered, 4 skipped"), "{err}");
    for (answer, field) in files.read().iter().zip(["top_logprobs", "chat_template_kwargs", "logprobs", "prompt"]) {
        assert!(answer["error"]["message"].as_str().unwrap().starts_with(&format!("{field}: ")), "{answer}");
    }
}

#[test]
fn the_commands_max_tokens_is_the_default_of_each_route() {
    let files = Files::new();
    let body = json!({"prompt": "One", "ignore_eos": true});
    files.ask(&[json!({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body})]);
    let answers = files.answers(&["max_tokens=20"]);
    assert_eq!(answers[0]["response"]["body"]["usage"]["completion_tokens"], 20);
}

#[test]
fn lines_with_errors_are_skipped_and_nothing_is_lost() {
    let files = Files::new();
    let lines = [
        json!({"id": "good", "prompt": "One"}).to_string(),
        "{\"prompt\": \"One\"".to_owned(),
        json!({"id": "gone", "prompt": "One", "images": ["gone.png"]}).to_string(),
        json!({"id": "marks", "prompt": "<image> One"}).to_string(),
        json!({"id": "long", "prompt": "One ".repeat(2000)}).to_string(),
        json!({"id": "hot", "prompt": "One", "temperature": "hot"}).to_string(),
        json!({"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": chat("One")}).to_string(),
        batch_line("b", &json!({"messages": [], "max_tokens": 4})).to_string(),
        batch_line("c", &json!({"messages": [{"role": "user", "content": "One"}], "stream": true})).to_string(),
        batch_line("d", &json!({"messages": [{"role": "user", "content": "One"}], "model": "gpt"})).to_string(),
        json!({"id": "last", "prompt": "two"}).to_string(),
    ];
    files.ask(&lines);
    // The share is known before the model is loaded.
    let (code, err) = files.run(&["max_tokens=4", "max_bad_rows=0.5"]);
    assert!(code == 2 && err.contains("max_bad_rows: found 8 lines of 11") && err.contains("line 2:"), "{err}");
    let left: Vec<_> =
        std::fs::read_dir(files.questions.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    let (code, err) = files.run(&["max_tokens=4"]);
    println!("{err}");
    assert!(code == 0 && err.contains("3 of the lines answered, 8 skipped"), "{err}");
    assert!(err.contains("lines ask for the model gpt"), "{err}");
    let answers = files.read();
    let parts = [
        "",
        "invalid JSON (EOF while parsing an object at character 16)",
        "gone.png",
        "image",
        "max_model_len",
        "temperature",
        "url",
        "messages",
        "stream",
        "",
        "",
    ];
    for (i, (answer, part)) in answers.iter().zip(parts).enumerate() {
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(part) && message.is_empty() == part.is_empty(), "{part}: {answer}");
        assert!(
            part.is_empty() || err.contains(&format!("questions.jsonl line {} is skipped: {message}", i + 1)),
            "{message}"
        );
        if let Ok(line) = serde_json::from_str::<Value>(&lines[i]) {
            assert!(answer["id"] == line["id"] || answer["custom_id"] == line["custom_id"], "{answer}");
        }
    }
    assert_eq!((&answers[1]["line"], answers.len()), (&json!(2), 11));
    assert_eq!((&answers[7]["response"], &answers[9]["response"]["status_code"]), (&Value::Null, &json!(200)));
    // The output is a valid input: errors that are repaired are gone.
    let mut repaired = answers[2].clone();
    repaired["images"] = json!([image(1)]);
    files.ask(&[repaired]);
    let again = files.answers(&["max_tokens=4", "--fresh"]);
    assert!(again[0]["response"].is_string() && again[0].get("error").is_none(), "{}", again[0]);
    // Without any answer, nothing is written.
    files.ask(&lines[1..4]);
    std::fs::remove_file(&files.answers).unwrap();
    let (code, err) = files.run(&["--fresh"]);
    assert!(code == 2 && err.contains("3 lines of 3") && !files.answers.exists(), "{err}");
}

#[test]
fn images_are_held_for_the_lines_in_flight_only() {
    let files = Files::new();
    let at = |i: usize| files.questions.with_file_name(format!("{i}.png"));
    // One file under many names: an image is read when the turn of its line comes.
    std::fs::write(at(0), png(4)).unwrap();
    (1..2000).for_each(|i| std::fs::hard_link(at(0), at(i)).unwrap());
    let line = |i: usize| json!({"id": i, "prompt": "One", "images": [format!("{i}.png")]});
    files.ask(&(0..2000).map(line).collect::<Vec<_>>());
    let mut child = files.until(1, &["max_tokens=2", "max_num_seqs=8"]);
    (600..2000).for_each(|i| std::fs::remove_file(at(i)).unwrap());
    let answered = files.partial_lines();
    child.wait().unwrap();
    let errors = files.read().iter().filter(|answer| answer["error"]["message"].is_string()).count();
    println!("{answered} lines had answers when 1,400 images were removed; {errors} lines have errors");
    // Images are read at most 8 + 16 lines ahead.
    assert!(answered < 500 && errors == 1400, "{answered} {errors}");
}

//! Tests the templates of rows in the program.

use std::fs;

use omr_data_tests::rows::templates::{KEYS, entry, jsonl};
use omr_train_tests::training::tiny::base_model;
use serde_json::json;

use crate::cli::training::{failure, run};

/// SFT, RL, evaluation and the data commands ask the same question of a row.
#[test]
fn every_command_asks_the_question_of_the_template() {
    let dir = tempfile::tempdir().unwrap();
    base_model(&dir.path().join("model"));
    let at = |name: &str| dir.path().join(name).display().to_string();
    jsonl(dir.path(), &[json!({"query": "How long?", "hint": "", "label": 4, "image": "0.png"})]);
    entry(dir.path(), "rows.jsonl", KEYS);
    let list = fs::read_to_string(dir.path().join("rl.yaml")).unwrap();
    let line = "<|im_start|>system\nThink first.<|im_end|>\n";
    for key in ["train_files", "datasets", "data"] {
        let config = at(&format!("{key}.yaml"));
        fs::write(&config, list.replace("train_files", key)).unwrap();
        let (code, text, error) =
            run(&["data", "preview", &config, "--model", &at("model"), "--out", &at(key), "--rows", "1"]);
        assert!(code == 0 && text.contains(line), "{key}: {text}{error}");
        assert!(text.contains("How long? Put the answer into \\boxed{}.<|im_end|>"), "{key}: {text}");
        let (code, text, error) = run(&["data", "inspect", &config, "--out", &at(key)]);
        assert!(code == 0 && text.contains("columns used: hint, image, label, query"), "{key}: {text}{error}");
    }
    // The template reads the column `prompt`, and the column `problem` is replaced.
    let row = json!({"prompt": [{"role": "user", "content": "How long?"}], "problem": "Other?", "label": "4"});
    fs::write(at("chat.jsonl"), format!("{row}\n")).unwrap();
    let entry =
        format!("{{path: {}, prompt: '{{{{ prompt[0].content }}}}', columns: {{answer: label}}}}", at("chat.jsonl"));
    fs::write(at("chat.yaml"), format!("train_files: [{entry}]\n")).unwrap();
    let (code, text, error) = run(&["data", "inspect", &at("chat.yaml"), "--out", &at("page")]);
    assert!(code == 0 && text.contains("columns used: label, prompt; columns not used: problem"), "{text}{error}");
    let task = format!("data: {{path: {}, prompt: '{{{{ query }}}}'}}\n", at("rows.jsonl"));
    fs::write(dir.path().join("task.yaml"), task).unwrap();
    failure(
        &["eval", "--task-file", &at("task.yaml"), "--dump-prompts", &at("prompts.jsonl")],
        2,
        &["task.yaml", "data", "found the key prompt", "the key prompt of the benchmark, outside of data"],
    );
}

//! Tests `omr init`: the model fits the user's rows, depends on the seed alone, and can be trained.

use std::fs;
use std::path::Path;

use omr_train_tests::training::tiny::files;
use serde_json::{Value, json};

use super::training::{failure, run};

const LIKE: &str = "configs/digits.yaml";

/// Shape of a model that is small enough for a test.
pub const SMALL: [&str; 5] = [
    "base.hidden_size=48",
    "base.num_hidden_layers=1",
    "base.intermediate_size=32",
    "base.mrope_section=[2,3,3]",
    "base.vision={hidden_size: 16, depth: 1, num_heads: 1, intermediate_size: 24, fullatt_block_indexes: [0]}",
];

/// Writes rows without images to `dir`.
fn rows(dir: &Path) -> String {
    let row = |i: usize| {
        let answer = format!("<think>The zebra counts {i} stripes.</think><answer>{i}</answer>");
        let user = json!({"role": "user", "content": format!("How many stripes has zebra {i}?")});
        json!({"id": i, "messages": [user, {"role": "assistant", "content": answer}]}).to_string() + "\n"
    };
    let path = dir.join("rows.jsonl");
    fs::write(&path, (0..40).map(row).collect::<String>()).unwrap();
    path.display().to_string()
}

#[test]
fn a_new_model_fits_the_rows_depends_on_the_seed_and_can_be_trained() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, at) = (rows(dir.path()), |name: &str| dir.path().join(name).display().to_string());
    let init = |name: &str, more: &[&str]| {
        let args = ["init", "--like", LIKE, "--rows", &rows, "--out", &at(name)];
        let (code, stdout, stderr) = run(&[&args, &SMALL[..], more].concat());
        assert!(code == 0 && stdout == at(name) + "\n", "{stderr}");
        assert!(stderr.contains("random weights, and a tokenizer for the texts of 40 rows"), "{stderr}");
        files(&dir.path().join(name))
    };
    let first = init("one", &[]);
    let names = ["MANIFEST", "config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json"];
    let more = ["tokenizer.json", "tokenizer_config.json"];
    assert!(names.iter().chain(&more).all(|name| first.contains_key(*name)), "{:?}", first.keys());
    assert!(first == init("again", &[]), "the same seed gives the same files");
    let other = init("other", &["seed=2"]);
    let differ: Vec<&String> = first.keys().filter(|name| first[*name] != other[*name]).collect();
    assert_eq!(differ, ["MANIFEST", "model.safetensors"], "the seed decides the weights only");

    let tokenizer: Value = serde_json::from_slice(&first["tokenizer.json"]).unwrap();
    let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
    assert!(vocabulary.contains_key("Ġzebra") && vocabulary.contains_key("Ġstripes"), "words of the rows are tokens");
    let config = dir.path().join("sft.yaml");
    fs::write(&config, format!("model: {}\ndatasets: [{rows}]\nval_size: 4\neval_steps: 1\n", at("one"))).unwrap();
    // The rows of a config, which may be other columns of a file.
    let args = ["init", "--like", LIKE, "--rows", config.to_str().unwrap(), "--out", &at("config")];
    let (code, _, stderr) = run(&[&args, &SMALL[..]].concat());
    assert!(code == 0 && first == files(&dir.path().join("config")), "{stderr}");
    let keys = ["max_steps=1", "packing_length=512", "micro_batch_tokens=512"];
    let (code, _, stderr) = run(&[&["sft", config.to_str().unwrap(), "--out", &at("sft")], &keys[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("val_size: 4 of 40 rows are split off"), "{stderr}");
    assert!(stderr.contains("expected time of a validation: val/loss of 4 rows about "), "{stderr}");
    assert!(stderr.contains("step 0: val/loss ") && stderr.contains("step 1: val/loss "), "{stderr}");
}

#[test]
fn wrong_input_names_the_flag_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (rows, at) = (rows(dir.path()), |name: &str| dir.path().join(name).display().to_string());
    let out = at("out");
    let wrong = |rows: &str, out: &str, more: &[&str], parts: &[&str]| {
        failure(&[&["init", "--like", LIKE, "--rows", rows, "--out", out], more].concat(), 2, parts);
    };
    wrong(&rows, &out, &["base.model=somewhere"], &["base.model: found somewhere", "a model directory"]);
    wrong(&rows, dir.path().to_str().unwrap(), &[], &["--out", "which exists", "a new folder"]);
    wrong(&at("gone.jsonl"), &out, &[], &["gone.jsonl"]);
    wrong(&rows, &out, &["base.vocab_size=280"], &["base.vocab_size: found 280", "300 or more"]);
    fs::write(at("bad.jsonl"), "{\"messages\": 3}\n").unwrap();
    wrong(&at("bad.jsonl"), &out, &[], &["bad.jsonl row 1", "messages"]);
    assert!(!Path::new(&out).exists());
}

//! Tests every layout of rows in the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use omr_base::config::{ColumnsConfig, DatasetConfig};
use omr_data::rows::read::{RowFile, entry};
use omr_data::rows::{ReadCounts, read};
use omr_data_tests::rows::formats::rows;
use omr_data_tests::rows::layouts::{check, made, set};
use omr_train_tests::training::tiny::{base_model, sft_config, tuned_model};
use serde_json::json;

use crate::cli::training::{failure, run};

/// The images of the rows are paths from the working directory, which a test cannot change for itself.
#[test]
fn verl_rows_with_paths_from_the_working_directory() {
    let inspect = |dir: &Path, path: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        let page = tempfile::tempdir().unwrap();
        let command = command.current_dir(dir).args(["data", "inspect", path, "--show", "0", "--out"]).arg(page.path());
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(made().join("verl"), dir.path().join("verl")).unwrap();
    let (code, text, _) = inspect(made(), "verl/train.parquet");
    let line = "read 60 rows: 60 images, 60 turns; form: prompt (verl, TRL); columns used: ability, data_source, \
                extra_info, images, prompt, reward_model\n";
    assert!(code == Some(0) && text.contains(line), "{text}");
    // From elsewhere, the error says which folders were searched and which key adds one.
    let path = made().join("verl/train.parquet").display().to_string();
    let (code, _, error) = inspect(Path::new("/"), &path);
    let searched = ["image verl/pics/0.png", "/verl of the rows or the working directory", "the key data_folder"];
    assert!(code == Some(2) && searched.iter().all(|part| error.contains(part)), "{error}");
    let there = DatasetConfig { data_folder: Some(made().to_owned()), ..set("verl/train.parquet") };
    check(&there, "prompt (verl, TRL)", &["user"], true);
}

#[test]
fn hub_data_sets_by_name_split_and_revision() {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(made().join("hub"), home.path().join("hub")).unwrap();
    let inspect = |entry: &str| {
        let config = home.path().join("sft.yaml");
        fs::write(&config, format!("datasets: [{entry}]\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        let page = home.path().join("page");
        let command = command
            .env("HF_HOME", home.path())
            .args(["data", "inspect"])
            .arg(config)
            .arg("--out")
            .arg(page)
            .arg("--overwrite");
        let out = command.output().unwrap();
        (out.status.code(), String::from_utf8([out.stdout, out.stderr].concat()).unwrap())
    };
    for (keys, count) in [
        ("split: train", 60),
        ("name: all, split: test", 4),
        ("name: few, split: train, revision: main", 8),
        ("name: few, split: train, revision: c0ffee", 8),
    ] {
        let (code, text) = inspect(&format!("{{path: made/squares, {keys}}}"));
        assert!(code == Some(0) && text.contains(&format!("read {count} rows: {count} images")), "{keys}: {text}");
    }
    for (keys, part) in [
        ("name: some", "name: found some, expected one of all, few"),
        ("split: dev", "split: found dev"),
        ("revision: v2", "omr download made/squares@v2"),
        ("name: all", "several splits: test, train"),
    ] {
        let (code, text) = inspect(&format!("{{path: made/squares, {keys}}}"));
        assert!(code == Some(2) && text.contains(part), "{keys}: {text}");
    }
    let local = DatasetConfig { revision: Some("main".into()), ..set("vero/train.parquet") };
    assert!(read::read(&local).unwrap_err().to_string().contains("because `revision` is set"));
}

#[test]
fn images_that_no_one_reads_end_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let config = sft_config(dir.path());
    let model = config.model.unwrap().display().to_string();
    fs::copy(made().join("vero/pics/0.png"), dir.path().join("a.png")).unwrap();
    let row = json!({"question": "q", "answer": "1", "screenshot": ["a.png"]}).to_string();
    fs::write(dir.path().join("rows.jsonl"), &row).unwrap();
    fs::write(dir.path().join("rows.csv"), "question,answer,screenshot\nq,1,a.png\n").unwrap();
    let part = "a column `screenshot` with images that is not read";
    for rows in ["rows.jsonl", "rows.csv"] {
        let (code, _, error) = run(&["data", "inspect", &at(rows), "--out", &at("page"), "--overwrite"]);
        let parts = [rows, part, "columns: {images: screenshot}"];
        assert!(code == 2 && parts.iter().all(|part| error.contains(part)), "{error}");
        let keys = |list: &str| format!("model: {model}\n{list}: [{}]\nmax_bad_rows: 0\n", at(rows));
        fs::write(dir.path().join("sft.yaml"), keys("datasets")).unwrap();
        fs::write(dir.path().join("rl.yaml"), keys("train_files")).unwrap();
        for job in ["sft", "rl"] {
            failure(&[job, &at(&format!("{job}.yaml")), "--out", &at("run"), "--dry-run"], 2, &[rows, part]);
        }
        let data = format!("data=[{}]", at(rows));
        failure(&["eval", "--model", &model, "--out", &at("eval"), "--dry-run", &data], 2, &[rows, part]);
    }
    // An empty name says that the rows are used without their images.
    let columns = |images: &str| ColumnsConfig { images: Some(images.into()), ..ColumnsConfig::default() };
    for (images, count) in [("", 0), ("screenshot", 1)] {
        let entry = DatasetConfig { columns: columns(images), ..entry(dir.path().join("rows.jsonl")) };
        let mut seen = ReadCounts::default();
        rows(&entry).iter().for_each(|row| seen.add(row));
        let seen = seen.with_columns(&RowFile::open(&[entry]).unwrap()).unwrap();
        assert!(seen.check().is_ok() && seen.images == count);
    }
}

#[test]
fn a_preview_shows_what_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    base_model(dir.path());
    let [model, out] = [dir.path(), &dir.path().join("page")].map(|path| path.display().to_string());
    let rows = made().join("questions/answers.csv").display().to_string();
    let (code, text, _) = run(&["data", "preview", &rows, "--model", &model, "--out", &out]);
    let shown = "<|vision_end|>How many squares, in picture 1?<|im_end|>\n<|im_start|>assistant\n[[2<|im_end|>]]\n";
    assert!(code == 0 && text.contains(shown) && text.contains("form: question + answer"), "{text}");
    assert_eq!(text.matches("[[").count(), 3);
    let page = fs::read_to_string(dir.path().join("page/preview.html")).unwrap();
    assert!(page.contains("<mark>2&lt;|im_end|&gt;</mark>") && page.matches("<img src=\"data:image").count() == 3);
    // Of a prompt, nothing is trained.
    let rows = made().join("vero/train.parquet").display().to_string();
    let (code, text, _) =
        run(&["data", "preview", &rows, "--model", &model, "--out", &out, "--rows", "1", "--overwrite"]);
    assert!(code == 0 && !text.contains("[[") && text.contains("no answer to train on"), "{text}");
    // A template whose blocks end before the end of the turn.
    let template = "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}\
        {% else %}{{ m.content }}{% endif %}<|im_end|>{% endfor %}";
    fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    fs::write(dir.path().join("rows.jsonl"), r#"{"prompt": "Say yes.", "completion": "yes"}"#).unwrap();
    let rows = dir.path().join("rows.jsonl").display().to_string();
    let (code, text, _) = run(&["data", "preview", &rows, "--model", &model, "--out", &out, "--overwrite"]);
    assert!(code == 0 && text.contains("[[yes]]<|im_end|>"), "{text}");
    assert!(text.contains("the token that ends an answer is not trained"), "{text}");
}

/// Inspects every layout, trains on it for two steps with SFT and, if it has labels, with RL, and evaluates it.
#[test]
#[ignore = "runs the program 60 times"]
fn every_layout_goes_through_the_program_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    tuned_model(&model);
    let at = |name: &str| dir.path().join(name).display().to_string();
    let omr = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        let out = command.current_dir(made()).env("HF_HOME", made()).args(args).output().unwrap();
        let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        assert!(out.status.success(), "{args:?}: {text}");
        text
    };
    let train = "max_steps: 2\ntrain_batch_size: 4\npacking_length: 512\nmicro_batch_tokens: 512\n";
    let rl = "total_training_steps: 2\ntrain_batch_size: 2\nppo_mini_batch_size: 2\nrollout: {n: 2}\nmax_response_length: 16\n";
    let mut through = Vec::new();
    for (entry, answered, labelled) in LAYOUTS {
        let out = |job: &str| at(&format!("{}-{job}", through.len()));
        let write = |name: &str, text: String| {
            let path = PathBuf::from(at(name));
            fs::write(&path, format!("model: {}\n{text}", model.display())).unwrap();
            path.display().to_string()
        };
        let config = write("sft.yaml", format!("datasets: [{entry}]\n{train}"));
        let inspected =
            omr(&["data", "inspect", &config, "--model", &model.display().to_string(), "--out", &out("page")]);
        assert!(inspected.contains("read 60 rows: 60 images"), "{entry}: {inspected}");
        if answered {
            let said = omr(&["sft", &config, "--out", &out("sft")]);
            assert!(said.contains("read 60 rows: 60 images") && said.contains("columns used"), "{entry}: {said}");
        }
        if labelled {
            let config = write("rl.yaml", format!("train_files: [{entry}]\n{rl}"));
            let said = omr(&["rl", &config, "--out", &out("rl")]);
            assert!(said.contains("read 60 rows: 60 images"), "{entry}: {said}");
            let config = write("eval.yaml", format!("data: [{entry}]\nrepeats: 0\nmax_new_tokens: 8\nlimit: 60\n"));
            let said = omr(&["eval", "--config", &config, "--out", &out("eval")]);
            assert!(said.contains("read 60 rows: 60 images"), "{entry}: {said}");
        }
        through.push(entry);
    }
    println!("{} layouts", through.len());
}

/// Data set entries, whether their rows have answers, and whether they have labels.
const LAYOUTS: [(&str, bool, bool); 18] = [
    ("verl/train.parquet", false, true),
    ("{path: llama_factory/sharegpt.json, data_folder: llama_factory/media}", true, false),
    ("{path: llama_factory/alpaca.json, data_folder: llama_factory/media}", true, false),
    ("trl/messages.parquet", true, false),
    ("trl/completion.parquet", true, false),
    ("trl/grpo.parquet", false, true),
    ("questions/answers.jsonl", true, true),
    ("questions/answers.csv", true, true),
    ("questions/answers.tsv", true, true),
    ("questions/thinking.jsonl", true, true),
    ("questions/fine_reason.parquet", true, true),
    ("vero/train.parquet", false, true),
    ("imagefolder/jsonl", true, true),
    ("imagefolder/csv", true, true),
    ("imagefolder/classes/train", true, true),
    ("arrow/one", true, true),
    ("webdataset", true, true),
    ("{path: made/squares, split: train}", true, true),
];

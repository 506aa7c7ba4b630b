//! Compares `omr eval --dump-prompts` and `omr eval --responses` with `goldens/eval`: the tasks of the published
//! evaluation, run by their authors' code. Also compares tables of results of single functions.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use omr_base::config::Mode;
use omr_data::rows::Row;
use omr_data::task::{self, Counted, Mark, Marks, TaskSpec, aime, charxiv, doc, gpqa};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::cli::training::run;

/// The folder of a task.
struct Folder {
    name: String,
    path: PathBuf,
}

fn folders() -> Vec<Folder> {
    let mut found = omr_base_tests::golden::entries(&omr_base_tests::golden::dir().join("eval"), "", "");
    found.retain(|path| path.is_dir());
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    found.into_iter().map(|path| Folder { name: name(&path), path }).collect()
}

/// An evaluation in its own folder: the task's rows as a user has them, the recorded responses, and the outputs.
struct Run {
    dir: tempfile::TempDir,
    place: String,
    args: Vec<String>,
}

impl Run {
    fn new(folder: &Folder, rows: &str, mode: &str) -> Run {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data").join(&folder.name);
        fs::create_dir_all(&data).unwrap();
        fs::copy(folder.path.join(rows), data.join("data.parquet")).unwrap();
        let data = dir.path().join("data").to_str().unwrap().to_owned();
        let args = ["--tasks", &folder.name, "--data", &data, "--mode", mode].map(str::to_owned).to_vec();
        Run { place: format!("{} {rows} {mode}", folder.name), dir, args }
    }

    fn with(mut self, more: &[&str]) -> Run {
        self.args.extend(more.iter().map(|arg| (*arg).to_owned()));
        self
    }

    fn run(&self, more: &[&str]) {
        let args: Vec<&str> =
            ["--quiet", "eval"].into_iter().chain(self.args.iter().map(String::as_str)).chain(more.to_vec()).collect();
        let (code, _, stderr) = run(&args);
        assert_eq!(code, 0, "{}: {stderr}", self.place);
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Returns the lines of `--dump-prompts` by index.
    fn prompts(&self) -> BTreeMap<u64, Value> {
        self.run(&["--dump-prompts", &self.at("prompts.jsonl")]);
        by_index(&self.at("prompts.jsonl"))
    }

    /// Returns `summary.json` of the task, and the samples by index.
    fn score(&self, task: &str, responses: &[(u64, Value)], more: &[&str]) -> (Value, BTreeMap<u64, Value>) {
        let line = |(index, responses): &(u64, Value)| {
            json!({"task": task, "index": index, "responses": responses}).to_string() + "\n"
        };
        fs::write(self.at("responses.jsonl"), responses.iter().map(line).collect::<String>()).unwrap();
        let (file, out) = (self.at("responses.jsonl"), self.at("out"));
        self.run(&[&["--responses", &file, "--out", &out], more].concat());
        let summary = omr_base_tests::golden::json(&Path::new(&out).join("summary.json"))["tasks"][task].clone();
        (summary, by_index(&format!("{out}/samples.jsonl")))
    }
}

fn by_index(path: &str) -> BTreeMap<u64, Value> {
    let lines = fs::read_to_string(path).unwrap();
    let line = |line: &str| serde_json::from_str::<Value>(line).unwrap();
    lines.lines().map(line).map(|line| (line["index"].as_u64().unwrap(), line)).collect()
}

fn rows(golden: &Value) -> &[Value] {
    golden["rows"].as_array().unwrap()
}

fn index(row: &Value) -> u64 {
    row["index"].as_u64().unwrap()
}

/// Compares numbers by value, not by type, because the published code mixes integers and floats.
fn same(got: &Value, want: &Value) -> bool {
    match (got, want) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() < 1e-12,
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && b.iter().all(|(key, b)| a.get(key).is_some_and(|a| same(a, b)))
        }
        _ => got == want,
    }
}

fn assert_same(got: &Value, want: &Value, place: &str) {
    assert!(same(got, want), "{place}: {got} instead of {want}");
}

/// Converts the parts of a message to one notation, because the goldens name images in two ways.
fn messages(row: &Value) -> Value {
    let mut messages = row["messages"].clone();
    let parts = messages.as_array_mut().unwrap().iter_mut().flat_map(|m| m["parts"].as_array_mut().unwrap());
    for part in parts {
        if part["type"] == "image_url" {
            *part = json!({"type": "image", "image": part["image"]});
        }
    }
    messages
}

/// Returns the size and pixels of images. The published code also reports how a file stored them.
fn images(row: &Value) -> Vec<Value> {
    let of = |image: &Value| json!([image["width"], image["height"], image["rgb_sha256"]]);
    row["images"].as_array().unwrap().iter().map(of).collect()
}

fn assert_prompt(got: &Value, want: &Value, place: &str) {
    assert_same(&got["messages"], &messages(want), place);
    assert_eq!(images(got), images(want), "{place}");
    for key in ["target", "scored_ground_truth", "judge_question"] {
        assert_same(&got[key], &want[key], &format!("{place} {key}"));
    }
}

/// Returns the parquet file and the options that belong to a golden file.
fn data_of(file: &Path, golden: &Value) -> (String, Vec<String>) {
    match golden["shuffle_seed"].as_u64() {
        Some(seed) => ("data.parquet".to_owned(), vec![format!("shuffle_seed={seed}")]),
        None => {
            let stem = file.file_stem().unwrap().to_str().unwrap();
            (format!("data{}.parquet", stem.trim_start_matches("golden").trim_start_matches("strict")), Vec::new())
        }
    }
}

fn golden_files(folder: &Folder) -> Vec<PathBuf> {
    let mut files = omr_base_tests::golden::entries(&folder.path, "golden", ".json");
    files.retain(|file| !file.ends_with("golden_judge.json"));
    files
}

/// Compares the messages, images, gold answers, metrics and aggregates of a golden file in compat mode.
fn compat(folder: &Folder, file: &Path) -> usize {
    let golden = omr_base_tests::golden::json(file);
    let (data, options) = data_of(file, &golden);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let run = Run::new(folder, &data, "compat").with(&options);
    let prompts = run.prompts();
    let rows = rows(&golden);
    assert_eq!(prompts.len(), rows.len(), "{}", run.place);
    let responses: Vec<(u64, Value)> = rows.iter().map(|row| (index(row), row["responses"].clone())).collect();
    let (summary, samples) = run.score(&folder.name, &responses, &[]);
    assert_eq!(summary["n"], rows.len(), "{}", run.place);
    for row in rows {
        let place = format!("{} index {}", run.place, index(row));
        assert_prompt(&prompts[&index(row)], row, &place);
        let sample = &samples[&index(row)];
        assert_same(&sample["metrics"], &row["metrics"], &place);
        let answers = sample["greedy"].as_object().map(|a| Value::Object(a.clone())).into_iter();
        let answers = answers.chain(sample["sampled"].as_array().cloned().unwrap_or_default());
        let details = row["score_details"].as_array().unwrap();
        for (answer, detail) in answers.zip(details) {
            for (key, want) in detail.as_object().unwrap() {
                assert_same(&answer[key], want, &format!("{place} {key}"));
            }
        }
    }
    let aggregated = golden["aggregated"].as_object().unwrap();
    for (name, want) in aggregated.iter().filter(|(_, want)| !want.is_null()) {
        assert_same(&summary["metrics"][name], want, &format!("{} {name}", run.place));
    }
    let listed = |name: &String| aggregated.contains_key(name);
    let more: Vec<&String> = summary["metrics"].as_object().unwrap().keys().filter(|name| !listed(name)).collect();
    assert!(more.is_empty(), "{}: {more:?}", run.place);
    rows.len()
}

#[test]
fn tasks_as_published() {
    let cases = folders().iter().map(|f| golden_files(f).iter().map(|file| compat(f, file)).sum::<usize>()).sum();
    omr_base_tests::golden::report("eval compat", cases);
}

/// Tests rows on which the published code crashes. Both modes name such a row; compat mode omits it and strict mode
/// rejects it.
#[test]
fn rows_the_published_code_crashes_on() {
    let mut cases = 0;
    for folder in folders().iter().filter(|folder| folder.path.join("crash.json").exists()) {
        let golden = omr_base_tests::golden::json(&folder.path.join("crash.json"));
        let run = Run::new(folder, "crash.parquet", "compat");
        let prompts = run.prompts();
        let responses: Vec<(u64, Value)> =
            rows(&golden).iter().map(|row| (index(row), row["responses"].clone())).collect();
        let (summary, samples) = run.score(&folder.name, &responses, &[]);
        let crashed = summary["crashed"].as_array().unwrap();
        for row in rows(&golden) {
            let place = format!("{} index {}", run.place, index(row));
            let prompt = &prompts[&index(row)];
            let Some(error) = row.get("error") else {
                assert_prompt(prompt, row, &place);
                assert_same(&samples[&index(row)]["metrics"], &row["metrics"], &place);
                continue;
            };
            let named = crashed.iter().find(|crash| crash["index"] == row["index"]).expect(&place);
            for got in [&prompt["error"], named] {
                assert_eq!((&got["stage"], &got["type"]), (&error["stage"], &error["type"]), "{place}");
            }
            cases += 1;
        }
        assert_eq!(crashed.len() + samples.len(), rows(&golden).len(), "{}", run.place);
    }
    omr_base_tests::golden::report("eval crash", cases);
}

fn task_of(folder: &Folder) -> &'static TaskSpec {
    task::find(&folder.name).unwrap()
}

/// Returns the metrics that a task computes from a row's columns and scores.
fn metrics_of(folder: &Folder, doc: &Value, acc: &[f64], format: &[f64], answers: &[&str]) -> Result<Value, Value> {
    let extra: Map<String, Value> = doc.as_object().cloned().unwrap_or_default();
    let row = Row { extra, ..Row::default() };
    let mark = |i: usize| Mark { acc: acc[i], format: format[i], predict_str: answers[i] };
    let marks = Marks { greedy: None, sampled: (0..acc.len()).map(mark).collect() };
    let metrics = (task_of(folder).score)(&row, &marks, Mode::Compat);
    metrics.map(Value::Object).map_err(|crash| json!(crash.class))
}

/// Compares tables of the metrics for several answers to one question.
#[test]
fn several_answers_to_a_question() {
    let mut cases = 0;
    for folder in folders() {
        for file in ["multi_response.json", "repeat_counts.json"].map(|name| folder.path.join(name)) {
            if !file.exists() {
                continue;
            }
            for (i, case) in rows(&omr_base_tests::golden::json(&file)).iter().enumerate() {
                let place = format!("{} {}", file.display(), i);
                let doc = &case["doc"];
                let gold = ["answer", "ground_truth", "reasoning_a"].iter().find_map(|key| doc[key].as_str());
                let gold = gold.map(str::to_owned).unwrap_or_else(|| aime::whole(&doc::written(&case["answer"])));
                let responses = case["responses"].as_array().unwrap().iter().map(|r| r.as_str().unwrap());
                let scores: Vec<_> =
                    responses.map(|r| omr_data::reward::score(r.trim(), &gold, None, Mode::Compat)).collect();
                let acc: Vec<f64> = scores.iter().map(|score| score.acc_score).collect();
                let format: Vec<f64> = scores.iter().map(|score| score.format_reward_score).collect();
                let answers: Vec<&str> = scores.iter().map(|score| score.predict_str.as_str()).collect();
                match (metrics_of(&folder, doc, &acc, &format, &answers), case.get("error")) {
                    (Ok(got), None) => assert_same(&got, &case["metrics"], &place),
                    (got, Some(want)) => assert_eq!(got, Err(want.clone()), "{place}"),
                    (Err(class), None) => panic!("{place}: {class}"),
                }
                cases += 1;
            }
        }
    }
    omr_base_tests::golden::report("eval answers", cases);
}

/// Compares tables of prompt texts. The texts in the tables have surrounding white space. Prompts do not have it, so it
/// is removed before the comparison.
#[test]
fn texts_of_prompts() {
    let mut cases = 0;
    for folder in folders() {
        for row in table(&folder, "question_text.json") {
            let place = format!("{} {row}", folder.name);
            let got = charxiv::question(&row["q_id"], &row["subplot_loc"]);
            match (got, row["text"].as_str()) {
                (Ok(got), Some(want)) => assert_eq!(got, want.trim(), "{place}"),
                (Err(crash), None) => assert_eq!(crash.class, row["error"], "{place}"),
                (got, want) => panic!("{place}: {got:?} instead of {want:?}"),
            }
            cases += 1;
        }
        for row in table(&folder, "number_instruction.json") {
            let demand = charxiv::demanded_number(row["reasoning_a"].as_str().unwrap());
            assert!(row["text"].as_str().unwrap().trim().ends_with(&format!("\n    * {demand}")), "{row}");
            cases += 1;
        }
        for row in table(&folder, "preprocess.json") {
            assert_eq!(gpqa::cleaned(&row["input"]), row["output"], "{row}");
            cases += 1;
        }
    }
    omr_base_tests::golden::report("eval texts", cases);
}

fn table(folder: &Folder, name: &str) -> Vec<Value> {
    let path = folder.path.join(name);
    if path.exists() { rows(&omr_base_tests::golden::json(&path)).to_vec() } else { Vec::new() }
}

/// Tests strict mode: each chart has four questions, which are scored as published, and the judge receives the
/// question.
#[test]
fn charts_are_asked_four_questions() {
    let mut cases = 0;
    for folder in folders() {
        for file in omr_base_tests::golden::entries(&folder.path, "strict", ".json") {
            let golden = omr_base_tests::golden::json(&file);
            if golden.get("n_charts").is_none() {
                continue;
            }
            let run = Run::new(&folder, &data_of(&file, &golden).0, "strict");
            let prompts = run.prompts();
            assert_eq!(prompts.len(), rows(&golden).len(), "{}", run.place);
            let texts: std::collections::BTreeSet<String> =
                prompts.values().map(|p| format!("{}{}", p["images"], p["messages"][1])).collect();
            assert_eq!(golden["strict_distinct_questions"], texts.len(), "{}", run.place);
            for (i, row) in rows(&golden).iter().enumerate() {
                let (place, prompt) = (format!("{} row {i}", run.place), &prompts[&(i as u64)]);
                assert_eq!(prompt["messages"][1]["parts"][1]["text"], row["text"], "{place}");
                assert_eq!((&prompt["target"], &prompt["judge_question"]), (&row["target"], &row["judge_question"]));
                let score = omr_data::reward::score(
                    row["response"].as_str().unwrap().trim(),
                    prompt["scored_ground_truth"].as_str().unwrap(),
                    None,
                    Mode::Compat,
                );
                assert_same(&json!(score.acc_score), &row["acc_score"], &place);
                assert_same(&json!(score.format_reward_score), &row["format_reward_score"], &place);
                cases += 1;
            }
            assert_aggregated(&folder, &golden);
        }
    }
    omr_base_tests::golden::report("eval charts", cases);
}

/// Returns the aggregates that a task computes from the metrics of its questions in strict mode.
fn aggregated(folder: &Folder, questions: impl Iterator<Item = Map<String, Value>>) -> Value {
    let questions: Vec<Counted> = questions.map(|metrics| Counted { metrics, clusters: Vec::new() }).collect();
    let metrics = (task_of(folder).aggregate)(&questions, Mode::Strict);
    metrics.into_iter().map(|metric| (metric.name, metric.value)).collect::<Map<String, Value>>().into()
}

/// Compares the aggregates of a strict file with those computed from its rows' scores.
fn assert_aggregated(folder: &Folder, golden: &Value) {
    let of = |row: &Value| {
        let format = row["format_reward_score"].clone();
        let number = row["q_number"].to_string();
        let metrics = json!({"acc_score": row["acc_score"], "format_score": format, "q_number": number});
        metrics.as_object().cloned().unwrap()
    };
    let got = aggregated(folder, rows(golden).iter().map(of));
    let place = format!("{} {}", folder.name, golden["variant"]);
    for (name, want) in golden["aggregated"].as_object().unwrap() {
        assert_same(&got[name], want, &place);
    }
    assert_same(&got["acc_by_q_number"], &golden["acc_by_q_number"], &place);
}

/// Tests strict mode: images are placed where the text marks them, and no text is lost.
#[test]
fn images_stand_in_their_places() {
    let mut cases = 0;
    for folder in folders().iter().filter(|folder| folder.path.join("strict_interleave.json").exists()) {
        let strict = Run::new(folder, "data.parquet", "strict").prompts();
        let compat = Run::new(folder, "data.parquet", "compat").prompts();
        for row in table(folder, "strict_interleave.json") {
            let place = format!("{} index {}", folder.name, index(&row));
            let (got, shown) = (&strict[&index(&row)], &compat[&index(&row)]);
            let want = row["parts"].as_array().unwrap();
            // The published prompt shows each marked image once, in the order of their names.
            let names: std::collections::BTreeSet<&str> = want.iter().filter_map(|p| p["column"].as_str()).collect();
            let column = |name: &str| images(shown)[names.iter().position(|n| *n == name).unwrap()].clone();
            let parts = got["messages"][1]["parts"].as_array().unwrap();
            assert_eq!(parts.len(), want.len(), "{place}");
            let mut images = images(got).into_iter();
            for (part, want) in parts.iter().zip(want) {
                assert_eq!((&part["type"], &part["text"]), (&want["type"], &want["text"]), "{place}");
                if let Some(name) = want["column"].as_str() {
                    assert_eq!(images.next(), Some(column(name)), "{place}");
                }
            }
            cases += 1;
        }
    }
    omr_base_tests::golden::report("eval images", cases);
}

/// Tests strict mode: all ten letters are options.
#[test]
fn letters_up_to_j_are_options() {
    let mut cases = 0;
    for folder in folders().iter().filter(|folder| folder.path.join("strict_letters.json").exists()) {
        let golden = omr_base_tests::golden::json(&folder.path.join("strict_letters.json"));
        let run = Run::new(folder, "data.parquet", "strict");
        let responses: Vec<(u64, Value)> =
            rows(&golden).iter().map(|row| (index(row), json!([row["response"]]))).collect();
        let (_, samples) = run.score(&folder.name, &responses, &[]);
        for row in rows(&golden).iter().filter(|row| !row["strict_acc"].is_null()) {
            let got = &samples[&index(row)]["metrics"]["acc_score"];
            assert_same(got, &row["strict_acc"], &format!("{} {row}", folder.name));
            cases += 1;
        }
    }
    omr_base_tests::golden::report("eval letters", cases);
}

/// Tests strict mode: We-Math's score uses only the problems that are complete.
#[test]
fn problems_that_are_complete() {
    let mut cases = 0;
    for folder in folders() {
        for file in golden_files(&folder) {
            let golden = omr_base_tests::golden::json(&file);
            let own = &golden["own_counts"];
            if own.is_null() {
                continue;
            }
            let metrics = |row: &Value| row["metrics"].as_object().cloned().unwrap();
            let got = aggregated(&folder, rows(&golden).iter().map(metrics));
            for (name, want) in [("wemath_loose", "score_n_loose"), ("wemath_strict", "score_n_strict")] {
                assert_same(&got[name], &own[want], &format!("{} {name}", file.display()));
            }
            cases += 1;
        }
    }
    omr_base_tests::golden::report("eval problems", cases);
}

/// Tests that the prompts for the judge have the hashes of the published prompts.
#[test]
fn judges_are_told_the_question() {
    let hash = |text: &str| Sha256::digest(text).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut cases = 0;
    for folder in folders().iter().filter(|folder| folder.path.join("golden_judge.json").exists()) {
        let compat = Run::new(folder, "data.parquet", "compat").prompts();
        for row in table(folder, "golden_judge.json") {
            for call in row["calls"].as_array().unwrap() {
                let told = compat[&index(&row)]["judge_question"].as_str().map(hash);
                assert_eq!(told.as_deref(), call["question_sha256"].as_str(), "{} index {}", folder.name, index(&row));
                cases += 1;
            }
        }
    }
    omr_base_tests::golden::report("eval judged", cases);
}

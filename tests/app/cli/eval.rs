//! Tests `omr eval` on published tasks as users run it: available tasks, missing data, and refused input.

use std::fs;
use std::path::Path;

use omr_base_tests::golden;
use serde_json::{Value, json};

use super::training::{failure, run};

const TASK: &str = "logicvista_thinking";

/// Creates a folder with one task's rows under a name that the user chose.
fn data(folder: &str, rows: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join(folder);
    fs::create_dir_all(&to).unwrap();
    fs::copy(golden::dir().join("eval").join(TASK).join(rows), to.join("test-00000-of-00001.parquet")).unwrap();
    dir
}

fn at(dir: &tempfile::TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

/// Writes recorded answers to a file and returns its path.
fn answers(dir: &tempfile::TempDir, lines: &[Value]) -> String {
    let all: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(dir.path().join("answers.jsonl"), all).unwrap();
    at(dir, "answers.jsonl")
}

fn line(index: usize, response: &str) -> Value {
    json!({"task": "logicvista", "index": index, "responses": [response]})
}

fn summary(out: &str) -> Value {
    serde_json::from_slice(&fs::read(Path::new(out).join("summary.json")).unwrap()).unwrap()
}

#[test]
fn the_list_names_every_task_with_its_data_set() {
    let (code, out, _) = run(&["eval", "--list"]);
    assert_eq!(code, 0);
    for task in omr_data::task::TASKS.iter() {
        let line = out.lines().find(|line| line.starts_with(task.name)).unwrap();
        assert!(task.aliases.iter().all(|alias| line.contains(alias)), "{line}");
        assert!(task.hub.as_ref().is_none_or(|hub| line.contains(hub.repo)), "{line}");
    }
    assert!(out.contains("\naime_agg8: aime24, aime25\n"), "{out}");
}

#[test]
fn a_task_is_found_by_its_names_and_its_data_set() {
    for folder in [TASK, "logicvista", "LogicVista", "lscpku/LogicVista", "LogicVista/data"] {
        let dir = data(folder, "data.parquet");
        for name in ["logicvista", "logicvista_reasoning"] {
            let prompts = at(&dir, "prompts.jsonl");
            let (code, _, stderr) =
                run(&["eval", "--tasks", name, "--data", &at(&dir, ""), "--dump-prompts", &prompts, "--limit", "3"]);
            assert_eq!(code, 0, "{folder}: {stderr}");
            let lines = fs::read_to_string(&prompts).unwrap();
            assert!(lines.lines().count() == 3 && lines.contains(TASK), "{folder}: {lines}");
        }
    }
}

#[test]
fn what_is_missing_is_said() {
    let (dir, out) = (data(TASK, "data.parquet"), tempfile::tempdir().unwrap());
    let (here, prompts) = (at(&dir, ""), at(&out, "prompts.jsonl"));
    let dump = |tasks: &str, data: &str, parts: &[&str]| {
        failure(&["eval", "--tasks", tasks, "--data", data, "--dump-prompts", &prompts], 2, parts);
        assert!(!Path::new(&prompts).exists());
    };
    dump("logicvisto", &here, &["logicvisto", TASK]);
    dump("mathvista", &here, &["mathvista_testmini_cot_reward", "AI4Math/MathVista"]);
    dump("logicvista", &at(&dir, "nowhere"), &["lscpku/LogicVista"]);
    fs::copy(
        golden::dir().join("eval/aime24_nofigures_agg8_reward/data.parquet"),
        at(&dir, &format!("{TASK}/b.parquet")),
    )
    .unwrap();
    fs::remove_file(at(&dir, &format!("{TASK}/test-00000-of-00001.parquet"))).unwrap();
    dump("logicvista", &here, &["b.parquet", "`question`"]);
    failure(&["eval", "--tasks", "logicvista", "--data", &here], 2, &["--out"]);
    failure(&["eval", "--tasks", "logicvista", "--data", &here, "--out", &at(&out, "out")], 2, &["--model"]);
}

#[test]
fn recorded_answers_are_those_to_every_question() {
    let dir = data(TASK, "data.parquet");
    let all: Vec<Value> = (0..14).map(|i| line(i, "<think>t</think><answer>A</answer>")).collect();
    let score = |lines: &[Value], parts: &[&str]| {
        let file = answers(&dir, lines);
        let out = at(&dir, "out");
        failure(&["eval", "--data", &at(&dir, ""), "--responses", &file, "--out", &out], 2, parts);
    };
    score(&all[..13], &["index 13", TASK]);
    score(&[&all[..], &all[3..4]].concat(), &["line 15", "index 3"]);
    score(&[&all[..], &[line(14, "A")]].concat(), &["index 14", "14"]);
    score(&[json!({"task": "logicvisto", "index": 0, "responses": []})], &["line 1", "logicvisto"]);
    score(&[json!({"task": "logicvista", "index": 0})], &["line 1", "responses"]);
    score(&[json!({"task": "logicvista", "index": 0, "responses": []})], &["line 1", "no responses"]);

    let (file, out) = (answers(&dir, &all), at(&dir, "done"));
    let args = ["eval", "--data", &at(&dir, ""), "--responses", &file, "--out", &out, "--limit", "4"];
    let (code, stdout, stderr) = run(&args);
    assert!(code == 0 && stdout.trim() == format!("{out}/summary.json"), "{stderr}");
    assert!(stderr.contains("OMR-7B: 50.0 %"), "{stderr}");
    let task = &summary(&out)["tasks"][TASK];
    assert!(task["n"] == 4 && task["published_omr_7b"] == 0.5 && task["metrics"]["acc_score"] == 0.25, "{task}");
    let (code, _, stderr) = run(&args);
    assert!(code == 0 && stderr.contains("finished"), "{stderr}");
}

#[test]
fn the_mean_of_several_tasks_stands_beside_that_of_each_model_with_all_scores() {
    let dir = data(TASK, "data.parquet");
    let other = dir.path().join("mmmu_reasoning_reward");
    fs::create_dir_all(&other).unwrap();
    fs::copy(golden::dir().join("eval/mmmu_reasoning_reward/data.parquet"), other.join("data.parquet")).unwrap();
    let right = "<think>t</think><answer>A</answer>";
    let recorded = json!({"task": "mmmu_reasoning_reward", "index": 0, "responses": [right]});
    let (file, out) = (answers(&dir, &[line(0, right), recorded]), at(&dir, "out"));
    let (code, _, stderr) =
        run(&["eval", "--data", &at(&dir, ""), "--responses", &file, "--out", &out, "--limit", "1"]);
    assert_eq!(code, 0, "{stderr}");
    let summary = summary(&out);
    let score = |task: &str| {
        summary["tasks"][task]["metrics"][summary["tasks"][task]["published"]["metric"].as_str()?].as_f64()
    };
    let mean = (score(TASK).unwrap() + score("mmmu_reasoning_reward").unwrap()) / 2.0;
    let average = &summary["average"];
    assert!(average["score"] == mean && average["tasks"] == 2, "{summary}");
    // VL-Rethinker-7B has no published score of the second task.
    let published = &average["published"];
    assert!(published["OMR-7B"] == (0.5 + 0.578) / 2.0 && published["VL-Rethinker-7B"].is_null(), "{published}");
    let line = format!("mean of the tasks: {:.1} %; published for OMR-7B: 53.9 %", 100.0 * mean);
    assert!(stderr.contains(&line), "{line}: {stderr}");
    let (code, ..) = run(&["report", &out, "--out", &at(&dir, "page.html")]);
    let page = fs::read_to_string(at(&dir, "page.html")).unwrap();
    assert!(code == 0 && page.contains("mean of 2 tasks") && page.contains("53.9"), "the row of means");
}

#[test]
fn thinking_is_taken_off_where_it_is_asked_for() {
    let dir = data(TASK, "data.parquet");
    let file = answers(&dir, &[line(0, "<think>So it is \\boxed{A}.</think>")]);
    let acc = |out: &str, more: &[&str]| {
        let out = at(&dir, out);
        let args = ["eval", "--data", &at(&dir, ""), "--responses", &file, "--out", &out, "--limit", "1"];
        let (code, _, stderr) = run(&[&args[..], more].concat());
        assert_eq!(code, 0, "{stderr}");
        summary(&out)["tasks"][TASK]["metrics"]["acc_score"].clone()
    };
    assert_eq!(acc("whole", &["--mode", "compat"]), 1.0);
    assert_eq!(acc("stripped", &["--mode", "compat", "--strip-thinking"]), 0.0);
}

#[test]
fn rows_that_cannot_be_asked_are_refused_or_named() {
    let dir = data(TASK, "crash.parquet");
    let file = answers(&dir, &[line(0, "A")]);
    let args = ["eval", "--data", &at(&dir, ""), "--responses", &file, "--out", &at(&dir, "out")];
    failure(&args, 2, &["row 1", "`question`"]);
    let (code, _, stderr) = run(&[&args[..], &["--mode", "compat", "--fresh"]].concat());
    assert!(code == 0 && stderr.contains("index 0 is left out") && stderr.contains("AttributeError"), "{stderr}");
    assert_eq!(summary(&at(&dir, "out"))["tasks"][TASK]["n"], 0);
}

#[test]
fn an_evaluation_tells_how_many_answers_it_did_not_read() {
    let dir = data(TASK, "data.parquet");
    let responses = ["blue", "\\boxed{A}", "<think>t</think>", "\\boxed{B}"];
    let lines: Vec<Value> = responses.iter().enumerate().map(|(i, response)| line(i, response)).collect();
    let file = answers(&dir, &lines);
    let eval = |out: &str, mode: &str| {
        let out = at(&dir, out);
        let args = ["eval", "--data", &at(&dir, ""), "--responses", &file, "--out", &out, "--limit", "4"];
        let (code, _, stderr) = run(&[&args[..], &["--mode", mode]].concat());
        assert_eq!(code, 0, "{stderr}");
        (summary(&out)["tasks"][TASK].clone(), stderr)
    };
    let (task, stderr) = eval("strict", "strict");
    assert_eq!((&task["no_answer_ratio"], &task["unevaluated_ratio"]), (&json!(0.5), &json!(0.0)), "{task}");
    assert!(
        stderr.contains("50.0 % of 4 responses have no answer that the scorer reads, such as \"blue\""),
        "{stderr}"
    );
    let (task, stderr) = eval("compat", "compat");
    assert!(task["no_answer_ratio"].is_null() && !stderr.contains("have no answer"), "{task} {stderr}");
}

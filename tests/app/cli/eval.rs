//! Tests `omr eval` on published tasks as users run it: available tasks, missing data, and refused input.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use omr_base_tests::golden;
use parquet::arrow::ArrowWriter;
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
        let (dir, out) = (data(folder, "data.parquet"), tempfile::tempdir().unwrap());
        for name in ["logicvista", "logicvista_reasoning"] {
            let prompts = at(&out, &format!("{name}.jsonl"));
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
    assert!(stderr.contains("4 of 448 questions") && !stderr.contains("OMR-7B"), "{stderr}");
    let task = &summary(&out)["tasks"][TASK];
    assert!(task["n"] == 4 && task["published_omr_7b"].is_null() && task["metrics"]["acc_score"] == 0.25, "{task}");
    let (code, _, stderr) = run(&args);
    assert!(code == 0 && stderr.contains("finished"), "{stderr}");
}

/// Writes `count` problems of AIME, with the name that a part of the published set has on the hub.
fn problems(path: &Path, count: usize) {
    let text = |what: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..count).map(|i| format!("{what}{i}").replace("answer", ""))))
    };
    let batch = RecordBatch::try_from_iter([("problem", text("What is ")), ("answer", text("answer"))]).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_published_score_stands_only_beside_all_questions_and_a_part_of_the_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["aime24/train-00000-of-00002.parquet", "aime24/train-00001-of-00002.parquet", "aime25/data.parquet"]
        .map(|name| dir.path().join(name));
    problems(&files[0], 15);
    problems(&files[2], 30);
    let line =
        |task: &str, index: usize| json!({"task": task, "index": index, "responses": vec!["<answer>1</answer>"; 8]});
    let all: Vec<Value> = ["aime24", "aime25"].iter().flat_map(|task| (0..30).map(|index| line(task, index))).collect();
    let (file, data) = (answers(&dir, &all), at(&dir, ""));
    let eval = |out: &str, more: &[&str]| {
        let out = at(&dir, out);
        (run(&[&["eval", "--data", &data, "--responses", &file, "--out", &out], more].concat()), out)
    };
    let gone = ["train-00001-of-00002.parquet", "no file (1 missing in all)"];
    let ((code, _, stderr), _) = eval("half", &[]);
    assert!(code == 2 && gone.iter().all(|part| stderr.contains(part)), "{stderr}");
    failure(&["eval", "--tasks", "aime24", "--data", &data, "--dump-prompts", &at(&dir, "x")], 2, &gone);
    problems(&files[1], 15);
    let ((code, _, stderr), out) = eval("whole", &[]);
    assert!(code == 0 && stderr.contains("published for OMR-7B: 27.1 %"), "{stderr}");
    let summary = summary(&out);
    let mean = (0.271 + 0.221) / 2.0;
    let average = &summary["average"];
    assert!(
        average["tasks"] == 2 && (average["published"]["OMR-7B"].as_f64().unwrap() - mean).abs() < 1e-12,
        "{average}"
    );
    // VL-Rethinker-7B has no published score of these tasks.
    assert!(average["published"]["VL-Rethinker-7B"].is_null(), "{average}");
    assert!(stderr.contains("published for OMR-7B: 24.6 %"), "{stderr}");
    let page = at(&dir, "page.html");
    let (code, ..) = run(&["report", &out, "--out", &page]);
    let text = fs::read_to_string(&page).unwrap();
    assert!(code == 0 && text.contains("mean of 2 tasks") && text.contains("24.6"), "the row of means");
    failure(&["report", &out, "--out", &page], 2, &["a file that exists", "--overwrite"]);
    failure(&["report", &out, "--out", &format!("{out}/summary.json"), "--overwrite"], 2, &["this command reads"]);
    assert_eq!(run(&["report", &out, "--out", &page, "--overwrite"]).0, 0);
    // A part of the questions is not comparable, by a limit or with files of the right names.
    let ((code, _, stderr), _) = eval("limited", &["--limit", "29"]);
    assert!(code == 0 && stderr.contains("29 of 30 questions") && !stderr.contains("OMR-7B"), "{stderr}");
    problems(&files[1], 14);
    let file = answers(&dir, &(0..29).map(|index| line("aime24", index)).collect::<Vec<_>>());
    let (code, _, stderr) = run(&["eval", "--data", &data, "--responses", &file, "--out", &at(&dir, "fewer")]);
    assert!(code == 0 && stderr.contains("29 of 30 questions") && !stderr.contains("OMR-7B"), "{stderr}");
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

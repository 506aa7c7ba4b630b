//! Tests re-scoring: logs of other frameworks, each with mistakes that the framework is known for, are compared with
//! our verdicts. Also tests writing our results in the formats of these frameworks.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::training::{failure, run};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/cli/rescore");

/// Runs the re-scorer. Returns its output and the comparison of each task.
fn rescore(log: &str, out: &Path, more: &[&str]) -> (String, Vec<Value>) {
    let args = ["eval", "--responses", log, "--out", out.to_str().unwrap()];
    let (code, stdout, stderr) = run(&[&args[..], more].concat());
    assert_eq!(code, 0, "{stderr}");
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    (stdout, summary["referee"].as_array().unwrap().clone())
}

fn counts(row: &Value) -> [u64; 6] {
    ["n", "both_right", "only_theirs", "only_ours", "both_wrong", "no_verdict"].map(|name| row[name].as_u64().unwrap())
}

#[test]
fn logs_of_two_models_are_two_measurements() {
    let dir = tempfile::tempdir().unwrap();
    let log = Path::new(HERE).join("lmms_eval/OMR__made/20260915_091500_samples_mmmu_val.jsonl");
    for model in ["a", "b"] {
        fs::create_dir_all(dir.path().join("logs").join(model)).unwrap();
        fs::copy(&log, dir.path().join("logs").join(model).join(log.file_name().unwrap())).unwrap();
    }
    let (_, rows) = rescore(dir.path().join("logs").to_str().unwrap(), &dir.path().join("out"), &[]);
    let counts: Vec<u64> = rows.iter().map(|row| counts(row)[0]).collect();
    assert_eq!(counts, [3, 3]);
    assert!(rows[1]["task"].as_str().unwrap().contains("/logs/b/"), "{}", rows[1]["task"]);
}

#[test]
fn known_mistakes_are_where_the_verdicts_differ() {
    let out = tempfile::tempdir().unwrap();
    let (stdout, rows) = rescore(HERE, out.path(), &[]);
    let found: Vec<(&str, [u64; 6])> = rows.iter().map(|row| (row["task"].as_str().unwrap(), counts(row))).collect();
    let wanted = [
        ("OMR_made_MMMU_DEV_VAL_result", [6, 1, 2, 1, 1, 1]),
        ("mathvision_test_reasoning", [5, 1, 0, 3, 1, 0]),
        ("mathvista_testmini_cot_reasoning", [5, 1, 2, 0, 2, 0]),
        ("mmmu_val", [3, 1, 1, 1, 0, 0]),
    ];
    assert_eq!(found, wanted);
    assert!(stdout.contains("VLMEvalKit") && stdout.contains("only ours") && stdout.contains("lmms-eval"), "{stdout}");
    let table: Vec<&str> = stdout.lines().collect();
    assert_eq!(table.len(), 6, "{stdout}");
    assert!(
        table[1].ends_with("60.0    40.0") && table[5] == out.path().join("report.html").to_str().unwrap(),
        "{stdout}"
    );

    let lines = fs::read_to_string(out.path().join("referee.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |task: &str, index: &str| lines.iter().find(|row| row["task"] == task && row["index"] == index).unwrap();
    let row = of("mathvision_test_reasoning", "0");
    assert_eq!(
        (&row["theirs"], &row["ours"], &row["ours_why"]),
        (&json!(false), &json!(true), &json!("equal numbers"))
    );
    assert_eq!(row["theirs_why"], "mathvision_standard_eval 0");
    assert_eq!(of("mmmu_val", "0")["theirs_why"], "mmmu_acc 0; it read \"A\"");
    let kit = of("OMR_made_MMMU_DEV_VAL_result", "1");
    assert_eq!(kit["theirs_why"], "hit 1; log: Succeed to exactly match the option letter B");
    assert_eq!(kit["question"], "Who painted it?\nA. Leonardo\nB. Michelangelo\nC. Raphael\nD. Donatello");

    let page = fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(page.contains("10 of 19 answers"), "{page}");
    assert!(page.contains("sqrt[3]{8}") && page.contains("B cannot be it"));
    assert!(!page.contains("There are \\boxed{12} ways"), "both say right: nothing to look at");
    assert!(!page.contains("<link rel=\"stylesheet\"") && !page.contains("src=\"http"), "one file");
}

#[test]
fn an_answer_within_the_thinking_is_found_in_compat_unless_that_is_taken_off() {
    let dir = tempfile::tempdir().unwrap();
    let log = format!("{HERE}/lmms_eval/OMR__made/20260915_091500_samples_mathvista_testmini_cot_reasoning.jsonl");
    let (_, rows) = rescore(&log, &dir.path().join("whole"), &["--mode", "compat"]);
    assert_eq!(counts(&rows[0]), [5, 3, 0, 1, 1, 0]);
    let (_, rows) = rescore(&log, &dir.path().join("off"), &["--mode", "compat", "--strip-thinking"]);
    assert_eq!(counts(&rows[0]), [5, 3, 0, 0, 2, 0]);
}

#[test]
fn a_log_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let wrong = |name: &str, text: &str, parts: &[&str]| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        failure(&["eval", "--responses", path.to_str().unwrap(), "--out", out.to_str().unwrap()], 2, parts);
    };
    wrong("a.tsv", "index\tprediction\n1\tA\n", &["a.tsv", "index, prediction", "`answer`"]);
    wrong("b.tsv", "index\tanswer\tprediction\n1\tA\n", &["b.tsv line 2", "2 fields", "3 columns"]);
    wrong("c.tsv", "index\tanswer\tprediction\n1\tA\t\"B\n", &["c.tsv", "line 2", "quote"]);
    wrong("d.jsonl", "{\"doc_id\": 1, \"filtered_resps\": [\"A\"]}\n", &["d.jsonl line 1", "target"]);
    wrong("e.jsonl", "{\"doc_id\": 1, \"target\": \"A\", \"resps\": []}\n", &["e.jsonl line 1", "resps"]);
    wrong("f.jsonl", "{\"doc_id\": 1}\n", &["f.jsonl line 1", "task"]);
    // A question that stands twice would count twice.
    let line = |id: u32, filter: &str| {
        json!({"doc_id": id, "target": "A", "resps": [["A"]], "filter": filter, "acc": 1}).to_string() + "\n"
    };
    let lines = [line(1, "none"), line(1, "none")].concat();
    wrong("g.jsonl", &lines, &["g.jsonl line 2", "the index 1", "g.jsonl line 1", "each question once"]);
    wrong("h.tsv", "index\tanswer\tprediction\n1\tA\tA\n1\tA\tB\n", &["h.tsv line 3", "the index 1", "h.tsv line 2"]);
    let name = "2026_samples_vista.jsonl";
    fs::write(dir.path().join(name), [line(1, "a"), line(1, "b"), line(2, "a")].concat()).unwrap();
    let (_, rows) = rescore(dir.path().join(name).to_str().unwrap(), &dir.path().join("whole"), &[]);
    assert_eq!(counts(&rows[0])[0], 3);
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    failure(&["eval", "--responses", empty.to_str().unwrap(), "--out", out.to_str().unwrap()], 2, &["empty", "logs"]);
}

/// Targets as DocVQA's.
#[test]
fn each_text_of_a_list_of_targets_is_a_right_answer() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("1_samples_docvqa_val.jsonl");
    let row = |target: Value, response: &str, right: f64| json!({"target": target, "resps": [[response]], "filtered_resps": [response], "anls": right});
    let rows = [
        row(json!(["university of california", "UC"]), "UC", 1.0),
        row(json!(["0.28", "28 %"]), "28 %", 1.0),
        row(json!(["0.28", "0.29"]), "0.30", 0.0),
        row(json!([12, 30]), "30", 0.0),
    ];
    fs::write(&log, rows.map(|row| row.to_string()).join("\n")).unwrap();
    let (_, rows) = rescore(log.to_str().unwrap(), &dir.path().join("out"), &[]);
    assert_eq!(counts(&rows[0]), [4, 2, 0, 0, 2, 0]);
}

#[test]
fn what_we_write_for_lmms_eval_is_read_as_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let task = "logicvista_thinking";
    let data = dir.path().join("data").join(task);
    fs::create_dir_all(&data).unwrap();
    fs::copy(omr_base_tests::golden::dir().join("eval").join(task).join("data.parquet"), data.join("data.parquet"))
        .unwrap();
    let lines: String = (0..14)
        .map(|i| {
            json!({"task": task, "index": i, "responses": ["<think>t</think><answer>A</answer>"]}).to_string() + "\n"
        })
        .collect();
    let (answers, out) = (dir.path().join("answers.jsonl"), dir.path().join("out"));
    fs::write(&answers, lines).unwrap();
    let data = dir.path().join("data");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let args =
        ["eval", "--data", &text(&data), "--responses", &text(&answers), "--out", &text(&out), "--format", "lmms-eval"];
    let (code, stdout, stderr) = run(&args);
    let folder = out.join("lmms-eval");
    assert!(code == 0 && stdout.lines().last() == folder.to_str(), "{stdout}{stderr}");

    let results: Value = serde_json::from_slice(&fs::read(folder.join("omr_results.json")).unwrap()).unwrap();
    let summary: Value = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    let (theirs, ours) = (&results["results"][task], &summary["tasks"][task]);
    assert_eq!(theirs["acc_score,none"], ours["metrics"]["acc_score"]);
    assert!(theirs["acc_score_stderr,none"].as_f64().unwrap() > 0.0 && theirs["format_score_stderr,none"] == "N/A");
    assert_eq!(results["n-samples"][task]["effective"], 14);

    let (_, rows) = rescore(folder.to_str().unwrap(), &dir.path().join("rescored"), &[]);
    let [n, right, only_theirs, only_ours, wrong, none] = counts(&rows[0]);
    assert_eq!((n, only_theirs, only_ours, none, right + wrong, &rows[0]["task"]), (14, 0, 0, 0, 14, &json!(task)));
    let again = text(&dir.path().join("again"));
    let args = ["eval", "--responses", folder.to_str().unwrap(), "--out", &again, "--format", "lmms-eval"];
    failure(&args, 2, &["--format lmms-eval", "a log of another program"]);
}

//! Tests a user's own benchmark: the example of `docs/user/evaluation.md`, and the errors for invalid task files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::training::{failure, run};

/// Returns the task file that `docs/user/evaluation.md` shows.
fn shown() -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/user/evaluation.md")).unwrap();
    let (_, rest) = page.split_once("```yaml\n# shapes.yaml").unwrap();
    format!("# shapes.yaml{}", rest.split_once("```").unwrap().0)
}

fn folder(rows: &[Value]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("shapes.yaml"), shown()).unwrap();
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(dir.path().join("shapes.jsonl"), lines).unwrap();
    image::GrayImage::new(28, 28).save(dir.path().join("square.png")).unwrap();
    dir
}

fn question(answer: &str) -> Value {
    json!({"question": "How many corners?", "options": {"A": "3", "B": "4"}, "image": "square.png", "answer": answer})
}

fn at(dir: &Path, name: &str) -> String {
    dir.join(name).to_str().unwrap().to_owned()
}

/// A program that accepts a response if `extra_info` of its row contains it, with the rows as JSONL and as parquet.
#[test]
fn the_own_scorer_receives_the_columns_of_a_row() {
    let dir = folder(&[]);
    let rows = [
        json!({"q": "1?", "answer": "x", "level": 3, "extra_info": {"right": "yes"}}),
        json!({"q": "2?", "answer": "x", "level": 4, "extra_info": {"right": "no"}}),
    ];
    let lines: String = rows.iter().map(|row| format!("{row}\n")).collect();
    fs::write(dir.path().join("own.jsonl"), lines).unwrap();
    let text = |key: &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row[key].as_str().unwrap())))
    };
    let info = rows.iter().map(|row| row["extra_info"].to_string());
    let level = Int64Array::from_iter_values(rows.iter().map(|row| row["level"].as_i64().unwrap()));
    let columns: [(&str, ArrayRef); 4] = [
        ("q", text("q")),
        ("answer", text("answer")),
        ("level", Arc::new(level)),
        ("extra_info", Arc::new(StringArray::from_iter_values(info))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = fs::File::create(dir.path().join("own.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let scorer = "import json, sys\nfor line in sys.stdin:\n    row = json.loads(line)\n    \
        right = float(row['extra_info']['right'] == row['response'] and row['columns']['level'] > 2)\n    \
        print(json.dumps({'id': row['id'], 'score': right}), flush=True)\n";
    fs::write(dir.path().join("scorer.py"), scorer).unwrap();
    let answers = [0, 1].map(|i| json!({"task": "own", "index": i, "responses": ["yes"]}).to_string() + "\n");
    fs::write(dir.path().join("answers.jsonl"), answers.concat()).unwrap();
    for data in ["own.jsonl", "own.parquet"] {
        let command = json!(["python3", at(dir.path(), "scorer.py")]);
        let task = format!("data: {data}\nprompt: \"{{{{ q }}}}\"\nscorer: {{command: {command}}}\n");
        fs::write(dir.path().join("own.yaml"), task).unwrap();
        let (file, out) = (at(dir.path(), "own.yaml"), at(dir.path(), &format!("out-{data}")));
        let args = ["eval", "--task-file", &file, "--responses", &at(dir.path(), "answers.jsonl"), "--out", &out];
        let (code, _, said) = run(&args);
        assert!(code == 0 && said.contains("own: acc_score 50.0 %") && !said.contains("not used"), "{said}");
    }
}

#[test]
fn the_benchmark_of_the_page_runs() {
    assert!(shown().lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count() <= 10);
    let dir = folder(&[question("B"), question("A"), question("B")]);
    let (file, prompts) = (at(dir.path(), "shapes.yaml"), at(dir.path(), "prompts.jsonl"));
    let (code, _, stderr) = run(&["eval", "--task-file", &file, "--dump-prompts", &prompts]);
    assert_eq!(code, 0, "{stderr}");
    let lines = fs::read_to_string(&prompts).unwrap();
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let text = "How many corners?\nA. 3\nB. 4";
    let parts = json!([{"type": "image", "image": 0}, {"type": "text", "text": text}]);
    assert_eq!((&first["task"], &first["messages"][0]["parts"]), (&json!("shapes"), &parts));
    assert_eq!((&first["scored_ground_truth"], &first["images"][0]["width"]), (&json!("B"), &json!(28)));

    // One answer by its letter, one by the option's text.
    let answers = ["<think>t</think><answer>B</answer>", "<answer>4</answer>", "<think>t</think><answer>4</answer>"];
    let answers = answers.iter().enumerate();
    let lines: String = answers
        .map(|(i, answer)| json!({"task": "shapes", "index": i, "responses": [answer]}).to_string() + "\n")
        .collect();
    fs::write(dir.path().join("answers.jsonl"), lines).unwrap();
    let out = at(dir.path(), "out");
    let args = ["eval", "--task-file", &file, "--responses", &at(dir.path(), "answers.jsonl"), "--out", &out];
    let (code, _, stderr) = run(&args);
    assert!(code == 0 && stderr.contains("shapes: acc_score 66.7 %"), "{stderr}");
    let summary: Value = serde_json::from_slice(&fs::read(Path::new(&out).join("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["tasks"]["shapes"]["n"], &summary["mode"]), (&json!(3), &json!("strict")));
    let (code, _, stderr) = run(&args);
    assert!(code == 0 && stderr.contains("finished"), "{stderr}");
    // Other answers are scored again, by the mode of the command line.
    let text = fs::read_to_string(dir.path().join("answers.jsonl")).unwrap().replace("<answer>B", "<answer>A");
    fs::write(dir.path().join("answers.jsonl"), text).unwrap();
    let (code, _, stderr) = run(&args);
    assert!(code == 0 && stderr.contains("shapes: acc_score 33.3 %"), "{stderr}");
    let other = at(dir.path(), "compat");
    let (code, _, stderr) = run(&[&args[..6], &[other.as_str(), "mode=compat"]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(fs::read_to_string(dir.path().join("compat/summary.json")).unwrap().contains("\"mode\": \"compat\""));
}

#[test]
fn a_wrong_one_is_named() {
    let dir = folder(&[question("B"), json!({"question": "?", "options": {}, "solution": "A"})]);
    let (file, out) = (at(dir.path(), "shapes.yaml"), at(dir.path(), "prompts.jsonl"));
    let wrong = |more: &[&str], parts: &[&str]| {
        failure(&[&["eval", "--task-file", &file, "--dump-prompts", &out][..], more].concat(), 2, parts);
    };
    wrong(&[], &["shapes.jsonl line 2", "solution", "`answer`", "gold"]);
    wrong(&["--tasks", "digits"], &["--tasks digits and --task-file", "one of them"]);
    let says = |text: &str, parts: &[&str]| {
        fs::write(&file, text).unwrap();
        wrong(&[], parts);
    };
    says("prompt: x\n", &["shapes.yaml: data", "found nothing"]);
    says(
        "data: shapes.jsonl\nimages: [image]\nprompt: '{{ questoin }}'\n",
        &["shapes.yaml: prompt", "line 1", "question"],
    );
    says("data: shapes.jsonl\nimages: [image]\nprompt: '{{ question'\n", &["shapes.yaml: prompt", "Jinja"]);
    says("data: shapes.jsonl\nname: digits\n", &["shapes.yaml: name", "digits"]);
    says("data: shapes.jsonl\nscorer: strickt\n", &["scorer.mode", "did you mean strict?"]);
    says("data: gone.jsonl\n", &["gone.jsonl"]);
}

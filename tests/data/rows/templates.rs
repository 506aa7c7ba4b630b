//! Tests the keys `prompt`, `gold` and `system_prompt` of a data set's entry on files of several formats.

use std::fs;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, StringArray};
use omr_base::config::{DatasetConfig, RlConfig, load};
use omr_data::rows::{Row, read, text_of};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::layouts::made;

/// Writes a file of rows beside an image. Returns the entry `{path: FILE, KEYS}` of a config.
pub fn entry(dir: &std::path::Path, file: &str, keys: &str) -> DatasetConfig {
    fs::copy(made().join("vero/pics/0.png"), dir.join("0.png")).unwrap();
    let config = dir.join("rl.yaml");
    fs::write(&config, format!("train_files: [{{path: '{}', {keys}}}]\n", dir.join(file).display())).unwrap();
    let config: RlConfig = load(Some(&config), &[], &|_| None).unwrap();
    config.train_files[0].clone()
}

pub fn jsonl(dir: &std::path::Path, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    fs::write(dir.join("rows.jsonl"), lines.join("\n")).unwrap();
}

/// Returns the texts of the messages of a row with their roles, and its label.
fn shown(row: &Row) -> (Vec<(String, String)>, Option<String>) {
    let turn = |message: &omr_data::text::Message| (message.role.clone(), text_of(message));
    (row.trained_messages().iter().map(turn).collect(), row.ground_truth.clone())
}

fn turns(texts: &[(&str, &str)]) -> Vec<(String, String)> {
    texts.iter().map(|(role, text)| ((*role).to_owned(), (*text).to_owned())).collect()
}

pub const KEYS: &str = r#"
    prompt: "{{ query }}{% if hint %} Hint: {{ hint }}.{% endif %} Put the answer into \\boxed{}.",
    gold: "{{ label }} cm", system_prompt: Think first."#;

#[test]
fn a_template_makes_question_and_label_from_any_columns_of_any_format() {
    let dir = tempfile::tempdir().unwrap();
    let row = |hint: Value| json!({"query": "How long?", "hint": hint, "label": 4, "image": "0.png"});
    jsonl(dir.path(), &[row(json!("Look")), row(json!(null))]);
    fs::write(dir.path().join("rows.csv"), "query,hint,label,image\nHow long?,Look,4,0.png\nHow long?,,4,0.png\n")
        .unwrap();
    let column = |texts: [Option<&str>; 2]| Arc::new(StringArray::from(texts.to_vec())) as ArrayRef;
    let batch = RecordBatch::try_from_iter([
        ("query", column([Some("How long?"); 2])),
        ("hint", column([Some("Look"), None])),
        ("label", column([Some("4"); 2])),
        ("image", column([Some("0.png"); 2])),
    ])
    .unwrap();
    let file = fs::File::create(dir.path().join("rows.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    for file in ["rows.jsonl", "rows.csv", "rows.parquet"] {
        let rows = read(&entry(dir.path(), file, KEYS)).unwrap();
        let asked = |text| turns(&[("system", "Think first."), ("user", text), ("assistant", "4 cm")]);
        let label = Some("4 cm".to_owned());
        let hinted = "How long? Hint: Look. Put the answer into \\boxed{}.";
        assert_eq!(shown(&rows[0]), (asked(hinted), label.clone()), "{file}");
        assert_eq!(shown(&rows[1]), (asked("How long? Put the answer into \\boxed{}."), label), "{file}");
        assert_eq!((rows[0].images.len(), rows[0].messages[1].content.len()), (1, 2), "{file}");
    }
}

#[test]
fn a_template_reads_what_it_replaces_and_keeps_responses_and_several_answers() {
    let dir = tempfile::tempdir().unwrap();
    let read = |row: Value, keys: &str| {
        jsonl(dir.path(), &[row]);
        read(&entry(dir.path(), "rows.jsonl", keys)).map(|mut rows| rows.remove(0)).map_err(|error| error.to_string())
    };
    // verl's prompt is a list of messages, and its label a struct.
    let verl = json!({"prompt": [{"role": "user", "content": "Sum?"}], "reward_model": {"ground_truth": "7"},
        "extra_info": {"question": "old", "answer": "old"}});
    let row = read(verl, "prompt: '{{ prompt[0].content }} In a box.'").unwrap();
    assert_eq!((shown(&row).0[0].1.as_str(), row.question().as_str()), ("Sum? In a box.", "Sum? In a box."));
    assert_eq!(row.ground_truth.as_deref(), Some("7"));
    // As in LaTeX_OCR: one fixed question, and the image in front of it.
    let ocr = json!({"image": "0.png", "text": "x^2"});
    let row = read(ocr, "prompt: Write the LaTeX code of the formula., columns: {response: text}").unwrap();
    assert_eq!(shown(&row).0, turns(&[("user", "Write the LaTeX code of the formula."), ("assistant", "x^2")]));
    assert_eq!(row.messages[0].content.len(), 2);
    // Options that a template reads need no other key.
    let choices = json!({"question": "Which?", "choices": ["a", "b"], "answer": "b", "other": ["b", "B"]});
    let listed = "{{ question }}{% for choice in choices %} {{ choice }}{% endfor %}";
    let row = read(choices.clone(), &format!("prompt: \"{listed}\", gold: other")).unwrap();
    assert_eq!((shown(&row).0[0].1.as_str(), &row.extra["right_answers"]), ("Which? a b", &json!(["b", "B"])));
    // The system message of a row stays.
    let system = json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "q"},
        {"role": "assistant", "content": "a"}]});
    let row = read(system.clone(), "system_prompt: Think first.").unwrap();
    assert_eq!(shown(&row).0[0], ("system".to_owned(), "Be brief.".to_owned()));
    for (row, keys, parts) in [
        (&system, "prompt: '{{ messages[1].content }}!'", &["a conversation with answers in `messages`"][..]),
        (
            &choices,
            "prompt: '{{ quest }}'",
            &["rows.jsonl: prompt, ", "row 1", "undefined", "a template over question"],
        ),
        (&choices, "gold: label", &["row 1: found columns", "`label`, which `gold` names"]),
        (&choices, "prompt: multiplechoice", &["found multiplechoice, expected multiple_choice, or a Jinja template"]),
        (&choices, "prompt: '{{ question'", &["rows.jsonl: prompt", "a Jinja template"]),
    ] {
        let error = read(row.clone(), keys).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{keys}: {error}");
    }
}

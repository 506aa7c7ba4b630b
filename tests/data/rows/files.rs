//! Tests reading and writing rows: both forms, both file types, and errors that name file and row.

use std::path::{Path, PathBuf};

use omr_base::error::Result;
use omr_data::rows::read::{self, entry};
use omr_data::rows::{Form, ImageSource, Row, write};
use omr_data::text::{Message, Part};
use serde_json::json;

fn png(level: u8) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    let image = image::GrayImage::from_pixel(3, 2, image::Luma([level]));
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn jsonl(&self, lines: &[&str]) -> Result<Vec<Row>> {
        self.bytes(lines.join("\n").as_bytes())
    }

    fn bytes(&self, content: &[u8]) -> Result<Vec<Row>> {
        let path = self.path("rows.jsonl");
        std::fs::write(&path, content).unwrap();
        read::read(&entry(path))
    }

    /// Returns the message of the read error, which must be one that the user can correct.
    fn fault(&self, lines: &[&str]) -> String {
        let error = self.jsonl(lines).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string()
    }
}

const GOOD: &str =
    r#"{"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}"#;

#[test]
fn sft_rows_are_read_with_urls_of_every_kind() {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("images")).unwrap();
    std::fs::write(folder.path("images/a.png"), png(1)).unwrap();
    let absolute = folder.path("images/a.png").display().to_string();
    let part = |url: &str| json!({"type": "image_url", "image_url": {"url": url}});
    let url = format!("data:image/png;base64,{}", base64(&png(2)));
    let parts = json!([
        part("images/a.png"), {"type": "text", "text": "what"}, part(&absolute), part(&format!("file://{absolute}")), part(&url)
    ]);
    let line = json!({"id": 7, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": parts},
        {"role": "assistant", "content": "<image> is a word here"}]});
    let rows = folder.bytes(format!("\u{feff}{line}\r\n\r\n{GOOD}\n").as_bytes()).unwrap();
    assert_eq!(rows.len(), 2);
    let row = &rows[0];
    assert_eq!((row.id.as_str(), row.data_source.as_str()), ("7", "rows"));
    let want = [Part::Image, Part::Text("what".into()), Part::Image, Part::Image, Part::Image];
    assert_eq!(row.messages[1].content, want);
    assert_eq!(row.messages[2], Message::text("assistant", "<image> is a word here"));
    for image in &row.images {
        assert_eq!((image.decode("").unwrap().width, image.decode("").unwrap().height), (3, 2));
    }
    assert_eq!(row.images[3].decode("").unwrap().data[0], 2);
}

#[test]
fn rl_rows_are_read_in_both_layouts() {
    let folder = Folder::new();
    let image = json!({"bytes": base64(&png(9)), "path": null});
    let verl = json!({"data_source": "geo", "prompt": [{"role": "user", "content": "a<image>b"}], "images": [image],
        "reward_model": {"ground_truth": "3", "style": "rule"}, "extra_info": {"index": 5, "question": "q", "split": "train"}});
    let problem = json!({"problem": "how many?", "answer": 4, "images": [image, image], "ids": "x9"});
    let rows = folder.jsonl(&[&verl.to_string(), &problem.to_string()]).unwrap();
    assert_eq!((rows[0].id.as_str(), rows[0].data_source.as_str()), ("rows-5", "geo"));
    assert_eq!(rows[0].ground_truth.as_deref(), Some("3"));
    assert_eq!(rows[0].question(), "q");
    assert_eq!(rows[0].messages[0].content, [Part::Text("a".into()), Part::Image, Part::Text("b".into())]);
    assert_eq!((rows[1].id.as_str(), rows[1].ground_truth.as_deref()), ("x9", Some("4")));
    assert_eq!(rows[1].messages[0].content, [Part::Image, Part::Image, Part::Text("how many?".into())]);
    assert_eq!(rows[1].question(), "how many?");
}

#[test]
fn rows_written_as_parquet_come_back_the_same() {
    let folder = Folder::new();
    std::fs::write(folder.path("a.png"), png(3)).unwrap();
    let column = json!({"id": "c", "messages": [{"role": "user", "content": "<image>and<image>?"}, {"role": "assistant", "content": "x"}],
        "images": [{"bytes": base64(&png(1)), "path": "one.png"}, "a.png"], "answer": "2",
        "extra_info": {"index": 1, "share": 0.5, "odd": [1, 2], "size": {"w": [2, 3]}, "word": "[1]", "ok": true}});
    let url = json!({"id": "u", "messages": [{"role": "user", "content": [{"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "a.png"}}]}, {"role": "assistant", "content": "y"}],
        "answer": "y", "extra_info": {"index": 2, "share": 2, "odd": "one"}});
    let plain = GOOD.replace("\"id\"", "\"answer\": \"ho\", \"id\"");
    let rows = folder.jsonl(&[&column.to_string(), &url.to_string(), &plain]).unwrap();
    let unlabelled = folder.jsonl(&[GOOD]).unwrap();
    let error = write(&folder.path("rl.parquet"), &unlabelled, Form::Rl).unwrap_err().to_string();
    assert!(error.contains("an answer and no label, in rows of form rl"), "{error}");
    for form in [Form::Sft, Form::Rl] {
        let path = folder.path("out.parquet");
        write(&path, &rows, form).unwrap();
        let back = read::read(&entry(&path)).unwrap();
        assert_eq!(back.len(), rows.len());
        for (row, back) in rows.iter().zip(&back) {
            assert_eq!(row.id, back.id);
            assert_eq!(row.data_source, back.data_source);
            // A prompt with an answer behind it would be continued.
            assert_eq!(if form == Form::Rl { row.prompt() } else { &row.messages[..] }, back.messages);
            if form == Form::Rl {
                assert_eq!(row.ground_truth, back.ground_truth);
            }
            let bytes = |row: &Row| row.images.iter().map(|i| i.bytes("").unwrap()).collect::<Vec<_>>();
            assert_eq!(bytes(row), bytes(back));
        }
        let of = |name: &str| &back[0].extra[name];
        assert_eq!(back[1].extra["odd"], "one");
        assert_eq!([of("odd"), of("size"), of("word")], [&json!([1, 2]), &json!({"w": [2, 3]}), &json!("[1]")]);
        assert_eq!((&back[0].extra["index"], &back[1].extra["share"]), (&json!(1), &json!(2.0)));
        assert!(back[1].extra.get("ok").is_none());
        if form == Form::Sft {
            assert!(matches!(&back[1].images[0], ImageSource::File { url, .. } if url == "a.png"));
        }
    }
}

#[test]
fn labels_that_are_structs_are_read_and_survive_a_data_stage() {
    let folder = Folder::new();
    let row = |label: serde_json::Value| {
        let prompt = json!([{"role": "user", "content": "Make 98."}]);
        json!({"prompt": prompt, "reward_model": {"style": "rule", "ground_truth": label}}).to_string()
    };
    let countdown = json!({"target": 98, "numbers": [44, 19, 35]});
    let column = json!({"problem": "q", "answer": ["a", ["b"]]}).to_string();
    let listed = row(json!(["a", "b"]));
    let rows =
        folder.jsonl(&[&row(countdown.clone()), &row(json!("5")), &column, &listed, &row(json!(["7"]))]).unwrap();
    let labels = |rows: &[Row]| -> Vec<(String, serde_json::Value)> {
        rows.iter().map(|row| (row.ground_truth.clone().unwrap(), row.label.clone())).collect()
    };
    let text = |text: &str| (text.to_owned(), json!(null));
    let list = json!(["a", ["b"]]);
    let [several, list] = [json!(["a", "b"]), list].map(|list| (list.to_string(), list));
    let expected = [(countdown.to_string(), countdown), text("5"), list, several, text("7")];
    assert_eq!(labels(&rows), expected);
    let path = folder.path("out.parquet");
    write(&path, &rows, Form::Rl).unwrap();
    let back = read::read(&entry(&path)).unwrap();
    assert_eq!(labels(&back), expected);
    assert!(back.iter().all(|row| !row.extra.contains_key("reward_model.ground_truth")), "{:?}", back[0].extra);
}

#[test]
fn a_prompt_that_ends_with_the_assistant_is_not_cut() {
    let folder = Folder::new();
    let question = json!({"role": "user", "content": "What is 2+3?"});
    let begun = |role: &str, key: &str| json!([question, {role: "assistant", key: "<think>so"}]);
    let answer = json!([{"role": "assistant", "content": "</think>5"}]);
    for row in [
        json!({"prompt": begun("role", "content"), "completion": answer}),
        json!({"question": begun("role", "content"), "answer": "5"}),
    ] {
        let fault = folder.fault(&[&row.to_string()]);
        let parts = ["rows.jsonl row 1", "[1] at the end of a prompt", "`completion`", "`messages`"];
        assert!(parts.iter().all(|part| fault.contains(part)), "{row}: {fault}");
    }
    // RL continues the turn of a prompt, and SFT has no answer.
    for row in [
        json!({"prompt": begun("role", "content"), "answer": "5"}),
        json!({"prompt": begun("from", "value"), "reward_model": {"ground_truth": "5"}}),
        json!({"prompt": begun("role", "content").to_string(), "answer": "5"}),
    ] {
        let rows = folder.jsonl(&[&row.to_string()]).unwrap();
        assert!(rows[0].prompt().len() == 2 && !rows[0].is_answered(), "{row}");
    }
    // A conversation with an answer is no prompt, and an earlier answer is one turn of several.
    let whole = json!({"messages": begun("role", "content"), "answer": "5"});
    let more = json!([question, {"role": "assistant", "content": "5"}, {"role": "user", "content": "Sure?"}]);
    let rows = folder.jsonl(&[&whole.to_string(), &json!({"prompt": more, "answer": "5"}).to_string()]).unwrap();
    assert_eq!(rows.iter().map(|row| row.prompt().len()).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn a_file_without_rows_is_a_whole_file_too() {
    let folder = Folder::new();
    let path = folder.path("empty.parquet");
    write(&path, &[], Form::Rl).unwrap();
    assert!(read::read(&entry(&path)).unwrap().is_empty());
    // Training on an empty file is an error. The message must name the empty file and not prompts that are too long.
    let message = read::load(&[entry(&path)], 1).unwrap_err().to_string();
    assert!(message.contains("empty.parquet: found no rows"), "{message}");
}

#[test]
fn faults_name_file_and_row() {
    let folder = Folder::new();
    let user = |content: serde_json::Value, images: serde_json::Value| {
        json!({"messages": [{"role": "user", "content": content}], "images": images}).to_string()
    };
    let image = json!({"bytes": base64(&png(0))});
    let cases = [
        (json!({"id": 1, "text": "x"}).to_string(), "`messages`"),
        ("{\"id\": ".to_owned(), "invalid JSON"),
        ("[1]".to_owned(), "JSON object"),
        (json!({"messages": "hi"}).to_string(), "a string in `messages`"),
        (json!({"messages": []}).to_string(), "at least one message"),
        (json!({"messages": [{"content": "hi"}]}).to_string(), "messages[0].role"),
        (json!({"messages": [{"role": "tool", "content": "hi"}]}).to_string(), "\"tool\""),
        (user(json!(5), json!([])), "messages[0].content"),
        (user(json!([{"type": "audio_url"}]), json!([])), "audio_url"),
        (user(json!([{"type": "text", "text": 1}]), json!([])), "messages[0].content[0].text"),
        (user(json!("<image> and <image>"), json!([image])), "2 image placeholders"),
        (user(json!([{"type": "text", "text": "none"}]), json!([image])), "0 image placeholders"),
        (user(json!("<image>"), json!([])), "1 image placeholders"),
        (user(json!("<image>"), json!([{"bytes": "*"}])), "base64"),
        (user(json!("<image>"), json!([{"bytes": null}])), "an image without bytes"),
        (user(json!("<image>"), json!(["../a.png"])), "data folder"),
        (user(json!("<image>"), json!(["/etc/hostname"])), "data folder"),
        (user(json!("<image>"), json!([3])), "images"),
        (json!({"prompt": [{"role": "user", "content": "x"}], "reward_model": "3"}).to_string(), "reward_model"),
        (json!({"prompt": [{"role": "user", "content": "x"}], "extra_info": "3"}).to_string(), "extra_info"),
    ];
    for (line, what) in &cases {
        let message = folder.fault(&[GOOD, line]);
        assert!(message.contains("rows.jsonl") && message.contains(what), "{message}");
        assert!(message.contains("row 2") || message.contains("line 2"), "{message}");
    }
    let mut bytes = format!("{GOOD}\n").into_bytes();
    bytes.extend(b"{\"id\": \"\xff\"}");
    let message = folder.bytes(&bytes).unwrap_err().to_string();
    assert!(message.contains("line 2") && message.contains("UTF-8"), "{message}");
}

#[test]
fn a_broken_image_is_named_when_it_is_decoded() {
    let folder = Folder::new();
    let whole = png(0);
    for broken in [&whole[..whole.len() / 2], b"<html>", b""] {
        let line = json!({"messages": [{"role": "user", "content": "<image>"}], "images": [{"bytes": base64(broken)}]});
        let rows = folder.jsonl(&[GOOD, &line.to_string()]).unwrap();
        let error = rows[1].images[0].decode(&rows[1].place).unwrap_err();
        assert!(error.to_string().contains("rows.jsonl row 2"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
    std::fs::write(folder.path("half.png"), &whole[..whole.len() / 2]).unwrap();
    let line = json!({"messages": [{"role": "user", "content": "<image>"}], "images": ["half.png"]});
    let rows = folder.jsonl(&[&line.to_string()]).unwrap();
    let error = rows[0].images[0].decode(&rows[0].place).unwrap_err().to_string();
    assert!(error.contains("rows.jsonl row 1, image half.png: found a damaged image"), "{error}");
}

#[test]
fn a_broken_parquet_file_is_named() {
    use arrow_array::{Int64Array, RecordBatch, StringArray};
    let folder = Folder::new();
    let path = folder.path("rows.parquet");
    let fault = |path: &Path| {
        let error = read::read(&entry(path)).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    };
    assert!(fault(&folder.path("none.parquet")).contains("none.parquet"));
    assert!(fault(&folder.path(".")).contains("found a folder without"));
    write(&path, &folder.jsonl(&[GOOD]).unwrap(), Form::Sft).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    assert!(fault(&path).contains("rows.parquet: an incomplete or damaged Parquet file"));

    let save = |batch: RecordBatch| {
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        fault(&path)
    };
    let other = RecordBatch::try_from_iter([("text", std::sync::Arc::new(StringArray::from(vec!["x"])) as _)]).unwrap();
    let message = save(other);
    assert!(message.contains("found columns text, expected one of `messages`"), "{message}");
    let wrong =
        RecordBatch::try_from_iter([("messages", std::sync::Arc::new(Int64Array::from(vec![1])) as _)]).unwrap();
    let message = save(wrong);
    assert!(message.contains("rows.parquet row 1") && message.contains("messages"), "{message}");
}

#[test]
fn a_column_of_a_dictionary_reads_as_its_values() {
    use arrow_array::types::Int8Type;
    use arrow_array::{ArrayRef, DictionaryArray, RecordBatch};
    let folder = Folder::new();
    let path = folder.path("rows.parquet");
    let column = |values: [Option<&str>; 3]| {
        std::sync::Arc::new(values.into_iter().collect::<DictionaryArray<Int8Type>>()) as ArrayRef
    };
    let problems = column([Some("1 + 1?"), Some("1 + 2?"), Some("1 + 1?")]);
    let sources = column([Some("sums"), None, Some("sums")]);
    let batch = RecordBatch::try_from_iter([("problem", problems), ("data_source", sources)]).unwrap();
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let rows = read::read(&entry(&path)).unwrap();
    let found: Vec<_> = rows.iter().map(|row| (row.question(), row.data_source.clone())).collect();
    let expected =
        [("1 + 1?", "sums".to_owned()), ("1 + 2?", read::name(&entry(&path))), ("1 + 1?", "sums".to_owned())];
    assert_eq!(found, expected.map(|(question, source)| (question.to_owned(), source)));
}

#[test]
fn weights_repeat_and_limits_cut() {
    let folder = Folder::new();
    let lines: Vec<&str> = vec![GOOD; 10];
    folder.jsonl(&lines).unwrap();
    let mut set = entry(folder.path("rows.jsonl"));
    set.weight = 2.5;
    set.limit = Some(4);
    let (rows, index) = read::load(&[set.clone(), set], 3).unwrap();
    assert_eq!((rows.len(), index.len()), (8, 20));
    for row in 0..8 {
        let times = index.iter().filter(|&&i| i == row).count();
        assert!((2..=3).contains(&times), "row {row} {times} times");
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[test]
fn text_after_the_rows_of_a_json_file_is_an_error() {
    let folder = Folder::new();
    let row = r#"{"question": "1 + 1", "answer": "2"}"#;
    for (text, is_whole) in [
        (format!("[{row}, {row}]\n"), true),
        (format!("[{row}]\n[{row}]"), false),
        (format!("[{row}}}, {row}]"), false),
    ] {
        let path = folder.path("rows.json");
        std::fs::write(&path, text).unwrap();
        let found = read::read(&read::entry(&path)).map_err(|e| e.to_string());
        let expected = |error: &String| error.contains("rows.json") && error.contains("text after the end of its rows");
        assert!(
            if is_whole {
                found.as_ref().is_ok_and(|rows| rows.len() == 2)
            } else {
                found.as_ref().is_err_and(expected)
            },
            "{found:?}"
        );
    }
}

#[test]
fn a_file_whose_rows_have_two_forms_needs_the_form_in_the_config() {
    let folder = Folder::new();
    let rows = folder
        .jsonl(&[
            r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}"#,
            r#"{"prompt": "1 + 1", "reward_model": {"ground_truth": "2"}}"#,
        ])
        .unwrap();
    let path = folder.path("mixed.parquet");
    for order in [rows.clone(), rows.iter().rev().cloned().collect()] {
        let error = write::write(&path, &order, Form::Auto).unwrap_err().to_string();
        assert!(error.contains("row of form") && error.contains("form: sft"), "{error}");
    }
    let labelled = Row { ground_truth: Some("Hello".to_owned()), ..rows[0].clone() };
    write::write(&path, &[labelled, rows[1].clone()], Form::Rl).unwrap();
    assert_eq!(read::read(&read::entry(&path)).unwrap()[1].ground_truth.as_deref(), Some("2"));
}

#[test]
fn a_label_beside_an_answer_stays_in_rows_for_sft() {
    let folder = Folder::new();
    let rows = folder.jsonl(&[
        r#"{"question": "What is it?", "response": "It shows a ball.", "answer": "ball"}"#,
        r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}"#,
    ]);
    let path = folder.path("sft.parquet");
    write::write(&path, &rows.unwrap(), Form::Sft).unwrap();
    let labels: Vec<Option<String>> =
        read::read(&entry(&path)).unwrap().into_iter().map(|row| row.ground_truth).collect();
    assert_eq!(labels, [Some("ball".to_owned()), None]);
}

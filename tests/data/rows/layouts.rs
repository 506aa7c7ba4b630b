//! Tests every layout of rows that users have, on 60 rows that `layouts/make.py` wrote with the libraries that users
//! write them with. Row `i` shows `1 + i % 4` squares, and the first pixel of its image is `i`.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use omr_base::config::{ColumnsConfig, DatasetConfig};
use omr_data::rows::read::entry;
use omr_data::rows::{Row, read, text_of};
use omr_data::text::Part;
use serde_json::json;

use super::formats::{decoded, extracted, rows};

/// Returns the folder with all layouts.
pub fn made() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    extracted(&DIR, include_bytes!("layouts/rows.zip"))
}

pub fn set(path: &str) -> DatasetConfig {
    entry(made().join(path))
}

/// Reads a layout in order and row by row. Checks the form, the image of each row and its place, the roles of the
/// conversation that SFT trains on, and the label.
pub fn check(set: &DatasetConfig, form: &str, roles: &[&str], label: bool) -> Vec<Row> {
    let found = rows(set);
    assert_eq!(found.len(), 60);
    for (i, row) in found.iter().enumerate() {
        let trained = row.trained_messages();
        let turns: Vec<&str> = trained.iter().map(|message| message.role.as_str()).collect();
        assert_eq!((row.form, turns), (form, roles.to_vec()), "{}", row.place);
        assert_eq!(decoded(row), [i as u8], "{}", row.place);
        let asked = row.messages.iter().find(|message| message.role == "user").unwrap();
        assert_eq!(asked.content[0], Part::Image, "{}", row.place);
        assert_eq!(row.ground_truth.clone(), label.then(|| (1 + i % 4).to_string()), "{}", row.place);
    }
    found
}

fn question(row: &Row) -> String {
    text_of(row.messages.iter().rfind(|message| message.role == "user").unwrap())
}

#[test]
fn a_row_keeps_all_of_its_columns_for_a_reward() {
    let names = |path: &str| {
        let folder = Some(made().to_owned());
        let rows = omr_data::rows::read::read(&DatasetConfig { data_folder: folder, ..set(path) }).unwrap();
        assert_eq!(rows[0].item().columns, rows[0].columns);
        rows[0].columns.keys().cloned().collect::<Vec<_>>()
    };
    // Images are left out.
    let verl = names("verl/train.parquet");
    assert!(verl.contains(&"ability".to_owned()) && verl.contains(&"reward_model".to_owned()), "{verl:?}");
    assert!(!verl.contains(&"images".to_owned()), "{verl:?}");
    for path in ["trl/grpo.parquet", "questions/answers.jsonl", "questions/answers.csv", "arrow/splits/train"] {
        let columns = names(path);
        assert!(columns.len() > 1 && !columns.iter().any(|name| name.starts_with("image")), "{path}: {columns:?}");
    }
}

fn reply(row: &Row) -> String {
    text_of(row.trained_messages().last().unwrap())
}

const SFT: [&str; 2] = ["user", "assistant"];

#[test]
fn llama_factorys_sharegpt_with_a_system_column_a_mask_and_a_media_folder() {
    let media = Some(made().join("llama_factory/media"));
    let of = |name: &str| DatasetConfig { data_folder: media.clone(), ..set(&format!("llama_factory/{name}.json")) };
    let roles = ["system", "user", "assistant", "user", "assistant"];
    let found = check(&of("sharegpt"), "conversations (ShareGPT)", &roles, false);
    let masked: Vec<bool> = found[0].messages.iter().map(|message| message.masked).collect();
    assert_eq!(masked, [false, false, true, false, false]);
    assert_eq!(text_of(&found[7].messages[0]), "Think first.");
    let error = read::read(&set("llama_factory/sharegpt.json")).unwrap_err().to_string();
    assert!(error.contains("the folder") && error.contains("the key data_folder"), "{error}");

    let found = rows(&of("alpaca"));
    let roles = |row: &Row| row.messages.iter().map(|message| message.role.clone()).collect::<Vec<_>>();
    assert_eq!(roles(&found[0]), ["system", "user", "assistant", "user", "assistant"]);
    assert_eq!(roles(&found[1]), ["system", "user", "assistant"]);
    assert_eq!(
        (question(&found[2]), question(&found[1])),
        ("Count the squares.\nPicture 2.".into(), "Count the squares.".into())
    );
    assert!(found.iter().all(|row| row.form == "instruction + output (Alpaca)" && decoded(row).len() == 1));
    assert_eq!(reply(&found[5]), "<think>I count to 2.</think><answer>2</answer>");
}

#[test]
fn trls_messages_completions_and_solutions_with_images_without_marks() {
    let found = check(&set("trl/messages.parquet"), "messages", &SFT, false);
    assert_eq!(found[3].messages[0].content[1], Part::Text("How many squares, in picture 3?".into()));
    let found = check(&set("trl/completion.parquet"), "prompt + completion (TRL)", &SFT, false);
    assert_eq!(reply(&found[3]), "<think>I count to 4.</think><answer>4</answer>");
    // Of a prompt and a completion, TRL trains only the completion.
    let dir = tempfile::tempdir().unwrap();
    for [role, content, user, assistant] in
        [["role", "content", "user", "assistant"], ["from", "value", "human", "gpt"]]
    {
        let turn = |who: &str, text: &str| json!({role: who, content: text});
        let asked = [turn(user, "1?"), turn(assistant, "1"), turn(user, "2?")];
        let row = json!({"prompt": asked, "completion": [turn(assistant, "2")]});
        fs::write(dir.path().join("rows.jsonl"), row.to_string()).unwrap();
        let found = read::read(&read::entry(dir.path().join("rows.jsonl"))).unwrap();
        let masked: Vec<bool> = found[0].messages.iter().map(|message| message.masked).collect();
        assert_eq!(masked, [false, true, false, false]);
    }
    // The label is the answer inside the solution. A solution is not what SFT trains on.
    check(&set("trl/grpo.parquet"), "prompt (verl, TRL)", &["user"], true);
    // As in TRL, images are not put into a content that is a list of parts.
    let dir = tempfile::tempdir().unwrap();
    let parts = json!([{"type": "text", "text": "How many?"}]);
    let row = json!({"messages": [{"role": "user", "content": parts}], "images": ["0.png"]});
    fs::write(dir.path().join("rows.jsonl"), row.to_string()).unwrap();
    let error = read::read(&entry(dir.path().join("rows.jsonl"))).unwrap_err().to_string();
    assert!(error.contains("0 image placeholders"), "{error}");
}

#[test]
fn questions_with_answers_as_json_csv_and_tsv() {
    for name in ["answers.jsonl", "answers.csv", "answers.tsv"] {
        let found = check(&set(&format!("questions/{name}")), "question + answer", &SFT, true);
        assert_eq!((question(&found[9]), reply(&found[9])), ("How many squares, in picture 9?".into(), "2".into()));
        assert_eq!(found[0].messages.len(), 1, "the answer is no turn of the prompt");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.jsonl");
    // As in ChartQA. A list of several answers has no single label.
    fs::write(&path, "{\"question\": \"4?\", \"answer\": [\"5\"]}\n{\"question\": \"5?\", \"answer\": [1, 2]}\n")
        .unwrap();
    let found = read::read(&DatasetConfig { limit: Some(1), ..entry(&path) }).unwrap();
    assert_eq!(found[0].ground_truth.as_deref(), Some("5"));
    let error = read::read(&entry(&path)).unwrap_err().to_string();
    assert!(
        error.contains("row 2: found a list in `answer`, expected a string, a number, or a list with exactly one"),
        "{error}"
    );
    let path = dir.path().join("rows.csv");
    fs::write(&path, "question,answer\n\"1, 2?\",3\nno answer\n4?,5\n").unwrap();
    let error = read::read(&entry(&path)).unwrap_err().to_string();
    assert!(error.contains("rows.csv row 2: found 1 cells, expected 2"), "{error}");
    fs::write(&path, "frage;antwort\n").unwrap();
    let error = read::read(&entry(&path)).unwrap_err().to_string();
    assert!(error.contains("found columns frage;antwort, expected one of `messages`"), "{error}");
}

#[test]
fn responses_and_reasoning_are_trained_and_the_answer_is_the_label() {
    let found = check(&set("questions/fine_reason.parquet"), "question + response", &SFT, true);
    assert_eq!(
        (found[1].id.as_str(), reply(&found[1])),
        ("m1", "<think>I count to 2.</think><answer>2</answer>".into())
    );
    let found = check(&set("questions/thinking.jsonl"), "question + answer", &SFT, true);
    assert_eq!(reply(&found[1]), "<think>\nI count to 2.\n</think>\n\n2");
    let columns = ColumnsConfig {
        question: Some("caption".into()),
        response: Some("source".into()),
        thinking: Some("question".into()),
        ..ColumnsConfig::default()
    };
    let named = DatasetConfig { columns, ..set("questions/fine_reason.parquet") };
    let found = check(&named, "question + response", &SFT, true);
    assert_eq!(reply(&found[0]), "<think>\nHow many squares, in picture 0?\n</think>\n\nsquares");
}

#[test]
fn veros_parts_name_the_images_that_a_column_lists_again() {
    let found = check(&set("vero/train.parquet"), "prompt (verl, TRL)", &["system", "user"], true);
    assert_eq!(found[2].data_source, "squares");
    let dir = tempfile::tempdir().unwrap();
    let part = json!([{"type": "image", "image": "a.png"}]);
    let row = json!({"prompt": [{"role": "user", "content": part}], "images": ["b.png"]});
    fs::write(dir.path().join("rows.jsonl"), row.to_string()).unwrap();
    let error = read::read(&entry(dir.path().join("rows.jsonl"))).unwrap_err().to_string();
    assert!(error.contains("0 image placeholders (<image> or image parts) for 2 images"), "{error}");
}

#[test]
fn an_imagefolder_with_metadata_or_with_classes() {
    for name in ["imagefolder/jsonl", "imagefolder/csv"] {
        check(&set(name), "question + answer", &SFT, true);
    }
    for set in
        [set("imagefolder/classes/train"), DatasetConfig { split: Some("train".into()), ..set("imagefolder/classes") }]
    {
        let found = rows(&set);
        assert_eq!((found.len(), found[0].form), (60, "question + answer"));
        let text = "Which of these does the picture show: four, one, three, two?";
        // The folders are read in the order of their names.
        let first = (question(&found[0]), reply(&found[0]), decoded(&found[0]), found[0].id.as_str());
        assert_eq!(first, (text.into(), "four".into(), vec![3], "four/03.png"));
    }
    let error = read::read(&set("imagefolder/jsonl/nothing")).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let dir = tempfile::tempdir().unwrap();
    fs::copy(made().join("vero/pics/0.png"), dir.path().join("0.png")).unwrap();
    let error = read::read(&entry(dir.path())).unwrap_err().to_string();
    assert!(error.contains("0.png, an image without a class folder"), "{error}");
}

#[test]
fn folders_of_save_to_disk_with_one_split_or_several() {
    check(&set("arrow/one"), "question + answer", &SFT, true);
    let split = |name: &str| DatasetConfig { split: Some(name.into()), ..set("arrow/splits") };
    check(&split("train"), "question + answer", &SFT, true);
    assert_eq!(rows(&split("test")).len(), 4);
    let error = read::read(&set("arrow/splits")).unwrap_err().to_string();
    assert!(error.contains("several splits: test, train") && error.contains("split: test"), "{error}");
    let error = read::read(&split("dev")).unwrap_err().to_string();
    assert!(error.contains("arrow/splits: split: found dev"), "{error}");
    // A damaged file is an error and no panic, wherever it ends and whatever its bytes are.
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(made().join("arrow/one/data-00000-of-00002.arrow")).unwrap();
    let path = dir.path().join("rows.arrow");
    for cut in [3, 8, 20, 600, whole.len() / 2, whole.len() - 40] {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(read::read(&entry(&path)).is_err(), "{cut}");
    }
    for at in (0..whole.len()).step_by(97) {
        let mut changed = whole.clone();
        changed[at] ^= 0xa5;
        fs::write(&path, changed).unwrap();
        let _ = read::read(&entry(&path));
    }
}

#[test]
fn webdataset_tars() {
    let found = check(&set("webdataset/squares-0000.tar"), "question + answer", &SFT, true);
    assert_eq!(found[12].id, "0012");
    check(&set("webdataset"), "question + answer", &SFT, true);
}

//! Tests every layout of rows that users have, on 60 rows that `layouts/make.py` wrote with the libraries that users
//! write them with. Row `i` shows `1 + i % 4` squares, and the first pixel of its image is `i`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use omr::config::{ColumnsConfig, DatasetConfig};
use omr::data::read::{RowFile, entry};
use omr::data::{ReadCounts, Row, read, text_of};
use omr::text::Part;
use serde_json::json;

use super::formats::{decoded, rows};
use crate::cli::training::{failure, run};
use crate::train::tiny::{base_model, sft_config, tuned_model};

/// Returns the folder with all layouts.
pub(crate) fn made() -> &'static Path {
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let bytes = include_bytes!("layouts/rows.zip");
        zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap().extract(dir.path()).unwrap();
        dir
    })
    .path()
}

fn set(path: &str) -> DatasetConfig {
    entry(made().join(path))
}

/// Reads a layout in order and row by row. Checks the form, the image of each row and its place, the roles of the
/// conversation that SFT trains on, and the label.
fn check(set: &DatasetConfig, form: &str, roles: &[&str], label: bool) -> Vec<Row> {
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
        let rows = omr::data::read::read(&DatasetConfig { data_folder: folder, ..set(path) }).unwrap();
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

#[test]
fn hub_data_sets_by_name_split_and_revision() {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(made().join("hub"), home.path().join("hub")).unwrap();
    let inspect = |entry: &str| {
        let config = home.path().join("sft.yaml");
        fs::write(&config, format!("datasets: [{entry}]\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
        let page = home.path().join("page");
        let command = command.env("HF_HOME", home.path()).args(["data", "inspect"]).arg(config).arg("--out").arg(page);
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
        let (code, _, error) = run(&["data", "inspect", &at(rows), "--out", &at("page")]);
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
    let (code, text, _) = run(&["data", "preview", &rows, "--model", &model, "--out", &out, "--rows", "1"]);
    assert!(code == 0 && !text.contains("[[") && text.contains("no answer to train on"), "{text}");
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

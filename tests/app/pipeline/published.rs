//! Tests that the shipped configs make the published data from its sources. The sources are small files with the names
//! and the layouts of the real ones.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use omr_base::config::{ColumnsConfig, DatasetConfig};
use omr_base_tests::golden;
use omr_data::rows::read::{self, entry};
use omr_data::rows::{Form, Row, text_of, write};
use omr_data::text::Message;
use serde_json::{Value, json};

use super::commands::{omr, printed};
use super::{Server, lines, rows};
use crate::cli::published::benchmarks;
use crate::serve::program::png;

const SFT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/openmmreasoner-7b/data.yaml");
const RL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/openmmreasoner-7b/rl-data.yaml");

/// LLaVA-CoT and OpenVLThinker. A teacher answers their questions eight times.
const DISTILLED: [&str; 2] = ["llava_cot", "OpenVLThinker-sft-iter3"];
/// The published parts of We-Math 2.0, MMR1 and MiroMind-M1. They are mixed in unchanged.
const AS_THEY_ARE: [&str; 3] = ["WeMath", "mmr1", "m1_sft"];
/// The eight sources of the RL questions.
const QUESTIONS: [&str; 8] = [
    "algopuzzle_train",
    "mmk12_train",
    "puzzlevqa_train",
    "thinklite_vl_hard_train",
    "tqa_train",
    "virl39k_train",
    "wemath_standard",
    "wemath_pro",
];

/// Returns a question with an optional label and an optional answer.
fn row(question: &str, label: Option<&str>, answer: Option<&str>) -> Row {
    let mut messages = vec![Message::text("user", question)];
    messages.extend(answer.map(|answer| Message::text("assistant", answer)));
    Row { id: question.to_owned(), messages, ground_truth: label.map(str::to_owned), ..Row::default() }
}

/// Writes a file of rows, and the folders above it.
fn write_rows(path: &Path, rows: &[Row], form: Form) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    write::write(path, rows, form).unwrap();
}

/// Writes a file with one JSON object per line, and the folders above it.
fn write_lines(path: &Path, lines: &[Value]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
}

/// Writes a zip file with one image.
fn write_zip(path: &Path, member: &str) {
    let mut zip = zip::ZipWriter::new(fs::File::create(path).unwrap());
    zip.start_file(member, zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&png(1)).unwrap();
    zip.finish().unwrap();
}

fn texts(row: &Row) -> Vec<String> {
    row.messages.iter().map(|message| format!("{}: {}", message.role, text_of(message))).collect()
}

#[test]
fn two_sources_are_distilled_eight_times_and_three_published_parts_are_mixed_in_as_they_are() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("data").join(name);
    // LLaVA-CoT has its images in a zip file and its answers in a tag of its own. The first word of a question controls
    // whether the teacher answers correctly. The correct answer is 5.
    let of_llava_cot = |question: &str| {
        let answer = "<SUMMARY> s </SUMMARY>\n\n<REASONING> 2 + 3 </REASONING>\n\n<CONCLUSION> 5 </CONCLUSION>";
        let turns = json!([{"from": "human", "value": question}, {"from": "gpt", "value": answer}]);
        json!({"id": question, "image": "chartqa/train/1.png", "conversations": turns})
    };
    let asked = ["right llava_cot 1", "right llava_cot 2", "wrong llava_cot 3", "right in two sets"];
    let mut asked = asked.map(of_llava_cot);
    asked[3].as_object_mut().unwrap().remove("image");
    write_lines(&at("sources/llava_cot/train.jsonl"), &asked);
    write_zip(&at("sources/llava_cot/image.zip"), "chartqa/train/1.png");
    fs::write(at("sources/llava_cot/image.zip.part-aa"), "a part of the zip file").unwrap();
    // A row that is in two sets is kept only in the later set.
    let answered = |question: String| row(&question, None, Some("<think>old</think><answer>5</answer>"));
    let mut open: Vec<Row> = (1..=3).map(|k| answered(format!("right OpenVLThinker {k}"))).collect();
    open.push(answered("right in two sets".to_owned()));
    write_rows(&at("sources/OpenVLThinker-sft-iter3/train-00000.parquet"), &open, Form::Sft);
    let mut theirs = Vec::new();
    for name in AS_THEY_ARE {
        let mut system = row(&format!("{name} 1"), None, Some("No tags, and no verdict asked for."));
        system.messages.insert(0, Message::text("system", "Their own."));
        let rows = vec![system, row(&format!("{name} 2"), None, Some("<think>t</think><answer>9</answer>"))];
        write_rows(&at(&format!("OpenMMReasoner-SFT-874K/{name}.parquet")), &rows, Form::Sft);
        theirs.extend(rows);
    }
    let teacher = format!("stages.2.distill.teacher.base_url={}", server.base_url);
    let output = omr(dir.path(), &["run", SFT, "--out", "out", &teacher]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));

    let labels: Vec<Row> =
        DISTILLED.iter().flat_map(|name| rows(&dir.path().join(format!("out/rows/{name}.parquet")))).collect();
    assert!(labels.len() == 8 && labels.iter().all(|row| row.ground_truth.as_deref() == Some("5")), "{labels:?}");
    let made = rows(&dir.path().join("out/sft/sft.parquet"));
    let mut questions = vec!["right llava_cot 1", "right llava_cot 2"];
    questions.extend(open.iter().map(|row| row.id.as_str()));
    let questions: Vec<&str> = questions.into_iter().flat_map(|question| std::iter::repeat_n(question, 8)).collect();
    let (by_teacher, mixed_in) = made.split_at(questions.len());
    assert_eq!(by_teacher.iter().map(|row| text_of(&row.messages[1])).collect::<Vec<_>>(), questions);
    assert!(by_teacher.iter().all(|row| text_of(&row.messages[2]) == "<think>t</think><answer>5</answer>"));
    assert!(by_teacher[..16].iter().all(|row| row.images.len() == 1));
    assert_eq!(mixed_in.iter().map(texts).collect::<Vec<_>>(), theirs.iter().map(texts).collect::<Vec<_>>());
    assert!(mixed_in.iter().zip(theirs).all(|(made, theirs)| made.id == theirs.id));
    let asked = server.seen.lock().unwrap();
    assert!(asked.keys().all(|question| !AS_THEY_ARE.iter().any(|name| question.contains(name))), "{asked:?}");
}

#[test]
fn questions_of_rl_are_those_of_eight_sources_verified_told_apart_and_in_no_benchmark() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("data").join(name);
    let asked = |name: &str, k: usize| row(&format!("What is {name} {k}?"), Some("7"), None);
    let mut files: Vec<(&str, Vec<Row>)> =
        QUESTIONS.map(|name| (name, (1..=3).map(|k| asked(name, k)).collect())).into();
    // The puzzles have options, which become lines of the question, and the label becomes a letter.
    for i in [0, 2] {
        let lines = files[i].1.iter().map(|row| json!({"question": row.id, "options": ["6", "7"], "answer": "7"}));
        write_lines(&at(&format!("sources/{}/data.jsonl", files[i].0)), &lines.collect::<Vec<_>>());
        files[i].1 = files[i].1.iter().map(|one| row(&format!("{}\nA. 6\nB. 7", one.id), Some("B"), None)).collect();
    }
    // ViRL39K has its images in a zip file.
    let of_virl =
        |row: &Row| json!({"qid": row.id, "question": row.id, "answer": "\\boxed{7}", "image": ["images/1.png"]});
    write_lines(&at("sources/virl39k_train/39Krelease.jsonl"), &files[5].1.iter().map(of_virl).collect::<Vec<_>>());
    write_zip(&at("sources/virl39k_train/images.zip"), "images/1.png");
    // Duplicates within one set are kept, as in the published pipeline.
    files[1].1.push(asked("mmk12_train", 1));
    files[1].1.push(asked("of two sets", 0));
    files[7].1.push(asked("of two sets", 0));
    files[3].1.push(row("What has no label?", Some(" "), None));
    let columns = ColumnsConfig { images: Some("image".to_owned()), ..ColumnsConfig::default() };
    let logic = golden::dir().join("eval/logicvista_thinking/data.parquet");
    let known = read::read(&DatasetConfig { columns, ..entry(logic) }).unwrap().swap_remove(0);
    assert_eq!(known.images.len(), 1);
    files[4].1.push(known);
    for i in [1, 3, 4, 6, 7] {
        write_rows(&at(&format!("sources/{}/train-00000-of-00001.parquet", files[i].0)), &files[i].1, Form::Rl);
    }
    // The hub's set MMK12 also has a split for tests.
    write_rows(&at("sources/mmk12_train/test-00000-of-00001.parquet"), &[asked("of a test", 1)], Form::Rl);
    benchmarks(dir.path());
    let output = omr(dir.path(), &["run", RL, "--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));

    [1, 3, 4].iter().for_each(|&i| drop(files[i].1.pop()));
    for (name, wanted) in &files {
        let made = rows(&dir.path().join(format!("out/questions/{name}.parquet")));
        let last = |row: &Row| (text_of(row.messages.last().unwrap()), row.images.len());
        let images = usize::from(*name == "virl39k_train");
        let wanted_texts: Vec<_> = wanted.iter().map(|row| (text_of(&row.messages[0]), images)).collect();
        assert_eq!(made.iter().map(last).collect::<Vec<_>>(), wanted_texts, "{name}");
        let label = if name.contains("puzzle") { "B" } else { "7" };
        assert!(made.iter().all(|row| row.ground_truth.as_deref().is_some_and(|gold| gold.contains(label))), "{name}");
    }
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["questions"]["rejected"], json!({"benchmark": 1, "duplicate": 1}));
    let left_out = lines(&dir.path().join("out/questions/rejected.jsonl"));
    let places: Vec<&Value> = left_out.iter().map(|line| &line["dataset"]).collect();
    assert_eq!(places, ["mmk12_train", "tqa_train"]);
}

#[test]
fn the_published_pipelines_are_checked_without_their_data() {
    let dir = tempfile::tempdir().unwrap();
    for (config, wanted) in [
        (
            SFT,
            &[
                "rows: format",
                "questions: dedup; compat",
                "answers: distill; 8 answers per row from qwen3-vl",
                "sft: mix",
            ][..],
        ),
        (
            RL,
            &[
                "rows: format",
                "labels: verify; labels by strict rules, judge off",
                "questions: dedup; compat",
                "against 8 benchmarks",
            ],
        ),
    ] {
        let output = omr(dir.path(), &["run", config, "--out", "out", "--dry-run"]);
        assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
        wanted.iter().for_each(|line| assert!(printed(&output).contains(line), "{line}: {}", printed(&output)));
    }
    assert!(!dir.path().join("out").exists());
}

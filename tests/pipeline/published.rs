//! Tests that the shipped configs make the published data from its sources. The sources are small files with the names
//! of the real ones.

use std::fs;

use omr::config::{ColumnsConfig, DatasetConfig};
use omr::data::read::{self, entry};
use omr::data::{Form, Row, text_of, write};
use omr::text::Message;
use serde_json::{Value, json};

use super::commands::{omr, printed};
use super::{Server, lines, rows};
use crate::cli::published::benchmarks;
use crate::golden;

const SFT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/openmmreasoner-7b/data.yaml");
const RL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/configs/openmmreasoner-7b/rl-data.yaml");

/// LLaVA-CoT, OpenVLThinker and We-Math 2.0. A teacher answers their questions eight times.
const DISTILLED: [&str; 3] = ["llava_cot", "OpenVLThinker-sft-iter3", "WeMath"];
/// MMR1 and MiroMind-M1. They are mixed in unchanged.
const AS_THEY_ARE: [&str; 2] = ["mmr1_filtered", "m1_sft"];
/// The eight files of rl.yaml.
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

fn folder(form: Form, files: &[(&str, Vec<Row>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("data")).unwrap();
    for (name, rows) in files {
        write::write(&dir.path().join(format!("data/{name}.parquet")), rows, form).unwrap();
    }
    dir
}

fn texts(row: &Row) -> Vec<String> {
    row.messages.iter().map(|message| format!("{}: {}", message.role, text_of(message))).collect()
}

#[test]
fn three_sets_are_distilled_eight_times_and_two_are_mixed_in_as_they_are() {
    let server = Server::start();
    // The first word controls whether the teacher answers correctly. The correct answer is 5.
    let answered = |question: String| row(&question, None, Some("<think>old</think><answer>5</answer>"));
    let mut files: Vec<(&str, Vec<Row>)> =
        DISTILLED.map(|name| (name, (1..=3).map(|k| answered(format!("right {name} {k}"))).collect())).into();
    files[0].1.push(answered("wrong llava_cot 4".to_owned()));
    // A row that is in two sets is kept only in the later set.
    files[0].1.push(answered("right in two sets".to_owned()));
    files[2].1.push(answered("right in two sets".to_owned()));
    for name in AS_THEY_ARE {
        let mut system = row(&format!("{name} 1"), None, Some("No tags, and no verdict asked for."));
        system.messages.insert(0, Message::text("system", "Their own."));
        files.push((name, vec![system, row(&format!("{name} 2"), None, Some("<think>t</think><answer>9</answer>"))]));
    }
    let dir = folder(Form::Sft, &files);
    let teacher = format!("stages.1.distill.teacher.base_url={}", server.base_url);
    let output = omr(dir.path(), &["run", SFT, "--out", "out", &teacher]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));

    let made = rows(&dir.path().join("out/sft/sft.parquet"));
    let mut distilled = files[..3].to_vec();
    distilled[0].1.truncate(3);
    let mut questions: Vec<String> = Vec::new();
    for (_, rows) in &distilled {
        questions.extend(rows.iter().flat_map(|row| std::iter::repeat_n(text_of(&row.messages[0]), 8)));
    }
    let (by_teacher, mixed_in) = made.split_at(questions.len());
    assert_eq!(by_teacher.iter().map(|row| text_of(&row.messages[1])).collect::<Vec<_>>(), questions);
    assert!(by_teacher.iter().all(|row| text_of(&row.messages[2]) == "<think>t</think><answer>5</answer>"));
    let theirs: Vec<&Row> = files[3..].iter().flat_map(|(_, rows)| rows).collect();
    assert_eq!(mixed_in.iter().map(texts).collect::<Vec<_>>(), theirs.iter().map(|row| texts(row)).collect::<Vec<_>>());
    assert!(mixed_in.iter().zip(theirs).all(|(made, theirs)| made.id == theirs.id));
    let asked = server.seen.lock().unwrap();
    assert!(asked.keys().all(|question| !AS_THEY_ARE.iter().any(|name| question.contains(name))), "{asked:?}");
}

#[test]
fn questions_of_rl_are_those_of_eight_sources_verified_told_apart_and_in_no_benchmark() {
    let asked = |name: &str, k: usize| row(&format!("What is {name} {k}?"), Some("7"), None);
    let mut files: Vec<(&str, Vec<Row>)> =
        QUESTIONS.map(|name| (name, (1..=3).map(|k| asked(name, k)).collect())).into();
    files[0].1.push(asked("of two sets", 0));
    files[7].1.push(asked("of two sets", 0));
    // Duplicates within one set are kept, as in the published pipeline.
    files[1].1.push(asked("mmk12_train", 1));
    files[2].1.push(row("What has no label?", Some(" "), None));
    let columns = ColumnsConfig { images: Some("image".to_owned()), ..ColumnsConfig::default() };
    let logic = golden::dir().join("eval/logicvista_thinking/data.parquet");
    let known = read::read(&DatasetConfig { columns, ..entry(logic) }).unwrap().swap_remove(0);
    assert_eq!(known.images.len(), 1);
    files[4].1.push(known);
    let dir = folder(Form::Rl, &files);
    benchmarks(dir.path());
    let output = omr(dir.path(), &["run", RL, "--out", "out"]);
    assert_eq!(output.status.code(), Some(0), "{}", printed(&output));

    files[0].1.pop();
    files[2].1.pop();
    files[4].1.pop();
    for (name, wanted) in &files {
        let made = rows(&dir.path().join(format!("out/questions/{name}.parquet")));
        assert_eq!(made.iter().map(texts).collect::<Vec<_>>(), wanted.iter().map(texts).collect::<Vec<_>>(), "{name}");
        assert!(made.iter().all(|row| row.ground_truth.as_deref() == Some("7")), "{name}");
    }
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["labels"]["rejected"], json!({"no_label": 1}));
    assert_eq!(summary["questions"]["rejected"], json!({"benchmark": 1, "duplicate": 1}));
    let left_out = lines(&dir.path().join("out/questions/rejected.jsonl"));
    let places: Vec<&Value> = left_out.iter().map(|line| &line["dataset"]).collect();
    assert_eq!(places, ["algopuzzle_train", "tqa_train"]);
}

#[test]
fn the_published_pipelines_are_checked_without_their_data() {
    let dir = tempfile::tempdir().unwrap();
    for (config, wanted) in [
        (SFT, &["questions: dedup; compat", "answers: distill; 8 answers per row from qwen3-vl", "sft: mix"][..]),
        (
            RL,
            &["labels: verify; labels by strict rules, judge off", "questions: dedup; compat", "against 8 benchmarks"],
        ),
    ] {
        let output = omr(dir.path(), &["run", config, "--out", "out", "--dry-run"]);
        assert_eq!(output.status.code(), Some(0), "{}", printed(&output));
        wanted.iter().for_each(|line| assert!(printed(&output).contains(line), "{line}: {}", printed(&output)));
    }
    assert!(!dir.path().join("out").exists());
}

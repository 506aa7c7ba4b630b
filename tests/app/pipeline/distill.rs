//! Tests distillation against a server that fails, hangs, truncates and sends empty answers. Also tests resuming, and
//! that the numbers of the summary add up.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use omr_app::pipeline::{Shard, Summary};
use omr_base::config::{DistillConfig, EndpointConfig, InputKind, JudgeConfig, StageConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::Observer;
use omr_base_tests::wait::until;
use omr_data::reward::judge;
use omr_data::rows::read::{self, entry};
use omr_data::rows::samples::sample::SYSTEM_PROMPT;
use omr_data::rows::{Row, text_of};
use serde_json::{Value, json};

use super::{Server, lines, observed};

fn config(dir: &Path, server: &str, questions: &[&str]) -> DistillConfig {
    let lines: Vec<String> = questions
        .iter()
        .enumerate()
        .map(|(i, q)| {
            let label = if q.starts_with("unlabelled") { Value::Null } else { json!("5") };
            json!({"id": format!("q{i}"), "problem": q, "answer": label}).to_string()
        })
        .collect();
    let path = dir.join("questions.jsonl");
    std::fs::write(&path, lines.join("\n")).unwrap();
    let teacher = EndpointConfig {
        base_url: vec![server.to_owned()],
        model: "t".into(),
        concurrency: 4,
        timeout_s: 60.0,
        max_retries: 1,
        ..EndpointConfig::default()
    };
    let stage = StageConfig { datasets: vec![entry(path)], ..StageConfig::default() };
    DistillConfig { stage, num_rollouts: 1, teacher: Some(teacher), ..DistillConfig::default() }
}

fn refs(questions: &[String]) -> Vec<&str> {
    questions.iter().map(String::as_str).collect()
}

fn run(config: &DistillConfig, out: &Path) -> Result<Summary> {
    super::run(config, out, None).map(|(summary, _)| summary)
}

fn kept(out: &Path) -> Vec<Row> {
    read::read(&entry(out.join("questions.parquet"))).unwrap()
}

fn adds_up(config: &DistillConfig, out: &Path, summary: &Summary) {
    let rejected: usize = summary.rejected.values().sum();
    assert_eq!(summary.rows * config.num_rollouts, summary.kept + rejected + summary.unjudged);
    assert_eq!(lines(&out.join("rejected.jsonl")).len(), rejected);
    assert_eq!(kept(out).len(), summary.kept);
    let written: Summary = serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(&written, summary);
}

#[test]
fn every_answer_is_kept_or_counted_under_its_reason() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let server = Server::start();
    let questions = [
        "right",
        "wrong",
        "bare",
        "unanswered",
        "repaired",
        "long",
        "empty",
        "null",
        "flaky",
        "broken",
        "busy",
        "refused",
        "choiceless",
        "garbage",
        "hang",
        "hangup",
        "cut",
        "unlabelled",
    ];
    let mut config = config(dir.path(), &server.base_url, &questions);
    config.num_rollouts = 2;
    // The client abandons a request that hangs after this timeout. The timeout must be long enough for the other
    // requests on a busy machine.
    if let Some(teacher) = &mut config.teacher {
        teacher.timeout_s = 3.0;
    }
    let summary = run(&config, &out).unwrap();
    adds_up(&config, &out, &summary);
    let want = [
        ("wrong_answer", 2),
        ("no_think", 2),
        ("no_answer", 2),
        ("truncated", 2),
        ("empty_response", 4),
        ("teacher_error", 12),
        ("refused", 2),
        ("no_label", 2),
    ];
    let want: BTreeMap<String, usize> = want.map(|(k, n)| (k.to_owned(), n)).into();
    assert_eq!(summary.rejected, want);
    assert_eq!((summary.rows, summary.kept, summary.requests), (18, 8, 34));
    let ids: Vec<String> = kept(&out).into_iter().map(|r| r.id).collect();
    assert_eq!(ids, ["q0", "q0", "q4", "q4", "q8", "q8", "q10", "q10"]);
    let row = &kept(&out)[2];
    assert_eq!(text_of(&row.messages[0]), SYSTEM_PROMPT);
    assert_eq!(text_of(&row.messages[1]), "repaired");
    assert_eq!(text_of(&row.messages[2]), "<think>t</think><answer>5</answer>");
    assert_eq!((&row.extra["rollout"], &row.extra["row"]), (&json!(0), &json!(4)));
    for line in lines(&out.join("rejected.jsonl")) {
        assert_eq!(line["dataset"], "questions");
        assert_eq!(line["id"], format!("q{}", line["index"]));
        assert!(line["detail"].is_string());
    }

    // Another run requests only the answers that failed or were empty.
    let before = server.count();
    let again = run(&config, &out).unwrap();
    assert_eq!(again, summary);
    let seen = server.seen.lock().unwrap();
    assert!(seen.iter().filter(|(q, _)| q.starts_with("right") || q.starts_with("wrong")).all(|(_, n)| *n == 1));
    assert!(seen.values().sum::<usize>() > before);
}

#[test]
fn a_teacher_that_is_down_is_an_error() {
    let questions: Vec<String> = (0..30).map(|i| format!("right {i}")).collect();
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let error = run(&config(dir.path(), "http://127.0.0.1:9/v1", &refs(&questions)), &out).unwrap_err();
    assert!(matches!(error, Error::Server { .. }), "{error}");
    assert_eq!(error.exit_code(), 1);
    assert!(!out.join("summary.json").exists() && !out.join("questions.parquet").exists());

    let server = Server::start();
    for (question, status) in [("locked", "401"), ("unpaid", "402"), ("forbidden", "403")] {
        let error = run(&config(dir.path(), &server.base_url, &[question, "right"]), &out).unwrap_err();
        assert!(error.to_string().contains(status), "{error}");
    }
}

#[test]
fn a_prompt_that_a_content_filter_refuses_is_left_out_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let server = Server::start();
    let config = config(dir.path(), &server.base_url, &["right", "moderated", "refused"]);
    let summary = run(&config, &out).unwrap();
    assert_eq!((summary.kept, summary.rejected), (1, [("refused".to_owned(), 2)].into()));
    // The stage is finished: another start asks nothing.
    let before = server.count();
    run(&config, &out).unwrap();
    assert_eq!(server.count(), before);
}

#[test]
fn a_second_address_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let server = Server::start();
    let mut config = config(dir.path(), &server.base_url, &["right", "right 2", "right 3"]);
    if let Some(teacher) = &mut config.teacher {
        teacher.base_url.insert(0, "http://127.0.0.1:9/v1".to_owned());
    }
    let summary = run(&config, &out).unwrap();
    assert_eq!(summary.kept, 3);
}

/// Observer that requests a stop when the given number of answers exists.
struct StopAt(u64, AtomicU64);

impl Observer for StopAt {
    fn begin(&self, _: &str, _: &str, _: u64, _: u64) {}
    fn step(&self, done: u64, _: &[(&str, f64)]) {
        self.1.store(done, Ordering::Relaxed);
    }
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn stop_requested(&self) -> bool {
        self.1.load(Ordering::Relaxed) >= self.0
    }
}

#[test]
fn a_stopped_run_goes_on_from_its_store_to_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start();
    let questions: Vec<String> = (0..40).map(|i| format!("{} {i}", ["right", "wrong", "bare"][i % 3])).collect();
    let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
    let config = config(dir.path(), &server.base_url, &questions);
    let straight = dir.path().join("straight");
    run(&config, &straight).unwrap();
    assert_eq!(server.count(), 40);

    let stopped = dir.path().join("stopped");
    for at in [5, 17] {
        let result: Result<Summary> =
            observed(&config, &stopped, None, &StopAt(at, AtomicU64::new(0))).map(|(summary, _)| summary);
        assert!(matches!(result, Err(Error::Stopped)));
        assert!(!stopped.join("summary.json").exists());
    }
    run(&config, &stopped).unwrap();
    for file in ["questions.parquet", "rejected.jsonl", "summary.json"] {
        assert_eq!(std::fs::read(straight.join(file)).unwrap(), std::fs::read(stopped.join(file)).unwrap(), "{file}");
    }
    // Only requests that were in flight when a run stopped were sent again.
    assert!(server.count() <= 80 + 2 * (4 + 4), "{}", server.count());
    assert!(!super::run(&config, &stopped, None).unwrap().1, "a finished run asks nothing");
}

#[test]
fn a_judge_turns_wrong_into_right_and_its_silence_is_unjudged() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let server = Server::start();
    let questions = ["right", "wrong says-yes", "wrong says-no", "wrong and unsure"];
    let mut config = config(dir.path(), &server.base_url, &questions);
    config.judge = Some(JudgeConfig {
        base_url: vec![server.base_url.clone()],
        model: "j".into(),
        timeout_s: 60.0,
        max_retries: 1,
        ..JudgeConfig::default()
    });
    let summary = run(&config, &out).unwrap();
    adds_up(&config, &out, &summary);
    assert_eq!((summary.kept, summary.unjudged), (2, 1));
    assert_eq!(summary.judge, Some(judge::Summary { model: "j".into(), used: 3, hits: 1, unjudged: 1 }));
    assert_eq!(summary.rejected, BTreeMap::from([("wrong_answer".to_owned(), 1)]));
    assert_eq!(lines(&out.join("unjudged.jsonl"))[0]["id"], "q3");

    // Another run requests only the missing verdict.
    let before = server.count();
    assert_eq!(run(&config, &out).unwrap(), summary);
    assert_eq!(server.count(), before + 1);
}

#[test]
fn a_broken_source_row_ends_the_run_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let server = Server::start();
    let config = config(dir.path(), &server.base_url, &["right"]);
    let path = dir.path().join("questions.jsonl");
    let row = json!({"problem": "right", "answer": "5", "images": [{"bytes": "bm90IGEgcGljdHVyZQ=="}]});
    std::fs::write(&path, row.to_string()).unwrap();
    let error = run(&config, &out).unwrap_err();
    assert!(error.to_string().contains("questions.jsonl row 1"), "{error}");
    assert_eq!(error.exit_code(), 2);
    assert!(!out.join("questions.parquet").exists() && !out.join("summary.json").exists());
}

/// Returns questions whose answers are of all kinds. No answer depends on the time of its request.
fn all_kinds() -> Vec<String> {
    let words = ["right", "bare", "unanswered", "repaired", "long", "wrong says-yes", "wrong says-no", "refused"];
    (0..45).map(|i| format!("{} {i}", words[i % words.len()])).collect()
}

fn judged(dir: &Path, server: &Server) -> DistillConfig {
    let questions = all_kinds();
    let mut config = config(dir, &server.base_url, &refs(&questions));
    config.num_rollouts = 2;
    config.judge = Some(JudgeConfig {
        base_url: vec![server.base_url.clone()],
        model: "j".into(),
        timeout_s: 60.0,
        ..JudgeConfig::default()
    });
    config
}

#[test]
fn parts_that_are_joined_are_the_whole_and_ask_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start();
    let config = judged(dir.path(), &server);
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let summary = run(&config, &whole).unwrap();
    adds_up(&config, &whole, &summary);
    let asked = server.count();
    for index in 0..4 {
        super::run(&config, &parts, Some(Shard { index, count: 4 })).unwrap();
    }
    let (of_parts, refused) = (server.count(), 2 * 5);
    assert_eq!(of_parts, 2 * asked);
    assert_eq!(run(&config, &parts).unwrap(), summary);
    assert_eq!(server.count(), of_parts + refused, "what was refused is asked again, and nothing else");
    assert_eq!(super::files(&whole), super::files(&parts));
    let left: Vec<_> = std::fs::read_dir(&parts).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().contains("-of-")), "{left:?}");
}

#[test]
fn a_set_that_is_cut_anew_finds_its_answers() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start();
    let out = dir.path().join("out");
    let one = config(dir.path(), &server.base_url, &["right 1", "wrong 2", "right 3"]);
    run(&one, &out).unwrap();
    let mut other = config(dir.path(), &server.base_url, &["right 3", "right 4", "right 1", "right 4"]);
    other.stage.accept_changed = vec![InputKind::Rows];
    let summary = run(&other, &out).unwrap();
    assert_eq!((summary.kept, summary.requests), (4, 4));
    assert_eq!(server.count(), 4, "only the new question was asked, and once");
}

/// Runs the command and kills it when the server has got `more` requests, or when it has ended.
fn killed(dir: &Path, server: &Server, more: usize) {
    let before = server.count();
    let mut child = Command::new(env!("CARGO_BIN_EXE_omr"))
        .args(["--quiet", "--threads", "1", "data", "distill", "distill.yaml", "--out", "out"])
        .current_dir(dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    until("requests", || server.count() >= before + more || child.try_wait().unwrap().is_some());
    let _ = child.kill();
    child.wait().unwrap();
}

#[test]
fn a_run_that_is_killed_ten_times_keeps_what_one_left_alone_keeps() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start();
    let config = judged(dir.path(), &server);
    let straight = dir.path().join("straight");
    let summary = run(&config, &straight).unwrap();
    let asked = server.count();
    std::fs::write(dir.path().join("distill.yaml"), omr_base::config::to_yaml(&config).unwrap()).unwrap();
    for kill in 0..10 {
        killed(dir.path(), &server, kill);
    }
    let out = dir.path().join("out");
    assert_eq!(run(&config, &out).unwrap(), summary);
    assert_eq!(super::files(&straight), super::files(&out));
    // Requests in flight at a kill: four to the teacher and sixteen to the judge. Refused requests never get an answer.
    assert!(server.count() <= 2 * asked + 10 * (4 + 16 + 2 * 5), "{} for {asked}", server.count());
}

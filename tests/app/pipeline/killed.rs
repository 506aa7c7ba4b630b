//! Tests a pipeline whose teacher and judge fail in every way, and that is killed ten times. It must give the same
//! result as a pipeline that is not killed.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use omr_base_tests::wait::until;
use serde_json::{Value, json};

use super::{Server, files, lines, write_lines};

/// A sequence of stages. Each reads the output of the one before it.
const STAGES: [&str; 5] = ["questions", "answers", "once", "short", "all"];
/// Maximum number of requests in flight to the teacher, and to the judge.
const IN_FLIGHT: usize = 2;

/// Writes questions that are answered in the end, whatever the teacher and the judge do first.
fn questions(dir: &Path) {
    let teacher = ["right", "wrong says-no", "right teacher-broken", "bare", "right teacher-busy", "wrong says-yes"];
    let rare = [
        "right teacher-hang",
        "right teacher-garbage",
        "right teacher-hangup",
        "right teacher-cut",
        "right teacher-choiceless",
        "wrong says-yes judge-hang",
        "wrong says-yes judge-broken",
        "wrong says-no judge-busy",
        "wrong says-yes judge-garbage",
        "wrong says-yes judge-nonsense",
    ];
    let row = |(i, question): (usize, &&str)| json!({"id": i.to_string(), "problem": format!("{question} {i}"), "answer": "5"});
    let all: Vec<Value> = std::iter::repeat_n(teacher, 8)
        .flatten()
        .collect::<Vec<_>>()
        .iter()
        .chain(&rare)
        .enumerate()
        .map(row)
        .collect();
    write_lines(&dir.join("questions.jsonl"), &all);
}

fn write_config(dir: &Path, server: &Server) {
    questions(dir);
    let ends = |model: &str| json!({"base_url": [server.base_url], "model": model, "concurrency": IN_FLIGHT, "timeout_s": 2, "max_retries": 4});
    let config = json!({"stages": [
        {"name": "questions", "format": {"datasets": [{"path": dir.join("questions.jsonl")}]}},
        {"name": "answers", "distill": {"num_rollouts": 2, "teacher": ends("t"), "judge": ends("j")}},
        {"name": "once", "dedup": {}},
        {"name": "short", "filter": {"max_characters": 10_000}},
        {"name": "all", "mix": {"name": "all"}},
    ]});
    std::fs::write(dir.join("data.yaml"), config.to_string()).unwrap();
}

fn start(dir: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omr"));
    let command = command.args(["--quiet", "--threads", "1", "data", "run", "data.yaml", "--out", "out"]);
    command.current_dir(dir).stdout(Stdio::null()).spawn().unwrap()
}

/// Kills a run as soon as `when` is true. Returns false if the run ended before that.
fn killed(dir: &Path, when: impl Fn() -> bool) -> bool {
    let (mut child, mut runs) = (start(dir), true);
    until("the moment of a kill", || {
        runs = child.try_wait().unwrap().is_none();
        !runs || when()
    });
    let _ = child.kill();
    child.wait().unwrap();
    runs
}

/// Runs the pipeline until no requests are left. If the judge gave an invalid reply, the next run sends the request
/// again.
fn finish(dir: &Path, server: &Server) {
    let mut asked = usize::MAX;
    for _ in 0..5 {
        assert!(start(dir).wait().unwrap().success());
        if std::mem::replace(&mut asked, server.count()) == server.count() {
            return;
        }
    }
    panic!("five runs, and still something is asked");
}

fn kill_ten_times(dir: &Path, server: &Server) {
    let mut kills = 0;
    for kill in 0..8 {
        let before = server.count();
        kills += usize::from(killed(dir, || server.count() > before + 3 * kill));
    }
    for stage in ["answers", "once"] {
        kills += usize::from(killed(dir, || dir.join("out").join(stage).join("summary.json").exists()));
    }
    assert!(kills >= 8, "{kills} of ten runs were there to be killed");
}

#[test]
fn a_pipeline_killed_ten_times_beside_servers_that_fail_keeps_what_one_left_alone_keeps() {
    let [straight, stopped] = [(); 2].map(|()| (tempfile::tempdir().unwrap(), Server::start()));
    for (dir, server) in [&straight, &stopped] {
        write_config(dir.path(), server);
    }
    // Both pipelines run at the same time, because they mostly wait for their servers.
    std::thread::scope(|scope| {
        scope.spawn(|| finish(straight.0.path(), &straight.1));
        kill_ten_times(stopped.0.path(), &stopped.1);
        finish(stopped.0.path(), &stopped.1);
    });
    let (dir, server) = (stopped.0.path(), &stopped.1);

    let folder = |dir: &Path, stage: &str| dir.join("out").join(stage);
    for stage in STAGES {
        let [one, other] = [straight.0.path(), dir].map(|dir| files(&folder(dir, stage)));
        assert!(one.iter().any(|(name, _)| name == "summary.json"), "{stage}");
        assert_eq!(one, other, "{stage}");
        let summary: Value =
            serde_json::from_slice(&std::fs::read(folder(dir, stage).join("summary.json")).unwrap()).unwrap();
        let rejected: u64 = summary["rejected"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
        let outcomes = if stage == "answers" { 2 } else { 1 };
        assert_eq!(
            summary["in"].as_u64().unwrap() * outcomes,
            summary["kept"].as_u64().unwrap() + rejected,
            "{summary}"
        );
        assert_eq!(lines(&folder(dir, stage).join("rejected.jsonl")).len() as u64, rejected);
        assert!(summary["kept"].as_u64().unwrap() > 0, "{summary}");
    }
    // Stored answers are not requested again. The additional requests are those that failed or were in flight at a
    // kill.
    let stored = |dir: &Path| omr_base_tests::answers::count(&folder(dir, "answers").join("answers.sqlite"));
    assert_eq!(stored(straight.0.path()), stored(dir));
    assert!(server.count() <= straight.1.count() + 10 * 2 * IN_FLIGHT, "{} and {}", server.count(), straight.1.count());
}

//! Tests a disk that becomes full: a clear error, and nothing half-written. The tests need permission to mount a tmpfs
//! and print a message if it is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use omr_base::answers;
use omr_base::config::{DistillConfig, EndpointConfig, StageConfig};
use omr_base::error::Error;
use omr_base::files;
use omr_data::rows::read::{self, entry};
use omr_data::rows::{Form, write};
use serde_json::json;

use crate::pipeline::{Server, run};

/// A folder of 64 KiB.
struct Small {
    at: PathBuf,
    _dir: tempfile::TempDir,
}

impl Small {
    fn mount() -> Option<Small> {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("small");
        std::fs::create_dir(&at).unwrap();
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&at).output();
        if done.is_ok_and(|o| o.status.success()) {
            return Some(Small { at, _dir: dir });
        }
        println!("skipped: a tmpfs cannot be mounted here");
        None
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.at).status();
    }
}

fn names(at: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(at).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn is_full(error: &Error, file: &str) {
    let message = error.to_string();
    assert!(message.contains(file) && message.to_lowercase().contains("no space"), "{message}");
    assert_eq!(error.exit_code(), 1);
}

#[test]
fn files_and_folders_stay_as_they_were() {
    let Some(small) = Small::mount() else { return };
    let path = small.at.join("summary.json");
    files::write(&path, b"old").unwrap();
    is_full(&files::write(&path, &vec![7; 100_000]).unwrap_err(), "summary.json");
    assert_eq!(std::fs::read(&path).unwrap(), b"old");

    let folder = small.at.join("model");
    let full = files::folder(&folder, |tmp| files::write(tmp.join("weights"), &vec![7; 100_000]));
    is_full(&full.unwrap_err(), "weights");

    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("rows.jsonl");
    let lines: Vec<String> = (0..3000u32).map(|i| json!({"problem": noise(i), "answer": i}).to_string()).collect();
    std::fs::write(&source, lines.join("\n")).unwrap();
    let rows = read::read(&entry(&source)).unwrap();
    is_full(&write(&small.at.join("rows.parquet"), &rows, Form::Rl).unwrap_err(), "rows.parquet");
    assert_eq!(names(&small.at), ["summary.json"]);
}

/// Returns text that cannot be compressed.
fn noise(i: u32) -> String {
    (0..4).map(|k| blake3::hash(&[i.to_le_bytes(), [k; 4]].concat()).to_hex().to_string()).collect()
}

#[test]
fn distillation_stops_and_goes_on_elsewhere() {
    let Some(small) = Small::mount() else { return };
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("questions.jsonl");
    let lines: Vec<String> =
        (0..600).map(|i| json!({"problem": format!("right {i}"), "answer": 5}).to_string()).collect();
    std::fs::write(&source, lines.join("\n")).unwrap();
    let teacher =
        EndpointConfig { base_url: vec![server.base_url.clone()], model: "t".into(), ..EndpointConfig::default() };
    let mut config = DistillConfig {
        stage: StageConfig { datasets: vec![entry(&source)], ..StageConfig::default() },
        teacher: Some(teacher),
        ..DistillConfig::default()
    };
    let error = run(&config, &small.at, None).unwrap_err();
    assert!(error.to_string().contains("answers.sqlite: database or disk is full"), "{error}");
    assert_eq!(error.exit_code(), 1);
    assert!(names(&small.at).iter().all(|name| name.starts_with("answers.sqlite")), "{:?}", names(&small.at));

    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    for name in names(&small.at) {
        std::fs::copy(small.at.join(&name), out.join(&name)).unwrap();
    }
    let kept = omr_base_tests::answers::count(&out.join(answers::FILE));
    // Another server, because requests of the run that ended may still be in the sockets of the first one.
    let server = Server::start();
    config.teacher.as_mut().unwrap().base_url = vec![server.base_url.clone()];
    let (summary, _) = run(&config, &out, None).unwrap();
    assert_eq!(summary.kept, 600);
    assert!(kept > 0);
    assert_eq!(server.count() as u64, 600 - kept, "what was answered is not asked again");
}

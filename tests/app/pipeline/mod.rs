//! Tests of the data pipeline: every stage, shards, and lists of stages.

pub mod commands;
pub mod dedup;
pub mod distill;
pub mod killed;
pub mod nll;
pub mod passrate;
pub mod published;
pub mod server;
pub mod stages;
pub mod tower;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use omr_app::pipeline::{self, Shard, Stage, Summary};
use omr_base::config::{DatasetConfig, StageConfig};
use omr_base::error::{Error, Result};
use omr_base::observe::{Observer, Silent};
use omr_data::rows::Row;
use omr_data::rows::read::{self, entry};
use omr_runtime::device::{Device, Isa, Target};
use omr_runtime::machine::Machine;
use serde_json::Value;

pub use server::Server;

/// Returns the async runtime of these tests.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap())
}

/// Runs a stage, or a part of it, on the CPU. Returns its summary, and true if there was work to do.
pub fn run<C: Stage>(config: &C, dir: &Path, shard: Option<Shard>) -> Result<(Summary, bool)> {
    observed(config, dir, shard, &Silent)
}

/// Runs a stage like [`run`], with an observer.
pub fn observed<C: Stage>(
    config: &C,
    dir: &Path,
    shard: Option<Shard>,
    observer: &dyn Observer,
) -> Result<(Summary, bool)> {
    pipeline::run(
        config,
        dir,
        shard,
        &Machine {
            target: Target::cpu(2),
            threads: 2,
            place: String::new(),
            device: &|plan| Device::cpu(plan, 2, Isa::detect()),
            runtime: &|| Ok(runtime().handle().clone()),
            observer,
        },
    )
}

/// Observer that requests a stop after it was polled the given number of times.
pub struct Impatient(u64, AtomicU64);

impl Impatient {
    pub fn after(looks: u64) -> Impatient {
        Impatient(looks, AtomicU64::new(0))
    }
}

impl Observer for Impatient {
    fn begin(&self, _: &str, _: &str, _: u64, _: u64) {}
    fn step(&self, _: u64, _: &[(&str, f64)]) {}
    fn end(&self) {}
    fn note(&self, _: &str) {}
    fn stop_requested(&self) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed) >= self.0
    }
}

/// Returns a stage config that reads these files.
pub fn reads(paths: &[PathBuf]) -> StageConfig {
    StageConfig { datasets: paths.iter().map(entry).collect::<Vec<DatasetConfig>>(), ..StageConfig::default() }
}

/// Returns a file's lines of JSON.
pub fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Writes rows as JSON lines.
pub fn write_lines(path: &Path, rows: &[Value]) {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

/// Returns the rows of a file.
pub fn rows(path: &Path) -> Vec<Row> {
    read::read(&entry(path)).unwrap()
}

/// Returns the result files of a finished stage by name, without the record of its inputs.
pub fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| ["parquet", "jsonl", "json", "html"].iter().any(|e| path.extension().is_some_and(|x| x == *e)))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .filter(|(name, _)| !["inputs.json", "starts.jsonl"].contains(&&name[..]))
        .collect();
    files.sort();
    files
}

/// Runs a stage in `count` parts, the last part first, and joins them.
pub fn in_parts<C: Stage>(config: &C, dir: &Path, count: usize) -> Summary {
    for index in (0..count).rev() {
        assert!(run(config, dir, Some(Shard { index, count })).unwrap().1);
    }
    let (summary, fresh) = run(config, dir, None).unwrap();
    assert!(fresh);
    summary
}

/// Returns the message of an error that the user can correct.
pub fn refused<T>(result: Result<T>) -> String {
    let error: Error = result.err().unwrap();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

//! The record of the cases: a JSON file that is complete at any time, and a page beside it.

use std::path::PathBuf;
use std::time::Duration;

use minijinja::context;
use serde_json::{Value, json};

use omr_base::error::Result;
use omr_base::files;
use omr_base::frame::{self, Scripts};
use omr_runtime::device::Kind;
use omr_runtime::device::driver::Properties;
use omr_runtime::device::images::OWN;
use omr_runtime::machine;

/// Returns the outcome of a case: its figures, and the rows of a benchmark or answers.
pub fn passed(result: String, rows: Vec<Value>) -> Value {
    json!({"verdict": "passed", "result": result, "rows": rows})
}

pub fn failed(reason: String) -> Value {
    json!({"verdict": "failed", "result": reason})
}

pub fn not_run(reason: &str) -> Value {
    json!({"verdict": "not run", "result": reason})
}

/// The record, and the file to which it is written.
pub struct Record {
    file: PathBuf,
    value: Value,
}

impl Record {
    /// Makes a record in which no case has run, and writes it to the file `file` and the page beside it.
    pub fn new(file: PathBuf, kind: Kind, gpu: Option<Properties>, names: &[&str]) -> Result<Record> {
        let reason = "the command was stopped before this case";
        let cases =
            names.iter().map(|name| json!({"name": name, "verdict": "not run", "result": reason, "seconds": 0.0}));
        let images = if OWN.cubins.is_empty() { "PTX" } else { "PTX and machine code" };
        let gpu = gpu.map(|gpu| {
            let (major, minor) = gpu.compute_capability;
            json!({"name": gpu.name, "driver": gpu.driver, "compute_capability": format!("{major}.{minor}"),
                "memory": gpu.memory, "multiprocessors": gpu.multiprocessors,
                "shared_memory_per_block": gpu.shared_memory_per_block})
        });
        let commit = std::env::current_exe().ok().and_then(|program| machine::commit(program.parent()?));
        let value = json!({"version": env!("CARGO_PKG_VERSION"), "commit": commit, "kernel_images": images,
            "device": kind.name(), "gpu": gpu, "is_complete": false, "cases": cases.collect::<Vec<_>>()});
        let record = Record { file, value };
        record.write().map(|()| record)
    }

    /// Stores the outcome of case `i`, without paths, and writes the files. Returns its verdict and its result.
    pub fn put(&mut self, i: usize, outcome: Value, time: Duration) -> Result<String> {
        let is_path = |word: &str| word.trim_start_matches(['(', '[', '"', '\'', '`', '.', '~']).starts_with('/');
        let shown = |word| if is_path(word) { "PATH" } else { word };
        let result = outcome["result"].as_str().unwrap_or_default().split(' ').map(shown).collect::<Vec<_>>().join(" ");
        let line = format!("{}: {result}", outcome["verdict"].as_str().unwrap_or_default());
        let name = self.value["cases"][i]["name"].take();
        self.value["cases"][i] = outcome;
        self.value["cases"][i]["name"] = name;
        self.value["cases"][i]["result"] = result.into();
        self.value["cases"][i]["seconds"] = time.as_secs_f64().into();
        self.write().map(|()| line)
    }

    /// Marks the record as complete, and returns it as text.
    pub fn complete(mut self) -> Result<String> {
        self.value["is_complete"] = true.into();
        self.write()?;
        let line = |case: &Value| {
            let [name, verdict, result] =
                ["name", "verdict", "result"].map(|key| case[key].as_str().unwrap_or_default());
            format!("{name:20} {verdict:8} {result}\n")
        };
        let lines: String = self.value["cases"].as_array().into_iter().flatten().map(line).collect();
        Ok(format!("{lines}written: {}, and a page beside it\n", self.file.display()))
    }

    fn write(&self) -> Result<()> {
        files::write(&self.file, format!("{:#}\n", self.value).as_bytes())?;
        let templates = frame::templates(&[("first_gpu.html", include_str!("page.html"))])?;
        let title = format!("omr on {}", self.value["gpu"]["name"].as_str().unwrap_or("a machine without a GPU"));
        let context = context! { title, record => self.value };
        let page = frame::render(&templates, "first_gpu.html", Scripts::default(), context)?;
        files::write(self.file.with_extension("html"), page.as_bytes())
    }
}

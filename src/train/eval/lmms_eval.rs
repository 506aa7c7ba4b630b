//! Writes a finished evaluation in lmms-eval's file format, for `--format lmms-eval`: a jsonl file of samples per task,
//! and one file of results.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::samples::{self, Sample};
use omr_base::error::{Error, Result};
use omr_base::files;

/// Folder in the run directory, and prefix of the file names. lmms-eval uses the date as the prefix.
const FOLDER: &str = "lmms-eval";
const PREFIX: &str = "omr";

/// Writes the files of the finished evaluation in `dir` and returns their folder.
pub fn write(dir: &Path) -> Result<PathBuf> {
    let summary: Value = files::json::read(&dir.join("summary.json"))?;
    let mut by_task: HashMap<String, Vec<Sample>> = HashMap::new();
    for sample in samples::read(&dir.join("samples.jsonl"))? {
        by_task.entry(sample.task.clone()).or_default().push(sample);
    }
    let folder = dir.join(FOLDER);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    let (mut results, mut counts, mut hashes) = (Map::new(), Map::new(), Map::new());
    for (task, measured) in summary["tasks"].as_object().into_iter().flatten() {
        let samples = by_task.remove(task).unwrap_or_default();
        let lines: Vec<Value> = samples.iter().map(line).collect();
        let all: String = lines.iter().map(|line| format!("{line}\n")).collect();
        files::write(folder.join(format!("{PREFIX}_samples_{task}.jsonl")), all.as_bytes())?;
        results.insert(task.clone(), result(task, measured));
        counts.insert(task.clone(), json!({"original": samples.len(), "effective": samples.len()}));
        let numbered =
            lines.iter().enumerate().map(|(i, line)| format!("sample_{i}{}", line["doc_hash"].as_str().unwrap_or("")));
        hashes.insert(task.clone(), hash(&numbered.collect::<String>()).into());
    }
    let each = |value: &dyn Fn(&String) -> Value| -> Map<String, Value> {
        results.keys().map(|task| (task.clone(), value(task))).collect()
    };
    let model = summary["model"].as_str().unwrap_or("recorded").to_owned();
    let config = json!({
        "model": "omr",
        "model_args": format!("model={model}"),
        "mode": summary["mode"],
        "judge": summary["judge"],
    });
    let text = json!({
        "configs": each(&|task| json!({"task": task})),
        "versions": each(&|_| json!(env!("CARGO_PKG_VERSION"))),
        "n-shot": each(&|_| json!(0)),
        "n-samples": counts,
        "config": config,
        "task_hashes": hashes,
        "model_source": "omr",
        "model_name": model,
        "total_evaluation_time_seconds": summary["seconds"].to_string(),
        "results": results,
    });
    files::write(folder.join(format!("{PREFIX}_results.json")), format!("{text:#}\n").as_bytes())?;
    Ok(folder)
}

/// Formats a question as a line of `--log_samples`.
fn line(sample: &Sample) -> Value {
    let responses: Vec<&str> = sample.answers().map(|answer| answer.response.as_str()).collect();
    let doc = json!({"id": sample.id, "question": sample.question, "target": sample.target});
    let mut line = Map::new();
    line.insert("doc_id".to_owned(), sample.index.into());
    line.insert("target".to_owned(), sample.target.clone().into());
    line.insert("filtered_resps".to_owned(), json!(responses));
    line.insert("doc_hash".to_owned(), hash(&doc.to_string()).into());
    line.insert("prompt_hash".to_owned(), hash(&sample.question).into());
    line.insert("target_hash".to_owned(), hash(&sample.target).into());
    line.extend(sample.metrics.clone());
    line.insert("input".to_owned(), sample.question.clone().into());
    line.into()
}

/// Returns a task's metrics under lmms-eval's names, with the filter `none`. Standard errors are derived from the
/// intervals.
fn result(task: &str, measured: &Value) -> Value {
    let mut result = Map::from_iter([("alias".to_owned(), json!(task))]);
    for (name, value) in measured["metrics"].as_object().into_iter().flatten() {
        let ends = measured["ci95"][name].as_array().map(|ends| [&ends[0], &ends[1]].map(Value::as_f64));
        let error = match ends {
            Some([Some(lo), Some(hi)]) => json!((hi - lo) / (2.0 * super::stats::Z95)),
            _ => json!("N/A"),
        };
        result.insert(format!("{name},none"), value.clone());
        result.insert(format!("{name}_stderr,none"), error);
    }
    result.into()
}

fn hash(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

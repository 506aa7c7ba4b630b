//! The model card of a run: what was trained on what, with which result.

use std::path::{Path, PathBuf};

use minijinja::context;
use serde::Serialize;
use serde_json::Value;

use super::read::summary;
use super::run::{self, config_of};
use omr_base::config::{RecipeConfig, RlConfig, SftConfig};
use omr_base::error::Result;
use omr_base::files;
use omr_base::frame::{self, Scripts};
use omr_base::hub::local;
use omr_train::training::metrics::{self, Metrics};

/// Facts of a run that the model card does not contain: places on the machine, and what it shows elsewhere.
const LEFT_OUT: [&str; 6] = ["Host", "Directory", "Model", "Data", "Memory", "Last step"];
/// Maximum number of runs between a model and the one it starts from.
const MOST_RUNS: usize = 8;

/// A measured accuracy.
#[derive(Serialize)]
struct Score {
    dataset: String,
    metric: String,
    value: f64,
    ci95: Option<Value>,
    n: Option<u64>,
}

/// Writes the model card of the repository `id`, whose model the training run in `dir` made. Without a run, it only
/// contains what is known of every model.
pub fn write(dir: Option<&Path>, id: &str) -> Result<String> {
    let steps = dir.map(|dir| metrics::read(&dir.join("metrics.jsonl"))).transpose()?.unwrap_or_default();
    let (rl, sft) = (dir.and_then(config_of::<RlConfig>), dir.and_then(config_of::<SftConfig>));
    let (method, rows) = match (&rl, &sft) {
        (Some(rl), _) => (rl.loss_mode.name().to_uppercase(), &rl.train_files[..]),
        (None, Some(sft)) => ("SFT".to_owned(), &sft.datasets[..]),
        (None, None) => (String::new(), &[][..]),
    };
    let rows: Vec<String> = rows.iter().map(|rows| known(&rows.path)).collect();
    let start = dir.and_then(start);
    let mut facts = match dir {
        Some(dir) => run::facts(dir, &summary(dir)?, &steps),
        None => Vec::new(),
    };
    facts.retain(|(name, _)| !LEFT_OUT.contains(&name.as_str()) && !name.starts_with("Validation"));
    let tags: Vec<String> = ["omr".to_owned(), method.to_lowercase()].into_iter().filter(|t| !t.is_empty()).collect();
    let templates = frame::templates(&[("model_card.md", include_str!("model_card.md"))])?;
    let scores = dir.map_or(Ok(Vec::new()), |dir| scores(dir, &steps))?;
    let license = start.as_deref().map(license).unwrap_or_default();
    let base = start.as_deref().and_then(local::origin);
    let model = dir.map(|dir| dir.join("model"));
    // An adapter has no config.json of its own.
    let config = model.iter().chain(&start).map(|model| model.join("config.json")).find(|file| file.exists());
    let config: Option<Value> = config.map(|file| files::json::read(&file)).transpose()?;
    let architecture = config.as_ref().and_then(|config| config["architectures"][0].as_str());
    let task = config.as_ref().map(|config| match config.get("vision_config") {
        Some(_) => "image-text-to-text",
        None => "text-generation",
    });
    let is_adapter = model.is_some_and(|model| model.join("adapter_config.json").exists());
    let library = if is_adapter { "peft" } else { "transformers" };
    let (name, version) = (id.rsplit('/').next(), env!("CARGO_PKG_VERSION"));
    let context =
        context! { name, architecture, task, library, base, license, tags, method, rows, facts, scores, version };
    Ok(frame::render(&templates, "model_card.md", Scripts::default(), context)? + "\n")
}

/// Returns the training run that made the model in `folder`.
pub fn run_of(folder: &Path) -> Option<&Path> {
    folder.parent().filter(|dir| folder.ends_with("model") && run::is_training(dir))
}

/// Returns the model that the run in `dir`, and the runs before it, started from.
fn start(dir: &Path) -> Option<PathBuf> {
    let of_sft = |dir: &Path| config_of::<SftConfig>(dir)?.model;
    let model = |dir: &Path| config_of::<RlConfig>(dir).map_or_else(|| of_sft(dir), |config| config.model);
    let mut found = model(dir)?;
    for _ in 0..MOST_RUNS {
        match run_of(&found).and_then(model) {
            Some(before) => found = before,
            None => break,
        }
    }
    Some(found)
}

/// Returns the repository of rows, or otherwise the name of their file, because paths of this machine help no reader.
fn known(path: &Path) -> String {
    local::origin(path).unwrap_or_else(|| path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// Returns the lines about the licence in the model card of a downloaded model.
fn license(model: &Path) -> Vec<String> {
    let text = files::read_to_string(model.join("README.md")).unwrap_or_default();
    let front = text.strip_prefix("---\n").and_then(|text| text.split_once("\n---")).unwrap_or_default().0;
    front.lines().filter(|line| line.starts_with("license")).map(str::to_owned).collect()
}

/// Returns what a recipe measured of this run, otherwise the last validation of the run itself.
fn scores(dir: &Path, steps: &[Metrics]) -> Result<Vec<Score>> {
    let full = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    if let (Some(recipe), Some(stage)) = (full.parent(), full.file_name())
        && let Some(config) = config_of::<RecipeConfig>(recipe)
        && let Some(found) = summary(recipe)?.get("stages").and_then(|stages| stages.get(&*stage.to_string_lossy()))
    {
        let kinds = [("greedy", "acc", "acc_ci95"), ("temperature 1", "acc_t1", "ci95")];
        let score = |(metric, value, ci95): (&str, &str, &str)| {
            let (ci95, n) = (found.get(ci95).cloned(), found["n"].as_u64());
            let dataset = config.task.name.clone();
            Some(Score { dataset, metric: metric.to_owned(), value: found[value].as_f64()?, ci95, n })
        };
        return Ok(kinds.into_iter().filter_map(score).collect());
    }
    let last = |name: &String| steps.iter().rev().find_map(|step| step.get(name)?.as_f64());
    let score = |name: &String| {
        let (dataset, metric) = name.trim_start_matches("val-core/").split_once('/')?;
        let (dataset, metric) = (dataset.to_owned(), metric.to_owned());
        Some(Score { dataset, metric, value: last(name)?, ci95: None, n: None })
    };
    Ok(run::measured_beside(steps).into_iter().filter_map(score).collect())
}

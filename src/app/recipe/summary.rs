//! Writes the `summary.json` of a recipe.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::job::{COLUMNS, MEASURED, Recipe};
use crate::report;
use omr_base::error::{Error, Result};
use omr_base::files;
use omr_train::eval::samples::{self, Sample};
use omr_train::eval::{stats, summary};
use omr_train::training::metrics;

impl Recipe<'_> {
    /// Writes `summary.json` with the results of all stages. `elapsed` is the time in seconds since this process began
    /// to run the stages.
    pub(super) fn summarise(&self, elapsed: f64) -> Result<()> {
        let (mut stages, mut tasks) = (Map::new(), Map::new());
        let mut eval = 0.0;
        for stage in MEASURED {
            let path = self.path("eval").join(stage).join("samples.jsonl");
            if path.exists() {
                stages.insert(stage.to_owned(), stage_summary(&samples::read(&path)?));
                eval += number(&path.with_file_name("summary.json"), "seconds")?;
            }
            let path = path.with_file_name(COLUMNS).join("summary.json");
            if path.exists() {
                tasks.insert(stage.to_owned(), files::json::read::<Value>(&path)?["tasks"].take());
                eval += number(&path, "seconds")?;
            }
        }
        let data = number(&self.path("data").join("summary.json"), "seconds")?;
        let [sft, control, rl] = ["sft", "control", "rl"].map(|stage| self.step_seconds(stage));
        let (sft, control, rl) = (sft?, control?, rl?);
        let judges: Map<String, Value> =
            report::judges(&self.dir).into_iter().map(|(stage, judge)| (stage, json!(judge))).collect();
        let mut summary = json!({
            "seed": self.config.seed,
            "judge": Some(judges).filter(|judges| !judges.is_empty()),
            "device": self.machine.target.kind.name(),
            "stages": stages,
            // Times of completed steps. They contain neither steps that were lost when the process was killed, nor the
            // time between two starts.
            "seconds": {
                "data": data, "sft": sft, "control": control, "rl": rl,
                "eval": eval, "total": elapsed.max(data + sft + control + rl + eval),
            },
            "tokens_per_sec": {
                "sft": number(&self.path("sft").join("summary.json"), "tokens_per_sec")?,
                "rollout": number(&self.path("rl").join("summary.json"), "rollout_tokens_per_sec")?,
            },
        });
        if !tasks.is_empty() {
            summary["tasks"] = tasks.into();
        }
        files::write(self.path("summary.json"), format!("{summary:#}\n").as_bytes())
    }

    fn step_seconds(&self, stage: &str) -> Result<f64> {
        Ok(metrics::sum(&metrics::read(&self.path(stage).join("metrics.jsonl"))?, "timing_s/step"))
    }
}

/// Returns the object S of `docs/dev/files.md` for one stage.
fn stage_summary(samples: &[Sample]) -> Value {
    let greedy = samples::observations(samples, Sample::acc).map(|scores| stats::clustered(&scores));
    let sampled = samples::observations(samples, Sample::acc_t1).map(|scores| stats::clustered(&scores));
    json!({
        "acc": greedy.map(|e| e.mean),
        "acc_t1": sampled.map(|e| e.mean),
        "ci95": sampled.map(|e| e.ci95),
        "acc_ci95": greedy.map(|e| e.ci95),
        "format": summary::format_share(samples),
        "n": samples.len(),
    })
}

fn number(path: &Path, key: &str) -> Result<f64> {
    files::json::read::<Value>(path)?[key].as_f64().ok_or_else(|| Error::format(path, format!("no number at `{key}`")))
}

//! Config keys of the validation during training, shared by SFT and RL and named after verl's.

use std::path::PathBuf;

use super::table::join;
use super::{DatasetConfig, Place, Rule, Safe};
use crate::error::Result;

settings! {
    /// Sampling settings of the validation during training.
    pub struct ValKwargs {
        /// Number of answers per question.
        n: usize = 1, rule: Rule::SEQUENCES, safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.val_kwargs.n; TRL num_generations_eval";
        /// Sampling temperature: logits are divided by this value. 0 = greedy decoding.
        temperature: f64 = 0.0, rule: Rule::AtLeast(0.0), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.val_kwargs.temperature";
        /// Sample only from the smallest set of most likely tokens whose probabilities sum to this value. 1 = all
        /// tokens.
        top_p: f64 = 1.0, rule: Rule::Within(0.0, 1.0), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.val_kwargs.top_p";
        /// Sample only from this number of most likely tokens. -1 = all tokens.
        top_k: i64 = -1, rule: Rule::AtLeast(-1.0), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.val_kwargs.top_k";
        /// Maximum number of tokens per answer. null = max_response_length, or in SFT twice the longest answer of the
        /// training rows.
        max_new_tokens: Option<usize> = None, rule: Rule::TOKENS, safe: Safe::Yes,
            name: "lmms-eval --gen_kwargs max_new_tokens=";
    }
}

settings! {
    /// Validation during training, and what is done with its results.
    pub struct ValidationConfig {
        /// Your own rows for the validation. In SFT, rows with an answer give val/loss, the mean loss of the answers'
        /// tokens. The model answers the other rows, and in RL all rows, and the run's reward scores the answers.
        val_files: Vec<DatasetConfig> = Vec::new(), safe: Safe::Yes, name: "verl data.val_files; LLaMA-Factory eval_dataset";
        /// Part of the training rows that is split off for the validation and not trained on: a share below 1, or a
        /// number of rows. A hash of a row's images, or of its question, selects the rows, so that all rows about one
        /// image are on the same side. null = none.
        val_size: Option<f64> = None, rule: Rule::Above(0.0), name: "LLaMA-Factory val_size";
        /// Tasks for the validation, with the names of `omr eval --list`.
        val_tasks: Vec<String> = Vec::new(), safe: Safe::Yes, name: "lmms-eval --tasks";
        /// Folder with the files of the tasks, as for `omr eval --data`.
        val_data_dir: Option<PathBuf> = None, safe: Safe::Yes;
        /// Use only the first N rows of each file and task. null = all rows.
        val_max_samples: Option<usize> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes, name: "verl data.val_max_samples";
        /// Also validate before the first step, as step 0.
        val_before_train: bool = true, safe: Safe::Yes;
        /// Sampling settings of the validation.
        val_kwargs: ValKwargs = ValKwargs::default(), safe: Safe::Yes, name: "verl actor_rollout_ref.rollout.val_kwargs";
        /// In SFT, the model also answers the rows that give val/loss, and the rules score the answers.
        predict_with_generate: bool = false, safe: Safe::Yes;
        /// Metric that selects the best checkpoint, such as val/loss or val-core/digits/acc/mean@1. The checkpoint of
        /// the step with the best value is saved, named in the file `best`, and kept in addition to the
        /// save_total_limit newest ones. null = no best checkpoint; with early_stopping_patience or
        /// load_best_model_at_end, val/loss if it is measured, otherwise the only val-core metric.
        metric_for_best_model: Option<String> = None, rule: Rule::NotEmpty, safe: Safe::Yes, name: "Hugging Face metric_for_best_model";
        /// Direction of metric_for_best_model: true if larger values are better. null = false for a metric that ends
        /// with loss, true for others.
        greater_is_better: Option<bool> = None, safe: Safe::Yes, name: "Hugging Face greater_is_better";
        /// End the run after this number of successive validations whose metric_for_best_model is not better than the
        /// best value before them. null = never.
        early_stopping_patience: Option<u64> = None, rule: Rule::STEPS, safe: Safe::Yes;
        /// Difference from the best value below which early_stopping_patience does not count a value as better.
        early_stopping_threshold: f64 = 0.0, rule: Rule::AtLeast(0.0), safe: Safe::Yes, name: "Hugging Face early_stopping_threshold";
        /// At the end, write the best checkpoint's model to model/ instead of the last step's. metric_for_best_model
        /// selects it.
        load_best_model_at_end: bool = false, name: "Hugging Face load_best_model_at_end";
    }
}

impl ValidationConfig {
    /// True if the config contains rows or tasks for the validation.
    pub fn is_wanted(&self) -> bool {
        !self.val_files.is_empty() || !self.val_tasks.is_empty() || self.val_size.is_some()
    }

    /// True if a key needs the best checkpoint.
    pub fn needs_best(&self) -> bool {
        self.early_stopping_patience.is_some() || self.load_best_model_at_end
    }

    /// Returns an error if keys contradict each other. `key` is the name of the key that sets the interval `steps` of
    /// the validation.
    pub(super) fn check(&self, place: &Place, path: &str, key: &str, steps: Option<u64>) -> Result<()> {
        let check = |is_right, key: &str, found: &dyn ToString, expected: &str| {
            place.check(is_right, &join(path, key), found.to_string(), expected)
        };
        let kwargs = &self.val_kwargs;
        let expected = "val_files, val_size or val_tasks with the rows to validate on";
        check(steps.is_none() || self.is_wanted(), key, &steps.unwrap_or_default(), expected)?;
        let best = [
            ("metric_for_best_model", self.metric_for_best_model.clone()),
            ("early_stopping_patience", self.early_stopping_patience.map(|patience| patience.to_string())),
            ("load_best_model_at_end", self.load_best_model_at_end.then(|| "true".to_owned())),
        ];
        if let Some((name, found)) = best.iter().find_map(|(name, value)| Some((name, value.as_ref()?))) {
            let expected = format!("{key}, the interval in steps at which the metric is measured");
            check(steps.is_some(), name, found, &expected)?;
        }
        let (threshold, ends_early) = (self.early_stopping_threshold, self.early_stopping_patience.is_some());
        let expected = "early_stopping_patience, without which no run ends early";
        check(threshold <= 0.0 || ends_early, "early_stopping_threshold", &threshold, expected)?;
        if let Some(greater) = self.greater_is_better {
            let expected = "metric_for_best_model, the metric whose values are compared";
            check(best.iter().any(|(_, value)| value.is_some()), "greater_is_better", &greater, expected)?;
        }
        for (i, entry) in self.val_files.iter().enumerate() {
            let key = format!("val_files[{i}].weight");
            check(entry.weight == 1.0, &key, &entry.weight, "1: each row is measured once")?;
        }
        let size = self.val_size.unwrap_or_default();
        let is_share = size <= 1.0 || size.fract() == 0.0;
        check(is_share, "val_size", &size, "a share below 1, or a whole number of rows")?;
        let expected = "1, or val_kwargs.temperature above 0: greedy answers are all equal";
        check(kwargs.n <= 1 || kwargs.temperature != 0.0, "val_kwargs.n", &kwargs.n, expected)?;
        place.check_sampling(&join(path, "val_kwargs"), kwargs.top_k, kwargs.top_p)
    }
}

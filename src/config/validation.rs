//! Config keys of the validation during training, shared by SFT and RL and named after verl's.

use std::path::PathBuf;

use super::table::join;
use super::{DatasetConfig, MOST_SEQUENCES, Place, Rule, Safe};
use crate::error::{Error, Result};

settings! {
    /// Sampling settings of the validation during training.
    pub struct ValKwargs {
        /// Number of answers per question.
        n: usize = 1, rule: Rule::Within(1.0, MOST_SEQUENCES), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.val_kwargs.n";
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
        /// Maximum number of tokens per answer. null = max_response_length, or packing_length in SFT.
        max_new_tokens: Option<usize> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "lmms-eval --gen_kwargs max_new_tokens=";
    }
}

settings! {
    /// Validation during training, and what is done with its results. It does not affect the weights.
    pub struct ValidationConfig {
        /// Your own rows for the validation, in RL format. The run's reward scores the answers.
        val_files: Vec<DatasetConfig> = Vec::new(), safe: Safe::Yes;
        /// Tasks for the validation, with the names of `omr eval --list`.
        val_tasks: Vec<String> = Vec::new(), safe: Safe::Yes;
        /// Folder with the files of the tasks, as for `omr eval --data`.
        val_data_dir: Option<PathBuf> = None, safe: Safe::Yes;
        /// Use only the first N rows of each file and task. null = all rows.
        val_max_samples: Option<usize> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes;
        /// Also validate before the first step, as step 0.
        val_before_train: bool = true, safe: Safe::Yes;
        /// Sampling settings of the validation.
        val_kwargs: ValKwargs = ValKwargs::default(), safe: Safe::Yes;
        /// Metric that selects the best checkpoint, such as val-core/digits/acc/mean@1. The checkpoint of the step with
        /// the highest value is saved, named in the file `best`, and kept in addition to the save_total_limit newest
        /// ones. null = no best checkpoint.
        metric_for_best_model: Option<String> = None, rule: Rule::NotEmpty, safe: Safe::Yes;
    }
}

impl ValidationConfig {
    /// True if the config contains rows or tasks for the validation.
    pub fn is_wanted(&self) -> bool {
        !self.val_files.is_empty() || !self.val_tasks.is_empty()
    }

    /// Returns an error if keys contradict each other. `key` is the name of the key that sets the interval `steps` of
    /// the validation.
    pub(super) fn check(&self, place: &Place, path: &str, key: &str, steps: Option<u64>) -> Result<()> {
        let at = |key: &str| place.of(&join(path, key));
        let kwargs = &self.val_kwargs;
        if let Some(steps) = steps.filter(|_| !self.is_wanted()) {
            return Err(Error::input(
                at(key),
                steps.to_string(),
                "val_files or val_tasks with the questions to answer",
            ));
        }
        if let Some(metric) = self.metric_for_best_model.as_ref().filter(|_| steps.is_none()) {
            let expected = format!("{key}, the interval in steps at which it is measured");
            return Err(Error::input(at("metric_for_best_model"), metric, expected));
        }
        if kwargs.n > 1 && kwargs.temperature == 0.0 {
            let expected = "1, or val_kwargs.temperature above 0: greedy answers are all equal";
            return Err(Error::input(at("val_kwargs.n"), kwargs.n.to_string(), expected));
        }
        if kwargs.top_k == 0 {
            return Err(Error::input(at("val_kwargs.top_k"), "0", "-1 (all tokens) or 1 and more"));
        }
        if kwargs.top_p == 0.0 {
            return Err(Error::input(at("val_kwargs.top_p"), "0", "more than 0"));
        }
        Ok(())
    }
}

//! Config keys of the validation during training, shared by SFT and RL and named after verl's.

use std::path::PathBuf;

use super::table::join;
use super::{DatasetConfig, MOST_SEQUENCES, Place, Rule, Safe};
use crate::error::{Error, Result};

settings! {
    /// How the questions of a validation are answered.
    pub struct ValKwargs {
        /// Answers to each question.
        n: usize = 1, rule: Rule::Within(1.0, MOST_SEQUENCES), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.val_kwargs.n";
        /// Logits are divided by this; 0 answers greedily.
        temperature: f64 = 0.0, rule: Rule::AtLeast(0.0), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.val_kwargs.temperature";
        /// Sample from the fewest tokens whose probabilities reach this.
        top_p: f64 = 1.0, rule: Rule::Within(0.0, 1.0), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.val_kwargs.top_p";
        /// Sample from this many tokens; -1 from all.
        top_k: i64 = -1, rule: Rule::AtLeast(-1.0), safe: Safe::Yes,
            name: "verl actor_rollout_ref.rollout.val_kwargs.top_k";
        /// Answers are cut here; null takes max_response_length, in SFT packing_length.
        max_new_tokens: Option<usize> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes,
            name: "lmms-eval --gen_kwargs max_new_tokens=";
    }
}

settings! {
    /// What is measured beside the training, and what becomes of it. No weight depends on it.
    pub struct ValidationConfig {
        /// Rows of one's own to measure on, as RL rows; the run's reward scores the answers.
        val_files: Vec<DatasetConfig> = Vec::new(), safe: Safe::Yes;
        /// Tasks to measure on, by the names of `omr eval --list`.
        val_tasks: Vec<String> = Vec::new(), safe: Safe::Yes;
        /// Folder with the tasks' files, as `omr eval --data` takes it.
        val_data_dir: Option<PathBuf> = None, safe: Safe::Yes;
        /// Measure on the first so many rows of each file and task; null on all.
        val_max_samples: Option<usize> = None, rule: Rule::AtLeast(1.0), safe: Safe::Yes;
        /// Measure before the first step, too, as step 0.
        val_before_train: bool = true, safe: Safe::Yes;
        /// How the questions are answered.
        val_kwargs: ValKwargs = ValKwargs::default(), safe: Safe::Yes;
        /// A measured figure, such as val-core/digits/acc/mean@1: the checkpoint of the step at which it is highest is
        /// saved, named in `best` and kept beside the save_total_limit newest; null keeps none for its figure.
        metric_for_best_model: Option<String> = None, rule: Rule::NotEmpty, safe: Safe::Yes;
    }
}

impl ValidationConfig {
    /// True when there is something to measure on.
    pub fn is_wanted(&self) -> bool {
        !self.val_files.is_empty() || !self.val_tasks.is_empty()
    }

    /// Errors on keys that do not fit one another; `key` says every how many `steps` is measured.
    pub(super) fn check(&self, place: &Place, path: &str, key: &str, steps: Option<u64>) -> Result<()> {
        let at = |key: &str| place.of(&join(path, key));
        let kwargs = &self.val_kwargs;
        if let Some(steps) = steps.filter(|_| !self.is_wanted()) {
            return Err(Error::input(at(key), steps.to_string(), "val_files or val_tasks to measure on"));
        }
        if let Some(metric) = self.metric_for_best_model.as_ref().filter(|_| steps.is_none()) {
            let expected = format!("{key}, the steps after which it is measured");
            return Err(Error::input(at("metric_for_best_model"), metric, expected));
        }
        if kwargs.n > 1 && kwargs.temperature == 0.0 {
            let expected = "1, or val_kwargs.temperature above 0: greedy answers are all the same";
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

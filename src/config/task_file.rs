//! Config keys of a user-defined benchmark, read from the file given to `omr eval --task-file`.

use super::{Config, DatasetConfig, Mode, Place, Rule};
use crate::error::{Error, Result};

settings! {
    /// Who says whether an answer is right.
    pub struct TaskScorerConfig or mode {
        /// The rules: `strict`, or `compat` for those of the published evaluation.
        mode: Mode = Mode::Strict;
        /// One's own scorer in place of the rules: a program and its arguments, as `reward.command`.
        command: Vec<String> = Vec::new();
    }
}

settings! {
    /// A benchmark of one's own.
    pub struct TaskFileConfig {
        /// Its name in summaries; null takes the file's stem.
        name: Option<String> = None, rule: Rule::NotEmpty, name: "lmms-eval task";
        /// Its rows, parquet or JSONL, with whatever columns they have; relative to the task file.
        data: DatasetConfig = DatasetConfig::default(), name: "lmms-eval dataset_path";
        /// Jinja template of the question over a row's columns; `<image>` marks a picture's place, which is in front
        /// otherwise.
        prompt: String = "{{ question }}".to_owned(), rule: Rule::NotEmpty, name: "lmms-eval doc_to_text";
        /// What is said before the question.
        system: Option<String> = None;
        /// Columns with pictures, in their order.
        images: Vec<String> = Vec::new(), name: "lmms-eval doc_to_visual";
        /// The column with the right answer.
        gold: String = "answer".to_owned(), rule: Rule::NotEmpty, name: "lmms-eval doc_to_target";
        /// The column that says what a question is about.
        subject: Option<String> = None, rule: Rule::NotEmpty;
        /// Who says whether an answer is right.
        scorer: TaskScorerConfig = TaskScorerConfig::default(), name: "lmms-eval process_results";
    }
}

impl Config for TaskFileConfig {
    const NAME: &'static str = "task-file";

    fn validate(&self, place: &Place) -> Result<()> {
        if self.data.path.as_os_str().is_empty() {
            return Err(Error::input(place.of("data"), "nothing", "the file of the rows"));
        }
        Ok(())
    }
}

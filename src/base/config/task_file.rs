//! Config keys of a user-defined benchmark, read from the file given to `omr eval --task-file`.

use super::{Config, DatasetConfig, Mode, Place, Rule};
use crate::error::Result;

settings! {
    /// The scorer that decides whether an answer is correct.
    pub struct TaskScorerConfig or mode {
        /// Scoring rules: `strict` is omr's corrected version, `compat` reproduces the published evaluation.
        mode: Mode = Mode::Strict;
        /// Your own scorer instead of the rules: a program with its arguments, as in `reward.command`.
        command: Vec<String> = Vec::new();
    }
}

settings! {
    /// Your own benchmark.
    pub struct TaskFileConfig {
        /// Name of the benchmark in summaries. null = the file name without its extension.
        name: Option<String> = None, rule: Rule::NotEmpty, name: "lmms-eval task";
        /// Rows of the benchmark, in parquet or JSONL with any columns. A relative path is relative to the task file.
        data: DatasetConfig = DatasetConfig::default(), name: "lmms-eval dataset_path";
        /// Jinja template that makes the question from the columns of a row. `<image>` marks the place of an image;
        /// without it, images come first.
        prompt: String = "{{ question }}".to_owned(), rule: Rule::NotEmpty, name: "lmms-eval doc_to_text";
        /// System prompt. null = the system prompt of the chat template.
        system: Option<String> = None;
        /// Columns with images, in this order.
        images: Vec<String> = Vec::new(), name: "lmms-eval doc_to_visual";
        /// Column with the correct answer.
        gold: String = "answer".to_owned(), rule: Rule::NotEmpty, name: "lmms-eval doc_to_target";
        /// Column with the subject of a question. null = no results per subject.
        subject: Option<String> = None, rule: Rule::NotEmpty;
        /// The scorer that decides whether an answer is correct.
        scorer: TaskScorerConfig = TaskScorerConfig::default(), name: "lmms-eval process_results";
    }
}

impl Config for TaskFileConfig {
    const NAME: &'static str = "task-file";

    fn validate(&self, place: &Place) -> Result<()> {
        place.check(!self.data.path.as_os_str().is_empty(), "data", "nothing", "the file of the rows")?;
        let DatasetConfig { prompt, gold, system_prompt, .. } = &self.data;
        let given = [("prompt", prompt, "prompt"), ("gold", gold, "gold"), ("system_prompt", system_prompt, "system")];
        given.iter().try_for_each(|(key, value, ours)| {
            let expected = format!("the key {ours} of the benchmark, outside of data");
            place.check(value.is_none(), "data", format!("the key {key}"), &expected)
        })
    }
}

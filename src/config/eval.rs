//! Config keys of `omr eval`, named after the options of lmms-eval where it has them.

use std::path::PathBuf;

use super::data::{model_of, rows_of};
use super::judge::check_judge;
use super::{
    Config, DatasetConfig, DistConfig, Dtype, EndpointConfig, JudgeConfig, Mode, Place, Rule, Safe, ScorerConfig,
    Secret, Source,
};
use crate::error::Result;

settings! {
    /// A server of the model to be measured, OpenAI-compatible.
    pub struct ServerConfig {
        /// Its address up to /v1, or several to share the work.
        base_url: Vec<String> = Vec::new(), rule: Rule::NotEmpty, name: "lmms-eval --model_args base_url=";
        /// The name it serves the model under.
        model: String = String::new(), rule: Rule::NotEmpty, name: "lmms-eval --model_args model_version=";
        /// Sent as a bearer token.
        api_key: Secret = Secret::default(), safe: Safe::Yes, name: "OPENAI_API_KEY of lmms-eval";
        /// Requests in flight at once.
        concurrency: usize = 16, rule: Rule::AtLeast(1.0), safe: Safe::Yes, name: "lmms-eval --model_args num_concurrent=";
        /// A request is given up after this long.
        timeout_s: f64 = 600.0, rule: Rule::Above(0.0), safe: Safe::Yes, name: "lmms-eval --model_args timeout=";
        /// Repetitions of a failed request, with growing random pauses.
        max_retries: usize = 3, safe: Safe::Yes, name: "lmms-eval --model_args max_retries=";
    }
}

impl ServerConfig {
    /// What a client needs; what is asked for comes with each request.
    pub fn endpoint(&self) -> EndpointConfig {
        let ServerConfig { base_url, model, api_key, concurrency, timeout_s, max_retries } = self.clone();
        let default = EndpointConfig::default();
        EndpointConfig { base_url, model, api_key, concurrency, timeout_s, max_retries, ..default }
    }
}

settings! {
    /// `omr eval` and the `eval` part of a recipe.
    pub struct EvalConfig {
        /// Model directory to measure; a recipe measures its own.
        model: Option<PathBuf> = None, name: "lmms-eval --model_args model=";
        /// The server to measure in place of a model directory; a recipe measures its own models.
        server: Option<ServerConfig> = None, name: "lmms-eval --model openai_compatible";
        /// Tasks, by the names of `omr eval --list`; none is the first of it. A recipe measures its own, and beside it those of
        /// these whose files are there.
        tasks: Vec<String> = Vec::new(), name: "lmms-eval --tasks";
        /// Rows in RL-row form, for tasks of one's own rows; a recipe writes its own to data/heldout.parquet.
        data: Vec<DatasetConfig> = Vec::new();
        /// One's own benchmark in place of `tasks`.
        task_file: Option<PathBuf> = None, name: "lmms-eval --include_path";
        /// Folder with the tasks' files.
        data_dir: Option<PathBuf> = None;
        /// `strict` is the right scorer, `compat` the published one.
        mode: Mode = Mode::Strict, published: "compat";
        /// Take thinking off answers before they are scored, as lmms-eval does since version 0.7.
        strip_thinking: bool = false, name: "lmms-eval --reasoning_tags", published: "false";
        /// Recorded answers to score in place of a model's.
        responses: Option<PathBuf> = None;
        /// The server asked about answers the rules call wrong; null asks none.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// How the format counts, and one's own reward in place of the rules.
        reward: ScorerConfig = ScorerConfig::default();
        /// Measure the first so many rows only.
        limit: Option<usize> = None, rule: Rule::AtLeast(1.0), name: "lmms-eval --limit";
        /// Answer greedily and count.
        greedy: bool = true;
        /// Answers sampled at temperature 1 for each row, beside the greedy one.
        repeats: usize = 1, name: "lmms-eval --repeats";
        /// Answers are cut here; null takes the task's own bound.
        max_new_tokens: Option<usize> = None, rule: Rule::AtLeast(1.0), name: "lmms-eval --gen_kwargs max_new_tokens=";
        /// Sequences that run at once.
        max_num_seqs: usize = 256, rule: Rule::AtLeast(1.0), safe: Safe::Yes, name: "lmms-eval --batch_size";
        /// Seed of sampling; a recipe uses its own.
        seed: u64 = 42, name: "lmms-eval --seed";
        /// Seed of the order of GPQA's options: of Python's generator in compat, of each question's own in strict.
        shuffle_seed: u64 = 0, name: "lmms-eval --seed, the first of it";
        /// Storage of weights, activations and cache; `auto` is bf16 where kernels run, f32 on the CPU. A recipe uses its own.
        dtype: Dtype = Dtype::Auto, published: "bf16";
        /// The ranks of a measurement of many processes; a recipe uses its own.
        dist: DistConfig = DistConfig::default();
    }
}

impl Config for EvalConfig {
    const NAME: &'static str = "eval";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        model_of("model", &mut self.model).chain(rows_of("data", &mut self.data)).collect()
    }
    fn validate(&self, place: &Place) -> Result<()> {
        check_judge(place, "", &self.judge)
    }
}

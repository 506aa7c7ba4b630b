//! Config keys of `omr eval`, named after the options of lmms-eval where it has them.

use std::path::PathBuf;

use super::data::{files_of, model_of, rows_of};
use super::judge::check_judge;
use super::{
    ChatTemplateKwargs, Config, DatasetConfig, DistConfig, Dtype, EndpointConfig, ImageConfig, JudgeConfig,
    MOST_SEQUENCES, Mode, Place, QuantizationConfig, Rewards, Rule, Safe, ScorerConfig, Secret, Source,
};
use crate::error::{Error, Result};

settings! {
    /// An OpenAI-compatible server of the model to evaluate.
    pub struct ServerConfig {
        /// Address of the server, up to and including /v1. Several addresses share the requests.
        base_url: Vec<String> = Vec::new(), rule: Rule::NotEmpty, name: "lmms-eval --model_args base_url=";
        /// Name of the model on the server.
        model: String = String::new(), rule: Rule::NotEmpty, name: "lmms-eval --model_args model_version=";
        /// API key, sent as a bearer token.
        api_key: Secret = Secret::default(), safe: Safe::Yes, name: "OPENAI_API_KEY of lmms-eval";
        /// Maximum number of requests in flight at once.
        concurrency: usize = 16, rule: Rule::SEQUENCES, safe: Safe::Yes, name: "lmms-eval --model_args num_concurrent=";
        /// Time limit of a request, in seconds.
        timeout_s: f64 = 600.0, rule: Rule::Above(0.0), safe: Safe::Yes, name: "lmms-eval --model_args timeout=";
        /// Number of times that a failed request is repeated, with growing random pauses.
        max_retries: usize = 3, safe: Safe::Yes, name: "lmms-eval --model_args max_retries=";
    }
}

impl ServerConfig {
    /// Returns the settings of the client. Sampling settings come with each request.
    pub fn endpoint(&self) -> EndpointConfig {
        let ServerConfig { base_url, model, api_key, concurrency, timeout_s, max_retries } = self.clone();
        let default = EndpointConfig::default();
        EndpointConfig { base_url, model, api_key, concurrency, timeout_s, max_retries, ..default }
    }
}

settings! {
    /// `omr eval` and the `eval` part of a recipe.
    pub struct EvalConfig with images: ImageConfig {
        /// Model directory to evaluate. A recipe evaluates its own models.
        model: Option<PathBuf> = None, name: "lmms-eval --model_args model=";
        /// Server to evaluate instead of a model directory. A recipe evaluates its own models.
        server: Option<ServerConfig> = None, name: "lmms-eval --model openai_compatible";
        /// Tasks to evaluate, with the names of `omr eval --list`. Empty = the first task of that list. A recipe
        /// evaluates its own task, and also those of these tasks whose files exist.
        tasks: Vec<String> = Vec::new(), name: "lmms-eval --tasks";
        /// Rows in RL format, for tasks with your own rows. A recipe writes its own rows to data/heldout.parquet.
        data: Vec<DatasetConfig> = Vec::new();
        /// File with your own benchmark, used instead of `tasks`.
        task_file: Option<PathBuf> = None, name: "lmms-eval --include_path";
        /// Folder with the files of the tasks.
        data_dir: Option<PathBuf> = None;
        /// Prompts and scoring rules: `strict` is omr's corrected version, `compat` reproduces the published
        /// evaluation.
        mode: Mode = Mode::Strict, published: "compat";
        /// Remove the thinking part of an answer before it is scored, as lmms-eval does since version 0.7.
        strip_thinking: bool = false, name: "lmms-eval --reasoning_tags", published: "false";
        /// File with recorded answers to score instead of answers of a model.
        responses: Option<PathBuf> = None;
        /// Judge: a server that is asked about answers that the rules score as wrong. null = no judge.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// Weight of the format in a score, or your own reward program instead of the rules.
        reward: ScorerConfig = ScorerConfig::default();
        /// Your own reward programs by reward type, such as `{instruction_following: {command: [python3, mine.py]}}`.
        rewards: Rewards = Rewards::default();
        /// Evaluate only the first N rows of each task. null = all rows.
        limit: Option<usize> = None, rule: Rule::AtLeast(1.0), name: "lmms-eval --limit";
        /// Generate one answer per question with greedy decoding and report its accuracy.
        greedy: bool = true;
        /// Number of answers per question sampled at temperature 1, in addition to the greedy one.
        repeats: usize = 1, rule: Rule::Within(0.0, MOST_SEQUENCES), name: "lmms-eval --repeats";
        /// Maximum number of tokens per answer. null = the limit of the task.
        max_new_tokens: Option<usize> = None, rule: Rule::TOKENS, name: "lmms-eval --gen_kwargs max_new_tokens=";
        /// Maximum number of sequences that run at once.
        max_num_seqs: usize = 256, rule: Rule::SEQUENCES, safe: Safe::Yes, name: "lmms-eval --batch_size";
        /// Seed for sampling. A recipe uses its own seed.
        seed: u64 = 42, name: "lmms-eval --seed";
        /// Seed for the order of the answer options of GPQA. With compat it seeds Python's generator; with strict each
        /// question has its own seed.
        shuffle_seed: u64 = 0, name: "lmms-eval --seed, the first of it";
        images.image_min_pixels, name: "lmms-eval --model_args min_pixels=";
        images.image_max_pixels, name: "lmms-eval --model_args max_pixels=";
        ..images { image_backend, image_alpha, image_16_bit };
        /// Variables of the chat template, also sent to a server.
        chat_template_kwargs: ChatTemplateKwargs = ChatTemplateKwargs::default();
        /// Data type of weights, activations and KV cache; `auto` = bf16 on a GPU, and on a CPU that has units for it
        /// if the weights are stored so; else f32. A recipe uses its own value.
        dtype: Dtype = Dtype::Auto, published: "bf16";
        /// Storage of the weights in 8 or 4 bits. null = in `dtype`, or as the model's files are.
        quantization: Option<QuantizationConfig> = None;
        /// Settings for an evaluation with several ranks. A recipe uses its own settings.
        dist: DistConfig = DistConfig::default();
    }
}

impl Config for EvalConfig {
    const NAME: &'static str = "eval";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        model_of("model", &mut self.model)
            .chain(rows_of("data", &mut self.data))
            .chain(files_of("task_file", &mut self.task_file))
            .chain(files_of("responses", &mut self.responses))
            .collect()
    }
    fn validate(&self, place: &Place) -> Result<()> {
        check_judge(place, "", &self.judge)?;
        if let (Some(_), Some((key, value))) = (&self.server, self.images.first_set()) {
            let expected = "no settings of images: the server resizes images itself";
            return Err(Error::input(place.of("server"), format!("a server, with {key}={value}"), expected));
        }
        self.images.check_parts(place, "")
    }
}

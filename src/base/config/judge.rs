//! Config keys of the scorers used besides the rules: a judge model or the user's own reward program. Also the keys of
//! `omr score`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Config, EndpointConfig, Format, Mode, Place, Rubric, Rule, Safe, Secret};
use crate::error::{Error, Result};
use crate::files;

settings! {
    /// A judge: a language model on an OpenAI-compatible server that is asked about answers that the rules score as
    /// wrong.
    pub struct JudgeConfig {
        /// Address of the server, up to and including /v1. Several addresses share the requests.
        base_url: Vec<String> = Vec::new(), safe: Safe::Yes, name: "OPENAI_BASE_URL";
        /// Name of the model on the server.
        model: String = String::new(), name: "OPENAI_MODEL_NAME", published: "judge";
        /// API key, sent as a bearer token.
        api_key: Secret = Secret::default(), safe: Safe::Yes, name: "OPENAI_API_KEY";
        /// Maximum number of tokens per reply. A judge that reasons before its verdict needs more.
        max_tokens: usize = 5, rule: Rule::TOKENS, published: "5";
        /// Sampling temperature. null = not sent, so the server's default applies.
        temperature: Option<f64> = Some(0.0), rule: Rule::AtLeast(0.0), published: "null";
        /// Text file with a prompt that asks for 1 or 0, in which {question}, {answer} and {prediction} are replaced. Of
        /// several files, each row uses the first whose fields it has. [] = omr's own prompt. Scores of different
        /// prompts are not comparable.
        prompt_file: Vec<PathBuf> = Vec::new(), safe: Safe::Yes,
            name: "JUDGE_PROMPT_WITH_ANSWER and JUDGE_PROMPT in lmms_lab_recipe.py";
        /// Texts of the prompts. prompt_file sets them, so that a changed file is a changed config.
        prompt: Vec<String> = Vec::new();
        /// Maximum number of requests in flight at once.
        concurrency: usize = 16, rule: Rule::SEQUENCES, safe: Safe::Yes, published: "1";
        /// Time limit of one attempt, in seconds.
        timeout_s: f64 = 60.0, rule: Rule::Above(0.0), safe: Safe::Yes, published: "the client library's 600";
        /// Time limit of a request with all its retries, in seconds.
        deadline_s: f64 = 300.0, rule: Rule::Above(0.0), safe: Safe::Yes;
        /// Number of times that a failed request is repeated, with growing random pauses.
        max_retries: usize = 3, safe: Safe::Yes, published: "the client library's 2";
        /// Number of consecutive failed requests after which the judge counts as unavailable. Training then ends with
        /// an error; an evaluation continues with the rules only.
        max_failures: usize = 16, rule: Rule::AtLeast(1.0), safe: Safe::Yes;
        /// File that caches verdicts. Several runs and processes on one machine may share it. null = answers.sqlite in
        /// the run directory, or no cache if there is no run directory.
        cache: Option<PathBuf> = None, safe: Safe::Yes;
    }
}

impl JudgeConfig {
    /// Returns an error if the server or its model is not set. `at` returns the place of a key for the message.
    pub fn check(&self, at: impl Fn(&str) -> String) -> Result<()> {
        let (no_url, no_model) = (self.base_url.is_empty(), self.model.is_empty());
        let needed = [("base_url", "OPENAI_BASE_URL", no_url), ("model", "OPENAI_MODEL_NAME", no_model)];
        if let Some((key, variable, _)) = needed.iter().find(|(.., is_missing)| *is_missing) {
            let expected = format!("a value for the judge, here or in the environment variable {variable}");
            return Err(Error::input(at(key), "nothing", expected));
        }
        let place = |i: usize| {
            let file = self.prompt_file.get(i).map_or(String::new(), |file| format!(": {}", file.display()));
            at("prompt_file") + &file
        };
        // The texts are read when the config is loaded. A file without a text could not be read.
        if let Some((i, file)) = self.prompt_file.iter().enumerate().nth(self.prompt.len()) {
            let found = files::read_config(file).err().map_or("a file that was not read".to_owned(), |e| e.to_string());
            return Err(Error::input(place(i), found, "a text file with a prompt"));
        }
        let lacks = |text: &String| ["{answer}", "{prediction}"].into_iter().find(|field| !text.contains(field));
        match self.prompt.iter().enumerate().find_map(|(i, text)| Some((i, lacks(text)?))) {
            Some((i, field)) => {
                let expected = "a text with {answer} and {prediction}; {question} may be missing";
                Err(Error::input(place(i), format!("a text without {field}"), expected))
            }
            None => Ok(()),
        }
    }

    /// Returns the settings of the server without those of the judge.
    pub fn endpoint(&self) -> EndpointConfig {
        let JudgeConfig { base_url, model, api_key, max_tokens, .. } = self.clone();
        let temperature = self.temperature.unwrap_or_default();
        let JudgeConfig { concurrency, timeout_s, max_retries, .. } = *self;
        EndpointConfig { base_url, model, api_key, max_tokens, temperature, concurrency, timeout_s, max_retries }
    }
}

settings! {
    /// Weight of the format in a score, and your own reward program instead of the rules. The program reads the input
    /// lines of `omr score` and writes its output lines.
    pub struct ScorerConfig {
        /// Weight of the format in a score, from 0 to 1. The answer has the remaining weight.
        format_weight: f64 = super::FORMAT_WEIGHT, rule: Rule::Within(0.0, 1.0), name: "verl geo3k.compute_score format_score",
            published: "0.1";
        /// Format that a response must have.
        format: Format = Format::ThinkAnswerBoxed, published: "think_answer_boxed";
        /// Count a right answer that stands alone in the last line of a response without a tag or a box. `strict` only.
        flexible_extract: bool = false, name: "verl gsm8k.compute_score method=flexible; lm-eval flexible-extract", published: "false";
        /// Coordinates in responses are normalised to 0 to 1000, as Qwen3-VL writes them. false = pixels of the image as
        /// the model sees it. Labels are always pixels of the original. `extra_info.normalize_bbox_to_1000` of a row
        /// takes precedence.
        normalize_bbox_to_1000: bool = false, name: "verl data.normalize_bbox_to_1000";
        /// Your own reward program with its arguments, used instead of the rules. Empty = the rules.
        command: Vec<String> = Vec::new(), name: "verl custom_reward_function.path";
        /// Number of processes of the reward program.
        workers: usize = 4, rule: Rule::Within(1.0, 1024.0), safe: Safe::Yes, name: "verl reward_model.num_workers";
        /// Time limit of the reward program for one answer, in seconds. A timeout is an error.
        timeout_s: f64 = 30.0, rule: Rule::Above(0.0), safe: Safe::Yes;
    }
}

impl ScorerConfig {
    /// Returns the settings of the scoring rules with this mode.
    pub fn rubric(&self, mode: Mode) -> Rubric {
        let ScorerConfig { format, format_weight, flexible_extract, normalize_bbox_to_1000, .. } = *self;
        Rubric { mode, format, format_weight, flexible_extract, normalize_bbox_to_1000 }
    }
}

settings! {
    /// Your own reward program for the rows of one reward type. It reads and writes the lines of `omr score`.
    pub struct ProgramConfig {
        /// Reward program with its arguments.
        command: Vec<String> = Vec::new();
        /// Number of processes of the reward program.
        workers: usize = 4, rule: Rule::Within(1.0, 1024.0);
        /// Time limit of the reward program for one answer, in seconds. A timeout is an error.
        timeout_s: f64 = 30.0, rule: Rule::Above(0.0);
    }
}

/// Reward programs by the reward type of the rows that they score.
pub type Rewards = BTreeMap<String, ProgramConfig>;

settings! {
    /// `omr score`.
    pub struct ScoreConfig {
        /// Scoring rules: `strict` is omr's corrected version, `compat` reproduces the published scorer.
        mode: Mode = Mode::Strict, published: "compat";
        /// Judge: a server that is asked about answers that the rules score as wrong. null = no judge.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// Weight of the format in a score, or your own reward program instead of the rules.
        reward: ScorerConfig = ScorerConfig::default();
        /// Your own reward programs by reward type, such as `{instruction_following: {command: [python3, mine.py]}}`.
        rewards: Rewards = Rewards::default();
    }
}

impl Config for ScoreConfig {
    const NAME: &'static str = "score";

    fn validate(&self, place: &Place) -> Result<()> {
        check_judge(place, "", &self.judge)
    }
}

/// Checks that a judge has a server and a model. `path` is the group that contains the judge.
pub(super) fn check_judge(place: &Place, path: &str, judge: &Option<JudgeConfig>) -> Result<()> {
    let path = super::table::join(path, "judge");
    judge.as_ref().map_or(Ok(()), |judge| judge.check(|key| place.of(&super::table::join(&path, key))))
}

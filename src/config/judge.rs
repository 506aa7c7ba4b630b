//! Config keys of the scorers used besides the rules: a judge model or the user's own reward program. Also the keys of
//! `omr score`.

use std::path::PathBuf;

use super::{Config, EndpointConfig, Format, Mode, Place, Rubric, Rule, Safe, Secret};
use crate::error::{Error, Result};

settings! {
    /// A language model asked where the rules say no: an OpenAI-compatible server.
    pub struct JudgeConfig {
        /// Its address up to /v1, or several to share the work.
        base_url: Vec<String> = Vec::new(), safe: Safe::Yes, name: "OPENAI_BASE_URL";
        /// The name it serves the model under.
        model: String = String::new(), name: "OPENAI_MODEL_NAME", published: "judge";
        /// Sent as a bearer token.
        api_key: Secret = Secret::default(), safe: Safe::Yes, name: "OPENAI_API_KEY";
        /// Longest reply; a judge that thinks first needs room for that.
        max_tokens: usize = 5, rule: Rule::AtLeast(1.0), published: "5";
        /// Sampling temperature asked for.
        temperature: f64 = 0.0, rule: Rule::AtLeast(0.0), published: "the server's default";
        /// Requests in flight at once.
        concurrency: usize = 16, rule: Rule::AtLeast(1.0), safe: Safe::Yes, published: "1";
        /// One try is given up after this long.
        timeout_s: f64 = 60.0, rule: Rule::Above(0.0), safe: Safe::Yes, published: "the client library's 600";
        /// A request and all its repetitions are given up after this long.
        deadline_s: f64 = 300.0, rule: Rule::Above(0.0), safe: Safe::Yes;
        /// Repetitions of a failed request, with growing random pauses.
        max_retries: usize = 3, safe: Safe::Yes, published: "the client library's 2";
        /// So many requests in a row without an answer: the judge is down. Training ends then, an evaluation goes on by
        /// the rules.
        max_failures: usize = 16, rule: Rule::AtLeast(1.0), safe: Safe::Yes;
        /// File of verdicts, which runs and processes on one machine may share; null takes the run's answers.sqlite, and
        /// none where there is no run directory.
        cache: Option<PathBuf> = None, safe: Safe::Yes;
    }
}

impl JudgeConfig {
    /// An error where the server or its model is not named; `at` makes a key's place of its name.
    pub fn check(&self, at: impl Fn(&str) -> String) -> Result<()> {
        let missing = |key: &str, variable: &str| {
            let expected = format!("the judge's, here or in the variable {variable}");
            Err(Error::input(at(key), "nothing", expected))
        };
        match (self.base_url.is_empty(), self.model.is_empty()) {
            (true, _) => missing("base_url", "OPENAI_BASE_URL"),
            (_, true) => missing("model", "OPENAI_MODEL_NAME"),
            _ => Ok(()),
        }
    }

    /// The server alone.
    pub fn endpoint(&self) -> EndpointConfig {
        let JudgeConfig { base_url, model, api_key, max_tokens, temperature, .. } = self.clone();
        let JudgeConfig { concurrency, timeout_s, max_retries, .. } = *self;
        EndpointConfig { base_url, model, api_key, max_tokens, temperature, concurrency, timeout_s, max_retries }
    }
}

settings! {
    /// How the format counts beside the answer, and one's own reward in place of the rules: a process that reads
    /// `omr score`'s input lines and writes its output lines.
    pub struct ScorerConfig {
        /// Weight of the format in a score; the rest is the answer's.
        format_weight: f64 = super::FORMAT_WEIGHT, rule: Rule::Within(0.0, 1.0), name: "verl geo3k.compute_score format_score",
            published: "0.1";
        /// The format that a response is asked for.
        format: Format = Format::ThinkAnswerBoxed, published: "think_answer_boxed";
        /// The program and its arguments; empty for the rules.
        command: Vec<String> = Vec::new(), name: "verl custom_reward_function.path";
        /// Processes of it at once.
        workers: usize = 4, rule: Rule::AtLeast(1.0), safe: Safe::Yes, name: "verl reward_model.num_workers";
        /// An answer that takes longer is an error.
        timeout_s: f64 = 30.0, rule: Rule::Above(0.0), safe: Safe::Yes;
    }
}

impl ScorerConfig {
    /// How the rules of `mode` score.
    pub fn rubric(&self, mode: Mode) -> Rubric {
        Rubric { mode, format: self.format, format_weight: self.format_weight }
    }
}

settings! {
    /// `omr score`.
    pub struct ScoreConfig {
        /// `strict` is the right scorer, `compat` the published one.
        mode: Mode = Mode::Strict, published: "compat";
        /// The server asked about answers the rules call wrong; null asks none.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// How the format counts, and one's own reward in place of the rules.
        reward: ScorerConfig = ScorerConfig::default();
    }
}

impl Config for ScoreConfig {
    const NAME: &'static str = "score";

    fn validate(&self, place: &Place) -> Result<()> {
        check_judge(place, "", &self.judge)
    }
}

/// A judge has a server and a model; `path` is the group that holds it.
pub(super) fn check_judge(place: &Place, path: &str, judge: &Option<JudgeConfig>) -> Result<()> {
    let path = super::table::join(path, "judge");
    judge.as_ref().map_or(Ok(()), |judge| judge.check(|key| place.of(&super::table::join(&path, key))))
}

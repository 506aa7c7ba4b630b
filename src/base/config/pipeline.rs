//! Config keys of the data pipeline: one config per stage, and one that lists several stages.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::data::{model_of, rows_of};
use super::environment::{group_from_env, judge_from_env};
use super::judge::check_judge;
use super::table::{Table, join};
use super::{Config, DatasetConfig, Dtype, EndpointConfig, InputKind, JudgeConfig, Mode, Place, Rule, Safe, Source};
use crate::error::Result;

choice! {
    /// Columns of the rows that are written.
    pub enum RowForm {
        /// The form of the data set: SFT if its first row ends with an answer, otherwise RL.
        Auto = "auto",
        /// `id`, `messages`, `images`.
        Sft = "sft",
        /// verl's columns: `data_source`, `prompt`, `images`, `reward_model`, `extra_info`.
        Rl = "rl",
    }
}

choice! {
    /// Form in which images from files are written.
    pub enum Images {
        /// The bytes of the images, so the output does not depend on other files.
        Embed = "embed",
        /// The paths of the images, as in the input rows.
        Path = "path",
    }
}

settings! {
    /// Keys of every stage.
    pub struct StageConfig {
        /// Input rows. In a list of stages, `stage:NAME` is the output of an earlier stage and `stage:NAME/FILE` is one
        /// file of it. Empty = the output of the previous stage.
        datasets: Vec<DatasetConfig> = Vec::new();
        /// Columns of the output: `sft` for conversations, `rl` for questions with labels, `auto` = as in the input.
        form: RowForm = RowForm::Auto;
        /// Images in the output: `embed` writes their bytes, `path` their paths.
        images: Images = Images::Embed;
        /// Maximum share of rows that cannot be read. A larger share ends the stage.
        max_bad_rows: f64 = 0.01, rule: Rule::Within(0.0, 1.0), safe: Safe::Yes;
        /// Kinds of inputs that may have changed since the stage was started: `rows`, `model` and `stages`. The stage
        /// then runs again and replaces its output. Remove the key afterwards.
        accept_changed: Vec<InputKind> = Vec::new(), safe: Safe::Yes;
    }
}

settings! {
    /// `omr data format`: converts rows from any supported layout to one layout.
    pub struct FormatConfig with stage: StageConfig {
        ..stage;
        /// System prompt that replaces that of the rows. null = keep it, empty text = remove it.
        system_prompt: Option<String> = None;
    }
}

settings! {
    /// `omr data distill`: sends questions to a teacher, verifies the answers and keeps the correct ones.
    pub struct DistillConfig with stage: StageConfig {
        ..stage { datasets, images, max_bad_rows, accept_changed };
        /// Number of answers per question.
        num_rollouts: usize = 1, rule: Rule::SEQUENCES, name: "distill_response.py --num_rollouts",
            published: "8 for the final set";
        /// Teacher: the server that answers. A recipe with a built-in teacher starts its own server.
        teacher: Option<EndpointConfig> = None;
        /// Judge: a server that is asked about answers that the rules score as wrong. null = no judge.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// System prompt of the kept rows. null = the published one, empty text = that of the input rows.
        system_prompt: Option<String> = None;
        /// System prompt of the requests. null = the published one, empty text = none, for a teacher that is trained
        /// without it, such as a model's own answers (rejection sampling).
        teacher_system_prompt: Option<String> = None;
        /// Seed for the seeds that are sent with the requests. A recipe uses its own seed.
        seed: u64 = 1;
        /// Scoring rules: `strict` is omr's corrected version, `compat` reproduces the published scorer.
        mode: Mode = Mode::Strict, published: "compat";
    }
}

settings! {
    /// `omr data verify`: keeps the rows whose answer is correct according to their label.
    pub struct VerifyConfig with stage: StageConfig {
        ..stage { datasets, images, max_bad_rows, accept_changed };
        /// Verify the label of each row instead of an answer, for example for RL questions: keeps the rows whose label
        /// the verifier proves equal to itself.
        labels: bool = false;
        /// Judge: a server that is asked about answers that the rules score as wrong. null = no judge.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// Scoring rules: `strict` is omr's corrected version, `compat` reproduces the published scorer.
        mode: Mode = Mode::Strict, published: "compat";
    }
}

settings! {
    /// `omr data passrate`: a model answers each question several times. Writes the share of correct answers to
    /// `extra_info.pass_rate` and the mean reward to `extra_info.avg_reward`. The label of an SFT row is the answer in its
    /// final assistant message.
    pub struct PassrateConfig with stage: StageConfig {
        ..stage;
        /// Model directory.
        model: Option<PathBuf> = None, name: "vllm_inference_with_reward.py --model_path",
            published: "Qwen/Qwen2.5-VL-7B-Instruct";
        /// Number of answers per question.
        n: usize = 8, rule: Rule::SEQUENCES, name: "vllm_inference_with_reward.py --num_rollouts", published: "8";
        /// Sampling temperature: logits are divided by this value.
        temperature: f64 = 1.0, rule: Rule::AtLeast(1e-6), published: "1";
        /// Sample only from the smallest set of most likely tokens whose probabilities sum to this value. 1 = all
        /// tokens.
        top_p: f64 = 0.9, rule: Rule::Within(0.0, 1.0), published: "0.9";
        /// Maximum number of tokens per answer.
        max_tokens: usize = 8192, rule: Rule::TOKENS, published: "8192";
        /// Maximum number of tokens of a prompt, images included. Longer prompts are rejected as overlong.
        max_prompt_length: usize = 8192, rule: Rule::TOKENS;
        /// Maximum number of answers that are generated at once.
        max_num_seqs: usize = 256, rule: Rule::SEQUENCES, name: "vLLM max_num_seqs";
        /// Data type of weights and activations; `auto` = bf16 on a GPU, and on a CPU that has units for it if the
        /// weights are stored so; else f32.
        dtype: Dtype = Dtype::Auto;
        /// Judge: a server that is asked about answers that the rules score as wrong. null = no judge.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// Scoring rules: `strict` is omr's corrected version, `compat` reproduces the published scorer.
        mode: Mode = Mode::Strict, published: "compat";
        /// Seed for sampling.
        seed: u64 = 1;
    }
}

settings! {
    /// `omr data filter`: keeps rows within limits. null disables a limit.
    pub struct FilterConfig with stage: StageConfig {
        ..stage;
        /// Model directory. Its tokenizer, chat template and image sizes are used to count tokens; max_nll also uses its
        /// weights. Required if a token limit or max_nll is set.
        model: Option<PathBuf> = None;
        /// Minimum number of tokens of a row, images included. For rows that end with an answer this is the training
        /// sample, otherwise the prompt.
        min_tokens: Option<usize> = None, name: "filter.py length: filter_length", published: "keeps longer rows";
        /// Maximum number of tokens of a row, counted as for min_tokens.
        max_tokens: Option<usize> = None;
        /// Minimum number of characters in the messages of a row.
        min_characters: Option<usize> = None;
        /// Maximum number of characters in the messages of a row.
        max_characters: Option<usize> = None;
        /// Minimum share of correct answers (`extra_info.pass_rate`). Rows without this field are rejected.
        min_pass_rate: Option<f64> = None, rule: Rule::Within(0.0, 1.0);
        /// Maximum share of correct answers (`extra_info.pass_rate`). Rows without this field are rejected.
        max_pass_rate: Option<f64> = None, rule: Rule::Within(0.0, 1.0);
        /// Maximum mean negative log-likelihood of a row's answer under the model, in nats per token. This is the
        /// val/loss of the row. Rows without an answer are rejected.
        max_nll: Option<f64> = None, rule: Rule::Above(0.0), name: "filter.py ppl: filter_ppl",
            published: "over all tokens of the row";
        /// Data type of weights and activations for max_nll; `auto` = bf16 on a GPU, and on a CPU that has units for it
        /// if the weights are stored so; else f32.
        dtype: Dtype = Dtype::Auto;
    }
}

settings! {
    /// `omr data mix`: combines several data sets into one, with their `weight` and `limit`. With weight 2.5 every row
    /// is used twice and half of the rows once more.
    pub struct MixConfig with stage: StageConfig {
        ..stage;
        /// Name of the output data set.
        name: String = "mix".to_owned(), rule: Rule::NotEmpty;
        /// Interleave the data sets at random, in proportion to their sizes. false = one after another. The rows of
        /// each data set keep their order.
        interleave: bool = true;
        /// Maximum number of rows in total. null = all rows.
        max_rows: Option<usize> = None, rule: Rule::AtLeast(1.0);
        /// Seed for the order of the data sets and for the choice of rows for a fractional weight.
        seed: u64 = 1;
    }
}

settings! {
    /// `omr data dedup`: removes rows whose question and images are those of another row, of an earlier data set or
    /// of a benchmark.
    pub struct DedupConfig with stage: StageConfig {
        ..stage;
        /// Similarity from which questions count as equal: the Jaccard similarity of their parts of five characters.
        /// Their numbers must be equal, too.
        text_threshold: f64 = 0.99, rule: Rule::Within(0.5, 1.0), name: "deduplicate.py --threshold", published: "0.99";
        /// Maximum number of differing bits, of 64, of the difference hashes of equal images. Their brightness must
        /// also correlate.
        hash_distance: usize = 8, rule: Rule::Within(0.0, 16.0);
        /// Model directory whose vision tower is used to compare images. null = compare only the hashes.
        model: Option<PathBuf> = None;
        /// If a model is given, images are also equal if the mean outputs of the vision tower have at least this
        /// cosine similarity and their brightness roughly correlates.
        embed_threshold: f64 = 0.99, rule: Rule::Within(0.01, 1.0), name: "deduplicate.py --threshold", published: "0.99";
        /// Also search for duplicates within each data set; one row of each group is kept.
        within: bool = true, published: "false";
        /// Benchmarks whose rows must not appear in the output.
        against: Vec<DatasetConfig> = Vec::new();
        /// `strict` keeps the first of several equal rows. `compat` works like the published pipeline: it never removes
        /// rows within a data set, and of two data sets it keeps the row of the later one.
        mode: Mode = Mode::Strict, published: "compat";
    }
}

settings! {
    /// A stage of a pipeline: its name, and one config of its kind.
    pub struct StepConfig {
        /// Name of the stage and of its folder.
        name: String = String::new(), rule: Rule::NotEmpty;
        /// Config of `omr data format`.
        format: Option<FormatConfig> = None;
        /// Config of `omr data distill`.
        distill: Option<DistillConfig> = None;
        /// Config of `omr data verify`.
        verify: Option<VerifyConfig> = None;
        /// Config of `omr data passrate`.
        passrate: Option<PassrateConfig> = None;
        /// Config of `omr data dedup`.
        dedup: Option<DedupConfig> = None;
        /// Config of `omr data filter`.
        filter: Option<FilterConfig> = None;
        /// Config of `omr data mix`.
        mix: Option<MixConfig> = None;
    }
}

impl StepConfig {
    /// Returns the kinds of stages for which this step has a config.
    pub fn kinds(&self) -> Vec<&'static str> {
        let mut step = self.clone();
        let given = step.lines().into_iter().filter(|line| line.name != "name" && !line.value.write().is_null());
        given.map(|line| line.name).collect()
    }
}

settings! {
    /// Config of `omr data run`: the stages, in order.
    pub struct DataConfig {
        /// The stages. Each has its own settings, and its own folder in --out.
        stages: Vec<StepConfig> = Vec::new(), safe: Safe::Yes;
        /// Kinds of inputs that may have changed since a stage was started. Also set for all stages.
        accept_changed: Vec<InputKind> = Vec::new(), safe: Safe::Yes;
    }
}

impl Config for DataConfig {
    const NAME: &'static str = "data";

    fn prepare(tree: &mut Map<String, Value>, env: &dyn Fn(&str) -> Option<String>) {
        let accepted = tree.get("accept_changed").cloned();
        let Some(Value::Array(stages)) = tree.get_mut("stages") else { return };
        for stage in stages {
            for (kind, config) in stage.as_object_mut().into_iter().flatten() {
                let Some(config) = config.as_object_mut() else { continue };
                config.extend(accepted.iter().map(|accepted| ("accept_changed".to_owned(), accepted.clone())));
                if ["distill", "verify", "passrate"].contains(&kind.as_str()) {
                    judge_from_env(config, env);
                }
                prepare_teacher(kind, config, env);
            }
        }
    }

    fn validate(&self, place: &Place) -> Result<()> {
        for (i, step) in self.stages.iter().enumerate() {
            let (kinds, at) = (step.kinds(), format!("stages.{i}"));
            let found = if kinds.is_empty() { "none".to_owned() } else { kinds.join(" and ") };
            let expected = "one of format, distill, verify, passrate, dedup, filter, mix";
            place.check(kinds.len() == 1, &at, found, expected)?;
            let is_own = self.stages[..i].iter().all(|other| other.name != step.name);
            let expected = "a name of its own, without dots and slashes: it names a folder";
            let is_name = is_own && !step.name.contains(['/', '\\', '.']);
            place.check(is_name, &join(&at, "name"), &step.name, expected)?;
            check_step(step, place, &at)?;
        }
        Ok(())
    }
}

impl FilterConfig {
    /// Errors if a limit needs a model and there is none, or if no limit needs the model. `group` is the prefix of the
    /// keys.
    fn check_model(&self, place: &Place, group: &str) -> Result<()> {
        let tokens = |key, limit: Option<usize>| limit.map(|limit| (key, limit.to_string()));
        let limits = [tokens("min_tokens", self.min_tokens), tokens("max_tokens", self.max_tokens)];
        let nll = self.max_nll.map(|limit| ("max_nll", limit.to_string()));
        let (key, found, expected) = match (limits.into_iter().flatten().chain(nll).next(), &self.model) {
            (Some((key, limit)), None) => (key, format!("{limit} without a model"), "a model directory as `model`"),
            (None, Some(model)) => {
                ("model", format!("{}, which no limit uses", model.display()), "max_nll, min_tokens or max_tokens")
            }
            _ => return Ok(()),
        };
        place.check(false, &join(group, key), found, expected)
    }
}

impl DedupConfig {
    /// Errors where the threshold is set of embeddings that nothing makes.
    fn check_model(&self, place: &Place, group: &str) -> Result<()> {
        let (threshold, default) = (self.embed_threshold, DedupConfig::default().embed_threshold);
        let (key, found) = (join(group, "embed_threshold"), format!("{threshold} without a model"));
        place.check(self.model.is_some() || threshold == default, &key, found, "a model directory as `model`")
    }
}

/// The config of a stage.
pub trait StageKeys: Config {
    /// Returns the keys of every stage.
    fn stage(&self) -> &StageConfig;
    /// Returns the same keys for modification, such as to resolve paths.
    fn stage_mut(&mut self) -> &mut StageConfig;
    /// Returns the data sets that the stage reads in addition to its main data sets.
    fn extra_datasets(&mut self) -> Vec<&mut DatasetConfig>;
    /// Returns all data sets that the stage reads.
    fn reads(&self) -> Vec<DatasetConfig> {
        let mut copy = self.clone();
        let extra: Vec<DatasetConfig> = copy.extra_datasets().into_iter().map(|entry| entry.clone()).collect();
        [&self.stage().datasets[..], &extra].concat()
    }
    /// Returns the model directory that determines the output, if any.
    fn model(&self) -> Option<&Path>;
    /// Returns the config of this kind in a pipeline step, if the step is of this kind.
    fn of(step: &StepConfig) -> Option<&Self>;
    /// Checks constraints between several keys. `group` is the prefix of the keys.
    fn check(&self, place: &Place, group: &str) -> Result<()>;
}

/// Implements [`Config`] and [`StageKeys`] for the configs of the stages, each with the key of its step, its keys of
/// further data sets and of a model, and its check.
macro_rules! stages {
    ($($step:ident: $config:ident [$($sets:ident)?] [$($model:ident)?] $check:expr;)+) => {
        $(
            impl Config for $config {
                const NAME: &'static str = stringify!($step);

                fn prepare(tree: &mut Map<String, Value>, env: &dyn Fn(&str) -> Option<String>) {
                    prepare_teacher(Self::NAME, tree, env);
                }

                fn sources(&mut self) -> Vec<(String, Source<'_>)> {
                    let all = rows_of("datasets", &mut self.stage.datasets);
                    $( let all = all.chain(rows_of(stringify!($sets), &mut self.$sets)); )?
                    $( let all = all.chain(model_of(stringify!($model), &mut self.$model)); )?
                    all.collect()
                }

                fn validate(&self, place: &Place) -> Result<()> {
                    self.check(place, "")
                }
            }

            impl StageKeys for $config {
                fn stage(&self) -> &StageConfig {
                    &self.stage
                }

                fn stage_mut(&mut self) -> &mut StageConfig {
                    &mut self.stage
                }

                fn extra_datasets(&mut self) -> Vec<&mut DatasetConfig> {
                    let sets: [&mut [DatasetConfig]; _] = [$( &mut self.$sets )?];
                    sets.into_iter().flatten().collect()
                }

                fn model(&self) -> Option<&Path> {
                    [$( self.$model.as_deref() )?].into_iter().next().flatten()
                }

                fn of(step: &StepConfig) -> Option<&Self> {
                    step.$step.as_ref()
                }

                fn check(&self, place: &Place, group: &str) -> Result<()> {
                    let check: fn(&Self, &Place, &str) -> Result<()> = $check;
                    check(self, place, group)
                }
            }
        )+

        /// Checks the config of `step`, whose keys are in `group`.
        fn check_step(step: &StepConfig, place: &Place, group: &str) -> Result<()> {
            $( step.$step.as_ref().map_or(Ok(()), |config| config.check(place, &join(group, stringify!($step))))?; )+
            Ok(())
        }
    };
}

stages! {
    format: FormatConfig [] [] |_, _, _| Ok(());
    distill: DistillConfig [] [] |config, place, group| check_judge(place, group, &config.judge);
    verify: VerifyConfig [] [] |config, place, group| check_judge(place, group, &config.judge);
    passrate: PassrateConfig [] [model] |config, place, group| check_judge(place, group, &config.judge);
    dedup: DedupConfig [against] [model] DedupConfig::check_model;
    filter: FilterConfig [] [model] FilterConfig::check_model;
    mix: MixConfig [] [] |_, _, _| Ok(());
}

/// Sets the teacher of the stage `name` from the environment, if it is `distill`.
fn prepare_teacher(name: &str, tree: &mut Map<String, Value>, env: &dyn Fn(&str) -> Option<String>) {
    if name == DistillConfig::NAME {
        let teacher = [("OAI_BASE_URL", "base_url"), ("OAI_API_KEY", "api_key"), ("MODEL_VERSION", "model")];
        group_from_env(tree, "teacher", &teacher, env);
    }
}

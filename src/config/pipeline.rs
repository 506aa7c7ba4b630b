//! Config keys of the data pipeline: one config per stage, and one that lists several stages.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::data::{model_of, rows_of};
use super::environment::{group_from_env, judge_from_env};
use super::judge::check_judge;
use super::table::Table;
use super::{
    Changed, Config, DatasetConfig, Dtype, EndpointConfig, JudgeConfig, MOST_SEQUENCES, Mode, Place, Rule, Safe, Source,
};
use crate::error::{Error, Result};

choice! {
    /// Which columns rows are written with.
    pub enum RowForm {
        /// That of the data set: SFT where its first row ends with an answer, else RL.
        Auto = "auto",
        /// `id`, `messages`, `images`.
        Sft = "sft",
        /// verl's: `data_source`, `prompt`, `images`, `reward_model`, `extra_info`.
        Rl = "rl",
    }
}

choice! {
    /// How pictures that are files are written.
    pub enum Pictures {
        /// Their bytes: the file stands alone.
        Embed = "embed",
        /// Their urls, as the rows have them.
        Path = "path",
    }
}

settings! {
    /// Keys of every stage.
    pub struct StageConfig {
        /// Rows that are read. In a list of stages `stage:NAME` stands for what an earlier stage wrote, `stage:NAME/FILE` for
        /// one file of it, and nothing for what the stage before wrote.
        datasets: Vec<DatasetConfig> = Vec::new();
        /// Columns of what is written: `sft` for conversations, `rl` for questions with labels, `auto` as the rows are.
        form: RowForm = RowForm::Auto;
        /// Pictures in what is written: their bytes, or the urls of the rows.
        images: Pictures = Pictures::Embed;
        /// A larger share of rows that cannot be read ends the stage.
        max_bad_rows: f64 = 0.01, rule: Rule::Within(0.0, 1.0);
        /// Kinds of inputs that may differ from what the stage began with: `rows`, `model` and `stages`. The stage then runs
        /// again over what is there; remove the key afterwards.
        accept_changed: Vec<Changed> = Vec::new(), safe: Safe::Yes;
    }
}

settings! {
    /// `omr data format`: rows in any layout that is read to rows in one.
    pub struct FormatConfig with stage: StageConfig {
        ..stage;
        /// System prompt in place of the rows' own; null keeps those, an empty text takes them off.
        system_prompt: Option<String> = None;
    }
}

settings! {
    /// `omr data distill`: questions to a teacher, answers verified, the right ones kept.
    pub struct DistillConfig with stage: StageConfig {
        stage.datasets = Vec::new();
        stage.images = Pictures::Embed;
        stage.max_bad_rows = 0.01;
        stage.accept_changed = Vec::new();
        /// Answers asked for each question.
        num_rollouts: usize = 1, rule: Rule::Within(1.0, MOST_SEQUENCES), name: "distill_response.py --num_rollouts",
            published: "8 for the final set";
        /// The server that answers; a recipe with a teacher of its own starts that.
        teacher: Option<EndpointConfig> = None;
        /// The server asked about answers the rules call wrong; null asks none.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// System prompt of the rows kept; null takes the published one, an empty text keeps what the rows have.
        system_prompt: Option<String> = None;
        /// Seed of the seeds sent with the requests; a recipe uses its own.
        seed: u64 = 1;
        /// `strict` is the right scorer, `compat` the published one.
        mode: Mode = Mode::Strict, published: "compat";
    }
}

settings! {
    /// `omr data verify`: rows with an answer and a label; those whose answer is right are kept.
    pub struct VerifyConfig with stage: StageConfig {
        stage.datasets = Vec::new();
        stage.images = Pictures::Embed;
        stage.max_bad_rows = 0.01;
        stage.accept_changed = Vec::new();
        /// Score each row's label in place of an answer, as for questions of RL: rows are kept whose label the verifier proves
        /// equal to itself.
        labels: bool = false;
        /// The server asked about answers the rules call wrong; null asks none.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// `strict` is the right scorer, `compat` the published one.
        mode: Mode = Mode::Strict, published: "compat";
    }
}

settings! {
    /// `omr data passrate`: a model answers each question several times; the share of right answers becomes
    /// `extra_info.pass_rate`, the mean reward `extra_info.avg_reward`.
    pub struct PassrateConfig with stage: StageConfig {
        ..stage;
        /// Model directory.
        model: Option<PathBuf> = None, name: "vllm_inference_with_reward.py --model_path",
            published: "Qwen/Qwen2.5-VL-7B-Instruct";
        /// Answers to each question.
        n: usize = 8, rule: Rule::Within(1.0, MOST_SEQUENCES), name: "vllm_inference_with_reward.py --num_rollouts", published: "8";
        /// Logits are divided by this.
        temperature: f64 = 1.0, rule: Rule::AtLeast(1e-6), published: "1";
        /// Sample from the fewest tokens whose probabilities reach this.
        top_p: f64 = 0.9, rule: Rule::Within(0.0, 1.0), published: "0.9";
        /// Most tokens of an answer.
        max_tokens: usize = 8192, rule: Rule::AtLeast(1.0), published: "8192";
        /// Longer prompts, pictures included, are left out as overlong.
        max_prompt_length: usize = 8192, rule: Rule::AtLeast(1.0);
        /// Most answers under way at once.
        max_num_seqs: usize = 256, rule: Rule::AtLeast(1.0), name: "vLLM max_num_seqs";
        /// What weights and activations are stored as.
        dtype: Dtype = Dtype::Auto;
        /// The server asked about answers the rules call wrong; null asks none.
        judge: Option<JudgeConfig> = None, name: "USE_LLM_JUDGE=true with OPENAI_BASE_URL, OPENAI_MODEL_NAME";
        /// `strict` is the right scorer, `compat` the published one.
        mode: Mode = Mode::Strict, published: "compat";
        /// Seed of the sampling.
        seed: u64 = 1;
    }
}

settings! {
    /// `omr data filter`: rows within bounds. A bound that is null is none.
    pub struct FilterConfig with stage: StageConfig {
        ..stage;
        /// Model directory: its tokenizer, chat template and image sizes count tokens; needed with a bound on them.
        model: Option<PathBuf> = None;
        /// Tokens of a row, pictures included: of the training sample where it ends with an answer, else of the prompt.
        min_tokens: Option<usize> = None, name: "filter.py length: filter_length", published: "keeps longer rows";
        /// The same, at most.
        max_tokens: Option<usize> = None;
        /// Characters of a row's messages.
        min_characters: Option<usize> = None;
        /// The same, at most.
        max_characters: Option<usize> = None;
        /// Least share of right answers, `extra_info.pass_rate`; rows without one are then rejected.
        min_pass_rate: Option<f64> = None, rule: Rule::Within(0.0, 1.0);
        /// The same, at most.
        max_pass_rate: Option<f64> = None, rule: Rule::Within(0.0, 1.0);
    }
}

settings! {
    /// `omr data mix`: several data sets in one, each by its `weight` and `limit`: 2.5 takes every row twice and half of
    /// them once more.
    pub struct MixConfig with stage: StageConfig {
        ..stage;
        /// Name of the data set that is written.
        name: String = "mix".to_owned(), rule: Rule::NotEmpty;
        /// Data sets by turns, drawn by their sizes; false writes one after another. Rows of each keep their order.
        interleave: bool = true;
        /// So many rows in all, at most.
        max_rows: Option<usize> = None, rule: Rule::AtLeast(1.0);
        /// Draws which rows a fraction of a weight takes, and the turns.
        seed: u64 = 1;
    }
}

settings! {
    /// `omr data dedup`: rows whose question and pictures are those of another, of an earlier data set or of a benchmark.
    pub struct DedupConfig with stage: StageConfig {
        ..stage;
        /// Questions this alike are the same, of 1: by the parts of five characters they share, their numbers equal.
        text_threshold: f64 = 0.99, rule: Rule::Within(0.5, 1.0), name: "deduplicate.py --threshold", published: "0.99";
        /// Pictures are the same when their difference hashes differ in at most so many of 64 bits, and their brightness goes
        /// together.
        hash_distance: usize = 8, rule: Rule::Within(0.0, 16.0);
        /// Model directory, whose vision tower then looks at every picture; null looks at the hashes alone.
        model: Option<PathBuf> = None;
        /// With a model pictures are the same, too, when the means of the tower's rows have this cosine, and their brightness
        /// roughly goes together.
        embed_threshold: f64 = 0.99, rule: Rule::Within(0.01, 1.0), name: "deduplicate.py --threshold", published: "0.99";
        /// Look for doubles within each data set, too; a row then stays once.
        within: bool = true, published: "false";
        /// Benchmarks: rows of them are in no output.
        against: Vec<DatasetConfig> = Vec::new();
        /// `strict` keeps the first of several, `compat` drops as the published pipeline: never within a data set, and of two
        /// data sets' the one in the later stays.
        mode: Mode = Mode::Strict, published: "compat";
    }
}

settings! {
    /// A stage of a pipeline: its name and the config of one kind.
    pub struct StepConfig {
        /// Names the stage and its folder.
        name: String = String::new(), rule: Rule::NotEmpty;
        /// `omr data format`.
        format: Option<FormatConfig> = None;
        /// `omr data distill`.
        distill: Option<DistillConfig> = None;
        /// `omr data verify`.
        verify: Option<VerifyConfig> = None;
        /// `omr data passrate`.
        passrate: Option<PassrateConfig> = None;
        /// `omr data dedup`.
        dedup: Option<DedupConfig> = None;
        /// `omr data filter`.
        filter: Option<FilterConfig> = None;
        /// `omr data mix`.
        mix: Option<MixConfig> = None;
    }
}

impl StepConfig {
    /// Kinds of stages it has a config of.
    pub fn kinds(&self) -> Vec<&'static str> {
        let mut step = self.clone();
        let given = step.lines().into_iter().filter(|line| line.name != "name" && !line.value.write().is_null());
        given.map(|line| line.name).collect()
    }
}

settings! {
    /// `omr data run`: stages in their order.
    pub struct DataConfig {
        /// The stages; each has a folder of its own, with its own settings, in --out.
        stages: Vec<StepConfig> = Vec::new(), safe: Safe::Yes;
        /// Kinds of inputs that may differ from what a stage began with; it is the stages' accept_changed too.
        accept_changed: Vec<Changed> = Vec::new(), safe: Safe::Yes;
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
                if kind == DistillConfig::NAME {
                    DistillConfig::prepare(config, env);
                }
            }
        }
    }

    fn validate(&self, place: &Place) -> Result<()> {
        for (i, step) in self.stages.iter().enumerate() {
            let kinds = step.kinds();
            if kinds.len() != 1 {
                let found = if kinds.is_empty() { "none".to_owned() } else { kinds.join(" and ") };
                let expected = "one of format, distill, verify, passrate, dedup, filter, mix";
                return Err(Error::input(place.of(&format!("stages.{i}")), found, expected));
            }
            if step.name.contains(['/', '\\', '.']) || self.stages[..i].iter().any(|other| other.name == step.name) {
                let expected = "a name of its own, without dots and slashes: it names a folder";
                return Err(Error::input(place.of(&format!("stages.{i}.name")), &step.name, expected));
            }
            let judge =
                |judge: &Option<JudgeConfig>, kind: &str| check_judge(place, &format!("stages.{i}.{kind}"), judge);
            step.distill.as_ref().map_or(Ok(()), |c| judge(&c.judge, "distill"))?;
            step.verify.as_ref().map_or(Ok(()), |c| judge(&c.judge, "verify"))?;
            step.passrate.as_ref().map_or(Ok(()), |c| judge(&c.judge, "passrate"))?;
            step.dedup.as_ref().map_or(Ok(()), |c| c.check_model(place, &format!("stages.{i}.dedup.")))?;
        }
        Ok(())
    }
}

impl Config for DistillConfig {
    const NAME: &'static str = "distill";

    fn prepare(tree: &mut Map<String, Value>, env: &dyn Fn(&str) -> Option<String>) {
        let teacher = [("OAI_BASE_URL", "base_url"), ("OAI_API_KEY", "api_key"), ("MODEL_VERSION", "model")];
        group_from_env(tree, "teacher", &teacher, env);
    }

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        rows_of("datasets", &mut self.stage.datasets).collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        check_judge(place, "", &self.judge)
    }
}

impl Config for VerifyConfig {
    const NAME: &'static str = "verify";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        rows_of("datasets", &mut self.stage.datasets).collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        check_judge(place, "", &self.judge)
    }
}

impl Config for PassrateConfig {
    const NAME: &'static str = "passrate";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        rows_of("datasets", &mut self.stage.datasets).chain(model_of("model", &mut self.model)).collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        check_judge(place, "", &self.judge)
    }
}

impl Config for FormatConfig {
    const NAME: &'static str = "format";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        rows_of("datasets", &mut self.stage.datasets).collect()
    }
}

impl Config for FilterConfig {
    const NAME: &'static str = "filter";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        rows_of("datasets", &mut self.stage.datasets).chain(model_of("model", &mut self.model)).collect()
    }
}

impl Config for MixConfig {
    const NAME: &'static str = "mix";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        rows_of("datasets", &mut self.stage.datasets).collect()
    }
}

impl DedupConfig {
    /// Errors where the threshold is set of embeddings that nothing makes.
    fn check_model(&self, place: &Place, group: &str) -> Result<()> {
        if self.model.is_none() && self.embed_threshold != DedupConfig::default().embed_threshold {
            let found = format!("{} without a model", self.embed_threshold);
            return Err(Error::input(
                place.of(&format!("{group}embed_threshold")),
                found,
                "a model directory as `model`",
            ));
        }
        Ok(())
    }
}

impl Config for DedupConfig {
    const NAME: &'static str = "dedup";

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        rows_of("datasets", &mut self.stage.datasets)
            .chain(rows_of("against", &mut self.against))
            .chain(model_of("model", &mut self.model))
            .collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        self.check_model(place, "")
    }
}

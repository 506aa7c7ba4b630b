//! Config keys of the whole recipe: one file for data, SFT, RL, the control run and evaluation.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::data::{model_of, rows_of};
use super::environment::judge_from_env;
use super::judge::check_judge;
use super::{
    Changed, Config, DistConfig, DistillConfig, Dtype, EvalConfig, MOST_STEPS, Place, RlConfig, Rule, Safe, SftConfig,
    Source, table,
};
use crate::error::{Error, Result};

settings! {
    /// Shape of the vision tower of a new model, in config.json's words.
    pub struct VisionConfig {
        /// Width.
        hidden_size: usize = 64, rule: Rule::AtLeast(1.0), published: "1280";
        /// Layers.
        depth: usize = 2, rule: Rule::AtLeast(1.0), published: "32";
        /// Attention heads.
        num_heads: usize = 4, rule: Rule::AtLeast(1.0), published: "16";
        /// Width inside the feed-forward part.
        intermediate_size: usize = 128, rule: Rule::AtLeast(1.0), published: "3420";
        /// Attention windows, in pixels.
        window_size: usize = 112, rule: Rule::AtLeast(1.0), published: "112";
        /// Layers that attend to the whole picture.
        fullatt_block_indexes: Vec<usize> = vec![0, 1], published: "[7, 15, 23, 31]";
    }
}

settings! {
    /// The model a recipe starts from: a directory, or a new one of this shape.
    pub struct BaseConfig {
        /// Model directory; null makes a new model with random weights.
        model: Option<PathBuf> = None, published: "Qwen/Qwen2.5-VL-7B-Instruct";
        /// At most this many token ids; the tokenizer is trained on the task's texts.
        vocab_size: usize = 512, rule: Rule::AtLeast(300.0), published: "152064";
        /// Width.
        hidden_size: usize = 96, rule: Rule::AtLeast(2.0), published: "3584";
        /// Decoder layers.
        num_hidden_layers: usize = 3, rule: Rule::AtLeast(1.0), published: "28";
        /// Query heads.
        num_attention_heads: usize = 3, rule: Rule::AtLeast(1.0), published: "28";
        /// Key and value heads.
        num_key_value_heads: usize = 1, rule: Rule::AtLeast(1.0), published: "4";
        /// Width inside the feed-forward part.
        intermediate_size: usize = 256, rule: Rule::AtLeast(1.0), published: "18944";
        /// Shares of half a head for time, height and width.
        mrope_section: Vec<usize> = vec![4, 6, 6], published: "[16, 24, 24]";
        /// Base of the rotary frequencies.
        rope_theta: f64 = 1e6, rule: Rule::Above(0.0), published: "1000000";
        /// The output matrix is the token table.
        tie_word_embeddings: bool = true, published: "false";
        /// Deviation of the random matrices.
        initializer_range: f64 = 0.05, rule: Rule::Above(0.0), published: "0.02";
        /// The vision tower.
        vision: VisionConfig = VisionConfig::default();
    }
}

settings! {
    /// The recipe's own teacher: how often it answers how.
    pub struct TeacherConfig {
        /// Share of answers in the careful style; the rest is hasty.
        careful: f64 = 0.75, rule: Rule::Within(0.0, 1.0);
        /// Chance to misread a picture.
        misread: f64 = 0.1, rule: Rule::Within(0.0, 1.0);
        /// Chance to slip in the arithmetic.
        slip: f64 = 0.1, rule: Rule::Within(0.0, 1.0);
        /// Chance to break the format.
        malformed: f64 = 0.05, rule: Rule::Within(0.0, 1.0);
    }
}

settings! {
    /// What the recipe teaches.
    pub struct TaskConfig {
        /// The task, by name.
        name: String = "digits".to_owned();
        /// Measure on the tuning pictures and train without them, as when choosing settings; a reported run
        /// measures on the held-out pictures and trains on all others.
        tuning: bool = false;
        /// Questions put to the teacher.
        num_sft_questions: usize = 1667, rule: Rule::AtLeast(1.0);
        /// Questions RL draws from.
        num_rl_questions: usize = 4096, rule: Rule::AtLeast(1.0);
        /// Questions measured on.
        num_heldout_questions: usize = 500, rule: Rule::AtLeast(1.0);
        /// Training pictures are shifted at random by up to this many pixels.
        shift: u32 = 2, rule: Rule::Within(0.0, 8.0);
        /// The teacher.
        teacher: TeacherConfig = TeacherConfig::default();
    }
}

settings! {
    /// The control: SFT continued instead of RL.
    pub struct ControlConfig {
        /// Run it.
        enable: bool = true;
        /// Updates; null takes as many as RL makes.
        max_steps: Option<u64> = None, rule: Rule::Within(1.0, MOST_STEPS);
        /// Constant learning rate; null takes the one SFT ended with.
        learning_rate: Option<f64> = None, rule: Rule::Above(0.0);
    }
}

settings! {
    /// `omr recipe`.
    pub struct RecipeConfig {
        /// Seed of everything random; it is the stages' seed too.
        seed: u64 = 1;
        /// Storage of weights and activations; it is the stages' dtype too. `auto` is bf16 where kernels run, f32 on
        /// the CPU; the run directory records which.
        dtype: Dtype = Dtype::Auto, published: "bf16";
        /// What is taught and measured.
        task: TaskConfig = TaskConfig::default();
        /// The model to start from.
        base: BaseConfig = BaseConfig::default();
        /// Distillation and verification.
        data: DistillConfig = DistillConfig::default();
        /// Supervised fine-tuning.
        sft: SftConfig = SftConfig::default();
        /// Reinforcement learning.
        rl: RlConfig = RlConfig::default();
        /// SFT continued, for comparison.
        control: ControlConfig = ControlConfig::default();
        /// Evaluation.
        eval: EvalConfig = EvalConfig::default();
        /// Kinds of inputs that may differ from what a stage began with; it is the stages' accept_changed too.
        accept_changed: Vec<Changed> = Vec::new(), safe: Safe::Yes;
        /// The ranks of a recipe of many processes, in all stages.
        dist: DistConfig = DistConfig::default();
    }
}

impl Config for RecipeConfig {
    const NAME: &'static str = "recipe";
    const MORE_IS_SAFE: bool = false;
    const PRESET_AT: Option<&'static str> = Some("rl");

    fn prepare(tree: &mut Map<String, Value>, env: &dyn Fn(&str) -> Option<String>) {
        let default = RecipeConfig::default();
        let seed = tree.get("seed").cloned().unwrap_or(Value::from(default.seed));
        let accepted = tree.get("accept_changed").cloned();
        let dtype = tree.get("dtype").cloned().unwrap_or(Value::from(default.dtype.name()));
        for name in ["data", "sft", "rl", "eval"] {
            let Some(stage) = table::group(tree, name) else { continue };
            stage.entry("seed").or_insert(seed.clone());
            if name != "data" {
                stage.entry("dtype").or_insert(dtype.clone());
            }
            if let ("data" | "sft" | "rl", Some(accepted)) = (name, &accepted) {
                stage.insert("accept_changed".to_owned(), accepted.clone());
            }
            if name != "sft" {
                judge_from_env(stage, env);
            }
        }
    }

    fn sources(&mut self) -> Vec<(String, Source<'_>)> {
        model_of("base.model", &mut self.base.model)
            .chain(rows_of("data.datasets", &mut self.data.stage.datasets))
            .chain(rows_of("sft.datasets", &mut self.sft.datasets))
            .chain(rows_of("rl.train_files", &mut self.rl.train_files))
            .chain(rows_of("rl.val_files", &mut self.rl.validation.val_files))
            .chain(rows_of("eval.data", &mut self.eval.data))
            .collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        check_judge(place, "data", &self.data.judge)?;
        check_judge(place, "eval", &self.eval.judge)?;
        self.rl.check_parts(place, "rl")?;
        let (control, rl) = (&self.control, &self.rl);
        let counted = control.max_steps.or(rl.total_training_steps).is_some();
        if control.enable && !counted && !rl.train_files.is_empty() {
            let expected =
                "a number, or rl.total_training_steps: the prompts of rl.train_files are counted when RL begins";
            return Err(Error::input(place.of("control.max_steps"), "null", expected));
        }
        if let (true, Some(rate)) = (self.sft.optimizer.bf16_stochastic_round, self.control.learning_rate) {
            super::sft::check_rate(place, "control.learning_rate", rate)?;
        }
        self.sft.check_parts(place, "sft")
    }
}

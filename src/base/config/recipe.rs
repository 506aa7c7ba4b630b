//! Config keys of the whole recipe: one file for data, SFT, RL, continued SFT and evaluation.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::data::{files_of, model_of, rows_of};
use super::distillation::teacher_of;
use super::environment::judge_from_env;
use super::judge::check_judge;
use super::{
    Config, DistConfig, DistillConfig, Dtype, EvalConfig, InputKind, MicroBatchTokens, Place, ReportTo, RlConfig, Rule,
    Safe, SftConfig, Source, table,
};
use crate::error::Result;

settings! {
    /// Shape of the vision tower of a new model, with the names of config.json.
    pub struct VisionConfig {
        /// Width of the hidden states.
        hidden_size: usize = 64, rule: Rule::AtLeast(1.0), published: "1280";
        /// Number of layers.
        depth: usize = 2, rule: Rule::AtLeast(1.0), published: "32";
        /// Number of attention heads.
        num_heads: usize = 4, rule: Rule::AtLeast(1.0), published: "16";
        /// Width inside the MLP.
        intermediate_size: usize = 128, rule: Rule::AtLeast(1.0), published: "3420";
        /// Side of an attention window, in pixels. Only for the family qwen2_5_vl.
        window_size: usize = 112, rule: Rule::AtLeast(1.0), published: "112";
        /// Layers that attend to the whole image instead of a window. Only for the family qwen2_5_vl.
        fullatt_block_indexes: Vec<usize> = vec![0, 1], published: "[7, 15, 23, 31]";
        /// Number of learned positions, a square. Only for the family qwen3_vl.
        num_position_embeddings: usize = 64, rule: Rule::AtLeast(1.0), published: "2304";
        /// Layers whose rows the decoder adds after its first layers. Only for the family qwen3_vl.
        deepstack_visual_indexes: Vec<usize> = vec![0], published: "[5, 11, 17]";
    }
}

settings! {
    /// The model that a recipe starts from: a directory, or a new model of this shape.
    pub struct BaseConfig {
        /// Model directory. null = a new model with random weights.
        model: Option<PathBuf> = None, published: "Qwen/Qwen2.5-VL-7B-Instruct";
        /// Family of the new model: a `model_type` of config.json, such as qwen3_vl. null = qwen2_5_vl.
        family: Option<String> = None;
        /// Maximum number of token ids. The tokenizer is trained on the texts of the task.
        vocab_size: usize = 512, rule: Rule::AtLeast(300.0), published: "152064";
        /// Width of the hidden states.
        hidden_size: usize = 96, rule: Rule::AtLeast(2.0), published: "3584";
        /// Number of decoder layers.
        num_hidden_layers: usize = 3, rule: Rule::AtLeast(1.0), published: "28";
        /// Number of query heads.
        num_attention_heads: usize = 3, rule: Rule::AtLeast(1.0), published: "28";
        /// Number of key and value heads.
        num_key_value_heads: usize = 1, rule: Rule::AtLeast(1.0), published: "4";
        /// Width inside the MLP.
        intermediate_size: usize = 256, rule: Rule::AtLeast(1.0), published: "18944";
        /// Number of rotary frequencies for time, height and width; their sum is half the head width.
        mrope_section: Vec<usize> = vec![4, 6, 6], published: "[16, 24, 24]";
        /// Base of the rotary frequencies.
        rope_theta: f64 = 1e6, rule: Rule::Above(0.0), published: "1000000";
        /// Use the token table as the output matrix, too.
        tie_word_embeddings: bool = true, published: "false";
        /// Standard deviation of the random matrices.
        initializer_range: f64 = 0.05, rule: Rule::Above(0.0), published: "0.02";
        /// Shape of the vision tower.
        vision: VisionConfig = VisionConfig::default();
    }
}

settings! {
    /// The built-in teacher of the recipe, with the probabilities of its kinds of answers.
    pub struct TeacherConfig {
        /// Share of answers in a careful style. The other answers are in a hasty style.
        careful: f64 = 0.75, rule: Rule::Within(0.0, 1.0);
        /// Probability that an answer misreads an image.
        misread: f64 = 0.1, rule: Rule::Within(0.0, 1.0);
        /// Probability that an answer contains an arithmetic error.
        slip: f64 = 0.1, rule: Rule::Within(0.0, 1.0);
        /// Probability that an answer has the wrong format.
        malformed: f64 = 0.05, rule: Rule::Within(0.0, 1.0);
    }
}

settings! {
    /// The task that the recipe trains and evaluates.
    pub struct TaskConfig {
        /// Name of the task: digits or charts.
        name: String = "digits".to_owned();
        /// Evaluate on the tuning images and do not train on them. Use this to choose settings. false = evaluate on
        /// the held-out images and train on all others, as for reported results.
        tuning: bool = false;
        /// Number of questions for the teacher.
        num_sft_questions: usize = 1667, rule: Rule::AtLeast(1.0);
        /// The teacher also answers the questions of RL. Its verified answers are written to data/distill/rl.parquet,
        /// and no stage of the recipe uses them.
        teach_rl_questions: bool = false;
        /// Number of questions for RL.
        num_rl_questions: usize = 4096, rule: Rule::AtLeast(1.0);
        /// Number of questions for the evaluation.
        num_heldout_questions: usize = 500, rule: Rule::AtLeast(1.0);
        /// Kinds of the questions for the teacher. null = all kinds of the task.
        sft_kinds: Option<Vec<String>> = None;
        /// Kinds of the questions for RL. null = all kinds of the task.
        rl_kinds: Option<Vec<String>> = None;
        /// Maximum random shift of training images, in pixels.
        shift: u32 = 2, rule: Rule::Within(0.0, 8.0);
        /// Maximum random shift of evaluation images, in pixels.
        heldout_shift: u32 = 0, rule: Rule::Within(0.0, 8.0);
        /// Settings of the built-in teacher.
        teacher: TeacherConfig = TeacherConfig::default();
    }
}

settings! {
    /// Continued SFT: SFT is continued instead of RL, for comparison.
    pub struct ControlConfig {
        /// Continue SFT.
        enable: bool = true;
        /// Number of updates. null = the number of updates of RL.
        max_steps: Option<u64> = None, rule: Rule::STEPS;
        /// Number of rows per update. null = the number of answers that RL trains per update.
        train_batch_size: Option<usize> = None, rule: Rule::SEQUENCES;
        /// Constant learning rate. null = the final learning rate of SFT.
        learning_rate: Option<f64> = None, rule: Rule::Above(0.0);
    }
}

settings! {
    /// Config of `omr recipe`.
    pub struct RecipeConfig {
        /// Seed of all random numbers. It is also the default seed of the stages.
        seed: u64 = 1, group: "The whole recipe";
        /// Data type of weights and activations, also the default of the stages. `auto` = bf16 with GPU kernels, f32 on
        /// the CPU; the run directory records which.
        dtype: Dtype = Dtype::Auto, published: "bf16";
        /// The task that is trained and evaluated.
        task: TaskConfig = TaskConfig::default(), group: "Task";
        /// The model to start from.
        base: BaseConfig = BaseConfig::default(), group: "Model to start from";
        /// Distillation and verification.
        data: DistillConfig = DistillConfig::default(), group: "Distillation and verification";
        /// Supervised fine-tuning.
        sft: SftConfig = SftConfig::default();
        /// Reinforcement learning.
        rl: RlConfig = RlConfig::default();
        /// Continued SFT, for comparison with RL.
        control: ControlConfig = ControlConfig::default(), group: "Continued SFT, for comparison";
        /// Evaluation.
        eval: EvalConfig = EvalConfig::default(), group: "Evaluation";
        /// Kinds of inputs that may have changed since a stage was started. Also set for all stages.
        accept_changed: Vec<InputKind> = Vec::new(), safe: Safe::Yes, group: "All stages";
        /// Services that show the metrics of the training stages: tensorboard, wandb, mlflow, swanlab. Default of
        /// sft.report_to and rl.report_to.
        report_to: Vec<ReportTo> = vec![ReportTo::Tensorboard], safe: Safe::Yes;
        /// Settings for a recipe with several ranks, in all stages.
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
        let report_to = tree.get("report_to").cloned();
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
            if let ("sft" | "rl", Some(report_to)) = (name, &report_to) {
                stage.entry("report_to").or_insert(report_to.clone());
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
            .chain(teacher_of("rl.distillation.teacher", &mut self.rl.distillation))
            .chain(rows_of("rl.train_files", &mut self.rl.train_files))
            .chain(rows_of("rl.val_files", &mut self.rl.validation.val_files))
            .chain(files_of("rl.val_data_dir", &mut self.rl.validation.val_data_dir))
            .chain(rows_of("eval.data", &mut self.eval.data))
            .collect()
    }

    fn validate(&self, place: &Place) -> Result<()> {
        check_judge(place, "data", &self.data.judge)?;
        check_judge(place, "eval", &self.eval.judge)?;
        self.rl.check_parts(place, "rl")?;
        let (control, rl) = (&self.control, &self.rl);
        let counted = control.max_steps.or(rl.total_training_steps).is_some();
        let is_known = !control.enable || counted || rl.train_files.is_empty();
        let expected = "a number, or rl.total_training_steps: the prompts of rl.train_files are counted when RL begins";
        place.check(is_known, "control.max_steps", "null", expected)?;
        if let (true, Some(rate)) = (self.sft.optimizer.bf16_stochastic_round, self.control.learning_rate) {
            super::sft::check_rate(place, "control.learning_rate", rate)?;
        }
        let is_number = self.sft.micro_batch_tokens != MicroBatchTokens::Auto;
        place.check(
            is_number,
            "sft.micro_batch_tokens",
            "auto",
            "a number: a recipe has the same bits on every machine",
        )?;
        self.sft.check_parts(place, "sft")
    }
}

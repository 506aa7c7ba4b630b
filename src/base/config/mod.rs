//! Configuration: turns YAML files and command-line overrides into typed, validated, immutable values.
//!
//! Every key is declared once, in the tables of `recipe.rs`, `sft.rs`, `rl.rs`, `eval.rs`, `data.rs` and similar files.
//! A declaration contains the key's type, default, description, allowed values, name in other systems and published
//! value. The struct, the reader, the writer, the list of `omr config` and the comparison on resume are all generated
//! from it.
//!
//! Order of precedence: command line, environment, file, default.

#![forbid(unsafe_code)]

// These two modules come first, because their macros declare the tables of the other modules.
#[macro_use]
mod choice;
#[macro_use]
mod table;

mod chat_template;
mod convert;
mod data;
mod describe;
mod dist;
mod distillation;
mod domains;
mod environment;
mod eval;
mod expand;
mod foreign;
mod generate;
mod images;
mod judge;
mod lora;
mod micro_batch;
mod named;
mod optim;
mod pipeline;
mod preset;
#[cfg(test)]
#[path = "published/tests.rs"]
mod published_tests;
mod quantization;
pub mod recipe;
pub mod rl;
mod rollout;
mod script;
mod serve;
mod setting;
mod sft;
mod shell;
mod source;
mod task_file;
#[cfg(test)]
mod tests;
mod training;
mod unknown;
pub mod validation;

pub use crate::choice::{Dtype, KlLossType, LossAggMode, LossMode, nearest, not_one_of};
pub use chat_template::ChatTemplateKwargs;
pub use choice::{Choice, choose};
pub use convert::{ADAPTER, from_other};
pub use data::{ColumnsConfig, DataType, DatasetConfig, EndpointConfig};
pub use describe::inline;
pub use dist::{Backend, DistConfig};
pub use distillation::DistillationConfig;
pub use domains::DomainWeights;
pub use eval::{EvalConfig, ServerConfig};
pub use foreign::counterpart;
pub use generate::GenerateConfig;
pub use images::{Image16Bit, ImageAlpha, ImageBackend, ImageConfig};
pub use judge::{JudgeConfig, ProgramConfig, Rewards, ScoreConfig, ScorerConfig};
pub use lora::LoraConfig;
pub use micro_batch::MicroBatchTokens;
pub use omr_verify::{Format, Mode};
pub use optim::{LrSchedulerType, OptimConfig, OptimizerName};
pub use pipeline::{
    DataConfig, DedupConfig, DistillConfig, FilterConfig, FormatConfig, Images, MixConfig, PassrateConfig, RowForm,
    StageConfig, StageKeys, StepConfig, VerifyConfig,
};
pub use preset::Preset;
pub use quantization::QuantizationConfig;
pub use recipe::{BaseConfig, RecipeConfig, TaskConfig, TeacherConfig};
pub use rl::{AdvEstimator, Curriculum, FilterMetric, KlCtrlConfig, KlCtrlType, RlConfig};
pub use rollout::RolloutConfig;
pub use serve::ServeConfig;
pub use setting::{Key, Meta, Place, Rule, Safe, Secret, Setting};
pub use sft::SftConfig;
pub use source::{
    Config, Difference, Source, deciding, differences, headed, keys, kind, likeliest, load, load_for,
    refuse_differences, schema, to_yaml,
};
pub use task_file::TaskFileConfig;
pub use training::TrainingConfig;
pub use validation::ValidationConfig;

/// Upper bound on the number of updates of a run. It is far above any real run and exists because memory planning loops
/// over all updates.
const MOST_STEPS: f64 = 1e8;

/// Default number of prompts per update in RL, if a generation batch has at least as many.
const MINI_BATCH: u64 = 64;

/// Upper bound on the number of sequences in a batch, 2^20. It rejects typing errors before memory is planned for them.
const MOST_SEQUENCES: f64 = 1_048_576.0;

choice! {
    /// A kind of input that a run depends on.
    pub enum InputKind {
        /// The model directory.
        Model = "model",
        /// Files of rows, and the index computed from them.
        Rows = "rows",
        /// Image files.
        Images = "pictures",
        /// The JPEG decoder, if an image is a JPEG.
        Decoder = "decoder",
        /// Weights of the reference model that the KL divergence is measured against.
        Reference = "reference",
        /// The teacher of on-policy distillation.
        Teacher = "teacher",
        /// Files of validation rows.
        Val = "val",
        /// Outputs of finished stages.
        Stages = "stages",
        /// `metrics.jsonl`.
        Log = "log",
    }
}

choice! {
    /// A service that shows the metrics of a run.
    pub enum ReportTo {
        /// Event files in `tensorboard/`.
        Tensorboard = "tensorboard",
        /// Weights & Biases.
        Wandb = "wandb",
        /// MLflow.
        Mlflow = "mlflow",
        /// SwanLab.
        Swanlab = "swanlab",
    }
}

choice! {
    /// Response to a log-prob of the trainer that differs from the sampler's.
    pub enum Parity {
        /// The run ends with an error.
        Error = "error",
        /// The run continues with a note.
        Warn = "warn",
        /// The log-probs are not compared.
        Off = "off",
    }
}

/// Default weight of the format in a score.
const FORMAT_WEIGHT: f64 = 0.1;

/// Settings of the scoring rules, made by [`ScorerConfig::rubric`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rubric {
    /// Scoring behaviour: strict, or compatible with the published scorer.
    pub mode: Mode,
    /// Format that the response must have.
    pub format: Format,
    /// Weight of the format in a score, from 0 to 1. The answer has the remaining weight.
    pub format_weight: f64,
    /// In strict mode, a right answer that stands alone in the last line counts.
    pub flexible_extract: bool,
    /// Coordinates in responses are normalised to 0 to 1000.
    pub normalize_bbox_to_1000: bool,
}

impl From<Mode> for Rubric {
    /// Uses the default format and the default format weight.
    fn from(mode: Mode) -> Rubric {
        ScorerConfig::default().rubric(mode)
    }
}

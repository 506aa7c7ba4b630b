//! Settings: YAML and overrides to typed, validated, immutable values.
//!
//! Every key is declared once, in the tables of `recipe.rs`, `sft.rs`, `rl.rs`, `eval.rs`, `data.rs` and the like: its
//! type, default, meaning, admitted values, name elsewhere and published value. The struct, the reader, the
//! writer, the listing of `omr config` and the comparison on resume all come from that line.
//!
//! Precedence: command line, then environment, then file, then default.

#![forbid(unsafe_code)]

// First: their macros declare the tables of the others.
#[macro_use]
mod choice;
#[macro_use]
mod table;

mod data;
mod dist;
mod environment;
mod eval;
mod foreign;
mod generate;
mod judge;
mod optim;
mod pipeline;
mod preset;
pub mod recipe;
pub mod rl;
mod said;
mod setting;
mod sft;
mod source;
mod task_file;
#[cfg(test)]
mod tests;
mod validation;

pub use choice::{Choice, choose};
pub use data::{ColumnsConfig, DataType, DatasetConfig, EndpointConfig};
pub use dist::{Backend, DistConfig};
pub use eval::{EvalConfig, ServerConfig};
pub use generate::GenerateConfig;
pub use judge::{JudgeConfig, ScoreConfig, ScorerConfig};
pub use omr_verify::{Format, Mode};
pub use optim::{LrSchedulerType, OptimConfig, OptimizerName};
pub use pipeline::{
    DataConfig, DedupConfig, DistillConfig, FilterConfig, FormatConfig, MixConfig, PassrateConfig, Pictures, RowForm,
    StageConfig, StepConfig, VerifyConfig,
};
pub use preset::Preset;
pub use recipe::{BaseConfig, RecipeConfig, TaskConfig, TeacherConfig};
pub use rl::{Curriculum, Draft, FilterMetric, KlCtrlConfig, KlCtrlType, KlLossType, LossAggMode, LossMode, RlConfig};
pub use said::{inline, nearest};
pub use setting::{Key, Meta, Place, Rule, Safe, Secret, Setting};
pub use sft::SftConfig;
pub use source::{Config, Source, deciding, headed, keys, likeliest, load, refuse_differences, to_yaml};
pub use task_file::TaskFileConfig;
pub use validation::{ValKwargs, ValidationConfig};

/// More updates than any run makes: all of them are gone through when memory is planned.
const MOST_STEPS: f64 = 1e8;

/// Sequences of one batch at most, 2^20: what a typing error makes of a batch is refused, not planned.
const MOST_SEQUENCES: f64 = 1_048_576.0;

choice! {
    /// What an element is stored as while computing; sums are fp32 either way.
    pub enum Dtype {
        /// bf16 where kernels run, f32 on the CPU.
        Auto = "auto",
        /// 32-bit float.
        F32 = "f32",
        /// bfloat16 storage, fp32 accumulation.
        Bf16 = "bf16",
    }
}

choice! {
    /// A kind of input that a run depends on.
    pub enum Changed {
        /// The model directory.
        Model = "model",
        /// Files of rows, and what the index makes of them.
        Rows = "rows",
        /// Files of pictures.
        Pictures = "pictures",
        /// The weights that a divergence is measured from.
        Reference = "reference",
        /// Files of validation rows.
        Val = "val",
        /// What finished stages wrote.
        Stages = "stages",
        /// `metrics.jsonl`.
        Log = "log",
    }
}

impl Default for Changed {
    /// What an item of a list is before it is read.
    fn default() -> Changed {
        Changed::Model
    }
}

/// Weight of the format in a score.
const FORMAT_WEIGHT: f64 = 0.1;

/// How the rules score; made by [`ScorerConfig::rubric`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rubric {
    /// Which behaviour of the original the rules follow.
    pub mode: Mode,
    /// The format that a response is asked for.
    pub format: Format,
    /// Its weight in a score, from 0 to 1; the rest is the answer's.
    pub format_weight: f64,
}

impl From<Mode> for Rubric {
    /// With the format and the weight of a config that names neither.
    fn from(mode: Mode) -> Rubric {
        ScorerConfig::default().rubric(mode)
    }
}

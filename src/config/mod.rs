//! Settings: YAML and overrides to typed, validated, immutable values.
//!
//! Every key is declared once, in the tables of `recipe.rs`, `sft.rs`, `rl.rs`, `eval.rs`, `data.rs` and the like: its
//! type, default, meaning, admitted values, name elsewhere and published value. The struct, the reader, the
//! writer, the listing of `omr config` and the comparison on resume all come from that line.
//!
//! Precedence: command line, then environment, then file, then default.

#![forbid(unsafe_code)]

// First: its macros declare the tables of the others.
#[macro_use]
mod setting;

mod data;
mod eval;
mod generate;
mod judge;
mod recipe;
mod rl;
mod sft;
mod source;
#[cfg(test)]
mod tests;

pub use data::{DataConfig, DataType, DatasetConfig, EndpointConfig};
pub use eval::EvalConfig;
pub use generate::{GenerateConfig, LoadDtype};
pub use judge::{CommandConfig, JudgeConfig, ScoreConfig};
pub use recipe::{BaseConfig, ControlConfig, RecipeConfig, TaskConfig, TeacherConfig, VisionConfig};
pub use rl::{
    AdvEstimator, FilterGroupsConfig, KlLossType, LossAggMode, LossMode, OverlongBufferConfig, RewardConfig, RlConfig,
    RolloutConfig,
};
pub use setting::{Key, Meta, Place, Rule, Safe, Secret, Setting};
pub use sft::SftConfig;
pub use source::{Config, Difference, deciding, differences, keys, load, nearest, refuse_differences, to_yaml};

/// More updates than any run makes: all of them are gone through when memory is planned.
const MOST_STEPS: f64 = 1e8;

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
    /// How the learning rate goes after the warm-up.
    pub enum LrSchedulerType {
        /// Half a cosine down to `min_lr_ratio`.
        Cosine = "cosine",
        /// A straight line down to `min_lr_ratio`.
        Linear = "linear",
        /// No change.
        Constant = "constant",
    }
}

choice! {
    /// What AdamW keeps its moments in. Norms, biases and the token table have them in f32 whatever is chosen.
    pub enum OptimizerName {
        /// f32.
        AdamwTorch = "adamw_torch",
        /// bf16; the second is rounded stochastically.
        AdamwBf16 = "adamw_bf16",
        /// Codes of 8 bits with a scale for 256 elements; the second is rounded stochastically.
        Adamw8bit = "adamw_8bit",
    }
}

choice! {
    /// Which behaviour of the original the reward follows.
    pub enum Mode {
        /// The right behaviour.
        Strict = "strict",
        /// The published behaviour, defects included.
        Compat = "compat",
    }
}

/// What AdamW and its schedule need; made by [`SftConfig::optim`] and [`RlConfig::optim`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Course after the warm-up.
    pub lr_scheduler_type: LrSchedulerType,
    /// Steps of linear warm-up, `warmup_ratio` already applied.
    pub warmup_steps: u64,
    /// Last learning rate over peak.
    pub min_lr_ratio: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// First-moment decay.
    pub adam_beta1: f64,
    /// Second-moment decay.
    pub adam_beta2: f64,
    /// Added to the root of the second moment.
    pub adam_epsilon: f64,
    /// Gradients are scaled down to this norm.
    pub max_grad_norm: f64,
    /// What the moments lie in.
    pub optim: OptimizerName,
    /// bf16 weights are rounded stochastically and have no f32 master.
    pub bf16_stochastic_round: bool,
    /// The run's seed, for stochastic rounding.
    pub seed: u64,
}

//! Config keys of AdamW and its learning rate, shared by SFT and RL.

use super::table::join;
use super::{Place, Rule, Safe};
use crate::error::{Error, Result};

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

settings! {
    /// AdamW and the course of its learning rate; how long it warms up is a key of each job's own.
    #[derive(Copy)]
    pub struct OptimConfig {
        /// Peak learning rate.
        learning_rate: f64 = 5e-5, rule: Rule::AtLeast(0.0);
        /// Course of the learning rate after the warm-up.
        lr_scheduler_type: LrSchedulerType = LrSchedulerType::Constant;
        /// Learning rate of the vision tower in place of learning_rate, in the same course; null takes that.
        vision_tower_lr: Option<f64> = None, rule: Rule::AtLeast(0.0);
        /// The same of the projector between tower and language model (`visual.merger`).
        multi_modal_projector_lr: Option<f64> = None, rule: Rule::AtLeast(0.0);
        /// Leave the vision tower as it is: no update, no decay. Its gradient is not in the norm.
        freeze_vision_tower: bool = false;
        /// The same of the projector.
        freeze_multi_modal_projector: bool = false;
        /// The same of the language model.
        freeze_language_model: bool = false;
        /// Last learning rate as a share of the peak.
        min_lr_ratio: f64 = 0.0, rule: Rule::Within(0.0, 1.0);
        /// Decoupled weight decay of the matrices and the token table.
        weight_decay: f64 = 0.0, rule: Rule::AtLeast(0.0);
        /// Norms and biases decay, too.
        decay_norms_and_biases: bool = false;
        /// First-moment decay of AdamW.
        adam_beta1: f64 = 0.9, rule: Rule::Within(0.0, 0.999999);
        /// Second-moment decay of AdamW.
        adam_beta2: f64 = 0.999, rule: Rule::Within(0.0, 0.999999);
        /// Added to the root of the second moment.
        adam_epsilon: f64 = 1e-8, rule: Rule::AtLeast(1e-30);
        /// Gradients are scaled down to this norm.
        max_grad_norm: f64 = 1.0, rule: Rule::Above(0.0);
        /// Updates in a row that are skipped because the loss or the gradient norm is not finite; one more ends the run.
        max_skipped_updates: u64 = 10, safe: Safe::Yes;
        /// What AdamW keeps its moments in; norms, biases and the token table have them in f32 whatever is chosen.
        optim: OptimizerName = OptimizerName::AdamwTorch;
        /// bf16 weights without their f32 master, rounded stochastically; saves 2 bytes a weight, costs precision.
        bf16_stochastic_round: bool = false;
    }
}

impl OptimConfig {
    /// Errors where nothing is left to train, or a part's rate has no course to follow; `path` is the group of its keys.
    pub(super) fn check_parts(&self, place: &Place, path: &str) -> Result<()> {
        let own = [self.vision_tower_lr, self.multi_modal_projector_lr];
        if self.learning_rate == 0.0 && own.iter().flatten().any(|&rate| rate > 0.0) {
            let expected = "above 0: the rates of parts follow its course (freeze_language_model trains them alone)";
            return Err(Error::input(place.of(&join(path, "learning_rate")), "0", expected));
        }
        if !(self.freeze_vision_tower && self.freeze_multi_modal_projector && self.freeze_language_model) {
            return Ok(());
        }
        let key = join(path, "freeze_language_model");
        Err(Error::input(place.of(&key), "true with the two other parts frozen, too", "a part that is trained"))
    }
}

//! Config keys of AdamW and its learning rate, shared by SFT and RL.

use super::table::join;
use super::{LoraConfig, MOST_STEPS, Place, QuantizationConfig, Rule, Safe};
use crate::error::Result;

choice! {
    /// Schedule of the learning rate after the warm-up.
    pub enum LrSchedulerType {
        /// Cosine decay to `min_lr_ratio`.
        Cosine = "cosine",
        /// Linear decay to `min_lr_ratio`.
        Linear = "linear",
        /// Constant learning rate.
        Constant = "constant",
    }
}

choice! {
    /// Data type of AdamW's moments. Norms, biases and the token table always use f32.
    pub enum OptimizerName {
        /// f32.
        AdamwTorch = "adamw_torch",
        /// bf16. The second moment is rounded stochastically.
        AdamwBf16 = "adamw_bf16",
        /// 8-bit codes with one scale per 256 elements. The second moment is rounded stochastically.
        Adamw8bit = "adamw_8bit",
    }
}

settings! {
    /// AdamW and its learning rate schedule. The number of warm-up steps is a key of each command's own config.
    pub struct OptimConfig {
        /// Peak learning rate.
        learning_rate: f64 = 5e-5, rule: Rule::AtLeast(0.0);
        /// Schedule of the learning rate after the warm-up.
        lr_scheduler_type: LrSchedulerType = LrSchedulerType::Constant;
        /// Peak learning rate of the vision tower, with the same schedule. null = learning_rate.
        vision_tower_lr: Option<f64> = None, rule: Rule::AtLeast(0.0), name: "LLaVA mm_vision_tower_lr";
        /// Peak learning rate of the projector between vision tower and language model (`visual.merger`). null =
        /// learning_rate.
        multi_modal_projector_lr: Option<f64> = None, rule: Rule::AtLeast(0.0), name: "LLaVA mm_projector_lr";
        /// Do not train the vision tower: no gradient, no optimizer state and no weight decay.
        freeze_vision_tower: bool = false;
        /// Do not train the projector: no gradient, no optimizer state and no weight decay.
        freeze_multi_modal_projector: bool = false, name: "LLaMA-Factory freeze_multi_modal_projector", published: "false";
        /// Do not train the language model: no gradient, no optimizer state and no weight decay.
        freeze_language_model: bool = false, name: "LLaMA-Factory freeze_language_model", published: "false";
        /// Train adapters (LoRA) instead of the weights. They need a learning rate about ten times as high. null = train
        /// the weights.
        lora: Option<LoraConfig> = None;
        /// Storage of the frozen base in 8 or 4 bits, with `lora`. null = in the type of the weights, or as the model's
        /// files are.
        quantization: Option<QuantizationConfig> = None;
        /// Start with zero moments for trained parts without optimizer state in the checkpoint that `resume` names,
        /// because its run had frozen them.
        start_moments_anew: bool = false;
        /// Final learning rate as a share of the peak learning rate.
        min_lr_ratio: f64 = 0.0, rule: Rule::Within(0.0, 1.0);
        /// Learning rate at the start of the warm-up as a share of the peak learning rate. null = min_lr_ratio, or 0 for
        /// a constant schedule, as in lmms-engine.
        init_lr_ratio: Option<f64> = Some(0.0), rule: Rule::Within(0.0, 1.0), older: Some("null");
        /// Decoupled weight decay of the matrices and the token table.
        weight_decay: f64 = 0.0, rule: Rule::AtLeast(0.0);
        /// Apply weight decay to norms and biases, too.
        decay_norms_and_biases: bool = false;
        /// Decay rate of AdamW's first moment.
        adam_beta1: f64 = 0.9, rule: Rule::Within(0.0, 0.999999);
        /// Decay rate of AdamW's second moment.
        adam_beta2: f64 = 0.999, rule: Rule::Within(0.0, 0.999999);
        /// Value added to the square root of the second moment.
        adam_epsilon: f64 = 1e-8, rule: Rule::AtLeast(1e-30);
        /// Maximum gradient norm. Larger gradients are scaled down to it.
        max_grad_norm: f64 = 1.0, rule: Rule::Above(0.0);
        /// Maximum number of consecutive updates that are skipped because the loss or the gradient norm is not finite.
        /// One more ends the run.
        max_skipped_updates: u64 = 10, rule: Rule::Within(0.0, MOST_STEPS), safe: Safe::Yes, published: "no bound";
        /// Data type of AdamW's moments. Norms, biases and the token table always use f32.
        optim: OptimizerName = OptimizerName::AdamwTorch;
        /// Keep AdamW's moments and the low halves of the master weights in page-locked memory of the GPU's host. Each
        /// update reads and writes them through PCIe. Results are the same. Not used on the CPU.
        optimizer_offload: bool = false, safe: Safe::Yes;
        /// Train bf16 weights without an f32 master copy, with stochastic rounding. Saves 2 bytes per weight and
        /// reduces precision.
        bf16_stochastic_round: bool = false;
    }
}

impl OptimConfig {
    /// Returns an error if no part is left to train, or if a part has its own learning rate but `learning_rate` is 0.
    /// `path` is the group of the keys.
    pub(super) fn check_parts(&self, place: &Place, path: &str) -> Result<()> {
        let own = [self.vision_tower_lr, self.multi_modal_projector_lr];
        let is_scaled = self.learning_rate != 0.0 || own.iter().flatten().all(|&rate| rate <= 0.0);
        let expected = "above 0: it scales all rates (freeze_language_model trains only the other parts)";
        place.check(is_scaled, &join(path, "learning_rate"), 0, expected)?;
        let format = self.quantization.as_ref().map_or("", |quantization| quantization.base.name());
        let expected = "null without lora: a quantised base is frozen, and only adapters can be trained";
        place.check(format.is_empty() || self.lora.is_some(), &join(path, "quantization"), format, expected)?;
        let trains = |is_frozen: bool| self.lora.as_ref().map_or(!is_frozen, |lora| lora.vision);
        for (key, rate, is_trained) in [
            ("vision_tower_lr", self.vision_tower_lr, trains(self.freeze_vision_tower)),
            ("multi_modal_projector_lr", self.multi_modal_projector_lr, trains(self.freeze_multi_modal_projector)),
        ] {
            let rate = rate.filter(|rate| *rate > 0.0 && !is_trained).unwrap_or_default();
            place.check(rate == 0.0, &join(path, key), rate, "null: this part is not trained")?;
        }
        let frozen = [
            ("freeze_vision_tower", self.freeze_vision_tower),
            ("freeze_multi_modal_projector", self.freeze_multi_modal_projector),
            ("freeze_language_model", self.freeze_language_model),
        ];
        if self.lora.is_some() {
            let expected = "false: lora freezes all weights, and lora.vision decides about adapters of the tower";
            frozen.iter().try_for_each(|(key, is)| place.check(!is, &join(path, key), true, expected))?;
            let (key, expected) =
                ("bf16_stochastic_round", "false: adapters have f32 masters, which their files contain");
            return place.check(!self.bf16_stochastic_round, &join(path, key), "true with lora", expected);
        }
        let (key, trains) = ("freeze_language_model", frozen.iter().any(|(_, is_frozen)| !is_frozen));
        let found = "true, with the two other parts frozen, too";
        place.check(trains, &join(path, key), found, "at least one part that is not frozen")
    }
}

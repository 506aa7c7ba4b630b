//! Policy losses with the settings of published methods.

use omr_base::config::{LossAggMode, LossMode};
use omr_runtime::ops::policy_loss::PolicyLoss;

/// Returns GRPO with verl's defaults.
pub fn grpo() -> PolicyLoss {
    PolicyLoss {
        loss_mode: LossMode::Vanilla,
        clip_ratio_low: 0.2,
        clip_ratio_high: 0.2,
        clip_ratio_c: Some(3.0),
        loss_agg_mode: LossAggMode::TokenMean,
        kl_loss: None,
        distillation: None,
        entropy_coeff: 0.0,
    }
}

/// Returns DAPO: a higher upper clip and a wider dual clip, as in the published script.
pub fn dapo() -> PolicyLoss {
    PolicyLoss { clip_ratio_high: 0.28, clip_ratio_c: Some(10.0), ..grpo() }
}

/// CISPO (MiniMax-M1, arXiv 2506.13585): no lower bound, a wide upper one.
pub fn cispo() -> PolicyLoss {
    PolicyLoss { loss_mode: LossMode::Cispo, clip_ratio_low: 1.0, clip_ratio_high: 4.0, clip_ratio_c: None, ..grpo() }
}

/// Returns GSPO with the paper's clip range.
pub fn gspo() -> PolicyLoss {
    PolicyLoss {
        loss_mode: LossMode::Gspo,
        clip_ratio_low: 3e-4,
        clip_ratio_high: 4e-4,
        clip_ratio_c: None,
        loss_agg_mode: LossAggMode::SeqMeanTokenMean,
        ..grpo()
    }
}

//! KL divergence from the reference policy as part of the reward, and the controller of its weight.

use omr_base::config::{KlCtrlConfig, KlCtrlType, KlLossType};
use omr_runtime::ops::policy_loss::{Real, kl_value_and_grad};

/// Name of the adaptive weight in a checkpoint.
pub const KL_COEF: &str = "kl_coef";

/// Number that verl adds to the divisor of masked means.
const MEAN_EPS: f64 = 1e-8;
/// Maximum relative error that the adaptive controller uses in one step.
const MAX_ERROR: f64 = 0.2;

/// Returns the weight of the KL divergence after a step over `responses` responses whose KL was `current_kl`. A fixed
/// weight does not change; an adaptive one changes so that the KL approaches its target.
pub fn next_kl_coef(kl_ctrl: &KlCtrlConfig, current_kl: f64, responses: usize) -> f64 {
    let &KlCtrlConfig { r#type, kl_coef, horizon, target_kl } = kl_ctrl;
    match r#type {
        KlCtrlType::Fixed => kl_coef,
        KlCtrlType::Adaptive => {
            let error = (current_kl / target_kl - 1.0).clamp(-MAX_ERROR, MAX_ERROR);
            kl_coef * (1.0 + error * responses as f64 / horizon)
        }
    }
}

/// The rewards of a batch after the KL is subtracted.
#[derive(Clone, PartialEq, Debug)]
pub struct KlInReward {
    /// Rewards per token `[T]`: minus the weighted KL at each counted token, plus the response's reward at its last
    /// counted token.
    pub token_level_rewards: Vec<f64>,
    /// Sum of the token rewards of each response, `[S]`. Advantages are computed from these sums.
    pub scores: Vec<f64>,
    /// Mean KL of each response, averaged over all responses (`actor/reward_kl_penalty`).
    pub reward_kl_penalty: f64,
}

/// Subtracts the KL between the acting and the reference policy from the rewards. `cu_seqlens` `[S+1]` contains the
/// start offsets of the responses, followed by `T`; `mask`, `old_log_prob` and `ref_log_prob` are `[T]`, and `rewards`
/// is `[S]`. A response without a counted token keeps its reward in `scores`. Panics if lengths differ.
pub fn kl_in_reward<F: Real>(
    kl_penalty: KlLossType,
    kl_coef: f64,
    cu_seqlens: &[u32],
    mask: &[u8],
    old_log_prob: &[F],
    ref_log_prob: &[F],
    rewards: &[f64],
) -> KlInReward {
    assert_eq!(cu_seqlens.len(), rewards.len() + 1, "one reward per row");
    let mut token_level_rewards = vec![0.0; mask.len()];
    let mut scores = Vec::with_capacity(rewards.len());
    let mut kl_of_rows = 0.0;
    for (w, &reward) in cu_seqlens.windows(2).zip(rewards) {
        let counted = (w[0] as usize..w[1] as usize).filter(|&t| mask[t] != 0);
        let (mut kl, mut n) = (0.0, 0usize);
        for t in counted.clone() {
            let (value, _) = kl_value_and_grad(kl_penalty, old_log_prob[t].into(), ref_log_prob[t].into());
            token_level_rewards[t] = -kl_coef * value;
            kl += value;
            n += 1;
        }
        match counted.clone().next_back() {
            Some(last) => {
                token_level_rewards[last] += reward;
                scores.push(counted.map(|t| token_level_rewards[t]).sum());
            }
            None => scores.push(reward),
        }
        kl_of_rows += kl / (n as f64 + MEAN_EPS);
    }
    let reward_kl_penalty = kl_of_rows / rewards.len().max(1) as f64;
    KlInReward { token_level_rewards, scores, reward_kl_penalty }
}

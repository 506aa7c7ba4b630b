//! Advantages of responses, computed in f64.

/// Number added to a group's standard deviation, as in verl.
pub const ADV_EPS: f64 = 1e-6;
/// Number added to counts and to the variance in [`whiten`], as in verl.
const WHITEN_EPS: f64 = 1e-8;

/// Mean and sample standard deviation of a group's rewards. For a group of one response, the mean is set to 0 and the
/// standard deviation to 1. The advantage of this response is then its reward, divided by `1 + 1e-6` if it is
/// normalized.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GroupStats {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, with the divisor N - 1.
    pub std: f64,
}

impl GroupStats {
    /// Computes the statistics of one group's rewards. If two or more rewards are all equal, the mean is exactly their
    /// value, and the standard deviation is exactly 0.
    pub fn of(rewards: &[f64]) -> GroupStats {
        let n = rewards.len() as f64;
        match rewards {
            [] | [_] => GroupStats { mean: 0.0, std: 1.0 },
            // In floating point, the mean of equal numbers may differ from that number. Divided by a standard deviation
            // near 0, this difference would become a large, meaningless advantage.
            [first, rest @ ..] if rest.iter().all(|r| r == first) => GroupStats { mean: *first, std: 0.0 },
            _ => {
                let mean = rewards.iter().sum::<f64>() / n;
                let var = rewards.iter().map(|r| (r - mean) * (r - mean)).sum::<f64>() / (n - 1.0);
                GroupStats { mean, std: var.sqrt() }
            }
        }
    }
}

/// Returns the advantages that `of` computes from the rewards of a group that exist. The other responses have none. A
/// group of several responses with fewer than two rewards has no advantages.
pub fn of_scored(rewards: &[Option<f64>], of: impl FnOnce(&[f64]) -> Vec<f64>) -> Vec<Option<f64>> {
    let scored: Vec<f64> = rewards.iter().copied().flatten().collect();
    if scored.len() < rewards.len().min(2) {
        return vec![None; rewards.len()];
    }
    let mut advantages = of(&scored).into_iter();
    rewards.iter().map(|reward| reward.and_then(|_| advantages.next())).collect()
}

/// Returns the advantages of a group's rewards, as in GRPO. DAPO and GSPO use the same formula. With `norm_adv_by_std`,
/// the advantage is `(reward - mean) / (std + 1e-6)`. Without it (Dr. GRPO), the advantage is `reward - mean`. If two
/// or more rewards are all equal, their advantages are exactly 0.
pub fn grpo(rewards: &[f64], norm_adv_by_std: bool) -> Vec<f64> {
    let GroupStats { mean, std } = GroupStats::of(rewards);
    let divisor = if norm_adv_by_std { std + ADV_EPS } else { 1.0 };
    rewards.iter().map(|reward| (reward - mean) / divisor).collect()
}

/// Returns the advantages of RLOO (verl's `rloo`): each reward minus the mean of the other rewards of its group. The
/// advantage of a group of one response is its reward.
pub fn rloo(rewards: &[f64]) -> Vec<f64> {
    let others = (rewards.len() as f64 - 1.0).max(1.0);
    let factor = if rewards.len() > 1 { rewards.len() as f64 / others } else { 1.0 };
    grpo(rewards, false).into_iter().map(|advantage| factor * advantage).collect()
}

/// Whitens the `values` of all responses of a batch, each with its number of tokens, as REINFORCE++ does (verl's
/// `masked_whiten`): subtracts the mean over all tokens and divides by their sample standard deviation.
pub fn whiten(values: &mut [(f64, usize)]) {
    let count: f64 = values.iter().map(|(_, tokens)| *tokens as f64).sum();
    let mean = |of: &dyn Fn(f64) -> f64| {
        values.iter().map(|&(value, tokens)| of(value) * tokens as f64).sum::<f64>() / (count + WHITEN_EPS)
    };
    let center = mean(&|value| value);
    let variance = mean(&|value| (value - center) * (value - center)) * (count / (count - 1.0).max(1.0));
    values.iter_mut().for_each(|(value, _)| *value = (*value - center) / (variance + WHITEN_EPS).sqrt());
}

/// Returns the advantages of RAFT (Dong et al. 2023): 1 for a right answer, otherwise 0. `accuracies` are the accuracies
/// of a group's answers.
pub fn raft(accuracies: &[f64]) -> Vec<f64> {
    accuracies.iter().map(|&accuracy| f64::from(accuracy == 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raft_trains_on_right_answers_alone() {
        assert_eq!(raft(&[1.0, 0.0, 0.9, 1.0]), [1.0, 0.0, 0.0, 1.0]);
        assert_eq!(raft(&[1.0, 1.0]), [1.0, 1.0], "a group without differences is trained, too");
    }

    #[test]
    fn a_response_without_a_score_has_no_advantage_and_a_lone_score_has_none_either() {
        let of = |rewards: &[Option<f64>]| of_scored(rewards, rloo);
        assert_eq!(of(&[Some(1.0), None, Some(0.0)]), [Some(1.0), None, Some(-1.0)], "RLOO of two");
        assert_eq!(of_scored(&[None, Some(1.0), Some(0.5)], raft), [None, Some(1.0), Some(0.0)]);
        for rewards in [&[None, Some(3.0), None][..], &[None; 8], &[None]] {
            assert!(of(rewards).iter().all(Option::is_none), "{rewards:?}");
        }
        assert_eq!(of(&[Some(3.0)]), [Some(3.0)], "a group of one response");
    }

    #[test]
    fn equal_rewards_give_exactly_zero() {
        for n in 2..40 {
            for reward in [0.1, 0.2, 0.7, 1.0 / 3.0, 0.9, -0.3] {
                let a = grpo(&vec![reward; n], true);
                assert!(a.iter().all(|&a| a == 0.0), "{n} x {reward}: {a:?}");
            }
        }
    }
}

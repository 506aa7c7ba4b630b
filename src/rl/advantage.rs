//! Group-relative advantages, computed in f64.

/// Number added to a group's standard deviation, as in verl.
pub const ADV_EPS: f64 = 1e-6;

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

/// Returns the advantages of a group's rewards, as in GRPO. DAPO and GSPO use the same formula. With `norm_adv_by_std`,
/// the advantage is `(reward - mean) / (std + 1e-6)`. Without it (Dr. GRPO), the advantage is `reward - mean`. If two
/// or more rewards are all equal, their advantages are exactly 0.
pub fn grpo(rewards: &[f64], norm_adv_by_std: bool) -> Vec<f64> {
    let GroupStats { mean, std } = GroupStats::of(rewards);
    let divisor = if norm_adv_by_std { std + ADV_EPS } else { 1.0 };
    rewards.iter().map(|reward| (reward - mean) / divisor).collect()
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
    fn equal_rewards_give_exactly_zero() {
        for n in 2..40 {
            for reward in [0.1, 0.2, 0.7, 1.0 / 3.0, 0.9, -0.3] {
                let a = grpo(&vec![reward; n], true);
                assert!(a.iter().all(|&a| a == 0.0), "{n} x {reward}: {a:?}");
            }
        }
    }
}

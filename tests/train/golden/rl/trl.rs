//! Compares groups in which responses have no score with `goldens/rl/trl_missing_scores.json`, which TRL's code made.

use omr_base::config::{KlLossType, LossAggMode};
use omr_runtime::ops::policy_loss::{Denominators, KlLoss, PolicyLoss, PolicyStats};
use omr_runtime_tests::losses;
use omr_train::rl::advantage::{self, GroupStats};
use omr_train::rl::filter;
use serde_json::Value;

use super::{Data, TOL_F64, close, flat, num, on_host, run, vec1};

/// TRL divides by std + 1e-4, verl and omr by std + 1e-6.
const TRL_EPS: f64 = 1e-4;
/// TRL computes n / (n - 1) in f32.
const TOL_STD: f64 = 1e-7;
/// verl, and with it omr, adds 1e-8 to the number of tokens of a response.
const TOL_TRL: f64 = 1e-8;

#[test]
fn responses_without_a_score_leave_their_group_as_in_trl_and_stay_in_the_denominators() {
    run("missing_scores", |case, id| {
        let out = &case["outputs"];
        let rewards: Vec<Option<f64>> =
            case["inputs"]["rewards"].as_array().unwrap().iter().map(Value::as_f64).collect();
        let scored: Vec<f64> = rewards.iter().flatten().copied().collect();
        let found = |norm: bool| -> Vec<f64> {
            let advantages = advantage::of_scored(&rewards, |rewards| advantage::grpo(rewards, norm));
            advantages.into_iter().map(|advantage| advantage.unwrap_or(0.0)).collect()
        };
        let centred = found(false);
        close(&format!("{id} advantages"), &centred, &vec1(&out["advantages"]), TOL_F64);
        let std = GroupStats::of(&scored).std;
        let rescaled: Vec<f64> = found(true).iter().map(|a| a * (std + advantage::ADV_EPS) / (std + TRL_EPS)).collect();
        close(&format!("{id} normalized"), &rescaled, &vec1(&out["normalized"]), TOL_STD);
        assert_eq!(filter::keeps(&rewards), scored.len() > 1, "{id}: dynamic sampling");

        let data = Data::<f64>::new(case, &centred, &(0..rewards.len()).collect::<Vec<_>>());
        for (kind, loss_agg_mode) in [
            ("grpo", LossAggMode::SeqMeanTokenMean),
            ("bnpo", LossAggMode::TokenMean),
            ("dr_grpo", LossAggMode::SeqMeanTokenSumNorm),
        ] {
            let kl_loss = Some(KlLoss { kl_loss_type: KlLossType::LowVarKl, kl_loss_coef: 0.1 });
            let config = PolicyLoss { loss_agg_mode, kl_loss, clip_ratio_c: None, ..losses::grpo() };
            let den = Denominators::new(&data.cu, Some(data.width * rewards.len() as f64));
            let mut grad = vec![f64::NAN; data.lp.len()];
            let sums = on_host(&config, &den, &data.batch(), &data.lp, &mut grad);
            let (what, want) = (format!("{id} {kind}"), &out["losses"][kind]);
            close(&what, &[PolicyStats::new(&config, &den, &sums).loss], &[num(&want["total_loss"])], TOL_TRL);
            let all = flat(&want["grad_log_prob"]);
            close(&what, &grad, &data.at.iter().map(|&i| all[i]).collect::<Vec<_>>(), TOL_TRL);
        }
    });
}

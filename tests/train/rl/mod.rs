//! Property tests of the losses and of splitting into parts of similar size, on random data.

pub mod bound;
pub mod distillation;
pub mod domains;
pub mod groups;
pub mod parity;
pub mod run;
pub mod stopped;
pub mod validation;

use omr_base::config::{KlLossType, LossAggMode, LossMode};
use omr_base_tests::seed::proptest as config;
use omr_runtime::ops::policy_loss::batch::Batch;
use omr_runtime::ops::policy_loss::{self, Denominators, KlLoss, PolicyLoss, PolicyStats, Sums};
use omr_runtime_tests::losses;
use omr_train::rl::probs_diff::ProbsDiff;
use omr_train::rl::{advantage, balance, filter};
use proptest::prelude::*;

/// A sequence: its tokens as (log-prob, old, reference), and its advantage.
type Row = (Vec<(f32, f32, f32)>, f64);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let token = (-4f32..0.0, -0.5f32..0.5, -0.5f32..0.5).prop_map(|(lp, d, r)| (lp, lp + d, lp + r));
    prop::collection::vec((prop::collection::vec(token, 0..9), -2.0f64..2.0), 1..12)
}

fn losses() -> impl Strategy<Value = PolicyLoss> {
    let mode = prop::sample::select(vec![
        LossAggMode::TokenMean,
        LossAggMode::SeqMeanTokenSum,
        LossAggMode::SeqMeanTokenMean,
        LossAggMode::SeqMeanTokenSumNorm,
        LossAggMode::TokenSum,
    ]);
    let base = prop::sample::select(vec![losses::grpo(), losses::dapo(), losses::gspo()]);
    (base, mode, prop::bool::ANY).prop_map(|(base, loss_agg_mode, kl)| PolicyLoss {
        loss_agg_mode,
        kl_loss: kl.then_some(KlLoss { kl_loss_type: KlLossType::LowVarKl, kl_loss_coef: 0.01 }),
        ..base
    })
}

struct Data {
    cu: Vec<u32>,
    lp: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
    adv: Vec<f64>,
}

impl Data {
    fn of(rows: &[&Row]) -> Data {
        let mut d = Data { cu: vec![0], lp: vec![], old: vec![], reference: vec![], adv: Vec::new() };
        for (tokens, advantage) in rows {
            for &(lp, old, reference) in tokens {
                d.lp.push(lp);
                d.old.push(old);
                d.reference.push(reference);
            }
            d.cu.push(d.lp.len() as u32);
            d.adv.push(*advantage);
        }
        d
    }

    fn batch(&self) -> Batch<'_, f32> {
        Batch {
            cu_seqlens: &self.cu,
            old_log_prob: &self.old,
            ref_log_prob: Some(&self.reference),
            teacher_log_prob: None,
            advantages: &self.adv,
        }
    }
}

/// The clipped ratio is a constant weight of each log-prob, so the gradient of a clipped token is not 0.
#[test]
fn cispo_weighs_log_probs_by_clipped_ratios() {
    let (old, lp) = ([-1.0, -2.0, -0.5, -3.0f64], [-1.1, -0.1, -0.5, -9.0f64]);
    let (cu, advantages) = ([0u32, 2, 4], [1.0, -0.5]);
    let batch = Batch {
        cu_seqlens: &cu,
        old_log_prob: &old,
        ref_log_prob: None,
        teacher_log_prob: None,
        advantages: &advantages,
    };
    let den = Denominators::new(&cu, None);
    let mut grad = [f64::NAN; 4];
    let config = PolicyLoss { clip_ratio_low: 0.5, ..losses::cispo() };
    let sums = policy_loss::compute::compute(&config, &den, &batch, &lp, &mut grad, None, None).unwrap();
    let weight = |t: usize| -advantages[t / 2] * (lp[t] - old[t]).exp().clamp(0.5, 5.0) / 4.0;
    for (t, grad) in grad.iter().enumerate() {
        assert!((grad - weight(t)).abs() < 1e-15 * 8.0, "{t}: {grad}, {}", weight(t));
    }
    let loss: f64 = (0..4).map(|t| weight(t) * lp[t]).sum();
    assert!((PolicyStats::new(&config, &den, &sums).loss - loss).abs() < 1e-14);
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn micro_batches_add_up(rows in rows(), loss in losses(), cut in prop::collection::vec(0usize..4, 12)) {
        let whole = Data::of(&rows.iter().collect::<Vec<_>>());
        let den = Denominators::new(&whole.cu, None);
        let mut grad = vec![f32::NAN; whole.lp.len()];
        let sums = policy_loss::compute::compute(&loss, &den, &whole.batch(), &whole.lp, &mut grad, None, None).unwrap();
        let stats = PolicyStats::new(&loss, &den, &sums);
        let mut sum = Sums::NONE;
        for part in 0..4 {
            let mine: Vec<usize> = (0..rows.len()).filter(|&r| cut[r] == part).collect();
            let data = Data::of(&mine.iter().map(|&r| &rows[r]).collect::<Vec<_>>());
            let mut part_grad = vec![f32::NAN; data.lp.len()];
            sum += policy_loss::compute::compute(&loss, &den, &data.batch(), &data.lp, &mut part_grad, None, None).unwrap();
            for (k, &r) in mine.iter().enumerate() {
                let (a, b) = (whole.cu[r] as usize..whole.cu[r + 1] as usize, data.cu[k] as usize);
                prop_assert_eq!(&grad[a.clone()], &part_grad[b..b + a.len()], "equal bits in any split");
            }
        }
        let sum = PolicyStats::new(&loss, &den, &sum);
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * a.abs().max(1.0);
        prop_assert!(close(stats.loss, sum.loss), "{} and {}", stats.loss, sum.loss);
        prop_assert!(close(stats.pg_clipfrac, sum.pg_clipfrac) && close(stats.ppo_kl, sum.ppo_kl));
        prop_assert!(close(stats.kl_loss, sum.kl_loss) && close(stats.dual_clipfrac, sum.dual_clipfrac));
    }

    #[test]
    fn the_gradient_is_the_losses_slope(rows in rows(), loss in losses()) {
        // GSPO differentiates each token with a fixed ratio of the sequence, so central differences do not apply. The
        // next test checks GSPO.
        let loss = PolicyLoss { loss_mode: LossMode::Vanilla, ..loss };
        let d = Data::of(&rows.iter().collect::<Vec<_>>());
        let den = Denominators::new(&d.cu, None);
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
        let (lp, old, reference) = (wide(&d.lp), wide(&d.old), wide(&d.reference));
        let batch = Batch {
            cu_seqlens: &d.cu, old_log_prob: &old, ref_log_prob: Some(&reference), teacher_log_prob: None, advantages: &d.adv,
        };
        let mut grad = vec![0.0; lp.len()];
        let value = |lp: &[f64], grad: &mut [f64]| {
            PolicyStats::new(&loss, &den, &policy_loss::compute::compute(&loss, &den, &batch, lp, grad, None, None).unwrap())
        };
        let stats = value(&lp, &mut grad);
        let h = 1e-7;
        for t in 0..lp.len() {
            let (mut up, mut scratch) = (lp.clone(), grad.clone());
            up[t] += h;
            let up = value(&up, &mut scratch);
            let mut down = lp.clone();
            down[t] -= h;
            let down = value(&down, &mut scratch);
            if up.pg_clipfrac != down.pg_clipfrac || up.dual_clipfrac != down.dual_clipfrac {
                continue;
            }
            let slope = (up.loss - down.loss) / (2.0 * h);
            let (got, bound) = (grad[t], 1e-6 * (1.0 + stats.loss.abs()));
            prop_assert!((slope - got).abs() <= bound, "token {t}: {got}, slope {slope}");
        }
    }

    #[test]
    fn gspo_gradient_is_the_sequence_forms_slope(rows in rows()) {
        let loss = PolicyLoss { clip_ratio_low: 0.9, clip_ratio_high: 9.0, ..losses::gspo() };
        let d = Data::of(&rows.iter().collect::<Vec<_>>());
        let den = Denominators::new(&d.cu, None);
        let mut grad = vec![0f32; d.lp.len()];
        policy_loss::compute::compute(&loss, &den, &d.batch(), &d.lp, &mut grad, None, None).unwrap();
        for (w, adv) in d.cu.windows(2).zip(&d.adv) {
            let row = w[0] as usize..w[1] as usize;
            let n = row.len();
            let mean = policy_loss::row::seq_mean_log_ratio(&d.lp[row.clone()], &d.old[row.clone()]);
            for t in row {
                let want = -adv * mean.exp() / n as f64 / den.num_seqs;
                prop_assert!((f64::from(grad[t]) - want).abs() <= 1e-6 * want.abs().max(1e-3));
            }
        }
    }

    #[test]
    fn on_policy_the_ratio_is_exactly_one(rows in rows(), loss in losses()) {
        let mut d = Data::of(&rows.iter().collect::<Vec<_>>());
        d.old = d.lp.clone();
        let den = Denominators::new(&d.cu, None);
        let mut grad = vec![0f32; d.lp.len()];
        let sums = policy_loss::compute::compute(&loss, &den, &d.batch(), &d.lp, &mut grad, None, None).unwrap();
        let stats = PolicyStats::new(&loss, &den, &sums);
        if !d.lp.is_empty() {
            prop_assert_eq!((stats.ratio_min, stats.ratio_max), (1.0, 1.0));
        }
        prop_assert_eq!((stats.pg_clipfrac, stats.dual_clipfrac, stats.ppo_kl), (0.0, 0.0, 0.0));
        let diff = ProbsDiff::from(&sums);
        prop_assert_eq!((diff.max, diff.log_prob_max), (0.0, 0.0));
    }

    #[test]
    fn advantages_are_centred(rewards in prop::collection::vec(-1.0f64..1.0, 1..40)) {
        let advantages = advantage::grpo(&rewards, true);
        prop_assert!(rewards.len() == 1 || advantages.iter().sum::<f64>().abs() <= 1e-9 * rewards.len() as f64);
        let metric: Vec<Option<f64>> = rewards.iter().copied().map(Some).collect();
        prop_assert!(filter::keeps(&metric) || rewards.iter().all(|r| *r == rewards[0]));
    }

    #[test]
    fn parts_are_balanced(values in prop::collection::vec(1u64..1000, 8..60), k in 1usize..8) {
        let parts = balance::karmarkar_karp(&values, k);
        let sums: Vec<u64> = parts.iter().map(|p| p.iter().map(|&i| values[i]).sum()).collect();
        let spread = sums.iter().max().unwrap() - sums.iter().min().unwrap();
        prop_assert!(spread <= *values.iter().max().unwrap(), "{sums:?}");
    }
}

/// RAFT is a step of SFT on right answers. With GSPO's loss, it made answers shorter in every update.
#[test]
fn raft_weighs_the_tokens_of_short_and_long_right_answers_equally() {
    let cu = [0u32, 2, 5, 11];
    let (lp, adv) = ([-0.5f32; 11], advantage::raft(&[1.0, 0.0, 1.0]));
    let batch =
        Batch { cu_seqlens: &cu, old_log_prob: &lp, ref_log_prob: None, teacher_log_prob: None, advantages: &adv };
    let gradient = |loss: PolicyLoss| {
        let mut grad = vec![0f32; lp.len()];
        policy_loss::compute::compute(&loss, &Denominators::new(&cu, None), &batch, &lp, &mut grad, None, None)
            .unwrap();
        grad
    };
    let each = -1.0 / lp.len() as f32;
    let sft: Vec<f32> = (0..11).map(|t| if (2..5).contains(&t) { 0.0 } else { each }).collect();
    assert_eq!(gradient(losses::grpo()), sft);
    let divided = gradient(losses::gspo());
    assert!(divided[0] < 2.9 * divided[5], "a token of the short answer weighs three times as much");
}

#[test]
fn lengths_that_do_not_fit_are_errors() {
    let (adv, lp) = ([1.0, 2.0], [0f32; 4]);
    for cu in [vec![0u32, 4], vec![0, 2, 3], vec![1, 2, 4], vec![0, 5, 4]] {
        let batch =
            Batch { cu_seqlens: &cu, old_log_prob: &lp, ref_log_prob: None, teacher_log_prob: None, advantages: &adv };
        let den = Denominators { batch_num_tokens: 4.0, num_seqs: 2.0, loss_scale_factor: 2.0 };
        assert!(
            policy_loss::compute::compute(&losses::grpo(), &den, &batch, &lp, &mut [0.0; 4], None, None).is_err(),
            "{cu:?}"
        );
    }
}

//! Loss of one sequence on the CPU, in the order of kernels/policy_loss.cu: token i is added to lane i % 256, and the
//! lanes are combined like the threads of a CTA.

use super::batch::{Batch, Real};
use super::loss::{Denominators, MAX_LOG_RATIO, MAX_TEN, PolicyLoss, kl_value_and_grad};
use super::stats::{Stat, Sums, larger};
use crate::ops::cta::{THREADS, fold};
use omr_base::choice::LossMode;
use omr_base::math::{exp_f64, hold_f64};

/// Scratch memory for the sums of a row, one element per lane.
pub(super) type Lanes = Vec<Sums>;

/// Returns GSPO's mean log ratio of one sequence (0 if it is empty).
pub fn seq_mean_log_ratio<F: Real>(log_prob: &[F], old_log_prob: &[F]) -> f64 {
    let mut lanes = [0.0; THREADS];
    for (t, (&lp, &old)) in log_prob.iter().zip(old_log_prob).enumerate() {
        lanes[t % THREADS] += lp.into() - old.into();
    }
    fold(&mut lanes, 0.0, |a, b| a + b) / (log_prob.len() as f64).max(1.0)
}

/// Returns GSPO's ratio of a sequence, given its mean log ratio.
pub fn seq_ratio(mean_log_ratio: f64) -> f64 {
    exp_f64(if mean_log_ratio > MAX_TEN { MAX_TEN } else { mean_log_ratio })
}

/// Inputs of a batch's loss.
pub(super) struct LossRows<'a, F> {
    pub config: &'a PolicyLoss,
    pub denominators: &'a Denominators,
    pub batch: &'a Batch<'a, F>,
    pub log_prob: &'a [F],
    pub entropy: Option<&'a [F]>,
}

impl<F: Real> LossRows<'_, F> {
    /// Returns the sums of sequence `index` and overwrites `dlog_prob` and `dentropy`, which hold only this sequence's
    /// tokens.
    pub fn sums(&self, index: usize, dlog_prob: &mut [F], mut dentropy: Option<&mut [F]>, lanes: &mut Lanes) -> Sums {
        let LossRows { config, denominators, batch, .. } = self;
        let from = batch.cu_seqlens[index] as usize;
        let here = from..from + dlog_prob.len();
        let (lp, old) = (&self.log_prob[here.clone()], &batch.old_log_prob[here.clone()]);
        let (mean_log, n) = (seq_mean_log_ratio(lp, old), here.len() as f64);
        let pg_weight = denominators.token_weight(config.pg_agg_mode(), n);
        let weight = denominators.token_weight(config.loss_agg_mode, n);
        let of_sequence = seq_ratio(mean_log);
        let (low, high) = (1.0 - config.clip_ratio_low, 1.0 + config.clip_ratio_high);
        let entropy_grad = F::from_f64(-config.entropy_coeff * weight);

        lanes.clear();
        lanes.resize(THREADS, Sums::NONE);
        for t in 0..here.len() {
            let (lp, old): (f64, f64) = (lp[t].into(), old[t].into());
            let advantage = match (&config.distillation, batch.teacher_log_prob) {
                (Some(term), Some(teacher)) => term.advantage(batch.advantages[index], lp, teacher[from + t].into()),
                _ => batch.advantages[index],
            };
            let d = lp - old;
            let (d, ratio, outside, cap) = match config.loss_mode {
                LossMode::Gspo => (d, of_sequence, mean_log > MAX_TEN, None),
                LossMode::Vanilla | LossMode::Cispo => {
                    let held = hold_f64(d, -MAX_LOG_RATIO, MAX_LOG_RATIO);
                    (held, exp_f64(held), d.abs() > MAX_LOG_RATIO, config.clip_ratio_c)
                }
            };
            let free = -advantage * ratio;
            let held = hold_f64(ratio, low, high);
            let bound = -advantage * held;
            let is_cispo = config.loss_mode == LossMode::Cispo;
            let clipped = if is_cispo { held != ratio } else { bound > free };
            // The bounded ratio of CISPO is a constant weight of the log-prob.
            let loss = match clipped {
                _ if is_cispo => bound * lp,
                true => bound,
                false => free,
            };
            let cap = cap.map(|c| -advantage * c).filter(|&cap| advantage < 0.0 && loss > cap);
            let dual = cap.is_some();

            let s = &mut lanes[t % THREADS];
            s[Stat::PgLoss] += cap.unwrap_or(loss) * pg_weight;
            let mut grad = match clipped || dual || outside {
                _ if is_cispo => bound * pg_weight,
                true => 0.0,
                false => free * pg_weight,
            };
            if let (Some(kl), Some(reference)) = (&config.kl_loss, batch.ref_log_prob) {
                let (value, kl_grad) = kl_value_and_grad(kl.kl_loss_type, lp, reference[from + t].into());
                s[Stat::KlLoss] += value * weight;
                grad += kl.kl_loss_coef * kl_grad * weight;
            }
            dlog_prob[t] = F::from_f64(grad);
            if let Some(h) = self.entropy {
                s[Stat::Entropy] += h[from + t].into() * weight;
            }
            if let Some(d) = &mut dentropy {
                d[t] = entropy_grad;
            }
            count(s, advantage, clipped, dual, d, ratio);
            compare(s, lp, old, from + t);
        }
        fold(lanes, Sums::NONE, |mut a, b| {
            a += b;
            a
        })
    }
}

fn count(s: &mut Sums, advantage: f64, clipped: bool, dual: bool, log_ratio: f64, ratio: f64) {
    let one = |yes: bool| f64::from(u8::from(yes));
    s[Stat::Tokens] += 1.0;
    s[Stat::Clipped] += one(clipped);
    s[Stat::ClippedUpper] += one(clipped && advantage > 0.0);
    s[Stat::ClippedLower] += one(clipped && advantage < 0.0);
    s[Stat::DualClipped] += one(dual);
    s[Stat::PpoKl] -= log_ratio;
    s[Stat::MinusRatio] = larger(s[Stat::MinusRatio], -ratio);
    s[Stat::Ratio] = larger(s[Stat::Ratio], ratio);
}

/// Compares both log-probs of the token at position `at` of the batch.
fn compare(s: &mut Sums, lp: f64, old: f64, at: usize) {
    let (p, q) = (1.0 - exp_f64(lp), 1.0 - exp_f64(old));
    let diff = (p - q).abs();
    s[Stat::ProbDiff] += diff;
    s[Stat::ProbDiffSquared] += diff * diff;
    s[Stat::Prob] += p;
    s[Stat::OldProb] += q;
    s[Stat::ProbSquared] += p * p;
    s[Stat::OldProbSquared] += q * q;
    s[Stat::ProbProduct] += p * q;
    s[Stat::MaxProbDiff] = larger(s[Stat::MaxProbDiff], diff);
    s[Stat::MaxLogProbDiff] = larger(s[Stat::MaxLogProbDiff], (lp - old).abs());
    if lp != old {
        s[Stat::Different] += 1.0;
        s[Stat::MinusFirstDifferent] = larger(s[Stat::MinusFirstDifferent], -(at as f64));
    }
}

//! Tests of kernels/policy_loss.cu: equal bits with the CPU, which sums in the same order, and the goldens of
//! `goldens/rl`.

use std::cell::RefCell;

use omr_base::config::{KlLossType, LossAggMode, LossMode};
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::policy_loss::batch::Batch;
use omr_runtime::ops::policy_loss::{
    self, Denominators, Distillation, Io, KlLoss, Packed, PolicyLoss, PolicyStats, Sums,
};
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::inputs::{blank, cpu, normals, up, wide};
use omr_runtime_tests::kernels::{Outcome, emu, equal, mutate_sites, mutate_source, same_bits};
use omr_runtime_tests::losses;
use omr_train::rl::probs_diff::ProbsDiff;

/// Sequence lengths near the threads of a warp (32) and of a CTA (256), and zero.
const LENGTHS: [usize; 10] = [5, 0, 1, 31, 32, 33, 255, 256, 0, 700];
const FEW: [usize; 4] = [3, 0, 300, 40];

/// Returns the advantage with both signs in turn, because dual clip applies only below 0.
fn signed(row: usize, advantage: f32) -> f64 {
    f64::from(advantage.abs()) * if row.is_multiple_of(2) { -1.0 } else { 1.0 }
}

struct Case {
    cu: Vec<u32>,
    lp: Vec<f32>,
    old: Vec<f32>,
    reference: Vec<f32>,
    teacher: Vec<f32>,
    entropy: Vec<f32>,
    advantages: Vec<f64>,
}

impl Case {
    /// Creates log-probs whose ratios lie on both sides of every clip.
    fn new(lengths: &[usize], spread: f32) -> Case {
        let mut cu = vec![0u32];
        lengths.iter().for_each(|&n| cu.push(cu[cu.len() - 1] + n as u32));
        let tokens = cu[lengths.len()] as usize;
        let near = |name: u64, to: &[f32], by: f32| -> Vec<f32> {
            normals::<f32>(name, tokens).iter().zip(to).map(|(x, t)| t + by * x).collect()
        };
        let old: Vec<f32> = normals::<f32>(1, tokens).iter().map(|x| -x.abs()).collect();
        let (mut lp, reference) = (near(2, &old, spread), near(3, &old, 1.5));
        // Some log ratios are beyond the limits of the log ratio and of k3.
        lp.iter_mut().step_by(97).for_each(|x| *x -= 30.0);
        Case {
            advantages: (0..).zip(normals::<f32>(5, lengths.len())).map(|(i, a)| signed(i, a)).collect(),
            teacher: near(7, &old, 0.7),
            entropy: normals::<f32>(6, tokens).iter().map(|x| x.abs()).collect(),
            cu,
            lp,
            old,
            reference,
        }
    }

    fn batch(&self) -> Batch<'_, f32> {
        Batch {
            cu_seqlens: &self.cu,
            old_log_prob: &self.old,
            ref_log_prob: Some(&self.reference),
            teacher_log_prob: Some(&self.teacher),
            advantages: &self.advantages,
        }
    }

    fn denominators(&self) -> Denominators {
        Denominators::new(&self.cu, Some(64.0))
    }
}

/// Returns the results of the op: the sums of two passes (metrics accumulate over micro-batches), and both gradients.
fn fwd(
    dev: &mut Device,
    config: &PolicyLoss,
    den: &Denominators,
    batch: &Batch<'_, f32>,
    lp: &[f32],
    entropy: Option<&[f32]>,
    passes: usize,
) -> Outcome<(Sums, Vec<f32>, Vec<f32>)> {
    let mark = dev.mark(Region::Overlay);
    let n = lp.len();
    let packed = Packed {
        cu_seqlens: up(dev, batch.cu_seqlens, &[batch.cu_seqlens.len()]),
        old_log_prob: up(dev, batch.old_log_prob, &[n]),
        ref_log_prob: batch.ref_log_prob.map(|r| up(dev, r, &[n])),
        teacher_log_prob: batch.teacher_log_prob.map(|t| up(dev, t, &[n])),
        advantages: up(dev, batch.advantages, &[batch.advantages.len()]),
    };
    let log_prob = up(dev, lp, &[n]);
    let entropy = entropy.map(|h| up(dev, h, &[n]));
    let (dlog_prob, dentropy) = (blank(dev, DType::F32, &[n]), blank(dev, DType::F32, &[n]));
    let stats = policy_loss::stats(dev, Region::Overlay)?;
    for _ in 0..passes {
        let dentropy = entropy.map(|_| dentropy);
        policy_loss::fwd(dev, config, den, &packed, Io { log_prob, entropy, dlog_prob, dentropy, stats })?;
    }
    let sums = Sums::of(&dev.read::<f64>(stats)?);
    let dentropy = entropy.map_or(Ok(Vec::new()), |_| dev.read::<f32>(dentropy))?;
    let out = (sums, dev.read::<f32>(dlog_prob)?, dentropy);
    dev.release(mark);
    Ok(out)
}

/// Returns every loss with every aggregation, including KL terms of each kind.
fn configs() -> Vec<PolicyLoss> {
    let modes = [
        LossAggMode::TokenMean,
        LossAggMode::SeqMeanTokenSum,
        LossAggMode::SeqMeanTokenMean,
        LossAggMode::SeqMeanTokenSumNorm,
        LossAggMode::TokenSum,
    ];
    let kinds = [KlLossType::Kl, KlLossType::Abs, KlLossType::Mse, KlLossType::LowVarKl, KlLossType::LowVarKl];
    let gspo = PolicyLoss { clip_ratio_low: 0.03, clip_ratio_high: 0.04, ..losses::gspo() };
    let mut out = Vec::new();
    for base in [losses::grpo(), losses::dapo(), losses::cispo(), gspo] {
        out.push(base);
        for (loss_agg_mode, kl_loss_type) in modes.into_iter().zip(kinds) {
            let kl_loss = Some(KlLoss { kl_loss_type, kl_loss_coef: 0.02 });
            out.push(PolicyLoss { loss_agg_mode, kl_loss, entropy_coeff: 0.01, ..base });
        }
        let term = |loss_max_clamp| Some(Distillation { coef: 0.7, loss_max_clamp });
        out.extend([None, Some(0.5)].map(|most| PolicyLoss { distillation: term(most), ..base }));
    }
    out
}

fn bits(sums: &Sums) -> [u64; policy_loss::STATS] {
    sums.0.map(f64::to_bits)
}

/// Compares the op on `dev` with the same op on the CPU.
fn against_the_cpu(dev: &mut Device, config: &PolicyLoss, case: &Case) -> Outcome {
    let (den, batch) = (case.denominators(), case.batch());
    let entropy = Some(&case.entropy[..]);
    let want = fwd(&mut cpu(), config, &den, &batch, &case.lp, entropy, 2)?;
    let got = fwd(dev, config, &den, &batch, &case.lp, entropy, 2)?;
    equal("dlog_prob", &got.1, &want.1)?;
    equal("dentropy", &got.2, &want.2)?;
    if bits(&got.0) != bits(&want.0) {
        return Err(format!("{:?}, expected {:?}", got.0, want.0).into());
    }
    Ok(())
}

fn probe(dev: &mut Device) -> Outcome {
    for config in [losses::grpo(), PolicyLoss { entropy_coeff: 0.1, ..losses::gspo() }] {
        against_the_cpu(dev, &config, &Case::new(&FEW, 0.3))?;
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    let mut dev = emu();
    for config in &configs() {
        for spread in [0.3, 3.0] {
            let case = Case::new(&LENGTHS, spread);
            against_the_cpu(&mut dev, config, &case).unwrap_or_else(|e| panic!("{config:?}: {e}"));
        }
    }
    let case = Case::new(&LENGTHS, 3.0);
    let (config, den) = (losses::grpo(), case.denominators());
    let (sums, ..) = fwd(&mut dev, &config, &den, &case.batch(), &case.lp, None, 1).unwrap();
    let stats = PolicyStats::new(&config, &den, &sums);
    assert!(stats.clipfrac_upper > 0.0 && stats.clipfrac_lower > 0.0 && stats.dual_clipfrac > 0.0, "{stats:?}");
    same_bits(4, |dev| {
        let case = Case::new(&FEW, 0.3);
        Ok(fwd(dev, &configs()[4], &case.denominators(), &case.batch(), &case.lp, None, 1)?.1)
    });
}

#[test]
fn the_goldens_hold_on_the_kernel() {
    let dev = RefCell::new(emu());
    crate::golden::rl::replay(&|config, den, batch, lp, dlog_prob| {
        let (sums, grad, _) = fwd(&mut dev.borrow_mut(), config, den, batch, lp, None, 1).unwrap();
        dlog_prob.copy_from_slice(&grad);
        sums
    });
}

#[test]
fn the_gradient_is_the_losses_slope() {
    let mut dev = emu();
    let case = Case::new(&[4, 0, 9], 0.3);
    let (old, reference, den) = (wide(&case.old), wide(&case.reference), case.denominators());
    for config in configs().into_iter().filter(|c| c.loss_mode == LossMode::Vanilla && c.distillation.is_none()) {
        let (_, grad, _) = fwd(&mut dev, &config, &den, &case.batch(), &case.lp, None, 1).unwrap();
        let batch = Batch {
            cu_seqlens: &case.cu,
            old_log_prob: &old,
            ref_log_prob: Some(&reference),
            teacher_log_prob: None,
            advantages: &case.advantages,
        };
        let value = |lp: &[f64]| {
            let sums =
                policy_loss::compute::compute(&config, &den, &batch, lp, &mut vec![0.0; lp.len()], None, None).unwrap();
            PolicyStats::new(&config, &den, &sums)
        };
        let h = 1e-6;
        for t in 0..case.lp.len() {
            let moved = |by: f64| {
                let mut lp = wide(&case.lp);
                lp[t] += by;
                value(&lp)
            };
            let (up, down) = (moved(h), moved(-h));
            if (up.pg_clipfrac, up.dual_clipfrac) != (down.pg_clipfrac, down.dual_clipfrac) {
                continue;
            }
            let slope = (up.loss - down.loss) / (2.0 * h);
            // Error of central differences of a loss near 1 in f64, and of a gradient in f32.
            let bound = 1e-6 * slope.abs() + 1e-8;
            assert!((slope - f64::from(grad[t])).abs() <= bound, "{config:?}, token {t}: {} for {slope}", grad[t]);
        }
    }
}

#[test]
fn what_is_not_a_number_is_seen_in_loss_and_gradient() {
    for config in [losses::grpo(), losses::gspo()] {
        for dev in [&mut emu(), &mut cpu()] {
            let mut case = Case::new(&[4, 3], 0.1);
            case.lp[2] = f32::NAN;
            let (sums, grad, _) = fwd(dev, &config, &case.denominators(), &case.batch(), &case.lp, None, 1).unwrap();
            assert!(PolicyStats::new(&config, &case.denominators(), &sums).loss.is_nan() && grad[2].is_nan());
        }
    }
}

/// Computes the metrics from their definitions in two passes: the means first, then the moments about the means.
fn by_two_passes(log_prob: &[f32], old: &[f32]) -> ProbsDiff {
    let logs: Vec<(f64, f64)> = log_prob.iter().zip(old).map(|(&a, &b)| (f64::from(a), f64::from(b))).collect();
    let n = logs.len() as f64;
    let mean_of = |f: &dyn Fn(f64, f64) -> f64| logs.iter().map(|&(a, b)| f(a.exp(), b.exp())).sum::<f64>() / n;
    let mean = mean_of(&|a, b| (a - b).abs());
    let (mean_a, mean_b) = (mean_of(&|a, _| a), mean_of(&|_, b| b));
    let spread = (mean_of(&|a, _| (a - mean_a).powi(2)) * mean_of(&|_, b| (b - mean_b).powi(2))).sqrt();
    ProbsDiff {
        valid: true,
        max: logs.iter().map(|(a, b)| (a.exp() - b.exp()).abs()).fold(0.0, f64::max),
        mean,
        std: (mean_of(&|a, b| ((a - b).abs() - mean).powi(2)) * n / (n - 1.0)).sqrt(),
        pearson: mean_of(&|a, b| (a - mean_a) * (b - mean_b)) / spread,
        log_prob_max: logs.iter().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max),
    }
}

#[test]
fn probabilities_are_compared_as_on_the_host() {
    let mut case = Case::new(&LENGTHS, 0.2);
    for on_policy in [false, true] {
        if on_policy {
            case.old = case.lp.clone();
        }
        let (config, den) = (losses::gspo(), case.denominators());
        let (sums, ..) = fwd(&mut emu(), &config, &den, &case.batch(), &case.lp, None, 1).unwrap();
        let want = by_two_passes(&case.lp, &case.old);
        let got = ProbsDiff::from(&sums);
        println!("{got:?}, by two passes {want:?}");
        assert!(got.valid);
        let figures = got.metrics().into_iter().zip(want.metrics());
        for ((name, got), (_, want)) in figures {
            // The op computes moments of numbers up to 1 in one pass, and `by_two_passes` in two passes.
            assert!((got - want).abs() <= 1e-12, "{name}: {got}, {want}");
        }
        if on_policy {
            assert_eq!((got.max, got.mean, got.std, got.log_prob_max, got.pearson), (0.0, 0.0, 0.0, 0.0, 1.0));
            let stats = PolicyStats::new(&config, &den, &sums);
            assert_eq!((stats.ratio_min, stats.ratio_max, stats.pg_clipfrac, stats.ppo_kl), (1.0, 1.0, 0.0, 0.0));
        }
    }
    assert_eq!(ProbsDiff::from(&Sums::NONE), ProbsDiff::default());
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let case = Case::new(&[2, 3], 0.1);
    for mut dev in [emu(), cpu()] {
        let short = Batch { old_log_prob: &case.old[1..], ..case.batch() };
        let missing = Batch { ref_log_prob: None, ..case.batch() };
        let taught = Batch { teacher_log_prob: None, ..case.batch() };
        let (with_kl, distilled) = (&configs()[1], configs().into_iter().find(|c| c.distillation.is_some()).unwrap());
        for (config, batch) in [(&losses::grpo(), short), (with_kl, missing), (&distilled, taught)] {
            let mark = dev.mark(Region::Overlay);
            let n = case.lp.len();
            let old = batch.old_log_prob;
            let packed = Packed {
                cu_seqlens: up(&mut dev, batch.cu_seqlens, &[batch.cu_seqlens.len()]),
                old_log_prob: up(&mut dev, old, &[old.len()]),
                ref_log_prob: batch.ref_log_prob.map(|r| up(&mut dev, r, &[n])),
                teacher_log_prob: batch.teacher_log_prob.map(|t| up(&mut dev, t, &[n])),
                advantages: up(&mut dev, batch.advantages, &[2]),
            };
            let (log_prob, dlog_prob) = (up(&mut dev, &case.lp, &[n]), blank(&mut dev, DType::F32, &[n]));
            let stats = policy_loss::stats(&mut dev, Region::Overlay).unwrap();
            let den = case.denominators();
            let done = policy_loss::fwd(
                &mut dev,
                config,
                &den,
                &packed,
                Io { log_prob, entropy: None, dlog_prob, dentropy: None, stats },
            );
            assert!(done.is_err());
            dev.release(mark);
        }
    }
}

#[test]
fn the_barriers_are_needed() {
    mutate_sites(&["kernels/policy_loss.cu"], 6, probe);
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("smem.log_ratio[w];", "smem.log_ratio[0];"),
        ("double d = log_prob - old, ratio = seq_ratio;", "double d = old - log_prob, ratio = seq_ratio;"),
        ("args.stats[m] + v", "v"),
    ] {
        mutate_source("policy_loss", from, to, 1, probe);
    }
}

#[test]
#[ignore = "slow: every change is compiled"]
fn more_changes_by_hand_are_seen() {
    for (from, to) in [
        ("held != ratio : bound > loss", "held != ratio : bound < loss"),
        ("advantage < 0.0 && loss > cap", "loss > cap"),
        ("(clipped || dual || outside) ?", "(clipped || outside) ?"),
        ("advantage -= args.distillation_coef *", "advantage += args.distillation_coef *"),
        ("-args.loss_max_clamp, args.loss_max_clamp", "-INFINITY, args.loss_max_clamp"),
        ("-args.entropy_coeff * weight", "-args.entropy_coeff * pg_weight"),
        ("(count < 1.0 ? 1.0 : count)", "(count + 1.0)"),
        (
            "double s[STATS];\n#pragma unroll\n    for (int m = 0; m < STATS; m++) s[m] = m < MAXIMA ? 0.0 : -INFINITY;",
            "double s[STATS];\n#pragma unroll\n    for (int m = 0; m < STATS; m++) s[m] = 0.0;",
        ),
        ("v = m < MAXIMA ? v + smem.stats[m][w] : larger(v, smem.stats[m][w])", "v = v + smem.stats[m][w]"),
    ] {
        mutate_source("policy_loss", from, to, 1, |dev| {
            probe(dev)?;
            configs().iter().try_for_each(|config| against_the_cpu(dev, config, &Case::new(&FEW, 3.0)))
        });
    }
}

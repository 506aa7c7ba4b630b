//! Compares losses and advantages with `goldens/rl`, in f64 and, for the losses, also with f32 storage. The submodules
//! `rewards` and `trl` compare the remaining formulas of `goldens/rl`. The tolerances are those of `goldens/rl/README.md`.

pub mod rewards;
pub mod trl;

use std::str::FromStr;

use omr_base::config::{KlLossType, LossAggMode, LossMode};
use omr_runtime::ops::policy_loss::batch::Batch;
use omr_runtime::ops::policy_loss::{self, Denominators, KlLoss, PolicyLoss, PolicyStats, Real, Sums};
use omr_runtime_tests::losses;
use omr_train::rl::advantage::{self, GroupStats};
use omr_train::rl::probs_diff::ProbsDiff;
use serde_json::Value;

/// Tolerance in f64: `|a - b| <= 1e-9 max(1, max|b|)`.
pub const TOL_F64: f64 = 1e-9;
/// Tolerance with f32 storage, relative to `max(1, |loss|)` for the loss and to the largest gradient for gradients.
const TOL_F32: f64 = 1e-5;

const KINDS: [&str; 13] = [
    "policy_loss",
    "advantage",
    "kl_estimators",
    "kl_in_reward",
    "rollout_correction",
    "overlong",
    "filter_groups",
    "composite_reward",
    "format_reward",
    "dapo_pipeline",
    "entropy",
    "dynamic_batch",
    "missing_scores",
];

fn all_cases() -> Vec<Value> {
    let mut cases = Vec::new();
    for file in omr_base_tests::golden::entries(&omr_base_tests::golden::dir().join("rl"), "", ".json") {
        let top = omr_base_tests::golden::json(&file);
        assert_eq!((&top["schema_version"], &top["dtype"]), (&1.into(), &"float64".into()), "{}", file.display());
        cases.extend(top["cases"].as_array().unwrap().iter().cloned());
    }
    cases
}

fn run(kind: &str, check: impl Fn(&Value, &str)) {
    let cases: Vec<Value> = all_cases().into_iter().filter(|c| c["kind"] == kind).collect();
    for case in &cases {
        check(case, case["id"].as_str().unwrap());
    }
    omr_base_tests::golden::report(kind, cases.len());
}

pub fn num(v: &Value) -> f64 {
    match v {
        Value::Bool(b) => f64::from(u8::from(*b)),
        v => v.as_f64().unwrap_or_else(|| panic!("a number, not {v}")),
    }
}

fn vec1(v: &Value) -> Vec<f64> {
    v.as_array().unwrap_or_else(|| panic!("a list, not {v}")).iter().map(num).collect()
}

pub fn flat(v: &Value) -> Vec<f64> {
    v.as_array().unwrap_or_else(|| panic!("a matrix, not {v}")).iter().flat_map(vec1).collect()
}

pub fn ids(v: &Value) -> Vec<usize> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

pub fn named<T: FromStr<Err = omr_base::error::Error>>(v: &Value) -> T {
    v.as_str().unwrap_or_else(|| panic!("a name, not {v}")).parse().unwrap()
}

fn kl_type(v: &Value) -> KlLossType {
    match v.as_str() {
        Some("k1") => KlLossType::Kl,
        Some("k2") => KlLossType::Mse,
        Some("k3") => KlLossType::LowVarKl,
        _ => named(v),
    }
}

/// Compares `got` with `want` with the tolerance `tol x max(1, max|want|)`.
pub fn close(what: &str, got: &[f64], want: &[f64], tol: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let bound = tol * want.iter().fold(1f64, |m, w| m.max(w.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= bound, "{what}[{i}]: {g} instead of {w}, bound {bound:e}");
    }
}

/// Returns the lengths of a padded matrix's rows as cumulative offsets.
fn cu_seqlens(matrix: &Value) -> Vec<u32> {
    let mut cu = vec![0u32];
    for row in matrix.as_array().unwrap() {
        cu.push(cu[cu.len() - 1] + row.as_array().unwrap().len() as u32);
    }
    cu
}

fn mask_of(matrix: &Value) -> Vec<u8> {
    flat(matrix).iter().map(|&m| u8::from(m != 0.0)).collect()
}

fn advantages(case: &Value, rewards: &[f64]) -> Vec<f64> {
    let norm = case["config"]["norm_adv_by_std_in_grpo"].as_bool().unwrap();
    let eps = num(&case["config"]["adv_eps"]);
    assert_eq!(eps, advantage::ADV_EPS, "the epsilon is not an option in verl");
    by_groups(&ids(&case["inputs"]["group_ids"]), rewards, norm)
}

/// Returns the advantages of `rewards`, each computed in the group of its id.
fn by_groups(group_ids: &[usize], rewards: &[f64], norm: bool) -> Vec<f64> {
    let mut found = vec![f64::NAN; rewards.len()];
    for (_, members) in by_group(group_ids) {
        let own: Vec<f64> = members.iter().map(|&i| rewards[i]).collect();
        members.iter().zip(advantage::grpo(&own, norm)).for_each(|(&i, a)| found[i] = a);
    }
    found
}

/// Returns the indices of a batch's responses by group, in order of first appearance.
pub fn by_group(group_ids: &[usize]) -> Vec<(usize, Vec<usize>)> {
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for (i, &g) in group_ids.iter().enumerate() {
        match groups.iter_mut().find(|(id, _)| *id == g) {
            Some((_, members)) => members.push(i),
            None => groups.push((g, vec![i])),
        }
    }
    groups
}

fn check_advantages(case: &Value, id: &str) {
    let rewards = vec1(&case["inputs"]["rewards"]);
    let got = advantages(case, &rewards);
    close(&format!("{id} advantages"), &got, &vec1(&case["outputs"]["advantages"]), TOL_F64);
    let groups = by_group(&ids(&case["inputs"]["group_ids"]));
    let want = case["outputs"]["group_mean_std"].as_object().unwrap();
    assert_eq!(groups.len(), want.len(), "{id}: groups");
    for (group, members) in groups {
        let s = GroupStats::of(&members.iter().map(|&i| rewards[i]).collect::<Vec<f64>>());
        close(&format!("{id} group {group}"), &[s.mean, s.std], &vec1(&want[&group.to_string()]), TOL_F64);
    }
    let group_ids = ids(&case["inputs"]["group_ids"]);
    for g in 0..group_ids.len() {
        let mine: Vec<usize> = (0..group_ids.len()).filter(|&i| group_ids[i] == group_ids[g]).collect();
        if mine.len() > 1 && mine.iter().all(|&i| rewards[i] == rewards[g]) {
            assert_eq!(got[g], 0.0, "{id}: an all-equal group has exactly 0");
        }
    }
}

fn loss_config(config: &Value) -> PolicyLoss {
    let gspo = config["clip_ratio_c"].is_null();
    PolicyLoss {
        loss_mode: if gspo { LossMode::Gspo } else { LossMode::Vanilla },
        clip_ratio_low: num(&config["clip_ratio_low"]),
        clip_ratio_high: num(&config["clip_ratio_high"]),
        clip_ratio_c: config["clip_ratio_c"].as_f64(),
        loss_agg_mode: named(&config["loss_agg_mode"]),
        kl_loss: (config["use_kl_loss"] == true).then(|| KlLoss {
            kl_loss_type: kl_type(&config["kl_loss_type"]),
            kl_loss_coef: num(&config["kl_loss_coef"]),
        }),
        distillation: None,
        entropy_coeff: 0.0,
    }
}

/// The matrices of a case in one storage type: the selected rows without the masked elements.
pub struct Data<F> {
    pub cu: Vec<u32>,
    pub lp: Vec<F>,
    pub old: Vec<F>,
    pub reference: Option<Vec<F>>,
    pub teacher: Option<Vec<F>>,
    pub adv: Vec<f64>,
    /// Position of each kept element in the padded matrix.
    pub at: Vec<usize>,
    /// Length of the padded rows.
    pub width: f64,
}

impl<F: Real> Data<F> {
    pub fn new(case: &Value, adv: &[f64], rows: &[usize]) -> Data<F> {
        let inputs = &case["inputs"];
        let (padded, mask) = (cu_seqlens(&inputs["response_mask"]), mask_of(&inputs["response_mask"]));
        let (mut cu, mut at) = (vec![0u32], Vec::new());
        for &r in rows {
            at.extend((padded[r] as usize..padded[r + 1] as usize).filter(|&t| mask[t] != 0));
            cu.push(at.len() as u32);
        }
        let pick = |name: &str| -> Vec<F> {
            let all = flat(&inputs[name]);
            at.iter().map(|&i| F::from_f64(all[i])).collect()
        };
        Data {
            lp: pick("log_prob"),
            old: pick("old_log_prob"),
            reference: (!inputs["ref_log_prob"].is_null()).then(|| pick("ref_log_prob")),
            teacher: (!inputs["teacher_log_prob"].is_null()).then(|| pick("teacher_log_prob")),
            adv: rows.iter().map(|&r| adv[r]).collect(),
            width: f64::from(padded[1]),
            cu,
            at,
        }
    }

    pub fn batch(&self) -> Batch<'_, F> {
        Batch {
            cu_seqlens: &self.cu,
            old_log_prob: &self.old,
            ref_log_prob: self.reference.as_deref(),
            teacher_log_prob: self.teacher.as_deref(),
            advantages: &self.adv,
        }
    }

    /// If there is no scale factor, verl uses the padded width.
    fn denominators(&self, loss_scale_factor: &Value) -> Denominators {
        Denominators::new(&self.cu, Some(loss_scale_factor.as_f64().unwrap_or(self.width)))
    }
}

/// Function that computes a loss and its gradient, on the host or with an op on a device.
pub type Compute<'a, F> = dyn Fn(&PolicyLoss, &Denominators, &Batch<'_, F>, &[F], &mut [F]) -> Sums + 'a;

pub fn on_host<F: Real>(
    config: &PolicyLoss,
    den: &Denominators,
    batch: &Batch<'_, F>,
    log_prob: &[F],
    dlog_prob: &mut [F],
) -> Sums {
    policy_loss::compute::compute(config, den, batch, log_prob, dlog_prob, None, None).unwrap()
}

/// Compares the loss, metrics and gradients of a case in one storage type, for the whole batch and split by
/// `micro_batches`.
fn check_loss<F: Real>(case: &Value, id: &str, tol: f64, compute: &Compute<'_, F>) {
    let (config, out) = (loss_config(&case["config"]), &case["outputs"]);
    let rows: Vec<usize> = (0..case["inputs"]["rewards"].as_array().unwrap().len()).collect();
    let adv = vec1(&out["advantages"]);
    let data = Data::<F>::new(case, &adv, &rows);
    let den = data.denominators(&case["config"]["loss_scale_factor"]);
    let mut grad = vec![F::from_f64(f64::NAN); data.lp.len()];
    let sums = compute(&config, &den, &data.batch(), &data.lp, &mut grad);
    let stats = PolicyStats::new(&config, &den, &sums);

    close(&format!("{id} pg_loss"), &[stats.pg_loss], &[num(&out["pg_loss"])], tol);
    close(&format!("{id} total_loss"), &[stats.loss], &[num(&out["total_loss"])], tol);
    let kl = if out["kl_loss"].is_null() { 0.0 } else { num(&out["kl_loss"]) };
    close(&format!("{id} kl_loss"), &[stats.kl_loss], &[kl], tol);
    for (name, got) in [
        ("pg_clipfrac", stats.pg_clipfrac),
        ("clipfrac_upper", stats.clipfrac_upper),
        ("clipfrac_lower", stats.clipfrac_lower),
        ("dual_clipfrac", stats.dual_clipfrac),
        ("ppo_kl", stats.ppo_kl),
    ] {
        close(&format!("{id} {name}"), &[got], &[num(&out[name])], tol);
    }
    let want = flat(&out["grad_log_prob"]);
    let largest = want.iter().fold(0f64, |m, w| m.max(w.abs()));
    let mut whole = vec![0.0; want.len()];
    data.at.iter().zip(&grad).for_each(|(&i, &g)| whole[i] = g.into());
    for (i, (g, w)) in whole.iter().zip(&want).enumerate() {
        let bound = if tol < TOL_F32 { tol * largest.max(1.0) } else { tol * largest };
        assert!((g - w).abs() <= bound, "{id} grad[{i}]: {g} instead of {w}");
    }
    if config.loss_mode == LossMode::Gspo {
        let means: Vec<f64> = (0..rows.len())
            .map(|r| {
                let row = data.cu[r] as usize..data.cu[r + 1] as usize;
                policy_loss::row::seq_mean_log_ratio(&data.lp[row.clone()], &data.old[row])
            })
            .collect();
        close(&format!("{id} seq_mean_log_ratio"), &means, &vec1(&out["seq_mean_log_ratio"]), tol);
        let ratios: Vec<f64> = means.iter().map(|&m| policy_loss::row::seq_ratio(m)).collect();
        close(&format!("{id} seq_ratio"), &ratios, &vec1(&out["seq_ratio"]), tol);
    }
    let whole = Whole { config, den, adv, grad: whole };
    check_micro_batches::<F>(case, id, tol, &whole, compute);
}

/// Results of a case before it is split.
struct Whole {
    config: PolicyLoss,
    den: Denominators,
    adv: Vec<f64>,
    grad: Vec<f64>,
}

fn check_micro_batches<F: Real>(case: &Value, id: &str, tol: f64, whole: &Whole, compute: &Compute<'_, F>) {
    let Whole { config, den, adv, grad: whole } = whole;
    let micro = &case["micro_batches"];
    if micro.is_null() {
        return;
    }
    let counts = [num(&micro["batch_num_tokens"]), num(&micro["num_nonempty_seqs"])];
    close(&format!("{id} denominators"), &[den.batch_num_tokens, den.num_seqs], &counts, 0.0);
    let mut sum = Sums::NONE;
    let mut seen = vec![f64::NAN; whole.len()];
    let mut naive = 0.0;
    for (k, rows) in micro["rows"].as_array().unwrap().iter().enumerate() {
        let data = Data::<F>::new(case, adv, &ids(rows));
        let mut grad = vec![F::from_f64(0.0); data.lp.len()];
        let part = compute(config, den, &data.batch(), &data.lp, &mut grad);
        let loss = PolicyStats::new(config, den, &part).loss;
        close(&format!("{id} contribution {k}"), &[loss], &[num(&micro["contributions"][k])], tol);
        data.at.iter().zip(&grad).for_each(|(&i, &g)| seen[i] = g.into());
        sum += part;

        // verl's older actor computes the loss in this way: each part uses its own denominators and is weighted by its
        // number of rows.
        let own = data.denominators(&micro["loss_scale_factor"]);
        let alone = compute(config, &own, &data.batch(), &data.lp, &mut grad);
        let alone = PolicyStats::new(config, &own, &alone).loss;
        naive += if own.num_seqs == 0.0 { 0.0 } else { alone * ids(rows).len() as f64 / adv.len() as f64 };
    }
    let sum = PolicyStats::new(config, den, &sum).loss;
    close(&format!("{id} sum"), &[sum], &[num(&micro["sum"])], tol);
    close(&format!("{id} naive sum"), &[naive], &[num(&micro["naive_sample_weighted_sum"])], tol);
    for (i, (s, w)) in seen.iter().zip(whole).enumerate() {
        assert!(s == w || (s.is_nan() && *w == 0.0), "{id} grad[{i}] in a micro-batch: {s} instead of {w}");
    }
}

#[test]
fn every_kind_has_a_test() {
    let cases = all_cases();
    for case in &cases {
        let kind = case["kind"].as_str().unwrap();
        assert!(KINDS.contains(&kind), "{}: no test for kind {kind}", case["id"]);
    }
    omr_base_tests::golden::report("rl", cases.len());
}

#[test]
fn policy_loss() {
    run("policy_loss", |case, id| {
        check_advantages(case, id);
        check_loss::<f64>(case, id, TOL_F64, &on_host);
        check_loss::<f32>(case, id, TOL_F32, &on_host);
    });
}

/// Runs every loss case of the goldens with `compute` and f32 storage.
pub fn replay(compute: &Compute<'_, f32>) {
    run("policy_loss", |case, id| check_loss(case, id, TOL_F32, compute));
}

#[test]
fn advantage() {
    run("advantage", check_advantages);
}

#[test]
fn kl_estimators() {
    run("kl_estimators", |case, id| {
        let (lp, reference) = (flat(&case["inputs"]["log_prob"]), flat(&case["inputs"]["ref_log_prob"]));
        for (name, out) in case["outputs"].as_object().unwrap() {
            let kl = kl_type(&Value::String(name.clone()));
            let got: Vec<(f64, f64)> =
                lp.iter().zip(&reference).map(|(&l, &r)| policy_loss::kl_value_and_grad(kl, l, r)).collect();
            let (values, grads): (Vec<f64>, Vec<f64>) = got.into_iter().unzip();
            close(&format!("{id} {name}"), &values, &flat(&out["value"]), TOL_F64);
            close(&format!("{id} {name} gradient"), &grads, &flat(&out["grad_log_prob"]), TOL_F64);
        }
    });
}

/// Returns the log-softmax of one row of logits at a temperature, its entropy, and the derivative of the entropy with
/// respect to each logit.
fn softmax_row(logits: &[f64], temperature: f64) -> (Vec<f64>, f64, Vec<f64>) {
    let z: Vec<f64> = logits.iter().map(|l| l / temperature).collect();
    let max = z.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
    let lse = max + z.iter().map(|x| (x - max).exp()).sum::<f64>().ln();
    let lp: Vec<f64> = z.iter().map(|x| x - lse).collect();
    let h = -lp.iter().map(|l| l.exp() * l).sum::<f64>();
    let grad = lp.iter().map(|l| -l.exp() * (l + h) / temperature).collect();
    (lp, h, grad)
}

#[test]
fn entropy() {
    run("entropy", |case, id| {
        let (inputs, out) = (&case["inputs"], &case["outputs"]);
        let mode: LossAggMode = named(&case["config"]["loss_agg_mode"]);
        let mask = mask_of(&inputs["response_mask"]);
        let labels: Vec<usize> = inputs["labels"].as_array().unwrap().iter().flat_map(ids).collect();
        let logits: Vec<Vec<f64>> =
            inputs["logits"].as_array().unwrap().iter().flat_map(|r| r.as_array().unwrap().iter().map(vec1)).collect();
        let rows: Vec<_> = logits.iter().map(|l| softmax_row(l, num(&case["config"]["temperature"]))).collect();
        let lp: Vec<f64> = rows.iter().zip(&labels).map(|(r, &l)| r.0[l]).collect();
        let h: Vec<f64> = rows.iter().map(|r| r.1).collect();
        close(&format!("{id} log_prob"), &lp, &flat(&out["log_prob"]), TOL_F64);
        close(&format!("{id} entropy"), &h, &flat(&out["entropy"]), TOL_F64);

        let config = PolicyLoss { loss_agg_mode: mode, entropy_coeff: -1.0, ..losses::grpo() };
        let (mut cu, mut at) = (vec![0u32], Vec::new());
        for row in cu_seqlens(&inputs["response_mask"]).windows(2) {
            at.extend((row[0] as usize..row[1] as usize).filter(|&t| mask[t] != 0));
            cu.push(at.len() as u32);
        }
        let kept = |all: &[f64]| -> Vec<f64> { at.iter().map(|&t| all[t]).collect() };
        let (kept_lp, kept_h, adv) = (kept(&lp), kept(&h), vec![0.0; cu.len() - 1]);
        let batch = Batch {
            cu_seqlens: &cu,
            old_log_prob: &kept_lp,
            ref_log_prob: None,
            teacher_log_prob: None,
            advantages: &adv,
        };
        let (mut grad, mut kept_dh) = (vec![f64::NAN; at.len()], vec![f64::NAN; at.len()]);
        let den = Denominators::new(&cu, None);
        let sums = policy_loss::compute::compute(
            &config,
            &den,
            &batch,
            &kept_lp,
            &mut grad,
            Some(&kept_h),
            Some(&mut kept_dh),
        )
        .unwrap();
        let stats = PolicyStats::new(&config, &den, &sums);
        let mut dh = vec![0.0; h.len()];
        at.iter().zip(kept_dh).for_each(|(&t, d)| dh[t] = d);
        close(&format!("{id} entropy_agg"), &[stats.entropy], &[num(&out["entropy_agg"])], TOL_F64);
        let want: Vec<f64> = out["grad_logits"].as_array().unwrap().iter().flat_map(flat).collect();
        let got: Vec<f64> = rows.iter().zip(&dh).flat_map(|(r, d)| r.2.iter().map(move |g| g * d)).collect();
        close(&format!("{id} grad_logits"), &got, &want, TOL_F64);
    });
}

#[test]
fn rollout_probs_diff() {
    run("rollout_correction", |case, id| {
        let (inputs, out) = (&case["inputs"], &case["outputs"]);
        let mask = mask_of(&inputs["response_mask"]);
        let kept = |name: &str| -> Vec<f64> {
            flat(&inputs[name]).into_iter().zip(&mask).filter(|(_, m)| **m != 0).map(|(x, _)| x).collect()
        };
        let (old, rollout) = (kept("old_log_prob"), kept("rollout_log_prob"));
        let cu = [0, old.len() as u32];
        let batch = Batch {
            cu_seqlens: &cu,
            old_log_prob: &rollout,
            ref_log_prob: None,
            teacher_log_prob: None,
            advantages: &[0.0],
        };
        let (den, mut grad) = (Denominators::new(&cu, None), vec![f64::NAN; old.len()]);
        let sums = policy_loss::compute::compute(&losses::grpo(), &den, &batch, &old, &mut grad, None, None).unwrap();
        let diff = ProbsDiff::from(&sums);
        for (name, value) in [
            ("probs_diff_max", diff.max),
            ("probs_diff_mean", diff.mean),
            ("probs_diff_std", diff.std),
            ("probs_pearson", diff.pearson),
        ] {
            close(&format!("{id} {name}"), &[value], &[num(&out[name])], TOL_F64);
        }
    });
}

//! `goldens/rl`: losses, advantages and the small formulas around them, in f64 and, for the losses, with f32
//! storage. Tolerances are those of `goldens/rl/README.md`.

use std::str::FromStr;

use omr::ops::policy_loss::{
    self, Batch, Denominators, KlLoss, KlLossType, LossAggMode, LossMode, PolicyLoss, PolicyStats, Real, Sums,
};
use omr::reward::{Mode, composite, extract, verify};
use omr::rl::{advantage, batching, correction, filter, kl, overlong};
use serde_json::Value;

/// f64: `|a - b| <= 1e-9 max(1, max|b|)`.
const TOL_F64: f64 = 1e-9;
/// f32 storage: relative to `max(1, |loss|)`, and to the largest gradient.
const TOL_F32: f64 = 1e-5;

const KINDS: [&str; 12] = [
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
];

fn all_cases() -> Vec<Value> {
    let mut cases = Vec::new();
    for file in super::entries(&super::dir().join("rl"), "", ".json") {
        let top = super::json(&file);
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
    super::report(kind, cases.len());
}

fn num(v: &Value) -> f64 {
    match v {
        Value::Bool(b) => f64::from(u8::from(*b)),
        v => v.as_f64().unwrap_or_else(|| panic!("a number, not {v}")),
    }
}

fn vec1(v: &Value) -> Vec<f64> {
    v.as_array().unwrap_or_else(|| panic!("a list, not {v}")).iter().map(num).collect()
}

fn flat(v: &Value) -> Vec<f64> {
    v.as_array().unwrap_or_else(|| panic!("a matrix, not {v}")).iter().flat_map(vec1).collect()
}

fn ids(v: &Value) -> Vec<usize> {
    v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as usize).collect()
}

fn named<T: FromStr<Err = omr::error::Error>>(v: &Value) -> T {
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

/// `got` against `want` under `tol x max(1, max|want|)`.
fn close(what: &str, got: &[f64], want: &[f64], tol: f64) {
    assert_eq!(got.len(), want.len(), "{what}: length");
    let bound = tol * want.iter().fold(1f64, |m, w| m.max(w.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= bound, "{what}[{i}]: {g} instead of {w}, bound {bound:e}");
    }
}

/// A padded matrix's rows as offsets.
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
    advantage::grpo(&ids(&case["inputs"]["group_ids"]), rewards, norm).0
}

fn check_advantages(case: &Value, id: &str) {
    let rewards = vec1(&case["inputs"]["rewards"]);
    let got = advantages(case, &rewards);
    close(&format!("{id} advantages"), &got, &vec1(&case["outputs"]["advantages"]), TOL_F64);
    let (_, stats) = advantage::grpo(&ids(&case["inputs"]["group_ids"]), &rewards, true);
    let want = case["outputs"]["group_mean_std"].as_object().unwrap();
    assert_eq!(stats.len(), want.len(), "{id}: groups");
    for (group, s) in stats {
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
        entropy_coeff: 0.0,
    }
}

/// The matrices of a case under one storage type; `rows` picks and keeps some, `ragged` cuts the padding off.
struct Data<F> {
    cu: Vec<u32>,
    mask: Vec<u8>,
    lp: Vec<F>,
    old: Vec<F>,
    reference: Option<Vec<F>>,
    adv: Vec<f64>,
    /// Position of each kept element in the padded matrix.
    at: Vec<usize>,
}

impl<F: Real> Data<F> {
    fn new(case: &Value, adv: &[f64], rows: &[usize], ragged: bool) -> Data<F> {
        let inputs = &case["inputs"];
        let (padded, mask) = (cu_seqlens(&inputs["response_mask"]), mask_of(&inputs["response_mask"]));
        let (mut cu, mut at) = (vec![0u32], Vec::new());
        for &r in rows {
            let (from, to) = (padded[r] as usize, padded[r + 1] as usize);
            let used = (from..to).rev().find(|&t| mask[t] != 0).map_or(from, |t| t + 1);
            at.extend(from..if ragged { used } else { to });
            cu.push(at.len() as u32);
        }
        let pick = |name: &str| -> Vec<F> {
            let all = flat(&inputs[name]);
            at.iter().map(|&i| F::from_f64(all[i])).collect()
        };
        Data {
            mask: at.iter().map(|&i| mask[i]).collect(),
            lp: pick("log_prob"),
            old: pick("old_log_prob"),
            reference: (!inputs["ref_log_prob"].is_null()).then(|| pick("ref_log_prob")),
            adv: rows.iter().map(|&r| adv[r]).collect(),
            cu,
            at,
        }
    }

    fn batch(&self) -> Batch<'_, F> {
        Batch {
            cu_seqlens: &self.cu,
            mask: Some(&self.mask),
            old_log_prob: &self.old,
            ref_log_prob: self.reference.as_deref(),
            advantages: &self.adv,
            rollout_is_weights: None,
        }
    }
}

/// What computes a loss and its gradient: a body on the host, or an op on a device.
pub type Compute<'a, F> = dyn Fn(&PolicyLoss, &Denominators, &Batch<'_, F>, &[F], &mut [F]) -> Sums + 'a;

fn on_host<F: Real>(
    config: &PolicyLoss,
    den: &Denominators,
    batch: &Batch<'_, F>,
    log_prob: &[F],
    dlog_prob: &mut [F],
) -> Sums {
    policy_loss::compute(config, den, batch, log_prob, dlog_prob, None).unwrap()
}

/// Loss, metrics and gradients of a case in one storage type, padded or ragged, split as `micro` says.
fn check_loss<F: Real>(case: &Value, id: &str, tol: f64, ragged: bool, compute: &Compute<'_, F>) {
    let (config, out) = (loss_config(&case["config"]), &case["outputs"]);
    let rows: Vec<usize> = (0..case["inputs"]["rewards"].as_array().unwrap().len()).collect();
    let adv = vec1(&out["advantages"]);
    let padded = Data::<F>::new(case, &adv, &rows, false);
    let den = Denominators::new(&padded.cu, &padded.mask, case["config"]["loss_scale_factor"].as_f64());
    let data = Data::<F>::new(case, &adv, &rows, ragged);
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
        assert!(padded.mask[i] != 0 || *g == 0.0, "{id} grad[{i}]: {g} under the mask");
    }
    if config.loss_mode == LossMode::Gspo {
        let means: Vec<f64> = (0..rows.len())
            .map(|r| {
                let row = data.cu[r] as usize..data.cu[r + 1] as usize;
                policy_loss::seq_mean_log_ratio(&data.lp[row.clone()], &data.old[row.clone()], &data.mask[row])
            })
            .collect();
        close(&format!("{id} seq_mean_log_ratio"), &means, &vec1(&out["seq_mean_log_ratio"]), tol);
        let ratios: Vec<f64> = means.iter().map(|&m| policy_loss::seq_ratio(m)).collect();
        close(&format!("{id} seq_ratio"), &ratios, &vec1(&out["seq_ratio"]), tol);
    }
    check_micro_batches::<F>(case, id, tol, ragged, &config, &den, &adv, &whole, compute);
}

#[allow(clippy::too_many_arguments)]
fn check_micro_batches<F: Real>(
    case: &Value,
    id: &str,
    tol: f64,
    ragged: bool,
    config: &PolicyLoss,
    den: &Denominators,
    adv: &[f64],
    whole: &[f64],
    compute: &Compute<'_, F>,
) {
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
        let data = Data::<F>::new(case, adv, &ids(rows), ragged);
        let mut grad = vec![F::from_f64(0.0); data.lp.len()];
        let part = compute(config, den, &data.batch(), &data.lp, &mut grad);
        let loss = PolicyStats::new(config, den, &part).loss;
        close(&format!("{id} contribution {k}"), &[loss], &[num(&micro["contributions"][k])], tol);
        data.at.iter().zip(&grad).for_each(|(&i, &g)| seen[i] = g.into());
        sum += part;

        // What verl's older actor computed: each part under its own denominators, weighted by its rows.
        let padded = Data::<F>::new(case, adv, &ids(rows), false);
        let own = Denominators::new(&padded.cu, &padded.mask, micro["loss_scale_factor"].as_f64());
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
    super::report("rl", cases.len());
}

#[test]
fn policy_loss() {
    run("policy_loss", |case, id| {
        check_advantages(case, id);
        for ragged in [false, true] {
            check_loss::<f64>(case, id, TOL_F64, ragged, &on_host);
            check_loss::<f32>(case, id, TOL_F32, ragged, &on_host);
        }
    });
}

/// Every loss of the goldens by `compute`, with f32 storage.
pub fn replay(compute: &Compute<'_, f32>) {
    run("policy_loss", |case, id| {
        [false, true].into_iter().for_each(|ragged| check_loss(case, id, TOL_F32, ragged, compute));
    });
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

/// log-softmax of one row of logits over a temperature, its entropy, and the entropy's derivative by each logit.
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
        let (cu, mask) = (cu_seqlens(&inputs["response_mask"]), mask_of(&inputs["response_mask"]));
        let labels: Vec<usize> = inputs["labels"].as_array().unwrap().iter().flat_map(ids).collect();
        let logits: Vec<Vec<f64>> =
            inputs["logits"].as_array().unwrap().iter().flat_map(|r| r.as_array().unwrap().iter().map(vec1)).collect();
        let rows: Vec<_> = logits.iter().map(|l| softmax_row(l, num(&case["config"]["temperature"]))).collect();
        let lp: Vec<f64> = rows.iter().zip(&labels).map(|(r, &l)| r.0[l]).collect();
        let h: Vec<f64> = rows.iter().map(|r| r.1).collect();
        close(&format!("{id} log_prob"), &lp, &flat(&out["log_prob"]), TOL_F64);
        close(&format!("{id} entropy"), &h, &flat(&out["entropy"]), TOL_F64);

        let den = Denominators::new(&cu, &mask, None);
        let config = PolicyLoss { loss_agg_mode: mode, entropy_coeff: -1.0, ..PolicyLoss::grpo() };
        let adv = vec![0.0; cu.len() - 1];
        let batch = Batch {
            cu_seqlens: &cu,
            mask: Some(&mask),
            old_log_prob: &lp,
            ref_log_prob: None,
            advantages: &adv,
            rollout_is_weights: None,
        };
        let (mut grad, mut dh) = (vec![f64::NAN; h.len()], vec![f64::NAN; h.len()]);
        let entropy = Some((&h[..], &mut dh[..]));
        let sums = policy_loss::compute(&config, &den, &batch, &lp, &mut grad, entropy).unwrap();
        let stats = PolicyStats::new(&config, &den, &sums);
        close(&format!("{id} entropy_agg"), &[stats.entropy], &[num(&out["entropy_agg"])], TOL_F64);
        let want: Vec<f64> = out["grad_logits"].as_array().unwrap().iter().flat_map(flat).collect();
        let got: Vec<f64> = rows.iter().zip(&dh).flat_map(|(r, d)| r.2.iter().map(move |g| g * d)).collect();
        close(&format!("{id} grad_logits"), &got, &want, TOL_F64);
    });
}

#[test]
fn kl_in_reward() {
    run("kl_in_reward", |case, id| {
        let (config, inputs, out) = (&case["config"], &case["inputs"], &case["outputs"]);
        let kl_penalty = kl_type(&config["kl_penalty"]);
        let number = |name: &str| num(&config["kl_ctrl"][name]);
        let kl_coef = number("kl_coef");
        let mut ctrl = match config["kl_ctrl"]["type"].as_str() {
            Some("fixed") => kl::KlCtrl::Fixed { kl_coef },
            _ => kl::KlCtrl::Adaptive { kl_coef, horizon: number("horizon"), target_kl: number("target_kl") },
        };
        close(&format!("{id} coefficient"), &[ctrl.kl_coef()], &[num(&out["reward_kl_penalty_coeff"])], TOL_F64);
        let rewards = vec1(&inputs["rewards"]);
        let got = kl::kl_in_reward(
            kl_penalty,
            ctrl.kl_coef(),
            &cu_seqlens(&inputs["response_mask"]),
            &mask_of(&inputs["response_mask"]),
            &flat(&inputs["old_log_prob"]),
            &flat(&inputs["ref_log_prob"]),
            &rewards,
        );
        let token_level = flat(&out["token_level_rewards"]);
        close(&format!("{id} token_level_rewards"), &got.token_level_rewards, &token_level, TOL_F64);
        close(&format!("{id} scores"), &got.scores, &vec1(&out["scores"]), TOL_F64);
        close(&format!("{id} penalty"), &[got.reward_kl_penalty], &[num(&out["reward_kl_penalty"])], TOL_F64);
        ctrl.update(got.reward_kl_penalty, rewards.len());
        close(&format!("{id} next_kl_coef"), &[ctrl.kl_coef()], &[num(&out["next_kl_coef"])], TOL_F64);
        close(&format!("{id} advantages"), &advantages(case, &got.scores), &vec1(&out["advantages"]), TOL_F64);
    });
}

/// The settings of a rollout_correction case.
fn correction_config(config: &Value) -> correction::RolloutCorrection {
    let level = match config["rollout_is"].as_str() {
        None => None,
        Some("token") => Some(correction::RolloutIs::Token),
        Some("sequence") => Some(correction::RolloutIs::Sequence),
        Some(other) => panic!("rollout_is {other}"),
    };
    let (rs, threshold) = (&config["rollout_rs"], &config["rollout_rs_threshold"]);
    let threshold = threshold.as_str().map_or_else(|| threshold.to_string(), str::to_owned);
    correction::RolloutCorrection {
        rollout_is: level,
        rollout_is_threshold: num(&config["rollout_is_threshold"]),
        rollout_is_batch_normalize: config["rollout_is_batch_normalize"].as_bool().unwrap(),
        rollout_rs: rs.as_str().map_or_else(Vec::new, |rs| correction::Rejection::parse(rs, &threshold).unwrap()),
    }
}

#[test]
fn rollout_correction() {
    run("rollout_correction", |case, id| {
        let (inputs, out) = (&case["inputs"], &case["outputs"]);
        let (cu, mask) = (cu_seqlens(&inputs["response_mask"]), mask_of(&inputs["response_mask"]));
        let (lp, old, roll) =
            (flat(&inputs["log_prob"]), flat(&inputs["old_log_prob"]), flat(&inputs["rollout_log_prob"]));
        let got = correction::correct(&correction_config(&case["config"]), &cu, &mask, &old, &roll);
        assert_eq!(got.response_mask, mask_of(&out["response_mask"]), "{id}: mask after rejection");
        match &got.rollout_is_weights {
            Some(w) => close(&format!("{id} is_weights"), w, &flat(&out["is_weights"]), TOL_F64),
            None => assert!(out["is_weights"].is_null(), "{id}: weights expected"),
        }
        let metric = |name: &str| {
            let found = got.metrics.iter().find(|(n, _)| *n == name);
            found.unwrap_or_else(|| panic!("{id}: no metric {name}")).1
        };
        // verl logs some fractions through f32.
        let logged = |name: &str, want: f64, tol: f64| {
            let value = metric(name);
            assert!((value - want).abs() <= tol * want.abs().max(1.0), "{id} {name}: {value} instead of {want}");
        };
        logged("rollout_corr/kl", num(&out["rollout_kl"]), TOL_F64);
        logged("rollout_corr/k3_kl", num(&out["rollout_k3_kl"]), TOL_F64);
        for (name, want) in out["verl_metrics"].as_object().unwrap() {
            logged(name, num(want), if name.ends_with("fraction") { 1e-6 } else { TOL_F64 });
        }
        let diff = correction::ProbsDiff::of(&mask, &old, &roll);
        for (name, value) in [
            ("probs_diff_max", diff.max),
            ("probs_diff_mean", diff.mean),
            ("probs_diff_std", diff.std),
            ("probs_pearson", diff.pearson),
        ] {
            close(&format!("{id} {name}"), &[value], &[num(&out[name])], TOL_F64);
        }
        let adv = advantages(case, &vec1(&inputs["rewards"]));
        close(&format!("{id} advantages"), &adv, &vec1(&out["advantages"]), TOL_F64);
        let batch = Batch {
            cu_seqlens: &cu,
            mask: Some(&got.response_mask),
            old_log_prob: &old,
            ref_log_prob: None,
            advantages: &adv,
            rollout_is_weights: got.rollout_is_weights.as_deref(),
        };
        let (den, mut grad) = (Denominators::new(&cu, &got.response_mask, None), vec![f64::NAN; lp.len()]);
        let config = loss_config(&case["config"]);
        let sums = policy_loss::compute(&config, &den, &batch, &lp, &mut grad, None).unwrap();
        let stats = PolicyStats::new(&config, &den, &sums);
        close(&format!("{id} pg_loss"), &[stats.pg_loss], &[num(&out["pg_loss"])], TOL_F64);
        close(&format!("{id} grad_log_prob"), &grad, &flat(&out["grad_log_prob"]), TOL_F64);
    });
}

fn overlong_buffer(config: &Value) -> overlong::OverlongBuffer {
    let size = |name: &str| config[name].as_u64().unwrap() as usize;
    let factor = num(&config["penalty_factor"]);
    overlong::OverlongBuffer::new(size("max_resp_len"), size("overlong_buffer_len"), factor).unwrap()
}

#[test]
fn overlong() {
    run("overlong", |case, id| {
        let (inputs, out) = (&case["inputs"], &case["outputs"]);
        let buffer = overlong_buffer(&case["config"]);
        let penalty: Vec<f64> = ids(&inputs["response_lengths"]).iter().map(|&n| buffer.penalty(n)).collect();
        close(&format!("{id} penalty"), &penalty, &vec1(&out["penalty"]), TOL_F64);
        let flags: Vec<f64> = penalty.iter().map(|&p| f64::from(p < 0.0)).collect();
        close(&format!("{id} overlong"), &flags, &vec1(&out["overlong"]), 0.0);
        let rewards: Vec<f64> = vec1(&inputs["base_rewards"]).iter().zip(&penalty).map(|(r, p)| r + p).collect();
        close(&format!("{id} reward"), &rewards, &vec1(&out["reward"]), TOL_F64);
    });
}

/// Responses of a batch by group, in order of first appearance.
fn by_group(group_ids: &[usize]) -> Vec<(usize, Vec<usize>)> {
    let mut groups: Vec<(usize, Vec<usize>)> = Vec::new();
    for (i, &g) in group_ids.iter().enumerate() {
        match groups.iter_mut().find(|(id, _)| *id == g) {
            Some((_, members)) => members.push(i),
            None => groups.push((g, vec![i])),
        }
    }
    groups
}

#[test]
fn filter_groups() {
    run("filter_groups", |case, id| {
        let (config, out) = (&case["config"], &case["outputs"]);
        let size = |name: &str| config[name].as_i64().unwrap().max(0) as usize;
        let mut gathered = filter::FilterGroups::new(size("train_batch_size"), size("max_num_gen_batches"));
        let batches = case["inputs"]["gen_batches"].as_array().unwrap();
        assert_eq!(batches.len(), out["steps"].as_array().unwrap().len(), "{id}: steps");
        let mut status = filter::FilterStatus::NeedMore;
        for (k, (batch, step)) in batches.iter().zip(out["steps"].as_array().unwrap()).enumerate() {
            let metric = vec1(&batch["metric"]);
            let groups = by_group(&ids(&batch["group_ids"]));
            assert!(groups.iter().all(|(_, m)| m.len() == size("rollout_n")), "{id}: rollout_n");
            let before = gathered.kept().len();
            status = gathered.push(groups.into_iter().map(|(g, members)| {
                let values: Vec<f64> = members.iter().map(|&i| metric[i]).collect();
                ((k, g), values)
            }));
            let kept: Vec<usize> = gathered.kept()[before..].iter().map(|&(_, g)| g).collect();
            assert_eq!(kept, ids(&step["kept_group_ids"]), "{id}: step {k}");
            assert_eq!(gathered.kept().len() as u64, step["total_kept"].as_u64().unwrap(), "{id}: step {k}");
            let name = match status {
                filter::FilterStatus::Ready => "ready",
                filter::FilterStatus::NeedMore => "need_more",
                filter::FilterStatus::Exhausted => "error",
            };
            assert_eq!(name, step["status"], "{id}: step {k}");
        }
        assert_eq!(gathered.num_gen_batches() as u64, out["num_gen_batches"].as_u64().unwrap(), "{id}");
        if status == filter::FilterStatus::Ready {
            let (groups, surplus) = gathered.finish();
            let want: Vec<(usize, usize)> = out["final_groups"]
                .as_array()
                .unwrap()
                .iter()
                .map(|g| (g["batch"].as_u64().unwrap() as usize, g["group_id"].as_u64().unwrap() as usize))
                .collect();
            assert_eq!(groups, want, "{id}: final groups");
            assert_eq!(surplus as u64, out["discarded_surplus_groups"].as_u64().unwrap(), "{id}: surplus");
        } else {
            assert!(out["final_groups"].is_null() && out["discarded_surplus_groups"].is_null(), "{id}");
        }
    });
}

#[test]
fn composite_reward() {
    run("composite_reward", |case, id| {
        let w = num(&case["config"]["format_weight"]);
        let (acc, fmt) = (vec1(&case["inputs"]["acc"]), vec1(&case["inputs"]["fmt"]));
        let got: Vec<f64> = acc.iter().zip(&fmt).map(|(&a, &f)| composite(a, f, w)).collect();
        close(&format!("{id} reward"), &got, &vec1(&case["outputs"]["reward"]), TOL_F64);
    });
}

#[test]
fn dapo_pipeline() {
    run("dapo_pipeline", |case, id| {
        let (config, inputs, out) = (&case["config"], &case["inputs"], &case["outputs"]);
        let (acc, fmt) = (vec1(&inputs["acc"]), vec1(&inputs["fmt"]));
        let w = num(&config["format_weight"]);
        let base: Vec<f64> = acc.iter().zip(&fmt).map(|(&a, &f)| composite(a, f, w)).collect();
        close(&format!("{id} base_reward"), &base, &vec1(&out["base_reward"]), TOL_F64);
        let buffer = overlong_buffer(config);
        let penalty: Vec<f64> = ids(&inputs["response_lengths"]).iter().map(|&n| buffer.penalty(n)).collect();
        close(&format!("{id} overlong_penalty"), &penalty, &vec1(&out["overlong_penalty"]), TOL_F64);
        let reward: Vec<f64> = base.iter().zip(&penalty).map(|(b, p)| b + p).collect();
        close(&format!("{id} reward"), &reward, &vec1(&out["reward"]), TOL_F64);

        let group_ids = ids(&inputs["group_ids"]);
        let metric = match config["filter_metric"].as_str().unwrap() {
            "acc" => &acc,
            "seq_reward" => &reward,
            other => panic!("{id}: metric {other}"),
        };
        let kept: Vec<(usize, Vec<usize>)> = by_group(&group_ids)
            .into_iter()
            .filter(|(_, members)| filter::keeps(&members.iter().map(|&i| metric[i]).collect::<Vec<_>>()))
            .collect();
        assert_eq!(kept.iter().map(|(g, _)| *g).collect::<Vec<_>>(), ids(&out["kept_group_ids"]), "{id}");
        let mut rows: Vec<usize> = kept.into_iter().flat_map(|(_, members)| members).collect();
        rows.sort_unstable();
        assert_eq!(rows, ids(&out["kept_indices"]), "{id}");
        let (groups, rewards): (Vec<usize>, Vec<f64>) = rows.iter().map(|&i| (group_ids[i], reward[i])).unzip();
        let norm = config["norm_adv_by_std_in_grpo"].as_bool().unwrap();
        let (adv, _) = advantage::grpo(&groups, &rewards, norm);
        close(&format!("{id} advantages_kept"), &adv, &vec1(&out["advantages_kept"]), TOL_F64);
    });
}

#[test]
fn dynamic_batch() {
    run("dynamic_batch", |case, id| {
        let (lens, out) = (ids(&case["inputs"]["seq_lens"]), &case["outputs"]);
        let max = case["config"]["max_token_len"].as_u64().unwrap() as usize;
        assert_eq!(batching::num_micro_batches(&lens, max) as u64, out["num_micro_batches"].as_u64().unwrap(), "{id}");
        let work: Vec<usize> = lens.iter().map(|&l| batching::workload(l) as usize).collect();
        assert_eq!(work, ids(&out["workload"]), "{id}: workload");
        if lens.iter().all(|&l| l <= max) {
            let mut seen: Vec<usize> = batching::micro_batches(&lens, max).unwrap().concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..lens.len()).collect::<Vec<_>>(), "{id}: each sequence once");
        }
    });
}

#[test]
fn format_reward() {
    run("format_reward", |case, id| {
        let (inputs, out) = (&case["inputs"], &case["outputs"]);
        let w = num(&case["config"]["format_weight"]);
        let texts = |v: &Value| -> Vec<String> {
            v.as_array().unwrap().iter().map(|t| t.as_str().unwrap().to_owned()).collect()
        };
        let (responses, truths) = (texts(&inputs["responses"]), texts(&inputs["ground_truth"]));
        for (i, (response, truth)) in responses.iter().zip(&truths).enumerate() {
            let fmt = extract::think_boxed_format_score(response);
            assert_eq!(fmt, num(&out["fmt"][i]), "{id}: {response:?}");
            let boxed = extract::boxes(response).last().copied();
            assert_eq!(boxed.unwrap_or("None"), out["boxed"][i], "{id}: {response:?}");
            let acc = f64::from(boxed.is_some_and(|b| verify(truth, b, Mode::Strict).equal));
            assert_eq!(acc, num(&out["acc"][i]), "{id}: {response:?}");
            close(&format!("{id} reward"), &[composite(acc, fmt, w)], &[num(&out["reward"][i])], TOL_F64);
        }
    });
}

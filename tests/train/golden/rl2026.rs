//! Compares the losses and advantages of 2026 with `goldens/rl2026`, which verl 0.9.1 and TRL 1.16.0 wrote in f64: CISPO, GSPO
//! with `seq-mean-token-mean`, the vanilla loss, RLOO, REINFORCE++ with and without baseline, and all reductions. The
//! tolerance is that of the goldens' README.

use std::collections::BTreeMap;

use omr_base::config::{LossAggMode, LossMode};
use omr_runtime::ops::policy_loss::{Denominators, PolicyLoss, PolicyStats, Sums};
use omr_train::rl::advantage;
use serde_json::Value;

use super::rl::{Data, TOL_F64, by_group, close, flat, ids, named, num, on_host};

/// Methods that are not supported, with their numbers of cases: file, kind, method.
const NOT_SUPPORTED: [(&str, usize); 36] = [
    ("verl verl_advantage gdpo", 4),
    ("verl verl_advantage gpg", 4),
    ("verl verl_advantage grpo_passk", 4),
    // The same values as grpo and rloo, but 0 instead of the reward for a group of one.
    ("verl verl_advantage grpo_vectorized", 4),
    ("verl verl_advantage rloo_vectorized", 4),
    ("verl verl_advantage opo", 4),
    ("verl verl_advantage optimal_token_baseline", 8),
    // A discount below 1, or rewards inside a response, so that its tokens have different returns.
    ("verl verl_advantage reinforce_plus_plus tokens", 5),
    ("verl verl_advantage remax", 4),
    ("verl verl_advantage tir_optimal_token_baseline", 8),
    // Log-probs of another engine.
    ("verl verl_bypass_loss", 6),
    ("verl verl_kl_plus", 7),
    ("verl verl_policy_loss clip_cov", 5),
    ("verl verl_policy_loss dppo_kl", 6),
    ("verl verl_policy_loss dppo_tv", 6),
    ("verl verl_policy_loss dro", 6),
    ("verl verl_policy_loss geo_mean", 6),
    ("verl verl_policy_loss gpg", 4),
    ("verl verl_policy_loss kl_cov", 4),
    ("verl verl_policy_loss sapo", 7),
    // Advantages that differ within a response, or weights for another engine's log-probs.
    ("verl verl_policy_loss cispo weights", 4),
    ("verl verl_policy_loss vanilla weights", 1),
    // omr's GSPO always uses seq-mean-token-mean.
    ("verl verl_policy_loss gspo reduction", 4),
    ("verl verl_rollout_correction", 21),
    ("trl trl_gmpo_loss", 3),
    ("trl trl_gspo_token_loss", 4),
    ("trl trl_loss bnpo", 5),
    ("trl trl_loss dapo", 8),
    ("trl trl_loss dr_grpo", 5),
    ("trl trl_loss grpo", 6),
    ("trl trl_loss luspo", 4),
    ("trl trl_loss sapo", 4),
    ("trl trl_loss vespo", 4),
    // A divergence multiplied by the ratio, a mask by entropy, ratios of sequences.
    ("trl trl_loss cispo terms", 3),
    ("trl trl_rloo_loss", 3),
    ("trl trl_score", 27),
];

#[test]
fn rl2026() {
    let (mut compared, mut left_out) = (0, BTreeMap::new());
    for file in ["verl", "trl"] {
        for case in
            omr_base_tests::golden::json(&omr_base_tests::golden::dir().join(format!("rl2026/{file}.json")))["cases"]
                .as_array()
                .unwrap()
        {
            match check(case) {
                None => compared += 1,
                Some(method) => *left_out.entry(format!("{file} {method}")).or_insert(0) += 1,
            }
        }
    }
    let expected: BTreeMap<String, usize> = NOT_SUPPORTED.map(|(method, count)| (method.to_owned(), count)).into();
    assert_eq!(left_out, expected);
    omr_base_tests::golden::report("rl2026", compared);
}

/// Compares a case. Returns its method if that is not supported.
fn check(case: &Value) -> Option<String> {
    let (kind, config) = (case["kind"].as_str().unwrap(), &case["config"]);
    let name = |key: &str| config[key].as_str().unwrap_or_default();
    let method = |name: &str| Some(format!("{kind} {name}").trim().to_owned());
    match (kind, name("loss_mode"), name("adv_estimator"), name("loss_type")) {
        ("verl_advantage", _, "reinforce_plus_plus", _) if config["gamma"] != 1.0 || !rewards_end(case) => {
            return method("reinforce_plus_plus tokens");
        }
        ("verl_advantage", _, "rloo" | "reinforce_plus_plus" | "reinforce_plus_plus_baseline", _) => advantages(case),
        ("verl_policy_loss", "gspo", ..) if name("loss_agg_mode") != "seq-mean-token-mean" => {
            return method("gspo reduction");
        }
        ("verl_policy_loss", mode @ ("cispo" | "vanilla" | "gspo"), ..) => {
            if !case["inputs"]["rollout_is_weights"].is_null() || !is_constant(case) {
                return method(&format!("{mode} weights"));
            }
            verl_loss(case);
        }
        ("verl_agg_loss", ..) => reduction(case),
        ("trl_loss", .., "cispo") => {
            let is_plain = config["beta"] == 0.0 && config["top_entropy_quantile"] == 1.0;
            if !is_plain || name("importance_sampling_level") != "token" {
                return method("cispo terms");
            }
            trl_cispo(case);
        }
        ("verl_advantage" | "verl_policy_loss" | "trl_loss", mode, estimator, loss) => {
            return method(&[mode, estimator, loss].concat());
        }
        _ => return Some(kind.trim_end_matches("_rloo").to_owned()),
    }
    None
}

/// True if only the last token of each response has a reward.
fn rewards_end(case: &Value) -> bool {
    let rewards = case["inputs"]["token_level_rewards"].as_array().unwrap().iter();
    let mut rows = rewards.zip(mask(&case["inputs"]["response_mask"]));
    rows.all(|(row, mask)| {
        let last = mask.iter().rposition(|kept| *kept);
        row.as_array().unwrap().iter().enumerate().all(|(i, reward)| Some(i) == last || num(reward) == 0.0)
    })
}

/// True if all tokens of a response have the same advantage.
fn is_constant(case: &Value) -> bool {
    let rows = case["inputs"]["advantages"].as_array().unwrap().iter().zip(mask(&case["inputs"]["response_mask"]));
    let mut rows = rows.map(|(row, mask)| kept(&flat(&Value::from(vec![row.clone()])), &mask));
    rows.all(|row| row.iter().all(|one| *one == row[0]))
}

fn mask(matrix: &Value) -> Vec<Vec<bool>> {
    let rows = matrix.as_array().unwrap().iter();
    rows.map(|row| flat(&Value::from(vec![row.clone()])).iter().map(|one| *one != 0.0).collect()).collect()
}

fn kept(row: &[f64], mask: &[bool]) -> Vec<f64> {
    row.iter().zip(mask).filter(|(_, kept)| **kept).map(|(one, _)| *one).collect()
}

/// Returns the first kept entry of each row; 0 for an empty row.
fn firsts(matrix: &Value, mask: &[Vec<bool>]) -> Vec<f64> {
    let rows = matrix.as_array().unwrap().iter().zip(mask);
    rows.map(|(row, mask)| kept(&flat(&Value::from(vec![row.clone()])), mask).first().copied().unwrap_or(0.0)).collect()
}

fn advantages(case: &Value) {
    let id = case["id"].as_str().unwrap();
    let inputs = &case["inputs"];
    let mask = mask(&inputs["response_mask"]);
    let rewards: Vec<f64> = inputs["token_level_rewards"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| flat(&Value::from(vec![row.clone()])).iter().sum())
        .collect();
    let estimator = case["config"]["adv_estimator"].as_str().unwrap();
    let mut found = rewards.clone();
    for (_, members) in by_group(&ids(&inputs["group_ids"])) {
        let own: Vec<f64> = members.iter().map(|&i| rewards[i]).collect();
        let own = match estimator {
            "rloo" => advantage::rloo(&own),
            "reinforce_plus_plus_baseline" => advantage::grpo(&own, false),
            _ => own,
        };
        members.iter().zip(own).for_each(|(&i, value)| found[i] = value);
    }
    let tokens: Vec<usize> = mask.iter().map(|row| row.iter().filter(|kept| **kept).count()).collect();
    if estimator != "rloo" {
        let mut values: Vec<_> = found.into_iter().zip(tokens.iter().copied()).collect();
        advantage::whiten(&mut values);
        found = values.into_iter().map(|(value, _)| value).collect();
    }
    let found: Vec<f64> = found.iter().zip(&tokens).map(|(value, n)| if *n == 0 { 0.0 } else { *value }).collect();
    close(id, &found, &firsts(&case["outputs"]["advantages"], &mask), TOL_F64);
}

fn verl_loss(case: &Value) {
    let config = &case["config"];
    let mode: LossMode = named(&config["loss_mode"]);
    let loss = PolicyLoss {
        loss_mode: mode,
        clip_ratio_low: num(&config["clip_ratio_low"]),
        clip_ratio_high: num(&config["clip_ratio_high"]),
        clip_ratio_c: (mode == LossMode::Vanilla).then(|| num(&config["clip_ratio_c"])),
        loss_agg_mode: named(&config["loss_agg_mode"]),
        kl_loss: None,
        distillation: None,
        entropy_coeff: 0.0,
    };
    let adv = firsts(&case["inputs"]["advantages"], &mask(&case["inputs"]["response_mask"]));
    let rows: Vec<usize> = (0..adv.len()).collect();
    let data = Data::<f64>::new(case, &adv, &rows);
    let (den, ranks) = denominators(config, &data.cu, data.width);
    let sums = compare(case, &data, &loss, &den, ranks);
    // verl's metrics are means over the tokens of the rank.
    let stats = PolicyStats::new(&loss, &Denominators::new(&data.cu, None), &sums);
    let metrics = &case["outputs"]["metrics"];
    let id = case["id"].as_str().unwrap();
    close(id, &[stats.ppo_kl], &[num(&metrics["actor/ppo_kl"])], TOL_F64);
    close(id, &[stats.pg_clipfrac], &[num(&metrics["actor/pg_clipfrac"])], TOL_F64);
}

/// Returns the denominators of a case, counted over all ranks if it says how many tokens and sequences these have, and the
/// number of ranks, by which verl multiplies the loss. `width` is the length of padded rows.
pub fn denominators(config: &Value, cu_seqlens: &[u32], width: f64) -> (Denominators, f64) {
    let (own, all) = (Denominators::new(cu_seqlens, None), &config["global_batch_info"]);
    let num_seqs = all["global_batch_size"].as_f64().unwrap_or(own.num_seqs);
    let den = Denominators {
        batch_num_tokens: all["batch_num_tokens"].as_f64().unwrap_or(own.batch_num_tokens),
        num_seqs,
        loss_scale_factor: num_seqs * config["loss_scale_factor"].as_f64().unwrap_or(width),
    };
    (den, all["dp_size"].as_f64().unwrap_or(1.0))
}

/// Compares the weights of tokens.
fn reduction(case: &Value) {
    let rows = mask(&case["inputs"]["mask"]);
    let mut cu = vec![0];
    rows.iter().for_each(|row| cu.push(cu[cu.len() - 1] + row.iter().filter(|kept| **kept).count() as u32));
    let (den, ranks) = denominators(&case["config"], &cu, rows[0].len() as f64);
    let mode = named(&case["config"]["loss_agg_mode"]);
    let weights = rows.iter().zip(cu.windows(2)).flat_map(|(row, ends)| {
        let weight = ranks * den.token_weight(mode, f64::from(ends[1] - ends[0]));
        row.iter().map(move |&kept| if kept { weight } else { 0.0 })
    });
    let id = case["id"].as_str().unwrap();
    close(id, &weights.collect::<Vec<_>>(), &flat(&case["outputs"]["weights"]), TOL_F64);
}

/// Compares the loss and its gradient by log-prob, multiplied by `factor`.
pub fn compare(case: &Value, data: &Data<f64>, loss: &PolicyLoss, den: &Denominators, factor: f64) -> Sums {
    let id = case["id"].as_str().unwrap();
    let mut grad = vec![f64::NAN; data.lp.len()];
    let sums = on_host(loss, den, &data.batch(), &data.lp, &mut grad);
    let stats = PolicyStats::new(loss, den, &sums);
    close(id, &[factor * stats.pg_loss], &[num(&case["outputs"]["loss"])], TOL_F64);
    let want = flat(&case["outputs"]["grad_log_prob"]);
    let mut whole = vec![0.0; want.len()];
    data.at.iter().zip(&grad).for_each(|(&i, &g)| whole[i] = factor * g);
    close(&format!("{id} gradient"), &whole, &want, TOL_F64);
    sums
}

/// TRL's bound is that of the ratio, and its denominator the number of tokens of a generation batch.
fn trl_cispo(case: &Value) {
    let (mut case, config) = (case.clone(), &case["config"]);
    case["inputs"]["response_mask"] = case["inputs"]["completion_mask"].clone();
    if case["inputs"]["old_log_prob"].is_null() {
        case["inputs"]["old_log_prob"] = case["inputs"]["log_prob"].clone();
    }
    let loss = PolicyLoss {
        loss_mode: LossMode::Cispo,
        clip_ratio_low: 1.0,
        clip_ratio_high: num(&config["epsilon_high"]) - 1.0,
        clip_ratio_c: None,
        loss_agg_mode: LossAggMode::TokenMean,
        kl_loss: None,
        distillation: None,
        entropy_coeff: 0.0,
    };
    let adv: Vec<f64> = case["inputs"]["advantages"].as_array().unwrap().iter().map(num).collect();
    let rows: Vec<usize> = (0..adv.len()).collect();
    let data = Data::<f64>::new(&case, &adv, &rows);
    let steps = match config["mode"] == "train" {
        true => num(&config["current_gradient_accumulation_steps"]) / num(&config["steps_per_generation"]),
        false => 1.0,
    };
    let den = Denominators {
        batch_num_tokens: num(&case["inputs"]["num_items_in_batch"]) * steps,
        num_seqs: 1.0,
        loss_scale_factor: 1.0,
    };
    compare(&case, &data, &loss, &den, 1.0);
}

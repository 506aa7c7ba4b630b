//! Compares the sampled form of on-policy distillation with `goldens/distill`, which verl 0.9.1 wrote in f64: the estimator
//! k1 as a reward. The tolerance is that of the goldens' README.

use std::collections::BTreeMap;

use omr_base::config::LossMode;
use omr_runtime::ops::policy_loss::{Distillation, PolicyLoss};
use serde_json::Value;

use super::rl::{Data, named, num};
use super::rl2026::{compare, denominators};

/// Methods that are not supported, with their numbers of cases.
const NOT_SUPPORTED: [(&str, usize); 15] = [
    ("distill_full", 8),
    ("distill_iw_opd", 4),
    ("distill_minillm", 5),
    ("distill_prime_ref_kl", 3),
    ("distill_sampled abs as a loss", 1),
    ("distill_sampled abs as a reward", 1),
    ("distill_sampled k2 as a loss", 1),
    ("distill_sampled k3 as a loss", 1),
    ("distill_sampled k3 as a reward", 1),
    ("distill_sampled low_var_kl as a loss", 1),
    ("distill_sampled mse as a loss", 1),
    ("distill_sampled_logits", 2),
    ("distill_top1", 5),
    ("distill_topk", 18),
    ("prime_rl_loss", 2),
];

#[test]
fn distill() {
    let (mut compared, mut left_out) = (0, BTreeMap::new());
    for case in omr_base_tests::golden::json(&omr_base_tests::golden::dir().join("distill/distill.json"))["cases"]
        .as_array()
        .unwrap()
    {
        let (kind, config) = (case["kind"].as_str().unwrap(), &case["config"]);
        let estimator = config["estimator"].as_str().unwrap_or_default();
        match (kind, estimator, config["as_reward"] == true) {
            ("distill_sampled", "k1" | "kl", true) => {
                sampled(case);
                compared += 1;
            }
            _ => {
                let form = match (kind, config["as_reward"] == true) {
                    ("distill_sampled", true) => format!(" {estimator} as a reward"),
                    ("distill_sampled", false) => format!(" {estimator} as a loss"),
                    _ => String::new(),
                };
                *left_out.entry(format!("{kind}{form}")).or_insert(0) += 1;
            }
        }
    }
    let expected: BTreeMap<String, usize> = NOT_SUPPORTED.map(|(method, count)| (method.to_owned(), count)).into();
    assert_eq!(left_out, expected);
    omr_base_tests::golden::report("distill", compared);
}

fn sampled(case: &Value) {
    let (mut case, config) = (case.clone(), &case["config"]);
    case["inputs"]["response_mask"] = case["inputs"]["mask"].clone();
    let loss = PolicyLoss {
        loss_mode: LossMode::Vanilla,
        clip_ratio_low: num(&config["clip_ratio_low"]),
        clip_ratio_high: num(&config["clip_ratio_high"]),
        clip_ratio_c: Some(num(&config["clip_ratio_c"])),
        loss_agg_mode: named(&config["loss_agg_mode"]),
        kl_loss: None,
        distillation: Some(Distillation { coef: 1.0, loss_max_clamp: config["loss_max_clamp"].as_f64() }),
        entropy_coeff: 0.0,
    };
    let rows: Vec<usize> = (0..case["inputs"]["mask"].as_array().unwrap().len()).collect();
    let data = Data::<f64>::new(&case, &vec![0.0; rows.len()], &rows);
    let (den, factor) = denominators(config, &data.cu, data.width);
    compare(&case, &data, &loss, &den, factor);
}

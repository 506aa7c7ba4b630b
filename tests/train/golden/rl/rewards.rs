//! Compares other formulas with `goldens/rl`: rewards, their filters and penalties, and batching.

use omr_base::config::rl::{FilterGroupsConfig, OverlongBufferConfig};
use omr_base::config::{KlCtrlConfig, KlCtrlType, RlConfig};
use omr_data::reward::{Mode, composite};
use omr_train::rl::{balance, filter, kl, overlong};
use omr_verify::{extract, verify};
use serde_json::Value;

use super::{TOL_F64, advantages, by_group, by_groups, close, cu_seqlens, flat, ids, kl_type, mask_of, num, run, vec1};

#[test]
fn kl_in_reward() {
    run("kl_in_reward", |case, id| {
        let (config, inputs, out) = (&case["config"], &case["inputs"], &case["outputs"]);
        let kl_penalty = kl_type(&config["kl_penalty"]);
        let number = |name: &str| num(&config["kl_ctrl"][name]);
        let kl_coef = number("kl_coef");
        let ctrl = match config["kl_ctrl"]["type"].as_str() {
            Some("fixed") => KlCtrlConfig { kl_coef, ..KlCtrlConfig::default() },
            _ => {
                let (horizon, target_kl) = (number("horizon"), number("target_kl"));
                KlCtrlConfig { r#type: KlCtrlType::Adaptive, kl_coef, horizon, target_kl }
            }
        };
        close(&format!("{id} coefficient"), &[kl_coef], &[num(&out["reward_kl_penalty_coeff"])], TOL_F64);
        let rewards = vec1(&inputs["rewards"]);
        let got = kl::kl_in_reward(
            kl_penalty,
            kl_coef,
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
        let next = kl::next_kl_coef(&ctrl, got.reward_kl_penalty, rewards.len());
        close(&format!("{id} next_kl_coef"), &[next], &[num(&out["next_kl_coef"])], TOL_F64);
        close(&format!("{id} advantages"), &advantages(case, &got.scores), &vec1(&out["advantages"]), TOL_F64);
    });
}

fn penalties(case: &Value) -> Vec<f64> {
    let config = &case["config"];
    let size = |name: &str| config[name].as_u64().unwrap() as usize;
    let penalty_factor = num(&config["penalty_factor"]);
    let buffer = OverlongBufferConfig { enable: true, len: size("overlong_buffer_len"), penalty_factor };
    let of = |&n: &usize| overlong::penalty(&buffer, size("max_resp_len"), n);
    ids(&case["inputs"]["response_lengths"]).iter().map(of).collect()
}

#[test]
fn overlong() {
    run("overlong", |case, id| {
        let (inputs, out) = (&case["inputs"], &case["outputs"]);
        let penalty = penalties(case);
        close(&format!("{id} penalty"), &penalty, &vec1(&out["penalty"]), TOL_F64);
        let flags: Vec<f64> = penalty.iter().map(|&p| f64::from(p < 0.0)).collect();
        close(&format!("{id} overlong"), &flags, &vec1(&out["overlong"]), 0.0);
        let rewards: Vec<f64> = vec1(&inputs["base_rewards"]).iter().zip(&penalty).map(|(r, p)| r + p).collect();
        close(&format!("{id} reward"), &rewards, &vec1(&out["reward"]), TOL_F64);
    });
}

#[test]
fn filter_groups() {
    run("filter_groups", |case, id| {
        let (config, out) = (&case["config"], &case["outputs"]);
        let size = |name: &str| config[name].as_i64().unwrap().max(0) as usize;
        let max_num_gen_batches = size("max_num_gen_batches");
        let filter_groups = FilterGroupsConfig { max_num_gen_batches, ..FilterGroupsConfig::default() };
        let rl = RlConfig { train_batch_size: size("train_batch_size"), filter_groups, ..RlConfig::default() };
        let mut kept: Vec<(usize, usize)> = Vec::new();
        let batches = case["inputs"]["gen_batches"].as_array().unwrap();
        assert_eq!(batches.len(), out["steps"].as_array().unwrap().len(), "{id}: steps");
        let mut status = Ok(false);
        for (k, (batch, step)) in batches.iter().zip(out["steps"].as_array().unwrap()).enumerate() {
            let metric = vec1(&batch["metric"]);
            let groups = by_group(&ids(&batch["group_ids"]));
            assert!(groups.iter().all(|(_, m)| m.len() == size("rollout_n")), "{id}: rollout_n");
            let keeps =
                |members: &[usize]| filter::keeps(&members.iter().map(|&i| Some(metric[i])).collect::<Vec<_>>());
            let found: Vec<usize> = groups.iter().filter(|(_, members)| keeps(members)).map(|(g, _)| *g).collect();
            assert_eq!(found, ids(&step["kept_group_ids"]), "{id}: step {k}");
            kept.extend(found.iter().map(|&g| (k, g)));
            assert_eq!(kept.len() as u64, step["total_kept"].as_u64().unwrap(), "{id}: step {k}");
            status = filter::is_complete(&rl, 1, kept.len(), k + 1, String::new);
            let name = match status {
                Ok(true) => "ready",
                Ok(false) => "need_more",
                Err(_) => "error",
            };
            assert_eq!(name, step["status"], "{id}: step {k}");
        }
        assert_eq!(batches.len() as u64, out["num_gen_batches"].as_u64().unwrap(), "{id}");
        if matches!(status, Ok(true)) {
            let surplus = kept.split_off(rl.train_batch_size).len();
            let want: Vec<(usize, usize)> = out["final_groups"]
                .as_array()
                .unwrap()
                .iter()
                .map(|g| (g["batch"].as_u64().unwrap() as usize, g["group_id"].as_u64().unwrap() as usize))
                .collect();
            assert_eq!(kept, want, "{id}: final groups");
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
        let penalty = penalties(case);
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
            .filter(|(_, members)| filter::keeps(&members.iter().map(|&i| Some(metric[i])).collect::<Vec<_>>()))
            .collect();
        assert_eq!(kept.iter().map(|(g, _)| *g).collect::<Vec<_>>(), ids(&out["kept_group_ids"]), "{id}");
        let mut rows: Vec<usize> = kept.into_iter().flat_map(|(_, members)| members).collect();
        rows.sort_unstable();
        assert_eq!(rows, ids(&out["kept_indices"]), "{id}");
        let (groups, rewards): (Vec<usize>, Vec<f64>) = rows.iter().map(|&i| (group_ids[i], reward[i])).unzip();
        let norm = config["norm_adv_by_std_in_grpo"].as_bool().unwrap();
        let adv = by_groups(&groups, &rewards, norm);
        close(&format!("{id} advantages_kept"), &adv, &vec1(&out["advantages_kept"]), TOL_F64);
    });
}

#[test]
fn dynamic_batch() {
    run("dynamic_batch", |case, id| {
        let (lens, out) = (ids(&case["inputs"]["seq_lens"]), &case["outputs"]);
        let work: Vec<usize> = lens.iter().map(|&l| balance::workload(l) as usize).collect();
        assert_eq!(work, ids(&out["workload"]), "{id}: workload");
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

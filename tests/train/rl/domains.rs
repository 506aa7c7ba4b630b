//! Tests of the shares of domains in each batch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use omr_base::config::rl::FilterGroupsConfig;
use omr_base::config::{DomainWeights, RlConfig};
use omr_base_tests::golden;
use omr_data::rows::{Form, read, write};
use omr_train::rl::domains::DomainOrder;

use crate::training::tiny::{device, rl_config, rows, run_rl, run_rl_over, training, with};

fn weights(pairs: &[(&str, f64)]) -> DomainWeights {
    DomainWeights(pairs.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect())
}

fn config(batch: usize, seed: u64, shuffle: bool) -> RlConfig {
    RlConfig { train_batch_size: batch, seed, shuffle, ..RlConfig::default() }
}

fn order(config: &RlConfig, weights: &DomainWeights, domains: &[&str]) -> (DomainOrder, Vec<String>) {
    let domains: Vec<Option<String>> = domains.iter().map(|name| Some((*name).to_owned())).collect();
    DomainOrder::new(config, weights, &domains).unwrap()
}

#[test]
fn weights_with_an_infinite_sum_share_a_batch() {
    let shares = omr_train::rl::domains::shares;
    assert_eq!(shares(&[1e308, 1e308], 7), [4, 3]);
    assert_eq!(shares(&[1.7e308, 1.7e308, 1e-308, 0.85e308], 10), [4, 4, 0, 2]);
    assert_eq!(shares(&[2.0, 1.0, 0.5], 12), [7, 3, 2]);
    let (mut order, _) = order(&config(4, 1, true), &weights(&[("a", 1e308), ("b", 1e308)]), &["a", "b", "a", "b"]);
    assert!((0..8).map(|at| order.sample_at(at)).all(|sample| sample < 4));
}

/// Counts and use are Vero's. Its order with shuffling is numpy's; without shuffling, the order is the same.
#[test]
fn vero_draws_the_same_numbers_of_prompts() {
    let mut compared = 0;
    for case in golden::json(&golden::dir().join("vero/sampler.json"))["cases"].as_array().unwrap() {
        let spec = case["weights_spec"].as_str().unwrap();
        let mut config = config(case["batch_size"].as_u64().unwrap() as usize, 18, case["shuffle"] == true);
        omr_base::config::Setting::set(
            &mut config.per_batch_domain_weights,
            &omr_base::config::Place::default(),
            "per_batch_domain_weights",
            &spec.into(),
        )
        .unwrap();
        let domains: Vec<&str> =
            case["domains"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let (mut order, _) = order(&config, config.per_batch_domain_weights.as_ref().unwrap(), &domains);
        let length = case["length"].as_u64().unwrap();
        assert_eq!(config.total_steps(domains.len()) * config.train_batch_size as u64, length);
        for (epoch, wanted) in case["epochs"].as_array().unwrap().iter().enumerate() {
            let first = epoch as u64 * length;
            let drawn: Vec<usize> = (first..first + length).map(|at| order.sample_at(at)).collect();
            for batch in drawn.chunks(config.train_batch_size) {
                for (name, count) in case["batch_counts"].as_object().unwrap() {
                    let found = batch.iter().filter(|&&i| domains[i] == name).count();
                    assert_eq!(found as u64, count.as_u64().unwrap(), "{}: {name}", case["id"]);
                }
            }
            for (name, used) in case["per_epoch_use"][epoch].as_object().unwrap() {
                let of: Vec<usize> = drawn.iter().copied().filter(|&i| domains[i] == name).collect();
                let distinct = of.iter().collect::<BTreeSet<_>>().len();
                assert_eq!(serde_json::json!([of.len(), distinct]), *used, "{}: {name}", case["id"]);
            }
            if !config.shuffle {
                assert_eq!(serde_json::json!(drawn), *wanted, "{}", case["id"]);
            }
        }
        compared += 1;
    }
    assert_eq!(compared, 9);
}

#[test]
fn each_of_a_thousand_batches_has_the_same_shares() {
    let names = ["chart_ocr", "knowledge", "spatial", "counting", "stem", "alignment"];
    let domains: Vec<&str> = (0..5000usize).map(|i| names[(i * i + i / 7) % 6]).collect();
    let config = config(256, 7, true);
    let all = names.map(|name| (name, 1.0 / 6.0));
    let (mut order, remarks) = order(&config, &weights(&all), &domains);
    let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
    for batch in 0..1000u64 {
        let drawn: Vec<usize> = (batch * 256..(batch + 1) * 256).map(|at| order.sample_at(at)).collect();
        let counts = names.map(|name| drawn.iter().filter(|&&i| domains[i] == name).count());
        assert_eq!(counts, [43, 43, 43, 43, 42, 42], "batch {batch}");
        drawn.into_iter().for_each(|i| *seen.entry(i).or_default() += 1);
    }
    assert_eq!(seen.len(), 5000, "every row is drawn");
    // The order depends on the position alone.
    let (mut again, _) = self::order(&config, &weights(&all), &domains);
    for at in [200_000, 5, 99_999, 255_999] {
        assert_eq!(again.sample_at(at), order.sample_at(at));
    }
    assert!(remarks.iter().any(|remark| remark.contains("it starts again")), "{remarks:?}");
}

#[test]
fn domains_without_rows_and_rows_without_a_weight_are_named() {
    let domains = ["a", "a", "b", "c", "a", "b"];
    let (_, remarks) = order(&config(2, 1, true), &weights(&[("a", 1.0), ("b", 1.0), ("z", 2.0)]), &domains);
    assert!(remarks[0].contains("no row has the domain z; its share goes to the others"), "{remarks:?}");
    assert!(remarks[1].contains("left out (c: 1)"), "{remarks:?}");
    let (_, remarks) = order(&config(2, 1, true), &weights(&[("a", 1000.0), ("b", 1.0)]), &domains);
    assert!(remarks.iter().any(|remark| remark.contains("a batch of 2 has no prompt of the domain b")), "{remarks:?}");
    let domains: Vec<Option<String>> = vec![Some("a".to_owned()), None];
    let error = DomainOrder::new(&config(2, 1, true), &weights(&[("stem", 1.0)]), &domains).unwrap_err().to_string();
    assert!(error.contains("rows of the domains a: 1, none: 1") && error.contains("one of stem"), "{error}");
    let mut small = config(8, 1, true);
    small.gen_batch_size = Some(2);
    small.filter_groups.enable = true;
    let error = DomainOrder::new(&small, &weights(&[("a", 7.0), ("b", 1.0)]), &["a", "b"].map(|n| Some(n.to_owned())));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("gen_batch_size") && error.contains("of the domain b"), "{error}");
}

/// Writes rows of which two have the domain `rare`. The others have none.
fn with_domains(dir: &Path) -> RlConfig {
    let config = rl_config(dir);
    let mut rows = rows();
    rows[..2].iter_mut().for_each(|row| drop(row.extra.insert("domain".to_owned(), "rare".into())));
    let data = dir.join("domains.parquet");
    write::write(&data, &rows, Form::Rl).unwrap();
    RlConfig {
        train_files: vec![read::entry(data)],
        per_batch_domain_weights: Some(weights(&[("rare", 1.0), ("none", 3.0)])),
        total_training_steps: Some(5),
        training: training(|training| training.gradient_lanes = Some(3)),
        ..config
    }
}

#[test]
fn shares_stay_after_a_stop_and_on_any_number_of_ranks() {
    let dir = tempfile::tempdir().unwrap();
    let config = with_domains(dir.path());
    let whole = run_rl(&dir.path().join("whole"), &config, 2, &[]);
    for (name, share) in [("rare", 0.25), ("none", 0.75)] {
        for what in ["drawn", "trained"] {
            assert_eq!(whole.figures(&format!("train/domain/{name}/{what}")), [share; 5]);
        }
    }
    let stopped = run_rl_over(&dir.path().join("ranks"), &config, || device(1), &[2, 3], &[2]);
    whole.assert_same(&stopped, "two ranks, then three");
}

#[test]
fn a_group_without_differences_is_replaced_from_its_own_domain() {
    let dir = tempfile::tempdir().unwrap();
    let config = RlConfig {
        filter_groups: FilterGroupsConfig { enable: true, max_num_gen_batches: 0, ..FilterGroupsConfig::default() },
        total_training_steps: Some(2),
        ..with_domains(dir.path())
    };
    let run = run_rl(&dir.path().join("filtered"), &config, 2, &[]);
    assert_eq!(run.figures("train/domain/rare/trained"), [0.25; 2]);
    assert!(run.figures("train/num_gen_batches").iter().any(|&batches| batches > 1.0));
    let few = with(&config, |config| config.filter_groups.max_num_gen_batches = 1);
    let (error, _) = super::stopped::resume(&dir.path().join("few"), &few, u64::MAX);
    let error = error.expect_err("one batch cannot suffice").to_string();
    assert!(error.contains("rare: ") || error.contains("none: "), "{error}");
}

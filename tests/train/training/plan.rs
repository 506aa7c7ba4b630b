//! Tests memory plans of training: the plan equals the memory of the run in each region. Also tests which activations a
//! pass stores if memory is limited.

use std::path::Path;
use std::sync::Arc;

use omr_base::config::RolloutConfig;
use omr_base::config::{RlConfig, SftConfig};
use omr_base::error::Error;
use omr_base::observe::Silent;
use omr_data::reward::Scorer;
use omr_runtime::device::{Device, Isa, Plan, Region, Target};
use omr_runtime::ranks::{OneRank, Ranks};
use omr_runtime_tests::ranks;
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::sft::SftJob;

use super::tiny::{Outcome, rl_config, sft_config, training, with};

/// Runs the job in exactly the memory of its plan, and returns the plan.
fn planned(dir: &Path, config: &SftConfig, threads: usize) -> Plan {
    let mut job = SftJob::new(dir, config.clone()).unwrap();
    let plan = job.plan(Target::cpu(threads)).unwrap();
    let mut dev = Device::cpu(&plan, threads, Isa::detect()).unwrap();
    job.run(&mut dev, &Silent).unwrap();
    for region in Region::ALL {
        assert_eq!(plan.bytes(region), dev.high_water().bytes(region), "{} of {config:?}", region.name());
    }
    plan
}

#[test]
fn sft_takes_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    for (i, (micro_batch_tokens, threads)) in [(256, 1), (100, 2)].into_iter().enumerate() {
        let config = SftConfig { micro_batch_tokens: micro_batch_tokens.into(), packing_length: 100, ..config.clone() };
        planned(&dir.path().join(i.to_string()), &config, threads);
    }
    let packs = SftConfig { train_batch_size: None, gradient_accumulation_steps: 2, max_steps: Some(3), ..config };
    planned(&dir.path().join("packs"), &packs, 1);
}

#[test]
fn a_rank_takes_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let training = training(|t| t.gradient_lanes = Some(4));
    let config = SftConfig { max_steps: Some(3), train_batch_size: Some(8), training, ..sft_config(dir.path()) };
    for size in [2, 3] {
        let out = dir.path().join(size.to_string());
        ranks::over(size, |ranks| {
            let mut job = SftJob::new(&out, config.clone()).unwrap();
            job.common.ranks = OneRank::new(ranks.rank(), size);
            let plan = job.plan(Target::cpu(1)).unwrap();
            let mut dev = Device::cpu(&plan, 1, Isa::detect()).unwrap();
            job.run_over(ranks, &mut dev, &Silent).unwrap();
            for region in Region::ALL {
                let taken = dev.high_water().bytes(region);
                assert_eq!(plan.bytes(region), taken, "{} of rank {} of {size}", region.name(), ranks.rank());
            }
        });
    }
}

#[test]
fn less_memory_changes_what_is_kept_and_no_bit() {
    less_memory(256);
}

/// Micro-batches of several sizes have several policies.
#[test]
fn less_memory_for_parts_of_packs_changes_what_is_kept_and_no_bit() {
    less_memory(100);
}

fn less_memory(micro_batch_tokens: usize) {
    let dir = tempfile::tempdir().unwrap();
    let micro_batch_tokens = micro_batch_tokens.into();
    let config = SftConfig { max_steps: Some(2), micro_batch_tokens, ..sft_config(dir.path()) };
    let out = |name: &str| dir.path().join(name);
    let all = planned(&out("all"), &config, 2);
    let whole = Outcome::of(&out("all"));
    let gib = |bytes: usize| Some(bytes as f64 / f64::from(1 << 30));
    let (mut totals, mut refused) = (vec![all.total()], None);
    for i in 0..40 {
        let budget = all.total() - i * all.total() / 40;
        let config = with(&config, |c| c.training.max_memory_gib = gib(budget));
        let mut job = SftJob::new(&out("refused"), config.clone()).unwrap();
        match job.plan(Target::cpu(2)) {
            Err(error) => {
                refused = Some(error);
                break;
            }
            Ok(plan) if Some(&plan.total()) == totals.last() => continue,
            Ok(plan) => {
                assert!(plan.total() <= budget && Some(&plan.total()) < totals.last());
                let name = format!("budget {i}");
                assert_eq!(planned(&out(&name), &config, 2), plan);
                whole.assert_same(&Outcome::of(&out(&name)), &name);
                totals.push(plan.total());
            }
        }
    }
    println!("plans of {totals:?} bytes");
    assert!(totals.len() > 2, "{totals:?}");
    let Some(Error::Input { place, hint, .. }) = refused else { panic!("{refused:?}") };
    assert!(place == "memory" && hint.unwrap().contains("micro_batch_tokens"));
}

/// Runs an RL job in exactly the memory of its plan. Returns the plan and the used memory.
fn planned_rl(dir: &Path, config: &RlConfig) -> [Plan; 2] {
    let mut job = RlJob::new(dir, config.clone(), Arc::new(Scorer::rules(config.reward.mode))).unwrap();
    let plan = job.plan(Target::cpu(2)).unwrap();
    let mut dev = Device::cpu(&plan, 2, Isa::detect()).unwrap();
    job.run(&mut dev, &Silent).unwrap();
    [plan, dev.high_water()]
}

/// Returns a config with responses of three tokens from an untrained model. In some step all responses have the full
/// length. A mini-batch contains every question, so the plan is for exactly this mini-batch.
fn full_length(dir: &Path) -> RlConfig {
    let config = rl_config(dir);
    sft_config(dir);
    RlConfig {
        model: Some(dir.join("base")),
        train_batch_size: 12,
        ppo_mini_batch_size: 12,
        rollout: RolloutConfig { n: 2, ..config.rollout.clone() },
        max_response_length: 3,
        total_training_steps: Some(3),
        micro_batch_tokens: 4096,
        // With an entropy term, groups whose responses are all wrong or all right are also trained on.
        entropy_coeff: 1e-3,
        ..config
    }
}

#[test]
fn rl_takes_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let config = full_length(dir.path());
    for (name, use_kl_loss, max_num_seqs) in [("updates", false, 6), ("kl", true, 6), ("rollouts", false, 60)] {
        let rollout = RolloutConfig { max_num_seqs, ..config.rollout.clone() };
        let config = RlConfig { use_kl_loss, rollout, ..config.clone() };
        let [plan, taken] = planned_rl(&dir.path().join(name), &config);
        for region in Region::ALL {
            let exact = region != Region::Workspace || name != "rollouts";
            // The plan covers a prefill with the maximum numbers of copied blocks, sequences and tokens at the same
            // time.
            assert!(plan.bytes(region) >= taken.bytes(region), "{name}: {}", region.name());
            assert!(!exact || plan.bytes(region) == taken.bytes(region), "{name}: {} of {plan:?}", region.name());
        }
    }
    // Responses of any length, and micro-batches of any composition.
    for micro_batch_tokens in [90, 256] {
        let config = RlConfig { micro_batch_tokens, ..rl_config(dir.path()) };
        let [plan, taken] = planned_rl(&dir.path().join(micro_batch_tokens.to_string()), &config);
        assert_eq!(plan.max(&taken), plan);
    }
}

#[test]
fn rollouts_and_updates_share_their_memory() {
    let dir = tempfile::tempdir().unwrap();
    let config = full_length(dir.path());
    let plan = |config: &RlConfig| {
        let scorer = Arc::new(Scorer::rules(config.reward.mode));
        RlJob::new(dir.path(), config.clone(), scorer).unwrap().plan(Target::cpu(1))
    };
    let overlay = |config: &RlConfig| plan(config).unwrap().bytes(Region::Overlay);
    let of_blocks = |blocks: usize| RlConfig {
        rollout: RolloutConfig { num_kv_blocks: Some(blocks), ..config.rollout.clone() },
        ..config.clone()
    };
    // A cache that is smaller than the memory of updates needs no additional memory. A larger cache needs its own size:
    // two layers of k and v, one key head of 16, 128 keys, f32.
    let block = 2 * 2 * 16 * 128 * 4;
    let update = overlay(&of_blocks(1));
    let free = update / block;
    assert_eq!(overlay(&of_blocks(free / 2)), update);
    assert_eq!(overlay(&of_blocks(2 * free)) - overlay(&of_blocks(2 * free - 7)), 7 * block);

    // A cache without a configured size takes the available memory.
    let large = RlConfig { rollout: RolloutConfig { max_num_seqs: 10 * free, ..config.rollout.clone() }, ..config };
    let all = plan(&large).unwrap().total();
    let budget = all - 2 * free * block;
    let limited = with(&large, |c| c.training.max_memory_gib = Some(budget as f64 / f64::from(1 << 30)));
    let found = plan(&limited).unwrap().total();
    assert!(found <= budget && found + 2 * block > budget, "{found} of {budget}");
    let refused = with(&large, |c| c.training.max_memory_gib = Some(1e-3));
    let Err(Error::Input { place, hint, .. }) = plan(&refused) else { panic!("planned") };
    assert!(place == "memory" && hint.unwrap().contains("rollout.max_num_seqs"));
}

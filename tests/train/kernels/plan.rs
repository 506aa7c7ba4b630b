//! Tests that training with kernels runs in exactly the memory of its plan, region by region.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use omr_base::config::{Dtype, OptimConfig, OptimizerName, RlConfig, SftConfig};
use omr_base::config::{RolloutConfig, TrainingConfig};
use omr_base::observe::Silent;
use omr_data::reward::Scorer;
use omr_runtime::device::emu::Emu;
use omr_runtime::device::{Device, Kind, Plan, Region, Target};
use omr_runtime::ranks::{OneRank, Ranks};
use omr_runtime_tests::kernels::{Schedule, gpu, kind, skipped};
use omr_runtime_tests::ranks;
use omr_train::rl;
use omr_train::training;
use omr_train::training::job::TrainingJob as _;
use sha2::{Digest, Sha256};

use crate::training::tiny;
use crate::training::tiny::training;

/// Returns a device with exactly the memory of `plan`.
fn device(plan: &Plan) -> Device {
    match kind() {
        Kind::Cuda => gpu::device(plan).unwrap(),
        _ => Device::gpu(Box::new(Emu::new(Schedule::FIXED.options()).unwrap()), kind(), plan).unwrap(),
    }
}

fn assert_exact(plan: &Plan, dev: &Device, regions: &[Region]) {
    for &region in regions {
        assert_eq!(plan.bytes(region), dev.high_water().bytes(region), "{}", region.name());
    }
}

fn sft(dir: &Path, config: &SftConfig) -> Plan {
    let mut job = training::sft::SftJob::new(dir, config.clone()).unwrap();
    let plan = job.plan(Target::gpu(kind())).unwrap();
    let mut dev = device(&plan);
    job.run(&mut dev, &Silent).unwrap();
    assert_exact(&plan, &dev, &Region::ALL);
    plan
}

#[test]
fn sft_takes_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { dtype: Dtype::Bf16, max_steps: Some(2), ..tiny::sft_config(dir.path()) };
    let all = sft(&dir.path().join("all"), &config);
    // With one byte less, some activations must be recomputed.
    let gib = (all.total() - 1) as f64 / f64::from(1 << 30);
    let least = SftConfig {
        max_steps: Some(1),
        training: TrainingConfig { max_memory_gib: Some(gib), ..config.training.clone() },
        ..config
    };
    let less = sft(&dir.path().join("less"), &least);
    assert!(less.total() < all.total(), "{} of {}", less.total(), all.total());
}

#[test]
fn offloaded_state_takes_host_memory_and_changes_no_bit() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { dtype: Dtype::Bf16, max_steps: Some(2), ..tiny::sft_config(dir.path()) };
    let here = sft(&dir.path().join("here"), &config);
    let optimizer = OptimConfig { optimizer_offload: true, ..config.optimizer.clone() };
    let offloaded = sft(&dir.path().join("offloaded"), &SftConfig { optimizer, ..config });
    let moved = here.total() - offloaded.total();
    assert_eq!((here.bytes(Region::Host), moved), (0, offloaded.bytes(Region::Host)));
    // Only the norm, the clip factor and the finite flag stay on the device.
    assert!(offloaded.bytes(Region::State) <= 2 * 4096 && moved > 100_000, "{moved}");
    let [one, other] =
        ["here", "offloaded"].map(|run| files_of(&dir.path().join(run).join("checkpoints/global_step_2")));
    assert!(one.len() >= 2 && one == other);
}

/// Tests all settings that `omr plan --faster` sets, together with a limit that makes micro-batches of several sizes
/// recompute.
#[test]
fn proposed_settings_take_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig {
        dtype: Dtype::Bf16,
        max_steps: Some(1),
        micro_batch_tokens: 100.into(),
        ..tiny::sft_config(dir.path())
    };
    for (offload, optim) in [
        (false, OptimizerName::AdamwTorch),
        (true, OptimizerName::AdamwTorch),
        (false, OptimizerName::Adamw8bit),
        (true, OptimizerName::Adamw8bit),
    ] {
        let out = |name: &str| dir.path().join(format!("{offload} {} {name}", optim.name()));
        let config = tiny::with(&config, |c| (c.optimizer.optimizer_offload, c.optimizer.optim) = (offload, optim));
        let all = sft(&out("all"), &config);
        let gib = (all.total() - 1) as f64 / f64::from(1 << 30);
        let less = sft(&out("less"), &tiny::with(&config, |c| c.training.max_memory_gib = Some(gib)));
        assert!(less.total() < all.total(), "{offload} {optim:?}: {} of {}", less.total(), all.total());
    }
}

/// Returns the hash of each tensor file of a checkpoint, by name.
fn files_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_tensors = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "safetensors");
    let named = |path: PathBuf| {
        let hash = Sha256::digest(std::fs::read(&path).unwrap()).to_vec();
        (path.strip_prefix(folder).unwrap().to_owned(), hash)
    };
    let inside = |folder: &Path| std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    inside(folder).chain(inside(&folder.join("trainer"))).filter(is_tensors).map(named).collect()
}

#[test]
fn a_rank_takes_what_was_planned() {
    if skipped("two ranks") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The first rank computes two micro-batches.
    let config = SftConfig {
        dtype: Dtype::Bf16,
        max_steps: Some(1),
        train_batch_size: Some(3),
        training: training(|t| t.gradient_lanes = Some(3)),
        ..tiny::sft_config(dir.path())
    };
    ranks::over(2, |ranks| {
        let mut job = training::sft::SftJob::new(&dir.path().join("run"), config.clone()).unwrap();
        job.common.ranks = OneRank::new(ranks.rank(), 2);
        let plan = job.plan(Target::gpu(kind())).unwrap();
        let mut dev = device(&plan);
        job.run_over(ranks, &mut dev, &Silent).unwrap();
        assert_exact(&plan, &dev, &Region::ALL);
    });
}

#[test]
fn rl_takes_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny::rl_config(dir.path());
    tiny::sft_config(dir.path());
    // Responses of two tokens from an untrained model, and a mini-batch that holds every question.
    let config = RlConfig {
        dtype: Dtype::Bf16,
        model: Some(dir.path().join("base")),
        train_batch_size: 12,
        ppo_mini_batch_size: 12,
        rollout: RolloutConfig { n: 1, ..config.rollout.clone() },
        max_response_length: 2,
        total_training_steps: Some(1),
        micro_batch_tokens: 4096,
        // The entropy term also trains on responses that are all wrong.
        entropy_coeff: 1e-3,
        ..config
    };
    let scorer = Arc::new(Scorer::rules(config.reward.mode));
    let mut job = rl::run::RlJob::new(&dir.path().join("rl"), config, scorer).unwrap();
    let plan = job.plan(Target::gpu(kind())).unwrap();
    let mut dev = device(&plan);
    job.run(&mut dev, &Silent).unwrap();
    assert_exact(&plan, &dev, &[Region::Weights, Region::State, Region::Overlay]);
    // A rollout's step needs the most memory when every tensor has memory pages of its own. The plan covers the largest
    // step that the limits allow.
    let taken = dev.high_water().bytes(Region::Workspace);
    assert!(taken <= plan.bytes(Region::Workspace) && taken * 10 > plan.bytes(Region::Workspace) * 9);
}

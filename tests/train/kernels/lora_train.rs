//! Training of adapters with kernels: the bits of sampler, trainer and base, resume, and the planned memory.

use omr_base::config::{LoraConfig, RlConfig, SftConfig};
use omr_base::observe::Silent;
use omr_runtime::device::emu::Options;
use omr_runtime::device::emu::options::Sums;
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant, Region, Target};
use omr_runtime_tests::kernels::{Schedule, emu, emu_of, emu_with, kind, no_hopper, skipped};
use omr_runtime_tests::ops::quantized::FORMATS;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::sft::SftJob;

use super::train::{bf16_rl, bf16_sft};
use crate::training::{quantized, tiny};

/// Adapters of all linear layers, those of the tower included.
fn adapters(rank: usize) -> Option<LoraConfig> {
    Some(LoraConfig { rank, vision: true, ..LoraConfig::default() })
}

fn hopper_with_sums(variant: KernelVariant, sums: Sums) -> Device {
    let mut dev = emu_of(Options { arch: Arch::Sm90a, sums, ..Options::default() }).unwrap();
    dev.use_variant(variant).unwrap();
    dev
}

#[test]
fn rl_samples_and_trains_with_the_same_bits_by_each_kernel_variant() {
    if no_hopper("wgmma") {
        return;
    }
    for (variant, sums) in [
        (KernelVariant::Mma, Sums::Chain),
        (KernelVariant::Wgmma, Sums::Chain),
        (KernelVariant::Mma, Sums::Aligned),
        (KernelVariant::Wgmma, Sums::Aligned),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = RlConfig { total_training_steps: Some(2), use_kl_loss: true, ..bf16_rl(dir.path()) };
        (config.optimizer.lora, config.optimizer.learning_rate) = (adapters(16), 1e-2);
        let run = tiny::run_rl_on(&dir.path().join("run"), &config, || hopper_with_sums(variant, sums), &[]);
        assert_eq!(run.figures("training/rollout_probs_diff_max"), [0.0; 2], "{variant:?} {sums:?}");
        // With B = 0 the log-probs are those of the base in every bit; after an update they are not.
        let kl = run.figures("actor/kl_loss");
        assert!(kl[0] == 0.0 && kl[1] != 0.0, "{variant:?} {sums:?}: {kl:?}");
    }
}

#[test]
fn a_stopped_run_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = SftConfig { max_steps: Some(3), save_steps: Some(1), ..bf16_sft(dir.path()) };
    config.optimizer.lora = adapters(8);
    let whole = tiny::run_sft_on(&dir.path().join("whole"), &config, emu, &[]);
    let random = Schedule::several(3)[2];
    let stopped = tiny::run_sft_on(&dir.path().join("stopped"), &config, || emu_with(random), &[2]);
    whole.assert_same(&stopped, "stopped once, another schedule");
}

#[test]
fn a_run_takes_the_memory_that_was_planned() {
    if skipped("the memory of a test's device") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for rank in [1, 64] {
        let mut config = SftConfig { max_steps: Some(2), ..bf16_sft(dir.path()) };
        config.optimizer.lora = adapters(rank);
        let mut job = SftJob::new(&dir.path().join(format!("rank-{rank}")), config).unwrap();
        let plan = job.plan(Target::gpu(kind())).unwrap();
        let mut dev = emu();
        job.run(&mut dev, &Silent).unwrap();
        for region in Region::ALL {
            assert_eq!(plan.bytes(region), dev.high_water().bytes(region), "rank {rank}: {}", region.name());
        }
    }
}

#[test]
fn a_quantised_base_has_the_same_bits_in_sampler_and_trainer_and_the_planned_memory() {
    if no_hopper("wgmma") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    tiny::sft_config(dir.path());
    quantized::model(&base);
    for format in FORMATS {
        for &(_, variant) in KernelVariant::ALL {
            let mut config = RlConfig { total_training_steps: Some(2), use_kl_loss: true, ..bf16_rl(dir.path()) };
            config.model = Some(base.clone());
            (config.optimizer.lora, config.optimizer.learning_rate) = (adapters(16), 1e-2);
            config.optimizer.quantization = Some(quantized::settings(format));
            let out = dir.path().join(format!("{format:?} {variant:?}"));
            let run = tiny::run_rl_on(&out, &config, || hopper_with_sums(variant, Sums::Chain), &[]);
            assert_eq!(run.figures("training/rollout_probs_diff_max"), [0.0; 2], "{format:?} {variant:?}");
        }
        if skipped("the memory of a test's device") {
            continue;
        }
        let mut config = SftConfig { max_steps: Some(2), model: Some(base.clone()), ..bf16_sft(dir.path()) };
        (config.optimizer.lora, config.optimizer.quantization) = (adapters(16), Some(quantized::settings(format)));
        let mut job = SftJob::new(&dir.path().join(format!("sft {format:?}")), config).unwrap();
        let plan = job.plan(Target::gpu(kind())).unwrap();
        let mut dev = emu();
        job.run(&mut dev, &Silent).unwrap();
        for region in Region::ALL {
            assert_eq!(plan.bytes(region), dev.high_water().bytes(region), "{format:?}: {}", region.name());
        }
    }
}

//! Tests that runs of models of every family have the same bits after a stop and with any number of ranks.

use omr_base::config::{LoraConfig, RlConfig, SftConfig};
use omr_model::nn::config::Family;
use omr_model::nn::family::FAMILIES;

use super::tiny::{
    device, models_of, rl_config, run_rl, run_rl_over, run_sft, run_sft_over, sft_config, training, with,
};

/// Runs the same training in one process, over two ranks, and over three and one with a stop.
fn however_it_is_run(family: &'static Family, lora: Option<LoraConfig>) {
    let dir = tempfile::tempdir().unwrap();
    models_of(family, dir.path());
    let training = training(|training| training.gradient_lanes = Some(3));
    let what = |job: &str, way: &str| format!("{}, {lora:?}: {job}, {way}", family.model_types[0]);
    let out = |name: &str| dir.path().join(name);

    let sft = SftConfig {
        max_steps: Some(3),
        train_batch_size: None,
        packing_length: 128,
        gradient_accumulation_steps: 3,
        training: training.clone(),
        ..sft_config(dir.path())
    };
    let sft = with(&sft, |config| config.optimizer.lora.clone_from(&lora));
    let whole = run_sft(&out("sft"), &sft, 2, &[]);
    assert!(whole.figures("grad_norm").iter().all(|&norm| norm > 0.0));
    for (name, sizes, stops) in [("sft-two", &[2][..], &[][..]), ("sft-three-one", &[3, 1], &[1])] {
        whole.assert_same(&run_sft_over(&out(name), &sft, || device(1), sizes, stops), &what("sft", name));
    }

    // A random model gets no reward, so the entropy trains it.
    let rl = RlConfig {
        total_training_steps: Some(2),
        entropy_coeff: 0.1,
        training: training.clone(),
        ..rl_config(dir.path())
    };
    let rl = with(&rl, |config| config.optimizer.lora.clone_from(&lora));
    let whole = run_rl(&out("rl"), &rl, 2, &[]);
    assert_eq!(whole.figures("training/rollout_probs_diff_max"), [0.0; 2], "{}", what("rl", "whole"));
    assert!(whole.figures("actor/grad_norm").iter().all(|&norm| norm > 0.0));
    let stopped = run_rl_over(&out("rl-two-three"), &rl, || device(1), &[2, 3], &[1]);
    whole.assert_same(&stopped, &what("rl", "two ranks, then three"));
}

#[test]
fn runs_of_every_family_have_the_same_bits_however_they_are_run() {
    for family in FAMILIES {
        however_it_is_run(family, None);
    }
}

#[test]
#[ignore = "slow: ten seconds"]
fn runs_with_adapters_of_every_family_have_the_same_bits_however_they_are_run() {
    for family in FAMILIES {
        let vision = !family.prefixes.is_empty();
        however_it_is_run(family, Some(LoraConfig { rank: 4, vision, ..LoraConfig::default() }));
    }
}

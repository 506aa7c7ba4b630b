//! Tests that frozen parts of a model cost no gradients and no optimizer state.

use std::path::Path;

use omr_base::config::{Dtype, OptimConfig, SftConfig};
use omr_base::observe::Silent;
use omr_model::nn::ModelConfig;
use omr_model::nn::weights::part::Part;
use omr_runtime::device::{Device, Isa, Kind, Region, Target};
use omr_runtime::ranks::OneRank;
use omr_train::training::job::TrainingJob;
use omr_train::training::plan::Training;
use omr_train::training::sft::SftJob;

use super::tiny::{device, run_sft, run_sft_over, sft_config};

/// Returns the bytes of optimizer state and of gradients, and the numbers of elements of the language model, the tower
/// and the merger.
fn bytes(model: &ModelConfig, optimizer: OptimConfig, target: Target) -> ([usize; 2], [usize; 3]) {
    let mut training = Training::new(model.clone(), Dtype::Auto, optimizer, target, OneRank::ALONE).unwrap();
    training.gradients().unwrap();
    let mut elements = [0; 3];
    for param in &training.model.layout.params {
        let part = match param.part {
            Part::Tower => 1,
            Part::Merger => 2,
            Part::Table | Part::Layer(_) | Part::Head => 0,
        };
        elements[part] += param.tensor.len();
    }
    let memory = training.dev.high_water();
    ([Region::State, Region::Overlay].map(|region| memory.bytes(region)), elements)
}

#[test]
fn memory_shrinks_by_the_counted_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft_config(dir.path());
    let model = ModelConfig::load(&dir.path().join("base/config.json")).unwrap();
    // Moments in f32 take 8 bytes per element. bf16 weights have a low half of 2 bytes.
    for (target, state) in [(Target::cpu(1), 8), (Target::gpu(Kind::Cuda), 10)] {
        let frozen = |tower, language| OptimConfig {
            freeze_vision_tower: tower,
            freeze_language_model: language,
            ..config.optimizer.clone()
        };
        let (all, [language, tower, merger]) = bytes(&model, frozen(false, false), target);
        for (optimizer, elements) in [(frozen(true, false), tower), (frozen(false, true), language)] {
            let (less, _) = bytes(&model, optimizer, target);
            // Allocations are rounded up to a multiple of the alignment: at most 256 bytes for each tensor of state.
            let saved = all[0] - less[0];
            assert!(saved.abs_diff(state * elements) < 40_000, "{saved} of {}", state * elements);
            // The memory for the bucket in use shrinks too if its largest bucket is frozen.
            let saved = all[1] - less[1];
            assert!(saved + 40_000 > 4 * elements && saved < 4 * (elements + tower + merger), "{saved} of {elements}");
        }
    }
}

#[test]
fn a_run_with_a_frozen_part_takes_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let config = SftConfig { max_steps: Some(1), ..sft_config(dir.path()) };
    for (run, tower, language) in [("all", false, false), ("tower", true, false), ("language", false, true)] {
        let mut config = config.clone();
        config.optimizer.freeze_vision_tower = tower;
        config.optimizer.freeze_language_model = language;
        let mut job = SftJob::new(&dir.path().join(run), config).unwrap();
        let plan = job.plan(Target::cpu(1)).unwrap();
        let mut dev = Device::cpu(&plan, 1, Isa::detect()).unwrap();
        job.run(&mut dev, &Silent).unwrap();
        for region in Region::ALL {
            assert_eq!(plan.bytes(region), dev.high_water().bytes(region), "{run}: {}", region.name());
        }
    }
}

/// Returns the names of the tensors in the optimizer files of the newest checkpoint.
fn state_names(out: &Path, step: u64) -> Vec<String> {
    let file = out.join(format!("checkpoints/global_step_{step}/trainer/optim-00001-of-00001.safetensors"));
    let bytes = std::fs::read(file).unwrap();
    let all = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    all.names().into_iter().map(str::to_owned).collect()
}

#[test]
fn a_checkpoint_has_no_state_of_frozen_parts() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = SftConfig { max_steps: Some(4), save_steps: Some(2), ..sft_config(dir.path()) };
    let all = run_sft(&dir.path().join("all"), &config, 1, &[]);
    assert!(state_names(&dir.path().join("all"), 4).iter().any(|name| name.starts_with("visual.blocks.0")));
    config.optimizer.freeze_vision_tower = true;
    let whole = run_sft(&dir.path().join("whole"), &config, 1, &[]);
    whole.assert_same(&run_sft(&dir.path().join("stopped"), &config, 1, &[2]), "stopped");
    let over = |name: &str, sizes: &[usize], stops: &[u64]| {
        run_sft_over(&dir.path().join(name), &config, || device(1), sizes, stops)
    };
    whole.assert_same(&over("ranks", &[3, 2], &[2]), "three ranks, then two");
    let names = state_names(&dir.path().join("whole"), 4);
    let tower = |name: &&String| name.starts_with("visual.") && !name.starts_with("visual.merger.");
    assert_eq!(names.iter().find(tower), None);
    assert!(names.iter().any(|name| name.starts_with("visual.merger.")));
    assert_ne!(all.figures("grad_norm"), whole.figures("grad_norm"));

    // Another run that trains the tower cannot continue from this checkpoint, unless its moments may start anew.
    config.training.resume = dir.path().join("whole/checkpoints/global_step_4").display().to_string();
    config.max_steps = Some(6);
    config.optimizer.freeze_vision_tower = false;
    let out = dir.path().join("unfrozen");
    let run = |config: &SftConfig| SftJob::new(&out, config.clone()).unwrap().run(&mut device(1), &Silent);
    let error = run(&config).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    for word in ["visual.", "freeze_vision_tower=true", "start_moments_anew=true"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    config.optimizer.start_moments_anew = true;
    run(&config).unwrap();
    assert!(state_names(&out, 6).iter().any(|name| name.starts_with("visual.blocks.0")));
}

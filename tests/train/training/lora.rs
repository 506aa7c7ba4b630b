//! Tests runs that train adapters.

use std::fs;
use std::path::Path;

use omr_base::config::{Dtype, LoraConfig, RlConfig, SftConfig};
use omr_base::identity;
use omr_base::observe::Silent;
use omr_data::reward::Scorer;
use omr_model::nn::Model;
use omr_model::nn::adapter::adapter_files::StoredAdapter;
use omr_runtime::device::{Device, Isa, Kind, Region, Target};
use omr_runtime::tensor::DType;
use omr_train::rl::run::RlJob;
use omr_train::training::job::TrainingJob as _;
use omr_train::training::sft::SftJob;

use super::tiny::{Outcome, device, rl_config, run_rl, run_rl_over, run_sft, run_sft_over, sft_config};

fn sft(dir: &Path, dtype: Dtype) -> SftConfig {
    let mut config = SftConfig { dtype, max_steps: Some(6), save_steps: Some(2), ..sft_config(dir) };
    config.optimizer.lora = Some(LoraConfig { rank: 6, vision: true, ..LoraConfig::default() });
    config
}

fn rl(dir: &Path, dtype: Dtype) -> RlConfig {
    let mut config = RlConfig { dtype, use_kl_loss: true, ..rl_config(dir) };
    config.optimizer.lora = Some(LoraConfig { rank: 16, ..LoraConfig::default() });
    config.optimizer.learning_rate = 1e-2;
    config
}

#[test]
fn sft_goes_on_with_the_same_bits_whoever_computes_it() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let config = sft(dir.path(), dtype);
        let out = |name: &str| dir.path().join(dtype.name()).join(name);
        let whole = run_sft(&out("whole"), &config, 2, &[]);
        let losses = whole.figures("loss");
        assert!(losses[5] < losses[0] - 0.1, "{losses:?}");
        whole.assert_same(&run_sft(&out("stopped"), &config, 1, &[1, 2, 5]), "stopped three times");
        for (name, sizes, stops) in [("two", &[2][..], &[][..]), ("three, then two", &[3, 2], &[3])] {
            let over = run_sft_over(&out(name), &config, || device(1), sizes, stops);
            whole.assert_same(&over, name);
        }
        let names: Vec<&str> = whole.files.keys().filter(|name| name.ends_with(".safetensors")).map(|n| &**n).collect();
        let step = "checkpoints/global_step_6";
        let want = [
            format!("{step}/adapter_model.safetensors"),
            format!("{step}/trainer/optim-00001-of-00001.safetensors"),
            "model/adapter_model.safetensors".to_owned(),
        ];
        assert_eq!(names, want);
        // The directory of the adapter is that of a model.
        let mut dev = device(1);
        let model = Model::load(&mut dev, &out("whole/model"), DType::of(dtype, Kind::Cpu)).unwrap();
        assert_eq!(model.layout.adapters.len(), 2 * 4 + 4 + 2);
        let base = identity::base_weights(config.model.as_ref().unwrap()).unwrap();
        assert_eq!(StoredAdapter::open(&out("whole/model")).unwrap().config.base_weights, Some(base));
    }
}

#[test]
fn a_run_takes_what_was_planned_and_no_state_for_the_base() {
    let dir = tempfile::tempdir().unwrap();
    for vision in [false, true] {
        let mut config = SftConfig { max_steps: Some(2), ..sft(dir.path(), Dtype::F32) };
        config.optimizer.lora = Some(LoraConfig { rank: 4, vision, ..LoraConfig::default() });
        let mut job = SftJob::new(&dir.path().join(format!("sft-{vision}")), config.clone()).unwrap();
        let plan = job.plan(Target::cpu(1)).unwrap();
        let mut dev = Device::cpu(&plan, 1, Isa::detect()).unwrap();
        job.run(&mut dev, &Silent).unwrap();
        for region in Region::ALL {
            assert_eq!(plan.bytes(region), dev.high_water().bytes(region), "{vision}: {}", region.name());
        }
        config.optimizer.lora = None;
        let full = SftJob::new(&dir.path().join("full"), config).unwrap().plan(Target::cpu(1)).unwrap();
        assert!(plan.bytes(Region::State) * 3 < full.bytes(Region::State), "{plan:?} {full:?}");
    }
    let config = RlConfig { total_training_steps: Some(1), ..rl(dir.path(), Dtype::F32) };
    let mut job = RlJob::new(&dir.path().join("rl"), config.clone(), Scorer::rules(config.reward.mode).into()).unwrap();
    let plan = job.plan(Target::cpu(1)).unwrap();
    let mut dev = Device::cpu(&plan, 1, Isa::detect()).unwrap();
    job.run(&mut dev, &Silent).unwrap();
    // The reference of the KL term is the base, in the same memory.
    assert_eq!(plan.bytes(Region::Weights), dev.high_water().bytes(Region::Weights));
}

/// Asserts that sampler and trainer computed the same log-probs, and that the run trained something.
pub fn assert_exact(run: &Outcome) {
    for name in ["training/rollout_probs_diff_max", "training/rollout_log_probs_diff_max"] {
        assert!(run.figures(name).iter().all(|&d| d == 0.0), "{name}: {:?}", run.figures(name));
    }
    assert!(run.figures("actor/grad_norm").iter().any(|&n| n > 0.0));
}

#[test]
fn rl_samples_what_it_trains_and_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let config = rl(dir.path(), dtype);
        let out = |name: &str| dir.path().join(dtype.name()).join(name);
        let whole = run_rl(&out("whole"), &config, 2, &[]);
        assert_exact(&whole);
        // New adapters are the reference policy itself.
        let kl = whole.figures("actor/kl_loss");
        assert!(kl[0] == 0.0 && kl[3] != 0.0, "{kl:?}");
        whole.assert_same(&run_rl(&out("stopped"), &config, 1, &[1, 3]), "stopped twice");
        whole.assert_same(&run_rl_over(&out("ranks"), &config, || device(1), &[2], &[]), "two ranks");
        // Another run continues the adapter, in a directory as PEFT writes it. Its reference has the adapter as it was.
        fs::create_dir(out("peft")).unwrap();
        for name in ["adapter_config.json", "adapter_model.safetensors"] {
            fs::copy(out("whole/model").join(name), out("peft").join(name)).unwrap();
        }
        let next = RlConfig { model: Some(out("peft")), total_training_steps: Some(2), ..config.clone() };
        let next = run_rl(&out("next"), &next, 2, &[]);
        assert_exact(&next);
        assert_eq!(next.figures("actor/kl_loss")[0], 0.0);
        for name in ["adapter_config.json", "config.json", "tokenizer.json", "preprocessor_config.json"] {
            assert_eq!(next.files[&format!("model/{name}")], whole.files[&format!("model/{name}")], "{name}");
        }
    }
}

#[test]
fn what_cannot_be_trained_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = sft(dir.path(), Dtype::Bf16);
    // An adapter as the model, without or with other settings of lora.
    run_sft(&dir.path().join("first"), &SftConfig { max_steps: Some(2), ..config.clone() }, 1, &[]);
    let model = dir.path().join("first/model");
    assert!(fs::exists(model.join("adapter_config.json")).unwrap());
    for (lora, word) in [(None, "adapter"), (Some(LoraConfig { rank: 7, ..LoraConfig::default() }), "lora")] {
        let mut config = SftConfig { model: Some(model.clone()), ..config.clone() };
        config.optimizer.lora = lora;
        let job = SftJob::new(&dir.path().join(format!("other-{word}")), config);
        let error = job.and_then(|job| job.run(&mut device(1), &Silent)).map(drop).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(word), "{error}");
    }
}

//! Tests adapters on tiny random weights.

use std::path::Path;

use omr_base::config::{OptimConfig, SftConfig, load};
use omr_model::nn::adapter::adapter_files::{AdapterConfig, StoredAdapter};
use omr_model::nn::adapter::attach::{Fresh, Masters, Takes};
use omr_model::optim::{Optimizer, freeze};
use omr_runtime::device::Work;

use super::*;
use crate::models::Rough;

fn base(dev: &mut Device, dtype: DType) -> Model {
    Model::init(dev, config(false), dtype, seed()).unwrap()
}

fn adapted(dev: &mut Device, dtype: DType, takes: &Takes<'_>, masters: &dyn Masters) -> Model {
    let mut model = base(dev, dtype);
    model.attach(dev, 5, 1.7, takes).unwrap();
    model.set_adapters(dev, masters).unwrap();
    model
}

/// Returns the log-probs of every next token in inference mode.
fn log_probs(dev: &mut Device, model: &Model, inputs: &Inputs) -> Vec<u32> {
    let mut tape = Tape::new(dev, Mode::Infer);
    let hidden = model.forward(&mut tape, dev, inputs).unwrap();
    let targets = tape.upload(dev, &inputs.input_ids, &[inputs.len()]).unwrap();
    let policy = Policy::default();
    let (found, _) = tape.linear_logprob(dev, hidden, model.decoder.lm_head, policy, targets, false).unwrap();
    let bits = dev.read::<f32>(found.tensor).unwrap().iter().map(|x| x.to_bits()).collect();
    tape.finish(dev);
    bits
}

fn all(_: &str, _: omr_model::nn::weights::part::Part) -> bool {
    true
}

#[test]
fn new_adapters_leave_the_log_probs_of_the_base_in_every_bit() {
    let inputs = inputs(&config(false), true);
    for dtype in [DType::F32, DType::Bf16] {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let mut dev = Device::cpu(&Plan::uniform(1 << 30), 2, isa).unwrap();
            let plain = base(&mut dev, dtype);
            let fresh = Fresh::new(&plain.layout, 3);
            let model = adapted(&mut dev, dtype, &all, &fresh);
            assert_eq!(model.layout.adapters.len(), 3 * 4 + 2 * 4 + 2);
            let want = log_probs(&mut dev, &plain, &inputs);
            assert_eq!(log_probs(&mut dev, &model, &inputs), want, "{dtype:?} {isa:?}");
            let rough = adapted(&mut dev, dtype, &all, &Rough);
            assert_ne!(log_probs(&mut dev, &rough, &inputs), want, "{dtype:?} {isa:?}");
        }
    }
}

#[test]
fn a_new_a_depends_on_its_tensor_alone() {
    let mut dev = device(1);
    let mut of = |dtype, takes: &Takes<'_>| -> Vec<f32> {
        let plain = base(&mut dev, dtype);
        let model = adapted(&mut dev, dtype, takes, &Fresh::new(&plain.layout, 3));
        let (param, piece) = models::find(&model.layout, "model.layers.1.self_attn.v_proj.lora_A.weight");
        match dtype {
            DType::Bf16 => {
                models::piece::<half::bf16>(&mut dev, param, param.tensor, piece).iter().map(|x| x.to_f32()).collect()
            }
            _ => models::piece(&mut dev, param, param.tensor, piece),
        }
    };
    let want = of(DType::F32, &all);
    assert_eq!(of(DType::F32, &|module, _| module.ends_with("1.self_attn.v_proj")), want);
    let bound = (1.0f32 / 24.0).sqrt();
    let largest = want.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    assert!(want.len() == 5 * 24 && (0.9 * bound..=bound).contains(&largest), "{largest}");
    let close = of(DType::Bf16, &all).iter().zip(&want).all(|(a, b)| (a - b).abs() <= b.abs() / 256.0);
    assert!(close);
}

#[test]
fn gradients_do_not_depend_on_what_is_recomputed() {
    let some = |module: &str, _| module.ends_with("up_proj") || module.ends_with("1.self_attn.q_proj");
    let lowest = |module: &str, _| module.ends_with("layers.1.mlp.down_proj");
    let takes: [&Takes<'_>; 3] = [&all, &some, &lowest];
    for dtype in [DType::F32, DType::Bf16] {
        for takes in takes {
            let mut dev = device(2);
            let model = adapted(&mut dev, dtype, takes, &Rough);
            let inputs = inputs(&config(false), true);
            let want = gradient_bits(&mut dev, &model, &inputs, LayerPolicy::All);
            assert_eq!(want.len(), 2 * model.layout.adapters.len());
            assert!(want.iter().all(|bits| bits.iter().any(|bits| *bits != 0)));
            for keep in [LayerPolicy::AllButGateUp, LayerPolicy::Inputs] {
                assert!(gradient_bits(&mut dev, &model, &inputs, keep) == want, "{dtype:?} {keep:?}");
            }
        }
    }
}

#[test]
fn nothing_below_the_lowest_adapter_runs_backward() {
    let mut dev = Device::count_for(Target::cpu(1));
    let mut model = Model::empty(&mut dev, config(false), DType::F32).unwrap();
    let mut work = |takes: &Takes<'_>| -> Vec<&'static str> {
        model.attach(&mut dev, 4, 1.0, takes).unwrap();
        let mark = dev.mark(Region::Overlay);
        let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
        dev.take_work();
        pass(&mut dev, &model, &inputs(&config(false), true), LayerPolicy::All, &mut grads);
        dev.release(mark);
        let backward = |work: &Work| work.op.ends_with("bwd") || work.op.ends_with("dgrad");
        dev.take_work().iter().filter(|work| backward(work)).map(|work| work.op).collect()
    };
    let count = |work: &[&str], op: &str| work.iter().filter(|found| **found == op).count();
    let lowest = work(&|module, _| module.ends_with("layers.1.mlp.down_proj"));
    // The last norm and the norms of the third layer.
    assert_eq!(count(&lowest, "rms_norm::bwd"), 3, "{lowest:?}");
    assert_eq!(count(&lowest, "attention::bwd"), 1, "{lowest:?}");
    assert!(!lowest.iter().any(|op| op.contains("embed")), "{lowest:?}");
    // The four products of the third layer, and dt.
    assert_eq!(count(&lowest, "linear::dgrad"), 4 + 1, "{lowest:?}");
}

fn save(dev: &mut Device, model: &Model, optimizer: &Optimizer, dir: &Path) {
    let config = AdapterConfig { base: "base".into(), rank: 5, alpha: 8.5, use_rslora: false, base_weights: None };
    let layout = Arc::new(model.layout.clone());
    let files = model.outgoing_adapters(&layout, &config, |id| optimizer.low_halves(id), optimizer.own());
    files.write(dir, dev).unwrap();
}

#[test]
fn an_updated_adapter_that_is_saved_and_loaded_computes_the_same_bits() {
    let inputs = inputs(&config(false), true);
    for dtype in [DType::F32, DType::Bf16] {
        let dir = tempfile::tempdir().unwrap();
        let mut dev = device(2);
        let takes = |module: &str, _| !module.contains("k_proj") && !module.contains("blocks.0");
        let model = adapted(&mut dev, dtype, &takes, &Rough);
        let mut optimizer = Optimizer::new(&mut dev, &model.layout, OptimConfig::default(), 1).unwrap();
        optimizer.set_adapters(&mut dev, &model.layout, &Rough).unwrap();
        let before = log_probs(&mut dev, &model, &inputs);
        for step in 0..3 {
            save(&mut dev, &model, &optimizer, dir.path());
            let mut loaded = base(&mut dev, dtype);
            let stored = StoredAdapter::open(dir.path()).unwrap();
            stored.attach(&mut dev, &mut loaded).unwrap();
            let now = log_probs(&mut dev, &model, &inputs);
            assert!(log_probs(&mut dev, &loaded, &inputs) == now, "{dtype:?} {step}");
            assert_eq!(now == before, step == 0);
            let mark = dev.mark(Region::Overlay);
            let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
            pass(&mut dev, &model, &inputs, LayerPolicy::All, &mut grads);
            optimizer.step(&mut dev, &model.layout, &grads, 1e-2).unwrap();
            dev.release(mark);
        }
    }
}

#[test]
fn a_file_that_would_compute_something_else_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = device(1);
    let model = adapted(&mut dev, DType::F32, &|module, _| module.ends_with("q_proj"), &Rough);
    let optimizer = Optimizer::new(&mut dev, &model.layout, OptimConfig::default(), 1).unwrap();
    save(&mut dev, &model, &optimizer, dir.path());
    let path = dir.path().join("adapter_config.json");
    let good: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(good["target_modules"], r"model\.language_model\.layers\.\d+\.self_attn\.q_proj");
    for (key, value) in [
        ("use_dora", json!(true)),
        ("lora_bias", json!(true)),
        ("rank_pattern", json!({"q_proj": 3})),
        ("alpha_pattern", json!({"q_proj": 3})),
        ("modules_to_save", json!(["lm_head"])),
        ("bias", json!("all")),
        ("fan_in_fan_out", json!(true)),
        ("init_lora_weights", json!("pissa")),
        ("r", json!(0)),
        ("r", json!(u64::MAX)),
        ("use_rslora", json!(1)),
        ("use_rslora", json!("true")),
        ("lora_alpha", json!(0)),
        ("lora_alpha", json!(-1)),
        ("target_modules", json!(null)),
        ("target_modules", json!(5)),
        ("target_modules", json!([5])),
        ("exclude_modules", json!(5)),
        ("layers_to_transform", json!("0")),
        ("layers_pattern", json!("h")),
        ("a_key_of_a_later_version", json!(0.5)),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        std::fs::write(&path, bad.to_string()).unwrap();
        let text = StoredAdapter::open(dir.path()).err().unwrap().to_string();
        assert!(text.contains("adapter_config.json") && text.contains(key), "{text}");
    }
    // Another rank than that of the tensors.
    let mut bad = good.clone();
    bad["r"] = json!(4);
    std::fs::write(&path, bad.to_string()).unwrap();
    let mut other = base(&mut dev, DType::F32);
    let error = StoredAdapter::open(dir.path()).unwrap().attach(&mut dev, &mut other).unwrap_err().to_string();
    assert!(error.contains("lora_A.weight"), "{error}");
    // PEFT would compute something else than the tensors in the file, or warn about missing keys.
    for targets in [json!(["k_proj"]), json!("model.*(q|k)_proj")] {
        let mut bad = good.clone();
        bad["target_modules"] = targets;
        std::fs::write(&path, bad.to_string()).unwrap();
        let mut other = base(&mut dev, DType::F32);
        let error = StoredAdapter::open(dir.path()).unwrap().attach(&mut dev, &mut other).unwrap_err().to_string();
        assert!(error.contains("no tensor base_model.model.model") && error.contains("k_proj"), "{error}");
    }
    // PEFT would leave tensors of the file out.
    for (key, value) in [
        ("layers_to_transform", json!([0])),
        ("layers_to_transform", json!(1)),
        ("exclude_modules", json!(["q_proj"])),
        ("exclude_modules", json!(r".*layers\.1\..*")),
    ] {
        let mut bad = good.clone();
        bad["layers_to_transform"] = json!([0, 1, 2, 3, 4, 5, 6, 7]);
        bad[key] = value;
        std::fs::write(&path, bad.to_string()).unwrap();
        let mut other = base(&mut dev, DType::F32);
        let error = StoredAdapter::open(dir.path()).unwrap().attach(&mut dev, &mut other).unwrap_err().to_string();
        assert!(error.contains("q_proj.lora_") && error.contains("no linear layer"), "{key}: {error}");
    }
    // Settings that name the same modules.
    let mut same = good.clone();
    (same["exclude_modules"], same["layers_to_transform"]) = (json!(["k_proj"]), json!([0, 1, 2, 3, 4, 5, 6, 7]));
    (same["peft_version"], same["qalora_group_size"]) = (json!("0.18.0"), json!(16));
    std::fs::write(&path, same.to_string()).unwrap();
    let mut other = base(&mut dev, DType::F32);
    StoredAdapter::open(dir.path()).unwrap().attach(&mut dev, &mut other).unwrap();
    // A layer that the model does not have.
    std::fs::write(&path, good.to_string()).unwrap();
    let mut short = config(false);
    short.text.layers.truncate(2);
    let mut short = Model::init(&mut dev, short, DType::F32, 1).unwrap();
    let error = StoredAdapter::open(dir.path()).unwrap().attach(&mut dev, &mut short).unwrap_err().to_string();
    assert!(error.contains("layers.2.self_attn.q_proj") && error.contains("no linear layer"), "{error}");
}

#[test]
fn targets_are_linear_layers_of_the_model() {
    let mut dev = Device::count_for(Target::cpu(1));
    let mut taken = |lora: serde_json::Value| -> Result<Vec<String>, String> {
        let SftConfig { optimizer, .. } = load(None, &[format!("lora={lora}")], &|_| None).unwrap();
        let mut model = Model::empty(&mut dev, config(false), DType::F32).unwrap();
        freeze(&mut dev, &mut model, &optimizer).map_err(|e| e.to_string())?;
        let adapters = model.layout.adapters.iter().flat_map(|adapter| &model.layout.params[adapter.a.id].pieces);
        Ok(adapters.map(|piece| piece.name.clone()).collect())
    };
    let names = taken(json!({"target_modules": ["q_proj", "down_proj"]})).unwrap();
    assert!(names.iter().all(|name| name.contains("q_proj") || name.contains("down_proj")), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("visual")), "{names:?}");
    let names = taken(json!({"target_modules": ["attn.proj", "mlp.2"], "vision": true})).unwrap();
    assert!(names.iter().all(|name| name.contains("attn.proj") || name.contains("merger.mlp.2")), "{names:?}");
    for (name, vision) in [("lm_head", false), ("embed_tokens", false), ("mlp.2", false), ("patch_embed.proj", true)] {
        let error = taken(json!({"target_modules": [name], "vision": vision})).unwrap_err();
        assert!(error.starts_with(&format!("lora.target_modules: found {name}, expected all-linear")), "{error}");
    }
}

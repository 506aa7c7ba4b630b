//! Compares adapters with PEFT: every folder of `goldens/lora`. Tolerances are those of `index.json`, which states how
//! they were measured.

use std::path::PathBuf;

use omr_base::config::OptimConfig;
use omr_base_tests::golden::{dir, json, report};
use omr_model::nn::adapter::adapter_files::StoredAdapter;
use omr_model::nn::config::Family;
use omr_model::nn::family::names::path_in_memory;
use omr_model::nn::weights::WeightFiles;
use omr_model::nn::{Grads, LayerPolicy, Model};
use omr_model::optim::Optimizer;
use omr_runtime::device::{Device, Region};
use omr_runtime::tensor::DType;
use serde_json::Value;

use super::hf::{Case, Golden, Largest, Tensors, device, forward, loss_and_gradients, max_abs, max_diff, mean_loss};
use crate::models;

/// Sizes of the adapters' gradients are compared with the tensor's largest entry, or with this share of the largest entry
/// of all tensors if that is more (README of the goldens).
const LEAST: f64 = 1e-3;

/// An adapter and its base.
struct Adapted {
    name: String,
    dir: PathBuf,
    index: Value,
    base: Golden,
}

impl Adapted {
    fn tolerance(&self, key: &str) -> f64 {
        self.index["tolerance"][key].as_f64().unwrap()
    }

    fn model(&self, dev: &mut Device) -> Model {
        let mut model = self.base.model(dev, DType::F32);
        StoredAdapter::open(&self.dir).unwrap().attach(dev, &mut model).unwrap();
        model
    }

    fn cases(&self) -> Vec<Case> {
        self.index["cases"].as_object().unwrap().keys().map(|name| self.base.case(name)).collect()
    }
}

/// Returns the adapters.
fn adapters() -> Vec<Adapted> {
    let index = json(&dir().join("lora/index.json"));
    let mut found = Vec::new();
    for (name, index) in index["adapters"].as_object().unwrap() {
        let (folder, base) = (dir().join("lora").join(name), dir().join(index["base"].as_str().unwrap()));
        found.push(Adapted { name: name.clone(), dir: folder, index: index.clone(), base: Golden::open(base) });
    }
    found
}

/// Returns the name in PEFT's file of a tensor of an adapter.
fn key(family: &Family, released: &str) -> String {
    let at = released.find(".lora_").unwrap();
    format!("base_model.model.{}{}", path_in_memory(family, &released[..at]), &released[at..])
}

#[test]
fn forward_agrees_with_peft() {
    let mut count = 0;
    for adapted in adapters() {
        let mut dev = device();
        let model = adapted.model(&mut dev);
        let base = adapted.base.model(&mut dev, DType::F32);
        let mut largest = Largest::default();
        for case in adapted.cases() {
            count += 1;
            let place = format!("{} {}", adapted.name, case.name);
            let want = Tensors::read(&adapted.dir.join(format!("cases/{}.safetensors", case.name)));
            let (inputs, targets) = (case.inputs(&adapted.base.config), case.targets());
            let run = forward(&mut dev, &model, &inputs, &targets);
            let vocab = adapted.base.config.text.vocab_size;
            let rows = targets.iter().take(8).flat_map(|(row, _)| &run.logits[*row as usize * vocab..][..vocab]);
            let logits: Vec<f32> = rows.copied().collect();
            largest.note("logit", max_diff(&logits, want.floats("logits_first8")).into(), &place);
            largest.note("logprob", max_diff(&run.logprobs, want.floats("target_logprobs")).into(), &place);
            largest.note("loss", (mean_loss(&run.logprobs) - f64::from(want.floats("loss")[0])).abs(), &place);
            let plain = forward(&mut dev, &base, &inputs, &targets);
            let same = run.logits.iter().zip(&plain.logits).all(|(a, b)| a.to_bits() == b.to_bits());
            assert_eq!(same, adapted.index["b"] == "zero", "{place}");
        }
        let of = |kind, key| (kind, adapted.tolerance(key));
        largest.check(&[of("logit", "logits_abs"), of("logprob", "target_logprobs_abs"), of("loss", "loss_abs")]);
    }
    report("lora", count);
}

#[test]
fn gradients_agree_with_peft() {
    let mut count = 0;
    for adapted in adapters() {
        let mut dev = device();
        let model = adapted.model(&mut dev);
        let mut largest = Largest::default();
        for case in adapted.cases() {
            count += 1;
            let mark = dev.mark(Region::Overlay);
            let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
            let (inputs, targets) = (case.inputs(&adapted.base.config), case.targets());
            loss_and_gradients(&mut dev, &model, &inputs, &targets, LayerPolicy::AllButGateUp, &mut grads);
            let listed = adapted.dir.join(format!("cases/{}.grads.json", case.name));
            let listed = listed.exists().then(|| json(&listed)["grads"].clone());
            let whole = Tensors::read(&adapted.dir.join(format!("cases/{}.safetensors", case.name)));
            let found: Vec<(String, Vec<f32>)> = model
                .layout
                .pieces()
                .filter_map(|(id, i, piece)| {
                    let tensor = grads.get(id)?;
                    Some((
                        key(model.config.family, &piece.name),
                        models::piece(&mut dev, &model.layout.params[id], tensor, i),
                    ))
                })
                .collect();
            dev.release(mark);
            let want = adapted.index["cases"][&case.name]["n_with_gradient"].as_u64().unwrap();
            assert_eq!(found.len() as u64, want, "{} {}", adapted.name, case.name);
            let top = found.iter().map(|(_, values)| f64::from(max_abs(values))).fold(0.0, f64::max);
            for (key, values) in &found {
                let scale = f64::from(max_abs(values)).max(LEAST * top);
                match &listed {
                    Some(listed) => {
                        let entry = &listed[key];
                        let probes =
                            entry["probe_index"].as_array().unwrap().iter().zip(entry["probe"].as_array().unwrap());
                        for (at, value) in probes {
                            let diff = f64::from(values[at.as_u64().unwrap() as usize]) - value.as_f64().unwrap();
                            largest.note("gradient", diff.abs() / scale, key);
                        }
                        let l2 = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                        let size = (values.len() as f64).sqrt() * scale;
                        largest.note("gradient", (l2 - entry["l2"].as_f64().unwrap()).abs() / size, key);
                    }
                    None => {
                        let diff = max_diff(values, whole.floats(&format!("grad.{key}")));
                        largest.note("gradient", f64::from(diff) / scale, key);
                    }
                }
                if adapted.index["b"] == "zero" && key.ends_with("lora_A.weight") {
                    assert!(values.iter().all(|x| *x == 0.0), "{key}");
                }
            }
        }
        largest.check(&[("gradient", adapted.tolerance("grad_rel_to_max_abs"))]);
    }
    report("lora-gradients", count);
}

#[test]
fn merged_weights_agree_with_peft() {
    let mut count = 0;
    for adapted in adapters() {
        let mut dev = device();
        let model = adapted.model(&mut dev);
        let base = WeightFiles::open(&adapted.base.dir).unwrap();
        let merged = StoredAdapter::open(&adapted.dir)
            .unwrap()
            .merge(&mut dev, &model.layout, &base, &model.layout, DType::F32)
            .unwrap();
        let whole = adapted.dir.join("merged.safetensors");
        let whole = whole.exists().then(|| Tensors::read(&whole));
        // With B = 0, nothing changes and nothing is listed.
        let listed = adapted.dir.join("merged.json");
        let listed = listed.exists().then(|| json(&listed)["merged"].clone());
        assert_eq!(listed.is_none(), adapted.index["b"] == "zero", "{}", adapted.name);
        let (mut largest, mut total) = (Largest::default(), 0);
        for (name, entry) in listed.iter().flat_map(|listed| listed.as_object().unwrap()) {
            count += 1;
            let (param, piece) = models::find(&model.layout, name);
            let found = models::piece::<f32>(&mut dev, param, param.tensor, piece);
            total += found.len() as u64;
            if let Some(whole) = &whole {
                largest.note("weight", max_diff(&found, whole.floats(name)).into(), name);
            }
            for (at, value) in entry["probe_index"].as_array().unwrap().iter().zip(entry["probe"].as_array().unwrap()) {
                let diff = f64::from(found[at.as_u64().unwrap() as usize]) - value.as_f64().unwrap();
                largest.note("weight", diff.abs(), name);
            }
            let sum: f64 = found.iter().map(|x| f64::from(*x)).sum();
            largest.note("weight", (sum - entry["sum"].as_f64().unwrap()).abs() / found.len() as f64, name);
        }
        assert!(listed.is_none() || merged.total == total, "{merged:?}");
        assert_eq!(merged.changed == 0, listed.is_none(), "{merged:?}");
        if listed.is_some() {
            largest.check(&[("weight", 1e-6)]);
        }
    }
    report("lora-merged", count);
}

#[test]
fn three_updates_agree_with_torch() {
    let mut count = 0;
    for adapted in adapters() {
        count += 1;
        let mut dev = device();
        let model = adapted.model(&mut dev);
        let setting = &adapted.index["adamw_3_steps"];
        let number = |value: &Value| value.as_f64().unwrap();
        let config = OptimConfig {
            learning_rate: number(&setting["lr"]),
            adam_beta1: number(&setting["betas"][0]),
            adam_beta2: number(&setting["betas"][1]),
            adam_epsilon: number(&setting["eps"]),
            max_grad_norm: 1e30,
            ..OptimConfig::default()
        };
        let case = adapted.base.case(setting["case"].as_str().unwrap());
        let (inputs, targets) = (case.inputs(&adapted.base.config), case.targets());
        let mut optimizer = Optimizer::new(&mut dev, &model.layout, config.clone(), 1).unwrap();
        for want in setting["losses"].as_array().unwrap() {
            let mark = dev.mark(Region::Overlay);
            let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
            let loss = loss_and_gradients(&mut dev, &model, &inputs, &targets, LayerPolicy::Inputs, &mut grads);
            // An update amplifies differences of small gradients: with three updates of 1e-3, by 1e-4 at most here.
            let diff = (loss - number(want)).abs();
            assert!(diff <= 1e-4, "{}: loss {loss}, expected {want}: off by {diff:e}", adapted.name);
            optimizer.step(&mut dev, &model.layout, &grads, config.learning_rate).unwrap();
            dev.release(mark);
        }
    }
    report("lora-adamw", count);
}

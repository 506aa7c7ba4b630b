//! Compares training steps with torch's AdamW: losses, gradient norms, and parameters after one and four updates.

use omr_base::config::OptimConfig;
use omr_base_tests::golden::report;
use omr_model::nn::{Grads, LayerPolicy, Model};
use omr_model::optim::Optimizer;
use omr_runtime::tensor::DType;
use serde_json::Value;

use super::{Case, Golden, Largest, device, json, loss_and_gradients, models, pack};

/// Tolerance of parameters, from the README of the goldens. The value is an estimate: a gradient near zero, divided by
/// its root mean square, can change its sign in the first steps.
const PARAMETER: f64 = 2e-3;
/// Tolerance of the change in L2 norm, from the README of the goldens. The value is an estimate.
const DELTA_L2: f64 = 1e-2;

fn config(setting: &Value) -> OptimConfig {
    let number = |key: &str| setting[key].as_f64().unwrap();
    OptimConfig {
        learning_rate: number("lr"),
        weight_decay: number("weight_decay"),
        adam_beta1: setting["betas"][0].as_f64().unwrap(),
        adam_beta2: setting["betas"][1].as_f64().unwrap(),
        adam_epsilon: number("eps"),
        max_grad_norm: number("grad_clip"),
        decay_norms_and_biases: setting["decay_1d_params"] == true,
        ..OptimConfig::default()
    }
}

/// Returns the values of every Hugging Face tensor.
fn weights(model: &Model, dev: &mut omr_runtime::device::Device) -> Vec<Vec<f32>> {
    let value = |(id, index, _): (usize, usize, &_)| {
        let param = &model.layout.params[id];
        models::piece(dev, param, param.tensor, index)
    };
    model.layout.pieces().map(value).collect()
}

fn compare(model: &Model, before: &[Vec<f32>], after: &[Vec<f32>], want: &Value, name: &str, largest: &mut Largest) {
    for (((_, _, piece), before), after) in model.layout.pieces().zip(before).zip(after) {
        let place = format!("{name} {}", piece.name);
        let want = want.get(&piece.name).unwrap_or_else(|| panic!("{place} is not listed"));
        let number = |key: &str| want[key].as_f64().unwrap();
        let l2 = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let delta = l2(&mut after.iter().zip(before).map(|(a, b)| f64::from(a - b)));
        assert_eq!(before != after, want["changed"].as_bool().unwrap(), "{place}");
        if number("delta_l2") > 0.0 {
            largest.note("delta l2", (delta - number("delta_l2")).abs() / number("delta_l2"), &place);
        }
        largest.note("parameter", (l2(&mut after.iter().map(|&x| f64::from(x))) - number("l2")).abs(), &place);
        let probes = want["probe_index"].as_array().unwrap().iter().zip(want["probe"].as_array().unwrap());
        for (at, value) in probes {
            let diff = f64::from(after[at.as_u64().unwrap() as usize]) - value.as_f64().unwrap();
            largest.note("parameter", diff.abs(), &place);
        }
    }
}

#[test]
fn steps_agree() {
    let (mut count, mut largest) = (0, Largest::default());
    for dir in models() {
        let golden = Golden::open(dir);
        let Ok(true) = golden.dir.join("adamw.json").try_exists() else { continue };
        let file = json(&golden.dir.join("adamw.json"));
        for (name, run) in file["runs"].as_object().unwrap() {
            count += 1;
            let case = name.split('.').next().unwrap();
            let cases: Vec<Case> = match golden.index[case]["samples"].as_array() {
                Some(samples) => samples.iter().map(|s| golden.case(s.as_str().unwrap())).collect(),
                None => vec![golden.case(case)],
            };
            let (inputs, targets) = pack(&golden.config, &cases);
            let mut dev = device();
            let model = golden.model(&mut dev, DType::F32);
            let setting = config(&run["setting"]);
            let mut optimizer = Optimizer::new(&mut dev, &model.layout, setting.clone(), 1).unwrap();
            let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
            let before = weights(&model, &mut dev);
            let losses: Vec<f64> = serde_json::from_value(run["losses"].clone()).unwrap();
            let norms: Vec<f64> = serde_json::from_value(run["grad_norm_before_clip"].clone()).unwrap();
            for (step, want) in losses.iter().enumerate() {
                grads.zero(&mut dev).unwrap();
                let loss = loss_and_gradients(&mut dev, &model, &inputs, &targets, LayerPolicy::All, &mut grads);
                largest.note("loss", (loss - want).abs(), &format!("{name} {step}"));
                let Some(norm) = norms.get(step) else { break };
                optimizer.step(&mut dev, &model.layout, &grads, setting.learning_rate).unwrap();
                let found = f64::from(optimizer.stats(&mut dev).unwrap().grad_norm);
                largest.note("grad norm, relative", (found - norm).abs() / norm, &format!("{name} {step}"));
                let listed = &run[format!("after_step{}", step + 1)];
                if listed.is_object() {
                    compare(&model, &before, &weights(&model, &mut dev), listed, name, &mut largest);
                }
            }
        }
    }
    // Losses and norms of later steps depend on the parameters, so they have the tolerances of the parameters.
    largest.check(&[
        ("loss", PARAMETER),
        ("grad norm, relative", DELTA_L2),
        ("parameter", PARAMETER),
        ("delta l2", DELTA_L2),
    ]);
    report("hf-adamw", count);
}

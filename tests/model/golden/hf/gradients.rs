//! Compares the gradients of every parameter: norms, sums, single elements, and complete tensors if they are stored.

use omr_base_tests::golden::report;
use omr_model::nn::family::names::stored_name;
use omr_model::nn::{Grads, Inputs, LayerPolicy, Model};
use omr_runtime::tensor::DType;
use serde_json::Value;

use super::{Case, Golden, Largest, Tensors, device, json, loss_and_gradients, max_abs, max_diff, models, pack};

/// Tolerance relative to a tensor's largest gradient, from the README of the goldens. The measured value is 5e-6 for
/// norms.
const RELATIVE: f64 = 1e-3;

/// Compares every parameter's gradient with the listed one. A parameter without a gradient is not in the list, and our
/// run must not have touched its gradient.
pub fn compare(
    model: &Model,
    dev: &mut omr_runtime::device::Device,
    (inputs, targets): &(Inputs, Vec<(u32, u32)>),
    (listed, whole): (&Value, Option<&Tensors>),
    name: &str,
    largest: &mut Largest,
) {
    let mark = dev.mark(omr_runtime::device::Region::Overlay);
    let mut grads = Grads::new(dev, &model.layout).unwrap();
    loss_and_gradients(dev, model, inputs, targets, LayerPolicy::All, &mut grads);
    let want = listed["grads"].as_object().unwrap();
    let mut seen = 0;
    let mut square_sum = 0.0;
    for (id, index, piece) in model.layout.pieces() {
        let stored = stored_name(model.config.family, &piece.name);
        let place = format!("{name} {stored}");
        let Some(tensor) = grads.get(id) else {
            assert!(!want.contains_key(&stored), "{place}: no gradient");
            continue;
        };
        seen += 1;
        let want = want.get(&stored).unwrap_or_else(|| panic!("{place}: a gradient"));
        let found: Vec<f32> = models::piece(dev, &model.layout.params[id], tensor, index);
        let number = |key: &str| want[key].as_f64().unwrap();
        let l2 = found.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        square_sum += l2 * l2;
        let sum: f64 = found.iter().map(|&x| f64::from(x)).sum();
        let top = number("max_abs").max(listed["floor"].as_f64().unwrap_or(0.0));
        largest.note("l2", (l2 - number("l2")).abs() / number("l2"), &place);
        largest.note("max_abs", (f64::from(max_abs(&found)) - number("max_abs")).abs() / top, &place);
        // By the Cauchy-Schwarz inequality, the error of a sum is at most sqrt(len) times the norm of the difference.
        let sum_scale = number("l2") * (found.len() as f64).sqrt();
        largest.note("sum", (sum - number("sum")).abs() / sum_scale, &place);
        let probes = want["probe_index"].as_array().unwrap().iter().zip(want["probe"].as_array().unwrap());
        for (at, value) in probes {
            let diff = f64::from(found[at.as_u64().unwrap() as usize]) - value.as_f64().unwrap();
            largest.note("probe", diff.abs() / top, &place);
        }
        if let Some(whole) = whole {
            let diff = max_diff(&found, whole.floats(&piece.name));
            largest.note("whole", f64::from(diff) / top, &place);
        }
    }
    assert_eq!(seen, want.len(), "{name}");
    if let Some(l2) = listed["grad_global_l2"].as_f64() {
        largest.note("l2", (square_sum.sqrt() - l2).abs() / l2, name);
    }
    dev.release(mark);
}

#[test]
fn gradients_agree() {
    let (mut count, mut largest) = (0, Largest::default());
    for dir in models() {
        let golden = Golden::open(dir);
        let mut dev = device();
        let model = golden.model(&mut dev, DType::F32);
        let samples = |kind: &str| -> Option<Vec<Case>> {
            let names = golden.index[kind]["samples"].as_array()?;
            Some(names.iter().map(|name| golden.case(name.as_str().unwrap())).collect())
        };
        let single = golden.cases().into_iter().map(|case| (case.name.clone(), vec![case]));
        let packs = ["batch", "packed"].into_iter().filter_map(|kind| Some((kind.to_owned(), samples(kind)?)));
        for (name, cases) in single.chain(packs).collect::<Vec<_>>() {
            let listed = golden.dir.join(format!("cases/{name}.grads.json"));
            if !listed.exists() {
                continue;
            }
            count += 1;
            let whole = golden.gradients(&name);
            let batch = pack(&golden.config, &cases);
            compare(&model, &mut dev, &batch, (&json(&listed), whole.as_ref()), &name, &mut largest);
        }
    }
    let kinds = ["l2", "max_abs", "sum", "probe", "whole"];
    largest.check(&kinds.map(|kind| (kind, RELATIVE)));
    report("hf-gradients", count);
}

//! Compares text models of every family with Hugging Face transformers: each folder of `goldens/FAMILY`. Tolerances are
//! those of each folder's `index.json`, which states how they were measured.

use omr_base_tests::golden::{dir, entries, json, report};
use omr_model::nn::family::FAMILIES;
use omr_model::nn::rotary::Rotary;
use omr_model::nn::{Inputs, Mode, Model, ModelConfig, Tape};
use omr_runtime::device::Device;
use omr_runtime::tensor::DType;
use serde_json::Value;

use super::hf::gradients::compare;
use super::hf::{Golden, Largest, device, forward, max_abs, max_diff, mean_loss};

/// Returns every golden model of every text family.
fn goldens() -> Vec<Golden> {
    let mut found = Vec::new();
    for family in FAMILIES.iter().filter(|family| family.prefixes.is_empty()) {
        let folders = family.model_types.iter().flat_map(|name| entries(&dir().join(name), "", "tied"));
        found.extend(folders.map(Golden::open));
    }
    found
}

#[test]
fn both_forms_of_the_configuration_are_one() {
    let all = goldens();
    for golden in &all {
        let newer = ModelConfig::load(&golden.dir.join("config.v5.json")).unwrap();
        assert_eq!(newer, golden.config, "{}", golden.dir.display());
        let written = golden.config.to_json(DType::F32);
        assert_eq!(ModelConfig::from_json(&written, "written").unwrap(), golden.config);
    }
    report("text-config", all.len());
}

#[test]
fn every_stage_agrees() {
    let mut count = 0;
    for golden in goldens() {
        let (mut dev, mut largest) = (device(), Largest::default());
        let model = golden.model(&mut dev, DType::F32);
        for case in golden.cases() {
            count += 1;
            let place = format!("{} {}", golden.dir.display(), case.name);
            let (inputs, t) = (case.inputs(&golden.config), &case.tensors);
            let found: Vec<i64> = inputs.position_ids[0].iter().map(|&p| i64::from(p)).collect();
            assert_eq!(found, t.ints("position_ids"), "{place}");
            let run = forward(&mut dev, &model, &inputs, &case.targets());
            if case.name == "pack0" {
                let table = Rotary::new(&golden.config.text.rope).rows(&inputs.position_ids);
                let half = golden.config.text.rope.dim / 2;
                let twice: Vec<f32> = table.cos.chunks_exact(half).flat_map(|row| [row, row].concat()).collect();
                largest.note("rope", max_diff(&twice, t.floats("text.rope_cos")).into(), &place);
                assert_eq!(run.notes.len(), golden.config.text.layers.len() + 2, "{place}");
                for (name, i, found) in &run.notes {
                    let key = if *name == "text.layer" { format!("{name}{i}") } else { name.to_string() };
                    let want = t.floats(&key);
                    largest.note("hidden", f64::from(max_diff(found, want) / max_abs(want)), &format!("{place} {key}"));
                }
            }
            largest.note("logit", max_diff(&run.logits, t.floats("logits")).into(), &place);
            largest.note("logprob", max_diff(&run.logprobs, t.floats("target_logprobs")).into(), &place);
            largest.note("loss", (mean_loss(&run.logprobs) - case.loss).abs(), &place);
            let listed = json(&golden.dir.join(format!("cases/{}.grads.json", case.name)));
            compare(&model, &mut dev, &(inputs, case.targets()), (&listed, None), &place, &mut largest);
        }
        let tolerance = |key: &str| golden.index["tolerance"][key].as_f64().unwrap();
        let of = [("logit", "logits_abs"), ("logprob", "target_logprobs_abs"), ("loss", "loss_abs")];
        largest.check(&of.map(|(kind, key)| (kind, tolerance(key))));
        largest.check(&["probe", "max_abs"].map(|kind| (kind, tolerance("grad_rel_to_max_abs"))));
        // The reference computes angles in f32; hidden states as in the README of goldens/hf.
        largest.check(&[("rope", 1e-5), ("hidden", 1e-4)]);
    }
    report("text", count);
}

/// Continues a prompt greedily, with a full forward pass for each token.
fn greedy(dev: &mut Device, model: &Model, prompt: &[u32], count: usize) -> Vec<u32> {
    let mut ids = prompt.to_vec();
    for _ in 0..count {
        let mut inputs = Inputs::empty();
        inputs.push(&model.config, &ids, &[], prompt.len()).unwrap();
        let mut tape = Tape::new(dev, Mode::Infer);
        let hidden = model.forward(&mut tape, dev, &inputs).unwrap();
        let last = tape.upload(dev, &[ids.len() as u32 - 1], &[1]).unwrap();
        let hidden = tape.gather(dev, hidden, last, None).unwrap();
        let logits = crate::models::logits(model, &mut tape, dev, hidden);
        let logits: Vec<f32> = dev.read(logits).unwrap();
        tape.finish(dev);
        ids.push((0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32);
    }
    ids.split_off(prompt.len())
}

#[test]
fn greedy_continuations_are_equal() {
    let mut count = 0;
    for golden in goldens() {
        let mut dev = device();
        let model = golden.model(&mut dev, DType::F32);
        let ids = |value: &Value| serde_json::from_value::<Vec<u32>>(value.clone()).unwrap();
        let listed = json(&golden.dir.join("greedy.json"));
        let listed = listed["continuations"].as_array().unwrap();
        assert_eq!(listed.len(), 8);
        for entry in listed {
            count += 1;
            let want = ids(&entry["generated"]);
            assert_eq!(greedy(&mut dev, &model, &ids(&entry["prompt"]), want.len()), want, "{}", golden.dir.display());
        }
    }
    report("text-greedy", count);
}

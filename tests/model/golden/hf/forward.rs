//! Compares positions, every intermediate tensor, logits, losses, log-probs and greedy tokens, for single sequences and
//! for packs.

use omr_base_tests::golden::report;
use omr_model::nn::rotary::Rotary;
use omr_model::nn::{Inputs, Mode, Model, Tape, positions};
use omr_runtime::tensor::DType;

use super::{Case, Golden, Largest, device, forward, json, max_abs, max_diff, mean_loss, models, pack, to_bytes};

/// Tolerance of logits. The README of the goldens reports a noise of 1.1e-5 between two attention implementations and
/// of 1.9e-5 against f64.
const LOGIT: f64 = 1e-4;
/// Tolerance of losses. The README of the goldens reports a difference of 3.3e-6.
const LOSS: f64 = 1e-5;
/// Tolerance of hidden states, relative to the largest value of the tensor, from the README of the goldens.
const HIDDEN: f64 = 1e-4;

#[test]
fn positions_and_windows_are_equal() {
    let (mut count, mut differ) = (0, 0);
    for dir in models() {
        let golden = Golden::open(dir);
        for case in golden.cases() {
            count += 1;
            let t = &case.tensors;
            let inputs = match t.has("cu_seqlens") {
                true => case.inputs(&golden.config),
                false => crate::models::inputs(&golden.config, &[(&case.input_ids(), &case.images)]),
            };
            let found: Vec<i64> = inputs.position_ids.iter().flatten().map(|&p| i64::from(p)).collect();
            let later = text_after_video(&golden, &case);
            differ += i32::from(later[later.len() - 1] > 0);
            let wanted: Vec<i64> =
                t.ints("position_ids").iter().zip(later.iter().cycle()).map(|(p, d)| p + d).collect();
            assert_eq!(found, wanted, "{}", case.name);
            let delta = t.ints("rope_delta")[0] + later[later.len() - 1];
            assert_eq!(i64::from(inputs.rope_deltas[0]), delta, "{}", case.name);
            if case.images.is_empty() {
                continue;
            }
            let grids: Vec<[u32; 3]> = case.images.iter().map(|image| image.grid_thw).collect();
            let p = positions::vision(golden.config.media.as_ref().unwrap(), &grids);
            let ints = |v: &[u32]| v.iter().map(|&x| i64::from(x)).collect::<Vec<_>>();
            assert_eq!(ints(&p.window_index), t.ints("vision.window_index"), "{}", case.name);
            assert_eq!(ints(&p.cu_window_seqlens), t.ints("vision.cu_window_seqlens"), "{}", case.name);
            assert_eq!(ints(&p.cu_seqlens), t.ints("vision.cu_seqlens"), "{}", case.name);
            assert_eq!(ints(p.pos_hw.as_flattened()), t.ints("vision.pos_hw"), "{}", case.name);
        }
    }
    assert!(differ > 0, "a video tells the two rules apart");
    report("hf-positions", count);
}

/// Returns by how much each token's position is larger than in transformers 5, where text after a video of `t` steps
/// begins behind its height or width instead of its last step.
fn text_after_video(golden: &Golden, case: &Case) -> Vec<i64> {
    let (media, ids) = (golden.config.media.as_ref(), case.input_ids());
    let Some(video) = case.images.iter().find(|image| image.is_video()) else { return vec![0; ids.len()] };
    assert!(case.images.len() == 1, "a video beside other images is not recorded");
    let [t, h, w] = video.grid_thw.map(i64::from);
    let media = media.unwrap();
    let last = (t - 1) * media.tokens_per_second.unwrap() as i64 * video.second_per_grid_ts as i64;
    let end = ids.iter().rposition(|&id| id == media.ids.video).unwrap();
    let later = (last + 1 - h.max(w) / media.grid.merge_size as i64).max(0);
    (0..ids.len()).map(|i| if i > end { later } else { 0 }).collect()
}

#[test]
fn rotary_tables_agree() {
    let (mut count, mut largest) = (0, Largest::default());
    for dir in models() {
        let golden = Golden::open(dir);
        for case in golden.cases() {
            count += 1;
            let inputs = case.inputs(&golden.config);
            let table = Rotary::new(&golden.config.text.rope).rows(&inputs.position_ids);
            let half = golden.config.text.rope.dim / 2;
            let twice = |cos: &[f32], half: usize| -> Vec<f32> {
                cos.chunks_exact(half).flat_map(|row| [row, row].concat()).collect()
            };
            let diff = max_diff(&twice(&table.cos, half), case.tensors.floats("text.rope_cos"));
            largest.note("text table", diff.into(), &case.name);
            if case.images.is_empty() {
                continue;
            }
            let grids: Vec<[u32; 3]> = case.images.iter().map(|image| image.grid_thw).collect();
            let config = golden.config.media.as_ref().unwrap();
            let p = positions::vision(config, &grids);
            let half = config.tower.head_dim() / 2;
            let block = config.grid.merge_unit() * half;
            let mut in_order = vec![0.0; p.rope.cos.len()];
            for (rows, &to) in p.rope.cos.chunks_exact(block).zip(&p.window_index) {
                in_order[to as usize * block..][..block].copy_from_slice(rows);
            }
            let diff = max_diff(&twice(&in_order, half), case.tensors.floats("vision.rope_cos_raster"));
            largest.note("vision table", diff.into(), &case.name);
        }
    }
    // The reference computes angles in f32: positions up to 64, with a relative error of 2^-24.
    largest.check(&[("text table", 1e-5), ("vision table", 1e-5)]);
    report("hf-rope-tables", count);
}

#[test]
fn every_stage_agrees() {
    let (mut count, mut largest) = (0, Largest::default());
    for dir in models() {
        let golden = Golden::open(dir);
        let mut dev = device();
        let model = golden.model(&mut dev, DType::F32);
        for case in golden.cases() {
            count += 1;
            let ids = case.input_ids();
            let next: Vec<(u32, u32)> = ids[1..].iter().enumerate().map(|(i, &id)| (i as u32, id)).collect();
            let run = forward(&mut dev, &model, &case.inputs(&golden.config), &next);
            let mut seen = 0;
            for (name, i, found) in &run.notes {
                let key = match *name {
                    "vision.block" | "text.layer" => format!("{name}{i}"),
                    _ => name.to_string(),
                };
                let want = case.tensors.floats(&key);
                seen += 1;
                let diff = f64::from(max_diff(found, want)) / f64::from(max_abs(want));
                largest.note("hidden, relative", diff, &format!("{} {key}", case.name));
            }
            let v = if case.images.is_empty() { 0 } else { golden.config.tower_depth() + 2 };
            assert_eq!(seen, golden.config.text.layers.len() + 2 + v, "{}", case.name);
            largest.note("logit", max_diff(&run.logits, case.tensors.floats("logits")).into(), &case.name);
            let want = case.tensors.floats("token_logprobs");
            largest.note("logprob", max_diff(&run.logprobs, want).into(), &case.name);
            let targets = case.targets();
            let supervised: Vec<f32> = targets.iter().map(|(row, _)| run.logprobs[*row as usize]).collect();
            largest.note("loss", (mean_loss(&supervised) - case.loss).abs(), &case.name);
        }
    }
    largest.check(&[("hidden, relative", HIDDEN), ("logit", LOGIT), ("logprob", LOGIT), ("loss", LOSS)]);
    report("hf-forward", count);
}

#[test]
fn packs_agree_with_separate_runs() {
    let (mut count, mut largest) = (0, Largest::default());
    for dir in models() {
        let golden = Golden::open(dir);
        let mut dev = device();
        let model = golden.model(&mut dev, DType::F32);
        for kind in ["batch", "packed"] {
            let entry = &golden.index[kind];
            let Some(samples) = entry["samples"].as_array() else { continue };
            count += 1;
            let cases: Vec<Case> = samples.iter().map(|s| golden.case(s.as_str().unwrap())).collect();
            let (inputs, targets) = pack(&golden.config, &cases);
            let run = forward(&mut dev, &model, &inputs, &targets);
            largest.note("loss", (mean_loss(&run.logprobs) - entry["loss_token_mean"].as_f64().unwrap()).abs(), kind);
            let separate: Vec<f32> = cases.iter().flat_map(|c| c.tensors.floats("logits").to_vec()).collect();
            largest.note("logit", max_diff(&run.logits, &separate).into(), kind);
            // A sequence in a pack does not depend on its neighbours: its logits are bitwise identical to those of the
            // sequence alone.
            let alone: Vec<f32> = cases
                .iter()
                .flat_map(|case| forward(&mut dev, &model, &case.inputs(&golden.config), &case.targets()).logits)
                .collect();
            assert_eq!(run.logits, alone, "{kind}");
            if kind == "packed" {
                let file = super::Tensors::read(&golden.dir.join(entry["file"].as_str().unwrap()));
                let ints = |v: &[u32]| v.iter().map(|&x| i64::from(x)).collect::<Vec<_>>();
                assert_eq!(ints(&inputs.cu_seqlens), file.ints("cu_seqlens"));
                let found: Vec<i64> = inputs.position_ids.iter().flatten().map(|&p| i64::from(p)).collect();
                assert_eq!(found, file.ints("position_ids"));
                largest.note("logit", max_diff(&run.logits, file.floats("logits")).into(), "packed file");
                largest.note(
                    "loss",
                    (mean_loss(&run.logprobs) - f64::from(file.floats("loss")[0])).abs(),
                    "packed file",
                );
            }
        }
    }
    largest.check(&[("logit", LOGIT), ("loss", LOSS)]);
    report("hf-packs", count);
}

/// Continues a sequence greedily, with a full forward pass for each token. `recorded` gives the prompt the positions of
/// transformers 5.
pub fn generate(
    dev: &mut omr_runtime::device::Device,
    model: &Model,
    case: &Case,
    count: usize,
    recorded: bool,
) -> (Vec<u32>, Vec<f32>) {
    let prompt_len = case.tensors.ints("prompt_len")[0] as usize;
    let mut ids = case.input_ids()[..prompt_len].to_vec();
    let pads = model.config.media.as_ref().unwrap().ids;
    let is_place = |id: u32| id == pads.image || id == pads.video;
    let runs = ids.windows(2).filter(|w| !is_place(w[0]) && is_place(w[1])).count();
    let mut logprobs = Vec::new();
    for _ in 0..count {
        let mut inputs = Inputs::empty();
        inputs.push(&model.config, &ids, &case.images[..runs], prompt_len).unwrap();
        if recorded {
            case.set_recorded_positions(&mut inputs, 0);
            let next = inputs.position_ids.iter().flat_map(|axis| &axis[..prompt_len]).max().unwrap() + 1;
            for axis in &mut inputs.position_ids {
                axis[prompt_len..].iter_mut().zip(next..).for_each(|(position, value)| *position = value);
            }
        }
        let mut tape = Tape::new(dev, Mode::Infer);
        let hidden = model.forward(&mut tape, dev, &inputs).unwrap();
        let last = tape.upload(dev, &[ids.len() as u32 - 1], &[1]).unwrap();
        let hidden = tape.gather(dev, hidden, last, None).unwrap();
        let logits = crate::models::logits(model, &mut tape, dev, hidden);
        let logits: Vec<f32> = dev.read(logits).unwrap();
        tape.finish(dev);
        let best = (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        let sum: f64 = logits.iter().map(|z| f64::from(z - logits[best]).exp()).sum();
        logprobs.push(-sum.ln() as f32);
        ids.push(best as u32);
    }
    (ids.split_off(prompt_len), logprobs)
}

#[test]
fn greedy_tokens_are_equal() {
    let (mut count, mut largest) = (0, Largest::default());
    for dir in models() {
        let golden = Golden::open(dir);
        let mut dev = device();
        let model = golden.model(&mut dev, DType::F32);
        for case in golden.cases() {
            count += 1;
            let want = case.tensors.ids("generated_ids");
            let (found, logprobs) = generate(&mut dev, &model, &case, want.len(), true);
            assert_eq!(found, want, "{}", case.name);
            let diff = max_diff(&logprobs, case.tensors.floats("generated_logprobs"));
            largest.note("logprob", diff.into(), &case.name);
        }
    }
    largest.check(&[("logprob", LOGIT)]);
    report("hf-greedy", count);
}

#[test]
fn bfloat16_stays_in_the_reference_band() {
    let (mut count, mut largest) = (0, Largest::default());
    // One run of a reference can be close to f32 by chance. For some models, the band is that of several runs.
    let bands: serde_json::Value = serde_json::from_str(include_str!("bf16_bands.json")).unwrap();
    for dir in models() {
        let golden = Golden::open(dir);
        let several = &bands[golden.dir.file_name().unwrap().to_str().unwrap()];
        let mut dev = device();
        let model = golden.model(&mut dev, DType::Bf16);
        let noise = &golden.index["noise_floor_max_abs_logit"];
        let Some(losses) = noise["loss_bf16"].as_object() else { continue };
        let band = losses
            .iter()
            .map(|(name, loss)| (loss.as_f64().unwrap() - golden.index["cases"][name]["loss"].as_f64().unwrap()).abs())
            .fold(several["loss"].as_f64().unwrap_or(0.0), f64::max);
        for case in golden.cases() {
            count += 1;
            let targets = case.targets();
            let run = forward(&mut dev, &model, &case.inputs(&golden.config), &targets);
            let diff = (mean_loss(&run.logprobs) - case.loss).abs();
            largest.note("loss over band", diff / band, &format!("{} {diff:.4}", case.name));
            let one = noise["bfloat16_vs_f32"][&case.name].as_f64();
            if let Some(band) = several["logits"][&case.name].as_f64().into_iter().chain(one).reduce(f64::max) {
                let diff = f64::from(max_diff(&run.logits, case.tensors.floats("logits")));
                largest.note("logit over band", diff / band, &format!("{} {diff:.3}", case.name));
            }
        }
    }
    // The tolerance is 1.5 times the reference's own difference between bfloat16 and f32. The factor allows for another
    // order of rounding.
    largest.check(&[("loss over band", 1.5), ("logit over band", 1.5)]);
    report("hf-bf16", count);
}

#[test]
fn pixels_come_back_to_the_same_values() {
    let mut count = 0;
    for dir in models() {
        let golden = Golden::open(dir);
        let processor = omr_data::image::Processor::default();
        let entries = golden.index["images"].as_array().into_iter().flatten().chain([&golden.index["video"]]);
        for entry in entries.filter(|e| e.is_object()) {
            count += 1;
            let name = entry["name"].as_str().unwrap();
            let grid = serde_json::from_value(entry["grid_thw"].clone()).unwrap();
            let want = golden.pixels.floats(name);
            let image = to_bytes(&golden.config, want, grid, !entry["frames"].is_null());
            assert!(max_diff(&omr_data_tests::patches::patches(&processor, &image), want) < 1e-6, "{name}");
        }
    }
    report("hf-pixels", count);
}

#[test]
fn both_configuration_layouts_are_one() {
    let mut count = 0;
    for dir in models() {
        let golden = Golden::open(dir);
        let nested = golden.dir.join("config.nested_v5.json");
        if !nested.exists() {
            continue;
        }
        count += 1;
        let nested = omr_model::nn::ModelConfig::load(&nested).unwrap();
        assert_eq!(nested, golden.config);
        let written = golden.config.to_json(DType::F32);
        let flat = json(&golden.dir.join("config.json"));
        for key in ["rope_scaling", "hidden_size", "vision_config"] {
            for (name, value) in written[key].as_object().into_iter().flatten() {
                assert_eq!(&flat[key][name], value, "{key}/{name}");
            }
        }
    }
    report("hf-config", count);
}

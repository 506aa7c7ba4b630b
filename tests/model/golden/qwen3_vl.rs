//! Compares Qwen3-VL with Hugging Face transformers: each model in `goldens/qwen3_vl`. Tolerances are those of each folder's
//! `index.json`, which states how they were measured.

use std::path::Path;
use std::sync::Arc;

use omr_base_tests::golden::{dir, entries, json, report};
use omr_data::image::processor::smart_resize;
use omr_data::image::{ImageInput, Limits, MediaFormat, Processor, Rgb, decode};
use omr_model::engine::{Engine, EngineConfig, EngineCoreRequest, Prompt, RequestParams};
use omr_model::nn::config::{MediaConfig, RopeAxes, TowerKind};
use omr_model::nn::positions::{self, VisionPositions};
use omr_model::nn::rotary::Rotary;
use omr_model::nn::{Attend, DeepStack, Inputs, Mode, Model, ModelConfig, Tape};
use omr_runtime::device::Device;
use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::ops::sample::SamplingParams;
use omr_runtime::tensor::DType;
use safetensors::SafeTensors;
use serde_json::Value;

use super::hf::gradients::compare;
use super::hf::mutations::{mutate, with_config};
use super::hf::{Case, Golden, Largest, Tensors, device, forward, max_abs, max_diff, mean_loss, pack};
use crate::models;

/// Tolerance of intermediate values, relative to the largest entry of the tensor, from the README of the goldens.
const HIDDEN: f64 = 4e-5;

fn folder(name: &str) -> std::path::PathBuf {
    dir().join("qwen3_vl").join(name)
}

pub fn goldens() -> Vec<Golden> {
    entries(&folder(""), "h", "").into_iter().map(Golden::open).collect()
}

fn image(place: &Path) -> Rgb {
    decode(&std::fs::read(place).unwrap(), &Limits::default(), &place.display().to_string()).unwrap()
}

fn number<T: TryFrom<u64>>(value: &Value) -> T {
    value.as_u64().and_then(|n| n.try_into().ok()).unwrap_or_else(|| panic!("{value}"))
}

/// Returns the processor of the model of `config` with these bounds on the pixels.
fn processor(config: &ModelConfig, [min, max]: [&Value; 2]) -> Processor {
    Processor { min_pixels: number(min), max_pixels: number(max), ..Processor::released(config.grid()) }
}

/// Returns an image or the video of `media.json`, resized.
fn medium(config: &ModelConfig, name: &str) -> Arc<ImageInput> {
    let all = json(&folder("media.json"));
    let images = all["images"].as_array().unwrap();
    let of = |entry: &Value, file: &Value| {
        let processor = processor(config, [&entry["shortest_edge"], &entry["longest_edge"]]);
        processor.image(&image(&folder(file.as_str().unwrap()))).unwrap()
    };
    let input = match images.iter().find(|image| image["name"] == name) {
        Some(entry) => of(entry, &entry["file"]),
        None => {
            let frames = all["video"]["frames"].as_array().unwrap();
            let frames: Vec<ImageInput> = frames.iter().map(|frame| of(&images[0], frame)).collect();
            Processor::released(config.grid()).video(&frames, 2.0).unwrap()
        }
    };
    Arc::new(input)
}

pub fn case(golden: &Golden, name: &str) -> Case {
    let entry = &golden.index["cases"][name];
    let tensors = Tensors::read(&golden.dir.join(format!("cases/{name}.safetensors")));
    let media = entry["media"].as_array().into_iter().flatten();
    let images = media.map(|name| medium(&golden.config, name.as_str().unwrap())).collect();
    Case { name: name.into(), loss: f64::from(tensors.floats("loss")[0]), tensors, images }
}

/// Returns the cases of single sequences.
fn cases(golden: &Golden) -> Vec<Case> {
    let names = golden.index["cases"].as_object().unwrap().keys();
    names.filter(|name| *name != "packed").map(|name| case(golden, name)).collect()
}

fn ints(values: &[u32]) -> Vec<i64> {
    values.iter().map(|&value| i64::from(value)).collect()
}

#[test]
fn both_forms_of_the_configuration_are_one() {
    let all = goldens();
    for golden in &all {
        assert_eq!(ModelConfig::load(&golden.dir.join("config.v5.json")).unwrap(), golden.config);
        let written = golden.config.to_json(DType::F32);
        assert_eq!(ModelConfig::from_json(&written, "written").unwrap(), golden.config);
    }
    report("qwen3_vl-config", all.len());
}

#[test]
fn images_have_the_bytes_of_the_reference() {
    let config = goldens().swap_remove(0).config;
    let bytes = std::fs::read(folder("pixels_u8.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    for (name, want) in file.iter() {
        let (input, released) = (medium(&config, name), Processor::released(config.grid()));
        let found = omr_data_tests::patches::patches(&released, &input);
        let value = |byte: &u8| ((f64::from(*byte) * (1.0 / 255.0)) as f32 - 0.5) / 0.5;
        assert!(found == want.data().iter().map(value).collect::<Vec<f32>>(), "{name}");
    }
    let all = json(&folder("processor/processor_cases.json"));
    let cases = all["cases"].as_array().unwrap();
    for case in cases {
        let processor = processor(&config, [&case["shortest_edge"], &case["longest_edge"]]);
        let input = processor.image(&image(&folder("processor").join(case["file"].as_str().unwrap()))).unwrap();
        assert_eq!(serde_json::json!([input.grid_thw]), case["image_grid_thw"], "{case}");
        assert_eq!(
            omr_data_tests::golden::image::sha256(&input.pixels),
            case["resized_rgb_sha256"].as_str().unwrap(),
            "{case}"
        );
    }
    let rows = all["smart_resize"]["rows"].as_array().unwrap();
    for row in rows {
        let n: Vec<u32> = row.as_array().unwrap().iter().map(number).collect();
        assert_eq!(smart_resize(n[0], n[1], 32, n[2].into(), n[3].into()).unwrap(), (n[4], n[5]), "{row}");
    }
    report("qwen3_vl-images", file.len() + cases.len() + rows.len());
}

#[test]
fn frames_have_the_times_of_the_reference() {
    let config = goldens().swap_remove(0).config;
    let format: MediaFormat = config.media.as_ref().unwrap().format();
    let all = json(&folder("processor/processor_cases.json"));
    let mut count = 0;
    for case in all["timestamps"]["cases"].as_array().unwrap() {
        let indices: Vec<usize> = serde_json::from_value(case["frame_indices"].clone()).unwrap();
        let times = format.times_of(&indices, case["fps"].as_f64().unwrap());
        assert_eq!(serde_json::json!(times), case["text_before_each_vision_start"], "{case}");
        count += 1;
    }
    report("qwen3_vl-times", count);
}

#[test]
fn positions_and_tables_agree() {
    let (mut count, mut largest) = (0, Largest::default());
    for golden in goldens() {
        for case in cases(&golden) {
            count += 1;
            let (t, name) = (&case.tensors, format!("{} {}", golden.dir.display(), case.name));
            let inputs = case.inputs(&golden.config);
            let found: Vec<i64> = inputs.position_ids.iter().flatten().map(|&p| i64::from(p)).collect();
            assert_eq!(found, t.ints("position_ids"), "{name}");
            assert_eq!(i64::from(inputs.rope_deltas[0]), t.ints("rope_delta")[0], "{name}");
            let twice = |cos: &[f32], half: usize| -> Vec<f32> {
                cos.chunks_exact(half).flat_map(|row| [row, row].concat()).collect()
            };
            let mut table = |kind, cos: &[f32], half, want: &str| {
                if case.name == "two_images" {
                    largest.note(kind, max_diff(&twice(cos, half), t.floats(want)).into(), &name);
                }
            };
            let rope = &golden.config.text.rope;
            table("text table", &Rotary::new(rope).rows(&inputs.position_ids).cos, rope.dim / 2, "text.rope_cos");
            if case.images.is_empty() {
                continue;
            }
            let media = golden.config.media.as_ref().unwrap();
            let grids: Vec<[u32; 3]> = case.images.iter().map(|image| image.grid_thw).collect();
            let p = positions::vision(media, &grids);
            table("vision table", &p.rope.cos, media.tower.head_dim() / 2, "vision.rope_cos");
            assert_eq!(ints(&p.cu_seqlens), t.ints("vision.cu_seqlens"), "{name}");
            assert_eq!(ints(p.pos_hw.as_flattened()), t.ints("vision.pos_hw"), "{name}");
            assert_eq!(ints(p.taps.as_flattened()), t.ints("vision.pos_index"), "{name}");
            let diff = max_diff(p.tap_weights.as_flattened(), t.floats("vision.pos_weight"));
            largest.note("weight of a position", diff.into(), &name);
        }
    }
    // The reference computes angles in f32.
    largest.check(&[("text table", 1e-5), ("vision table", 1e-5), ("weight of a position", 1e-6)]);
    report("qwen3_vl-positions", count);
}

/// Compares the named values of a run with those of a case.
fn compare_notes(golden: &Golden, case: &Case, notes: &[(&'static str, usize, Vec<f32>)], largest: &mut Largest) {
    let width = golden.config.text.hidden_size;
    let levels = golden.config.media.as_ref().unwrap().tower.deepstack().len();
    let mut check = |key: &str, found: &[f32]| {
        if case.name == "two_images" || case.tensors.has(key) {
            let want = case.tensors.floats(key);
            let place = format!("{} {} {key}", golden.dir.display(), case.name);
            largest.note("hidden", f64::from(max_diff(found, want) / max_abs(want)), &place);
        }
    };
    for (name, i, found) in notes {
        match *name {
            "vision.block" | "text.layer" => check(&format!("{name}{i}"), found),
            "vision.merged" => {
                for level in 0..=levels {
                    let rows = found.chunks_exact((1 + levels) * width);
                    let found: Vec<f32> = rows.flat_map(|row| &row[level * width..][..width]).copied().collect();
                    let key = match level.checked_sub(1) {
                        None => "vision.merged".to_owned(),
                        Some(level) => format!("vision.deepstack{level}"),
                    };
                    check(&key, &found);
                }
            }
            _ => check(name, found),
        }
    }
}

/// Returns the listed gradients with the smallest size of a parameter's largest entry that differences are relative to.
fn listed(golden: &Golden, name: &str) -> Option<Value> {
    let path = golden.dir.join(format!("cases/{name}.grads.json"));
    let mut listed = path.exists().then(|| json(&path))?;
    let all = listed["grads"].as_object().unwrap().values();
    let most = all.map(|grad| grad["max_abs"].as_f64().unwrap()).fold(0.0, f64::max);
    listed["floor"] = (1e-3 * most).into();
    Some(listed)
}

#[test]
fn every_stage_and_gradient_agrees() {
    let mut count = 0;
    for golden in goldens() {
        let (mut dev, mut largest) = (device(), Largest::default());
        let model = golden.model(&mut dev, DType::F32);
        for case in cases(&golden) {
            count += 1;
            let place = format!("{} {}", golden.dir.display(), case.name);
            let (inputs, targets) = (case.inputs(&golden.config), case.targets());
            let run = forward(&mut dev, &model, &inputs, &targets);
            compare_notes(&golden, &case, &run.notes, &mut largest);
            let t = &case.tensors;
            largest.note("logit", max_diff(&run.logits, t.floats("logits")).into(), &place);
            largest.note("logprob", max_diff(&run.logprobs, t.floats("target_logprobs")).into(), &place);
            largest.note("loss", (mean_loss(&run.logprobs) - case.loss).abs(), &place);
            if let Some(listed) = listed(&golden, &case.name) {
                compare(&model, &mut dev, &(inputs, targets), (&listed, None), &place, &mut largest);
            }
        }
        let packed = Tensors::read(&golden.dir.join("cases/packed.safetensors"));
        let names = golden.index["packed"]["samples"].as_array().unwrap();
        let alone: Vec<Case> = names.iter().map(|name| case(&golden, name.as_str().unwrap())).collect();
        let (inputs, targets) = pack(&golden.config, &alone);
        assert_eq!(ints(&inputs.cu_seqlens), packed.ints("cu_seqlens"));
        let run = forward(&mut dev, &model, &inputs, &targets);
        largest.note("logit", max_diff(&run.logits, packed.floats("logits")).into(), "packed");
        largest.note("loss", (mean_loss(&run.logprobs) - f64::from(packed.floats("loss")[0])).abs(), "packed");
        let separate = |case: &Case| forward(&mut dev, &model, &case.inputs(&golden.config), &case.targets()).logits;
        assert!(run.logits == alone.iter().flat_map(separate).collect::<Vec<f32>>(), "a neighbour in a pack matters");
        let listed = listed(&golden, "packed").unwrap();
        compare(&model, &mut dev, &(inputs, targets), (&listed, None), "packed", &mut largest);
        let tolerance = |key: &str| golden.index["tolerance"][key].as_f64().unwrap();
        let of = [("logit", "logits_abs"), ("logprob", "target_logprobs_abs"), ("loss", "loss_abs")];
        largest.check(&of.map(|(kind, key)| (kind, tolerance(key))));
        largest.check(&["probe", "max_abs"].map(|kind| (kind, tolerance("grad_rel_to_max_abs"))));
        largest.check(&[("hidden", HIDDEN)]);
    }
    report("qwen3_vl", count);
}

/// The tolerance is 1.5 times the largest difference between the reference's own bf16 and f32 logits, as in `hf::forward`.
#[test]
fn bfloat16_stays_in_the_band_of_the_reference() {
    for golden in goldens() {
        let noise = golden.index["noise"]["bfloat16_vs_f32"]["logits"].as_object().unwrap();
        let band = noise.values().map(|noise| noise.as_f64().unwrap()).fold(0.0, f64::max);
        let (mut dev, mut largest) = (device(), Largest::default());
        let model = golden.model(&mut dev, DType::Bf16);
        for case in cases(&golden) {
            let logits = forward(&mut dev, &model, &case.inputs(&golden.config), &case.targets()).logits;
            let diff = f64::from(max_diff(&logits, case.tensors.floats("logits")));
            largest.note("logit over band", diff / band, &case.name);
        }
        largest.check(&[("logit over band", 1.5)]);
    }
    report("qwen3_vl-bf16", goldens().iter().map(|golden| cases(golden).len()).sum());
}

#[test]
fn continuations_are_equal() {
    let mut count = 0;
    for golden in goldens() {
        let mut dev = device();
        let model = golden.model(&mut dev, DType::F32);
        let cases = cases(&golden);
        let request = |case: &Case| {
            let prompt_len = case.tensors.ints("prompt_len")[0] as usize;
            let prompt = Prompt::new(&golden.config, &case.input_ids()[..prompt_len], &case.images).unwrap();
            let new = RequestParams::new(case.tensors.ints("generated_ids").len(), Arc::from([]));
            let params = RequestParams { sampling: SamplingParams::greedy(), ..new };
            EngineCoreRequest::new(Arc::new(prompt), 1, params)
        };
        let requests: Vec<EngineCoreRequest> = cases.iter().map(request).collect();
        // Runs all requests at once, and then one by one with prompts in chunks of seven tokens.
        for (max_num_seqs, max_num_batched_tokens) in [(64, 4096), (1, 7)] {
            let config =
                EngineConfig { max_num_seqs, max_num_batched_tokens, vision_rows: 64, ..EngineConfig::new(512) };
            let mut engine = Engine::new(&model, &mut dev, config).unwrap();
            let outputs = engine.generate(&model, &mut dev, &requests).unwrap();
            engine.release(&mut dev);
            for (case, output) in cases.iter().zip(&outputs) {
                count += 1;
                let place = format!("{} {}", golden.dir.display(), case.name);
                assert_eq!(output.token_ids, case.tensors.ids("generated_ids"), "{place}");
                let diff = max_diff(&output.logprobs, case.tensors.floats("generated_logprobs"));
                let tolerance = golden.index["tolerance"]["target_logprobs_abs"].as_f64().unwrap();
                assert!(f64::from(diff) <= tolerance, "{place}: {diff}");
            }
        }
    }
    report("qwen3_vl-continuations", count);
}

/// Multiplies rows of a parameter with one piece.
fn scale_rows(model: &Model, dev: &mut Device, name: &str, factor: impl Fn(usize) -> f32 + Sync) {
    let (param, piece) = models::find(&model.layout, name);
    let old: Vec<f32> = models::piece(dev, param, param.tensor, piece);
    let row = |_: usize, r: usize, out: &mut [f32]| {
        let from = &old[r * out.len()..][..out.len()];
        out.iter_mut().zip(from).for_each(|(out, from)| *out = from * factor(r));
    };
    param.fill::<f32>(dev, param.tensor, row).unwrap();
}

/// Returns the positions of images with `change` applied to the taps of each frame, whose height and width are also given.
fn with_taps(
    config: &MediaConfig,
    grids: &[[u32; 3]],
    change: impl Fn(&mut [[u32; 4]], &mut [[f32; 4]], &[[u32; 2]], [u32; 2]),
) -> VisionPositions {
    let mut p = positions::vision(config, grids);
    let frames = grids.iter().flat_map(|&[t, h, w]| std::iter::repeat_n([h, w], t as usize));
    let mut from = 0;
    for [h, w] in frames {
        let to = from + (h * w) as usize;
        change(&mut p.taps[from..to], &mut p.tap_weights[from..to], &p.pos_hw[from..to], [h, w]);
        from = to;
    }
    p
}

fn half_pixel_centres(config: &MediaConfig, grids: &[[u32; 3]]) -> VisionPositions {
    let TowerKind::DeepStack { grid_side, .. } = config.tower.kind else { panic!() };
    let axis = |at: u32, size: u32| {
        let source = ((at as f32 + 0.5) * grid_side as f32 / size as f32 - 0.5).max(0.0);
        let low = source as u32;
        ([low, (low + 1).min(grid_side as u32 - 1)], [1.0 - source.fract(), source.fract()])
    };
    with_taps(config, grids, |taps, weights, pos_hw, [h, w]| {
        for (i, &[row, column]) in pos_hw.iter().enumerate() {
            let ((r, v), (c, u)) = (axis(row, h), axis(column, w));
            let of = [(0, 0), (0, 1), (1, 0), (1, 1)];
            (taps[i], weights[i]) = (of.map(|(a, b)| r[a] * grid_side as u32 + c[b]), of.map(|(a, b)| v[a] * u[b]));
        }
    })
}

fn raster_order(config: &MediaConfig, grids: &[[u32; 3]]) -> VisionPositions {
    with_taps(config, grids, |taps, weights, pos_hw, [_, w]| {
        let old: Vec<_> = taps.iter().copied().zip(weights.iter().copied()).collect();
        for (&[row, column], (tap, weight)) in pos_hw.iter().zip(old) {
            let at = (row * w + column) as usize;
            (taps[at], weights[at]) = (tap, weight);
        }
    })
}

fn nearest(config: &MediaConfig, grids: &[[u32; 3]]) -> VisionPositions {
    with_taps(config, grids, |_, weights, _, _| {
        for weights in weights {
            let largest = weights.iter().copied().fold(0.0, f32::max);
            let first = weights.iter().position(|&weight| weight == largest);
            *weights = std::array::from_fn(|tap| f32::from(u8::from(Some(tap) == first)));
        }
    })
}

fn across_images(config: &MediaConfig, grids: &[[u32; 3]]) -> VisionPositions {
    let mut p = positions::vision(config, grids);
    p.cu_seqlens = vec![0, p.pos_hw.len() as u32];
    p
}

/// The mistake that is not in the model, but in the rows that its decoder adds.
const REVERSED_ROWS: &str = "deepstack rows in the wrong order";

/// Returns the model with one of the mistakes of the reference's list.
fn mistaken(golden: &Golden, dev: &mut Device, name: &str) -> Model {
    let mut model = with_config(golden, dev, DType::F32, |config| {
        let RopeAxes::Interleaved(section) = config.text.rope.axes else { panic!() };
        if name == "chunked instead of interleaved mrope" {
            config.text.rope.axes = RopeAxes::Sections(section);
        }
    });
    let tower = &golden.config.media.as_ref().unwrap().tower;
    let (width, depth, levels, head_dim) = (tower.hidden_size, tower.depth, tower.deepstack().len(), tower.head_dim());
    let mut scale = |name: &str, factor: &(dyn Fn(usize) -> f32 + Sync)| scale_rows(&model, dev, name, factor);
    match name {
        "deepstack left out" => {
            for k in 0..levels {
                scale(&format!("visual.deepstack_merger_list.{k}.linear_fc2.weight"), &|_| 0.0);
                scale(&format!("visual.deepstack_merger_list.{k}.linear_fc2.bias"), &|_| 0.0);
            }
        }
        "pos_embed left out" => scale("visual.pos_embed.weight", &|_| 0.0),
        "patch_embed bias left out" => scale("visual.patch_embed.proj.bias", &|_| 0.0),
        "norm1 biases left out" => {
            (0..depth).for_each(|i| scale(&format!("visual.blocks.{i}.norm1.bias"), &|_| 0.0));
        }
        // The scale of attention is a factor of q.
        "tower attention scale of head_dim 80" => {
            let q = |r: usize| if r < width { (head_dim as f32 / 80.0).sqrt() } else { 1.0 };
            for (i, part) in (0..depth).flat_map(|i| [(i, "weight"), (i, "bias")]) {
                scale(&format!("visual.blocks.{i}.attn.qkv.{part}"), &q);
            }
        }
        _ => {}
    }
    let tower = model.vision.as_mut().unwrap();
    let (mut blocks, mut mergers) = (tower.blocks.to_vec(), tower.mergers.to_vec());
    match name {
        "deepstack mergers reversed" => mergers[1..].reverse(),
        "mergers with tanh GELU" => mergers.iter_mut().for_each(|merger| merger.gelu = GeluKind::Tanh),
        "blocks with exact GELU" => blocks.iter_mut().for_each(|block| block.mlp.gelu = Some(GeluKind::Exact)),
        "LayerNorm eps 1e-5" => {
            let of_blocks = blocks.iter_mut().flat_map(|b| [&mut b.input_layernorm, &mut b.post_attention_layernorm]);
            let norms = of_blocks.chain(mergers.iter_mut().map(|merger| &mut merger.norm));
            norms.for_each(|norm| norm.eps = 1e-5);
        }
        "pos_embed with half-pixel centres" => tower.positions = half_pixel_centres,
        "pos_embed in raster order" => tower.positions = raster_order,
        "pos_embed nearest instead of bilinear" => tower.positions = nearest,
        "tower attention across images and frames" => tower.positions = across_images,
        _ => {}
    }
    (tower.blocks, tower.mergers) = (blocks.into(), mergers.into());
    model
}

/// Returns the logits of a model whose decoder adds the rows of the mergers of blocks in reversed order.
fn with_reversed_rows(dev: &mut Device, model: &Model, inputs: &Inputs) -> Vec<f32> {
    let mut tape = Tape::new(dev, Mode::Infer);
    let x = model.embed(&mut tape, dev, &inputs.input_ids).unwrap();
    let images: Vec<_> = inputs.images.iter().map(|image| image.image.clone()).collect();
    let mut places: Vec<u32> = inputs.images.iter().flat_map(|image| &image.places).copied().collect();
    let mut added = Vec::new();
    if !places.is_empty() {
        let rows = dev.alloc(tape.region(), DType::F32, &[places.len(), model.vision_width()]).unwrap();
        let rows = model.encode_images(&mut tape, dev, &images, rows).unwrap()[0];
        let to = tape.upload(dev, &places, &[places.len()]).unwrap();
        let right = model.place_rows(&mut tape, dev, rows, to, x, false).unwrap();
        places.reverse();
        added.push(DeepStack { places: tape.upload(dev, &places, &[places.len()]).unwrap(), ..right });
    }
    let attend = Attend::packed(&tape, dev, &inputs.cu_seqlens, true).unwrap();
    let hidden = model.decode(&mut tape, dev, x, &inputs.position_ids, attend, added).unwrap();
    let logits = models::logits(model, &mut tape, dev, hidden);
    let logits = dev.read(logits).unwrap();
    tape.finish(dev);
    logits
}

#[test]
fn mistakes_are_caught() {
    let mut count = 0;
    for golden in goldens() {
        let (mut dev, mut largest) = (device(), Largest::default());
        let tolerance = golden.index["tolerance"]["logits_abs"].as_f64().unwrap();
        let right = golden.model(&mut dev, DType::F32);
        for (name, by_case) in golden.index["mutation_max_abs_logit"].as_object().unwrap() {
            let (model, change) = match mutate(&golden, &mut dev, DType::F32, name) {
                Some(mutation) => mutation,
                None => (mistaken(&golden, &mut dev, name), (|_| {}) as fn(&mut Inputs)),
            };
            for (case, want) in by_case.as_object().unwrap() {
                count += 1;
                let (want, case) = (want.as_f64().unwrap(), self::case(&golden, case));
                let mut inputs = case.inputs(&golden.config);
                change(&mut inputs);
                let logits = match name.as_str() {
                    REVERSED_ROWS => with_reversed_rows(&mut dev, &right, &inputs),
                    _ => forward(&mut dev, &model, &inputs, &case.targets()).logits,
                };
                let found = f64::from(max_diff(&logits, case.tensors.floats("logits")));
                let place = format!("{name}, {}: {found:.2e}, reference {want:.2e}", case.name);
                assert_eq!(found > tolerance, want > 0.0, "{place}");
                largest.note("logit, from the reference's", (found - want).abs(), &place);
            }
        }
        // Two differences of logits are compared, each within the tolerance.
        largest.check(&[("logit, from the reference's", 2.0 * tolerance)]);
    }
    assert_eq!(count, (17 + 16) * 4);
    report("qwen3_vl-mistakes", count);
}

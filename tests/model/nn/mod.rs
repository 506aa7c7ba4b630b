//! Tests the complete model on tiny random weights: finite differences, settings that must not change any bit, memory
//! plans, and error handling.

pub mod lora;
pub mod paged;
pub mod qwen3_vl;
pub mod released;

use std::sync::Arc;

use omr_base::error::Error;
use omr_base::philox::{Purpose, Random};
use omr_data::image::{Backend, ImageInput, Processor};
use omr_model::nn::{
    CheckpointPolicy, Grads, Inputs, LayerPolicy, Mode, Model, ModelConfig, Policy, Stack, Tape, VisionTower,
};
use omr_runtime::device::{Device, Isa, Plan, Region, Target};
use omr_runtime::tensor::DType;
use serde_json::json;

use self::qwen3_vl::qwen3_vl;
use crate::models;

/// Seed for all tests of this file, printed once.
pub fn seed() -> u64 {
    static SEED: std::sync::LazyLock<u64> = std::sync::LazyLock::new(omr_base_tests::seed::seed);
    *SEED
}

/// Returns a config with awkward sizes that are not multiples of tile sizes.
pub fn config(tied: bool) -> ModelConfig {
    let file = json!({
        "model_type": "qwen2_5_vl", "vocab_size": 90, "hidden_size": 24, "intermediate_size": 40,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]},
        "tie_word_embeddings": tied, "initializer_range": 0.15, "image_token_id": 80, "video_token_id": 81,
        "vision_start_token_id": 82, "vision_end_token_id": 83, "vision_token_id": 84,
        "vision_config": {
            "depth": 2, "hidden_size": 16, "intermediate_size": 20, "num_heads": 2, "out_hidden_size": 24,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 56,
            "fullatt_block_indexes": [1], "tokens_per_second": 2
        }
    });
    ModelConfig::from_json(&file, "config").unwrap()
}

pub fn device(threads: usize) -> Device {
    Device::cpu(&Plan::uniform(1 << 30), threads, Isa::detect()).unwrap()
}

pub fn image(config: &ModelConfig, random: &mut Random, grid_thw: [u32; 3], frames: u32) -> Arc<ImageInput> {
    let side = config.grid().patch_size as u32;
    let len = frames * grid_thw[1] * grid_thw[2] * side * side * 3;
    let pixels = (0..len).map(|_| random.next_u32() as u8).collect();
    Arc::new(ImageInput { grid_thw, frames, pixels, second_per_grid_ts: 1.0, backend: Backend::Pil })
}

/// Returns two sequences: text, and (only with `media`) two images and a video within text.
pub fn inputs(config: &ModelConfig, media: bool) -> Inputs {
    let mut random = Random::new(seed(), Purpose::Test, 1);
    let mut text = |n: usize| -> Vec<u32> { (0..n).map(|_| random.below(80) as u32).collect() };
    let first = text(7);
    let images = |ids: &mut Vec<u32>, id: u32, n: usize, after: Vec<u32>| {
        ids.push(82);
        ids.extend(vec![id; n]);
        ids.push(83);
        ids.extend(after);
    };
    let mut second = text(2);
    images(&mut second, 80, 6, text(3));
    images(&mut second, 80, 2, vec![]);
    match config.media.as_ref().unwrap().tokens_per_second {
        Some(_) => images(&mut second, 81, 4, text(4)),
        None => (0..2).for_each(|_| images(&mut second, 81, 2, text(2))),
    }
    let mut random = Random::new(seed(), Purpose::Test, 2);
    let images = [([1, 4, 6], 1), ([1, 2, 4], 1), ([2, 2, 4], 4)].map(|(g, f)| image(config, &mut random, g, f));
    if media {
        models::inputs(config, &[(&first, &[]), (&second, &images)])
    } else {
        models::inputs(config, &[(&first, &[]), (&first[2..], &[])])
    }
}

/// Runs one pass: a weighted sum of the log-probs and entropies of every next token, and its gradients.
pub fn pass(
    dev: &mut Device,
    model: &Model,
    inputs: &Inputs,
    keep: impl Into<CheckpointPolicy>,
    grads: &mut Grads,
) -> f64 {
    let rows: Vec<u32> = (0..inputs.len() as u32 - 1).filter(|r| !inputs.cu_seqlens.contains(&(r + 1))).collect();
    let ids: Vec<u32> = rows.iter().map(|&r| inputs.input_ids[r as usize + 1]).collect();
    let weights: Vec<f32> = (0..rows.len()).map(|i| (i % 5) as f32 / 4.0 - 0.3).collect();
    let policy = Policy { temperature: 0.8, ..Policy::default() };

    let mut tape = Tape::new(dev, Mode::train(keep));
    let hidden = model.forward(&mut tape, dev, inputs).unwrap();
    let idx = tape.upload(dev, &rows, &[rows.len()]).unwrap();
    let targets = tape.upload(dev, &ids, &[ids.len()]).unwrap();
    let hidden = tape.gather(dev, hidden, idx, None).unwrap();
    let (lp, entropy) = tape.linear_logprob(dev, hidden, model.decoder.lm_head, policy, targets, true).unwrap();
    let entropy = entropy.unwrap();
    let values: [Vec<f32>; 2] = [dev.read(lp.tensor).unwrap(), dev.read(entropy.tensor).unwrap()];
    let dlog_prob = tape.upload(dev, &weights, &[rows.len()]).unwrap();
    let dentropy = tape.upload(dev, &vec![0.1f32; rows.len()], &[rows.len()]).unwrap();
    tape.backward(dev, grads, &[(lp, dlog_prob), (entropy, dentropy)]).unwrap();
    tape.finish(dev);
    let sum = |i: usize, w: &dyn Fn(usize) -> f32| -> f64 {
        values[i].iter().enumerate().map(|(j, &v)| f64::from(v) * f64::from(w(j))).sum()
    };
    sum(0, &|j| weights[j]) + sum(1, &|_| 0.1)
}

/// Returns the bits of all gradients. Parameters without a gradient are omitted.
fn gradient_bits(dev: &mut Device, model: &Model, inputs: &Inputs, keep: impl Into<CheckpointPolicy>) -> Vec<Vec<u32>> {
    let mark = dev.mark(Region::Overlay);
    let mut grads = Grads::new(dev, &model.layout).unwrap();
    pass(dev, model, inputs, keep, &mut grads);
    let tensors: Vec<_> = (0..grads.num_params()).filter_map(|id| grads.get(id)).collect();
    let bits = tensors.iter().map(|&t| dev.read::<f32>(t).unwrap().iter().map(|x| x.to_bits()).collect()).collect();
    dev.release(mark);
    bits
}

/// Returns activation checkpointing policies: uniform ones, and ones with all kinds of layers in one pass, with the
/// vision tower stored or recomputed.
fn levels() -> Vec<CheckpointPolicy> {
    let mut all: Vec<CheckpointPolicy> =
        [LayerPolicy::All, LayerPolicy::AllButGateUp, LayerPolicy::Inputs].map(CheckpointPolicy::from).to_vec();
    for (replay_tower, vision) in [(true, (0, 0)), (true, (0, 1)), (false, (1, 1)), (true, (1, 0))] {
        let vision = Stack { inputs: vision.0, all_but_gate_up: vision.1 };
        all.push(CheckpointPolicy { text: Stack { inputs: 1, all_but_gate_up: 1 }, vision, replay_tower });
    }
    all
}

#[test]
fn chunks_of_images_change_no_bit() {
    let windowed = [[1, 8, 8], [1, 8, 16], [1, 16, 4], [1, 6, 2]];
    // The norms of joined patches sum the gradients of 256 patches at a time.
    let deepstack = [[1, 16, 16], [1, 16, 16], [1, 6, 2], [1, 2, 2]];
    for (config, grids, chunks) in [(config(false), windowed, [1, 192]), (qwen3_vl(), deepstack, [256, 512])] {
        chunks_change_no_bit(&config, grids, chunks);
    }
}

#[test]
fn a_tower_normalizes_images_as_the_library_that_resized_them() {
    let mut dev = device(1);
    let config = qwen3_vl();
    let mut tower = Model::init(&mut dev, config.clone(), DType::F32, seed()).unwrap().vision.unwrap();
    let mut random = Random::new(seed(), Purpose::Test, 4);
    let images: [_; 2] = std::array::from_fn(|_| image(&config, &mut random, [1, 4, 6], 1));
    let resized_by = |backend| images.clone().map(|image| Arc::new(ImageInput { backend, ..(*image).clone() }));
    let mut rows = |tower: &VisionTower, images: &[Arc<ImageInput>]| {
        dev.scope(Region::Workspace, |dev| {
            let out = dev.alloc(Region::Workspace, DType::F32, &[12, tower.row_width()])?;
            let mut tape = Tape::new(dev, Mode::Infer);
            let done = tower.forward(&mut tape, dev, images, out);
            tape.finish(dev);
            done.and_then(|_| dev.read::<f32>(out))
        })
    };
    let [pil, torchvision] = [Backend::Pil, Backend::Torchvision].map(resized_by);
    let found = rows(&tower, &torchvision).unwrap();
    assert_ne!(found, rows(&tower, &pil).unwrap());
    let error = rows(&tower, &[pil[0].clone(), torchvision[1].clone()]).unwrap_err().to_string();
    assert_eq!(error, "image 1: found pixels of Torchvision, expected pixels of Pil, as image 0");
    let Processor { image_mean, image_std, .. } = &mut tower.processor;
    image_mean.iter_mut().chain(image_std).for_each(|value| *value *= 255.0);
    tower.processor.rescale_factor = 1.0;
    assert_eq!(found, rows(&tower, &pil).unwrap());
}

#[test]
fn an_output_matrix_beside_a_tied_table_must_equal_it() {
    let (mut dev, dir) = (device(1), tempfile::tempdir().unwrap());
    let model = Model::init(&mut dev, config(true), DType::F32, seed()).unwrap();
    model.save(&mut dev, dir.path(), DType::F32).unwrap();
    let file = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let table = stored.tensor("model.embed_tokens.weight").unwrap();
    for change in [0, 1] {
        let data: Vec<u8> = table.data().iter().map(|byte| byte ^ change).collect();
        let head = safetensors::tensor::TensorView::new(table.dtype(), table.shape().to_vec(), &data).unwrap();
        let all = stored.tensors().into_iter().chain([("lm_head.weight".to_owned(), head)]);
        std::fs::write(&file, safetensors::serialize(all, None).unwrap()).unwrap();
        let error = Model::load(&mut dev, dir.path(), DType::F32).err().map(|error| error.to_string());
        assert_eq!(error.is_some_and(|error| error.contains("lm_head.weight differs")), change == 1);
    }
}

fn chunks_change_no_bit(config: &ModelConfig, grids: [[u32; 3]; 4], chunks: [usize; 2]) {
    for dtype in [DType::F32, DType::Bf16] {
        // AMX sums in steps of 32 rows, and the merger has a quarter as many rows as there are patches. A chunk border
        // would move these steps, so this test excludes AMX.
        let mut dev = Device::cpu(&Plan::uniform(1 << 30), 2, Isa::detect().vectors()).unwrap();
        let mut model = Model::init(&mut dev, config.clone(), dtype, seed()).unwrap();
        // Chunk borders are at multiples of 64 patches. The last image has an odd number of rows.
        let mut random = Random::new(seed(), Purpose::Test, 3);
        let images = grids.map(|grid| image(config, &mut random, grid, 1));
        let mut ids = vec![7];
        for image in &images {
            ids.push(82);
            ids.extend(vec![80; image.tokens(2)]);
            ids.extend([83, 3]);
        }
        let inputs = models::inputs(&model.config, &[(&ids, &images)]);
        let whole = gradient_bits(&mut dev, &model, &inputs, LayerPolicy::All);
        for chunk_patches in chunks {
            model.vision.as_mut().unwrap().chunk_patches = chunk_patches;
            for levels in levels() {
                let bits = gradient_bits(&mut dev, &model, &inputs, levels);
                assert!(whole == bits, "{dtype:?}, chunks of {chunk_patches}, {levels:?}");
            }
        }
    }
}

#[test]
fn nothing_but_the_numbers_decides_the_bits() {
    let (best, both) = (Isa::detect(), [config(false), qwen3_vl()]);
    let ways = [(DType::F32, best), (DType::Bf16, best), (DType::Bf16, Isa::AmxTwin)];
    for (config, (dtype, isa)) in both.iter().flat_map(|config| ways.map(|way| (config, way))) {
        let mut reference = None;
        for threads in [1, 3] {
            let mut dev = Device::cpu(&Plan::uniform(1 << 30), threads, isa).unwrap();
            let model = Model::init(&mut dev, config.clone(), dtype, seed()).unwrap();
            let inputs = inputs(&model.config, true);
            for levels in levels() {
                let bits = gradient_bits(&mut dev, &model, &inputs, levels);
                let reference = reference.get_or_insert_with(|| bits.clone());
                assert!(*reference == bits, "{dtype:?}, {isa:?}, {threads} threads, {levels:?}");
            }
        }
    }
}

#[test]
fn every_kernel_variant_gives_the_same_bits_in_f32() {
    for config in [config(false), qwen3_vl()] {
        let isas = [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.available());
        let bits = isas.map(|isa| {
            let mut dev = Device::cpu(&Plan::uniform(1 << 30), 2, isa).unwrap();
            let model = Model::init(&mut dev, config.clone(), DType::F32, seed()).unwrap();
            let inputs = inputs(&model.config, true);
            gradient_bits(&mut dev, &model, &inputs, LayerPolicy::All)
        });
        let bits: Vec<_> = bits.collect();
        assert!(bits.iter().all(|b| *b == bits[0]));
    }
}

/// Returns the sizes of a released model, as in its published config.
fn released(
    hidden: usize,
    heads: usize,
    kv: usize,
    layers: usize,
    mlp: usize,
    vocab: usize,
    tied: bool,
) -> ModelConfig {
    let file = json!({
        "model_type": "qwen2_5_vl", "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": mlp,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv, "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "tie_word_embeddings": tied,
        "vision_config": {"hidden_size": 1280, "out_hidden_size": hidden, "tokens_per_second": 2}
    });
    ModelConfig::from_json(&file, "config").unwrap()
}

#[test]
fn released_sizes_have_their_number_of_weights() {
    // Half of `metadata.total_size` in the released model.safetensors.index.json, because its tensors are bf16.
    let sizes = [
        (released(3584, 28, 4, 28, 18_944, 152_064, false), 16_584_333_312u64 / 2),
        (released(2048, 16, 2, 36, 11_008, 151_936, true), 7_509_245_952 / 2),
    ];
    for (config, want) in sizes {
        let mut dev = Device::count_for(Target::cpu(1));
        let model = Model::empty(&mut dev, config, DType::Bf16).unwrap();
        assert_eq!(model.layout.num_weights() as u64, want);
    }
}

#[test]
fn a_long_sequence_of_the_7b_is_planned_without_memory() {
    let config = released(3584, 28, 4, 28, 18_944, 152_064, false);
    let ids: Vec<u32> = (0..61_440).map(|i| i % 1000).collect();
    let activations = [LayerPolicy::AllButGateUp, LayerPolicy::Inputs].map(|keep| {
        let mut dev = Device::count_for(Target::cpu(16));
        let model = Model::empty(&mut dev, config.clone(), DType::Bf16).unwrap();
        let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
        let below = dev.high_water().bytes(Region::Overlay);
        pass(&mut dev, &model, &models::inputs(&config, &[(&ids, &[])]), keep, &mut grads);
        dev.high_water().bytes(Region::Overlay) - below
    });
    // The unit is rows of D (3584) or F (18944) bf16 values.
    //
    // - Policy `Inputs` stores the embeddings and, for each of 28 layers, its result and the result of attention. It
    //   also needs one recomputed layer: two norms, q, k and v (4608 wide), the sum after attention, gate, up and their
    //   product.
    // - Policy `AllButGateUp` also stores q, k, v and that sum for each layer. Its recomputed layer needs one norm,
    //   gate, up and their product.
    let rows = |d: usize, f: usize| 61_440 * (d * 3584 + f * 18_944) * 2;
    assert!(activations[1] > rows(57 + 4, 3) && activations[1] < rows(57 + 6, 3), "{activations:?}");
    assert!(activations[0] > rows(28 * 4, 3) && activations[0] < rows(28 * 5, 3), "{activations:?}");
}

#[test]
fn inferring_gives_the_bits_of_training() {
    for (config, dtype) in [(config(true), DType::F32), (config(true), DType::Bf16), (qwen3_vl(), DType::Bf16)] {
        let mut dev = device(2);
        let model = Model::init(&mut dev, config, dtype, seed()).unwrap();
        let inputs = inputs(&model.config, true);
        let logits = [Mode::train(LayerPolicy::All), Mode::train(LayerPolicy::Inputs), Mode::Infer].map(|mode| {
            let mut tape = Tape::new(&dev, mode);
            let hidden = model.forward(&mut tape, &mut dev, &inputs).unwrap();
            let logits = models::logits(&model, &mut tape, &mut dev, hidden);
            let logits: Vec<f32> = dev.read(logits).unwrap();
            tape.finish(&mut dev);
            logits
        });
        assert!(logits[0] == logits[1] && logits[0] == logits[2]);
    }
}

#[test]
fn text_leaves_the_tower_alone() {
    let mut dev = device(2);
    let model = Model::init(&mut dev, config(false), DType::F32, seed()).unwrap();
    let inputs = inputs(&model.config, false);
    let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
    pass(&mut dev, &model, &inputs, LayerPolicy::All, &mut grads);
    for (id, param) in model.layout.params.iter().enumerate() {
        assert_eq!(grads.get(id).is_none(), param.part.is_vision(), "{}", param.name());
    }
}

#[test]
fn the_plan_is_the_run() {
    for config in [config(false), qwen3_vl()] {
        a_plan_is_a_run(&config);
    }
}

fn a_plan_is_a_run(config: &ModelConfig) {
    for (keep, chunk_patches) in levels().into_iter().flat_map(|levels| [(levels, 8192), (levels, 8)]) {
        let run = |mut dev: Device| {
            let mut model = Model::init(&mut dev, config.clone(), DType::F32, seed()).unwrap();
            model.vision.as_mut().unwrap().chunk_patches = chunk_patches;
            let inputs = inputs(&model.config, true);
            let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
            pass(&mut dev, &model, &inputs, keep, &mut grads);
            dev.high_water()
        };
        let plan = run(Device::count_for(Target::cpu(2)));
        assert_eq!(plan, run(device(2)), "{keep:?}");
        assert_eq!(plan, run(Device::cpu(&plan, 2, Isa::detect()).unwrap()), "{keep:?}");
    }
}

#[test]
fn keeping_less_takes_less() {
    let overlay = [LayerPolicy::All, LayerPolicy::AllButGateUp, LayerPolicy::Inputs].map(|keep| {
        let mut dev = Device::count_for(Target::cpu(2));
        let model = Model::empty(&mut dev, config(false), DType::F32).unwrap();
        let inputs = inputs(&model.config, true);
        let mut grads = Grads::new(&mut dev, &model.layout).unwrap();
        pass(&mut dev, &model, &inputs, keep, &mut grads);
        dev.high_water().bytes(Region::Overlay)
    });
    assert!(overlay[0] > overlay[1] && overlay[1] > overlay[2], "{overlay:?}");
}

#[test]
fn a_seed_makes_one_model() {
    let weights = |seed: u64, dtype: DType| -> Vec<u8> {
        let mut dev = device(2);
        let model = Model::init(&mut dev, config(false), dtype, seed).unwrap();
        model.layout.params.iter().flat_map(|p| dev.read_bytes(p.tensor).unwrap()).collect()
    };
    assert!(weights(1, DType::F32) == weights(1, DType::F32));
    assert!(weights(1, DType::F32) != weights(2, DType::F32));

    let mut dev = device(1);
    let model = Model::init(&mut dev, config(false), DType::F32, 1).unwrap();
    let (param, piece) = models::find(&model.layout, "model.layers.1.mlp.up_proj.weight");
    let values: Vec<f32> = models::piece(&mut dev, param, param.tensor, piece);
    let n = values.len() as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let std = (values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n).sqrt();
    // 960 samples: five standard errors.
    assert!(mean.abs() < 5.0 * 0.15 / n.sqrt() && (std / 0.15 - 1.0).abs() < 5.0 / (2.0 * n).sqrt(), "{mean} {std}");
    for (name, value) in [("model.norm.weight", 1.0), ("visual.merger.mlp.0.bias", 0.0)] {
        let (param, piece) = models::find(&model.layout, name);
        assert!(models::piece::<f32>(&mut dev, param, param.tensor, piece).iter().all(|x| *x == value), "{name}");
    }
}

#[test]
fn faults_are_errors_before_anything_runs() {
    let mut dev = device(1);
    let model = Model::empty(&mut dev, config(false), DType::F32).unwrap();
    let good = inputs(&model.config, true);
    let refuse = |dev: &mut Device, inputs: &Inputs| {
        let mut tape = Tape::new(dev, Mode::Infer);
        let error = model.forward(&mut tape, dev, inputs).unwrap_err();
        tape.finish(dev);
        assert!(matches!(error, Error::Input { .. }), "{error}");
    };
    let mut bad = good.clone();
    bad.input_ids[0] = 90;
    refuse(&mut dev, &bad);
    let mut bad = good.clone();
    bad.images[2].places.pop();
    refuse(&mut dev, &bad);
    let mut bad = good.clone();
    let mut short = (*bad.images[0].image).clone();
    short.pixels.pop();
    bad.images[0].image = Arc::new(short);
    refuse(&mut dev, &bad);
}

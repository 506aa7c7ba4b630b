//! A slice of the 7B at its real width (one text layer, a windowed and a full block of the tower, every head and
//! width), forward and backward. The loss and the gradients of every parameter from kernels are compared with the CPU
//! in bf16. The golden models are narrow. In this slice every tile is complete, and chains and numbers of heads are as
//! large as in the real model.
//!
//! The tolerance is measured as in `model`: it is the effect of other channel orders on the CPU.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use half::bf16;
use omr_base::philox::{Purpose, Random};
use omr_base_tests::seed::seed;
use omr_data::image::ImageInput;
use omr_model::nn::{LayerPolicy, Model, ModelConfig};
use omr_runtime::device::emu::Options;
use omr_runtime::device::{Device, Isa, Plan, Target};
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::{emu_of, inputs};
use serde_json::json;

use super::model::{Order, TIMES, relative, reordered_at};
use super::model_bwd::{Batch, Pass, in_order, kind, pass};
use omr_model_tests::models;

const VOCABULARY: u32 = 16_384;
const IMAGE_TOKEN: u32 = 16_380;
const TOKENS: usize = 128;
/// Two windows of 4 x 8 patches, 16 tokens in total.
const GRID: [u32; 3] = [1, 4, 16];

fn config() -> ModelConfig {
    let file = json!({
        "model_type": "qwen2_5_vl", "vocab_size": VOCABULARY, "hidden_size": 3584, "intermediate_size": 18_944,
        "num_hidden_layers": 1, "num_attention_heads": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0, "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "tie_word_embeddings": false, "image_token_id": IMAGE_TOKEN, "video_token_id": IMAGE_TOKEN + 1,
        "vision_start_token_id": IMAGE_TOKEN - 2, "vision_end_token_id": IMAGE_TOKEN - 1, "vision_token_id": IMAGE_TOKEN + 2,
        "vision_config": {
            "depth": 2, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
            "fullatt_block_indexes": [1], "tokens_per_second": 2
        }
    });
    ModelConfig::from_json(&file, "config").unwrap()
}

/// Returns text around one image. The targets are all text tokens except the first.
fn tokens(config: &ModelConfig) -> Batch {
    let mut random = inputs::random(1);
    let mut ids: Vec<u32> = (0..TOKENS).map(|_| random.below(u64::from(IMAGE_TOKEN - 2)) as u32).collect();
    let image_tokens = GRID.iter().product::<u32>() as usize / 4;
    ids[40] = IMAGE_TOKEN - 2;
    ids[41..41 + image_tokens].fill(IMAGE_TOKEN);
    ids[41 + image_tokens] = IMAGE_TOKEN - 1;
    let len = GRID.iter().product::<u32>() * 14 * 14 * 3;
    let pixels = (0..len).map(|_| random.next_u32() as u8).collect();
    let images = [Arc::new(ImageInput::image([GRID[1], GRID[2]], pixels))];
    let targets = ids.iter().enumerate().skip(1).filter(|(_, id)| **id != IMAGE_TOKEN);
    let targets = targets.map(|(i, id)| (i as u32 - 1, *id)).collect();
    Batch { name: "slice".into(), packs: vec![(models::inputs(config, &[(&ids, &images)]), targets)] }
}

/// Returns every tensor by its released name, row-major: matrices and biases with the released standard deviation,
/// norms around 1.
fn weights(config: &ModelConfig) -> BTreeMap<String, Vec<bf16>> {
    let layout = Model::empty(&mut Device::count_for(Target::cpu(1)), config.clone(), DType::Bf16).unwrap().layout;
    let seed = seed();
    let draw = |(i, name, len): (usize, &str, usize)| {
        let mut random = Random::new(seed, Purpose::Test, 100 + i as u64);
        let (middle, std) =
            if name.contains("norm") || name.ends_with("ln_q.weight") { (1.0, 0.1) } else { (0.0, 0.02) };
        // The sum of four bytes is close enough to a normal number: mean 510, standard deviation 147.8.
        let mut value = || random.next_u32().to_le_bytes().iter().map(|&b| f32::from(b)).sum::<f32>();
        (name.to_owned(), (0..len).map(|_| bf16::from_f32(middle + std * (value() - 510.0) / 147.8)).collect())
    };
    layout.pieces().enumerate().map(|(i, (_, _, piece))| draw((i, &piece.name, piece.num_elements()))).collect()
}

/// Creates the model with these weights, its channels in another order.
fn model(dev: &mut Device, weights: &BTreeMap<String, Vec<bf16>>, order: Option<Order>) -> Model {
    let model = Model::empty(dev, config(), DType::Bf16).unwrap();
    for param in &model.layout.params {
        let row = |i: usize, r: usize, out: &mut [f32]| {
            let (piece, columns) = (&param.pieces[i], out.len());
            let values = &weights[&piece.name];
            match order {
                None => out.iter_mut().zip(&values[r * columns..]).for_each(|(out, x)| *out = x.to_f32()),
                Some(order) => {
                    let at = reordered_at(
                        &piece.name,
                        &piece.shape,
                        model.config.media.as_ref().unwrap().tower.hidden_size,
                        order,
                    );
                    out.iter_mut().enumerate().for_each(|(k, out)| *out = values[at(r, k)].to_f32());
                }
            }
        };
        param.fill::<bf16>(dev, param.tensor, row).unwrap();
    }
    model
}

/// Returns loss and gradients of the slice on `dev`, in the channel order of the original model.
fn run(dev: &mut Device, weights: &BTreeMap<String, Vec<bf16>>, order: Option<Order>) -> Pass {
    let start = Instant::now();
    let model = model(dev, weights, order);
    let filled = start.elapsed().as_secs_f64();
    let found = pass(dev, &model, &tokens(&model.config), LayerPolicy::All);
    println!("{} {order:?}: {filled:.1} s to fill, {:.1} s in all", dev.kind().name(), start.elapsed().as_secs_f64());
    match order {
        Some(order) => in_order(&model, order, found),
        None => found,
    }
}

#[test]
#[ignore = "two minutes and 9 GB, with --release"]
fn a_slice_of_the_7b_agrees_with_the_cpu_in_bf16() {
    let cpu = || Device::cpu(&Plan::uniform(1 << 32), 2, Isa::detect()).unwrap();
    let weights = weights(&config());
    let want = run(&mut cpu(), &weights, None);
    let found = run(&mut emu_of(Options { shadow: false, ..Options::default() }).unwrap(), &weights, None);
    let (mut allowed, mut allowed_loss) = (BTreeMap::<String, f64>::new(), 0.0f64);
    for order in Order::ALL {
        let other = run(&mut cpu(), &weights, Some(order));
        for (name, other) in &other.gradients {
            let entry = allowed.entry(kind(name)).or_default();
            *entry = entry.max(TIMES * relative(other, &want.gradients[name]));
        }
        allowed_loss = allowed_loss.max(TIMES * (other.loss - want.loss).abs());
    }
    let largest = allowed.values().fold(0.0f64, |most, x| most.max(*x));
    assert!(largest < 0.1, "the reordered model is another model: {allowed:?}");
    let difference = (found.loss - want.loss).abs();
    println!("loss {:.6}, the CPU's {:.6}: {difference:.2e} of {allowed_loss:.2e}", found.loss, want.loss);
    let mut wrong = Vec::new();
    if difference.is_nan() || difference > allowed_loss {
        wrong.push("loss".to_owned());
    }
    let names = |pass: &Pass| pass.gradients.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(&want), "the same parameters have a gradient");
    assert_eq!(found.gradients.len(), weights.len(), "every parameter has one");
    for (name, found) in &found.gradients {
        let (difference, allowed) = (relative(found, &want.gradients[name]), allowed[&kind(name)]);
        println!("{name} {:?}: {difference:.2e} of {allowed:.2e}", weights[name].len());
        if difference.is_nan() || difference > allowed {
            wrong.push(format!("{name}: {difference:.2e}, tolerance {allowed:.2e}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

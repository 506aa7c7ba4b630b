//! The complete model with kernels, on the golden models: against the CPU's bf16 run, which rounds at the same points,
//! and against the reference's f32.
//!
//! Two runs that round at the same points differ only by the order of their sums. The size of this effect is measured
//! on the CPU: the same model runs with its hidden and intermediate channels in other orders, which changes nothing
//! else. The tolerance is four times the largest difference found this way. It is at least as large as the effect of
//! one value that rounds to the other bf16 neighbour, because in a small model the measured orders may by chance not
//! change any rounded value.

use std::collections::BTreeMap;

use omr_model::nn::Model;
use omr_model::nn::weights::params::Param;
use omr_runtime::device::{Device, Isa, Plan};
use omr_runtime::tensor::DType;
use omr_runtime_tests::kernels::gemm_sm90a::wide;
use omr_runtime_tests::kernels::{emu, no_hopper};

use omr_model_tests::golden::hf::{Case, Golden, Run, forward, max_diff, models, mutations};
use omr_model_tests::golden::qwen3_vl;
use omr_model_tests::models;

/// Factor of the tolerance over the order differences found on the CPU.
pub const TIMES: f64 = 4.0;

/// Returns the CPU device.
pub fn cpu() -> Device {
    Device::cpu(&Plan::uniform(1 << 30), 2, Isa::detect()).unwrap()
}

/// Another order of channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Reversed order.
    Reversed,
    /// The upper half first.
    Halves,
    /// The even channels first.
    EvenFirst,
}

impl Order {
    /// Every order.
    pub const ALL: [Order; 3] = [Order::Reversed, Order::Halves, Order::EvenFirst];

    /// Returns the channel, of `n`, at position `k`.
    pub fn at(self, k: usize, n: usize) -> usize {
        let half = n.div_ceil(2);
        match self {
            Order::Reversed => n - 1 - k,
            Order::Halves => (k + half) % n,
            Order::EvenFirst if k < half => 2 * k,
            Order::EvenFirst => 2 * (k - half) + 1,
        }
    }

    /// Returns the channel at position `k`, in another order within each group of channels. `None` keeps their order.
    pub fn within(self, k: usize, group: Option<usize>) -> usize {
        group.map_or(k, |group| k / group * group + self.at(k % group, group))
    }
}

/// Returns the sizes of the groups within which the `rows` and the `columns` of a tensor are reordered. `None` keeps their
/// order.
fn reordered(name: &str, rows: usize, columns: usize, vision_hidden: usize) -> [Option<usize>; 2] {
    let ends = |suffixes: &[&str]| suffixes.iter().any(|s| name.ends_with(s));
    let of_tables = ["embed_tokens.weight", "lm_head.weight", "pos_embed.weight"];
    if ends(&of_tables) || ends(&["_proj.weight", "qkv.weight"]) && !name.contains("mlp") {
        return if name.ends_with("o_proj.weight") { [Some(rows), None] } else { [None, Some(columns)] };
    }
    if ends(&["qkv.bias", "q_proj.bias", "k_proj.bias", "v_proj.bias", "q_norm.weight", "k_norm.weight"]) {
        return [None; 2];
    }
    // Four patches are joined before the first matrix of a merger, and for a merger of a block before its norm.
    if name.contains("merger") && ends(&["mlp.0.weight", "linear_fc1.weight"]) {
        return [Some(rows), Some(vision_hidden)];
    }
    if name.contains("merger") && ends(&["norm.weight", "norm.bias"]) {
        return [Some(vision_hidden), None];
    }
    // MLPs: both hidden and intermediate channels. Norms, biases and the tower's projections: their rows.
    let both = name.ends_with("weight") && ["mlp", "linear_fc"].iter().any(|part| name.contains(part));
    [Some(rows), both.then_some(columns)]
}

/// Returns a function that maps an element (row, column) of a reordered piece to its index in the original piece.
pub fn reordered_at(name: &str, shape: &[usize], vision_hidden: usize, order: Order) -> impl Fn(usize, usize) -> usize {
    let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
    let [of_rows, of_columns] = reordered(name, rows, columns, vision_hidden);
    move |r, k| order.within(r, of_rows) * columns + order.within(k, of_columns)
}

/// Reorders the channels of every weight, in place.
pub fn reorder(model: &Model, dev: &mut Device, order: Order) {
    let vision_hidden = model.config.media.as_ref().unwrap().tower.hidden_size;
    for param in &model.layout.params {
        let old: Vec<Vec<half::bf16>> =
            (0..param.pieces.len()).map(|i| models::piece(dev, param, param.tensor, i)).collect();
        let row = |i: usize, r: usize, out: &mut [f32]| {
            let piece = &param.pieces[i];
            let at = reordered_at(&piece.name, &piece.shape, vision_hidden, order);
            out.iter_mut().enumerate().for_each(|(k, out)| *out = old[i][at(r, k)].to_f32());
        };
        Param::fill::<half::bf16>(param, dev, param.tensor, row).unwrap();
    }
}

/// Iterates over every tensor of a run by name, including the logits.
fn values(run: &Run) -> impl Iterator<Item = ((&'static str, usize), &[f32])> {
    let notes = run.notes.iter().map(|(name, i, values)| ((*name, *i), &values[..]));
    notes.chain([(("logits", 0), &run.logits[..])])
}

/// Returns a reordered model's values in the channel order of the original model.
fn in_order(model: &Model, order: Order, run: &Run) -> Run {
    let back = |name: &str, values: &[f32]| -> Vec<f32> {
        let tower = name.starts_with("vision.") && name != "vision.merged";
        let width =
            if tower { model.config.media.as_ref().unwrap().tower.hidden_size } else { model.config.text.hidden_size };
        let mut out = vec![0.0; values.len()];
        for (to, from) in out.chunks_exact_mut(width).zip(values.chunks_exact(width)) {
            from.iter().enumerate().for_each(|(k, x)| to[order.at(k, width)] = *x);
        }
        out
    };
    Run {
        notes: run.notes.iter().map(|(name, i, values)| (*name, *i, back(name, values))).collect(),
        logits: run.logits.clone(),
        logprobs: run.logprobs.clone(),
    }
}

/// Returns `|found - want| / |want|` in the Euclidean norm.
pub fn relative(found: &[f32], want: &[f32]) -> f64 {
    assert_eq!(found.len(), want.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let difference = norm(&mut found.iter().zip(want).map(|(a, b)| f64::from(a - b)));
    difference / norm(&mut want.iter().map(|&x| f64::from(x))).max(f64::MIN_POSITIVE)
}

/// Returns the [`relative`] difference if one value of `values` is rounded to the other neighbour: the last of 8 bits
/// of the largest value.
fn one_flip(values: &[f32]) -> f64 {
    let largest = values.iter().fold(0.0f64, |m, x| m.max(f64::from(x.abs())));
    let norm = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if largest == 0.0 { 0.0 } else { largest.log2().floor().exp2() / 128.0 / norm }
}

/// Effect of the order of sums alone: relative norms, and the largest difference of a logit. The norms are taken per
/// kind of tensor, over all layers of a stack. In the first layers so few values round to another neighbour that a
/// tolerance per layer would depend on chance.
struct Tolerance {
    relative: BTreeMap<&'static str, f64>,
    logit: f64,
}

/// Returns the CPU's bf16 runs of `cases`, and the tolerance that they give.
fn reference(golden: &Golden, cases: Vec<Case>) -> (Vec<(Case, Run)>, Tolerance) {
    let mut dev = cpu();
    let model = golden.model(&mut dev, DType::Bf16);
    let mut runs: Vec<(Case, Run)> = Vec::new();
    for case in cases {
        let run = forward(&mut dev, &model, &case.inputs(&golden.config), &case.targets());
        runs.push((case, run));
    }
    let mut tolerance = Tolerance { relative: BTreeMap::new(), logit: 0.0 };
    for order in Order::ALL {
        let mut dev = cpu();
        let model = golden.model(&mut dev, DType::Bf16);
        reorder(&model, &mut dev, order);
        for (case, run) in &runs {
            let other = forward(&mut dev, &model, &case.inputs(&golden.config), &case.targets());
            let other = in_order(&model, order, &other);
            for (((kind, _), a), (_, b)) in values(run).zip(values(&other)) {
                let entry = tolerance.relative.entry(kind).or_default();
                // Logits are fp32 and are not rounded to bf16.
                let flip = if kind == "logits" { 0.0 } else { one_flip(a) };
                *entry = entry.max(TIMES * relative(b, a)).max(flip);
            }
            tolerance.logit = tolerance.logit.max(TIMES * f64::from(max_diff(&run.logits, &other.logits)));
        }
    }
    let largest = tolerance.relative.values().fold(0.0f64, |m, t| m.max(*t));
    assert!(largest < 0.1, "the reordered model is another model: {:?}", tolerance.relative);
    (runs, tolerance)
}

#[test]
fn golden_models_agree_with_the_cpu_in_bf16() {
    let models = models();
    assert!(!models.is_empty(), "no golden model");
    for dir in models {
        let golden = Golden::open(dir);
        agrees(&golden, golden.cases(), vec![emu()]);
    }
}

/// Returns the golden models of Qwen3-VL with their cases of two images and of a video, and a device for each kernel variant.
pub fn qwen3_vl_models() -> impl Iterator<Item = (Golden, [Case; 2], Vec<Device>)> {
    let variants = || [emu()].into_iter().chain((!no_hopper("wgmma")).then(wide)).collect();
    let cases = |golden: &Golden| ["two_images", "video"].map(|name| qwen3_vl::case(golden, name));
    let goldens = qwen3_vl::goldens();
    assert!(!goldens.is_empty(), "no models in {}", omr_base_tests::golden::dir().join("qwen3_vl").display());
    goldens.into_iter().map(move |golden| (cases(&golden), golden)).map(move |(c, g)| (g, c, variants()))
}

#[test]
fn golden_models_of_qwen3_vl_agree_with_the_cpu_in_bf16_by_each_kernel_variant() {
    for (golden, cases, devices) in qwen3_vl_models() {
        agrees(&golden, cases.into(), devices);
    }
}

/// Compares the runs of the cases on each device with those of the CPU.
fn agrees(golden: &Golden, cases: Vec<Case>, devices: Vec<Device>) {
    let (runs, tolerance) = reference(golden, cases);
    for mut dev in devices {
        let model = golden.model(&mut dev, DType::Bf16);
        let mut largest: BTreeMap<(&str, usize), f64> = BTreeMap::new();
        let noise = &golden.index["noise_floor_max_abs_logit"]["bfloat16_vs_f32"];
        let (mut clear, mut positions) = (0, 0);
        for (case, want) in &runs {
            let run = forward(&mut dev, &model, &case.inputs(&golden.config), &case.targets());
            for ((key, found), (_, want)) in values(&run).zip(values(want)) {
                let entry = largest.entry(key).or_default();
                *entry = entry.max(relative(found, want));
            }
            // The tolerance is 1.5 times the difference between the reference's own bf16 and f32 runs. The factor
            // covers another order of sums.
            if let Some(band) = noise[&case.name].as_f64() {
                let diff = f64::from(max_diff(&run.logits, case.tensors.floats("logits")));
                assert!(diff <= 1.5 * band, "{}: logits {diff} from f32, the reference's bf16 {band}", case.name);
                println!("  {}: logits {:.2} of the reference's own bf16 distance from f32", case.name, diff / band);
            }
            for (found, want) in
                run.logits.chunks(golden.config.text.vocab_size).zip(want.logits.chunks(golden.config.text.vocab_size))
            {
                positions += 1;
                let best = argmax(want);
                let second =
                    want.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, z)| *z).fold(f32::MIN, f32::max);
                if f64::from(want[best] - second) > 2.0 * tolerance.logit {
                    clear += 1;
                    assert_eq!(argmax(found), best, "{}: another token at a clear position", case.name);
                }
            }
        }
        for (key, found) in &largest {
            let allowed = tolerance.relative[key.0];
            println!("  {key:?}: {found:.2e} of {allowed:.2e}");
            assert!(*found <= allowed, "{key:?}: relative norm {found:e}, tolerance {allowed:e}");
        }
        println!("  greedy: {clear} of {positions} positions have a margin above {:.3}", 2.0 * tolerance.logit);
        assert!(clear > 0);
    }
    println!("{} cases", runs.len());
}

/// If no order of sums changed a value of a small layer, the layer's tolerance allows one flipped value but not two.
#[test]
fn a_tolerance_of_no_differences_has_room_for_one_flipped_value() {
    let values: Vec<f32> = (0..64).map(|i| half::bf16::from_f32((i as f32 - 30.0) * 0.37).to_f32()).collect();
    let flipped = |indices: &[usize]| {
        let mut other = values.clone();
        indices
            .iter()
            .for_each(|&i| other[i] = half::bf16::from_bits(half::bf16::from_f32(other[i]).to_bits() + 1).to_f32());
        relative(&other, &values)
    };
    assert!((0..64).all(|i| flipped(&[i]) <= one_flip(&values)));
    assert!(flipped(&[62, 63]) > one_flip(&values));
}

/// Returns the id of the largest logit; among equal ones the lowest.
pub fn argmax(logits: &[f32]) -> usize {
    (0..logits.len()).rev().max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}

/// Tests that the tolerance rejects a golden model with a mistake that moves a logit by more than 1.
#[test]
fn golden_models_with_a_mistake_fall_outside() {
    let mut count = 0;
    for dir in models() {
        let golden = Golden::open(dir);
        let (runs, tolerance) = reference(&golden, golden.cases());
        for (name, by_case) in golden.index["mutation_max_abs_logit"].as_object().into_iter().flatten() {
            let mut dev = emu();
            let Some((model, positions)) = mutations::mutate(&golden, &mut dev, DType::Bf16, name) else { continue };
            for (case, want) in &runs {
                if by_case[&case.name].as_f64().is_none_or(|moved| moved <= 1.0) {
                    continue;
                }
                count += 1;
                let mut inputs = case.inputs(&golden.config);
                positions(&mut inputs);
                let run = forward(&mut dev, &model, &inputs, &case.targets());
                let found = relative(&run.logits, &want.logits);
                let allowed = tolerance.relative["logits"];
                println!("  {name}, {}: {found:.3} where {allowed:.3} is allowed", case.name);
                assert!(found > allowed, "{name}, {}: not caught", case.name);
            }
        }
    }
    assert!(count > 0, "no wrong model");
    println!("{count} wrong runs");
}

//! Tests that the tolerance catches mistakes. The reference has a list of wrong models. Each wrong model is built here
//! by a change of the config, the weights or the positions. Its results must be outside the tolerance by as much as the
//! results of the reference's wrong model.

use omr_base::observe::Silent;
use omr_base_tests::golden::report;
use omr_model::nn::config::{RopeAxes, TowerConfig, TowerKind};
use omr_model::nn::weights::WeightFiles;
use omr_model::nn::weights::params::Param;
use omr_model::nn::{Inputs, Model, ModelConfig};
use omr_runtime::device::Device;
use omr_runtime::tensor::{DType, Elem};

use super::{Case, Golden, Largest, device, forward, max_diff, models};

/// The logit tolerance of `forward`.
const LOGIT: f64 = 1e-4;

pub fn with_config(golden: &Golden, dev: &mut Device, dtype: DType, change: impl Fn(&mut ModelConfig)) -> Model {
    let mut config = golden.config.clone();
    change(&mut config);
    let model = Model::empty(dev, config, dtype).unwrap();
    WeightFiles::open(&golden.dir).unwrap().load(dev, &model.layout, model.config.family, &Silent).unwrap();
    model
}

/// Sets the blocks that attend to whole frames.
fn attend_fully(config: &mut ModelConfig, blocks: Vec<usize>) {
    let TowerConfig { kind, .. } = &mut config.media.as_mut().unwrap().tower;
    let TowerKind::Windowed { fullatt_block_indexes, .. } = kind else { panic!("{kind:?}") };
    *fullatt_block_indexes = blocks;
}

fn reverse(axes: &mut RopeAxes) {
    let RopeAxes::Sections(sections) = axes else { panic!("{axes:?}") };
    sections.reverse();
}

/// Rewrites rows of one parameter. Row r of piece i becomes row `of(i, r)`; `None` sets it to zero.
fn rewrite(model: &Model, dev: &mut Device, name: &str, of: impl Fn(usize, usize) -> Option<usize> + Sync) {
    let (param, _) = models::find(&model.layout, name);
    fn rows<T: Elem>(dev: &mut Device, param: &Param, of: impl Fn(usize, usize) -> Option<usize> + Sync) {
        let old: Vec<Vec<T>> = (0..param.pieces.len()).map(|i| models::piece(dev, param, param.tensor, i)).collect();
        let row = |i: usize, r: usize, out: &mut [f32]| match of(i, r) {
            Some(from) => {
                let from = &old[i][from * out.len()..][..out.len()];
                out.iter_mut().zip(from).for_each(|(out, from)| *out = from.to_f32());
            }
            None => out.fill(0.0),
        };
        param.fill::<T>(dev, param.tensor, row).unwrap();
    }
    match param.tensor.dtype {
        DType::Bf16 => rows::<half::bf16>(dev, param, of),
        _ => rows::<f32>(dev, param, of),
    }
}

/// A wrong model, and the change of its inputs.
pub type Mutation = (Model, fn(&mut Inputs));

/// Returns the mutation called `name`, or `None` if it is not in this list.
pub fn mutate(golden: &Golden, dev: &mut Device, dtype: DType, name: &str) -> Option<Mutation> {
    let keep: fn(&mut Inputs) = |_| {};
    Some(match name {
        "vision all-full attention" => {
            let all = |c: &mut ModelConfig| attend_fully(c, (0..c.tower_depth()).collect());
            (with_config(golden, dev, dtype, all), keep)
        }
        "vision all-window attention" => (with_config(golden, dev, dtype, |c| attend_fully(c, Vec::new())), keep),
        "mrope_section reversed" => (with_config(golden, dev, dtype, |c| reverse(&mut c.text.rope.axes)), keep),
        "vision rope h/w swapped" => {
            // Swapping the angles of two coordinates of q and k is the same as swapping the coordinates themselves.
            let model = with_config(golden, dev, dtype, |_| {});
            let v = &golden.config.media.as_ref().unwrap().tower;
            let (c, quarter) = (v.hidden_size, v.head_dim() / 4);
            let swap = move |_: usize, r: usize| {
                let in_half = r % v.head_dim() % (2 * quarter);
                let other = if in_half < quarter { r + quarter } else { r - quarter };
                Some(if r < 2 * c { other } else { r })
            };
            for i in 0..v.depth {
                rewrite(&model, dev, &format!("visual.blocks.{i}.attn.qkv.weight"), swap);
                rewrite(&model, dev, &format!("visual.blocks.{i}.attn.qkv.bias"), swap);
            }
            (model, keep)
        }
        "1-D text positions instead of mrope" | "1-D positions instead of mrope" => {
            (with_config(golden, dev, dtype, |_| {}), |inputs| {
                let count = inputs.len() as i32;
                inputs.position_ids = std::array::from_fn(|_| (0..count).collect());
            })
        }
        "layer0 q bias dropped" => {
            let model = with_config(golden, dev, dtype, |_| {});
            let drop = |piece: usize, r: usize| (piece != 0).then_some(r);
            rewrite(&model, dev, "model.layers.0.self_attn.q_proj.bias", drop);
            (model, keep)
        }
        name if name.starts_with("text rms_norm_eps ") => {
            let eps = name.rsplit(' ').next()?.parse().ok()?;
            (with_config(golden, dev, dtype, |c| c.text.rms_norm_eps = eps), keep)
        }
        _ => return None,
    })
}

#[test]
fn every_mistake_is_caught() {
    let (mut count, mut largest) = (0, Largest::default());
    for dir in models() {
        let golden = Golden::open(dir);
        let Some(list) = golden.index["mutation_max_abs_logit"].as_object() else { continue };
        for (name, by_case) in list {
            let mut dev = device();
            let Some((model, positions)) = mutate(&golden, &mut dev, DType::F32, name) else {
                println!("not known here: {name}");
                continue;
            };
            for (case, want) in by_case.as_object().unwrap() {
                count += 1;
                let want = want.as_f64().unwrap();
                let case: Case = golden.case(case);
                let mut inputs = case.inputs(&golden.config);
                positions(&mut inputs);
                let run = forward(&mut dev, &model, &inputs, &case.targets());
                let found = f64::from(max_diff(&run.logits, case.tensors.floats("logits")));
                let place = format!("{name}, {}: {found:.4}, reference {want:.4}", case.name);
                assert!(want <= 0.01 || found > 10.0 * LOGIT, "not caught: {place}");
                largest.note("logit, from the reference's", (found - want).abs(), &place);
            }
        }
    }
    // The limit is twice the tolerance, because two differences of logits are compared, each within the tolerance.
    largest.check(&[("logit, from the reference's", 2.0 * LOGIT)]);
    report("hf-mutations", count);
}

//! The list of op benchmarks. The shapes are those of the 7B model on a GPU, of a
//! model with 22 million parameters on the CPU, and tiny ones on the emulator.

use super::case::{Case, Make};
use super::inputs::Sizes;
use super::layer::{self, Sequences};
use super::{decode, quantized, tower, update};
use omr_base::choice::BaseFormat;
use omr_base::error::Result;
use omr_runtime::device::{Device, Kind};
use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::ops::rows;
use omr_runtime::tensor::DType;

/// Makes the case of an op at the given sizes.
type Op = fn(&mut Device, Sizes) -> Result<Case>;

/// Makes the case of a product of rows with a weight. The array is `[rows, n, k]`, and the weight is `[n, k]`.
type Product = fn(&mut Device, Sizes, [usize; 3]) -> Result<Case>;

/// Returns every case of a kind of device in the order of the table, each with the first part of its name. `scale` is the
/// factor of the random numbers.
pub fn cases(kind: Kind, dtype: DType, scale: f32) -> Vec<(&'static str, Make)> {
    let s = Sizes::of(kind, dtype, scale);
    let mut out: Vec<(&'static str, Make)> = Vec::new();
    for (product, of) in products(kind, s) {
        out.push(("linear", Box::new(move |dev| product(dev, s, of))));
    }
    for rows in [s.tokens, s.sequences] {
        out.push(("lora", Box::new(move |dev| layer::lora_t(dev, s, [rows, 16, s.intermediate]))));
    }
    out.extend(each(s, &[("swiglu", layer::swiglu_fwd), ("swiglu", layer::swiglu_bwd)]));
    for sequences in sequences(kind, s) {
        out.push(("attention", Box::new(move |dev| layer::attention_fwd(dev, s, sequences))));
        out.push(("attention", Box::new(move |dev| layer::attention_bwd(dev, s, sequences))));
    }
    let more: [(&'static str, Op); 21] = [
        ("dequantize", |dev, s| quantized::dequantize_fwd(dev, s, BaseFormat::Int8)),
        ("dequantize", |dev, s| quantized::dequantize_fwd(dev, s, BaseFormat::Nf4)),
        ("linear", |dev, s| quantized::linear_fwd(dev, s, BaseFormat::Int8)),
        ("linear", |dev, s| quantized::linear_fwd(dev, s, BaseFormat::Nf4)),
        ("rms_norm", layer::rms_norm_fwd),
        ("rms_norm", layer::rms_norm_bwd),
        ("rope", layer::rope_fwd),
        ("qk_norm", layer::qk_norm_fwd),
        ("qk_norm", layer::qk_norm_bwd),
        ("embedding", layer::embedding_fwd),
        ("embedding", layer::embedding_bwd),
        ("patch_embed", layer::patch_embed_fwd),
        ("gelu", |dev, s| layer::gelu_bwd(dev, s, GeluKind::Exact)),
        ("gelu", |dev, s| layer::gelu_bwd(dev, s, GeluKind::Tanh)),
        ("layer_norm", tower::layer_norm_fwd),
        ("layer_norm", tower::layer_norm_bwd),
        ("pos_embed", tower::pos_embed_fwd),
        ("pos_embed", tower::pos_embed_bwd),
        ("rows", |dev, s| layer::rows_moved(dev, s, "rows gather", 2, false, rows::gather)),
        ("rows", |dev, s| layer::rows_moved(dev, s, "rows scatter", 2, true, rows::scatter)),
        ("rows", |dev, s| {
            let add = |dev: &mut Device, src, idx, dst| rows::scatter_add(dev, src, idx, None, dst);
            layer::rows_moved(dev, s, "rows scatter_add", 3, true, add)
        }),
    ];
    out.extend(each(s, &more));
    let more: [(&'static str, Op); 10] = [
        ("linear_logprob", decode::linear_logprob_fwd),
        ("linear_logprob", decode::linear_logprob_bwd),
        ("adamw", |dev, s| update::adamw_step(dev, s, false)),
        ("adamw", |dev, s| update::adamw_step(dev, s, true)),
        ("grad_norm", update::grad_norm_fwd),
        ("lane_sum", update::lane_sum_fwd),
        ("paged_attention", decode::paged_attention_fwd),
        ("kv_cache", decode::kv_cache_store),
        ("sample", decode::sample_fwd),
        ("copy", update::copy),
    ];
    out.extend(each(s, &more));
    out
}

fn each(s: Sizes, ops: &[(&'static str, Op)]) -> impl Iterator<Item = (&'static str, Make)> {
    ops.iter().map(move |&(name, op)| -> (&'static str, Make) { (name, Box::new(move |dev| op(dev, s))) })
}

/// Returns the products of a layer. On the CPU these are the products of one weight, also with fewer rows.
fn products(kind: Kind, s: Sizes) -> Vec<(Product, [usize; 3])> {
    let all: [Product; 3] = [layer::linear_fwd, layer::linear_dgrad, layer::linear_wgrad];
    if kind == Kind::Cpu {
        let of = |rows| [rows, s.intermediate, s.hidden];
        let fewer = [s.tokens, 256, 1].map(|rows| (all[0], of(rows)));
        return fewer.into_iter().chain(all[1..].iter().map(|&product| (product, of(s.tokens)))).collect();
    }
    let [qkv, o] = [[s.heads.qkv_len(), s.hidden], [s.hidden, s.heads.out_len()]];
    let [gate_up, down] = [[2 * s.intermediate, s.hidden], [s.hidden, s.intermediate]];
    let weights = [qkv, o, gate_up, down].into_iter();
    let full = weights.flat_map(|[n, k]| all.map(|product| (product, [s.tokens, n, k])));
    full.chain([(all[0], [s.sequences, gate_up[0], gate_up[1]])]).collect()
}

/// Returns the sequences for attention: packs of text and, on a GPU, windows of the vision tower.
fn sequences(kind: Kind, s: Sizes) -> Vec<Sequences> {
    let text = |length| Sequences { heads: s.heads, count: s.lengths[1] / length, length, causal: true };
    let windows = Sequences { heads: s.vision, count: s.patches / 64, length: 64, causal: false };
    s.lengths.map(text).into_iter().chain(kind.is_gpu().then_some(windows)).collect()
}

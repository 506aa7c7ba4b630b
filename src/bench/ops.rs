//! The ops at the shapes of a 22M-parameter model: hidden 384, intermediate 1536, 6 query heads and 2 key heads of
//! 64, 2,048 tokens a pack.

use super::case::{Case, Make, op};
use super::decode;
use super::inputs::{HEADS, HIDDEN, TOKENS, bytes, random, weight, zeros};
use super::jobs::{self, Amount, ModelShape};
use crate::device::{Device, Region};
use crate::error::Result;
use crate::model::Levels;
use crate::ops::adamw::code8::BLOCK;
use crate::ops::adamw::{self, AdamW, Coded, Moments};
use crate::ops::attention::{self, Pack};
use crate::ops::matmul::panel_len;
use crate::ops::{grad_norm, lane_sum, linear, rms_norm, rope, swiglu};
use crate::tensor::DType;

/// What can be measured, in the order of the table.
pub const NAMES: [&str; 13] = [
    "linear",
    "swiglu",
    "attention",
    "rms_norm",
    "rope",
    "linear_logprob",
    "adamw",
    "grad_norm",
    "lane_sum",
    "paged_attention",
    "sample",
    "train-step",
    "generate",
];

/// A case to come.
pub struct Coming {
    /// Makes it.
    pub case: Make,
    /// Whether its memory is to be counted first: an op's is small.
    pub counted: bool,
}

const INTERMEDIATE: usize = 1536;
const PARAMETERS: usize = 22_000_000;
const LANES: usize = 8;

/// The cases of one name, made when their turn comes; `shapes` are the models of jobs.
pub fn cases(name: &str, dtypes: &[DType], shapes: &[ModelShape]) -> Vec<Coming> {
    let mut out: Vec<Make> = Vec::new();
    for &dtype in dtypes {
        match name {
            "linear" => {
                for t in [TOKENS, 256, 1] {
                    out.push(Box::new(move |dev| linear_fwd(dev, dtype, t)));
                }
                out.push(Box::new(move |dev| linear_dgrad(dev, dtype)));
                out.push(Box::new(move |dev| linear_wgrad(dev, dtype)));
            }
            "swiglu" => {
                out.push(Box::new(move |dev| swiglu_fwd(dev, dtype)));
                out.push(Box::new(move |dev| swiglu_bwd(dev, dtype)));
            }
            "attention" => {
                for length in [64, TOKENS] {
                    out.push(Box::new(move |dev| attention_fwd(dev, dtype, length)));
                    out.push(Box::new(move |dev| attention_bwd(dev, dtype, length)));
                }
            }
            "rms_norm" => {
                out.push(Box::new(move |dev| rms_norm_fwd(dev, dtype)));
                out.push(Box::new(move |dev| rms_norm_bwd(dev, dtype)));
            }
            "rope" => out.push(Box::new(move |dev| rope_fwd(dev, dtype))),
            "linear_logprob" => {
                out.push(Box::new(move |dev| decode::linear_logprob_fwd(dev, dtype)));
                out.push(Box::new(move |dev| decode::linear_logprob_bwd(dev, dtype)));
            }
            "paged_attention" => out.push(Box::new(move |dev| decode::paged_attention_fwd(dev, dtype))),
            "sample" => out.push(Box::new(move |dev| decode::sample_fwd(dev, dtype))),
            "train-step" | "generate" => {
                let (rollouts, amount) = (name == "generate", Amount::CPU);
                for &shape in shapes {
                    out.push(Box::new(move |dev| match rollouts {
                        true => jobs::generate(dev, dtype, shape, amount),
                        false => jobs::train_step(dev, dtype, shape, amount, Levels::default()),
                    }));
                }
            }
            "adamw" => {
                out.push(Box::new(move |dev| adamw_step(dev, dtype, false)));
                out.push(Box::new(move |dev| adamw_step(dev, dtype, true)));
            }
            "grad_norm" if dtype == DType::F32 => out.push(Box::new(grad_norm_fwd)),
            "lane_sum" if dtype == DType::F32 => out.push(Box::new(lane_sum_fwd)),
            _ => {}
        }
    }
    let counted = matches!(name, "train-step" | "generate");
    out.into_iter().map(|case| Coming { case, counted }).collect()
}

fn linear_fwd(dev: &mut Device, dtype: DType, t: usize) -> Result<Case> {
    let (n, k) = (INTERMEDIATE, HIDDEN);
    let (x, w, y) = (random(dev, dtype, &[t, k], 1.0)?, weight(dev, dtype, n, k)?, zeros(dev, dtype, &[t, n])?);
    let (flops, moved, shape) = (2.0 * (t * n * k) as f64, bytes(&[x, w.data, y]), format!("[{t}, {k}] x [{n}, {k}]"));
    op("linear fwd", shape, dtype, flops, moved, move |dev| linear::fwd(dev, x, &w, None, None, y))
}

fn linear_dgrad(dev: &mut Device, dtype: DType) -> Result<Case> {
    let (t, n, k) = (TOKENS, INTERMEDIATE, HIDDEN);
    let (dy, w, dx) = (random(dev, dtype, &[t, n], 1.0)?, weight(dev, dtype, n, k)?, zeros(dev, dtype, &[t, k])?);
    let flops = 2.0 * (t * n * k) as f64;
    let moved = bytes(&[dy, w.data, dx]);
    let shape = format!("[{t}, {n}] x [{n}, {k}]");
    op("linear dgrad", shape, dtype, flops, moved, move |dev| linear::dgrad(dev, dy, &w, dx, false))
}

fn linear_wgrad(dev: &mut Device, dtype: DType) -> Result<Case> {
    let (t, n, k) = (TOKENS, INTERMEDIATE, HIDDEN);
    let (x, dy) = (random(dev, dtype, &[t, k], 1.0)?, random(dev, dtype, &[t, n], 1.0)?);
    let dw = zeros(dev, DType::F32, &[panel_len(dtype, n, k)])?;
    let (flops, shape) = (2.0 * (t * n * k) as f64, format!("[{n}, {t}] x [{t}, {k}]"));
    op("linear wgrad", shape, dtype, flops, bytes(&[x, dy, dw]), move |dev| linear::wgrad(dev, x, dy, dw, None))
}

fn swiglu_fwd(dev: &mut Device, dtype: DType) -> Result<Case> {
    let (t, f, k) = (TOKENS, INTERMEDIATE, HIDDEN);
    let (x, w) = (random(dev, dtype, &[t, k], 1.0)?, weight(dev, dtype, 2 * f, k)?);
    let (gate_up, y) = (zeros(dev, dtype, &[t, 2 * f])?, zeros(dev, dtype, &[t, f])?);
    let flops = 4.0 * (t * f * k) as f64;
    let moved = bytes(&[x, w.data, gate_up, y]);
    let shape = format!("[{t}, {k}] x [{}, {k}]", 2 * f);
    op("linear fwd_swiglu", shape, dtype, flops, moved, move |dev| {
        linear::fwd_swiglu(dev, x, &w, None, Some(gate_up), y)
    })
}

fn swiglu_bwd(dev: &mut Device, dtype: DType) -> Result<Case> {
    let (t, f) = (TOKENS, INTERMEDIATE);
    let (gate_up, dy) = (random(dev, dtype, &[t, 2 * f], 1.0)?, random(dev, dtype, &[t, f], 1.0)?);
    let dgate_up = zeros(dev, dtype, &[t, 2 * f])?;
    let moved = bytes(&[gate_up, dy, dgate_up]);
    op("swiglu bwd", format!("[{t}, {f}]"), dtype, 0.0, moved, move |dev| swiglu::bwd(dev, gate_up, dy, dgate_up))
}

/// Packed sequences of `length` tokens, and the multiply-adds of one causal product over them, doubled.
fn sequences(dev: &mut Device, length: usize) -> Result<(Pack, f64)> {
    let ends: Vec<u32> = (0..=TOKENS / length).map(|i| (i * length) as u32).collect();
    let pairs = TOKENS * (length + 1) / 2;
    let cu_seqlens = dev.upload(Region::Overlay, &ends, &[ends.len()])?;
    let pack = Pack { cu_seqlens, max_seqlen: length, heads: HEADS, causal: true, scale: 0.125 };
    Ok((pack, 2.0 * (pairs * HEADS.q * HEADS.dim) as f64))
}

fn attention_fwd(dev: &mut Device, dtype: DType, length: usize) -> Result<Case> {
    let (pack, product) = sequences(dev, length)?;
    let qkv = random(dev, dtype, &[TOKENS, HEADS.qkv_len()], 1.0)?;
    let out = zeros(dev, dtype, &[TOKENS, HEADS.q * HEADS.dim])?;
    let lse = zeros(dev, DType::F32, &[TOKENS, HEADS.q])?;
    let flops = 2.0 * product;
    let moved = bytes(&[qkv, out, lse]);
    let shape = format!("{} x {length}, causal", TOKENS / length);
    op("attention fwd", shape, dtype, flops, moved, move |dev| attention::fwd(dev, &pack, qkv, out, lse))
}

fn attention_bwd(dev: &mut Device, dtype: DType, length: usize) -> Result<Case> {
    let (pack, product) = sequences(dev, length)?;
    let qkv = random(dev, dtype, &[TOKENS, HEADS.qkv_len()], 1.0)?;
    let dout = random(dev, dtype, &[TOKENS, HEADS.q * HEADS.dim], 1.0)?;
    let out = zeros(dev, dtype, &[TOKENS, HEADS.q * HEADS.dim])?;
    let lse = zeros(dev, DType::F32, &[TOKENS, HEADS.q])?;
    let dqkv = zeros(dev, dtype, &[TOKENS, HEADS.qkv_len()])?;
    attention::fwd(dev, &pack, qkv, out, lse)?;
    let flops = 5.0 * product;
    let moved = bytes(&[qkv, out, dout, lse, dqkv]);
    let shape = format!("{} x {length}, causal", TOKENS / length);
    op("attention bwd", shape, dtype, flops, moved, move |dev| {
        attention::bwd(dev, &pack, attention::Bwd { qkv, out, dout, lse, dqkv })
    })
}

fn rms_norm_fwd(dev: &mut Device, dtype: DType) -> Result<Case> {
    let (x, gamma) = (random(dev, dtype, &[TOKENS, HIDDEN], 1.0)?, random(dev, dtype, &[HIDDEN], 1.0)?);
    let (y, rstd) = (zeros(dev, dtype, &[TOKENS, HIDDEN])?, zeros(dev, DType::F32, &[TOKENS])?);
    let (moved, shape) = (bytes(&[x, gamma, y, rstd]), format!("[{TOKENS}, {HIDDEN}]"));
    op("rms_norm fwd", shape, dtype, 0.0, moved, move |dev| rms_norm::fwd(dev, x, gamma, 1e-6, y, rstd))
}

fn rms_norm_bwd(dev: &mut Device, dtype: DType) -> Result<Case> {
    let (x, gamma) = (random(dev, dtype, &[TOKENS, HIDDEN], 1.0)?, random(dev, dtype, &[HIDDEN], 1.0)?);
    let (y, rstd) = (zeros(dev, dtype, &[TOKENS, HIDDEN])?, zeros(dev, DType::F32, &[TOKENS])?);
    let (dy, dgamma) = (random(dev, dtype, &[TOKENS, HIDDEN], 1.0)?, zeros(dev, DType::F32, &[HIDDEN])?);
    rms_norm::fwd(dev, x, gamma, 1e-6, y, rstd)?;
    let (moved, shape) = (bytes(&[x, gamma, rstd, dy, y, dgamma]), format!("[{TOKENS}, {HIDDEN}]"));
    op("rms_norm bwd", shape, dtype, 0.0, moved, move |dev| {
        rms_norm::bwd(dev, rms_norm::Bwd { x, gamma, rstd, dy, dx: y, accumulate: false, dgamma })
    })
}

fn rope_fwd(dev: &mut Device, dtype: DType) -> Result<Case> {
    let qkv = random(dev, dtype, &[TOKENS, HEADS.qkv_len()], 1.0)?;
    let cos = random(dev, DType::F32, &[TOKENS, HEADS.dim / 2], 0.5)?;
    let sin = random(dev, DType::F32, &[TOKENS, HEADS.dim / 2], 0.5)?;
    let turned = ((HEADS.q + HEADS.kv) * HEADS.dim * TOKENS * qkv.dtype.size()) as f64;
    let (moved, shape) = (2.0 * turned + bytes(&[cos, sin]), format!("[{TOKENS}, {}]", HEADS.qkv_len()));
    op("rope fwd", shape, dtype, 0.0, moved, move |dev| rope::fwd(dev, qkv, cos, sin, HEADS))
}

fn adamw_step(dev: &mut Device, dtype: DType, eight_bit: bool) -> Result<Case> {
    let n = PARAMETERS;
    let w = zeros(dev, dtype, &[n])?;
    let lo = if dtype == DType::Bf16 { Some(dev.zeros(Region::State, DType::I16, &[n])?) } else { None };
    let grad = zeros(dev, DType::F32, &[n])?;
    let mut stored = bytes(&[w]) + lo.map_or(0.0, |lo| bytes(&[lo]));
    let moments = if eight_bit {
        let mut coded = || -> Result<Coded> {
            let codes = dev.zeros(Region::State, DType::U8, &[n])?;
            Ok(Coded { codes, scales: dev.zeros(Region::State, DType::F32, &[n.div_ceil(BLOCK)])? })
        };
        let (m, v) = (coded()?, coded()?);
        stored += bytes(&[m.codes, m.scales, v.codes, v.scales]);
        Moments::Code8 { m, v }
    } else {
        let (m, v) = (zeros(dev, DType::F32, &[n])?, zeros(dev, DType::F32, &[n])?);
        stored += bytes(&[m, v]);
        Moments::F32 { m, v }
    };
    let clip = dev.upload(Region::Overlay, &[1.0_f32, 1.0], &[2])?;
    let hp = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01, step: 1, seed: 1, param: 0 };
    let moved = 2.0 * stored + bytes(&[grad]);
    op(
        if eight_bit { "adamw step, 8 bits" } else { "adamw step" },
        format!("{n} parameters"),
        dtype,
        0.0,
        moved,
        move |dev| adamw::step(dev, adamw::Parameter { first: 0, w, lo, grad, moments }, &hp, clip),
    )
}

fn grad_norm_fwd(dev: &mut Device) -> Result<Case> {
    let grad = zeros(dev, DType::F32, &[PARAMETERS])?;
    let partials = zeros(dev, DType::F64, &[PARAMETERS.div_ceil(grad_norm::CHUNK)])?;
    let out = zeros(dev, DType::F32, &[3])?;
    let shape = format!("{PARAMETERS} parameters");
    op("grad_norm fwd", shape, DType::F32, 0.0, bytes(&[grad]), move |dev| {
        grad_norm::partials(dev, &[grad], partials)?;
        grad_norm::finish(dev, partials, 1.0, None, out)
    })
}

fn lane_sum_fwd(dev: &mut Device) -> Result<Case> {
    let (lanes, out) =
        (zeros(dev, DType::F32, &[LANES, PARAMETERS / LANES])?, zeros(dev, DType::F32, &[PARAMETERS / LANES])?);
    let shape = format!("{LANES} lanes of {} elements", out.len());
    op("lane_sum fwd", shape, DType::F32, 0.0, bytes(&[lanes, out]), move |dev| lane_sum::fwd(dev, lanes, out))
}

//! Tests of kernels/gemm_codes.cu: the bits of kernels/gemm.cu with the widened weight.

use half::bf16;
use omr_base::choice::BaseFormat;
use omr_runtime::device::{Device, KernelVariant};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::gemm::Qkv;
use omr_runtime::ops::input::{Input, Pair};
use omr_runtime::ops::matmul::Weight;
use omr_runtime::ops::{dequantize, linear};
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{blank, normals, uniform, up, weight};
use crate::kernels::{Outcome, Schedule, emu, equal, hopper_with, mutate_sites, mutate_source, same_bits};
use crate::ops::quantized::{FORMATS, encoded, upload_codes};

/// (T, K, rank): one row, both sides of the tiles' rows, several laps of the ring, and second pairs.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 64, 0), (5, 1344, 16), (16, 192, 1), (17, 64, 0), (64, 704, 130), (128, 128, 16)];
/// Number of columns: complete tiles, and one tile that is not.
const COLUMNS: [usize; 2] = [192, 160];

fn widened(dev: &mut Device, w: &Weight) -> Outcome<Weight> {
    let data = blank(dev, DType::Bf16, &[w.order.len(DType::Bf16, w.n, w.k)]);
    dequantize::fwd(dev, w, data)?;
    Ok(Weight::new(data, w.order, w.n, w.k))
}

/// Returns the results of all layers of `w`, of which `heads` belong to q, k and v.
pub fn layers(dev: &mut Device, (t, rank): (usize, usize), w: &Weight) -> Outcome<Vec<bf16>> {
    let (n, k) = (w.n, w.k);
    let x = up(dev, &normals::<bf16>(1, t * k), &[t, k]);
    let (bias, residual) = (up(dev, &uniform::<bf16>(2, n), &[n]), up(dev, &uniform::<bf16>(3, t * n), &[t, n]));
    let pair = match rank {
        0 => None,
        _ => Some(Pair {
            left: up(dev, &uniform::<bf16>(4, t * rank), &[t, rank]),
            right: weight(dev, &uniform::<bf16>(5, n * rank), n, rank),
        }),
    };
    let x = Input { x, pair };
    let (y, half) = (blank(dev, DType::Bf16, &[t, n]), blank(dev, DType::Bf16, &[t, n / 2]));
    linear::fwd(dev, x, w, Some(bias), Some(residual), y)?;
    let mut all = dev.read::<bf16>(y)?;
    if n.is_multiple_of(64) {
        linear::fwd_swiglu(dev, x, w, Some(bias), None, half)?;
        all.extend(dev.read::<bf16>(half)?);
    }
    let heads = Heads { q: n / 32 - 2, kv: 1, dim: 32 };
    let angles: Vec<f32> = (0..t * 16).map(|i| i as f32 / 7.0).collect();
    let [cos, sin] = [f32::cos as fn(f32) -> f32, f32::sin].map(|of| angles.iter().map(|x| of(*x)).collect::<Vec<_>>());
    let (cos, sin) = (up(dev, &cos, &[t, 16]), up(dev, &sin, &[t, 16]));
    linear::fwd_qkv(dev, Qkv { x, w, bias: Some(bias), cos, sin, heads, cache: None, qkv: y })?;
    all.extend(dev.read::<bf16>(y)?);
    Ok(all)
}

/// Returns a quantised weight of normal numbers.
pub fn codes(dev: &mut Device, format: BaseFormat, n: usize, k: usize) -> Weight {
    upload_codes(dev, format, DType::Bf16, &encoded(format, &normals::<f32>(9, n * k), k), k)
}

fn probe(dev: &mut Device) -> Outcome {
    for format in FORMATS {
        for (t, k, rank) in SHAPES {
            for n in COLUMNS {
                // On a device of its own, so that a mutation changes only the kernels under test.
                let plain = &mut emu();
                let w = codes(plain, format, n, k);
                let w = widened(plain, &w)?;
                let want = layers(plain, (t, rank), &w)?;
                let w = codes(dev, format, n, k);
                equal(&format!("{format:?} {t} x {n} x {k} + {rank}"), &layers(dev, (t, rank), &w)?, &want)?;
            }
        }
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_widened_weight() {
    probe(&mut emu()).unwrap();
    for format in FORMATS {
        same_bits(3, |dev| {
            let w = codes(dev, format, 160, 704);
            layers(dev, (17, 16), &w)
        });
    }
}

/// Rows of any number have the bits of rows alone, also where the widened weight is multiplied.
#[test]
fn a_row_has_its_bits_with_codes_and_with_the_copy() {
    for variant in [KernelVariant::Mma, KernelVariant::Wgmma] {
        for format in FORMATS {
            let mut dev = hopper_with(Schedule::FIXED);
            dev.use_variant(variant).unwrap();
            let w = codes(&mut dev, format, 128, 192);
            let y = |dev: &mut Device, t: usize| -> Outcome<Vec<bf16>> {
                let x = up(dev, &normals::<bf16>(1, t * 192), &[t, 192]);
                let y = blank(dev, DType::Bf16, &[t, 128]);
                linear::fwd(dev, x, &w, None, None, y)?;
                Ok(dev.read(y)?)
            };
            let all = y(&mut dev, 130).unwrap();
            for t in [1, 16, 40, 128] {
                equal(&format!("{variant:?} {format:?} {t}"), &y(&mut dev, t).unwrap(), &all[..t * 128]).unwrap();
            }
        }
    }
}

#[test]
#[ignore = "mutations"]
fn missing_synchronisation_and_mistakes_are_seen() {
    mutate_sites(&["kernels/common/gemm.cuh", "kernels/gemm_codes.cu"], 3, probe);
    for (from, to) in [
        ("step + 1 < loader.all", "step + 2 < loader.all"),
        ("put_w(ring, slot, step + 1)", "put_w(ring, present, step + 1)"),
        ("step + C - 1 < loader.steps", "step + C < loader.steps"),
        ("step % 2] + swizzled", "0] + swizzled"),
        ("block(plain.weight_rows[i], step)", "block(plain.weight_rows[i], step + 1)"),
        ("at % PARTS) * 4", "0) * 4"),
        ("int of_x = step - (C - X)", "int of_x = step - (C - X) + 1"),
        ("fetch_pair(step + 1)", "fetch_pair(step)"),
        ("(step - steps) * BLOCK_K + plain", "plain"),
    ] {
        mutate_source("gemm_codes", from, to, 1, probe);
    }
}

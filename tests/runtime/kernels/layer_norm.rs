//! Tests of kernels/layer_norm.cu: the bits of the CPU op.

use half::bf16;
use omr_runtime::device::Device;
use omr_runtime::ops::layer_norm::{self, Bwd};
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{blank, cpu, normals, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (rows, columns): one row, no row, numbers of rows near one and two chunks of 64, and more columns than one CTA of the
/// weights' gradients handles (1,024). 576 and 4,608 columns are those behind the shuffle of a tiny and of the real tower.
const SHAPES: [(usize, usize); 9] =
    [(1, 64), (5, 1152), (2, 136), (0, 64), (7, 8), (127, 64), (129, 136), (65, 576), (2, 4608)];

/// Returns y and dx, and the rows' mean and rstd and the gradients of both weights.
pub fn run(dev: &mut Device, (t, d): (usize, usize), accumulate: bool) -> Outcome<(Vec<bf16>, Vec<f32>)> {
    let dims = [t, d];
    let name = 10 * (t * 10_000 + d) as u64;
    let [x, dy, dx] = [1, 2, 3].map(|i| up(dev, &normals::<bf16>(name + i, t * d), &dims));
    let weights = [4, 5].map(|i| up(dev, &normals::<bf16>(name + i, d), &dims[1..]));
    let dweights = [6, 7].map(|i| up(dev, &normals::<f32>(name + i, d), &dims[1..]));
    let (y, stats) = (blank(dev, DType::Bf16, &dims), blank(dev, DType::F32, &[t, 2]));
    layer_norm::fwd(dev, x, weights, 1e-6, y, stats)?;
    layer_norm::bwd(dev, Bwd { x, gamma: weights[0], stats, dy, dx, accumulate, dweights: Some(dweights) })?;
    let mut floats: Vec<f32> = dev.read(stats)?;
    for dw in dweights {
        floats.extend(dev.read::<f32>(dw)?);
    }
    Ok(([dev.read::<bf16>(y)?, dev.read(dx)?].concat(), floats))
}

fn probe(dev: &mut Device, shapes: &[(usize, usize)]) -> Outcome {
    for &shape in shapes {
        for accumulate in [false, true] {
            let (got, want) = (run(dev, shape, accumulate)?, run(&mut cpu(), shape, accumulate)?);
            equal(&format!("{shape:?}, accumulate {accumulate}, bf16"), &got.0, &want.0)?;
            equal(&format!("{shape:?}, accumulate {accumulate}, f32"), &got.1, &want.1)?;
        }
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    probe(&mut emu(), &SHAPES).unwrap();
    same_bits(5, |dev| Ok(run(dev, (67, 136), true)?.0));
    same_bits(5, |dev| Ok(run(dev, (67, 136), true)?.1));
}

#[test]
fn rows_of_odd_length_are_refused_by_name() {
    let error = run(&mut emu(), (3, 100), false).unwrap_err().to_string();
    assert!(error.contains("layer_norm::fwd") && error.contains("a multiple of 8 columns"), "{error}");
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("chain[i] += e.v[i];", "chain[i] += e.v[i / 2];"),
        ("fmaf(e.v[i] - mean, e.v[i] - mean, chain[i])", "fmaf(e.v[i], e.v[i] - mean, chain[i])"),
        ("1.0f / sqrtf(variance + args.eps)", "1.0f / sqrtf(variance + 1e-5f)"),
        ("fmaf((e.v[i] - mean) * r, gamma.v[i], beta.v[i])", "fmaf((e.v[i] - mean) * r, gamma.v[i], 0.0f)"),
        ("make_float2(mean, r)", "make_float2(r, mean)"),
        ("chain[i] += g.v[i] * gamma.v[i];", "chain[i] += g.v[i];"),
        ("gamma.v[i] - along_1 - (e", "gamma.v[i] - (e"),
        ("(e.v[i] - mean) * r * along_x", "(e.v[i] - mean) * along_x"),
        ("had.v[i] + d", "d"),
        ("< CHUNK ? args.rows", "<= CHUNK ? args.rows - 1"),
        ("fmaf(dy.v[i], (x.v[i] - mean) * r, dgamma[i])", "fmaf(dy.v[i], x.v[i] * r, dgamma[i])"),
        ("args.dbeta + (column - args.cols)", "args.dbeta + column % 8"),
        ("float sum = *dw;", "float sum = 0.0f;"),
        ("row < args.rows; row += CHUNK", "row + CHUNK < args.rows; row += CHUNK"),
    ] {
        mutate_source("layer_norm", from, to, 1, |dev| probe(dev, &[(129, 136), (3, 1032)]));
    }
}

//! Tests of kernels/rope.cu: equal bits with the CPU op.

use half::bf16;
use omr_runtime::device::Device;
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::rope;

use crate::kernels::inputs::{cpu, normals, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (tokens, heads): half heads whose sizes are and are not multiples of 16 bytes, grouped heads, one token, no token.
const SHAPES: [(usize, (usize, usize, usize)); 8] = [
    (3, (28, 4, 128)),
    (5, (16, 2, 64)),
    (9, (3, 1, 12)),
    (7, (4, 2, 24)),
    (1, (2, 2, 80)),
    (3, (2, 2, 72)),
    (0, (2, 1, 16)),
    (40, (4, 2, 32)),
];

pub fn run(dev: &mut Device, t: usize, heads: Heads, back: bool) -> Outcome<Vec<bf16>> {
    let half = heads.dim / 2;
    let qkv = up(dev, &normals::<bf16>(1, t * heads.qkv_len()), &[t, heads.qkv_len()]);
    let angles = normals::<f32>(2, t * half);
    let cos: Vec<f32> = angles.iter().map(|a| a.cos()).collect();
    let sin: Vec<f32> = angles.iter().map(|a| a.sin()).collect();
    let (cos, sin) = (up(dev, &cos, &[t, half]), up(dev, &sin, &[t, half]));
    match back {
        false => rope::fwd(dev, qkv, cos, sin, heads)?,
        true => rope::bwd(dev, qkv, cos, sin, heads)?,
    }
    Ok(dev.read(qkv)?)
}

fn probe(dev: &mut Device) -> Outcome {
    for (t, (q, kv, dim)) in SHAPES {
        let heads = Heads { q, kv, dim };
        for back in [false, true] {
            let (got, want) = (run(dev, t, heads, back)?, run(&mut cpu(), t, heads, back)?);
            equal(&format!("{t} x {q}:{kv} x {dim}, back {back}"), &got, &want)?;
        }
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    probe(&mut emu()).unwrap();
    same_bits(4, |dev| run(dev, 40, Heads { q: 4, kv: 2, dim: 32 }, false));
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("fmaf(a, c, -(b * s))", "fmaf(a, c, b * s)"),
        ("uint32_t in_row = each * args.heads;", "uint32_t in_row = each * (args.heads + 1);"),
        ("row < (uint32_t)args.rows", "row <= (uint32_t)args.rows"),
        ("float s = at.sin[0] * args.sign;", "float s = at.sin[0];"),
    ] {
        mutate_source("rope", from, to, 1, probe);
    }
}

//! Tests of kernels/swiglu.cu: the same bits as the CPU op.

use half::bf16;
use omr_runtime::device::Device;
use omr_runtime::ops::swiglu;
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{blank, cpu, normals, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (rows, columns of dy).
const SHAPES: [(usize, usize); 5] = [(1, 32), (3, 96), (0, 64), (17, 160), (2, 3424)];

pub fn gradients(dev: &mut Device, t: usize, f: usize) -> Outcome<Vec<bf16>> {
    let gate_up = up(dev, &normals::<bf16>(1, 2 * t * f), &[t, 2 * f]);
    let dy = up(dev, &normals::<bf16>(2, t * f), &[t, f]);
    let dgate_up = blank(dev, DType::Bf16, &[t, 2 * f]);
    swiglu::bwd(dev, gate_up, dy, dgate_up)?;
    Ok(dev.read(dgate_up)?)
}

fn probe(dev: &mut Device) -> Outcome {
    for (t, f) in SHAPES {
        equal(&format!("{t} x {f}"), &gradients(dev, t, f)?, &gradients(&mut cpu(), t, f)?)?;
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    probe(&mut emu()).unwrap();
    same_bits(3, |dev| gradients(dev, 17, 160));
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("math::silu_grad(g[0])", "math::silu_grad(u[0])"),
        ("d[1] * math::silu(g[1])", "math::silu(g[1])"),
        ("at / BLOCK * (2 * BLOCK)", "at / BLOCK * BLOCK"),
    ] {
        mutate_source("swiglu", from, to, 1, probe);
    }
}

//! Tests of kernels/gelu.cu: the same bits as the CPU op.

use half::bf16;
use omr::device::Device;
use omr::ops::gelu;
use omr::tensor::DType;

use crate::kernels::inputs::{blank, cpu, normals, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (rows, columns), including sizes that are not multiples of a thread's eight elements.
const SHAPES: [(usize, usize); 5] = [(1, 1), (3, 7), (0, 64), (17, 160), (5, 1283)];

pub fn gradients(dev: &mut Device, t: usize, n: usize) -> Outcome<Vec<bf16>> {
    let pre = up(dev, &normals::<bf16>(1, t * n), &[t, n]);
    let dy = up(dev, &normals::<bf16>(2, t * n), &[t, n]);
    let dpre = blank(dev, DType::Bf16, &[t, n]);
    gelu::bwd(dev, pre, dy, dpre)?;
    Ok(dev.read(dpre)?)
}

fn probe(dev: &mut Device) -> Outcome {
    for (t, n) in SHAPES {
        equal(&format!("{t} x {n}"), &gradients(dev, t, n)?, &gradients(&mut cpu(), t, n)?)?;
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
        ("hi(d) * math::gelu_grad(hi(x))", "hi(d) * math::gelu_grad(lo(x))"),
        ("i < args.len; i++", "i + 1 < args.len; i++"),
    ] {
        mutate_source("gelu", from, to, 1, probe);
    }
}

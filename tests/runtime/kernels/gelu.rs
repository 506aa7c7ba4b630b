//! Tests of kernels/gelu.cu: the same bits as the CPU op.

use half::bf16;
use omr_runtime::device::Device;
use omr_runtime::ops::gelu::{self, GeluKind};
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{blank, cpu, normals, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (rows, columns), including sizes that are not multiples of a thread's eight elements.
const SHAPES: [(usize, usize); 5] = [(1, 1), (3, 7), (0, 64), (17, 160), (5, 1283)];

pub fn gradients(dev: &mut Device, kind: GeluKind, t: usize, n: usize) -> Outcome<Vec<bf16>> {
    let pre = up(dev, &normals::<bf16>(1, t * n), &[t, n]);
    let dy = up(dev, &normals::<bf16>(2, t * n), &[t, n]);
    let dpre = blank(dev, DType::Bf16, &[t, n]);
    gelu::bwd(dev, kind, pre, dy, dpre)?;
    Ok(dev.read(dpre)?)
}

fn probe(dev: &mut Device) -> Outcome {
    for kind in [GeluKind::Exact, GeluKind::Tanh] {
        for (t, n) in SHAPES {
            let want = gradients(&mut cpu(), kind, t, n)?;
            equal(&format!("{kind:?} {t} x {n}"), &gradients(dev, kind, t, n)?, &want)?;
        }
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    probe(&mut emu()).unwrap();
    same_bits(3, |dev| gradients(dev, GeluKind::Tanh, 17, 160));
}

/// Tests the slope at all numbers of bf16 whose square is finite.
#[test]
fn every_number_has_the_slope_of_the_cpu() {
    let all: Vec<bf16> = (0..=u16::MAX).map(bf16::from_bits).filter(|x| x.to_f32().abs() < 1e18).collect();
    for kind in [GeluKind::Exact, GeluKind::Tanh] {
        let slopes = |dev: &mut Device| -> Outcome<Vec<bf16>> {
            let (pre, dy) = (up(dev, &all, &[1, all.len()]), up(dev, &vec![bf16::ONE; all.len()], &[1, all.len()]));
            let dpre = blank(dev, DType::Bf16, &[1, all.len()]);
            gelu::bwd(dev, kind, pre, dy, dpre)?;
            Ok(dev.read(dpre)?)
        };
        equal(&format!("{kind:?}"), &slopes(&mut emu()).unwrap(), &slopes(&mut cpu()).unwrap()).unwrap();
    }
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("hi(d) * slope<TANH>(hi(x))", "hi(d) * slope<TANH>(lo(x))"),
        ("TANH ? math::gelu_tanh_grad(x) :", "false ? math::gelu_tanh_grad(x) :"),
        ("i < args.len; i++", "i + 1 < args.len; i++"),
    ] {
        mutate_source("gelu", from, to, 1, probe);
    }
}

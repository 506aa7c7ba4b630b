//! Tests of kernels/nll.cu: equal bits with the CPU, which sums in the same order.

use omr_runtime::device::{Device, Region};
use omr_runtime::ops::nll;
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{blank, cpu, normals, up};
use crate::kernels::{Outcome, emu, equal, mutate_sites, mutate_source, same_bits};

/// Lengths near the threads of a warp (32) and of a CTA (256) and near a chunk (8,192), and a length of several chunks.
const LENGTHS: [usize; 7] = [0, 1, 33, 255, 257, 8_192, 20_001];

/// Returns the loss after two micro-batches, and the gradient.
fn loss(dev: &mut Device, len: usize) -> Outcome<(f64, Vec<f32>)> {
    let log_prob: Vec<f32> = normals::<f32>(1, len).iter().map(|x| -x.abs()).collect();
    let log_prob = up(dev, &log_prob, &[len]);
    let dlog_prob = blank(dev, DType::F32, &[len]);
    let loss = dev.zeros(Region::Overlay, DType::F64, &[1])?;
    for _ in 0..2 {
        nll::fwd(dev, log_prob, 0.5 / len.max(1) as f64, dlog_prob, loss)?;
    }
    Ok((dev.read::<f64>(loss)?[0], dev.read::<f32>(dlog_prob)?))
}

fn probe(dev: &mut Device) -> Outcome {
    for len in LENGTHS {
        let (want, got) = (loss(&mut cpu(), len)?, loss(dev, len)?);
        equal("dlog_prob", &got.1, &want.1)?;
        if got.0.to_bits() != want.0.to_bits() {
            return Err(format!("{len}: {}, expected {}", got.0, want.0).into());
        }
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu_and_the_mean_is_right() {
    probe(&mut emu()).unwrap();
    for len in LENGTHS.into_iter().filter(|&len| len > 0) {
        let values = normals::<f32>(1, len);
        let want = values.iter().map(|x| f64::from(x.abs())).sum::<f64>() / len as f64;
        let (mean, grad) = loss(&mut cpu(), len).unwrap();
        // Fewer than 2^15 terms of one sign in f64.
        assert!((mean - want).abs() <= 2f64.powi(-37) * want, "{mean}, {want}");
        assert!(grad.iter().all(|&g| g == (-0.5 / len as f64) as f32));
    }
    same_bits(4, |dev| Ok(vec![loss(dev, LENGTHS[6])?.0]));
}

#[test]
fn the_barrier_is_needed() {
    mutate_sites(&["kernels/nll.cu"], 6, probe);
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [("i < args.count; i++", "i < 1; i++"), ("args.loss[0] -= sum", "args.loss[0] = -sum")] {
        mutate_source("nll", from, to, 1, probe);
    }
}

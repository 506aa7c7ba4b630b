//! Tests of kernels/linear_logprob.cu: against f64, and the same bits from every tile, batch and schedule.

use half::bf16;
use omr_runtime::device::{Device, Target};
use omr_runtime::ops::linear_logprob;
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{bitmap, blank, cpu, normals, random, up, weight};
use crate::kernels::{Outcome, emu, kind, mutate_sites, mutate_source, same_bits};

/// (T, V, K): one row, no row; V not a multiple of the segment or the bitmap's word; several segments; every tile; rows
/// of x that start at multiples of 2, 8 and 16 bytes; more segments than a warp folds at once.
const SHAPES: [(usize, usize, usize); 7] =
    [(1, 130, 64), (0, 64, 8), (13, 33, 100), (70, 1100, 136), (20, 513, 17), (131, 200, 72), (3, 4500, 8)];

pub struct Case {
    t: usize,
    v: usize,
    k: usize,
    hidden: Vec<bf16>,
    w: Vec<bf16>,
    targets: Vec<u32>,
    allowed: Option<Vec<bool>>,
    temperature: f32,
}

pub fn case((t, v, k): (usize, usize, usize), masked: bool, temperature: f32) -> Case {
    let mut random = random(v as u64);
    let allowed = masked.then(|| (0..v).map(|i| i == 5 || random.below(3) > 0).collect::<Vec<_>>());
    let mut target = || loop {
        let id = random.below(v as u64) as usize;
        if allowed.as_ref().is_none_or(|a| a[id]) {
            break id as u32;
        }
    };
    let targets = (0..t).map(|_| target()).collect();
    let hidden = normals::<bf16>(1, t * k).iter().map(|x| bf16::from_f32(x.to_f32() * 0.5)).collect();
    Case { t, v, k, hidden, w: normals(2, v * k), targets, allowed, temperature }
}

/// Returns log_prob, lse and entropy of rows `from..to`.
pub fn run(dev: &mut Device, c: &Case, from: usize, to: usize) -> Outcome<[Vec<f32>; 3]> {
    let n = to - from;
    let hidden = up(dev, &c.hidden[from * c.k..to * c.k], &[n, c.k]);
    let w = weight(dev, &c.w, c.v, c.k);
    let words = c.allowed.as_ref().map(|a| bitmap(a));
    let allowed = words.map(|b| up(dev, &b, &[b.len()]));
    let targets = up(dev, &c.targets[from..to], &[n]);
    let [log_prob, lse, entropy] = [0; 3].map(|_| blank(dev, DType::F32, &[n]));
    linear_logprob::fwd(
        dev,
        linear_logprob::LogProbCall { hidden, w: &w, allowed, temperature: c.temperature, targets },
        linear_logprob::Outs { log_prob, lse, entropy: Some(entropy), logits: None },
    )?;
    let again = blank(dev, DType::F32, &[n]);
    linear_logprob::fwd(
        dev,
        linear_logprob::LogProbCall { hidden, w: &w, allowed, temperature: c.temperature, targets },
        linear_logprob::Outs { log_prob: again, lse, entropy: None, logits: None },
    )?;
    let outs = [dev.read(log_prob)?, dev.read(lse)?, dev.read(entropy)?];
    let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    if bits(&dev.read::<f32>(again)?) != bits(&outs[0]) {
        return Err("log-probs depend on whether the entropy is wanted".into());
    }
    Ok(outs)
}

/// Returns log_prob, lse and entropy in f64, and a bound on the error of a row's logits.
fn truth(c: &Case) -> Vec<([f64; 3], f64)> {
    let scale = f64::from(if c.temperature == 0.0 { 1.0 } else { 1.0 / c.temperature });
    let row = |row: usize| {
        let mut error = 0f64;
        let z: Vec<f64> = (0..c.v)
            .map(|v| {
                let products = (0..c.k)
                    .map(|i| f64::from(c.hidden[row * c.k + i].to_f32()) * f64::from(c.w[v * c.k + i].to_f32()));
                let magnitude: f64 = products.clone().map(f64::abs).sum();
                // Each of the K products is exact in f32 and is added with one rounding. The scale adds one more
                // rounding.
                error = error.max(scale * magnitude * (c.k + 2) as f64 * 2f64.powi(-24));
                let on = c.allowed.as_ref().is_none_or(|a| a[v]);
                if on { products.sum::<f64>() * scale } else { f64::NEG_INFINITY }
            })
            .collect();
        let lse = z.iter().map(|z| z.exp()).sum::<f64>().ln();
        let entropy = z.iter().filter(|z| z.is_finite()).map(|z| (z - lse).exp() * (lse - z)).sum();
        ([z[c.targets[row] as usize] - lse, lse, entropy], error)
    };
    (0..c.t).map(row).collect()
}

fn probe(dev: &mut Device, c: &Case) -> Outcome<f64> {
    let got = run(dev, c, 0, c.t)?;
    let mut largest = 0f64;
    for (row, (want, z_error)) in truth(c).into_iter().enumerate() {
        // As for the CPU op: sums of V exponentials in lanes and segments of 128 cost V / 128 + 16 roundings, and ln
        // and the rest cost 4 ulp. The entropy also has the weight z - lse, so its error grows with that of the logits.
        let bound = 2.0 * z_error + (c.v as f64 / 128.0 + 16.0 + 4.0 * want[1].abs()) * 2f64.powi(-24);
        let bounds = [bound, bound, 8.0 * bound * (1.0 + want[2].abs())];
        for (i, name) in ["log_prob", "lse", "entropy"].iter().enumerate() {
            let error = (f64::from(got[i][row]) - want[i]).abs();
            largest = largest.max(error / bounds[i]);
            if error.is_nan() || error > bounds[i] {
                return Err(
                    format!("{name} of row {row}: {} for {}, bound {:e}", got[i][row], want[i], bounds[i]).into()
                );
            }
        }
    }
    Ok(largest)
}

#[test]
fn numbers_are_right_for_every_shape() {
    for shape in SHAPES {
        for (masked, temperature) in [(false, 1.0), (true, 0.7), (true, 0.0)] {
            let c = case(shape, masked, temperature);
            let share = probe(&mut emu(), &c).unwrap_or_else(|e| panic!("{shape:?}, masked {masked}: {e}"));
            println!("{shape:?}, masked {masked}, temperature {temperature}: {share:.3} of the bound");
            // The CPU's bf16 run must meet the same bound.
            probe(&mut cpu(), &c).unwrap();
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_and_under_every_schedule() {
    let c = case((131, 200, 72), true, 0.7);
    let all = same_bits(3, |dev| Ok(run(dev, &c, 0, c.t)?.concat()));
    // Rows for tiles of 16, 64 and 128 rows.
    for (from, to) in [(0, 1), (7, 23), (40, 41), (50, 114), (1, 131)] {
        let some = run(&mut emu(), &c, from, to).unwrap();
        for (i, some) in some.iter().enumerate() {
            assert_eq!(*some, all[i * c.t..][from..to], "rows {from}..{to}");
        }
    }
}

#[test]
fn what_cannot_be_is_told_apart() {
    let mut c = case((3, 130, 64), true, 1.0);
    let allowed = c.allowed.as_mut().unwrap();
    allowed[129] = false;
    c.targets = vec![129, 130, 5];
    let [log_prob, ..] = run(&mut emu(), &c, 0, 3).unwrap();
    assert_eq!(log_prob[0], f32::NEG_INFINITY, "a target that is not allowed");
    assert!(log_prob[1].is_nan(), "a target that is no id");
    assert!(log_prob[2].is_finite());
}

#[test]
fn what_is_counted_is_what_is_taken() {
    let c = case((33, 300, 40), true, 1.0);
    let run = |mut dev: Device| {
        run(&mut dev, &c, 0, c.t).unwrap();
        dev.high_water()
    };
    let counted = run(Device::count_for(Target::gpu(kind())));
    assert_eq!(format!("{counted:?}"), format!("{:?}", run(emu())));
}

#[test]
fn every_synchronising_call_is_needed() {
    let c = case((5, 140, 200), true, 0.7);
    mutate_sites(&["kernels/linear_logprob.cu", "kernels/common/logits.cuh", "kernels/common/gemm.cuh"], 4, |dev| {
        probe(dev, &c).map(|_| ())
    });
}

#[test]
fn changes_by_hand_are_seen() {
    let cases = [case((5, 140, 64), true, 0.7), case((5, 140, 64), false, 1.0), case((3, 4500, 8), true, 1.0)];
    let probe = |dev: &mut Device| cases.iter().try_for_each(|c| probe(dev, c).map(|_| ()));
    for (from, to) in [
        ("n / logits::SEGMENT, v);", "0, v);"),
        ("rows.j + i * logits::LANES)) to.logit", "rows.j + i * logits::LANES + 1)) to.logit"),
        ("if (row < in.rows) {", "{"),
        (
            "logits::Logits z(tile, rows.row(), rows.j, to.scale, mask);",
            "logits::Logits z(tile, rows.row(), rows.j, 1.0f, mask);",
        ),
    ] {
        mutate_source("linear_logprob", from, to, 1, probe);
    }
    for (from, to) in [
        ("weighted = fmaf(e, d, weighted);", "weighted = fmaf(e, row.z[i], weighted);"),
        ("seen |= mask;", "seen = 0;"),
        ("f.max = isa::shfl(now, reduce::WARP - 1);", "f.max = isa::shfl(now, 0);"),
        ("inside >= 32 ? 0xffffffffu", "inside >= 2 ? 0xffffffffu"),
        ("bitmap ? exists & bitmap[n / 32] : exists", "exists"),
    ] {
        mutate_source("common/logits.cuh", from, to, 1, probe);
    }
}

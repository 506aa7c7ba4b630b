//! Tests of kernels/grad_norm.cu against f64.

use omr_runtime::device::Device;

use crate::kernels::inputs::{cpu, normals, up};
use crate::kernels::{Outcome, emu, equal, mutate_sites, mutate_source, same_bits};
use crate::ops::grad_norm;

/// Gradients of several sizes, beyond a chunk of 65,536.
const LENGTHS: [&[usize]; 4] = [&[1], &[7, 1024, 5], &[65_536, 3], &[70_003, 65_535]];

pub fn norm(dev: &mut Device, lengths: &[usize], max_norm: f32, spoil: Option<f32>) -> Outcome<Vec<f32>> {
    let mut grads = Vec::new();
    for (i, len) in lengths.iter().enumerate() {
        let mut values = normals::<f32>(i as u64, *len);
        if let (Some(bad), 0) = (spoil, i) {
            values[len / 2] = bad;
        }
        grads.push(up(dev, &values, &[*len]));
    }
    let whole = grad_norm::norm(dev, &grads, max_norm, None, usize::MAX);
    let cut = grad_norm::norm(dev, &grads, max_norm, None, 1);
    equal("by chunks", &cut[1..], &whole[1..])?;
    Ok(whole)
}

fn probe(dev: &mut Device) -> Outcome {
    for lengths in LENGTHS {
        for max_norm in [0.5, 1e9] {
            let values = lengths.iter().enumerate().flat_map(|(i, len)| normals::<f32>(i as u64, *len));
            let want = values.map(|x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
            let got = norm(dev, lengths, max_norm, None)?;
            // Sums are in f64 and rounded once to f32. The factor is rounded twice more.
            let factor = (f64::from(max_norm) / (want + 1e-6)).min(1.0);
            for (got, want, ulps) in [(got[0], want, 1.0), (got[1], factor, 3.0), (got[2], 1.0, 0.0)] {
                let allowed = ulps * want * f64::from(f32::EPSILON);
                if (f64::from(got) - want).abs() > allowed {
                    return Err(format!("{lengths:?}, at most {max_norm}: {got}, expected {want}").into());
                }
            }
        }
    }
    Ok(())
}

#[test]
fn norm_and_factor_are_right() {
    probe(&mut emu()).unwrap();
    same_bits(4, |dev| norm(dev, LENGTHS[3], 0.5, None));
}

#[test]
fn what_is_not_finite_turns_the_flag_off() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (found, want) =
            (norm(&mut emu(), &[9, 5], 1.0, Some(bad)).unwrap(), norm(&mut cpu(), &[9, 5], 1.0, Some(bad)));
        assert_eq!(found[1..], want.unwrap()[1..]);
        assert_eq!(found[1..], [0.0, 0.0]);
    }
}

#[test]
fn a_loss_that_is_not_finite_turns_the_flag_off() {
    for mut dev in [emu(), cpu()] {
        let grads = [up(&mut dev, &[3.0f32, 4.0], &[2])];
        let losses = [vec![1.0, -2.0], vec![1.0, f64::NAN], vec![f64::INFINITY, 0.0], vec![0.0, f64::NEG_INFINITY]];
        for (i, losses) in losses.iter().enumerate() {
            let guard = up(&mut dev, losses, &[2]);
            let found = grad_norm::norm(&mut dev, &grads, 10.0, Some(guard), usize::MAX);
            let on = if i == 0 { 1.0 } else { 0.0 };
            assert_eq!(found, [5.0, on, on], "{losses:?}");
        }
    }
}

#[test]
fn the_barrier_is_needed() {
    mutate_sites(&["kernels/grad_norm.cu"], 6, probe);
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("w < WARPS; w++", "w < WARPS - 1; w++"),
        ("j < count; j++", "j + 1 < count; j++"),
        ("(factor < 1.0f ? factor : 1.0f)", "factor"),
    ] {
        mutate_source("grad_norm", from, to, 1, probe);
    }
}

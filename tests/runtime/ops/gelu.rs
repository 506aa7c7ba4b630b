//! Tests the GELU op and its gradients against f64 formulas.

use omr_runtime::ops::gelu::{self, GeluKind};
use omr_runtime::ops::linear;

use super::*;

/// Returns erf by its series, correct to 1e-14 for the |x| < 10 of these tests.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

/// Both formulas of GELU.
pub const KINDS: [GeluKind; 2] = [GeluKind::Exact, GeluKind::Tanh];

/// Returns GELU in f64.
pub fn formula(kind: GeluKind, x: f64) -> f64 {
    0.5 * x
        * match kind {
            GeluKind::Exact => 1.0 + erf(x / 2f64.sqrt()),
            GeluKind::Tanh => 1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh(),
        }
}

#[test]
fn forward_is_gelu_of_the_unrounded_value() {
    for (kind, dtype) in KINDS.into_iter().flat_map(|kind| [(kind, DType::F32), (kind, DType::Bf16)]) {
        for (t, n, k) in [(37, 96, 31), (1, 40, 96), (13, 129, 20)] {
            let (x, w, bias) = (values(dtype, 1, t * k), values(dtype, 2, n * k), values(dtype, 3, n));
            let (mut pre, mut mag) = (vec![], vec![]);
            for i in 0..t * n {
                let terms = (0..k).map(|j| f64::from(x[i / n * k + j]) * f64::from(w[i % n * k + j]));
                let b = f64::from(bias[i % n]);
                pre.push(terms.clone().sum::<f64>() + b);
                mag.push(terms.map(f64::abs).sum::<f64>() + b.abs());
            }
            let want: Vec<f64> = pre.iter().map(|&x| formula(kind, x)).collect();
            let mut first: Option<Vec<f32>> = None;
            for mut dev in devices() {
                let xt = upload(&mut dev, dtype, &x, &[t, k]);
                let wt = weight(&mut dev, dtype, &w, n, k);
                let bt = upload(&mut dev, dtype, &bias, &[n]);
                let keep = dev.alloc(Region::Overlay, dtype, &[t, n]).unwrap();
                let y = dev.alloc(Region::Overlay, dtype, &[t, n]).unwrap();
                linear::fwd_gelu(&mut dev, kind, xt, &wt, Some(bt), Some(keep), y).unwrap();
                let got = read(&mut dev, y);
                // |gelu'| < 1.13. The error of 1 + erf is at most 2 ulp of 1, and it is multiplied by x.
                close("gelu", &got, &want, |i| {
                    let error = 1.13 * chain_error(k, mag[i]) + 4.0 * 2f64.powi(-24) * pre[i].abs();
                    error + half_ulp(dtype, want[i].abs() + error)
                });
                close("pre", &read(&mut dev, keep), &pre, |i| {
                    chain_error(k, mag[i]) + half_ulp(dtype, pre[i].abs() * 1.01)
                });
                linear::fwd_gelu(&mut dev, kind, xt, &wt, Some(bt), None, y).unwrap();
                same_bits("without keeping pre", &read(&mut dev, y), &got);
                if dtype == DType::F32 || dev.isa() == Isa::detect() {
                    same_bits("gelu", &got, first.get_or_insert_with(|| got.clone()));
                }
            }
        }
    }
}

#[test]
fn backward_matches_finite_differences() {
    for (kind, dtype) in KINDS.into_iter().flat_map(|kind| [(kind, DType::F32), (kind, DType::Bf16)]) {
        let (t, n) = (90, 101);
        let pre: Vec<f32> = values(dtype, 1, t * n).iter().map(|x| round(dtype, x * 6.0)).collect();
        let dy = values(dtype, 2, t * n);
        let h = 1e-5;
        let slope = |x: f64| (formula(kind, x + h) - formula(kind, x - h)) / (2.0 * h);
        let want: Vec<f64> = pre.iter().zip(&dy).map(|(&x, &d)| f64::from(d) * slope(f64::from(x))).collect();
        let mut first: Option<Vec<f32>> = None;
        for mut dev in devices() {
            let pre = upload(&mut dev, dtype, &pre, &[t, n]);
            let dy = upload(&mut dev, dtype, &dy, &[t, n]);
            let out = dev.alloc(Region::Overlay, dtype, &[t, n]).unwrap();
            gelu::bwd(&mut dev, kind, pre, dy, out).unwrap();
            let got = read(&mut dev, out);
            // The derivative is a sum of terms below 1.2, with at most 8 roundings. Finite differences add 1e-9.
            close("dpre", &got, &want, |i| 10.0 * 2f64.powi(-24) + half_ulp(dtype, want[i]) + 1e-9);
            same_bits("dpre", &got, first.get_or_insert_with(|| got.clone()));
        }
    }
}

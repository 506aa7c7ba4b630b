//! Tests the SwiGLU op and its gradients against f64 formulas.

use omr_runtime::ops::{linear, swiglu};

use super::*;

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// Returns the column of gate `j` in the interleaved order. The column of up `j` is 32 columns to the right.
fn gate_at(j: usize) -> usize {
    j / 32 * 64 + j % 32
}

#[test]
fn forward_is_silu_of_gate_times_up_from_unrounded_values() {
    for dtype in [DType::F32, DType::Bf16] {
        for (t, f, k) in [(37, 96, 31), (1, 32, 96), (4, 160, 100), (0, 32, 4), (50, 256, 96)] {
            let x = values(dtype, 1, t * k);
            let w: Vec<f32> = values(dtype, 2, 2 * f * k);
            let bias = values(dtype, 3, 2 * f);
            let sum = |row: usize, col: usize| {
                (0..k).fold((f64::from(bias[col]), f64::from(bias[col]).abs()), |(s, m), i| {
                    let term = f64::from(x[row * k + i]) * f64::from(w[col * k + i]);
                    (s + term, m + term.abs())
                })
            };
            let (mut want, mut bounds, mut want_keep, mut keep_bounds) = (vec![], vec![], vec![], vec![]);
            for row in 0..t {
                for j in 0..f {
                    let ((g, gm), (u, um)) = (sum(row, gate_at(j)), sum(row, gate_at(j) + 32));
                    let (eg, eu) = (chain_error(k, gm), chain_error(k, um));
                    want.push(silu(g) * u);
                    // |silu'| < 1.1. The error of silu itself is at most 3 ulp.
                    let error = 1.1 * eg * (u.abs() + eu) + (silu(g).abs() + 1.1 * eg) * eu;
                    bounds.push(
                        error + 4.0 * half_ulp(DType::F32, silu(g) * u) + half_ulp(dtype, (silu(g) * u).abs() + error),
                    );
                }
                for col in 0..2 * f {
                    let (s, m) = sum(row, col);
                    want_keep.push(s);
                    keep_bounds.push(chain_error(k, m) + half_ulp(dtype, s.abs() + chain_error(k, m)));
                }
            }
            let mut first: Option<Vec<f32>> = None;
            for mut dev in devices() {
                let xt = upload(&mut dev, dtype, &x, &[t, k]);
                let wt = weight(&mut dev, dtype, &w, 2 * f, k);
                let bt = upload(&mut dev, dtype, &bias, &[2 * f]);
                let keep = dev.alloc(Region::Overlay, dtype, &[t, 2 * f]).unwrap();
                let y = dev.alloc(Region::Overlay, dtype, &[t, f]).unwrap();
                linear::fwd_swiglu(&mut dev, xt, &wt, Some(bt), Some(keep), y).unwrap();
                let got = read(&mut dev, y);
                close("swiglu", &got, &want, |i| bounds[i]);
                close("gate_up", &read(&mut dev, keep), &want_keep, |i| keep_bounds[i]);
                linear::fwd_swiglu(&mut dev, xt, &wt, Some(bt), None, y).unwrap();
                same_bits("without keeping gate_up", &read(&mut dev, y), &got);
                if dtype == DType::F32 || dev.isa() == Isa::detect() {
                    same_bits("swiglu", &got, first.get_or_insert_with(|| got.clone()));
                }
            }
        }
    }
}

#[test]
fn backward_matches_finite_differences() {
    for dtype in [DType::F32, DType::Bf16] {
        let (t, f) = (37, 96);
        let gate_up: Vec<f32> = values(dtype, 1, t * 2 * f).iter().map(|x| round(dtype, x * 6.0)).collect();
        let dy = values(dtype, 2, t * f);
        let mut want = vec![0.0; t * 2 * f];
        // Central differences of the f64 formula. Here the error h^2 |f'''| / 6 is below 1e-9.
        let h = 1e-5;
        for row in 0..t {
            for j in 0..f {
                let (at, d) = (row * 2 * f + gate_at(j), f64::from(dy[row * f + j]));
                let (g, u) = (f64::from(gate_up[at]), f64::from(gate_up[at + 32]));
                want[at] = d * u * (silu(g + h) - silu(g - h)) / (2.0 * h);
                want[at + 32] = d * silu(g);
            }
        }
        let mut first: Option<Vec<f32>> = None;
        for mut dev in devices() {
            let gate_up = upload(&mut dev, dtype, &gate_up, &[t, 2 * f]);
            let dy = upload(&mut dev, dtype, &dy, &[t, f]);
            let out = dev.alloc(Region::Overlay, dtype, &[t, 2 * f]).unwrap();
            swiglu::bwd(&mut dev, gate_up, dy, out).unwrap();
            let got = read(&mut dev, out);
            // silu' sums terms of size up to |x| / 4 + 1 = 2.5, times |u| <= 6: 8 roundings of 2^-24 * 15.
            close("dgate_up", &got, &want, |i| 8.0 * 15.0 * 2f64.powi(-24) + half_ulp(dtype, want[i]) + 1e-9);
            same_bits("dgate_up", &got, first.get_or_insert_with(|| got.clone()));
        }
    }
}

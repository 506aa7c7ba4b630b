//! Tests the op that computes log-probs and entropies from hidden states, and its gradients, against f64 formulas.

use omr_runtime::ops::linear_logprob;

use super::panels::{pack_order, unpack_order};
use super::*;

/// Inputs of one case. `allowed` has one flag per id.
struct Case {
    t: usize,
    v: usize,
    d: usize,
    hidden: Vec<f32>,
    w: Vec<f32>,
    targets: Vec<u32>,
    allowed: Option<Vec<bool>>,
    temperature: f32,
}

/// (T, V, D): one row, no rows, V that is not a multiple of a panel or segment, V of several segments, and V of more
/// than one slab.
const SHAPES: [(usize, usize, usize); 6] =
    [(37, 512, 96), (1, 130, 7), (0, 64, 8), (13, 33, 100), (70, 1300, 24), (5, 2080, 17)];

fn case(dtype: DType, (t, v, d): (usize, usize, usize), masked: bool, temperature: f32) -> Case {
    let mut random = Random::new(5, Purpose::Test, v as u64);
    let allowed = masked.then(|| (0..v).map(|_| random.below(3) > 0).collect::<Vec<_>>());
    let targets = (0..t).map(|_| {
        loop {
            let id = random.below(v as u64) as usize;
            if allowed.as_ref().is_none_or(|a| a[id]) {
                break id as u32;
            }
        }
    });
    Case {
        t,
        v,
        d,
        targets: targets.collect(),
        hidden: values(dtype, 1, t * d).iter().map(|x| round(dtype, x * 2.0)).collect(),
        w: values(dtype, 2, v * d),
        allowed,
        temperature,
    }
}

fn bitmap(allowed: &[bool]) -> Vec<u32> {
    allowed.chunks(32).map(|c| c.iter().enumerate().map(|(i, &on)| u32::from(on) << i).sum()).collect()
}

/// Reference values in f64: logits (`None` for ids that are not allowed), their error bound, logsumexp and entropy.
struct Truth {
    z: Vec<Vec<Option<f64>>>,
    z_error: Vec<f64>,
    lse: Vec<f64>,
    entropy: Vec<f64>,
}

fn truth(c: &Case) -> Truth {
    let scale = f64::from(if c.temperature == 0.0 { 1.0 } else { 1.0 / c.temperature });
    let mut out = Truth { z: vec![], z_error: vec![], lse: vec![], entropy: vec![] };
    for row in 0..c.t {
        let mut error = 0f64;
        let z: Vec<Option<f64>> = (0..c.v)
            .map(|v| {
                let terms = (0..c.d).map(|i| f64::from(c.hidden[row * c.d + i]) * f64::from(c.w[v * c.d + i]));
                let mag: f64 = terms.clone().map(f64::abs).sum();
                error = error.max(scale * chain_error(c.d + 2, mag));
                c.allowed.as_ref().is_none_or(|a| a[v]).then(|| terms.sum::<f64>() * scale)
            })
            .collect();
        let lse = z.iter().flatten().map(|z| z.exp()).sum::<f64>().ln();
        let entropy = z.iter().flatten().map(|z| (z - lse).exp() * (lse - z)).sum();
        out.z.push(z);
        out.z_error.push(error);
        out.lse.push(lse);
        out.entropy.push(entropy);
    }
    out
}

struct On {
    hidden: Tensor,
    w: Weight,
    allowed: Option<Tensor>,
    targets: Tensor,
    log_prob: Tensor,
    lse: Tensor,
    entropy: Tensor,
    logits: Tensor,
}

fn forward(dev: &mut Device, dtype: DType, c: &Case) -> (On, Vec<f32>, Vec<f32>, Vec<f32>) {
    let hidden = upload(dev, dtype, &c.hidden, &[c.t, c.d]);
    let w = weight(dev, dtype, &c.w, c.v, c.d);
    let words = c.allowed.as_ref().map(|a| bitmap(a));
    let allowed = words.map(|b| dev.upload(Region::Overlay, &b, &[b.len()]).unwrap());
    let targets = dev.upload(Region::Overlay, &c.targets, &[c.t]).unwrap();
    let mut out = |dims: &[usize]| dev.alloc(Region::Overlay, DType::F32, dims).unwrap();
    let (log_prob, lse, entropy) = (out(&[c.t]), out(&[c.t]), out(&[c.t]));
    let on = On { hidden, w, allowed, targets, log_prob, lse, entropy, logits: out(&[c.t, c.v.next_multiple_of(32)]) };
    linear_logprob::fwd(
        dev,
        linear_logprob::LogProbCall { hidden, w: &w, allowed, temperature: c.temperature, targets },
        linear_logprob::Outs { log_prob, lse, entropy: Some(entropy), logits: Some(on.logits) },
    )
    .unwrap();
    let read = [on.log_prob, on.lse, on.entropy].map(|t| dev.read::<f32>(t).unwrap());
    let [a, b, e] = read;
    (on, a, b, e)
}

#[test]
fn forward_matches_f64_and_its_bits_do_not_vary() {
    for dtype in [DType::F32, DType::Bf16] {
        for shape in SHAPES {
            for (masked, temperature) in [(false, 1.0), (true, 0.7), (true, 0.0)] {
                let c = case(dtype, shape, masked, temperature);
                let truth = truth(&c);
                let want: Vec<f64> =
                    (0..c.t).map(|i| truth.z[i][c.targets[i] as usize].unwrap() - truth.lse[i]).collect();
                let mut first: Option<[Vec<f32>; 3]> = None;
                for mut dev in devices() {
                    let (_, log_prob, lse, entropy) = forward(&mut dev, dtype, &c);
                    // The logsumexp changes by at most the error of its logits. Summing V exponentials in lanes of 16
                    // and segments of 128 adds (V / 128 + 16) roundings of the sum. The logarithm and the rest add 4
                    // ulp of |lse|.
                    let bound = |i: usize| {
                        truth.z_error[i] + (c.v as f64 / 128.0 + 16.0 + 4.0 * truth.lse[i].abs()) * 2f64.powi(-24)
                    };
                    close("lse", &lse, &truth.lse, bound);
                    close("log_prob", &log_prob, &want, |i| {
                        bound(i) + truth.z_error[i] + want[i].abs() * 2f64.powi(-24)
                    });
                    // dH = -sum p (ln p + H) dz, and sum p |ln p + H| < ln V.
                    close("entropy", &entropy, &truth.entropy, |i| 2.0 * (c.v as f64).ln() * bound(i));
                    let all = [log_prob, lse, entropy];
                    let first = first.get_or_insert_with(|| all.clone());
                    if dtype == DType::F32 || dev.isa() == Isa::detect() {
                        all.iter().zip(first).for_each(|(a, b)| same_bits("fwd", a, b));
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_alone_has_its_bits_in_a_batch() {
    for dtype in [DType::F32, DType::Bf16] {
        let mut dev = device(2, Isa::detect());
        let all = case(dtype, (70, 200, 40), true, 0.9);
        let (_, want, ..) = forward(&mut dev, dtype, &all);
        for t in [1, 2, 3, 7, 12, 13, 31, 70] {
            let part = Case {
                t,
                hidden: all.hidden[..t * 40].to_vec(),
                targets: all.targets[..t].to_vec(),
                ..case(dtype, (70, 200, 40), true, 0.9)
            };
            same_bits("batch", &forward(&mut dev, dtype, &part).1, &want[..t]);
        }
    }
}

/// Returns the sum of dz * x over `inner` for each of `a` x `b` elements, and the error bound of each sum. `f(i, j, l)`
/// returns dz, its error bound and x.
fn products(
    a: usize,
    b: usize,
    inner: usize,
    f: &dyn Fn(usize, usize, usize) -> (f64, f64, f64),
) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut bounds) = (vec![], vec![]);
    for i in 0..a {
        for j in 0..b {
            let (mut s, mut m, mut e) = (0.0, 0.0, 0.0);
            for l in 0..inner {
                let (dz, off, x) = f(i, j, l);
                s += dz * x;
                m += (dz * x).abs();
                e += off * x.abs();
            }
            sums.push(s);
            bounds.push(e + chain_error(inner, m));
        }
    }
    (sums, bounds)
}

#[test]
fn backward_matches_f64_and_its_bits_do_not_vary() {
    for dtype in [DType::F32, DType::Bf16] {
        for shape in SHAPES {
            for (masked, temperature, with_entropy) in [(false, 1.0, false), (true, 0.7, true)] {
                let c = case(dtype, shape, masked, temperature);
                let (t, v, d) = shape;
                let truth = truth(&c);
                let dlog_prob = values(DType::F32, 3, t);
                let dentropy = values(DType::F32, 4, t);
                let present = values(DType::F32, 5, v * d);
                // dz in f64, and its error bound: p changes by p * z_error, plus one rounding to dtype.
                let (mut dz, mut dz_error) = (vec![vec![0f64; v]; t], vec![vec![0f64; v]; t]);
                for row in 0..t {
                    for id in 0..v {
                        let Some(z) = truth.z[row][id] else { continue };
                        let (lp, hit) = (z - truth.lse[row], f64::from(id as u32 == c.targets[row]));
                        let (dl, dh) =
                            (f64::from(dlog_prob[row]), if with_entropy { f64::from(dentropy[row]) } else { 0.0 });
                        let scale = 1.0 / f64::from(temperature);
                        let p = lp.exp();
                        dz[row][id] = scale * (dl * (hit - p) - dh * p * (lp + truth.entropy[row]));
                        let moved = 2.0 * truth.z_error[row] + 1e-5;
                        let size = dl.abs() + dh.abs() * (lp.abs() + truth.entropy[row] + 1.0);
                        dz_error[row][id] = scale * p * size * moved + half_ulp(dtype, dz[row][id]) * 1.01 + 1e-9;
                    }
                }
                let (dx, dx_bound) =
                    products(t, d, v, &|i, j, l| (dz[i][l], dz_error[i][l], f64::from(c.w[l * d + j])));
                let (mut dw, dw_bound) =
                    products(v, d, t, &|i, j, l| (dz[l][i], dz_error[l][i], f64::from(c.hidden[l * d + j])));
                dw.iter_mut().zip(&present).for_each(|(w, &p)| *w += f64::from(p));

                let mut first: Option<[Vec<f32>; 2]> = None;
                for mut dev in devices() {
                    let (on, ..) = forward(&mut dev, dtype, &c);
                    let dlog_prob = dev.upload(Region::Overlay, &dlog_prob, &[t]).unwrap();
                    let dentropy = with_entropy.then(|| dev.upload(Region::Overlay, &dentropy, &[t]).unwrap());
                    let mut panels = vec![0.0; panel_len(dtype, v, d)];
                    pack_order(dtype, v, d, &present, &mut panels);
                    let (allowed, targets, lse) = (on.allowed, on.targets, on.lse);
                    let entropy = with_entropy.then_some(on.entropy);
                    let [got, of_logits] = [None, Some(on.logits)].map(|logits| {
                        let dhidden = dev.alloc(Region::Overlay, dtype, &[t, d]).unwrap();
                        let grad = dev.upload(Region::Overlay, &panels, &[panels.len()]).unwrap();
                        linear_logprob::bwd(
                            &mut dev,
                            linear_logprob::LogProbCall { hidden: on.hidden, w: &on.w, allowed, temperature, targets },
                            linear_logprob::Bwd {
                                lse,
                                entropy,
                                logits,
                                dlog_prob,
                                dentropy,
                                dhidden,
                                dw: Some(grad.into()),
                            },
                        )
                        .unwrap();
                        [read(&mut dev, dhidden), unpack_order(dtype, v, d, &dev.read::<f32>(grad).unwrap())]
                    });
                    got.iter().zip(&of_logits).for_each(|(a, b)| same_bits("kept logits", a, b));
                    close("dhidden", &got[0], &dx, |i| dx_bound[i] + half_ulp(dtype, dx[i].abs() + dx_bound[i]));
                    close("dw", &got[1], &dw, |i| dw_bound[i] + chain_error(t, 1.0 + dw[i].abs()));
                    let first = first.get_or_insert_with(|| got.clone());
                    if dtype == DType::F32 || dev.isa() == Isa::detect() {
                        got.iter().zip(first).for_each(|(a, b)| same_bits("bwd", a, b));
                    }
                }
            }
        }
    }
}

/// Tests tokens that fill more than one chunk, for a full slab and for the last slab. The chunks of the two slabs have
/// different sizes.
#[test]
fn tokens_in_two_calls_add_the_gradient_of_one() {
    const SHAPE: (usize, usize, usize) = (1100, 1800, 3);
    let (t, v, d) = SHAPE;
    let c = case(DType::F32, SHAPE, false, 1.0);
    let mut dev = device(2, Isa::detect());
    let (on, ..) = forward(&mut dev, DType::F32, &c);
    let dlog_prob = dev.upload(Region::Overlay, &values(DType::F32, 3, t), &[t]).unwrap();
    let dhidden = dev.alloc(Region::Overlay, DType::F32, &[t, d]).unwrap();
    let mut gradients = |cuts: &[usize]| {
        let dw = dev.zeros(Region::Overlay, DType::F32, &[panel_len(DType::F32, v, d)]).unwrap();
        for cut in cuts.windows(2) {
            let part = |of: Tensor| of.slice(cut[0], cut[1]);
            let (hidden, targets) = (part(on.hidden), part(on.targets));
            let logprob_call =
                linear_logprob::LogProbCall { hidden, w: &on.w, allowed: None, temperature: 1.0, targets };
            let (lse, dlog_prob, dhidden) = (part(on.lse), part(dlog_prob), part(dhidden));
            let call = linear_logprob::Bwd {
                lse,
                entropy: None,
                logits: None,
                dlog_prob,
                dentropy: None,
                dhidden,
                dw: Some(dw.into()),
            };
            linear_logprob::bwd(&mut dev, logprob_call, call).unwrap();
        }
        [dev.read::<f32>(dhidden).unwrap(), dev.read::<f32>(dw).unwrap()]
    };
    let (whole, parts) = (gradients(&[0, t]), gradients(&[0, 700, t]));
    assert!(whole[1].iter().any(|&g| g != 0.0));
    whole.iter().zip(&parts).for_each(|(a, b)| same_bits("two calls", a, b));
}

#[test]
fn backward_matches_finite_differences_of_the_forward() {
    let shape = (3, 40, 6);
    let c = case(DType::F32, shape, true, 0.8);
    let mut dev = device(1, Isa::detect());
    let (on, ..) = forward(&mut dev, DType::F32, &c);
    let (dlog_prob, dentropy) = ([0.5f32, -1.0, 0.25], [0.3f32, 0.2, -0.7]);
    let up = |dev: &mut Device, x: &[f32]| dev.upload(Region::Overlay, x, &[x.len()]).unwrap();
    let (dl, dh) = (up(&mut dev, &dlog_prob), up(&mut dev, &dentropy));
    let dx = dev.alloc(Region::Overlay, DType::F32, &[3, 6]).unwrap();
    let dw = dev.zeros(Region::Overlay, DType::F32, &[panel_len(DType::F32, 40, 6)]).unwrap();
    let (a, w) = (on.allowed, on.w);
    linear_logprob::bwd(
        &mut dev,
        linear_logprob::LogProbCall { hidden: on.hidden, w: &w, allowed: a, temperature: 0.8, targets: on.targets },
        linear_logprob::Bwd {
            lse: on.lse,
            entropy: Some(on.entropy),
            logits: None,
            dlog_prob: dl,
            dentropy: Some(dh),
            dhidden: dx,
            dw: Some(dw.into()),
        },
    )
    .unwrap();
    let got = dev.read::<f32>(dx).unwrap();
    let objective = |c: &Case| -> f64 {
        let truth = truth(c);
        (0..3)
            .map(|i| {
                let log_prob = truth.z[i][c.targets[i] as usize].unwrap() - truth.lse[i];
                f64::from(dlog_prob[i]) * log_prob + f64::from(dentropy[i]) * truth.entropy[i]
            })
            .sum()
    };
    for i in 0..18 {
        let moved = |h: f32| Case {
            hidden: {
                let mut x = c.hidden.clone();
                x[i] += h;
                x
            },
            ..case(DType::F32, shape, true, 0.8)
        };
        let (up, down) = (moved(1e-3), moved(-1e-3));
        let step = f64::from(up.hidden[i]) - f64::from(down.hidden[i]);
        let want = (objective(&up) - objective(&down)) / step;
        // Central differences with h = 1e-3: the error is h^2 times third derivatives of about 10.
        assert!((f64::from(got[i]) - want).abs() < 2e-5, "element {i}: {} and {want}", got[i]);
    }
}

#[test]
fn targets_outside_the_policy() {
    let mut c = case(DType::F32, (2, 64, 8), true, 1.0);
    let off = c.allowed.as_ref().unwrap().iter().position(|on| !on).unwrap();
    c.targets[1] = off as u32;
    let mut dev = device(1, Isa::detect());
    let (_, log_prob, lse, _) = forward(&mut dev, DType::F32, &c);
    assert!(log_prob[0].is_finite() && lse[1].is_finite() && log_prob[1] == f32::NEG_INFINITY);
    let (on, ..) = forward(&mut dev, DType::F32, &c);
    let targets = dev.upload(Region::Overlay, &[0u32, 64], &[2]).unwrap();
    let error = linear_logprob::fwd(
        &mut dev,
        linear_logprob::LogProbCall { hidden: on.hidden, w: &on.w, allowed: None, temperature: 1.0, targets },
        linear_logprob::Outs { log_prob: on.log_prob, lse: on.lse, entropy: None, logits: None },
    )
    .unwrap_err();
    assert!(error.to_string().contains("64 at token 1"), "{error}");
}

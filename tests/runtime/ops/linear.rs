//! Tests linear layers and their gradients against f64 sums and the documented order of summation.

use omr_runtime::device::Target;
use omr_runtime::ops::linear;
use omr_runtime::ops::matmul::Order;

use super::panels::{pack_order, unpack_order};
use super::*;

/// (T, N, K): odd K, K of the golden models, N that is not a multiple of a panel, one row, no rows.
const SHAPES: [(usize, usize, usize); 10] = [
    (70, 160, 96),
    (13, 33, 7),
    (1, 96, 100),
    (5, 100, 136),
    (0, 64, 32),
    (1, 1, 1),
    (300, 64, 257),
    (12, 512, 31),
    (25, 31, 64),
    (2, 129, 48),
];

struct Case {
    t: usize,
    n: usize,
    k: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
    dy: Vec<f32>,
}

fn case(dtype: DType, t: usize, n: usize, k: usize) -> Case {
    Case {
        t,
        n,
        k,
        x: values(dtype, 1, t * k),
        w: values(dtype, 2, n * k),
        bias: values(dtype, 3, n),
        residual: values(dtype, 4, t * n),
        dy: values(dtype, 5, t * n),
    }
}

/// Returns the sum over i of a[i] b[i] and the sum of the absolute values, in f64.
fn dot(len: usize, a: impl Fn(usize) -> f32, b: impl Fn(usize) -> f32) -> (f64, f64) {
    let term = |i| f64::from(a(i)) * f64::from(b(i));
    ((0..len).map(term).sum(), (0..len).map(|i| term(i).abs()).sum())
}

fn fwd(dev: &mut Device, dtype: DType, c: &Case, bias: bool, residual: bool) -> Vec<f32> {
    let x = upload(dev, dtype, &c.x, &[c.t, c.k]);
    let w = weight(dev, dtype, &c.w, c.n, c.k);
    let bias = bias.then(|| upload(dev, dtype, &c.bias, &[c.n]));
    let residual = residual.then(|| upload(dev, dtype, &c.residual, &[c.t, c.n]));
    let y = dev.alloc(Region::Overlay, dtype, &[c.t, c.n]).unwrap();
    linear::fwd(dev, x, &w, bias, residual, y).unwrap();
    read(dev, y)
}

#[test]
fn fwd_matches_f64() {
    for dtype in [DType::F32, DType::Bf16] {
        for (t, n, k) in SHAPES {
            let c = case(dtype, t, n, k);
            for (bias, residual) in [(false, false), (true, false), (false, true), (true, true)] {
                let sums: Vec<(f64, f64)> = (0..t * n)
                    .map(|i| {
                        let (mut sum, mut mag) = dot(k, |j| c.x[i / n * k + j], |j| c.w[i % n * k + j]);
                        for (on, v) in [(bias, c.bias[i % n]), (residual, c.residual[i])] {
                            sum += if on { f64::from(v) } else { 0.0 };
                            mag += if on { f64::from(v).abs() } else { 0.0 };
                        }
                        (sum, mag)
                    })
                    .collect();
                let want: Vec<f64> = sums.iter().map(|s| s.0).collect();
                for isa in isas() {
                    let got = fwd(&mut device(2, isa), dtype, &c, bias, residual);
                    close(&format!("{dtype:?} {isa:?} [{t}, {n}, {k}]"), &got, &want, |i| {
                        let error = chain_error(k, sums[i].1);
                        error + half_ulp(dtype, want[i].abs() + error)
                    });
                }
            }
        }
    }
}

#[test]
fn fwd_has_the_same_bits_for_all_threads_and_instruction_sets() {
    for (t, n, k) in SHAPES {
        let c = case(DType::F32, t, n, k);
        let want = fwd(&mut device(1, Isa::detect()), DType::F32, &c, true, true);
        for mut dev in devices() {
            same_bits("fwd", &fwd(&mut dev, DType::F32, &c, true, true), &want);
        }
        // The chain of additions itself, written out.
        for (i, &y) in want.iter().enumerate() {
            let sum = (0..k).fold(0.0f32, |s, j| c.x[i / n * k + j].mul_add(c.w[i % n * k + j], s));
            assert_eq!(y.to_bits(), (sum + c.bias[i % n] + c.residual[i]).to_bits());
        }
    }
    for (t, n, k) in SHAPES {
        let c = case(DType::Bf16, t, n, k);
        let want = fwd(&mut device(1, Isa::detect()), DType::Bf16, &c, true, true);
        for threads in [2, 5] {
            same_bits("bf16", &fwd(&mut device(threads, Isa::detect()), DType::Bf16, &c, true, true), &want);
        }
        let portable = fwd(&mut device(1, Isa::Portable), DType::Bf16, &c, true, true);
        if Isa::Avx2.available() {
            same_bits("widened", &fwd(&mut device(1, Isa::Avx2), DType::Bf16, &c, true, true), &portable);
        }
    }
}

#[test]
fn a_row_alone_has_its_bits_in_every_batch() {
    let (n, k) = (160, 96);
    for dtype in [DType::F32, DType::Bf16] {
        let all = case(dtype, 70, n, k);
        let mut dev = device(2, Isa::detect());
        let alone: Vec<f32> = (0..70)
            .flat_map(|r| {
                let one = Case { t: 1, x: all.x[r * k..(r + 1) * k].to_vec(), ..case(dtype, 1, n, k) };
                fwd(&mut dev, dtype, &one, true, false)
            })
            .collect();
        for t in 1..=70 {
            let c = Case { t, x: all.x[..t * k].to_vec(), ..case(dtype, 1, n, k) };
            same_bits(&format!("{dtype:?} batch of {t}"), &fwd(&mut dev, dtype, &c, true, false), &alone[..t * n]);
        }
    }
}

fn dgrad(dev: &mut Device, dtype: DType, c: &Case, present: Option<&[f32]>) -> Vec<f32> {
    let dy = upload(dev, dtype, &c.dy, &[c.t, c.n]);
    let w = weight(dev, dtype, &c.w, c.n, c.k);
    let zeros = vec![7.0; c.t * c.k];
    let dx = upload(dev, dtype, present.unwrap_or(&zeros), &[c.t, c.k]);
    linear::dgrad(dev, dy, &w, dx, present.is_some()).unwrap();
    read(dev, dx)
}

#[test]
fn dgrad_matches_f64_and_its_bits_do_not_vary() {
    for dtype in [DType::F32, DType::Bf16] {
        for (t, n, k) in SHAPES {
            let c = case(dtype, t, n, k);
            let present = values(dtype, 9, t * k);
            for present in [None, Some(&present[..])] {
                let sums: Vec<(f64, f64)> = (0..t * k)
                    .map(|i| {
                        let (sum, mag) = dot(n, |j| c.dy[i / k * n + j], |j| c.w[j * k + i % k]);
                        let start = present.map_or(0.0, |p| f64::from(p[i]));
                        (sum + start, mag + start.abs())
                    })
                    .collect();
                let want: Vec<f64> = sums.iter().map(|s| s.0).collect();
                let first = dgrad(&mut device(1, Isa::detect()), dtype, &c, present);
                for mut dev in devices() {
                    let got = dgrad(&mut dev, dtype, &c, present);
                    close("dgrad", &got, &want, |i| {
                        let error = chain_error(n, sums[i].1);
                        error + half_ulp(dtype, want[i].abs() + error)
                    });
                    if dtype == DType::F32 || dev.isa() == Isa::detect() {
                        same_bits("dgrad", &got, &first);
                    }
                }
            }
        }
    }
}

/// Returns dw (row-major [n, k]) and dbias. They start at the given values and accumulate one call for each range of
/// tokens between `cuts`.
fn wgrad(dev: &mut Device, dtype: DType, c: &Case, dw: &[f32], dbias: &[f32], cuts: &[usize]) -> (Vec<f32>, Vec<f32>) {
    let (n, k) = (c.n, c.k);
    let mut panels = vec![0.0; panel_len(dtype, n, k)];
    pack_order(dtype, n, k, dw, &mut panels);
    let dw = upload(dev, DType::F32, &panels, &[panels.len()]);
    let db = upload(dev, DType::F32, dbias, &[n]);
    for piece in cuts.windows(2) {
        let rows = piece[1] - piece[0];
        let x = upload(dev, dtype, &c.x[piece[0] * k..piece[1] * k], &[rows, k]);
        let dy = upload(dev, dtype, &c.dy[piece[0] * n..piece[1] * n], &[rows, n]);
        linear::wgrad(dev, x, dy, dw, Some(db)).unwrap();
    }
    let panels = dev.read::<f32>(dw).unwrap();
    let row_major = unpack_order(dtype, n, k, &panels);
    let padding = panels.iter().filter(|x| x.to_bits() != 0).count() as i64
        - row_major.iter().filter(|x| x.to_bits() != 0).count() as i64;
    assert_eq!(padding, 0, "padding must stay zero");
    (row_major, dev.read(db).unwrap())
}

#[test]
fn wgrad_matches_f64_and_its_bits_do_not_vary() {
    for dtype in [DType::F32, DType::Bf16] {
        for (t, n, k) in SHAPES.into_iter().chain([(1100, 40, 50), (512, 64, 24)]) {
            let c = case(dtype, t, n, k);
            let (dw, db) = (values(DType::F32, 6, n * k), values(DType::F32, 7, n));
            let sums: Vec<(f64, f64)> = (0..n * k)
                .map(|i| {
                    let (sum, mag) = dot(t, |j| c.dy[j * n + i / k], |j| c.x[j * k + i % k]);
                    (sum + f64::from(dw[i]), mag + f64::from(dw[i]).abs())
                })
                .collect();
            let bias: Vec<(f64, f64)> = (0..n)
                .map(|i| {
                    let (sum, mag) = dot(t, |j| c.dy[j * n + i], |_| 1.0);
                    (sum + f64::from(db[i]), mag + f64::from(db[i]).abs())
                })
                .collect();
            let (want, want_bias) =
                (sums.iter().map(|s| s.0).collect::<Vec<_>>(), bias.iter().map(|s| s.0).collect::<Vec<_>>());
            let first = wgrad(&mut device(1, Isa::detect()), dtype, &c, &dw, &db, &[0, t]);
            for mut dev in devices() {
                let got = wgrad(&mut dev, dtype, &c, &dw, &db, &[0, t]);
                close("dw", &got.0, &want, |i| chain_error(t, sums[i].1));
                close("dbias", &got.1, &want_bias, |i| chain_error(t, bias[i].1));
                same_bits("dbias", &got.1, &first.1);
                if dtype == DType::F32 || dev.isa() == Isa::detect() {
                    same_bits("dw", &got.0, &first.0);
                }
            }
            // Micro-batches continue the chain of additions.
            let unit = if Isa::detect().has_tiles() { 32 } else { 2 };
            let cut = t / 2 / unit * unit;
            let pieces = wgrad(&mut device(2, Isa::detect()), dtype, &c, &dw, &db, &[0, cut, t]);
            same_bits("dw in two pieces", &pieces.0, &first.0);
            same_bits("dbias in two pieces", &pieces.1, &first.1);
        }
    }
}

#[test]
fn wrong_shapes_are_errors_and_a_counting_device_only_counts() {
    let mut dev = device(1, Isa::detect());
    let c = case(DType::F32, 4, 64, 8);
    let x = upload(&mut dev, DType::F32, &c.x, &[4, 8]);
    let w = weight(&mut dev, DType::F32, &c.w, 64, 8);
    let y = dev.alloc(Region::Overlay, DType::F32, &[4, 65]).unwrap();
    let message = linear::fwd(&mut dev, x, &w, None, None, y).unwrap_err().to_string();
    assert!(message.contains("[4, 64]") && message.contains("[4, 65]"), "{message}");
    assert!(linear::dgrad(&mut dev, y, &w, x, false).is_err());
    assert!(linear::fwd_swiglu(&mut dev, x, &Weight { n: 32, ..w }, None, None, y).is_err());

    let mut count = Device::count_for(Target::cpu(1));
    let data = count.alloc(Region::Weights, DType::F32, &[panel_len(DType::F32, 64, 8)]).unwrap();
    let w = Weight::new(data, Order::Panels, 64, 8);
    let x = count.alloc(Region::Overlay, DType::F32, &[4, 8]).unwrap();
    let y = count.alloc(Region::Overlay, DType::F32, &[4, 64]).unwrap();
    linear::fwd(&mut count, x, &w, None, None, y).unwrap();
    linear::dgrad(&mut count, y, &w, x, false).unwrap();
    assert!(count.high_water().bytes(Region::Workspace) >= 64 * 32 * 4);
}

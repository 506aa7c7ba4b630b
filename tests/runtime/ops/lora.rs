//! Tests the second pair of linear products, and the ops of adapters.

use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::ops::input::{Input, Pair};
use omr_runtime::ops::linear;
use omr_runtime::ops::lora::{self, NO_PART, Rows};

use super::panels::{pack_order, unpack_order};
use super::*;

/// (T, N, K, R): ranks 1, 8, 16 and 64 padded to parts of 16, with one to three parts. K is a multiple of 32, so that
/// the second pair starts with a step of its own in every variant.
const SHAPES: [(usize, usize, usize, usize); 6] =
    [(70, 160, 96, 16), (1, 96, 64, 48), (5, 100, 160, 64), (33, 64, 32, 192), (13, 320, 1088, 32), (300, 64, 256, 16)];

struct Case {
    t: usize,
    n: usize,
    k: usize,
    r: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    left: Vec<f32>,
    s: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

fn case(dtype: DType, (t, n, k, r): (usize, usize, usize, usize)) -> Case {
    Case {
        t,
        n,
        k,
        r,
        x: values(dtype, 1, t * k),
        w: values(dtype, 2, n * k),
        left: values(dtype, 3, t * r),
        s: values(dtype, 4, n * r),
        bias: values(dtype, 5, n),
        residual: values(dtype, 6, t * n),
    }
}

/// Returns the rows of `a` `[rows, k]`, each followed by its row of `b` `[rows, r]`.
fn beside(a: &[f32], k: usize, b: &[f32], r: usize) -> Vec<f32> {
    a.chunks_exact(k).zip(b.chunks_exact(r)).flat_map(|(a, b)| [a, b].concat()).collect()
}

/// Returns the results of every forward product, one after the other.
fn forward(dev: &mut Device, dtype: DType, c: &Case, x: Input, w: &Weight) -> Vec<f32> {
    let bias = upload(dev, dtype, &c.bias, &[c.n]);
    let residual = upload(dev, dtype, &c.residual, &[c.t, c.n]);
    let mut alloc = |cols: usize| dev.alloc(Region::Overlay, dtype, &[c.t, cols]).unwrap();
    let [y, pre, act, gate_up] = [c.n; 4].map(&mut alloc);
    let half = alloc(c.n / 2);
    linear::fwd(dev, x, w, Some(bias), Some(residual), y).unwrap();
    linear::fwd_gelu(dev, GeluKind::Exact, x, w, Some(bias), Some(pre), act).unwrap();
    let mut all = vec![y, pre, act];
    if c.n.is_multiple_of(64) {
        linear::fwd_swiglu(dev, x, w, Some(bias), Some(gate_up), half).unwrap();
        all.extend([gate_up, half]);
    }
    all.into_iter().flat_map(|t| read(dev, t)).collect()
}

fn paired(dev: &mut Device, dtype: DType, c: &Case, left: &[f32], s: &[f32]) -> Vec<f32> {
    let x = upload(dev, dtype, &c.x, &[c.t, c.k]);
    let w = weight(dev, dtype, &c.w, c.n, c.k);
    let pair = Pair { left: upload(dev, dtype, left, &[c.t, c.r]), right: weight(dev, dtype, s, c.n, c.r) };
    forward(dev, dtype, c, Input { x, pair: Some(pair) }, &w)
}

#[test]
fn a_second_pair_is_a_longer_k() {
    for dtype in [DType::F32, DType::Bf16] {
        for shape in SHAPES {
            let c = case(dtype, shape);
            for isa in isas() {
                for threads in [1, 3] {
                    let dev = &mut device(threads, isa);
                    let x = upload(dev, dtype, &beside(&c.x, c.k, &c.left, c.r), &[c.t, c.k + c.r]);
                    let w = weight(dev, dtype, &beside(&c.w, c.k, &c.s, c.r), c.n, c.k + c.r);
                    let want = forward(dev, dtype, &c, x.into(), &w);
                    same_bits(&format!("{dtype:?} {isa:?} {shape:?}"), &paired(dev, dtype, &c, &c.left, &c.s), &want);
                }
            }
        }
    }
}

#[test]
fn a_row_alone_has_its_bits_in_every_batch() {
    for dtype in [DType::F32, DType::Bf16] {
        let all = case(dtype, (40, 128, 96, 48));
        let part =
            |values: &[f32], rows: std::ops::Range<usize>, k: usize| values[rows.start * k..rows.end * k].to_vec();
        let of = |rows: std::ops::Range<usize>| Case {
            t: rows.len(),
            x: part(&all.x, rows.clone(), all.k),
            left: part(&all.left, rows.clone(), all.r),
            residual: part(&all.residual, rows, all.n),
            ..case(dtype, (1, 128, 96, 48))
        };
        for isa in isas() {
            let dev = &mut device(2, isa);
            // The first result is y.
            let y = |dev: &mut Device, c: &Case| paired(dev, dtype, c, &c.left, &c.s)[..c.t * c.n].to_vec();
            let alone: Vec<f32> = (0..40).flat_map(|row| y(dev, &of(row..row + 1))).collect();
            for t in [2, 3, 7, 16, 17, 31, 40] {
                same_bits(&format!("{dtype:?} {isa:?} {t}"), &y(dev, &of(0..t)), &alone[..t * 128]);
            }
        }
    }
}

#[test]
fn zeros_change_no_value() {
    for dtype in [DType::F32, DType::Bf16] {
        for shape in SHAPES {
            let mut c = case(dtype, shape);
            // The sum of the first row and column ends in -0: its terms underflow.
            c.x[..c.k].fill(-1e-30);
            c.w[..c.k].fill(1e-30);
            (c.bias[0], c.residual[0]) = (-0.0, -0.0);
            for isa in isas() {
                let dev = &mut device(2, isa);
                let x = upload(dev, dtype, &c.x, &[c.t, c.k]);
                let w = weight(dev, dtype, &c.w, c.n, c.k);
                let want = forward(dev, dtype, &c, x.into(), &w);
                let got = paired(dev, dtype, &c, &c.left, &vec![0.0; c.s.len()]);
                // Activations are compared as numbers: a sum of -0 becomes +0.
                assert!(got == want, "{dtype:?} {isa:?} {shape:?}");
                if dtype == DType::F32 {
                    assert_eq!((want[0].to_bits(), got[0]), ((-0.0f32).to_bits(), 0.0), "{isa:?} {shape:?}");
                }
            }
        }
    }
}

#[test]
fn an_input_gradient_has_one_rounding_for_both_pairs() {
    for dtype in [DType::F32, DType::Bf16] {
        // dx [T, K] = dy [T, N] W + dt [T, R] A is the product of [dy | dt] and W above A.
        for (t, n, k, r) in [(70, 96, 160, 16), (1, 64, 33, 48), (40, 128, 257, 64)] {
            let (dy, dt) = (values(dtype, 1, t * n), values(dtype, 2, t * r));
            let (w, a, start) = (values(dtype, 3, n * k), values(dtype, 4, r * k), values(dtype, 5, t * k));
            for isa in isas() {
                for accumulate in [false, true] {
                    let dev = &mut device(2, isa);
                    let dx = [(); 2].map(|()| upload(dev, dtype, &start, &[t, k]));
                    let whole = upload(dev, dtype, &beside(&dy, n, &dt, r), &[t, n + r]);
                    let above = weight(dev, dtype, &[&w[..], &a].concat(), n + r, k);
                    linear::dgrad(dev, whole, &above, dx[0], accumulate).unwrap();
                    let (x, left) = (upload(dev, dtype, &dy, &[t, n]), upload(dev, dtype, &dt, &[t, r]));
                    let (w, right) = (weight(dev, dtype, &w, n, k), weight(dev, dtype, &a, r, k));
                    let input = Input { x, pair: Some(Pair { left, right }) };
                    linear::dgrad(dev, input, &w, dx[1], accumulate).unwrap();
                    same_bits(&format!("{dtype:?} {isa:?}"), &read(dev, dx[1]), &read(dev, dx[0]));
                }
            }
        }
    }
}

/// Returns t of the first `rows` rows of x.
fn sliced(dev: &mut Device, dtype: DType, x: &[f32], a: &[f32], r: usize, k: usize) -> Vec<f32> {
    let t = x.len() / k;
    let x = upload(dev, dtype, x, &[t, k]);
    let a = weight(dev, dtype, a, r, k);
    let out = dev.alloc(Region::Overlay, dtype, &[t, r]).unwrap();
    let tickets = lora::tickets(dev, Region::Overlay).unwrap();
    lora::fwd(dev, x, &a, tickets, out).unwrap();
    read(dev, out)
}

#[test]
fn t_is_a_sum_of_slices_in_order() {
    for dtype in [DType::F32, DType::Bf16] {
        for (t, r, k) in [(70, 16, 2500), (1, 48, 3584), (5, 64, 1024), (33, 32, 1025), (3, 16, 7), (20, 192, 2049)] {
            let (x, a) = (values(dtype, 1, t * k), values(dtype, 2, r * k));
            let columns = |m: &[f32], from: usize, to: usize| -> Vec<f32> {
                m.chunks_exact(k).flat_map(|row| row[from..to].to_vec()).collect()
            };
            for isa in isas() {
                let dev = &mut device(2, isa);
                let mut want: Vec<f32> = Vec::new();
                for from in (0..k).step_by(1024) {
                    let to = k.min(from + 1024);
                    let x = upload(dev, dtype, &columns(&x, from, to), &[t, to - from]);
                    let a = weight(dev, dtype, &columns(&a, from, to), r, to - from);
                    let y = dev.alloc(Region::Overlay, DType::F32, &[t, r]).unwrap();
                    linear::fwd_f32(dev, x, &a, y).unwrap();
                    let part: Vec<f32> = dev.read(y).unwrap();
                    match from {
                        0 => want = part,
                        _ => want.iter_mut().zip(part).for_each(|(sum, x)| *sum += x),
                    }
                }
                let want: Vec<f32> = want.into_iter().map(|x| round(dtype, x)).collect();
                let what = format!("{dtype:?} {isa:?} [{t}, {r}, {k}]");
                let got = sliced(dev, dtype, &x, &a, r, k);
                same_bits(&what, &got, &want);
                let alone: Vec<f32> = x.chunks_exact(k).flat_map(|row| sliced(dev, dtype, row, &a, r, k)).collect();
                same_bits(&what, &alone, &want);
                if dtype == DType::F32 && k > 2048 {
                    let chain = |i: usize| (0..k).fold(0.0f32, |s, j| x[i / r * k + j].mul_add(a[i % r * k + j], s));
                    assert!((0..t * r).any(|i| chain(i) != got[i]), "{what}: one chain over K");
                }
            }
        }
    }
}

#[test]
fn s_and_the_gradient_of_b_are_the_parts_of_the_rows() {
    // Three pieces of a joined layer, of which the second has no adapter.
    let (n, rank) = (70, 5);
    let part = |row: usize| [0, NO_PART, 1][(row / 20).min(2)];
    let (wide, scale) = (2 * 16, 1.7f32);
    for dtype in [DType::F32, DType::Bf16] {
        let masters = values(DType::F32, 1, n * rank);
        let ds = values(DType::F32, 2, n * wide);
        let start = values(DType::F32, 3, n * rank);
        for mut dev in devices() {
            let parts: Vec<u8> = (0..n).map(part).collect();
            let rows = Rows { parts: dev.upload(Region::Overlay, &parts, &[n]).unwrap(), rank };
            let s = weight(&mut dev, dtype, &vec![0.0; n * wide], n, wide);
            let split: Vec<(bf16, i16)> = masters.iter().map(|x| omr_runtime::ops::adamw::master::split(*x)).collect();
            let high: Vec<f32> = match dtype {
                DType::Bf16 => split.iter().map(|(hi, _)| hi.to_f32()).collect(),
                _ => masters.clone(),
            };
            let b = weight(&mut dev, dtype, &high, n, rank).data;
            let low = (dtype == DType::Bf16).then(|| {
                let mut low = vec![0i16; b.len()];
                pack_order(dtype, n, rank, &split.iter().map(|(_, lo)| *lo).collect::<Vec<_>>(), &mut low);
                dev.upload(Region::Overlay, &low, &[low.len()]).unwrap()
            });
            let scaled = dev.alloc(Region::Overlay, dtype, &[b.len()]).unwrap();
            lora::scaled(&mut dev, b, low, scale, scaled).unwrap();
            lora::spread(&mut dev, scaled, rows, &s).unwrap();
            let found = unpack_order(dtype, n, wide, &read(&mut dev, s.data));
            let own = |row: usize, column: usize| {
                let j = column.checked_sub(part(row) as usize * 16).filter(|j| part(row) != NO_PART && *j < rank);
                j.map(|j| row * rank + j)
            };
            for (i, x) in found.iter().enumerate() {
                let want = own(i / wide, i % wide).map_or(0.0, |at| round(dtype, scale * masters[at]));
                assert_eq!(x.to_bits(), want.to_bits(), "{dtype:?} S[{}, {}]", i / wide, i % wide);
            }
            let mut panels = vec![0.0; s.data.len()];
            pack_order(dtype, n, wide, &ds, &mut panels);
            let dense = dev.upload(Region::Overlay, &panels, &[panels.len()]).unwrap();
            let mut panels = vec![0.0; b.len()];
            pack_order(dtype, n, rank, &start, &mut panels);
            let db = dev.upload(Region::Overlay, &panels, &[panels.len()]).unwrap();
            lora::collect(&mut dev, dense, rows, &s, scale, db).unwrap();
            let mut want = start.clone();
            for (i, x) in ds.iter().enumerate() {
                own(i / wide, i % wide).into_iter().for_each(|at| want[at] += scale * x);
            }
            let found = unpack_order(dtype, n, rank, &dev.read::<f32>(db).unwrap());
            same_bits("db", &found, &want);
        }
    }
}

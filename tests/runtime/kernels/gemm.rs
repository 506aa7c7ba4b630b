//! Tests of kernels/gemm.cu: linear layers against f64 and against the CPU ops in bf16, with every tile and epilogue.

use std::ops::Range;

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::{BLOCK, Heads};
use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::ops::matmul::{Order, Weight};
use omr_runtime::ops::paged_attention::{self, KvCache};
use omr_runtime::ops::{linear, rope};
use omr_runtime::tensor::{DType, Tensor};

use crate::kernels::inputs::{blank, cpu, uniform, up, weight, wide};
use crate::kernels::{Outcome, emu, emulator, equal, mutate_sites, mutate_source, same_bits, skipped};
use crate::ops::chain_error;
use crate::ops::gelu::{KINDS, formula as gelu};

/// (T, N, K).
///
/// - T includes the number of rows of each tile (16, 64, 128), one row less and one row more.
/// - N includes numbers that are no multiple of the tile's columns, or not even of the four columns of a quad.
/// - K includes the sizes of the golden models, of patches (1,176) and of the 7B's vision MLP (3,420). Some K fill
///   several pipeline stages. K also decides whether rows of x are copied by 16, 8, 4 or 2 bytes.
const SHAPES: [(usize, usize, usize); 14] = [
    (1, 64, 64),
    (1, 1, 1),
    (15, 100, 100),
    (16, 136, 136),
    (17, 67, 16),
    (63, 32, 48),
    (64, 96, 102),
    (65, 33, 200),
    (127, 130, 64),
    (128, 40, 100),
    (129, 129, 72),
    (8, 24, 1176),
    (3, 20, 3420),
    (5, 70, 99),
];

pub struct Case {
    pub t: usize,
    pub n: usize,
    k: usize,
    x: Vec<bf16>,
    w: Vec<bf16>,
    bias: Vec<bf16>,
    pub residual: Vec<bf16>,
}

impl Case {
    pub fn new(t: usize, n: usize, k: usize) -> Case {
        Case { t, n, k, x: uniform(1, t * k), w: uniform(2, n * k), bias: uniform(3, n), residual: uniform(4, t * n) }
    }

    /// Creates a case whose sums are exact in any order: all values are multiples of 1/8 and at most 1/2.
    fn exact(t: usize, n: usize, k: usize) -> Case {
        let eighths = |v: Vec<bf16>| v.into_iter().map(|x| bf16::from_f32((x.to_f32() * 4.0).round() / 8.0)).collect();
        let Case { x, w, bias, residual, .. } = Case::new(t, n, k);
        Case { t, n, k, x: eighths(x), w: eighths(w), bias: eighths(bias), residual: eighths(residual) }
    }

    /// Returns x W^T + bias + residual in f64, and the sum of the absolute values of its terms.
    fn sums(&self, bias: bool, residual: bool) -> Vec<(f64, f64)> {
        let (x, w) = (wide(&self.x), wide(&self.w));
        let mut sums = Vec::with_capacity(self.t * self.n);
        for (t, row) in x.chunks(self.k).enumerate() {
            for (n, column) in w.chunks(self.k).enumerate() {
                let (mut sum, mut size) = (0.0, 0.0);
                for (a, b) in row.iter().zip(column) {
                    sum += a * b;
                    size += (a * b).abs();
                }
                let adds = [(bias, self.bias[n]), (residual, self.residual[t * self.n + n])];
                for v in adds.into_iter().filter(|a| a.0).map(|a| a.1.to_f64()) {
                    sum += v;
                    size += v.abs();
                }
                sums.push((sum, size));
            }
        }
        sums
    }

    /// Returns a bound on the error of an fp32 chain of K products and two additions, in any order of accumulation
    /// (Higham, Accuracy and Stability, section 3.1).
    fn chain_error(&self, size: f64) -> f64 {
        chain_error(self.k, size)
    }

    pub fn x_on(&self, dev: &mut Device, rows: Range<usize>) -> Tensor {
        up(dev, &self.x[rows.start * self.k..rows.end * self.k], &[rows.len(), self.k])
    }

    pub fn weight_on(&self, dev: &mut Device) -> Weight {
        weight(dev, &self.w, self.n, self.k)
    }

    /// Runs `linear::fwd` on some rows.
    pub fn linear(&self, dev: &mut Device, rows: Range<usize>, bias: bool, residual: bool) -> Outcome<Vec<bf16>> {
        let (x, w) = (self.x_on(dev, rows.clone()), self.weight_on(dev));
        let bias = bias.then(|| up(dev, &self.bias, &[self.n]));
        let some = &self.residual[rows.start * self.n..rows.end * self.n];
        let residual = residual.then(|| up(dev, some, &[rows.len(), self.n]));
        let y = blank(dev, DType::Bf16, &[rows.len(), self.n]);
        linear::fwd(dev, x, &w, bias, residual, y)?;
        Ok(dev.read(y)?)
    }

    pub fn logits(&self, dev: &mut Device) -> Outcome<Vec<f32>> {
        let (x, w) = (self.x_on(dev, 0..self.t), self.weight_on(dev));
        let y = blank(dev, DType::F32, &[self.t, self.n]);
        linear::fwd_f32(dev, x, &w, y)?;
        Ok(dev.read(y)?)
    }

    /// Returns `pre` and y of `linear::fwd_gelu`.
    pub fn gelu(&self, dev: &mut Device, kind: GeluKind, bias: bool, pre: bool) -> Outcome<[Vec<bf16>; 2]> {
        let (x, w) = (self.x_on(dev, 0..self.t), self.weight_on(dev));
        let bias = bias.then(|| up(dev, &self.bias, &[self.n]));
        let y = blank(dev, DType::Bf16, &[self.t, self.n]);
        let pre = pre.then(|| blank(dev, DType::Bf16, &[self.t, self.n]));
        linear::fwd_gelu(dev, kind, x, &w, bias, pre, y)?;
        Ok([pre.map_or(Ok(Vec::new()), |pre| dev.read(pre))?, dev.read(y)?])
    }

    /// Returns gate_up and y of `linear::fwd_swiglu`.
    pub fn swiglu(&self, dev: &mut Device, bias: bool, gate_up: bool) -> Outcome<[Vec<bf16>; 2]> {
        let (x, w) = (self.x_on(dev, 0..self.t), self.weight_on(dev));
        let bias = bias.then(|| up(dev, &self.bias, &[self.n]));
        let y = blank(dev, DType::Bf16, &[self.t, self.n / 2]);
        let gate_up = gate_up.then(|| blank(dev, DType::Bf16, &[self.t, self.n]));
        linear::fwd_swiglu(dev, x, &w, bias, gate_up, y)?;
        Ok([gate_up.map_or(Ok(Vec::new()), |g| dev.read(g))?, dev.read(y)?])
    }
}

/// Checks that every element equals `want` within `bound` plus the error of one rounding to bf16.
fn close(what: &str, got: &[bf16], want: &[f64], bound: impl Fn(usize) -> f64) -> Outcome {
    let bound = |i: usize| bound(i) + (want[i].abs() + bound(i)) * 2f64.powi(-8) + f64::from(f32::MIN_POSITIVE);
    within(what, &wide(got), want, bound)
}

fn within(what: &str, got: &[f64], want: &[f64], bound: impl Fn(usize) -> f64) -> Outcome {
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements, expected {}", got.len(), want.len()).into());
    }
    let wrong = |i: usize| got[i].is_nan() || (got[i] - want[i]).abs() > bound(i);
    match (0..got.len()).find(|&i| wrong(i)) {
        None => Ok(()),
        Some(i) => Err(format!("{what}: element {i} is {}, expected {} within {:e}", got[i], want[i], bound(i)).into()),
    }
}

fn silu(x: f64) -> f64 {
    x / (1.0 + (-x).exp())
}

pub fn linear_is_right(dev: &mut Device, c: &Case, bias: bool, residual: bool) -> Outcome {
    let sums = c.sums(bias, residual);
    let what = format!("[{}, {}, {}] bias {bias} residual {residual}", c.t, c.n, c.k);
    let want: Vec<f64> = sums.iter().map(|s| s.0).collect();
    close(&what, &c.linear(dev, 0..c.t, bias, residual)?, &want, |i| c.chain_error(sums[i].1))
}

#[test]
fn linear_agrees_with_f64_and_the_cpu() {
    let (mut dev, mut host) = (emu(), cpu());
    for (i, (t, n, k)) in SHAPES.into_iter().enumerate() {
        let c = Case::new(t, n, k);
        let (bias, residual) = (i % 2 == 0, i % 4 < 2);
        linear_is_right(&mut dev, &c, bias, residual).unwrap();
        linear_is_right(&mut host, &c, bias, residual).unwrap();
        // Each side differs from the exact sum by at most one chain error, so the sides differ by at most two. Both are
        // then rounded once to bf16.
        let sums = c.sums(bias, residual);
        let on_cpu = c.linear(&mut host, 0..t, bias, residual).unwrap();
        let on_cpu: Vec<f64> = on_cpu.iter().map(|x| x.to_f64()).collect();
        let here = c.linear(&mut dev, 0..t, bias, residual).unwrap();
        let bound = |i: usize| 2.0 * c.chain_error(sums[i].1) + on_cpu[i].abs() * 2f64.powi(-8);
        close("the CPU", &here, &on_cpu, bound).unwrap();
    }
    let c = Case::new(40, 72, 40);
    for (bias, residual) in [(false, false), (true, false), (false, true), (true, true)] {
        linear_is_right(&mut dev, &c, bias, residual).unwrap();
    }
}

#[test]
fn logits_are_not_rounded() {
    let mut dev = emu();
    for (t, n, k) in [(1, 67, 100), (20, 200, 136), (140, 33, 64)] {
        let c = Case::new(t, n, k);
        let sums = c.sums(false, false);
        let want: Vec<f64> = sums.iter().map(|s| s.0).collect();
        let got: Vec<f64> = c.logits(&mut dev).unwrap().into_iter().map(f64::from).collect();
        within("logits", &got, &want, |i| c.chain_error(sums[i].1)).unwrap();
    }
}

#[test]
fn exact_sums_end_in_the_cpus_bits() {
    let (mut dev, mut host) = (emu(), cpu());
    for (t, k) in [(3, 99), (40, 100), (130, 64)] {
        let c = Case::exact(t, 64, k);
        let whole = c.linear(&mut host, 0..t, true, true).unwrap();
        equal("linear", &c.linear(&mut dev, 0..t, true, true).unwrap(), &whole).unwrap();
        equal("logits", &c.logits(&mut dev).unwrap(), &c.logits(&mut host).unwrap()).unwrap();
        for kind in KINDS {
            let [here, there] = [&mut dev, &mut host].map(|on| c.gelu(on, kind, true, true).unwrap().concat());
            equal(&format!("gelu {kind:?}"), &here, &there).unwrap();
        }
        let (here, there) = (c.swiglu(&mut dev, true, true).unwrap(), c.swiglu(&mut host, true, true).unwrap());
        equal("swiglu", &here.concat(), &there.concat()).unwrap();
        let mut case = Qkv::new(t, 4, 2, 24);
        case.case = Case::exact(t, case.heads.qkv_len(), k);
        // The CPU's cache has another layout for keys, so keys are compared only as part of qkv.
        let ([here, _, v], [there, _, cpu_v]) =
            (case.run(&mut dev, true, true).unwrap(), case.run(&mut host, true, true).unwrap());
        equal("qkv", &here, &there).unwrap();
        equal("v", &v, &cpu_v).unwrap();
    }
}

#[test]
fn a_row_has_its_bits_from_every_tile_and_batch() {
    // 130 rows use the tall tile, 17 and 60 the middle one, 9 and 1 the short one. The column tiles differ too.
    let c = Case::new(130, 150, 200);
    let mut dev = emu();
    let all = c.linear(&mut dev, 0..130, true, true).unwrap();
    for rows in [70..130, 0..128, 121..130, 64..65, 129..130, 0..17] {
        let some = c.linear(&mut dev, rows.clone(), true, true).unwrap();
        equal(&format!("rows {rows:?}"), &some, &all[rows.start * c.n..rows.end * c.n]).unwrap();
    }
}

#[test]
fn gelu_is_of_the_unrounded_value() {
    let (mut dev, mut host) = (emu(), cpu());
    let shapes = [(1, 33, 64, true), (17, 68, 100, false), (130, 66, 48, true)];
    for ((t, n, k, bias), kind) in shapes.into_iter().flat_map(|shape| KINDS.map(|kind| (shape, kind))) {
        let c = Case::new(t, n, k);
        let sums = c.sums(bias, false);
        for on in [&mut dev, &mut host] {
            let [pre, y] = c.gelu(on, kind, bias, true).unwrap();
            let want: Vec<f64> = sums.iter().map(|s| s.0).collect();
            close("pre", &pre, &want, |i| c.chain_error(sums[i].1)).unwrap();
            let want: Vec<f64> = sums.iter().map(|s| gelu(kind, s.0)).collect();
            // The slope of gelu is at most 1.13. erf is accurate to 1.5 ulp, and there is cancellation for negative x.
            close("y", &y, &want, |i| 1.13 * c.chain_error(sums[i].1) + 4.0 * 2f64.powi(-24) * sums[i].0.abs())
                .unwrap();
            assert_eq!(c.gelu(on, kind, bias, false).unwrap()[1], y, "bits depend on what is saved");
        }
    }
}

#[test]
fn swiglu_is_of_the_unrounded_values() {
    let (mut dev, mut host) = (emu(), cpu());
    for (t, n, k, bias) in [(1, 64, 64, true), (18, 192, 100, false), (67, 128, 40, true), (129, 64, 16, true)] {
        let c = Case::new(t, n, k);
        let sums = c.sums(bias, false);
        for on in [&mut dev, &mut host] {
            let [gate_up, y] = c.swiglu(on, bias, true).unwrap();
            let want: Vec<f64> = sums.iter().map(|s| s.0).collect();
            close("gate_up", &gate_up, &want, |i| c.chain_error(sums[i].1)).unwrap();
            let pair = |i: usize| {
                let (row, f) = (i / (n / 2), i % (n / 2));
                let gate = row * n + f / 32 * 64 + f % 32;
                (sums[gate], sums[gate + 32])
            };
            let want: Vec<f64> = (0..t * n / 2).map(|i| silu(pair(i).0.0) * pair(i).1.0).collect();
            close("y", &y, &want, |i| {
                let ((gate, gate_size), (up, up_size)) = pair(i);
                let (in_gate, in_up) = (c.chain_error(gate_size), c.chain_error(up_size));
                // The slope of silu is at most 1.1. silu and the product cost 4 roundings.
                1.1 * in_gate * (up.abs() + in_up) + silu(gate).abs() * in_up + want[i].abs() * 2f64.powi(-22)
            })
            .unwrap();
            assert_eq!(c.swiglu(on, bias, false).unwrap()[1], y, "bits depend on what is saved");
        }
    }
}

pub struct Qkv {
    heads: Heads,
    pub case: Case,
    cos: Vec<f32>,
    sin: Vec<f32>,
    slots: Vec<u32>,
    blocks: usize,
}

impl Qkv {
    pub fn new(t: usize, q: usize, kv: usize, dim: usize) -> Qkv {
        let heads = Heads { q, kv, dim };
        let angles: Vec<f32> = uniform::<bf16>(7, t * dim / 2).iter().map(|x| 3.0 * x.to_f32()).collect();
        let (cos, sin) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        let blocks = 1 + t.div_ceil(BLOCK);
        // Slots are distinct, not in order, and do not begin with the first block.
        let slots = (0..t as u32).map(|i| (i * 5 + 77) % (blocks * BLOCK) as u32).collect();
        Qkv { heads, case: Case::new(t, heads.qkv_len(), 72), cos, sin, slots, blocks }
    }

    /// Runs the fused op, or the three ops that it replaces, and returns qkv, k and v.
    pub fn run(&self, dev: &mut Device, fused: bool, stored: bool) -> Outcome<[Vec<bf16>; 3]> {
        let (c, heads) = (&self.case, self.heads);
        let (x, w) = (c.x_on(dev, 0..c.t), c.weight_on(dev));
        let bias = Some(up(dev, &c.bias, &[c.n]));
        let cos = up(dev, &self.cos, &[c.t, heads.dim / 2]);
        let sin = up(dev, &self.sin, &[c.t, heads.dim / 2]);
        let slots = up(dev, &self.slots, &[c.t]);
        let cache = KvCache::alloc(dev, Region::Overlay, DType::Bf16, self.blocks, heads)?;
        for part in [cache.k, cache.v] {
            dev.fill_zero(part)?;
        }
        let qkv = blank(dev, DType::Bf16, &[c.t, c.n]);
        if fused {
            let (x, cache) = (x.into(), stored.then_some((&cache, slots)));
            linear::fwd_qkv(dev, linear::Qkv { x, w: &w, bias, cos, sin, heads, cache, qkv })?;
        } else {
            linear::fwd(dev, x, &w, bias, None, qkv)?;
            rope::fwd(dev, qkv, cos, sin, heads)?;
            if stored {
                paged_attention::store(dev, qkv, slots, &cache)?;
            }
        }
        Ok([dev.read(qkv)?, dev.read(cache.k)?, dev.read(cache.v)?])
    }
}

/// (T, query heads, key heads, head size). The head sizes are those of the golden models, of the vision tower and of
/// the 7B. In some cases the number of rotated pairs is not a multiple of 32, the pairs of a group of 64 columns. Every
/// tile is used.
const QKV: [(usize, usize, usize, usize); 9] = [
    (1, 4, 2, 12),
    (17, 2, 1, 24),
    (16, 3, 1, 16),
    (65, 2, 2, 80),
    (2, 7, 1, 128),
    (30, 4, 1, 64),
    (129, 2, 1, 12),
    (131, 1, 1, 80),
    (3, 1, 1, 2),
];

#[test]
fn qkv_has_the_bits_of_its_three_ops() {
    for (t, q, kv, dim) in QKV {
        let case = Qkv::new(t, q, kv, dim);
        for stored in [true, false] {
            let fused = case.run(&mut emu(), true, stored).unwrap();
            let apart = case.run(&mut emu(), false, stored).unwrap();
            for (what, (fused, apart)) in ["qkv", "k", "v"].into_iter().zip(fused.iter().zip(&apart)) {
                equal(&format!("{what} {t} {q} {kv} {dim} stored {stored}"), fused, apart).unwrap();
            }
            assert_eq!(fused[1].iter().any(|x| *x != bf16::ZERO), stored, "the cache");
        }
    }
}

#[test]
fn a_slot_past_the_cache_is_not_stored() {
    let mut case = Qkv::new(5, 2, 1, 16);
    let whole = case.run(&mut emu(), true, true).unwrap();
    case.slots[3] = (case.blocks * BLOCK) as u32;
    let [qkv, k, v] = case.run(&mut emu(), true, true).unwrap();
    assert_eq!(qkv, whole[0]);
    let rows = |x: &[bf16]| x.chunks(16).filter(|row| row.iter().any(|x| *x != bf16::ZERO)).count();
    assert_eq!([rows(&whole[1]), rows(&whole[2]), rows(&k), rows(&v)], [5, 5, 4, 4]);
}

#[test]
fn no_schedule_changes_a_bit() {
    let c = Case::new(70, 128, 200);
    same_bits(5, |dev| c.linear(dev, 0..70, true, true));
    same_bits(5, |dev| c.linear(dev, 0..12, true, true));
    same_bits(5, |dev| Ok(c.swiglu(dev, true, true)?.concat()));
    same_bits(5, |dev| Ok(Case::new(20, 40, 99).gelu(dev, GeluKind::Exact, true, true)?.concat()));
    same_bits(5, |dev| Case::new(130, 30, 100).logits(dev));
    same_bits(5, |dev| Ok(Qkv::new(20, 2, 1, 24).run(dev, true, true)?.concat()));
}

#[test]
#[ignore = "many schedules"]
fn no_drawn_schedule_changes_a_bit() {
    for (t, n, k) in [(150, 192, 400), (33, 64, 1176), (16, 128, 700), (3, 70, 99)] {
        let c = Case::new(t, n, k);
        let bits = same_bits(24, |dev| c.linear(dev, 0..t, true, true));
        assert_eq!(bits, c.linear(&mut emu(), 0..t, true, true).unwrap());
    }
}

/// Probe with rows for every tile, one and five stages of K, and each way in which x can be copied.
fn probe(dev: &mut Device) -> Outcome {
    for (t, n, k) in [(4, 70, 300), (20, 40, 64), (130, 30, 202), (3, 8, 99)] {
        linear_is_right(dev, &Case::new(t, n, k), true, true)?;
    }
    Ok(())
}

#[test]
fn every_wait_and_barrier_is_needed() {
    mutate_sites(&["kernels/common/gemm.cuh", "kernels/gemm.cu"], 3, probe);
}

#[test]
fn shared_memory_has_no_bank_conflicts() {
    if skipped("bank conflicts") {
        return;
    }
    for (t, n, k) in [(4, 128, 128), (40, 128, 128), (130, 128, 128)] {
        let mut dev = emu();
        Case::new(t, n, k).linear(&mut dev, 0..t, true, true).unwrap();
        assert_eq!(emulator(&mut dev).counters().bank_conflicts, 0, "{t} rows");
    }
}

#[test]
fn what_kernels_cannot_take_is_refused() {
    let mut dev = emu();
    let c = Case::new(2, 64, 64);
    let (x, mut w) = (c.x_on(&mut dev, 0..2), c.weight_on(&mut dev));
    let y = blank(&mut dev, DType::Bf16, &[2, 64]);
    w.order = Order::Panels;
    let text = linear::fwd(&mut dev, x, &w, None, None, y).unwrap_err().to_string();
    assert!(text.contains("row order"), "{text}");
    let x = up(&mut dev, &[1.0f32; 128], &[2, 64]);
    let y = blank(&mut dev, DType::F32, &[2, 64]);
    let data = up(&mut dev, &[1.0f32; 4096], &[4096]);
    let w = Weight::new(data, Order::Rows, 64, 64);
    let text = linear::fwd(&mut dev, x, &w, None, None, y).unwrap_err().to_string();
    assert!(text.contains("bf16"), "{text}");
    // Without rows nothing is launched.
    assert_eq!(Case::new(0, 64, 64).linear(&mut dev, 0..0, true, true).unwrap(), []);
}

/// Runs all epilogues with all their optional arguments.
pub fn epilogues(dev: &mut Device) -> Outcome {
    linear_is_right(dev, &Case::new(18, 70, 100), true, true)?;
    // The tile with 128 rows has two groups of 64 columns: each has 32 columns of gate and 32 of up.
    let c = Case::new(130, 128, 64);
    let sums = c.sums(true, false);
    let wide: Vec<f64> = sums.iter().map(|s| s.0).collect();
    for kind in KINDS {
        let [pre, y] = c.gelu(dev, kind, true, true)?;
        close("pre", &pre, &wide, |i| c.chain_error(sums[i].1))?;
        let want: Vec<f64> = wide.iter().map(|x| gelu(kind, *x)).collect();
        close("gelu", &y, &want, |i| 1.13 * c.chain_error(sums[i].1) + 4.0 * 2f64.powi(-24) * wide[i].abs())?;
    }
    let [gate_up, y] = c.swiglu(dev, true, true)?;
    close("gate_up", &gate_up, &wide, |i| c.chain_error(sums[i].1))?;
    let want: Vec<f64> = (0..c.t * 64)
        .map(|i| {
            let gate = i / 64 * 128 + i % 64 / 32 * 64 + i % 32;
            silu(wide[gate]) * wide[gate + 32]
        })
        .collect();
    close("swiglu", &y, &want, |i| 2f64.powi(-12) * (1.0 + want[i].abs()))?;
    let case = Qkv::new(20, 2, 1, 24);
    let (fused, apart) = (case.run(dev, true, true)?, case.run(dev, false, true)?);
    for i in 0..3 {
        equal("qkv", &fused[i], &apart[i])?;
    }
    Ok(())
}

/// Plausible mistakes, each in one place of the kernel.
const MISTAKES: [(&str, &str, &str); 8] = [
    ("common/linear.cuh", "bias ? q + load_quad(bias + n, whole, count) : q", "q"),
    ("common/linear.cuh", "if (to.residual) {", "if (to.residual && row != 3) {"),
    ("common/linear.cuh", "int column = pair / 32 * GROUP + pair % 32;", "int column = pair;"),
    ("common/linear.cuh", "TANH ? math::gelu_tanh(q.v[i])", "false ? math::gelu_tanh(q.v[i])"),
    ("common/linear.cuh", "a = rounded(a);", ""),
    ("common/linear.cuh", "slot % 128) * to.dim", "slot % 64) * to.dim"),
    ("common/gemm.cuh", "int left = m + r < in.rows ? pair.depth - k - chunk * 8 : 0;", "int left = 8;"),
    ("common/gemm.cuh", "(m + r) * pair.depth", "(m + r) * pair.ld"),
];

#[test]
fn a_missing_bias_is_seen() {
    epilogues(&mut emu()).unwrap();
    let (file, from, to) = MISTAKES[0];
    mutate_source(file, from, to, 1, epilogues);
}

#[test]
#[ignore = "a compilation each"]
fn mistakes_in_the_kernel_are_seen() {
    for (file, from, to) in &MISTAKES[1..] {
        mutate_source(file, from, to, 2, epilogues);
    }
}

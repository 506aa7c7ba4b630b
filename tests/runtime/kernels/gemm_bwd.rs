//! Tests of kernels/gemm_bwd.cu: gradients of linear layers against f64 and against the CPU ops in bf16, with every
//! tile.

// Batches of tokens are lists of ranges; a list of one range is intended.
#![allow(clippy::single_range_in_vec_init)]

use std::ops::Range;

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::gradient::{Gradient, Holds};
use omr_runtime::ops::linear;
use omr_runtime::ops::matmul::{Order, Weight, row_stride};
use omr_runtime::tensor::{DType, Elem};

use crate::kernels::inputs::{cpu, guarded, uniform, untouched, up, weight};
use crate::kernels::{Outcome, emu, emulator, equal, mutate_sites, mutate_source, same_bits, skipped};
use crate::ops::chain_error;

/// (T, N, K).
///
/// - T includes numbers near 16 and 128, at which dx changes its tile, and near 64, the tokens of a pipeline stage of
///   dw.
/// - N and K include numbers that are no multiple of the tile's columns or of the four columns of a quad, and the sizes
///   of the golden models (100, 136), of patches (1,176) and of the 7B's vision MLP (3,420 padded to 3,424). They
///   select both tiles of dw. They also decide whether rows are copied by 16, 8, 4 or 2 bytes.
const SHAPES: [(usize, usize, usize); 13] = [
    (1, 64, 64),
    (1, 1, 1),
    (15, 100, 100),
    (17, 136, 136),
    (16, 67, 33),
    (64, 96, 102),
    (65, 33, 200),
    (127, 130, 64),
    (128, 40, 100),
    (129, 129, 135),
    (8, 24, 1176),
    (3, 20, 3424),
    (5, 70, 99),
];

pub struct Case {
    pub t: usize,
    pub n: usize,
    pub k: usize,
    x: Vec<bf16>,
    pub dy: Vec<bf16>,
    w: Vec<bf16>,
    /// Initial content of dx, dw and dbias.
    dx: Vec<bf16>,
    dw: Vec<f32>,
    dbias: Vec<f32>,
}

fn rounded(v: &[f32]) -> Vec<bf16> {
    v.iter().map(|&x| bf16::from_f32(x)).collect()
}

impl Case {
    pub fn new(t: usize, n: usize, k: usize) -> Case {
        Case::of(t, n, k, |v| v)
    }

    /// Creates a case whose sums are exact in any order: all values are multiples of 1/8 and at most 1/2.
    fn exact(t: usize, n: usize, k: usize) -> Case {
        Case::of(t, n, k, |v| v.into_iter().map(|x| (x * 4.0).round() / 8.0).collect())
    }

    fn of(t: usize, n: usize, k: usize, values_as: impl Fn(Vec<f32>) -> Vec<f32>) -> Case {
        let make = |name, len| values_as(uniform(name, len));
        Case {
            t,
            n,
            k,
            x: rounded(&make(1, t * k)),
            dy: rounded(&make(2, t * n)),
            w: rounded(&make(3, n * k)),
            dx: rounded(&make(4, t * k)),
            dw: make(5, n * k),
            dbias: make(6, n),
        }
    }

    pub fn dgrad(&self, dev: &mut Device, rows: Range<usize>, accumulate: bool) -> Outcome<Vec<bf16>> {
        let w = weight(dev, &self.w, self.n, self.k);
        let dy = up(dev, &self.dy[rows.start * self.n..rows.end * self.n], &[rows.len(), self.n]);
        let dx = if accumulate {
            up(dev, &self.dx[rows.start * self.k..rows.end * self.k], &[rows.len(), self.k])
        } else {
            dev.alloc(Region::Overlay, DType::Bf16, &[rows.len(), self.k])?
        };
        linear::dgrad(dev, dy, &w, dx, accumulate)?;
        Ok(dev.read(dx)?)
    }

    /// Returns dw [N, K], then dbias [N], after one call for each element of `calls`, which is a number of tokens.
    /// Errors if the padding of dw is no longer zero.
    pub fn wgrad(&self, dev: &mut Device, calls: &[usize], bias: bool) -> Outcome<Vec<f32>> {
        self.dw_by(dev, calls, bias, Holds::Gradient)
    }

    /// Returns dw [N, K] after one call that adds it to a sum.
    pub fn wgrad_sum(&self, dev: &mut Device) -> Outcome<Vec<f32>> {
        self.dw_by(dev, &[self.t], false, Holds::Sum)
    }

    fn dw_by(&self, dev: &mut Device, calls: &[usize], bias: bool, holds: Holds) -> Outcome<Vec<f32>> {
        let order = Order::of(dev);
        let place = |i: usize| order.index(DType::Bf16, self.k, i / self.k, i % self.k);
        let mut data = vec![0.0f32; order.len(DType::Bf16, self.n, self.k)];
        for (i, &value) in self.dw.iter().enumerate() {
            data[place(i)] = value;
        }
        let dw = up(dev, &data, &[data.len()]);
        let dbias = bias.then(|| up(dev, &self.dbias, &[self.n]));
        let mut from = 0;
        for &tokens in calls {
            let part = from..from + tokens;
            from = part.end;
            let x = up(dev, &self.x[part.start * self.k..part.end * self.k], &[part.len(), self.k]);
            let dy = up(dev, &self.dy[part.start * self.n..part.end * self.n], &[part.len(), self.n]);
            linear::wgrad(dev, x, dy, Gradient { tensor: dw, holds }, dbias)?;
        }
        let mut data = dev.read::<f32>(dw)?;
        let mut out: Vec<f32> = (0..self.n * self.k).map(|i| std::mem::take(&mut data[place(i)])).collect();
        if data.iter().any(|v| v.to_bits() != 0) {
            return Err("padding of dw is not zero".into());
        }
        out.extend(dbias.map_or(Ok(Vec::new()), |d| dev.read::<f32>(d))?);
        Ok(out)
    }

    /// Errors unless dw is the same in memory that holds nothing, which is full of NaN, as in memory full of zeros. On a GPU,
    /// also errors unless a product adds the same dw to a sum.
    pub fn new_gradient_is_that_of_zeros(&self, dev: &mut Device) -> Outcome {
        let len = Order::of(dev).len(DType::Bf16, self.n, self.k);
        let of = |dev: &mut Device, value: f32, holds: Holds, tokens: usize| -> Outcome<Vec<f32>> {
            let tensor = up(dev, &vec![value; len], &[len]);
            let x = up(dev, &self.x[..tokens * self.k], &[tokens, self.k]);
            let dy = up(dev, &self.dy[..tokens * self.n], &[tokens, self.n]);
            linear::wgrad(dev, x, dy, Gradient { tensor, holds }, None)?;
            Ok(dev.read(tensor)?)
        };
        for tokens in [self.t, 0] {
            let [new, zeros] = [of(dev, f32::NAN, Holds::Nothing, tokens)?, of(dev, 0.0, Holds::Gradient, tokens)?];
            let what = format!("dw of [{tokens}, {}, {}]", self.n, self.k);
            equal(&what, &new, &zeros)?;
            if dev.kind().is_gpu() {
                // Padding is not written: the dw of zeros has zeros there.
                let want: Vec<f32> = zeros.iter().map(|dw| 0.7 + dw).collect();
                equal(&format!("the sum with {what}"), &of(dev, 0.7, Holds::Sum, tokens)?, &want)?;
            }
        }
        Ok(())
    }

    /// Returns dx in f64, and the sum of the absolute values of its terms.
    fn dx_sums(&self, accumulate: bool) -> Vec<(f64, f64)> {
        let mut sums: Vec<(f64, f64)> = if accumulate {
            self.dx.iter().map(|x| (x.to_f64(), x.to_f64().abs())).collect()
        } else {
            vec![(0.0, 0.0); self.t * self.k]
        };
        for t in 0..self.t {
            for n in 0..self.n {
                let dy = self.dy[t * self.n + n].to_f64();
                for k in 0..self.k {
                    add(&mut sums[t * self.k + k], dy * self.w[n * self.k + k].to_f64());
                }
            }
        }
        sums
    }

    /// Returns dw, then dbias, in f64, each with the sum of the absolute values of its terms.
    fn dw_sums(&self) -> Vec<(f64, f64)> {
        let start = self.dw.iter().chain(&self.dbias);
        let mut sums: Vec<(f64, f64)> = start.map(|&v| (f64::from(v), f64::from(v).abs())).collect();
        for t in 0..self.t {
            for n in 0..self.n {
                let dy = self.dy[t * self.n + n].to_f64();
                for k in 0..self.k {
                    add(&mut sums[n * self.k + k], dy * self.x[t * self.k + k].to_f64());
                }
                add(&mut sums[self.n * self.k + n], dy);
            }
        }
        sums
    }
}

fn add(to: &mut (f64, f64), term: f64) {
    to.0 += term;
    to.1 += term.abs();
}

fn within<T: Elem>(what: &str, got: &[T], want: &[(f64, f64)], bound: impl Fn(&(f64, f64)) -> f64) -> Outcome {
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements, expected {}", got.len(), want.len()).into());
    }
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let got = f64::from(got.to_f32());
        if got.is_nan() || (got - want.0).abs() > bound(want) {
            let expected = want.0;
            return Err(format!("{what}: element {i} is {got}, expected {expected} within {:e}", bound(want)).into());
        }
    }
    Ok(())
}

pub fn dgrad_is_right(dev: &mut Device, c: &Case, accumulate: bool) -> Outcome {
    let what = format!("dx of [{}, {}, {}] accumulate {accumulate}", c.t, c.n, c.k);
    let chain = |s: &(f64, f64)| chain_error(c.n, s.1);
    // The chain's error, plus one rounding to bf16.
    let bound = |s: &(f64, f64)| chain(s) + (s.0.abs() + chain(s)) * 2f64.powi(-8) + f64::from(f32::MIN_POSITIVE);
    within(&what, &c.dgrad(dev, 0..c.t, accumulate)?, &c.dx_sums(accumulate), bound)
}

/// Checks that dx of `t` rows, which accumulates, does not write behind its rows.
pub fn nothing_behind_is_written(dev: &mut Device, (t, n, k): (usize, usize, usize)) -> Outcome {
    let c = Case::new(t, n, k);
    let (w, dy) = (weight(dev, &c.w, n, k), up(dev, &c.dy, &[t, n]));
    let dx = guarded(dev, t, k);
    linear::dgrad(dev, dy, &w, dx.slice(0, t), true)?;
    untouched(dev, dx)
}

pub fn wgrad_is_right(dev: &mut Device, c: &Case, bias: bool) -> Outcome {
    let what = format!("dw of [{}, {}, {}] bias {bias}", c.t, c.n, c.k);
    let mut sums = c.dw_sums();
    sums.truncate(c.n * c.k + if bias { c.n } else { 0 });
    within(&what, &c.wgrad(dev, &[c.t], bias)?, &sums, |s| chain_error(c.t, s.1))
}

#[test]
fn input_gradients_agree_with_f64_and_the_cpu() {
    let (mut dev, mut host) = (emu(), cpu());
    for (i, (t, n, k)) in SHAPES.into_iter().enumerate() {
        let c = Case::new(t, n, k);
        dgrad_is_right(&mut dev, &c, i % 2 == 0).unwrap();
        dgrad_is_right(&mut host, &c, i % 2 == 0).unwrap();
    }
}

#[test]
fn weight_gradients_agree_with_f64_and_the_cpu() {
    let (mut dev, mut host) = (emu(), cpu());
    for (i, (t, n, k)) in SHAPES.into_iter().enumerate() {
        let c = Case::new(t, n, k);
        wgrad_is_right(&mut dev, &c, i % 3 != 0).unwrap();
        wgrad_is_right(&mut host, &c, i % 3 != 0).unwrap();
    }
}

#[test]
fn exact_sums_end_in_the_cpus_bits() {
    let (mut dev, mut host) = (emu(), cpu());
    for (t, n, k) in [(3, 99, 36), (40, 100, 136), (130, 131, 132)] {
        let c = Case::exact(t, n, k);
        for accumulate in [false, true] {
            let want = c.dgrad(&mut host, 0..t, accumulate).unwrap();
            equal("dx", &c.dgrad(&mut dev, 0..t, accumulate).unwrap(), &want).unwrap();
        }
        let want = c.wgrad(&mut host, &[t], true).unwrap();
        equal("dw", &c.wgrad(&mut dev, &[t], true).unwrap(), &want).unwrap();
    }
}

#[test]
fn a_row_has_its_bits_from_every_tile_and_batch() {
    let c = Case::new(130, 150, 100);
    let mut dev = emu();
    let all = c.dgrad(&mut dev, 0..130, true).unwrap();
    for rows in [70..130, 0..128, 121..130, 129..130, 0..17] {
        let some = c.dgrad(&mut dev, rows.clone(), true).unwrap();
        equal(&format!("rows {rows:?}"), &some, &all[rows.start * c.k..rows.end * c.k]).unwrap();
    }
}

#[test]
fn new_gradients_are_those_of_zeros() {
    for dev in [emu, cpu] {
        SHAPES.into_iter().for_each(|(t, n, k)| Case::new(t, n, k).new_gradient_is_that_of_zeros(&mut dev()).unwrap());
    }
}

#[test]
fn two_calls_are_one() {
    for (t, n, k) in [(100, 70, 40), (90, 131, 140)] {
        let c = Case::new(t, n, k);
        let whole = c.wgrad(&mut emu(), &[t], true).unwrap();
        for first in [16, 64, 80] {
            let calls = [first, 0, t - first];
            equal(&format!("{first} of {t}"), &c.wgrad(&mut emu(), &calls, true).unwrap(), &whole).unwrap();
        }
    }
}

#[test]
fn no_schedule_changes_a_bit() {
    let c = Case::new(70, 140, 131);
    same_bits(4, |dev| c.dgrad(dev, 0..70, true));
    same_bits(4, |dev| c.dgrad(dev, 0..12, false));
    same_bits(4, |dev| c.wgrad(dev, &[70], true));
    same_bits(4, |dev| Case::new(300, 40, 64).wgrad(dev, &[300], true));
}

#[test]
#[ignore = "many schedules"]
fn no_drawn_schedule_changes_a_bit() {
    for (t, n, k) in [(150, 192, 150), (600, 40, 64), (16, 700, 70), (70, 35, 99)] {
        let c = Case::new(t, n, k);
        assert_eq!(same_bits(24, |dev| c.dgrad(dev, 0..t, true)), c.dgrad(&mut emu(), 0..t, true).unwrap());
        assert_eq!(same_bits(24, |dev| c.wgrad(dev, &[t], true)), c.wgrad(&mut emu(), &[t], true).unwrap());
    }
}

/// Probe that runs each tile over more stages than its ring has, and over fewer, with each way to copy rows.
fn probe(dev: &mut Device) -> Outcome {
    for (t, n, k) in [(4, 600, 40), (20, 330, 66), (130, 202, 36), (3, 8, 99)] {
        dgrad_is_right(dev, &Case::new(t, n, k), true)?;
    }
    for (t, n, k) in [(600, 40, 24), (210, 130, 131), (20, 70, 36), (70, 35, 66)] {
        wgrad_is_right(dev, &Case::new(t, n, k), true)?;
    }
    Ok(())
}

#[test]
fn every_wait_and_barrier_is_needed() {
    mutate_sites(&["kernels/gemm_bwd.cu"], 3, probe);
}

#[test]
fn shared_memory_has_no_bank_conflicts() {
    if skipped("bank conflicts") {
        return;
    }
    for t in [8, 64, 130] {
        let (mut dev, c) = (emu(), Case::new(t, 136, 136));
        c.dgrad(&mut dev, 0..t, true).unwrap();
        c.wgrad(&mut dev, &[t], true).unwrap();
        assert_eq!(emulator(&mut dev).counters().bank_conflicts, 0, "{t} rows");
    }
}

#[test]
fn what_kernels_cannot_take_is_refused() {
    let mut dev = emu();
    let x = up(&mut dev, &[1.0f32; 128], &[2, 64]);
    let dw = up(&mut dev, &[0.0f32; 4096], &[4096]);
    let text = linear::wgrad(&mut dev, x, x, dw, None).unwrap_err().to_string();
    assert!(text.contains("bf16"), "{text}");
    let x = up(&mut dev, &[bf16::ONE; 128], &[2, 64]);
    // A gradient without its padding.
    let short = up(&mut dev, &[bf16::ONE; 80], &[2, 40]);
    assert_eq!(row_stride(40), 64);
    let dw = up(&mut dev, &[0.0f32; 64 * 40], &[64 * 40]);
    assert!(linear::wgrad(&mut dev, short, x, dw, None).is_err());
    let data = up(&mut dev, &[bf16::ONE; 4096], &[4096]);
    let w = Weight::new(data, Order::Panels, 64, 64);
    let text = linear::dgrad(&mut dev, x, &w, x, false).unwrap_err().to_string();
    assert!(text.contains("row order"), "{text}");
}

/// Plausible mistakes, each in one place of the kernel.
const MISTAKES: [(&str, &str); 7] = [
    ("int left = r < from.rows ? from.columns - c : 0;", "int left = from.columns - c;"),
    ("args.accumulate ? sum + load_quad(dx, whole, count) : sum", "sum"),
    ("warp.lane / 8 % 2;", "warp.lane / 16;"),
    ("+ warp.lane / 16 * Warp<T>::SHARING", "+ warp.lane / 16"),
    ("acc[i + 1] = v.y;", ""),
    ("sums[2] = args.dbias[n + 8];", ""),
    ("column + 1 < all.columns", "true"),
];

/// Small shapes that reveal each of the mistakes: rows that do not fill a stage, both halves of every fragment, an odd
/// K.
fn small(dev: &mut Device) -> Outcome {
    dgrad_is_right(dev, &Case::new(20, 30, 70), true)?;
    wgrad_is_right(dev, &Case::new(20, 70, 35), true)?;
    padding_stays_zero(dev)
}

/// Checks the padding also with a gradient that has overflowed, because zero times infinity is not zero.
fn padding_stays_zero(dev: &mut Device) -> Outcome {
    let mut c = Case::new(20, 70, 35);
    c.dy[3] = bf16::INFINITY;
    let dw = c.wgrad(dev, &[20], true)?;
    if dw[3 * 35..4 * 35].iter().any(|v| v.is_finite()) || dw[..3 * 35].iter().any(|v| !v.is_finite()) {
        return Err("one infinity belongs in one row".into());
    }
    Ok(())
}

#[test]
fn a_lost_accumulation_is_seen() {
    small(&mut emu()).unwrap();
    let (from, to) = MISTAKES[1];
    mutate_source("gemm_bwd", from, to, 1, small);
}

#[test]
#[ignore = "a compilation each"]
fn mistakes_in_the_kernel_are_seen() {
    for (from, to) in MISTAKES {
        mutate_source("gemm_bwd", from, to, 2, small);
    }
}

//! Tests of kernels/lora.cu, and of the second pair of operands in kernels/gemm.cu, gemm_bwd.cu and their wgmma variants.

use half::bf16;
use omr_runtime::device::emu::Options;
use omr_runtime::device::emu::options::Sums;
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant, Region, WgmmaKernels};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::gelu::GeluKind;
use omr_runtime::ops::input::{Input, Pair};
use omr_runtime::ops::linear;
use omr_runtime::ops::lora::{self, NO_PART, Rows};
use omr_runtime::ops::matmul::Order;
use omr_runtime::tensor::{DType, Elem};

use crate::kernels::gemm_sm90a::{wide, wide_with};
use crate::kernels::inputs::{blank, cpu, random, uniform, up, weight};
use crate::kernels::{
    Outcome, emu, emu_of, equal, mutate_sites, mutate_source, mutate_source_of, no_hopper, same_bits, same_bits_on,
    skipped,
};

/// The products with a second pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Bias and residual.
    Linear,
    Gelu,
    SwiGlu,
    /// Two query heads and one key head.
    Qkv,
    /// Adds to an existing dx.
    Dgrad,
}

pub const OPS: [Op; 5] = [Op::Linear, Op::Gelu, Op::SwiGlu, Op::Qkv, Op::Dgrad];

/// A product [t, n] over k terms and r terms of a second pair. In `Dgrad`, the right operands have the terms as rows.
pub struct Case {
    op: Op,
    t: usize,
    n: usize,
    k: usize,
    r: usize,
    x: Vec<bf16>,
    w: Vec<bf16>,
    left: Vec<bf16>,
    right: Vec<bf16>,
    bias: Vec<bf16>,
    more: Vec<bf16>,
    angles: Vec<f32>,
}

/// Returns values whose sums of products are exact in any order: multiples of 1/8, at most 1/2.
fn eighths(values: Vec<bf16>) -> Vec<bf16> {
    values.into_iter().map(|x| bf16::from_f32((x.to_f32() * 4.0).round() / 8.0)).collect()
}

/// Returns the rows of `a` and `b` side by side.
fn beside(a: &[bf16], k: usize, b: &[bf16], r: usize) -> Vec<bf16> {
    a.chunks(k).zip(b.chunks(r)).flat_map(|(a, b)| [a, b].concat()).collect()
}

impl Case {
    pub fn new(op: Op, [t, n, k, r]: [usize; 4]) -> Case {
        Case {
            op,
            t,
            n,
            k,
            r,
            x: uniform(1, t * k),
            w: uniform(2, n * k),
            left: uniform(3, t * r),
            right: uniform(4, n * r),
            bias: uniform(5, n),
            more: uniform(6, t * n),
            angles: uniform(7, t * n / 8),
        }
    }

    fn exact(op: Op, sizes: [usize; 4]) -> Case {
        let c = Case::new(op, sizes);
        let [x, w, left] = [c.x, c.w, c.left].map(eighths);
        let [right, bias, more] = [c.right, c.bias, c.more].map(eighths);
        Case { x, w, left, right, bias, more, ..c }
    }

    /// Returns the same product with one pair. Zeros follow the first k terms up to a multiple of 16, because a matrix
    /// instruction sums 16 terms of one pair at a time.
    fn joined(&self) -> Case {
        let k = self.k.next_multiple_of(16);
        let padded = |v: &[bf16]| -> Vec<bf16> {
            v.chunks(self.k).flat_map(|row| [row, &vec![bf16::ZERO; k - self.k]].concat()).collect()
        };
        let (x, left) = (beside(&padded(&self.x), k, &self.left, self.r), Vec::new());
        let w = match self.op {
            Op::Dgrad => [&self.w[..], &vec![bf16::ZERO; (k - self.k) * self.n], &self.right].concat(),
            _ => beside(&padded(&self.w), k, &self.right, self.r),
        };
        let (bias, more, angles) = (self.bias.clone(), self.more.clone(), self.angles.clone());
        Case { k: k + self.r, r: 0, x, w, left, right: Vec::new(), bias, more, angles, ..*self }
    }

    /// Returns a case of some rows.
    fn rows(&self, from: usize, to: usize) -> Case {
        let of = |v: &[bf16], width: usize| v[from * width..to * width].to_vec();
        let (x, left, more) = (of(&self.x, self.k), of(&self.left, self.r), of(&self.more, self.n));
        let angles = self.angles[from * self.n / 8..to * self.n / 8].to_vec();
        let (w, right, bias) = (self.w.clone(), self.right.clone(), self.bias.clone());
        Case { t: to - from, x, left, more, angles, w, right, bias, ..*self }
    }

    pub fn run(&self, dev: &mut Device) -> Outcome<Vec<bf16>> {
        let Case { op, t, n, k, r, .. } = *self;
        let [(wn, wk), (sn, sk)] = if op == Op::Dgrad { [(k, n), (r, n)] } else { [(n, k), (n, r)] };
        let (x, w) = (up(dev, &self.x, &[t, k]), weight(dev, &self.w, wn, wk));
        let pair =
            (r > 0).then(|| Pair { left: up(dev, &self.left, &[t, r]), right: weight(dev, &self.right, sn, sk) });
        let (x, bias) = (Input { x, pair }, Some(up(dev, &self.bias, &[n])));
        let y = blank(dev, DType::Bf16, &[t, n]);
        let mut out = vec![y];
        match op {
            Op::Linear => {
                let residual = Some(up(dev, &self.more, &[t, n]));
                linear::fwd(dev, x, &w, bias, residual, y)?;
            }
            Op::Gelu => {
                out.push(blank(dev, DType::Bf16, &[t, n]));
                linear::fwd_gelu(dev, GeluKind::Exact, x, &w, bias, Some(out[1]), y)?;
            }
            Op::SwiGlu => {
                out.push(blank(dev, DType::Bf16, &[t, n / 2]));
                linear::fwd_swiglu(dev, x, &w, bias, Some(y), out[1])?;
            }
            Op::Qkv => {
                let heads = Heads { q: 2, kv: 1, dim: n / 4 };
                let mut table = |f: fn(f32) -> f32| {
                    let values: Vec<f32> = self.angles.iter().map(|x| f(3.0 * x)).collect();
                    up(dev, &values, &[t, heads.dim / 2])
                };
                let (cos, sin) = (table(f32::cos), table(f32::sin));
                linear::fwd_qkv(dev, linear::Qkv { x, w: &w, bias, cos, sin, heads, cache: None, qkv: y })?;
            }
            Op::Dgrad => {
                out = vec![up(dev, &self.more, &[t, n])];
                linear::dgrad(dev, x, &w, out[0], true)?;
            }
        }
        let all: omr_base::error::Result<Vec<Vec<bf16>>> = out.into_iter().map(|t| dev.read(t)).collect();
        Ok(all?.concat())
    }
}

/// [T, N, K, R]: every tile, complete and incomplete; terms of the first pair that fill their last stage or do not;
/// several stages of the second pair; more stages in all than a ring has. R is a multiple of 16: ranks 1, 8, 16 and 64
/// with one to three parts.
const SHAPES: [[usize; 4]; 8] = [
    [1, 64, 64, 16],
    [16, 128, 72, 48],
    [17, 192, 136, 16],
    [65, 64, 40, 64],
    [129, 320, 72, 32],
    [130, 128, 600, 192],
    [3, 128, 1088, 16],
    [70, 448, 200, 128],
];

/// Devices by kernel variant: `mma.sync`, and wgmma if there is a GPU of compute capability 9.0.
fn devices() -> Vec<Device> {
    if no_hopper("wgmma") { vec![emu()] } else { vec![emu(), wide()] }
}

#[test]
fn the_chain_goes_on_over_the_second_pair() {
    for sizes in SHAPES {
        for op in OPS {
            let c = Case::new(op, sizes);
            for mut dev in devices() {
                let what = format!("{op:?} {sizes:?}, wgmma {}", dev.uses_wgmma(WgmmaKernels::Products));
                equal(&what, &c.run(&mut dev).unwrap(), &c.joined().run(&mut dev).unwrap()).unwrap();
                let other = Case { right: vec![bf16::ZERO; c.right.len()], left: c.left.clone(), ..c.rows(0, c.t) };
                assert_ne!(other.run(&mut dev).unwrap(), c.run(&mut dev).unwrap(), "{what}");
            }
        }
    }
}

#[test]
fn exact_sums_end_in_the_cpus_bits() {
    for sizes in SHAPES {
        // Activations need more than a product, so only what they are computed from is compared.
        for op in [Op::Linear, Op::Dgrad, Op::Gelu, Op::SwiGlu] {
            let c = Case::exact(op, sizes);
            let want = c.run(&mut cpu()).unwrap();
            for mut dev in devices() {
                equal(&format!("{op:?} {sizes:?}"), &c.run(&mut dev).unwrap(), &want).unwrap();
            }
        }
    }
}

#[test]
fn each_rank_and_set_of_pieces_has_the_cpus_bits() {
    // Rows of q and v among q, k and v, or of up in blocks of 32 beside gate.
    let of_qkv = |n: usize| [Some(0), None, Some(1)][n / 64];
    let of_up = |n: usize| (n / 32 % 2 == 1).then_some(0);
    for rank in [1usize, 8, 16, 64] {
        for (op, pieces) in [(Op::Linear, 2), (Op::SwiGlu, 1)] {
            let part_of = |n| if op == Op::Linear { of_qkv(n) } else { of_up(n) };
            let part = rank.next_multiple_of(16);
            let mut c = Case::exact(op, [17, 192, 72, pieces * part]);
            for (i, s) in c.right.iter_mut().enumerate() {
                let (row, column) = (i / c.r, i % c.r);
                let inside = part_of(row).is_some_and(|at| column / part == at && column % part < rank);
                *s = if inside { *s } else { bf16::ZERO };
            }
            let want = c.run(&mut cpu()).unwrap();
            for mut dev in devices() {
                let (all, alone) = (c.run(&mut dev).unwrap(), c.rows(9, 10).run(&mut dev).unwrap());
                equal(&format!("{op:?} of rank {rank}"), &all, &want).unwrap();
                equal("one row", &alone[..c.n], &all[9 * c.n..10 * c.n]).unwrap();
            }
        }
    }
}

#[test]
fn a_row_has_its_bits_from_every_tile_and_batch() {
    for op in OPS {
        let c = Case::new(op, [130, 192, 136, 48]);
        for mut dev in devices() {
            let all = c.run(&mut dev).unwrap();
            for (from, to) in [(70, 130), (0, 128), (121, 130), (64, 65), (0, 17)] {
                let some = c.rows(from, to).run(&mut dev).unwrap();
                // Each of the results has `to - from` rows.
                let (mut at, mut of_all) = (0, 0);
                while at < some.len() {
                    let width = if at > 0 && op == Op::SwiGlu { c.n / 2 } else { c.n };
                    let want = &all[of_all + from * width..of_all + to * width];
                    equal(&format!("{op:?} {from} {to}"), &some[at..at + want.len()], want).unwrap();
                    (at, of_all) = (at + want.len(), of_all + c.t * width);
                }
            }
        }
    }
}

#[test]
fn zeros_change_no_value_of_a_chain_or_of_an_aligned_sum() {
    for sums in [Sums::Chain, Sums::Aligned] {
        if skipped("rules of sums") {
            return;
        }
        for variant in [KernelVariant::Mma, KernelVariant::Wgmma] {
            for op in OPS {
                let mut c = Case::new(op, [20, 128, 128, 48]);
                if op == Op::Linear {
                    // The chain of the first row and column ends in -0: its terms underflow.
                    c.x[..c.k].fill(bf16::from_f32(-1e-30));
                    c.w[..c.k].fill(bf16::from_f32(1e-30));
                    (c.bias[0], c.more[0]) = (bf16::NEG_ZERO, bf16::NEG_ZERO);
                }
                c.right.fill(bf16::ZERO);
                let base = Case { r: 0, left: Vec::new(), right: Vec::new(), ..c.rows(0, c.t) };
                let on = || {
                    let mut dev = emu_of(Options { sums, arch: Arch::Sm90a, ..Options::default() }).unwrap();
                    dev.use_variant(variant).unwrap();
                    dev
                };
                // `equal` compares numbers: a sum of -0 becomes +0.
                let want = base.run(&mut on()).unwrap();
                equal(&format!("{op:?} {sums:?} {variant:?}"), &c.run(&mut on()).unwrap(), &want).unwrap();
                if op == Op::Linear && sums == Sums::Chain {
                    assert_eq!(want[0].to_bits(), bf16::NEG_ZERO.to_bits(), "{variant:?}");
                }
            }
        }
    }
}

/// x [t, k] and A [r, k].
pub struct Down {
    t: usize,
    r: usize,
    k: usize,
    x: Vec<bf16>,
    a: Vec<bf16>,
}

impl Down {
    pub fn new(t: usize, r: usize, k: usize) -> Down {
        Down { t, r, k, x: uniform(1, t * k), a: uniform(2, r * k) }
    }

    pub fn run(&self, dev: &mut Device, from: usize, to: usize) -> Outcome<Vec<bf16>> {
        let x = up(dev, &self.x[from * self.k..to * self.k], &[to - from, self.k]);
        let a = weight(dev, &self.a, self.r, self.k);
        let (tickets, t) = (lora::tickets(dev, Region::Overlay)?, blank(dev, DType::Bf16, &[to - from, self.r]));
        // The second call finds the tickets as the first one left them.
        lora::fwd(dev, x, &a, tickets, t)?;
        let first = dev.read::<bf16>(t)?;
        dev.write(t, &vec![bf16::ONE; first.len()])?;
        lora::fwd(dev, x, &a, tickets, t)?;
        equal("the second call", &dev.read::<bf16>(t)?, &first)?;
        Ok(first)
    }

    /// Computes t slice by slice with the product that returns f32 sums.
    fn by_slices(&self, dev: &mut Device) -> Outcome<Vec<bf16>> {
        let mut sums: Vec<f32> = Vec::new();
        for from in (0..self.k).step_by(1024) {
            let to = self.k.min(from + 1024);
            let columns = |m: &[bf16]| m.chunks(self.k).flat_map(|row| row[from..to].to_vec()).collect::<Vec<_>>();
            let (x, a) = (up(dev, &columns(&self.x), &[self.t, to - from]), columns(&self.a));
            let (a, y) = (weight(dev, &a, self.r, to - from), blank(dev, DType::F32, &[self.t, self.r]));
            linear::fwd_f32(dev, x, &a, y)?;
            let slice = dev.read::<f32>(y)?;
            match from {
                0 => sums = slice,
                _ => sums.iter_mut().zip(slice).for_each(|(sum, x)| *sum += x),
            }
        }
        Ok(sums.into_iter().map(bf16::from_f32).collect())
    }
}

#[test]
fn t_is_a_sum_of_slices_in_order() {
    // One to four slices; K whose rows are copied by 16, 4 and 2 bytes; several tiles of columns.
    for (t, r, k) in [(1, 16, 3584), (16, 48, 2048), (17, 16, 1025), (70, 192, 2052), (33, 64, 99), (5, 16, 1024)] {
        let c = Down::new(t, r, k);
        let (mut dev, what) = (emu(), format!("[{t}, {r}, {k}]"));
        let all = c.run(&mut dev, 0, t).unwrap();
        equal(&what, &all, &c.by_slices(&mut dev).unwrap()).unwrap();
        equal(&what, &c.run(&mut dev, t - 1, t).unwrap(), &all[(t - 1) * r..]).unwrap();
        let exact = Down { x: eighths(c.x.clone()), a: eighths(c.a.clone()), ..c };
        equal(&what, &exact.run(&mut dev, 0, t).unwrap(), &exact.run(&mut cpu(), 0, t).unwrap()).unwrap();
    }
}

#[test]
fn many_tiles_compute_their_slices_in_turn() {
    // 144 tiles, more than there are tickets.
    let c = Down::new(576, 1024, 1040);
    let mut dev = emu();
    let all = c.run(&mut dev, 0, c.t).unwrap();
    equal("64 rows", &c.run(&mut dev, 500, 564).unwrap(), &all[500 * c.r..564 * c.r]).unwrap();
    equal("one row", &c.run(&mut dev, 570, 571).unwrap(), &all[570 * c.r..571 * c.r]).unwrap();
}

/// Runs the ops of S and of the gradient of B: 70 rows in three pieces, of which the second has no adapter.
fn derive(dev: &mut Device) -> Outcome<[Vec<f32>; 2]> {
    let (n, rank, wide, scale) = (70, 5, 32, 1.7f32);
    let order = Order::of(dev);
    let dense_order = order.dense();
    let parts: Vec<u8> = (0..n).map(|row| [0, NO_PART, 1][(row / 20usize).min(2)]).collect();
    let rows = Rows { parts: up(dev, &parts, &[n]), rank };
    let place = |columns: usize, i: usize| {
        let order = if columns == rank { dense_order } else { order };
        order.index(DType::Bf16, columns, i / columns, i % columns)
    };
    fn placed<T: Elem>(len: usize, place: impl Fn(usize) -> usize, values: &[T]) -> Vec<T> {
        let mut out = vec![T::zeroed(); len];
        values.iter().enumerate().for_each(|(i, x)| out[place(i)] = *x);
        out
    }
    let len = dense_order.len(DType::Bf16, n, rank);
    let mut random = random(9);
    let low: Vec<i16> = (0..n * rank).map(|_| (random.uniform_f32() * 65_535.0 - 32_768.0) as i16).collect();
    let b = up(dev, &placed(len, |i| place(rank, i), &uniform::<bf16>(1, n * rank)), &[len]);
    let low = up(dev, &placed(len, |i| place(rank, i), &low), &[len]);
    let s = weight(dev, &vec![bf16::ZERO; n * wide], n, wide);
    let scaled = blank(dev, DType::Bf16, &[len]);
    lora::scaled(dev, b, Some(low), scale, scaled)?;
    lora::spread(dev, scaled, rows, &s)?;
    let dense = placed(s.data.len(), |i| place(wide, i), &uniform::<f32>(2, n * wide));
    let (ds, db) = (
        up(dev, &dense, &[dense.len()]),
        up(dev, &placed(len, |i| place(rank, i), &uniform::<f32>(3, n * rank)), &[len]),
    );
    lora::collect(dev, ds, rows, &s, scale, db)?;
    let (found, grad) = (dev.read::<bf16>(s.data)?, dev.read::<f32>(db)?);
    let s = (0..n * wide).map(|i| found[place(wide, i)].to_f32()).collect();
    Ok([s, (0..n * rank).map(|i| grad[place(rank, i)]).collect()])
}

#[test]
fn s_and_the_gradient_of_b_are_those_of_the_cpu() {
    let (here, there) = (derive(&mut emu()).unwrap(), derive(&mut cpu()).unwrap());
    equal("S", &here[0], &there[0]).unwrap();
    equal("db", &here[1], &there[1]).unwrap();
    assert!(here.iter().all(|values| values.iter().any(|x| *x != 0.0)));
}

#[test]
fn no_schedule_changes_a_bit() {
    for op in OPS {
        let c = Case::new(op, [70, 128, 136, 80]);
        same_bits(4, |dev| c.run(dev));
        if !no_hopper("wgmma") {
            same_bits_on(wide_with, 4, |dev| c.run(dev));
        }
    }
    let (few, more) = (Down::new(3, 16, 3000), Down::new(70, 48, 1100));
    same_bits(6, |dev| few.run(dev, 0, 3));
    same_bits(6, |dev| more.run(dev, 0, 70));
}

/// Probe of t with each tile, with one slice, with several, and with more tiles than there are tickets.
fn t_is_right(dev: &mut Device) -> Outcome {
    for (t, r, k) in [(3, 16, 2200), (20, 48, 1100), (2, 16, 64), (1, 129 * 64, 1040)] {
        let c = Down::new(t, r, k);
        equal("t", &c.run(dev, 0, t)?, &c.by_slices(&mut emu())?)?;
    }
    Ok(())
}

#[test]
fn every_wait_and_barrier_is_needed() {
    mutate_sites(&["kernels/lora.cu"], 3, t_is_right);
}

/// Compares all products, and S, with what they must be.
fn products(dev: &mut Device) -> Outcome {
    for op in OPS {
        let c = Case::new(op, [20, 128, 72, 80]);
        equal("a product", &c.run(dev)?, &c.joined().run(&mut emu())?)?;
    }
    let (found, want) = (derive(dev)?, derive(&mut cpu())?);
    equal("S", &found[0], &want[0])?;
    equal("db", &found[1], &want[1])?;
    t_is_right(dev)
}

/// Plausible mistakes, each in one place of a kernel.
const MISTAKES: [(Arch, &str, &str, &str); 10] = [
    (Arch::Sm80, "lora", "for (int s = 0; s < slices; s++) {", "for (int s = slices - 1; s >= 0; s--) {"),
    (Arch::Sm80, "lora", "sum = s == 0 ? one : sum + one;", "sum = one;"),
    (Arch::Sm80, "lora", "done % SLICE == 0 || done == count", "done == count"),
    (Arch::Sm80, "lora", "int first = args.part[row] * (", "int first = (1 - args.part[row]) * ("),
    (Arch::Sm80, "lora", "if (row >= args.n || args.part[row] == NO_PART) return;", "if (row >= args.n) return;"),
    (Arch::Sm80, "lora", "isa::store(ticket, 0u);", ""),
    (Arch::Sm80, "common/gemm.cuh", "first ? depth : more.depth", "depth"),
    (
        Arch::Sm80,
        "common/gemm.cuh",
        "int k = (step < steps ? step : step - steps) * BLOCK_K;",
        "int k = step * BLOCK_K;",
    ),
    (Arch::Sm80, "gemm_bwd", "first ? args.terms : pair.depth", "args.terms"),
    (Arch::Sm90a, "common/gemm_sm90a.cuh", "&args.more_x, &args.more_w,", "&args.more_x, &args.w,"),
];

#[test]
fn slices_in_another_order_are_seen() {
    products(&mut emu()).unwrap();
    let (_, file, from, to) = MISTAKES[0];
    mutate_source(file, from, to, 1, t_is_right);
}

#[test]
#[ignore = "a compilation each"]
fn mistakes_in_the_kernels_are_seen() {
    for (arch, file, from, to) in &MISTAKES[1..] {
        let probe = |dev: &mut Device| {
            if *arch == Arch::Sm90a {
                dev.use_variant(KernelVariant::Wgmma)?;
            }
            products(dev)
        };
        mutate_source_of(*arch, file, from, to, 2, probe);
    }
}

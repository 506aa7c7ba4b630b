//! Tests products of bf16 with AMX tiles. The emulation of the tiles is compared with the documented chain of
//! additions, and the real tiles are compared with the emulation.

use omr_runtime::ops::linear;

use super::panels::{pack_order, unpack_order};
use super::*;

/// (T, N, K): tiles with remainders of every kind, odd K, two tiles of rows with one additional row, columns that are
/// not a multiple of a panel.
const SHAPES: [(usize, usize, usize); 9] = [
    (70, 160, 96),
    (13, 33, 7),
    (1, 96, 100),
    (33, 100, 136),
    (0, 64, 32),
    (1, 1, 1),
    (40, 64, 63),
    (17, 130, 31),
    (300, 31, 64),
];

/// The emulation, and the AMX tiles themselves if the processor has them.
fn instruction_sets() -> Vec<Isa> {
    [Isa::AmxTwin, Isa::Amx].into_iter().filter(|isa| isa.available()).collect()
}

/// Flushes subnormal numbers to zero.
fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// Returns a sum over K of `pair(k)`. The sum has steps of 32 elements, padded with zeros. In each step, the even and
/// the odd elements form two separate chains.
fn chain(len: usize, start: f32, pair: impl Fn(usize) -> (f32, f32)) -> f32 {
    let mut sum = start;
    for first in (0..len).step_by(32) {
        let half = |odd: usize| {
            (first + odd..first + 32).step_by(2).fold(0.0f32, |sum, k| {
                let (a, b) = if k < len { pair(k) } else { (0.0, 0.0) };
                flush(flush(a).mul_add(flush(b), sum))
            })
        };
        sum = flush(flush(sum) + flush(half(0) + half(1)));
    }
    sum
}

struct Case {
    t: usize,
    n: usize,
    k: usize,
    x: Vec<f32>,
    w: Vec<f32>,
    dy: Vec<f32>,
    dw: Vec<f32>,
}

fn case((t, n, k): (usize, usize, usize)) -> Case {
    let of = |name, len| values(DType::Bf16, name, len);
    Case { t, n, k, x: of(1, t * k), w: of(2, n * k), dy: of(3, t * n), dw: values(DType::F32, 4, n * k) }
}

/// Returns y, dx, and dw. dw starts at the given values and accumulates two calls, over the tokens before and after
/// `cut`.
fn run(dev: &mut Device, c: &Case, cut: usize) -> [Vec<f32>; 3] {
    let (t, n, k) = (c.t, c.n, c.k);
    let x = upload(dev, DType::Bf16, &c.x, &[t, k]);
    let dy = upload(dev, DType::Bf16, &c.dy, &[t, n]);
    let w = weight(dev, DType::Bf16, &c.w, n, k);
    let y = dev.alloc(Region::Overlay, DType::F32, &[t, n]).unwrap();
    linear::fwd_f32(dev, x, &w, y).unwrap();
    let dx = dev.alloc(Region::Overlay, DType::Bf16, &[t, k]).unwrap();
    linear::dgrad(dev, dy, &w, dx, false).unwrap();
    let mut panels = vec![0.0; panel_len(DType::Bf16, n, k)];
    pack_order(DType::Bf16, n, k, &c.dw, &mut panels);
    let dw = upload(dev, DType::F32, &panels, &[panels.len()]);
    for (from, to) in [(0, cut), (cut, t)] {
        linear::wgrad(dev, x.slice(from, to), dy.slice(from, to), dw, None).unwrap();
    }
    [read(dev, y), read(dev, dx), unpack_order(DType::Bf16, n, k, &dev.read::<f32>(dw).unwrap())]
}

#[test]
fn products_are_the_chain_of_the_manual_whatever_the_threads() {
    for shape in SHAPES {
        let c = case(shape);
        let (t, n, k) = shape;
        let want = [
            (0..t * n).map(|i| chain(k, 0.0, |j| (c.x[i / n * k + j], c.w[i % n * k + j]))).collect::<Vec<_>>(),
            (0..t * k)
                .map(|i| round(DType::Bf16, chain(n, 0.0, |j| (c.dy[i / k * n + j], c.w[j * k + i % k]))))
                .collect(),
            (0..n * k).map(|i| chain(t, c.dw[i], |j| (c.x[j * k + i % k], c.dy[j * n + i / k]))).collect(),
        ];
        for isa in instruction_sets() {
            for threads in [1, 2, 5] {
                // If the first call ends at a step boundary, a second call over further tokens continues the chain.
                let got = run(&mut device(threads, isa), &c, t / 2 / 32 * 32);
                for (what, (got, want)) in ["y", "dx", "dw"].iter().zip(got.iter().zip(&want)) {
                    same_bits(&format!("{what} of {shape:?}, {isa:?}, {threads} threads"), got, want);
                }
            }
        }
    }
}

#[test]
fn a_row_alone_has_its_bits_in_every_batch_by_tiles() {
    let all = case((70, 96, 100));
    for isa in instruction_sets() {
        let mut dev = device(2, isa);
        let alone: Vec<f32> = (0..70)
            .flat_map(|r| {
                run(&mut dev, &Case { t: 1, x: all.x[r * 100..][..100].to_vec(), ..case((1, 96, 100)) }, 0)[0].clone()
            })
            .collect();
        for t in 1..=70 {
            let some = Case { t, x: all.x[..t * 100].to_vec(), dy: all.dy[..t * 96].to_vec(), ..case((1, 96, 100)) };
            same_bits(&format!("batch of {t} by {isa:?}"), &run(&mut dev, &some, 0)[0], &alone[..t * 96]);
        }
    }
}

#[test]
fn missing_instruction_sets_are_refused_by_name() {
    let all = Isa::ALL.map(|isa| Device::cpu(&Plan::uniform(1 << 20), 1, isa));
    for (isa, dev) in Isa::ALL.into_iter().zip(all) {
        assert_eq!(dev.is_ok(), isa.available(), "{isa:?}");
        let message = dev.err().map_or(String::new(), |error| error.to_string());
        assert!(isa.available() || message.contains(isa.name()), "{message}");
    }
    assert_eq!(Isa::Amx.available(), omr_runtime::device::amx::refusal().is_none());
    assert_eq!(Isa::Amx.chains(), Isa::AmxTwin.chains());
}

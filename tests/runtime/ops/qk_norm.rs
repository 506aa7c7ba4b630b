//! Tests the norm and rotation of heads, and their gradients, against the f64 formula and finite differences.

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::qk_norm::{self, Bwd, Fwd, SavedRows};
use omr_runtime::tensor::Elem;

use super::reference::{BF16, F32, Random, device, devices, differences, dot, relative, up, wide};

const EPS: f32 = 1e-6;

/// Inputs of one call.
struct Case<T> {
    t: usize,
    heads: Heads,
    qkv: Vec<T>,
    w: [Vec<T>; 2],
    angles: Vec<f32>,
    dy: Vec<T>,
}

impl<T: Elem> Case<T> {
    fn new(t: usize, heads: Heads) -> Case<T> {
        let mut r = Random::new((t * 1000 + heads.dim) as u64);
        let len = t * heads.qkv_len();
        let w = [r.values(heads.dim), r.values(heads.dim)];
        Case { t, heads, qkv: r.values(len), w, angles: r.values(t * heads.dim / 2), dy: r.values(len) }
    }

    /// Returns the rows, their gradient, and the gradients of both weights.
    fn run(&self, dev: &mut Device) -> (Vec<T>, Vec<T>, Vec<f32>) {
        let (t, heads, dim) = (self.t, self.heads, self.heads.dim);
        let dims = [t, heads.qkv_len()];
        let (qkv, dqkv) = (up(dev, &self.qkv, &dims), up(dev, &self.dy, &dims));
        let [q, k] = [0, 1].map(|i: usize| up(dev, &self.w[i], &[dim]));
        let [cos, sin] = [f32::cos, f32::sin].map(|f| {
            let values: Vec<f32> = self.angles.iter().map(|a| f(*a)).collect();
            up(dev, &values, &[t, dim / 2])
        });
        let kept = SavedRows::alloc(dev, Region::Overlay, T::DTYPE, t, heads).unwrap();
        let dweights = [0, 1].map(|_| up(dev, &vec![0f32; dim], &[dim]));
        qk_norm::fwd(dev, Fwd { qkv, q, k, eps: EPS, cos, sin, heads, cache: None, kept: Some(kept) }).unwrap();
        qk_norm::bwd(dev, Bwd { dqkv, q, k, cos, sin, heads, kept, dweights: Some(dweights) }).unwrap();
        let dw = dweights.map(|dw| dev.read::<f32>(dw).unwrap()).concat();
        (dev.read(qkv).unwrap(), dev.read(dqkv).unwrap(), dw)
    }

    /// Returns the rows by the formula.
    fn formula(&self, qkv: &[f64], w: &[f64]) -> Vec<f64> {
        let Heads { q, kv, dim } = self.heads;
        let half = dim / 2;
        let mut out = qkv.to_vec();
        for (i, row) in out.chunks_mut(self.heads.qkv_len()).enumerate() {
            for (h, head) in row.chunks_mut(dim).take(q + kv).enumerate() {
                let w = &w[usize::from(h >= q) * dim..][..dim];
                let r = 1.0 / (dot(head, head) / dim as f64 + f64::from(EPS)).sqrt();
                let y: Vec<f64> = head.iter().zip(w).map(|(x, w)| x * r * w).collect();
                for j in 0..half {
                    let angle = self.angles[i * half + j];
                    let (c, s) = (f64::from(angle.cos()), f64::from(angle.sin()));
                    head[j] = y[j] * c - y[half + j] * s;
                    head[half + j] = y[half + j] * c + y[j] * s;
                }
            }
        }
        out
    }
}

/// A sum has at most dim / 32 + 5 terms in a row and, for the weights, one term for each head of each row. The error of a
/// sum of n terms grows as sqrt(n) units, and the factor 16 covers the other operations.
fn close<T: Elem>(t: usize, heads: Heads, point: f64) {
    let case = Case::<T>::new(t, heads);
    let (y, dx, dw) = case.run(&mut device(2, omr_runtime::device::Isa::detect()));
    let (qkv, dy) = (wide(&case.qkv), wide(&case.dy));
    let w = [wide(&case.w[0]), wide(&case.w[1])].concat();
    let sums = 16.0 * F32 * ((heads.dim / 32 + 5 + t * heads.q) as f64).sqrt();
    let want = case.formula(&qkv, &w);
    assert!(relative(&y, &want) < sums + point, "y {heads:?}: {:e}", relative(&y, &want));
    let all: Vec<usize> = (0..qkv.len()).collect();
    let want = differences(&qkv, &all, |x| dot(&case.formula(x, &w), &dy));
    assert!(relative(&dx, &want) < sums + point, "dx {heads:?}: {:e}", relative(&dx, &want));
    let all: Vec<usize> = (0..w.len()).collect();
    let want = differences(&w, &all, |w| dot(&case.formula(&qkv, w), &dy));
    assert!(relative(&dw, &want) < sums, "dw {heads:?}: {:e}", relative(&dw, &want));
}

#[test]
fn agrees_with_the_formula_and_its_differences() {
    for (t, (q, kv, dim)) in [(1, (2, 1, 16)), (3, (3, 1, 6)), (19, (2, 1, 10)), (2, (2, 2, 128))] {
        close::<f32>(t, Heads { q, kv, dim }, 0.0);
        close::<bf16>(t, Heads { q, kv, dim }, BF16);
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_sets() {
    let case = Case::<bf16>::new(70, Heads { q: 4, kv: 2, dim: 24 });
    let runs: Vec<_> = devices().iter_mut().map(|dev| case.run(dev)).collect();
    assert!(runs.windows(2).all(|w| w[0] == w[1]));
}

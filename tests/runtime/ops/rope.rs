//! Tests the rotary embedding op and its inverse against the f64 formula.

use half::bf16;
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::rope;
use omr_runtime::tensor::Elem;

use super::reference::{BF16, F32, Random, device, devices, relative, up, wide};

/// Applies the rotation of the tables in the rotate-half layout; `sign` is -1 for the inverse. The v heads stay
/// unchanged.
fn formula(qkv: &[f64], cos: &[f64], sin: &[f64], heads: Heads, sign: f64) -> Vec<f64> {
    let half = heads.dim / 2;
    let mut out = qkv.to_vec();
    for (t, row) in out.chunks_mut(heads.qkv_len()).enumerate() {
        for head in row.chunks_mut(heads.dim).take(heads.q + heads.kv) {
            for j in 0..half {
                let (c, s) = (cos[t * half + j], sign * sin[t * half + j]);
                let (a, b) = (head[j], head[j + half]);
                (head[j], head[j + half]) = (a * c - b * s, b * c + a * s);
            }
        }
    }
    out
}

fn close<T: Elem>(t: usize, heads: Heads, point: f64) {
    let mut r = Random::new(t as u64);
    let qkv: Vec<T> = r.values(t * heads.qkv_len());
    let angles: Vec<f32> = r.values(t * heads.dim / 2);
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| ((3.0 * a).cos(), (3.0 * a).sin())).unzip();
    let mut runs = Vec::new();
    for dev in &mut devices() {
        let x = up(dev, &qkv, &[t, heads.qkv_len()]);
        let c = up(dev, &cos, &[t, heads.dim / 2]);
        let s = up(dev, &sin, &[t, heads.dim / 2]);
        rope::fwd(dev, x, c, s, heads).unwrap();
        let forward: Vec<T> = dev.read(x).unwrap();
        rope::bwd(dev, x, c, s, heads).unwrap();
        runs.push((forward, dev.read::<T>(x).unwrap()));
    }
    assert!(runs.windows(2).all(|w| w[0] == w[1]), "bits depend on threads or instruction sets");
    let (forward, back) = &runs[0];
    let want = formula(&wide(&qkv), &wide(&cos), &wide(&sin), heads, 1.0);
    // Two products and a sum have at most three roundings in f32. Each op rounds once to the storage type.
    assert!(relative(forward, &want) < 3.0 * F32 + point);
    assert!(relative(back, &wide(&qkv)) < 6.0 * F32 + 2.0 * point);
    assert_eq!(
        relative(
            &forward[heads.qkv_len() - heads.dim..heads.qkv_len()],
            &wide(&qkv[heads.qkv_len() - heads.dim..heads.qkv_len()])
        ),
        0.0,
        "v moved"
    );
}

#[test]
fn agrees_with_the_formula_and_the_gradient_is_its_inverse() {
    for (t, q, kv, dim) in [(1, 1, 1, 2), (70, 3, 1, 32), (5, 4, 2, 12), (130, 2, 2, 80), (5, 2, 2, 72)] {
        close::<f32>(t, Heads { q, kv, dim }, 0.0);
        close::<bf16>(t, Heads { q, kv, dim }, BF16);
    }
}

#[test]
fn odd_heads_are_an_error() {
    let dev = &mut device(1, omr_runtime::device::Isa::Portable);
    let x = up(dev, &[0.0f32; 9], &[1, 9]);
    let table = up(dev, &[0.0f32; 1], &[1, 1]);
    assert!(rope::fwd(dev, x, table, table, Heads { q: 1, kv: 1, dim: 3 }).is_err());
}

//! Tests the op that computes the gradient norm, the clipping factor and the flag for finite values.

use omr_runtime::device::Device;
use omr_runtime::ops::grad_norm::{self, CHUNK};
use omr_runtime::tensor::{DType, Tensor};

use super::reference::{Random, blank, device, devices, dot, up, wide};

/// Returns norm, factor and flag of `grads`. The sums are computed in parts of `each` chunks, as by ranks that own
/// these chunks.
pub fn norm(dev: &mut Device, grads: &[Tensor], max_norm: f32, guard: Option<Tensor>, each: usize) -> Vec<f32> {
    let ranges = |g: &Tensor| {
        let (g, step) = (g.reshape(&[g.len()]), each.saturating_mul(CHUNK));
        (0..g.len()).step_by(step).map(move |from| g.slice(from, from.saturating_add(step).min(g.len())))
    };
    let ranges: Vec<Tensor> = grads.iter().flat_map(ranges).collect();
    let chunks = |grads: &[Tensor]| grads.iter().map(|g| g.len().div_ceil(CHUNK)).sum::<usize>();
    let partials = blank(dev, DType::F64, &[chunks(grads)]);
    // Computes the last ranges first, two at a time.
    for at in (0..ranges.len()).step_by(2).rev() {
        let (own, before) = (&ranges[at..ranges.len().min(at + 2)], chunks(&ranges[..at]));
        grad_norm::partials(dev, own, partials.slice(before, before + chunks(own))).unwrap();
    }
    let out = blank(dev, DType::F32, &[3]);
    grad_norm::finish(dev, partials, max_norm, guard, out).unwrap();
    dev.read(out).unwrap()
}

#[test]
fn norm_factor_and_flag_agree_with_torch_formula() {
    let mut r = Random::new(3);
    let sizes = [1usize, 5, 4096, 70_000, 200_001];
    let grads: Vec<Vec<f32>> = sizes.iter().map(|&n| r.values(n)).collect();
    let want = grads.iter().map(|g| dot(&wide(g), &wide(g))).sum::<f64>().sqrt();
    for max_norm in [0.5f32, 1e6] {
        let mut runs = Vec::new();
        for dev in &mut devices() {
            let tensors: Vec<Tensor> = grads.iter().map(|g| up(dev, g, &[g.len()])).collect();
            runs.extend([usize::MAX, 1, 2].map(|each| norm(dev, &tensors, max_norm, None, each)));
        }
        assert!(runs.windows(2).all(|w| w[0] == w[1]), "bits depend on threads, instruction sets or cuts");
        // 256 terms per lane: at most 256 units of f32, halved by the root.
        assert!((f64::from(runs[0][0]) / want - 1.0).abs() < 128.0 / (1 << 24) as f64);
        assert_eq!(runs[0][1], (max_norm / (runs[0][0] + 1e-6)).min(1.0));
        assert_eq!(runs[0][2], 1.0);
    }
}

#[test]
fn one_value_that_is_not_finite_clears_the_flag() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let dev = &mut device(2, omr_runtime::device::Isa::detect());
        let mut g = vec![0.25f32; 10_000];
        g[7_777] = bad;
        let fine = up(dev, &[1.0f32; 3], &[3]);
        let g = up(dev, &g, &[100, 100]);
        let out = norm(dev, &[fine, g], 1.0, None, usize::MAX);
        assert_eq!((out[1], out[2]), (0.0, 0.0));
    }
}

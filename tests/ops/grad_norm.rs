use omr::device::Region;
use omr::ops::grad_norm;
use omr::tensor::{DType, Tensor};

use super::reference::{Random, blank, device, devices, dot, up, wide};

#[test]
fn norm_factor_and_flag_agree_with_torch_formula() {
    let mut r = Random::new(3);
    let sizes = [1usize, 5, 4096, 70_000, 200_001];
    let grads: Vec<Vec<f32>> = sizes.iter().map(|&n| r.values(n)).collect();
    let norm = grads.iter().map(|g| dot(&wide(g), &wide(g))).sum::<f64>().sqrt();
    for max_norm in [0.5f32, 1e6] {
        let mut runs = Vec::new();
        for dev in &mut devices() {
            let tensors: Vec<Tensor> = grads.iter().map(|g| up(dev, g, &[g.len()])).collect();
            let out = blank(dev, DType::F32, &[3]);
            grad_norm::fwd(dev, &tensors, max_norm, out).unwrap();
            runs.push(dev.read::<f32>(out).unwrap());
        }
        assert!(runs.windows(2).all(|w| w[0] == w[1]), "bits depend on threads or bodies");
        // 256 terms a lane: 256 units of f32 in the worst case, halved by the root.
        assert!((f64::from(runs[0][0]) / norm - 1.0).abs() < 128.0 / (1 << 24) as f64);
        assert_eq!(runs[0][1], (max_norm / (runs[0][0] + 1e-6)).min(1.0));
        assert_eq!(runs[0][2], 1.0);
    }
}

#[test]
fn one_value_that_is_not_finite_clears_the_flag() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let dev = &mut device(2, omr::device::Isa::detect());
        let mut g = vec![0.25f32; 10_000];
        g[7_777] = bad;
        let fine = up(dev, &[1.0f32; 3], &[3]);
        let g = up(dev, &g, &[100, 100]);
        let out = dev.zeros(Region::State, DType::F32, &[3]).unwrap();
        grad_norm::fwd(dev, &[fine, g], 1.0, out).unwrap();
        let out: Vec<f32> = dev.read(out).unwrap();
        assert_eq!((out[1], out[2]), (0.0, 0.0));
    }
}

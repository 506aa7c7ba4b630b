use half::bf16;
use omr::ops::adamw::{self, AdamW, join, split};

use super::reference::{F32, Random, device, devices, relative, up, wide};

const N: usize = 20_000;
const HP: AdamW = AdamW { lr: 1e-2, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step: 1 };

/// The published algorithm, one element at a time in f64.
fn formula(w: &mut [f64], m: &mut [f64], v: &mut [f64], g: &[f64], hp: &AdamW, clip: f64) {
    let AdamW { lr, beta1: b1, beta2: b2, eps, weight_decay: wd, .. } = *hp;
    for i in 0..w.len() {
        let g = g[i] * clip;
        m[i] = b1 * m[i] + (1.0 - b1) * g;
        v[i] = b2 * v[i] + (1.0 - b2) * g * g;
        let (mh, vh) = (m[i] / (1.0 - b1.powf(hp.step as f64)), v[i] / (1.0 - b2.powf(hp.step as f64)));
        w[i] -= lr * wd * w[i];
        w[i] -= lr * mh / (vh.sqrt() + eps);
    }
}

/// Five steps; weights (as f32 masters), m and v, on every device, bf16 with a low half or f32.
fn steps(half: bool, clip: [f32; 2]) -> Vec<[Vec<f32>; 3]> {
    let mut runs = Vec::new();
    for dev in &mut devices() {
        let mut r = Random::new(1);
        let masters: Vec<f32> = r.values(N);
        let (hi, low): (Vec<bf16>, Vec<i16>) = masters.iter().map(|&w| split(w)).unzip();
        let w = if half { up(dev, &hi, &[N]) } else { up(dev, &masters, &[N]) };
        let lo = half.then(|| up(dev, &low, &[N]));
        let zeros = vec![0.0f32; N];
        let (m, v) = (up(dev, &zeros, &[N]), up(dev, &zeros, &[N]));
        let clip = up(dev, &clip, &[2]);
        for step in 1..=5 {
            let g = r.values::<f32>(N);
            let g = up(dev, &g, &[N]);
            adamw::step(dev, w, lo, g, m, v, &AdamW { step, ..HP }, clip).unwrap();
        }
        let masters = match lo {
            None => dev.read::<f32>(w).unwrap(),
            Some(lo) => dev
                .read::<bf16>(w)
                .unwrap()
                .iter()
                .zip(dev.read::<i16>(lo).unwrap())
                .map(|(&h, l)| join(h, l))
                .collect(),
        };
        runs.push([masters, dev.read(m).unwrap(), dev.read(v).unwrap()]);
    }
    runs
}

#[test]
fn five_steps_agree_with_the_formula_whatever_the_body() {
    let mut r = Random::new(1);
    let mut w = wide(&r.values::<f32>(N));
    let (mut m, mut v) = (vec![0.0; N], vec![0.0; N]);
    for step in 1..=5 {
        let g = wide(&r.values::<f32>(N));
        formula(&mut w, &mut m, &mut v, &g, &AdamW { step, ..HP }, 0.5);
    }
    let runs = steps(false, [0.5, 1.0]);
    assert!(runs.windows(2).all(|w| w[0] == w[1]), "bits depend on threads or bodies");
    // Five steps of about six roundings each.
    let tolerance = 8.0 * 30f64.sqrt() * F32;
    for (got, want) in runs[0].iter().zip([&w, &m, &v]) {
        assert!(relative(got, want) < tolerance, "{:e}", relative(got, want));
    }
}

#[test]
fn a_bf16_weight_with_its_low_half_is_the_f32_run_to_the_bit() {
    assert_eq!(steps(true, [0.5, 1.0]), steps(false, [0.5, 1.0]));
}

#[test]
fn nothing_moves_when_the_flag_is_off() {
    let start: Vec<f32> = Random::new(1).values(N);
    for half in [false, true] {
        for run in steps(half, [f32::NAN, 0.0]) {
            assert_eq!(run[0], start);
            assert!(run[1].iter().chain(&run[2]).all(|&x| x == 0.0));
        }
    }
}

#[test]
fn bf16_without_a_low_half_is_an_error() {
    let dev = &mut device(1, omr::device::Isa::Portable);
    let w = up(dev, &[bf16::ONE; 4], &[4]);
    let s = up(dev, &[0.0f32; 4], &[4]);
    let clip = up(dev, &[1.0f32, 1.0], &[2]);
    assert!(adamw::step(dev, w, None, s, s, s, &HP, clip).is_err());
}

//! Tests the layer norm op and its gradients against the f64 formula and finite differences.

use half::bf16;
use omr_runtime::device::{Device, Isa};
use omr_runtime::ops::layer_norm::{self, Bwd};
use omr_runtime::tensor::{DType, Elem};

use super::reference::{BF16, F32, Random, blank, device, devices, differences, dot, relative, up, wide};

const EPS: f32 = 1e-6;

fn formula(x: &[f64], weights: &[f64]) -> Vec<f64> {
    let d = weights.len() / 2;
    let row = |x: &[f64]| {
        let mean = x.iter().sum::<f64>() / d as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / d as f64;
        let r = 1.0 / (variance + f64::from(EPS)).sqrt();
        (0..d).map(|j| (x[j] - mean) * r * weights[j] + weights[d + j]).collect::<Vec<_>>()
    };
    x.chunks(d).flat_map(row).collect()
}

struct Case<T> {
    t: usize,
    d: usize,
    x: Vec<T>,
    /// gamma and beta.
    weights: [Vec<T>; 2],
    dy: Vec<T>,
    dx: Vec<T>,
    dweights: [Vec<f32>; 2],
}

impl<T: Elem> Case<T> {
    fn new(t: usize, d: usize) -> Case<T> {
        let mut r = Random::new((t * 1000 + d) as u64);
        let x = r.values::<f32>(t * d).into_iter().map(|x| T::from_f32(x + 0.5)).collect();
        let weights = [r.values(d), r.values(d)];
        Case { t, d, x, weights, dy: r.values(t * d), dx: r.values(t * d), dweights: [r.values(d), r.values(d)] }
    }

    /// Returns y, dx (added to the given values, or alone) and the gradients of both weights, if they are `trained`.
    fn run(&self, dev: &mut Device, accumulate: bool, trained: bool) -> (Vec<T>, Vec<T>, Vec<f32>) {
        let dims = [self.t, self.d];
        let (x, dy) = (up(dev, &self.x, &dims), up(dev, &self.dy, &dims));
        let weights = [0, 1].map(|i: usize| up(dev, &self.weights[i], &dims[1..]));
        let (y, stats) = (blank(dev, T::DTYPE, &dims), blank(dev, DType::F32, &[self.t, 2]));
        layer_norm::fwd(dev, x, weights, EPS, y, stats).unwrap();
        let dx = if accumulate { up(dev, &self.dx, &dims) } else { blank(dev, T::DTYPE, &dims) };
        let dw = [0, 1].map(|i: usize| up(dev, &self.dweights[i], &dims[1..]));
        let dweights = trained.then_some(dw);
        layer_norm::bwd(dev, Bwd { x, gamma: weights[0], stats, dy, dx, accumulate, dweights }).unwrap();
        let dw = dw.map(|dw| dev.read::<f32>(dw).unwrap()).concat();
        (dev.read(y).unwrap(), dev.read(dx).unwrap(), dw)
    }
}

/// Compares with the formula. A sum over a row has d / 256 terms per chain and eight levels, and one over rows 64 and t /
/// 64 terms. The error of a sum of n terms grows as sqrt(n) units, and the factor 16 covers the other operations and the
/// difference from the mean.
fn close<T: Elem>(t: usize, d: usize, point: f64) {
    let case = Case::<T>::new(t, d);
    let (x, dy) = (wide(&case.x), wide(&case.dy));
    let weights = [wide(&case.weights[0]), wide(&case.weights[1])].concat();
    let all = |n: usize| (0..n).collect::<Vec<_>>();
    let mut want_dx = Vec::new();
    for (x, dy) in x.chunks(d).zip(dy.chunks(d)) {
        want_dx.extend(differences(x, &all(d), |x| dot(&formula(x, &weights), dy)));
    }
    let mut want_dw = differences(&weights, &all(2 * d), |w| dot(&formula(&x, w), &dy));
    want_dw.iter_mut().zip(wide(&case.dweights.concat())).for_each(|(a, b)| *a += b);
    let sums = 16.0 * F32 * ((d / 256 + 8 + t) as f64).sqrt();
    for accumulate in [false, true] {
        let (y, dx, dw) = case.run(&mut device(2, Isa::detect()), accumulate, true);
        if accumulate {
            want_dx.iter_mut().zip(wide(&case.dx)).for_each(|(a, b)| *a += b);
        }
        let want_y = formula(&x, &weights);
        assert!(relative(&y, &want_y) < sums + point, "y {t} {d}: {:e}", relative(&y, &want_y));
        assert!(relative(&dx, &want_dx) < sums + point, "dx {t} {d}: {:e}", relative(&dx, &want_dx));
        assert!(relative(&dw, &want_dw) < sums, "dw {t} {d}: {:e}", relative(&dw, &want_dw));
    }
}

#[test]
fn agrees_with_the_formula_and_its_differences() {
    for (t, d) in [(1, 64), (3, 144), (70, 40), (130, 17), (2, 576)] {
        close::<f32>(t, d, 0.0);
        close::<bf16>(t, d, BF16);
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_sets() {
    fn same<T: Elem + PartialEq + std::fmt::Debug>() {
        let case = Case::<T>::new(200, 300);
        let runs: Vec<_> = devices().iter_mut().map(|dev| case.run(dev, true, true)).collect();
        assert!(runs.windows(2).all(|w| w[0] == w[1]));
    }
    same::<f32>();
    same::<bf16>();
}

#[test]
fn frozen_weights_change_nothing_else() {
    let case = Case::<f32>::new(70, 40);
    let dev = &mut device(2, Isa::detect());
    let (trained, frozen) = (case.run(dev, true, true), case.run(dev, true, false));
    assert_eq!((&frozen.0, &frozen.1), (&trained.0, &trained.1));
    assert_eq!(frozen.2, case.dweights.concat());
}

#[test]
fn wrong_shapes_are_errors() {
    let dev = &mut device(1, Isa::Portable);
    let [x, y] = [(); 2].map(|()| blank(dev, DType::F32, &[4, 8]));
    let (short, gamma) = (blank(dev, DType::F32, &[7]), blank(dev, DType::F32, &[8]));
    let (rstd, stats) = (blank(dev, DType::F32, &[4]), blank(dev, DType::F32, &[4, 2]));
    for (weights, stats) in [([short, gamma], stats), ([gamma, short], stats), ([gamma; 2], rstd)] {
        assert!(layer_norm::fwd(dev, x, weights, EPS, y, stats).is_err());
    }
}

/// Tests rows with a standard deviation of 1e-3. Their variance is as large as eps, so another eps changes the result. In
/// rows of a real model, the change would be below the tolerance.
#[test]
fn another_eps_is_seen_in_rows_of_deviation_1e_3() {
    let (t, d) = (3, 64);
    let mut random = Random::new(1_000);
    let x: Vec<f32> = random.values(t * d).iter().map(|x: &f32| x * 1e-3).collect();
    let weights = [random.values::<f32>(d), random.values(d)];
    let dev = &mut device(1, Isa::detect());
    let mut run = |eps: f32| {
        let (x, w) = (up(dev, &x, &[t, d]), [0, 1].map(|i: usize| up(dev, &weights[i], &[d])));
        let (y, stats) = (blank(dev, DType::F32, &[t, d]), blank(dev, DType::F32, &[t, 2]));
        layer_norm::fwd(dev, x, w, eps, y, stats).unwrap();
        dev.read::<f32>(y).unwrap()
    };
    let want = formula(&wide(&x), &wide(&weights.concat()));
    // The same tolerance as in `close`.
    let tolerance = 16.0 * F32 * ((8 + t) as f64).sqrt();
    assert!(relative(&run(EPS), &want) < tolerance);
    assert!(relative(&run(1e-5), &want) > 10.0 * tolerance);
}

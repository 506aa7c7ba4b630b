//! Tests the RMSNorm op and its gradients against the f64 formula.

use half::bf16;
use omr_runtime::device::Device;
use omr_runtime::ops::rms_norm;
use omr_runtime::tensor::{DType, Elem};

use super::reference::{BF16, F32, Random, blank, device, devices, differences, dot, relative, up, wide};

const EPS: f32 = 1e-6;

fn formula(x: &[f64], gamma: &[f64]) -> Vec<f64> {
    let row = |x: &[f64]| {
        let rstd = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(EPS)).sqrt();
        x.iter().zip(gamma).map(|(x, g)| x * rstd * g).collect::<Vec<_>>()
    };
    x.chunks(gamma.len()).flat_map(row).collect()
}

struct Case<T> {
    t: usize,
    d: usize,
    x: Vec<T>,
    gamma: Vec<T>,
    dy: Vec<T>,
    dx: Vec<T>,
    dgamma: Vec<f32>,
}

impl<T: Elem> Case<T> {
    fn new(t: usize, d: usize) -> Case<T> {
        let mut r = Random::new((t * 1000 + d) as u64);
        Case {
            t,
            d,
            x: r.values(t * d),
            gamma: r.values(d),
            dy: r.values(t * d),
            dx: r.values(t * d),
            dgamma: r.values(d),
        }
    }

    /// Returns y, dx (added to the given values, or alone) and dgamma.
    fn run(&self, dev: &mut Device, accumulate: bool) -> (Vec<T>, Vec<T>, Vec<f32>) {
        let dims = [self.t, self.d];
        let (x, gamma, dy) = (up(dev, &self.x, &dims), up(dev, &self.gamma, &[self.d]), up(dev, &self.dy, &dims));
        let (y, rstd) = (blank(dev, T::DTYPE, &dims), blank(dev, DType::F32, &[self.t]));
        rms_norm::fwd(dev, x, gamma, EPS, y, rstd).unwrap();
        let dx = if accumulate { up(dev, &self.dx, &dims) } else { blank(dev, T::DTYPE, &dims) };
        let dgamma = up(dev, &self.dgamma, &[self.d]);
        rms_norm::bwd(dev, rms_norm::Bwd { x, gamma, rstd, dy, dx, accumulate, dgamma }).unwrap();
        (dev.read(y).unwrap(), dev.read(dx).unwrap(), dev.read(dgamma).unwrap())
    }

    /// Returns y, dx and dgamma by the formula and finite differences, computed from the stored inputs.
    fn want(&self, accumulate: bool) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (x, gamma, dy) = (wide(&self.x), wide(&self.gamma), wide(&self.dy));
        let d = self.d;
        let all: Vec<usize> = (0..d).collect();
        let mut dx = Vec::new();
        for (x, dy) in x.chunks(d).zip(dy.chunks(d)) {
            dx.extend(differences(x, &all, |x| dot(&formula(x, &gamma), dy)));
        }
        if accumulate {
            dx.iter_mut().zip(wide(&self.dx)).for_each(|(a, b)| *a += b);
        }
        let mut dgamma = differences(&gamma, &all, |g| dot(&formula(&x, g), &dy));
        dgamma.iter_mut().zip(wide(&self.dgamma)).for_each(|(a, b)| *a += b);
        (formula(&x, &gamma), dx, dgamma)
    }
}

/// Compares with the formula. The sums of a row have d / 16 terms per lane and four levels. The chains of dgamma have
/// 64 rows and t / 64 blocks. The error of a sum of n terms grows as sqrt(n) units, and the factor 16 covers the other
/// operations.
fn close<T: Elem>(t: usize, d: usize, point: f64) {
    let case = Case::<T>::new(t, d);
    for accumulate in [false, true] {
        let (y, dx, dgamma) = case.run(&mut device(2, omr_runtime::device::Isa::detect()), accumulate);
        let (want_y, want_dx, want_dgamma) = case.want(accumulate);
        let sums = 16.0 * F32 * ((d / 16 + t) as f64).sqrt();
        assert!(relative(&y, &want_y) < sums + point, "y {t} {d}: {:e}", relative(&y, &want_y));
        assert!(relative(&dx, &want_dx) < sums + point, "dx {t} {d}: {:e}", relative(&dx, &want_dx));
        assert!(relative(&dgamma, &want_dgamma) < sums, "dgamma {t} {d}: {:e}", relative(&dgamma, &want_dgamma));
    }
}

#[test]
fn agrees_with_the_formula_and_its_differences() {
    for (t, d) in [(1, 16), (3, 13), (70, 96), (130, 80), (2, 5)] {
        close::<f32>(t, d, 0.0);
        close::<bf16>(t, d, BF16);
    }
}

#[test]
fn bits_do_not_depend_on_threads_or_instruction_sets() {
    let case = Case::<f32>::new(200, 100);
    let runs: Vec<_> = devices().iter_mut().map(|dev| case.run(dev, true)).collect();
    assert!(runs.windows(2).all(|w| w[0] == w[1]));
    let case = Case::<bf16>::new(200, 100);
    let runs: Vec<_> = devices().iter_mut().map(|dev| case.run(dev, true)).collect();
    assert!(runs.windows(2).all(|w| w[0] == w[1]));
}

#[test]
fn wrong_shapes_are_errors() {
    let dev = &mut device(1, omr_runtime::device::Isa::Portable);
    let x = blank(dev, DType::F32, &[4, 8]);
    let (gamma, rstd) = (blank(dev, DType::F32, &[7]), blank(dev, DType::F32, &[4]));
    let y = blank(dev, DType::F32, &[4, 8]);
    assert!(rms_norm::fwd(dev, x, gamma, EPS, y, rstd).is_err());
}

/// Tests rows with an RMS of 1e-3. Their mean square is as large as eps, so another eps changes the result. In rows of
/// a real model, the change would be below the tolerance.
#[test]
fn another_eps_is_seen_in_rows_of_rms_1e_3() {
    let (t, d) = (3, 64);
    let mut random = Random::new(1_000);
    let mut x: Vec<f32> = random.values(t * d);
    for row in x.chunks_mut(d) {
        let rms = (row.iter().map(|v| v * v).sum::<f32>() / d as f32).sqrt();
        row.iter_mut().for_each(|v| *v *= 1e-3 / rms);
    }
    let gamma: Vec<f32> = random.values(d);
    let mut dev = device(1, omr_runtime::device::Isa::detect());
    let mut run = |eps: f32| {
        let (x, gamma) = (up(&mut dev, &x, &[t, d]), up(&mut dev, &gamma, &[d]));
        let (y, rstd) = (blank(&mut dev, DType::F32, &[t, d]), blank(&mut dev, DType::F32, &[t]));
        rms_norm::fwd(&mut dev, x, gamma, eps, y, rstd).unwrap();
        dev.read::<f32>(y).unwrap()
    };
    let want = formula(&wide(&x), &wide(&gamma));
    // The same tolerance as in `close`.
    let tolerance = 16.0 * F32 * ((d / 16 + t) as f64).sqrt();
    assert!(relative(&run(EPS), &want) < tolerance);
    assert!(relative(&run(1e-5), &want) > 10.0 * tolerance);
}

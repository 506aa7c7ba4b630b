//! Tests of kernels/rms_norm.cu: exactly equal to its documented chains, and close to the CPU op.

use half::bf16;
use omr_runtime::device::Device;
use omr_runtime::ops::rms_norm;
use omr_runtime::tensor::{DType, Elem};

use crate::kernels::inputs::{blank, cpu, normals, up, wide};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

const EPS: f32 = 1e-6;

/// (rows, columns): one row, no row, rows that stay in registers, longer rows.
const SHAPES: [(usize, usize); 7] = [(1, 3584), (5, 1280), (2, 136), (0, 64), (7, 8), (2, 4104), (2, 4096)];

pub struct Case {
    rows: usize,
    cols: usize,
    x: Vec<bf16>,
    gamma: Vec<bf16>,
}

pub fn case((rows, cols): (usize, usize)) -> Case {
    Case { rows, cols, x: normals(cols as u64, rows * cols), gamma: normals(cols as u64 + 1, cols) }
}

/// Returns y and rstd.
pub fn run(dev: &mut Device, c: &Case) -> Outcome<(Vec<bf16>, Vec<f32>)> {
    let (x, gamma) = (up(dev, &c.x, &[c.rows, c.cols]), up(dev, &c.gamma, &[c.cols]));
    let (y, rstd) = (blank(dev, DType::Bf16, &[c.rows, c.cols]), blank(dev, DType::F32, &[c.rows]));
    rms_norm::fwd(dev, x, gamma, EPS, y, rstd)?;
    Ok((dev.read(y)?, dev.read(rstd)?))
}

/// Returns 1 / rms of a row: element j is added to chain j % 256, then halves of the chains are added.
fn reciprocal(x: &[bf16]) -> f32 {
    let mut chains = [0f32; 256];
    for (j, x) in x.iter().enumerate() {
        chains[j % 256] = x.to_f32().mul_add(x.to_f32(), chains[j % 256]);
    }
    // A lane has eight adjacent chains. The chains of a lane are added first, then the sums of the lanes.
    let halves = |v: &[f32]| {
        let mut v = v.to_vec();
        while v.len() > 1 {
            let half = v.len() / 2;
            v = (0..half).map(|i| v[i] + v[i + half]).collect();
        }
        v[0]
    };
    let lanes: Vec<f32> = chains.chunks(8).map(halves).collect();
    1.0 / (halves(&lanes) / x.len() as f32 + EPS).sqrt()
}

fn probe(dev: &mut Device, c: &Case) -> Outcome {
    let (y, rstd) = run(dev, c)?;
    let want: Vec<f32> = c.x.chunks(c.cols).map(reciprocal).collect();
    equal("rstd", &rstd, &want)?;
    let want: Vec<bf16> = (0..c.x.len())
        .map(|i| Elem::from_f32(c.x[i].to_f32() * rstd[i / c.cols] * c.gamma[i % c.cols].to_f32()))
        .collect();
    equal("y", &y, &want)
}

#[test]
fn chains_are_as_stated_and_close_to_the_cpus() {
    for shape in SHAPES {
        let c = case(shape);
        probe(&mut emu(), &c).unwrap_or_else(|e| panic!("{shape:?}: {e}"));
        let (_, rstd) = run(&mut emu(), &c).unwrap();
        let (_, want) = run(&mut cpu(), &c).unwrap();
        for (got, want) in rstd.iter().zip(&want) {
            // Two orders of a sum of D positive terms differ by less than D roundings of the sum. The square root
            // halves this difference.
            let bound = (0.5 * c.cols as f32 + 2.0) * f32::EPSILON;
            assert!((got / want - 1.0).abs() <= bound, "{shape:?}: {got} and {want}");
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_under_every_schedule() {
    let c = case((9, 136));
    let all = same_bits(6, |dev| Ok(run(dev, &c)?.0));
    for (row, want) in all.chunks(c.cols).enumerate() {
        let one = Case { rows: 1, cols: c.cols, x: c.x[row * c.cols..][..c.cols].to_vec(), gamma: c.gamma.clone() };
        assert_eq!(run(&mut emu(), &one).unwrap().0, want, "row {row}");
    }
}

#[test]
fn f32_and_rows_of_odd_length_are_refused_by_name() {
    let mut dev = emu();
    let (x, gamma) = (up(&mut dev, &[1f32; 8], &[1, 8]), up(&mut dev, &[1f32; 8], &[8]));
    let (y, rstd) = (blank(&mut dev, DType::F32, &[1, 8]), blank(&mut dev, DType::F32, &[1]));
    let error = rms_norm::fwd(&mut dev, x, gamma, EPS, y, rstd).unwrap_err().to_string();
    assert!(error.contains("rms_norm::fwd") && error.contains("bf16 on a GPU"), "{error}");
    let error = run(&mut dev, &case((3, 100))).unwrap_err().to_string();
    assert!(error.contains("rms_norm::fwd") && error.contains("a multiple of 8 columns"), "{error}");
}

#[test]
fn changes_by_hand_are_seen() {
    let cases = [(3, 136), (2, 3584), (2, 4104)].map(case);
    let probe = |dev: &mut Device| cases.iter().try_for_each(|c| probe(dev, c));
    for (from, to) in [
        ("fmaf(x.v[i], x.v[i], chain[i])", "fmaf(x.v[i], x.v[i ^ 1], chain[i])"),
        ("if (row >= args.rows) return;", ""),
        ("args.cols <= ROUNDS * ROUND", "args.cols <= ROUNDS * ROUND + ROUND"),
        ("hi(x.w) * r * hi(gamma.w)", "hi(x.w) * r * hi(gamma.z)"),
    ] {
        mutate_source("rms_norm", from, to, 1, probe);
    }
}

/// (rows, columns): numbers of rows near one and two chunks of 64; more columns than one CTA handles (1,024).
const BWD_SHAPES: [(usize, usize); 10] =
    [(1, 64), (1, 3584), (127, 64), (128, 136), (129, 136), (65, 3584), (3, 4104), (0, 64), (7, 8), (64, 1032)];

pub struct Bwd {
    case: Case,
    rstd: Vec<f32>,
    dy: Vec<bf16>,
    residual: Option<Vec<bf16>>,
    dgamma: Vec<f32>,
}

pub fn bwd_case(shape: (usize, usize), accumulate: bool) -> Bwd {
    let (rows, cols) = shape;
    let name = 10 * (rows * 10_000 + cols) as u64;
    let case = case(shape);
    let rstd = case.x.chunks(cols).map(reciprocal).collect();
    let residual = accumulate.then(|| normals(name + 1, rows * cols));
    Bwd { case, rstd, dy: normals(name, rows * cols), residual, dgamma: normals(name + 2, cols) }
}

/// Returns dx and dgamma.
pub fn run_bwd(dev: &mut Device, b: &Bwd) -> Outcome<(Vec<bf16>, Vec<f32>)> {
    let dims = [b.case.rows, b.case.cols];
    let (x, gamma) = (up(dev, &b.case.x, &dims), up(dev, &b.case.gamma, &dims[1..]));
    let (rstd, dy) = (up(dev, &b.rstd, &dims[..1]), up(dev, &b.dy, &dims));
    let dx = match &b.residual {
        Some(residual) => up(dev, residual, &dims),
        None => blank(dev, DType::Bf16, &dims),
    };
    let dgamma = up(dev, &b.dgamma, &dims[1..]);
    rms_norm::bwd(dev, rms_norm::Bwd { x, gamma, rstd, dy, dx, accumulate: b.residual.is_some(), dgamma })?;
    Ok((dev.read(dx)?, dev.read(dgamma)?))
}

/// Returns dx of one row without the residual, and the possible error of f32 before rounding to bf16, both in f64.
fn row_dx(x: &[f64], gamma: &[f64], rstd: f64, dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    const UNIT: f64 = f32::EPSILON as f64 / 2.0;
    let cols = x.len() as f64;
    let terms: Vec<f64> = x.iter().zip(dy).zip(gamma).map(|((x, dy), g)| x * dy * g).collect();
    let mean = terms.iter().sum::<f64>() * rstd / cols;
    let size = terms.iter().map(|t| t.abs()).sum::<f64>() * rstd / cols;
    // A term passes cols / 256 links of its chain, eight levels of halves, and five roundings around them.
    let mean_error = (cols / 256.0 + 14.0) * UNIT * size;
    (0..x.len())
        .map(|j| {
            let (direct, xhat) = (dy[j] * gamma[j], x[j] * rstd);
            let error = mean_error * xhat.abs() + 4.0 * UNIT * (direct.abs() + (xhat * mean).abs());
            ((direct - xhat * mean) * rstd, error * rstd)
        })
        .unzip()
}

fn probe_bwd(dev: &mut Device, b: &Bwd) -> Outcome {
    let (dx, dgamma) = run_bwd(dev, b)?;
    let (_, want) = run_bwd(&mut cpu(), b)?;
    equal("dgamma", &dgamma, &want)?;
    let (cols, gamma) = (b.case.cols, wide(&b.case.gamma));
    for row in 0..b.case.rows {
        let at = row * cols..(row + 1) * cols;
        let (x, dy) = (wide(&b.case.x[at.clone()]), wide(&b.dy[at.clone()]));
        let (want, error) = row_dx(&x, &gamma, b.rstd[row].into(), &dy);
        for j in 0..cols {
            let residual = b.residual.as_ref().map_or(0.0, |r| r[at.start + j].to_f64());
            let (got, want) = (dx[at.start + j].to_f64(), want[j] + residual);
            // One rounding to bf16 (2^-8) of a value with that error, and one to f32 of the sum with the residual.
            let allowed = (want.abs() + error[j]) * (2f64.powi(-8) + f64::from(f32::EPSILON)) + error[j];
            if (got - want).abs() > allowed {
                return Err(format!("dx[{row}, {j}] {got}, expected {want} within {allowed:e}").into());
            }
        }
    }
    Ok(())
}

#[test]
fn backward_has_the_cpus_dgamma_and_the_formulas_dx() {
    for shape in BWD_SHAPES {
        for accumulate in [false, true] {
            let b = bwd_case(shape, accumulate);
            probe_bwd(&mut emu(), &b).unwrap_or_else(|e| panic!("{shape:?}, residual {accumulate}: {e}"));
        }
    }
}

#[test]
fn the_formula_of_dx_is_the_slope_of_the_loss() {
    let b = bwd_case((1, 100), false);
    let (x, gamma, dy) = (wide(&b.case.x), wide(&b.case.gamma), wide(&b.dy));
    let rstd = |x: &[f64]| 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + f64::from(EPS)).sqrt();
    let loss = |x: &[f64]| (0..x.len()).map(|j| x[j] * rstd(x) * gamma[j] * dy[j]).sum::<f64>();
    let (dx, _) = row_dx(&x, &gamma, rstd(&x), &dy);
    for (j, dx) in dx.iter().enumerate() {
        let step = 1e-5;
        let moved =
            |by: f64| loss(&x.iter().enumerate().map(|(i, x)| x + if i == j { by } else { 0.0 }).collect::<Vec<_>>());
        let slope = (moved(step) - moved(-step)) / (2.0 * step);
        // Error: of order step^2 times the third derivative, plus 1e-16 / step for the subtraction.
        assert!((dx - slope).abs() < 1e-7, "{j}: {dx} and {slope}");
    }
}

#[test]
fn backward_has_the_same_bits_under_every_schedule() {
    for shape in [(129, 136), (67, 104)] {
        let b = bwd_case(shape, true);
        same_bits(5, |dev| Ok(run_bwd(dev, &b)?.0));
        same_bits(5, |dev| Ok(run_bwd(dev, &b)?.1));
    }
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn changes_by_hand_to_the_backward_are_seen() {
    let cases = [((129, 136), true), ((67, 104), false), ((3, 1032), true)].map(|(s, a)| bwd_case(s, a));
    let probe = |dev: &mut Device| cases.iter().try_for_each(|b| probe_bwd(dev, b));
    for (from, to) in [
        ("e.v[i] * r * mean", "e.v[i] * mean"),
        ("(float)args.cols;\n    const", "256.0f;\n    const"),
        ("had.v[i] + d", "d"),
        ("fmaf(dy.v[i], x.v[i] * r, sum[i])", "fmaf(dy.v[i], x.v[i], sum[i])"),
        ("float sum = args.dgamma[column];", "float sum = 0.0f;"),
        ("< CHUNK ? args.rows", "<= CHUNK ? args.rows - 1"),
        ("row < args.rows; row += CHUNK", "row + CHUNK < args.rows; row += CHUNK"),
        ("dy.v[i] * gamma.v[i], chain", "dy.v[i], chain"),
    ] {
        mutate_source("rms_norm", from, to, 1, probe);
    }
}

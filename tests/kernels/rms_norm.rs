//! kernels/rms_norm.cu against its stated chains, exactly, and against the CPU op.

use half::bf16;
use omr::device::Device;
use omr::ops::rms_norm;
use omr::tensor::{DType, Elem};

use crate::kernels::inputs::{blank, cpu, normals, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

const EPS: f32 = 1e-6;

/// (rows, columns): one row, no row, rows in registers, longer ones, rows that start anywhere.
const SHAPES: [(usize, usize); 10] =
    [(1, 3584), (5, 1280), (3, 100), (2, 136), (0, 64), (7, 8), (4, 1), (3, 257), (2, 4104), (2, 4096)];

struct Case {
    rows: usize,
    cols: usize,
    x: Vec<bf16>,
    gamma: Vec<bf16>,
}

fn case((rows, cols): (usize, usize)) -> Case {
    Case { rows, cols, x: normals(cols as u64, rows * cols), gamma: normals(cols as u64 + 1, cols) }
}

/// y and rstd.
fn run(dev: &mut Device, c: &Case) -> Outcome<(Vec<bf16>, Vec<f32>)> {
    let (x, gamma) = (up(dev, &c.x, &[c.rows, c.cols]), up(dev, &c.gamma, &[c.cols]));
    let (y, rstd) = (blank(dev, DType::Bf16, &[c.rows, c.cols]), blank(dev, DType::F32, &[c.rows]));
    rms_norm::fwd(dev, x, gamma, EPS, y, rstd)?;
    Ok((dev.read(y)?, dev.read(rstd)?))
}

/// 1 / rms of a row: element j in chain j % 256, then halves of chains added to halves.
fn reciprocal(x: &[bf16]) -> f32 {
    let mut chains = [0f32; 256];
    for (j, x) in x.iter().enumerate() {
        chains[j % 256] = x.to_f32().mul_add(x.to_f32(), chains[j % 256]);
    }
    // A lane has eight adjacent chains; they meet first, then the lanes.
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
            // Two orders of a sum of D positive terms differ by less than D roundings of it; a root halves that.
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
fn f32_is_refused_by_name() {
    let mut dev = emu();
    let (x, gamma) = (up(&mut dev, &[1f32; 8], &[1, 8]), up(&mut dev, &[1f32; 8], &[8]));
    let (y, rstd) = (blank(&mut dev, DType::F32, &[1, 8]), blank(&mut dev, DType::F32, &[1]));
    let error = rms_norm::fwd(&mut dev, x, gamma, EPS, y, rstd).unwrap_err().to_string();
    assert!(error.contains("rms_norm::fwd") && error.contains("bf16 on a GPU"), "{error}");
}

#[test]
fn changes_by_hand_are_seen() {
    let cases = [(3, 100), (3, 136), (2, 3584), (2, 4104)].map(case);
    let probe = |dev: &mut Device| cases.iter().try_for_each(|c| probe(dev, c));
    for (from, to) in [
        ("fmaf(hi(pair[i]), hi(pair[i]), chain[2 * i + 1])", "fmaf(hi(pair[i]), lo(pair[i]), chain[2 * i + 1])"),
        ("from + i < args.cols ?", "from + i <= args.cols ?"),
        ("if (row >= args.rows) return;", ""),
        ("args.cols <= ROUNDS * ROUND", "args.cols <= ROUNDS * ROUND + ROUND"),
        ("hi(x.w) * r * hi(gamma.w)", "hi(x.w) * r * hi(gamma.z)"),
    ] {
        mutate_source("rms_norm", from, to, 1, probe);
    }
}

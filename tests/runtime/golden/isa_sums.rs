//! Compares sums of one k16 step by mma.sync and by wgmma with those that microsoft/MMA-Sim computes for Hopper and for
//! Ampere (tests/goldens/isa/sums). The emulator must give the same bits. On a GPU, the number of equal sums is printed.

use half::bf16;
use omr_base_tests::golden::{dir, report};
use omr_runtime::device::emu::Options;
use omr_runtime::device::emu::options::Sums;
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, Kind};
use safetensors::SafeTensors;

use crate::kernels::calibrate_sums::{AMPERE, Factors, HOPPER, Model, Tiles};
use crate::kernels::calibrate_wgmma::{Image, Step, THREADS, place};
use crate::kernels::{emu_of, kind, no_hopper};

/// Terms of a sum.
const STEP: usize = 16;

/// The cases: factors [case][16], accumulators and expected sums.
struct Cases {
    a: Vec<Vec<f32>>,
    b: Vec<Vec<f32>>,
    c: Vec<f32>,
    want: [Vec<f32>; 2],
}

impl Cases {
    fn read() -> Cases {
        let bytes = std::fs::read(dir().join("isa/sums/k16_bf16.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let floats = |name: &str| bytemuck::pod_collect_to_vec::<u8, f32>(file.tensor(name).unwrap().data());
        let rows = |name: &str| -> Vec<Vec<f32>> {
            let values: Vec<bf16> = bytemuck::pod_collect_to_vec(file.tensor(name).unwrap().data());
            values.chunks(STEP).map(|row| row.iter().map(|x| x.to_f32()).collect()).collect()
        };
        Cases { a: rows("a"), b: rows("b"), c: floats("c"), want: [floats("d_hopper"), floats("d_ampere")] }
    }

    fn len(&self) -> usize {
        self.c.len()
    }
}

/// Computes the cases by mma.sync. Eight cases share an instruction: they are the diagonal of its result.
fn by_mma(cases: &Cases, dev: &mut Device) -> Vec<f32> {
    let parts = (0..cases.len()).step_by(8).map(|i| {
        let rows = |m: &[Vec<f32>]| m[i..i + 8].concat();
        (rows(&cases.a).repeat(2), rows(&cases.b))
    });
    let sums = Tiles::of(STEP, parts.unzip()).run_from(dev, 2, |tile, element| cases.c[tile * 8 + element % 8]);
    (0..cases.len()).map(|i| sums[i / 8][i % 8 * 9]).collect()
}

/// Computes the cases by wgmma, each on the diagonal of a product of 64 rows and columns. The accumulator comes from a
/// product before it: its first, second and third eight bits, each times a power of two. That sum is exact.
fn by_wgmma(cases: &Cases, dev: &mut Device) -> Vec<f32> {
    let pieces = |c: f32| -> [Vec<f32>; 2] {
        let (mut rest, mut left, mut right) = (c, vec![0.0; STEP], vec![0.0; STEP]);
        for (left, right) in left.iter_mut().zip(&mut right).take(3) {
            // bf16 has the exponents of f32, but fewer bits of subnormal numbers, so small pieces are scaled.
            let scale = if c.abs() < 1.0 { 2f32.powi(64) } else { 1.0 };
            let piece = f32::from_bits((rest * scale).to_bits() & 0xffff_0000) / scale;
            (*left, *right) = (piece * scale, 1.0 / scale);
            rest -= piece;
        }
        assert_eq!(rest, 0.0, "{c:e} in three pieces");
        [left, right]
    };
    let mut found = Vec::new();
    for from in (0..cases.len()).step_by(64) {
        let of = |i: usize| (from + i).min(cases.len() - 1);
        let starts: Vec<[Vec<f32>; 2]> = (0..64).map(|i| pieces(cases.c[of(i)])).collect();
        let start = |side: usize| starts.iter().map(|s| s[side].clone()).collect::<Vec<_>>();
        let factors = |m: &[Vec<f32>]| (0..64).map(|i| m[of(i)].clone()).collect::<Vec<_>>();
        let rows = [start(0), start(1), factors(&cases.a), factors(&cases.b)].concat();
        let at = |block: u64| (block * 64 * 32) >> 4 | (128 >> 4) << 16 | (256 >> 4) << 32;
        let steps = [0, 2].map(|block| Step { a: at(block), b: at(block + 1), registers: vec![0; 4 * THREADS] });
        let sums = Image::plain(&rows, &[]).run(dev, 64, 0, &steps).unwrap().pop().unwrap();
        let mut diagonal = [0.0; 64];
        for (i, sum) in sums.into_iter().enumerate() {
            let (m, n) = place(i / 32, i % 32);
            if m == n {
                diagonal[m] = sum;
            }
        }
        found.extend(&diagonal[..64.min(cases.len() - from)]);
    }
    found
}

/// Requires equal bits on the emulator. Prints their number in the form that tools/gpu_check/verdicts.py reads.
fn compare(what: &str, model: Model, found: &[f32], want: &[f32]) {
    assert_eq!(found.len(), want.len());
    let wrong: Vec<usize> = (0..want.len()).filter(|&i| found[i].to_bits() != want[i].to_bits()).collect();
    println!("  {what}, published sums: {model:?} gives {} of {}", want.len() - wrong.len(), want.len());
    let first = wrong.first().map(|&i| (i, found[i], want[i]));
    assert!(kind() == Kind::Cuda || first.is_none(), "{what}, {model:?}: case {first:?}");
}

#[test]
fn sums_are_those_published_for_hopper_and_ampere() {
    let cases = Cases::read();
    for (model, arch, want) in [(HOPPER, Arch::Sm90a, &cases.want[0]), (AMPERE, Arch::Sm80, &cases.want[1])] {
        let dev = &mut emu_of(Options { sums: Sums::Aligned, arch, ..Options::default() }).unwrap();
        compare("mma", model, &by_mma(&cases, dev), want);
        if model == HOPPER && !no_hopper("wgmma") {
            compare("wgmma", model, &by_wgmma(&cases, dev), want);
        }
        // The tests compute the model in f64, too.
        let sums = (0..cases.len()).map(|i| {
            let factors: Vec<_> = cases.a[i].iter().zip(&cases.b[i]).map(|(a, b)| Factors(*a, *b)).collect();
            model.sum(cases.c[i], &factors)
        });
        assert!(sums.zip(want).all(|(sum, want)| sum.to_bits() == want.to_bits()), "{model:?} of the tests");
    }
    report("isa_sums", cases.len());
}

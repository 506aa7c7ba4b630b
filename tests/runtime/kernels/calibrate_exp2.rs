//! Measures ex2.approx.ftz.f32 for all fractions of [0, 1), so that the emulator can give the bits of a GPU
//! (kernels/emu/exp2.cpp).
//!
//! The 2^23 numbers of [-2, -1) have all fractions that a number of magnitude one or more can have. They are negative,
//! as those of softmax: the results of [1, 2) explain only 31 % of them on an H200. Numbers of magnitude below one may
//! have more bits. The test compares results for such numbers, and for other integer parts, with the measured ones, and
//! prints whether additional bits are truncated or rounded.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use omr_runtime::device::Device;

use crate::kernels::calibrate::launch;
use crate::kernels::inputs::random;
use crate::kernels::math::WORDS;
use crate::kernels::{alone, emu, skipped};

/// Number of fractions.
const FRACTIONS: usize = 1 << 23;
/// Environment variable with the file to write. `tools/gpu-check` sets it.
const DUMP: &str = "OMR_EXP2_DUMP";
/// Word of `calibrate_math` with the result of ex2.approx.
const WORD: usize = 16;
/// Numbers per launch.
const BATCH: usize = 1 << 18;

/// Returns ex2.approx of these numbers.
fn measured(dev: &mut Device, x: &[f32]) -> Vec<f32> {
    let mut y = Vec::new();
    for part in x.chunks(BATCH) {
        let mark = dev.mark(omr_runtime::device::Region::Overlay);
        let bits: Vec<u32> = part.iter().map(|x| x.to_bits()).collect();
        let zeros = vec![0; part.len() * WORDS];
        let words = launch(dev, "calibrate_math", part.len().div_ceil(128), 128, &bits, &zeros, part.len(), 0).unwrap();
        y.extend(words.chunks(WORDS).map(|words| f32::from_bits(words[WORD])));
        dev.release(mark);
    }
    y
}

/// Returns the correctly rounded value for a fraction.
fn exact(index: usize) -> f32 {
    (index as f64 / FRACTIONS as f64).exp2() as f32
}

/// Returns the index of the fraction of x, and its integer part.
fn split(x: f32, nearest: bool) -> (usize, i32) {
    let below = f64::from(x).floor();
    let position = (f64::from(x) - below) * FRACTIONS as f64;
    let index = if nearest { position.round_ties_even() } else { position.floor() } as usize;
    (index % FRACTIONS, below as i32 + (index / FRACTIONS) as i32)
}

#[test]
fn all_fractions_determine_all_results() {
    let mut dev = emu();
    let x: Vec<f32> = (0..FRACTIONS).map(|i| i as f32 / FRACTIONS as f32 - 2.0).collect();
    let results = measured(&mut dev, &x);
    let ulps: Vec<i32> =
        results.iter().enumerate().map(|(i, y)| (y * 4.0).to_bits() as i32 - exact(i).to_bits() as i32).collect();
    let largest = ulps.iter().map(|d| d.abs()).max().unwrap();
    let [exact, above, below] = [0, 1, -1].map(|d| ulps.iter().filter(|x| **x == d).count());
    println!("  ex2.approx: {exact} exact, {above} one above, {below} one below, at most {largest} of {FRACTIONS}");
    assert!(largest <= 4, "its relative error is at most 2^-22");
    // Numbers of many sizes, most of them with more bits of fraction, and numbers with other integer parts.
    let mut random = random(41);
    let x: Vec<f32> = (0..20_000).map(|i| -random.uniform_f32() * if i % 2 == 0 { 1.0 } else { 100.0 }).collect();
    let y = measured(&mut dev, &x);
    let equal = [false, true].map(|nearest| {
        let of = |x: f32| {
            let (index, power) = split(x, nearest);
            results[index] * 4.0 * f64::from(power).exp2() as f32
        };
        x.iter().zip(&y).filter(|(x, y)| of(**x) == **y).count()
    });
    println!("  ex2.approx, other numbers: {} of {} as if truncated, {} as if rounded", equal[0], x.len(), equal[1]);
    let Some(path) = std::env::var_os(DUMP) else { return };
    let mut gz = GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::best());
    gz.write_all(&[u8::from(equal[1] > equal[0])]).unwrap();
    gz.write_all(&ulps.iter().map(|&d| d as i8 as u8).collect::<Vec<u8>>()).unwrap();
    gz.finish().unwrap();
}

/// Environment variable with the file that the emulator reads.
const GIVEN: &str = "OMR_EMU_EXP2";

/// Writes differences that no GPU has, and requires that a process which is given the file computes them.
#[test]
fn the_emulator_takes_over_a_measurement() {
    if skipped("an instruction that is chosen") {
        return;
    }
    let ulp = |i: usize| (i * 7 % 5) as i8 - 2;
    if std::env::var_os(GIVEN).is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exp2");
        let child = || {
            let mut command = alone("kernels::calibrate_exp2::the_emulator_takes_over_a_measurement");
            command.env(GIVEN, &path).output().unwrap()
        };
        for nearest in [0, 1] {
            let bytes: Vec<u8> = [nearest].into_iter().chain((0..FRACTIONS).map(|i| ulp(i) as u8)).collect();
            std::fs::write(&path, &bytes).unwrap();
            let output = child();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        std::fs::write(&path, [0, 1]).unwrap();
        let text = String::from_utf8_lossy(&child().stderr).into_owned();
        assert!(text.contains("has 2 bytes, expected 8388609"), "{text}");
        return;
    }
    let nearest = std::fs::read(std::env::var_os(GIVEN).unwrap()).unwrap()[0] == 1;
    let mut random = random(42);
    let mut x: Vec<f32> = (0..2000).map(|i| -random.uniform_f32() * if i % 2 == 0 { 1.0 } else { 120.0 }).collect();
    x.extend([0.0, 1.0, 1.25, -1e-30, -126.0]);
    for (x, y) in x.iter().zip(measured(&mut emu(), &x)) {
        let (index, power) = split(*x, nearest);
        let fraction = f32::from_bits((exact(index).to_bits() as i32 + i32::from(ulp(index))) as u32);
        let want = (f64::from(fraction) * f64::from(power).exp2()) as f32;
        let want = if want < f32::MIN_POSITIVE { 0.0 } else { want };
        assert_eq!(y.to_bits(), want.to_bits(), "{x:e}, nearest {nearest}: {y:e}, expected {want:e}");
    }
}

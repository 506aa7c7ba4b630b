//! Tests of cu/calibrate.cu: each wrapper of kernels/isa/ alone does what its definition states. If these tests pass on
//! the emulator, the emulator is right. If they pass on a GPU (`OMR_TEST_DEVICE=cuda`), the GPU agrees with the
//! emulator. Other tests: tests/runtime/golden/isa.rs for ldmatrix, stmatrix and mma; calibrate_sums.rs for how mma adds;
//! math.rs for elementary functions.

use half::bf16;
use omr_base::error::Result;
use omr_runtime::device::{Device, Launch, On, Params};
use omr_runtime::tensor::DType;

use crate::kernels::calibrate_tma::words;
use crate::kernels::inputs::up;
use crate::kernels::math::{self, patterns};
use crate::kernels::{emu, equal, mutate_sites, skipped};

/// Bytes of shared memory: the largest struct of calibrate.cu.
const SMEM: usize = 4096;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::NoUninit)]
struct Args {
    x: u64,
    y: u64,
    n: u64,
    mode: u64,
}

/// Runs one kernel of calibrate.cu on words `x` and `y`. Returns the content of `y` afterwards.
#[allow(clippy::too_many_arguments)]
pub fn launch(
    dev: &mut Device,
    kernel: &'static str,
    ctas: usize,
    threads: usize,
    x: &[u32],
    y: &[u32],
    n: usize,
    mode: usize,
) -> Result<Vec<u32>> {
    let launch = Launch::new([ctas as u32, 1, 1], threads as u32, SMEM);
    launch_of(dev, "calibrate", kernel, launch, x, y, n, mode)
}

/// Runs one kernel of `file`, which must take [`Args`], on words `x` and `y`. Returns the content of `y` afterwards.
#[allow(clippy::too_many_arguments)]
pub fn launch_of(
    dev: &mut Device,
    file: &'static str,
    kernel: &'static str,
    launch: Launch,
    x: &[u32],
    y: &[u32],
    n: usize,
    mode: usize,
) -> Result<Vec<u32>> {
    let (x, y) = (up(dev, x, &[x.len()]), up(dev, y, &[y.len()]));
    assert_eq!(y.dtype, DType::U32);
    let On::Gpu(mut gpu) = dev.on() else { panic!("not a GPU") };
    let args = Args { x: gpu.ptr(x), y: gpu.ptr(y), n: n as u64, mode: mode as u64 };
    gpu.launch(file, kernel, launch, Params::of(&args))?;
    dev.read::<u32>(y)
}

const SENTINEL: u32 = 0xabcd_ef01;

#[test]
fn copies_fill_the_rest_with_zeros() {
    let x = words(1, 32 * 7);
    let bytes: &[u8] = bytemuck::cast_slice(&x);
    for start in [0, 5, 16] {
        let y = launch(&mut emu(), "calibrate_copy", 1, 32, &x, &[0; 228], start, 0).unwrap();
        let found: &[u8] = bytemuck::cast_slice(&y);
        for lane in 0..32 {
            for (base, width) in [(0, 16), (512, 8), (768, 4)] {
                let at = base + lane * width;
                let copied = (start + lane) % (width + 1);
                let mut want = bytes[at..at + width].to_vec();
                want[copied..].fill(0);
                assert_eq!(found[at..at + width], want, "{copied} of {width} bytes, lane {lane}");
            }
        }
        assert_eq!(y[224..], [SENTINEL; 4], "written behind the destinations");
    }
}

#[test]
fn a_copy_of_nothing_reads_nothing() {
    let y = launch(&mut emu(), "calibrate_copy", 1, 32, &[0; 224], &[1; 228], 0, 1).unwrap();
    assert_eq!((&y[..224], &y[224..]), (&[0; 224][..], &[SENTINEL; 4][..]));
}

#[test]
fn exchanges_and_votes_of_a_warp() {
    let mut rows = 0;
    let inputs = [words(2, 32), vec![u32::MAX; 32], vec![0; 32], (0..32).map(|i| 1 << i).collect()];
    for (x, (n, mode)) in inputs.iter().zip([(7, 3), (1, 0), (31, 31), (0, 17)]) {
        let y = launch(&mut emu(), "calibrate_warp", 1, 32, x, &[0; 64 * 32], n, mode).unwrap();
        let up = |delta: usize, l: usize| if l >= delta { l - delta } else { l };
        let down = |delta: usize, l: usize| if l + delta < 32 { l + delta } else { l };
        let from = |l: usize| (l * n + mode) % 32;
        let ballot = (0..32).fold(0, |b, l| b | (x[l] >> mode & 1) << l);
        let vote = u32::from(ballot != 0) | u32::from(ballot == u32::MAX) << 1;
        for l in 0..32 {
            let mut want = vec![x[from(l)]];
            want.extend((1..32).map(|mask| x[l ^ mask]));
            want.extend([1, 5, 31].map(|d| [x[up(d, l)], x[down(d, l)]]).concat());
            want.extend([x[from(l)], !x[from(l)], x[l ^ 9], !x[l ^ 9], x[up(3, l)], !x[down(3, l)], x[l ^ 16]]);
            want.extend([ballot, vote]);
            rows = want.len();
            let found: Vec<u32> = (0..rows).map(|row| y[32 * row + l]).collect();
            assert_eq!(found, want, "lane {l}");
        }
        assert!(y[32 * rows..].iter().all(|word| *word == 0));
    }
    println!("{rows} exchanges and votes");
}

#[test]
fn bf16_rounds_to_nearest_even() {
    let ends = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
    let x: Vec<u32> = (0..1u32 << 16).flat_map(|high| ends.map(|low| high << 16 | low)).collect();
    let y = launch(&mut emu(), "calibrate_bf16", x.len().div_ceil(128), 128, &x, &vec![0; 4 * x.len()], x.len(), 0);
    let round = |bits: u32| match f32::from_bits(bits) {
        value if value.is_nan() => 0x7fff,
        value => u32::from(bf16::from_f32(value).to_bits()),
    };
    for (i, found) in y.unwrap().chunks(4).enumerate() {
        let (bits, next) = (x[i], x[(i + 1) % x.len()]);
        let halves = (bits & 0xffff_0000) ^ (bits << 16);
        assert_eq!(found, [round(bits), round(bits) | round(next) << 16, bits << 16, halves], "{bits:08x}");
    }
    println!("{} patterns", x.len());
}

/// PTX ISA, ex2: the relative error is at most 2^-22, and .ftz flushes subnormal inputs and results to zero.
#[test]
fn exp2_approx_is_within_its_bound() {
    let x = patterns();
    let zeros = vec![0; x.len() * math::WORDS];
    let y = launch(&mut emu(), "calibrate_math", x.len().div_ceil(128), 128, &x, &zeros, x.len(), 0).unwrap();
    let (mut largest, mut rounded) = (0.0f64, 0);
    for (i, &bits) in x.iter().enumerate() {
        let (v, got) = (f32::from_bits(bits), f32::from_bits(y[math::WORDS * i + 16]));
        let want = f64::from(v).exp2();
        let smallest = f64::from(f32::MIN_POSITIVE);
        if v.is_nan() {
            assert!(got.is_nan(), "{bits:08x}");
        } else if want < smallest {
            assert!(got == 0.0 || f64::from(got) >= smallest && want > 0.999 * smallest, "{v:e}: {got:e}");
        } else if want > f64::from(f32::MAX) {
            assert_eq!(got, f32::INFINITY, "{v:e}");
        } else {
            largest = largest.max((f64::from(got) - want).abs() / want);
            rounded += usize::from(got == want as f32);
        }
    }
    println!("largest relative error {largest:.2e}, {rounded} of {} as if rounded once", x.len());
    assert!(largest <= (-22f64).exp2());
}

#[test]
fn barriers_of_some_warps_hand_over() {
    let rounds = 9;
    let x = words(3, rounds * 32);
    let y = launch(&mut emu(), "calibrate_named", 1, 64, &x, &[0; 32], rounds, 0).unwrap();
    let sum = |lane: usize, i: usize| x[i * 32 + 31 - lane].wrapping_mul(i as u32 + 1);
    let want: Vec<u32> = (0..32).map(|l| (0..rounds).fold(0u32, |s, i| s.wrapping_add(sum(l, i)))).collect();
    assert_eq!(y, want);
}

#[test]
fn a_warp_alone_is_ordered() {
    let x = words(4, 64);
    let y = launch(&mut emu(), "calibrate_turn", 1, 64, &x, &[0; 64], 37, 0).unwrap();
    let want: Vec<u32> = (0..64).map(|t| x[t / 32 * 32 + (t + 37) % 32]).collect();
    assert_eq!(y, want);
}

#[test]
fn atomics_lose_nothing() {
    let ctas = 12;
    let x = words(5, ctas * 128);
    let mut y = [0u32; 20];
    y[4..6].copy_from_slice(&[i32::MAX as u32, u32::MAX]);
    let y = launch(&mut emu(), "calibrate_atomic", ctas, 128, &x, &y, 0, 0).unwrap();
    let sum = x.iter().fold(0u32, |s, v| s.wrapping_add(*v));
    let signed = x.iter().map(|v| *v as i32).max().unwrap().max(0) as u32;
    let wide = x.iter().map(|v| u64::from(*v) << 20);
    let largest = *x.iter().max().unwrap();
    let smallest = [x.iter().map(|v| v & 0x7fff_ffff).min().unwrap(), *x.iter().min().unwrap()];
    assert_eq!(y[..6], [sum, sum, signed, largest, smallest[0], smallest[1]]);
    let long = |i: usize| u64::from(y[i]) | u64::from(y[i + 1]) << 32;
    let (total, most, least) = (wide.clone().sum::<u64>(), wide.clone().max().unwrap(), wide.min().unwrap());
    assert_eq!([long(6), long(8), long(10)], [total, most, !least]);
    assert_eq!(f32::from_bits(y[12]), x.iter().map(|v| (v % 64) as f32).sum::<f32>());
    assert_eq!(y[13].wrapping_add(y[14]), sum, "an exchange lost or doubled a value");
    assert_eq!(y[15], x.len() as u32, "a swap was lost");
}

#[test]
fn what_was_written_before_a_release_is_seen_after_the_acquire() {
    let ctas = 40;
    let x = words(6, ctas * 64);
    for _ in 0..if skipped("other orders of CTAs: the same launch, 50 times") { 50 } else { 1 } {
        let y = launch(&mut emu(), "calibrate_chain", ctas, 64, &x, &[0; 66], 0, 0).unwrap();
        let mut want = [0u32; 64];
        for part in x.chunks(64) {
            want = std::array::from_fn(|t| want[63 - t].wrapping_add(part[t]));
        }
        assert_eq!(y[..64], want);
        let y = launch(&mut emu(), "calibrate_ticket", ctas, 64, &x, &vec![0; ctas + 2], ctas + 1, 0).unwrap();
        let sums: Vec<u32> = x.chunks(64).map(|c| c.iter().fold(0u32, |s, v| s.wrapping_add(*v))).collect();
        assert_eq!(y[1..=ctas], sums);
        assert_eq!(y[0], sums.iter().fold(0u32, |s, v| s.wrapping_add(*v)));
    }
}

#[test]
fn each_synchronising_call_is_needed() {
    mutate_sites(&["kernels/calibrate.cu"], 4, |dev| {
        let x = words(7, 64 * 6);
        let bytes: &[u8] = bytemuck::cast_slice(&x);
        let copied = launch(dev, "calibrate_copy", 1, 32, &x[..224], &[0; 228], 16, 0)?;
        equal("the first copy", &copied[..4], bytemuck::cast_slice(&bytes[..16]))?;
        equal("the second", &copied[128 + 2 * 28..][..4], &[x[128 + 56], x[128 + 57], 0, 0])?;
        let named = launch(dev, "calibrate_named", 1, 64, &x, &[0; 32], 5, 0)?;
        let sum = |l: usize| (0..5).fold(0u32, |s, i| s.wrapping_add(x[i * 32 + 31 - l].wrapping_mul(i as u32 + 1)));
        equal("handed over", &named, &(0..32).map(sum).collect::<Vec<_>>())?;
        let turned = launch(dev, "calibrate_turn", 1, 64, &x[..64], &[0; 64], 3, 0)?;
        equal("turned", &turned, &(0..64).map(|t| x[t / 32 * 32 + (t + 3) % 32]).collect::<Vec<_>>())?;
        let chain = launch(dev, "calibrate_chain", 6, 64, &x, &[0; 66], 0, 0)?;
        let one = |y: Vec<u32>, part: &[u32]| (0..64).map(|t| y[63 - t].wrapping_add(part[t])).collect();
        equal("chained", &chain[..64], &x.chunks(64).fold(vec![0; 64], one))?;
        let ticket = launch(dev, "calibrate_ticket", 6, 64, &x, &[0; 8], 7, 0)?;
        equal("the sum", &ticket[..1], &[x.iter().fold(0u32, |s, v| s.wrapping_add(*v))])?;
        let rows: Vec<u32> = (0..32).map(|lane| lane % 8 * 16).collect();
        let matrix = [x.clone(), vec![0; 1024 - x.len()], rows, vec![0; 384]].concat();
        let y = launch(dev, "calibrate_matrix", 1, 32, &matrix, &[0; 1280], 32, 1)?;
        equal("a matrix", &(0..32).map(|l| y[1024 + 4 * l]).collect::<Vec<_>>(), &x[..32])?;
        let rows: Vec<u32> = (0..32).map(|lane| lane * 16).collect();
        let matrix = [vec![0; 1024], rows, x[..128].to_vec(), vec![0; 256]].concat();
        let y = launch(dev, "calibrate_matrix", 1, 32, &matrix, &[0; 1280], 128, 24)?;
        equal("stored matrices", &y[..128], &(0..128).map(|i| x[i % 32 * 4 + i / 32]).collect::<Vec<_>>())
    });
}

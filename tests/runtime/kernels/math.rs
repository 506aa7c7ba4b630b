//! Tests of kernels/common/math.cuh, math_f64.cuh and philox.cuh against src/base/math.rs and src/base/philox.rs: equal bits.

use omr_base::math;
use omr_base::philox;

use crate::kernels::calibrate::launch;
use crate::kernels::emu;

/// Words that `calibrate_math` writes per input word.
pub const WORDS: usize = 17;

/// Returns every sign and exponent with mantissas at both ends, between them and at random, and the smallest and
/// largest words.
pub fn patterns() -> Vec<u32> {
    let mut random = crate::kernels::inputs::random(1);
    let mut x: Vec<u32> = vec![0, 1, 2, u32::MAX, u32::MAX - 1, 0xffff_ff00, 0xffff_fe7f];
    for high in 0..512u32 {
        for low in [0, 1, 2, 0x40_0000, 0x7f_fffe, 0x7f_ffff] {
            x.push(high << 23 | low);
        }
        x.extend((0..6).map(|_| high << 23 | (random.next_u32() & 0x7f_ffff)));
    }
    // Numbers of both signs between 2^-6 and 16, the range of the polynomials.
    x.extend((0..4000).map(|_| (random.uniform_f32() * 10.0 - 6.0).exp2().to_bits() ^ (random.next_u32() & 1) << 31));
    x
}

/// Index of the word in which the kernel leaves a result, name of the function, and the CPU's function.
type Function = (usize, &'static str, fn(f32) -> f32);

#[test]
fn bits_are_those_of_the_cpu() {
    let x = patterns();
    let zeros = vec![0; x.len() * WORDS];
    let y = launch(&mut emu(), "calibrate_math", x.len().div_ceil(128), 128, &x, &zeros, x.len(), 0).unwrap();
    // Word 4 is tanh, which only kernels have.
    let functions: [Function; 10] = [
        (0, "exp2", math::exp2),
        (1, "exp", math::exp),
        (2, "ln", math::ln),
        (3, "log1p", math::log1p),
        (5, "erf", math::erf),
        (6, "sigmoid", math::sigmoid),
        (7, "silu", math::silu),
        (8, "silu_grad", math::silu_grad),
        (9, "gelu", math::gelu),
        (10, "gelu_grad", math::gelu_grad),
    ];
    for (i, &bits) in x.iter().enumerate() {
        let v = f32::from_bits(bits);
        for (word, name, f) in functions {
            let (got, want) = (f32::from_bits(y[WORDS * i + word]), f(v));
            // The payload of a NaN differs between processors.
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            assert!(same, "{name}({v:e}, bits {bits:08x}): {got:e}, on the CPU {want:e}");
        }
        assert_eq!(y[WORDS * i + 11], philox::gumbel(bits).to_bits(), "gumbel({bits:08x})");
        let words = philox::philox4x32_10([bits, 7], [i as u32, 3, bits ^ 5, 9]);
        assert_eq!(y[WORDS * i + 12..WORDS * i + 16], words, "philox of {bits:08x}");
    }
    println!("{} patterns, {} functions", x.len(), functions.len() + 2);
}

#[test]
fn exp_in_f64_has_the_bits_of_the_cpu() {
    let mut random = crate::kernels::inputs::random(2);
    let mut x: Vec<f64> = vec![0.0, -0.0, 1e-300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 709.78, 709.79, -745.2];
    x.extend([20.0, -20.0, 10.0, f64::MAX, f64::MIN, -708.4, -745.1, -1e-17]);
    x.extend((0..4000).map(|_| (f64::from(random.uniform_f32()) - 0.5) * 60.0));
    x.extend((0..4000).map(|_| (f64::from(random.uniform_f32()) - 0.5) * 1600.0));
    let words: Vec<u32> = bytemuck::pod_collect_to_vec(&x);
    let zeros = vec![0; words.len()];
    let ctas = x.len().div_ceil(128);
    let y = launch(&mut emu(), "calibrate_math_f64", ctas, 128, &words, &zeros, x.len(), 0).unwrap();
    let y: Vec<f64> = bytemuck::pod_collect_to_vec(&y);
    let mut worst = 0.0f64;
    for (&x, got) in x.iter().zip(y) {
        let want = math::exp_f64(x);
        assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "exp({x:e}): {got:e}, {want:e}");
        let exact = x.exp();
        if exact.is_normal() {
            worst = worst.max((want - exact).abs() / (exact * f64::EPSILON));
        } else {
            // In steps of the smallest number, for results that are subnormal.
            let steps = (want - exact) / f64::from_bits(1);
            assert!(want == exact || steps.abs() <= 1.0 || (want.is_nan() && exact.is_nan()), "{x:e}: {want:e}");
        }
    }
    println!("{} numbers, {worst:.2} ulp from the C library", x.len());
    // The kernel's result and the CPU's are each within 1 ulp of e^x.
    assert!(worst <= 2.0 && math::exp_f64(0.0) == 1.0);
}

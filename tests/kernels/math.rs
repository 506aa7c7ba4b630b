//! kernels/common/math.cuh and philox.cuh against src/ops/math.rs and philox.rs: equal bits.

use bytemuck::NoUninit;
use omr::device::emu::Options;
use omr::device::{Launch, On};
use omr::ops::{math, philox};
use omr::tensor::DType;

use crate::kernels::emu_of;
use crate::kernels::inputs::{blank, up};

const SOURCE: &str = r#"#include "common/math.cuh"
#include "common/philox.cuh"
namespace math_probe { struct Args { const uint32_t* x; uint32_t* y; int n, pad; }; }
KERNEL(math_probe, math_probe::Args, 128, 1) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= args.n) return;
    float x = __uint_as_float(args.x[i]);
    float y[12] = {math::exp2(x), math::exp(x), math::ln(x), math::log1p(x), math::tanh(x), math::erf(x),
                   math::sigmoid(x), math::silu(x), math::silu_grad(x), math::gelu(x), math::gelu_grad(x),
                   philox::gumbel(args.x[i])};
    for (int j = 0; j < 12; j++) args.y[16 * i + j] = __float_as_uint(y[j]);
    philox::Words w = philox::philox4x32_10(args.x[i], 7, i, 3, args.x[i] ^ 5, 9);
    for (int j = 0; j < 4; j++) args.y[16 * i + 12 + j] = w.at(j);
}
"#;

#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    x: u64,
    y: u64,
    n: i32,
    pad: i32,
}

/// Every sign and exponent with mantissas at both ends, between them and at random, and the words at the ends.
fn patterns() -> Vec<u32> {
    let mut random = crate::kernels::inputs::random(1);
    let mut x: Vec<u32> = vec![0, 1, 2, u32::MAX, u32::MAX - 1, 0xffff_ff00, 0xffff_fe7f];
    for high in 0..512u32 {
        for low in [0, 1, 2, 0x40_0000, 0x7f_fffe, 0x7f_ffff] {
            x.push(high << 23 | low);
        }
        x.extend((0..6).map(|_| high << 23 | (random.next_u32() & 0x7f_ffff)));
    }
    // Between 2^-6 and 16, where the polynomials work.
    x.extend((0..4000).map(|_| (random.uniform_f32() * 10.0 - 6.0).exp2().to_bits() ^ (random.next_u32() & 1) << 31));
    x
}

#[test]
fn bits_are_those_of_the_cpu() {
    let x = patterns();
    let sources = vec![("kernels/math_probe.cu".to_owned(), SOURCE.to_owned())];
    let mut dev = emu_of(Options { sources, ..Options::default() }).unwrap();
    let (xs, ys) = (up(&mut dev, &x, &[x.len()]), blank(&mut dev, DType::U32, &[x.len(), 16]));
    let On::Gpu(mut gpu) = dev.on() else { panic!("not a GPU") };
    let args = Args { x: gpu.ptr(xs), y: gpu.ptr(ys), n: x.len() as i32, pad: 0 };
    let grid = [x.len().div_ceil(128) as u32, 1, 1];
    gpu.launch("math_probe", "math_probe", Launch::new(grid, 128, 0), &args).unwrap();
    let y = dev.read::<u32>(ys).unwrap();
    let names = ["exp2", "exp", "ln", "log1p", "tanh", "erf", "sigmoid", "silu", "silu_grad", "gelu", "gelu_grad"];
    let functions = [
        math::exp2,
        math::exp,
        math::ln,
        math::log1p,
        math::tanh,
        math::erf,
        math::sigmoid,
        math::silu,
        math::silu_grad,
        math::gelu,
        math::gelu_grad,
    ];
    for (i, &bits) in x.iter().enumerate() {
        let v = f32::from_bits(bits);
        for (j, f) in functions.iter().enumerate() {
            let (got, want) = (f32::from_bits(y[16 * i + j]), f(v));
            // A NaN's payload differs between processors.
            let same = got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan());
            assert!(same, "{}({v:e}, bits {bits:08x}): {got:e}, on the CPU {want:e}", names[j]);
        }
        assert_eq!(y[16 * i + 11], philox::gumbel(bits).to_bits(), "gumbel({bits:08x})");
        let words = philox::philox4x32_10([bits, 7], [i as u32, 3, bits ^ 5, 9]);
        assert_eq!(y[16 * i + 12..16 * i + 16], words, "philox of {bits:08x}");
    }
    println!("{} patterns, {} functions", x.len(), names.len() + 2);
}

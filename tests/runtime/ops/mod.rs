//! Tests ops against f64 formulas and finite differences, and against themselves with other thread counts, kernel
//! variants and batches.

pub mod adamw;
pub mod amx;
pub mod attention;
pub mod code8;
pub mod decode_grid;
pub mod decode_split;
pub mod embedding;
#[cfg(target_arch = "x86_64")]
pub mod fused;
pub mod gelu;
pub mod gemm;
pub mod grad_norm;
pub mod kept;
pub mod lane_sum;
pub mod layer_norm;
pub mod linear;
pub mod linear_logprob;
pub mod lora;
pub mod master;
pub mod matmul;
pub mod paged_attention;
pub mod panels;
pub mod policy_loss;
pub mod pos_embed;
pub mod qk_norm;
pub mod quantized;
pub mod quotients;
pub mod reference;
pub mod rms_norm;
pub mod rope;
pub mod rows;
pub mod sample;
pub mod shared_prompts;
pub mod swiglu;
pub mod variants;

use half::bf16;
use omr_base::philox::{Purpose, Random};
use omr_runtime::device::{Device, Isa, Plan, Region};
use omr_runtime::ops::matmul::{Order, Weight, panel_len};
use omr_runtime::tensor::{DType, Elem, Tensor};

use panels::pack;

/// Returns a CPU device with enough memory for a test.
fn device(threads: usize, isa: Isa) -> Device {
    Device::cpu(&Plan::uniform(1 << 30), threads, isa).unwrap()
}

/// Returns the kernel variants that this machine can run, best first.
fn isas() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available()).collect()
}

/// Returns devices whose f32 results must be bitwise identical: 1, 2 and 5 threads, and all kernel variants.
fn devices() -> Vec<Device> {
    let mut all: Vec<Device> = [1, 2, 5].into_iter().map(|t| device(t, Isa::detect())).collect();
    all.extend(isas().into_iter().skip(1).map(|isa| device(2, isa)));
    all
}

/// Returns uniform values in [-1, 1), rounded to `dtype`. `name` distinguishes arrays.
fn values(dtype: DType, name: u64, len: usize) -> Vec<f32> {
    let mut random = Random::new(11, Purpose::Test, name);
    (0..len).map(|_| round(dtype, 2.0 * random.uniform_f32() - 1.0)).collect()
}

/// Rounds `x` to `dtype`.
fn round(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::Bf16 => <bf16 as Elem>::from_f32(x).to_f32(),
        _ => x,
    }
}

/// Returns half the distance between neighbouring values of `dtype` at `x`, the largest error of one rounding.
fn half_ulp(dtype: DType, x: f64) -> f64 {
    x.abs() * 2f64.powi(if dtype == DType::Bf16 { -8 } else { -24 })
}

/// Returns the error bound of a chain of `steps` fused multiply-adds whose terms have the absolute sum `magnitude`
/// (Higham, Accuracy and Stability, section 3.1). `vdpbf16ps` rounds twice per pair, which is not more.
pub fn chain_error(steps: usize, magnitude: f64) -> f64 {
    (steps + 4) as f64 * 2f64.powi(-24) * magnitude
}

fn upload(dev: &mut Device, dtype: DType, data: &[f32], dims: &[usize]) -> Tensor {
    match dtype {
        DType::Bf16 => {
            let bits: Vec<bf16> = data.iter().map(|&x| Elem::from_f32(x)).collect();
            dev.upload(Region::Overlay, &bits, dims).unwrap()
        }
        _ => dev.upload(Region::Overlay, data, dims).unwrap(),
    }
}

fn read(dev: &mut Device, t: Tensor) -> Vec<f32> {
    match t.dtype {
        DType::Bf16 => dev.read::<bf16>(t).unwrap().into_iter().map(Elem::to_f32).collect(),
        _ => dev.read(t).unwrap(),
    }
}

/// Uploads row-major [n, k] as a weight.
fn weight(dev: &mut Device, dtype: DType, data: &[f32], n: usize, k: usize) -> Weight {
    let len = panel_len(dtype, n, k);
    let mut bytes = vec![0u8; len * dtype.size()];
    pack(dtype, n, k, data, &mut bytes);
    let values = match dtype {
        DType::Bf16 => bytemuck::cast_slice::<u8, bf16>(&bytes).iter().map(|x| x.to_f32()).collect(),
        _ => bytemuck::cast_slice::<u8, f32>(&bytes).to_vec(),
    };
    Weight::new(upload(dev, dtype, &values, &[len]), Order::Panels, n, k)
}

/// Panics at the first element that is farther from `want` than `bound` allows.
fn close(what: &str, got: &[f32], want: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs();
        assert!(error <= bound(i), "{what}: element {i} is {g}, expected {w}: off by {error:e}, bound {:e}", bound(i));
    }
}

/// Panics at the first element whose bits differ.
fn same_bits(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert_eq!(g.to_bits(), w.to_bits(), "{what}: element {i} is {g:e}, not {w:e}");
    }
}

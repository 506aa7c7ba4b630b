//! Ops against f64 formulas, finite differences and themselves under other threads, bodies and batches.

pub mod adamw;
mod amx;
mod attention;
mod embedding;
mod gelu;
pub mod grad_norm;
pub mod lane_sum;
mod linear;
mod linear_logprob;
mod matmul;
mod paged_attention;
mod panels;
mod patch_embed;
mod reference;
mod rms_norm;
mod rope;
mod rows;
mod sample;
mod swiglu;

use half::bf16;
use omr::device::{Device, Isa, Plan, Region};
use omr::ops::matmul::{Order, Weight, panel_len};
use omr::philox::{Purpose, Random};
use omr::tensor::{DType, Elem, Tensor};
use panels::pack;

/// A CPU device with room for a test.
fn device(threads: usize, isa: Isa) -> Device {
    Device::cpu(&Plan::uniform(1 << 30), threads, isa).unwrap()
}

/// The bodies this machine can run, best first.
fn isas() -> Vec<Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.available()).collect()
}

/// Devices whose f32 results must be equal bit for bit: 1, 2 and 5 threads, all bodies.
fn devices() -> Vec<Device> {
    let mut all: Vec<Device> = [1, 2, 5].into_iter().map(|t| device(t, Isa::detect())).collect();
    all.extend(isas().into_iter().skip(1).map(|isa| device(2, isa)));
    all
}

/// Uniform values in [-1, 1), rounded to `dtype`; `name` tells one array from another.
fn values(dtype: DType, name: u64, len: usize) -> Vec<f32> {
    let mut random = Random::new(11, Purpose::Test, name);
    (0..len).map(|_| round(dtype, 2.0 * random.uniform_f32() - 1.0)).collect()
}

/// `x` as `dtype` holds it.
fn round(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::Bf16 => <bf16 as Elem>::from_f32(x).to_f32(),
        _ => x,
    }
}

/// Half the distance between neighbouring values of `dtype` at `x`: what one rounding may cost.
fn half_ulp(dtype: DType, x: f64) -> f64 {
    x.abs() * 2f64.powi(if dtype == DType::Bf16 { -8 } else { -24 })
}

/// The error bound of a chain of `steps` fused multiply-adds whose terms sum to `magnitude` in absolute value
/// (Higham, Accuracy and Stability, section 3.1); `vdpbf16ps` rounds twice a pair, which is no more.
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
    Weight { data: upload(dev, dtype, &values, &[len]), order: Order::Panels, n, k }
}

/// Panics with the first element farther from `want` than `bound` allows.
fn close(what: &str, got: &[f32], want: &[f64], bound: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(g) - w).abs();
        assert!(error <= bound(i), "{what}: element {i} is {g}, expected {w}: off by {error:e}, bound {:e}", bound(i));
    }
}

/// Panics with the first element whose bits differ.
fn same_bits(what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert_eq!(g.to_bits(), w.to_bits(), "{what}: element {i} is {g:e}, not {w:e}");
    }
}

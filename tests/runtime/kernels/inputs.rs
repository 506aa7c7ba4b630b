//! Inputs that the CPU and an emulated device use alike.

use half::bf16;
use omr_base::philox::{Purpose, Random};
use omr_base_tests::seed::seed;
use omr_runtime::device::{Device, Isa, Plan, Region};
use omr_runtime::ops::matmul::{Order, Weight};
use omr_runtime::tensor::{DType, Elem, Tensor};

use crate::kernels::Outcome;

/// Returns the CPU device, with which kernels are compared.
pub fn cpu() -> Device {
    Device::cpu(&Plan::uniform(1 << 30), 1, Isa::detect()).unwrap()
}

/// Returns random numbers for the stream `name`.
pub fn random(name: u64) -> Random {
    Random::new(seed(), Purpose::Test, name)
}

/// Returns `len` standard normal numbers of the stream `name`, rounded to `T`.
pub fn normals<T: Elem>(name: u64, len: usize) -> Vec<T> {
    let mut random = random(name);
    (0..len).map(|_| T::from_f32(random.normal())).collect()
}

/// Returns `len` numbers from [-1, 1) of the stream `name`, rounded to `T`.
pub fn uniform<T: Elem>(name: u64, len: usize) -> Vec<T> {
    let mut random = random(name);
    (0..len).map(|_| T::from_f32(2.0 * random.uniform_f32() - 1.0)).collect()
}

/// Converts numbers to f64.
pub fn wide<T: Elem>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| f64::from(x.to_f32())).collect()
}

/// Uploads `data` to the device.
pub fn up<T: Elem>(dev: &mut Device, data: &[T], dims: &[usize]) -> Tensor {
    dev.upload(Region::Overlay, data, dims).unwrap()
}

/// Returns a tensor with undefined content.
pub fn blank(dev: &mut Device, dtype: DType, dims: &[usize]) -> Tensor {
    dev.alloc(Region::Overlay, dtype, dims).unwrap()
}

/// Number of rows behind the rows that an op may write.
const BEHIND: usize = 64;

/// Returns a tensor with `rows` rows to write, and [`BEHIND`] more rows that must not be written.
pub fn guarded(dev: &mut Device, rows: usize, columns: usize) -> Tensor {
    up(dev, &vec![bf16::ONE; (rows + BEHIND) * columns], &[rows + BEHIND, columns])
}

/// Errors if an op has written behind the rows of [`guarded`].
pub fn untouched(dev: &mut Device, t: Tensor) -> Outcome {
    let behind = dev.read::<bf16>(t.slice(t.rows() - BEHIND, t.rows()))?;
    match behind.iter().filter(|&&v| v != bf16::ONE).count() {
        0 => Ok(()),
        n => Err(format!("{n} elements behind the last row are written").into()),
    }
}

/// Returns a weight [n, k] made of `rows`, in the device's order.
pub fn weight(dev: &mut Device, rows: &[bf16], n: usize, k: usize) -> Weight {
    let order = Order::of(dev);
    let mut data = vec![bf16::ZERO; order.len(DType::Bf16, n, k)];
    for row in 0..n {
        for column in 0..k {
            data[order.index(DType::Bf16, k, row, column)] = rows[row * k + column];
        }
    }
    Weight::new(up(dev, &data, &[data.len()]), order, n, k)
}

/// Packs one flag per id into words of 32 bits.
pub fn bitmap(allowed: &[bool]) -> Vec<u32> {
    allowed.chunks(32).map(|c| c.iter().enumerate().map(|(i, &on)| u32::from(on) << i).sum()).collect()
}

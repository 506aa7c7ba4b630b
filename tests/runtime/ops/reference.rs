//! Helpers for tests of ops: devices, random values, error measures.

use omr_runtime::device::{Device, Isa, Plan, Region};
use omr_runtime::tensor::{DType, Elem, Tensor};

/// Unit round-off of f32.
pub const F32: f64 = 1.0 / (1 << 24) as f64;

/// Unit round-off of bf16.
pub const BF16: f64 = 1.0 / (1 << 8) as f64;

/// Returns the kernel variants that this machine can run.
pub fn instruction_sets() -> Vec<Isa> {
    [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.available()).collect()
}

/// Returns a CPU device with one gigabyte in each region. Only used memory is touched.
pub fn device(threads: usize, isa: Isa) -> Device {
    Device::cpu(&Plan::uniform(1 << 30), threads, isa).unwrap()
}

/// Returns devices whose results must be bitwise identical: 1, 2 and 5 threads, each with every kernel variant.
pub fn devices() -> Vec<Device> {
    let threads = [1, 2, 5];
    instruction_sets().into_iter().flat_map(|isa| threads.map(|n| device(n, isa))).collect()
}

/// Generator of uniform values from a fixed stream.
pub struct Random(u64);

impl Random {
    /// Creates the stream of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    /// Returns the next 32 bits (xorshift64*).
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// Returns a number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.bits()) * n as u64) >> 32) as usize
    }

    /// Returns a number between -1 and 1.
    pub fn unit(&mut self) -> f32 {
        self.bits() as f32 / (1u64 << 31) as f32 - 1.0
    }

    /// Returns `n` values between -1 and 1, rounded to `T`.
    pub fn values<T: Elem>(&mut self, n: usize) -> Vec<T> {
        (0..n).map(|_| T::from_f32(self.unit())).collect()
    }
}

/// Uploads `data` as a tensor in the weights region.
pub fn up<T: Elem>(dev: &mut Device, data: &[T], dims: &[usize]) -> Tensor {
    dev.upload(Region::Weights, data, dims).unwrap()
}

/// Returns a tensor in the state region that is filled with NaN (all bits one), so that an element that is not written
/// is visible.
pub fn blank(dev: &mut Device, dtype: DType, dims: &[usize]) -> Tensor {
    let t = dev.alloc(Region::State, dtype, dims).unwrap();
    if let Some(cpu) = dev.on_cpu() {
        cpu.memory.view_mut(t.span()).of::<u8>().fill(0xff);
    }
    t
}

/// Converts values to f64.
pub fn wide<T: Elem>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| f64::from(x.to_f32())).collect()
}

/// Returns the norm of the difference divided by the norm of `want`.
pub fn relative<T: Elem>(got: &[T], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let diff: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(g.to_f32()) - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    let error = (diff / norm.max(f64::MIN_POSITIVE)).sqrt();
    assert!(!error.is_nan(), "an element is not a number");
    error
}

/// Returns central differences of `f` for the elements `at` of x with a step of 1e-4. The cubic term has an error near
/// 1e-8.
pub fn differences(x: &[f64], at: &[usize], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let mut x = x.to_vec();
    let h = 1e-4;
    at.iter()
        .map(|&i| {
            let middle = x[i];
            x[i] = middle + h;
            let above = f(&x);
            x[i] = middle - h;
            let below = f(&x);
            x[i] = middle;
            (above - below) / (2.0 * h)
        })
        .collect()
}

/// Returns the sum of a[i] * b[i].
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

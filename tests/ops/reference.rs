//! What the op tests share: devices, random values, error measures.

use omr::device::{Device, Isa, Plan, Region};
use omr::tensor::{DType, Elem, Tensor};

/// Unit round-off of f32.
pub const F32: f64 = 1.0 / (1 << 24) as f64;

/// Unit round-off of bf16.
pub const BF16: f64 = 1.0 / (1 << 8) as f64;

/// The kernel bodies this machine can run.
pub fn bodies() -> Vec<Isa> {
    [Isa::Avx512, Isa::Avx2, Isa::Portable].into_iter().filter(|isa| isa.available()).collect()
}

/// A CPU device with a gigabyte in each region, touched only where used.
pub fn device(threads: usize, isa: Isa) -> Device {
    Device::cpu(&Plan::uniform(1 << 30), threads, isa).unwrap()
}

/// Devices whose results must agree to the bit: threads 1, 2 and 5, each with every body.
pub fn devices() -> Vec<Device> {
    let threads = [1, 2, 5];
    bodies().into_iter().flat_map(|isa| threads.map(|n| device(n, isa))).collect()
}

/// Uniform values from a fixed stream.
pub struct Random(u64);

impl Random {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc_def1)
    }

    /// The next 32 bits (xorshift64*).
    pub fn bits(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) as u32
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.bits()) * n as u64) >> 32) as usize
    }

    /// Between -1 and 1.
    pub fn unit(&mut self) -> f32 {
        self.bits() as f32 / (1u64 << 31) as f32 - 1.0
    }

    /// `n` values between -1 and 1 as `T` holds them.
    pub fn values<T: Elem>(&mut self, n: usize) -> Vec<T> {
        (0..n).map(|_| T::from_f32(self.unit())).collect()
    }
}

/// A tensor in the weights region holding `data`.
pub fn up<T: Elem>(dev: &mut Device, data: &[T], dims: &[usize]) -> Tensor {
    dev.upload(Region::Weights, data, dims).unwrap()
}

/// A tensor in the state region filled with NaN (or all ones bits), so that an element left unwritten shows.
pub fn blank(dev: &mut Device, dtype: DType, dims: &[usize]) -> Tensor {
    let t = dev.alloc(Region::State, dtype, dims).unwrap();
    if let Some(cpu) = dev.on_cpu() {
        cpu.memory.view_mut(t.span()).of::<u8>().fill(0xff);
    }
    t
}

/// Widened.
pub fn wide<T: Elem>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| f64::from(x.to_f32())).collect()
}

/// Norm of the difference over the norm of `want`.
pub fn relative<T: Elem>(got: &[T], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let diff: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(g.to_f32()) - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    let error = (diff / norm.max(f64::MIN_POSITIVE)).sqrt();
    assert!(!error.is_nan(), "an element is not a number");
    error
}

/// Central differences of `f` in every `at` of x, step 1e-4: the cubic term leaves an error near 1e-8.
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

/// Sum of a[i] * b[i].
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

//! Inputs of the benchmark cases: sizes of models, random numbers, tensors and weights.

use omr_base::error::Result;
use omr_base::philox::{Purpose, Random};
use omr_runtime::device::{Device, Kind, Region};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::linear_logprob::LogProbCall;
use omr_runtime::ops::matmul::{Order, Weight};
use omr_runtime::tensor::{DType, Elem, Tensor};

/// Widths of a model, and the amount of work of each op.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Storage type of weights and activations.
    pub dtype: DType,
    pub tokens: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: Heads,
    pub vocabulary: usize,
    /// Lengths of the sequences for attention, in tokens.
    pub lengths: [usize; 2],
    /// Number of patches of the vision tower, in windows of 64.
    pub patches: usize,
    /// Heads of the vision tower.
    pub vision: Heads,
    /// Number of targets of the log-probs.
    pub targets: usize,
    /// Number of sequences of a decoding step.
    pub sequences: usize,
    /// Number of keys per sequence of a decoding step.
    pub keys: usize,
    /// Number of parameters for the optimizer's ops.
    pub parameters: usize,
    /// Factor of the random numbers: 1, or 0 with `--data zeros`.
    pub scale: f32,
}

/// Sizes of the 7B model, for a GPU.
const B7: Sizes = Sizes {
    dtype: DType::Bf16,
    tokens: 8192,
    hidden: 3584,
    intermediate: 18_944,
    heads: Heads { q: 28, kv: 4, dim: 128 },
    vocabulary: 152_064,
    lengths: [4096, 16_384],
    patches: 16_384,
    vision: Heads { q: 16, kv: 16, dim: 80 },
    targets: 4096,
    sequences: 256,
    keys: 1536,
    parameters: 1 << 28,
    scale: 1.0,
};

/// Tiny sizes for the emulator.
const TINY: Sizes = Sizes {
    dtype: DType::Bf16,
    tokens: 48,
    hidden: 64,
    intermediate: 128,
    heads: Heads { q: 4, kv: 2, dim: 16 },
    vocabulary: 300,
    lengths: [24, 48],
    patches: 128,
    vision: Heads { q: 2, kv: 2, dim: 16 },
    targets: 20,
    sequences: 3,
    keys: 256,
    parameters: 3000,
    scale: 1.0,
};

/// Sizes of the model with 22 million parameters, for the CPU.
const M22: Sizes = Sizes {
    dtype: DType::F32,
    tokens: 2048,
    hidden: 384,
    intermediate: 1536,
    heads: Heads { q: 6, kv: 2, dim: 64 },
    vocabulary: 4096,
    lengths: [64, 2048],
    patches: 2048,
    vision: Heads { q: 4, kv: 4, dim: 48 },
    targets: 2048,
    sequences: 256,
    keys: 512,
    parameters: 22_000_000,
    scale: 1.0,
};

impl Sizes {
    /// Returns the sizes for a kind of device. `scale` is the factor of the random numbers.
    pub fn of(kind: Kind, dtype: DType, scale: f32) -> Sizes {
        let sizes = match kind {
            Kind::Cuda => B7,
            Kind::Emu => TINY,
            Kind::Cpu => M22,
        };
        Sizes { dtype, scale, ..sizes }
    }
}

/// Maximum number of random values that are drawn for a tensor. A larger tensor repeats them.
pub const DRAWN: usize = 1 << 20;

/// Makes a tensor of normally distributed numbers with standard deviation `scale`.
pub fn random(dev: &mut Device, dtype: DType, dims: &[usize], scale: f32) -> Result<Tensor> {
    let tensor = dev.alloc(Region::Overlay, dtype, dims)?;
    fill(dev, tensor, scale)?;
    Ok(tensor)
}

/// Makes a tensor of normally distributed numbers, or of zeros with `--data zeros`.
pub fn normal(dev: &mut Device, s: Sizes, dims: &[usize]) -> Result<Tensor> {
    random(dev, s.dtype, dims, s.scale)
}

/// Fills a tensor with normally distributed numbers with standard deviation `scale`.
pub fn fill(dev: &mut Device, tensor: Tensor, scale: f32) -> Result<()> {
    match tensor.dtype {
        // Products with zero may be negative zeros, which have a bit that is set.
        _ if scale == 0.0 => dev.fill_zero(tensor),
        DType::Bf16 => repeat(dev, tensor, &normals::<half::bf16>(tensor.len(), scale)),
        _ => repeat(dev, tensor, &normals::<f32>(tensor.len(), scale)),
    }
}

pub fn zeros(dev: &mut Device, dtype: DType, dims: &[usize]) -> Result<Tensor> {
    dev.zeros(Region::Overlay, dtype, dims)
}

pub fn weight(dev: &mut Device, s: Sizes, n: usize, k: usize) -> Result<Weight> {
    let order = Order::of(dev);
    Ok(Weight::new(random(dev, s.dtype, &[order.len(s.dtype, n, k)], 0.02 * s.scale)?, order, n, k))
}

pub fn bytes(tensors: &[Tensor]) -> f64 {
    tensors.iter().map(|t| (t.len() * t.dtype.size()) as f64).sum()
}

/// Draws `len` normally distributed numbers with standard deviation `scale`, but at most [`DRAWN`] numbers.
pub fn normals<E: Elem>(len: usize, scale: f32) -> Vec<E> {
    let mut random = Random::new(1, Purpose::Init, len as u64);
    (0..len.min(DRAWN)).map(|_| E::from_f32(random.normal() * scale)).collect()
}

/// Fills a tensor by repeating `drawn`.
pub fn repeat<E: Elem>(dev: &mut Device, tensor: Tensor, drawn: &[E]) -> Result<()> {
    let flat = tensor.reshape(&[tensor.len()]);
    let first = flat.slice(0, flat.len().min(drawn.len()));
    dev.write(first, &drawn[..first.len()])?;
    // The filled part is copied on the device, which is much faster on a GPU than writes from the host.
    let mut done = first.len();
    while done < flat.len() {
        let more = done.min(flat.len() - done);
        dev.copy(flat.slice(0, more), flat.slice(done, done + more))?;
        done += more;
    }
    Ok(())
}

/// Makes the f32 gradient of a weight `[n, k]`. Also returns the number of bytes that an op moves for this gradient. On
/// a GPU, the read and the write are counted. On the CPU, the bytes are counted once.
pub fn gradient(dev: &mut Device, dtype: DType, n: usize, k: usize) -> Result<(Tensor, f64)> {
    let dw = zeros(dev, DType::F32, &[Order::of(dev).len(dtype, n, k)])?;
    let times = if dev.kind().is_gpu() { 2.0 } else { 1.0 };
    Ok((dw, times * bytes(&[dw])))
}

/// Returns `count` token ids of the vocabulary. Adjacent ids are different.
pub fn ids(s: Sizes, count: usize) -> Vec<u32> {
    (0..count).map(|t| (t * 7919 % s.vocabulary) as u32).collect()
}

/// Makes the arguments of the log-prob ops. All token ids are allowed, and the temperature is 1.
pub fn logprob_call(hidden: Tensor, w: &Weight, targets: Tensor) -> LogProbCall<'_> {
    LogProbCall { hidden, w, allowed: None, temperature: 1.0, targets }
}

#[cfg(test)]
mod tests {
    use super::*;
    use omr_runtime::device::{Isa, Plan};

    #[test]
    fn zeros_have_no_bit_that_is_set() {
        let mut dev = Device::cpu(&Plan::uniform(1 << 20), 1, Isa::detect()).unwrap();
        for (dtype, scale) in [(DType::F32, 0.0), (DType::Bf16, 0.0), (DType::Bf16, 1.0)] {
            let s = Sizes::of(Kind::Cpu, dtype, scale);
            let mut tensors = vec![normal(&mut dev, s, &[100]).unwrap(), weight(&mut dev, s, 32, 64).unwrap().data];
            tensors.push(random(&mut dev, DType::F32, &[100], 0.5 * s.scale).unwrap());
            for tensor in tensors {
                let are_zero = dev.read_bytes(tensor).unwrap().iter().all(|byte| *byte == 0);
                assert_eq!(are_zero, scale == 0.0, "{tensor:?}");
            }
        }
    }
}

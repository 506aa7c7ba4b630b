//! What the cases are made of: the sizes of a model, numbers, tensors and weights.

use crate::device::{Device, Kind, Region};
use crate::error::Result;
use crate::ops::attend::Heads;
use crate::ops::linear_logprob::Asked;
use crate::ops::matmul::{Order, Weight};
use crate::philox::{Purpose, Random};
use crate::tensor::{DType, Elem, Tensor};

/// The widths of a model, and how much of it an op works on at once.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Storage of weights and activations.
    pub dtype: DType,
    pub tokens: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: Heads,
    pub vocabulary: usize,
    /// Tokens of the sequences that attention is measured on.
    pub lengths: [usize; 2],
    /// Patches of the vision tower in windows of 64.
    pub patches: usize,
    /// Heads of the vision tower.
    pub vision: Heads,
    /// Targets of the log-probs.
    pub targets: usize,
    /// Sequences of a decode step.
    pub sequences: usize,
    /// Keys of each sequence of a decode step.
    pub keys: usize,
    /// Parameters of the optimizer's ops.
    pub parameters: usize,
}

/// The 7B model, on a GPU.
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
};

/// Sizes that the emulator computes in a moment.
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
};

/// The model of 22 million parameters, on the CPU.
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
};

impl Sizes {
    /// Returns the sizes that are measured on a device of this kind.
    pub fn of(kind: Kind, dtype: DType) -> Sizes {
        let sizes = match kind {
            Kind::Cuda => B7,
            Kind::Emu => TINY,
            Kind::Cpu => M22,
        };
        Sizes { dtype, ..sizes }
    }
}

/// Number of random values that are drawn. Larger tensors repeat them.
pub const DRAWN: usize = 1 << 20;

/// Returns a tensor of normal numbers of about `scale`.
pub fn random(dev: &mut Device, dtype: DType, dims: &[usize], scale: f32) -> Result<Tensor> {
    let tensor = dev.alloc(Region::Overlay, dtype, dims)?;
    fill(dev, tensor, scale)?;
    Ok(tensor)
}

/// Fills a tensor with normal numbers of about `scale`.
pub fn fill(dev: &mut Device, tensor: Tensor, scale: f32) -> Result<()> {
    match tensor.dtype {
        DType::Bf16 => repeat(dev, tensor, &normals::<half::bf16>(tensor.len(), scale)),
        _ => repeat(dev, tensor, &normals::<f32>(tensor.len(), scale)),
    }
}

pub fn zeros(dev: &mut Device, dtype: DType, dims: &[usize]) -> Result<Tensor> {
    dev.zeros(Region::Overlay, dtype, dims)
}

pub fn weight(dev: &mut Device, dtype: DType, n: usize, k: usize) -> Result<Weight> {
    let order = Order::of(dev);
    Ok(Weight { data: random(dev, dtype, &[order.len(dtype, n, k)], 0.02)?, order, n, k })
}

pub fn bytes(tensors: &[Tensor]) -> f64 {
    tensors.iter().map(|t| (t.len() * t.dtype.size()) as f64).sum()
}

/// Draws normally distributed numbers with standard deviation `scale` for a tensor of `len` elements, at most
/// [`DRAWN`].
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

/// Returns room for the f32 gradient of a weight `[n, k]`, and the bytes that an op moves of it: a GPU reads and writes it,
/// and of the CPU one of both counts.
pub fn gradient(dev: &mut Device, dtype: DType, n: usize, k: usize) -> Result<(Tensor, f64)> {
    let dw = zeros(dev, DType::F32, &[Order::of(dev).len(dtype, n, k)])?;
    let times = if dev.kind().is_gpu() { 2.0 } else { 1.0 };
    Ok((dw, times * bytes(&[dw])))
}

/// Returns `count` ids of a vocabulary, each another than its neighbours.
pub fn ids(s: Sizes, count: usize) -> Vec<u32> {
    (0..count).map(|t| (t * 7919 % s.vocabulary) as u32).collect()
}

/// Makes the log-prob arguments for all ids at temperature 1.
pub fn asked(hidden: Tensor, w: &Weight, targets: Tensor) -> Asked<'_> {
    Asked { hidden, w, allowed: None, temperature: 1.0, targets }
}

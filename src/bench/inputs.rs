//! What the cases are made of: numbers, tensors, weights, and the shapes of the 22M-parameter model.

use crate::device::{Device, Region};
use crate::error::Result;
use crate::ops::attend::Heads;
use crate::ops::linear_logprob::Asked;
use crate::ops::matmul::{Order, Weight};
use crate::philox::{Purpose, Random};
use crate::tensor::{DType, Elem, Tensor};

pub const TOKENS: usize = 2048;
pub const HIDDEN: usize = 384;
pub const HEADS: Heads = Heads { q: 6, kv: 2, dim: 64 };

/// Numbers drawn; larger tensors repeat them.
pub const DRAWN: usize = 1 << 20;

/// Normal numbers of about `scale`.
pub fn random(dev: &mut Device, dtype: DType, dims: &[usize], scale: f32) -> Result<Tensor> {
    fn fill<E: Elem>(dev: &mut Device, dims: &[usize], scale: f32) -> Result<Tensor> {
        let mut random = Random::new(1, Purpose::Init, dims.iter().product::<usize>() as u64);
        let data: Vec<E> = (0..dims.iter().product()).map(|_| E::from_f32(random.normal() * scale)).collect();
        dev.upload(Region::Overlay, &data, dims)
    }
    match dtype {
        DType::Bf16 => fill::<half::bf16>(dev, dims, scale),
        _ => fill::<f32>(dev, dims, scale),
    }
}

pub fn zeros(dev: &mut Device, dtype: DType, dims: &[usize]) -> Result<Tensor> {
    dev.zeros(Region::Overlay, dtype, dims)
}

pub fn weight(dev: &mut Device, dtype: DType, n: usize, k: usize) -> Result<Weight> {
    let order = Order::of(dev);
    Ok(Weight { data: random(dev, dtype, &[order.len(dtype, n, k)], 0.05)?, order, n, k })
}

pub fn bytes(tensors: &[Tensor]) -> f64 {
    tensors.iter().map(|t| (t.len() * t.dtype.size()) as f64).sum()
}

/// As many normal numbers of about `scale` as are drawn for a tensor of `len`.
pub fn normals<E: Elem>(len: usize, scale: f32) -> Vec<E> {
    let mut random = Random::new(1, Purpose::Init, len as u64);
    (0..len.min(DRAWN)).map(|_| E::from_f32(random.normal() * scale)).collect()
}

/// Fills a tensor with `drawn`, again and again.
pub fn repeat<E: Elem>(dev: &mut Device, tensor: Tensor, drawn: &[E]) -> Result<()> {
    let flat = tensor.reshape(&[tensor.len()]);
    let first = flat.slice(0, flat.len().min(drawn.len()));
    dev.write(first, &drawn[..first.len()])?;
    // What is there already is copied: a card does that in no time, the host does not.
    let mut done = first.len();
    while done < flat.len() {
        let more = done.min(flat.len() - done);
        dev.copy(flat.slice(0, more), flat.slice(done, done + more))?;
        done += more;
    }
    Ok(())
}

/// A tensor of normal numbers of about `scale`.
pub fn normal<E: Elem>(dev: &mut Device, dims: &[usize], scale: f32) -> Result<Tensor> {
    let tensor = dev.alloc(Region::Overlay, E::DTYPE, dims)?;
    repeat(dev, tensor, &normals::<E>(tensor.len(), scale))?;
    Ok(tensor)
}

/// All ids, at temperature 1.
pub fn asked(hidden: Tensor, w: &Weight, targets: Tensor) -> Asked<'_> {
    Asked { hidden, w, allowed: None, temperature: 1.0, targets }
}

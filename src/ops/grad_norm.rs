//! The global gradient norm, the clip factor and whether all is finite, left on the device for the update.

use crate::device::{Device, Parts, cpu_kernel};
use crate::error::Result;
use crate::ops::{check, lanes};
use crate::tensor::{DType, Tensor};

/// Elements summed in sixteen f32 lanes before the sum goes on in f64: 256 terms a lane, so a relative error below
/// 256 * 2^-24 = 1.5e-5 in the worst case.
const BLOCK: usize = 4096;

/// Blocks of one work item.
const BLOCKS: usize = 16;

/// out `[3]` f32 = norm over all of `grads` (f32, any shapes); the factor min(1, max_norm / (norm + 1e-6)) of
/// `torch.nn.utils.clip_grad_norm_`; 1 when the norm is finite, else 0 (the factor is then 0 too). The order of
/// summation depends on the shapes alone. `out.slice(1, 3)` is what `adamw::step` takes. Errors on other shapes.
pub fn fwd(dev: &mut Device, grads: &[Tensor], max_norm: f32, out: Tensor) -> Result<()> {
    const OP: &str = "grad_norm::fwd";
    check::tensor(OP, "out", out, DType::F32, &[3])?;
    for g in grads {
        check::flat(OP, "grads", *g, DType::F32, g.len())?;
    }
    let Some(cpu) = dev.cpu_only(OP)? else { return Ok(()) };
    let views: Vec<&[f32]> = grads.iter().map(|g| cpu.memory.view(g.span()).of::<f32>()).collect();
    let items: Vec<&[f32]> = views.iter().flat_map(|g| g.chunks(BLOCK * BLOCKS)).collect();
    let mut sums = vec![0.0f64; items.len()];
    let parts = Parts::new(&mut sums, 1);
    cpu.pool.run(items.len(), |i| {
        parts.take(i)[0] = items[i].chunks(BLOCK).map(|b| f64::from(square_sum(cpu.isa, b))).sum();
    });
    let norm = sums.iter().sum::<f64>().sqrt() as f32;
    let finite = norm.is_finite();
    let factor = if finite { (max_norm / (norm + 1e-6)).min(1.0) } else { 0.0 };
    let flag = if finite { 1.0 } else { 0.0 };
    cpu.memory.view_mut(out.span()).of::<f32>().copy_from_slice(&[norm, factor, flag]);
    Ok(())
}

cpu_kernel! {
    fn square_sum(x: &[f32]) -> f32 {
        lanes::dot(x, x)
    }
}

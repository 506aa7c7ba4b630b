//! Selection of the kernel variants (wgmma or `mma.sync`) of products and attention on a GPU of compute capability 9.0.

pub mod candidates;
pub mod epilogues;

use super::{attention, linear, paged_attention};
use crate::device::WgmmaKernels::{self, Attention, AttentionBwd, Products};
use crate::device::{Device, KernelVariant, Kind};
use omr_base::error::Result;

/// Returns the bytes of [`Region::Workspace`](crate::device::Region) that [`select_wgmma`] needs on a device of this
/// kind.
pub fn start_check_bytes(kind: Kind) -> usize {
    if kind == Kind::Cuda { 256 << 20 } else { 32 << 20 }
}

/// Switches `dev` to the wgmma variants of products, attention and attention's backward. Each has a start check.
/// Kernels that fail it use `mma.sync`, and the function returns a message about each of them. Returns an error if the
/// device does not support wgmma.
pub fn select_wgmma(dev: &mut Device) -> Result<Vec<String>> {
    dev.use_variant(KernelVariant::Wgmma)?;
    let attention = [80, 128].into_iter().flat_map(|dim| [Attention(dim), AttentionBwd(dim)]);
    let mut faults = Vec::new();
    for kernels in std::iter::once(Products).chain(attention) {
        // Kernels that need refused kernels are not checked.
        let fault = if dev.uses_wgmma(kernels) { wgmma_fault(dev, kernels)? } else { None };
        if let Some(fault) = fault {
            dev.refuse_wgmma(kernels);
            let verb = if kernels == Products { "use" } else { "uses" };
            faults.push(format!("{kernels} {verb} mma.sync instead of wgmma: {fault}"));
        }
    }
    Ok(faults)
}

/// Runs the start check of `kernels`. The device must use wgmma, and those kernels that `kernels` need must have passed
/// their check. Returns a description of the fault, or `None` if there is none.
pub fn wgmma_fault(dev: &mut Device, kernels: WgmmaKernels) -> Result<Option<String>> {
    if let Some(fault) = dev.driver().and_then(|driver| driver.compile_fault(kernels)) {
        return Ok(Some(fault));
    }
    let fault = match kernels {
        Products => linear::wgmma_fault(dev)?,
        Attention(dim) => attention::wgmma_fault(dev, dim)?,
        AttentionBwd(dim) => attention::wgmma_bwd_fault(dev, dim)?,
    };
    match (fault, kernels) {
        (None, Products) => match epilogues::fault(dev)? {
            None => candidates::candidates_fault(dev),
            fault => Ok(fault),
        },
        (None, Attention(dim)) => paged_attention::wgmma_fault(dev, dim),
        (fault, _) => Ok(fault),
    }
}

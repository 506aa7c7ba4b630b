//! Selection of the kernel variants (wgmma or `mma.sync`) of products and attention on a GPU of compute capability 9.0.

use super::{attention, linear, paged_attention};
use crate::device::{Device, KernelVariant};
use crate::error::Result;

/// Bytes of [`Region::Workspace`](crate::device::Region) that [`select_wgmma`] needs. Most of them hold the states of a
/// prefill's chunks, for each CTA that a GPU with 132 multiprocessors runs at a time.
pub const START_CHECK_BYTES: usize = 12 << 20;

/// Switches `dev` to the wgmma variants of products, attention and attention's backward. Each has a start check, run in
/// this order. If a check fails, that variant and the following variants use `mma.sync`, and the function returns a
/// message about the failure. Returns an error if the device does not support wgmma.
pub fn select_wgmma(dev: &mut Device) -> Result<Option<String>> {
    dev.use_variant(KernelVariant::Wgmma)?;
    if let Some(fault) = linear::wgmma_fault(dev)? {
        dev.refuse_wgmma();
        return Ok(Some(format!("matrix products use mma.sync instead of wgmma: {fault}")));
    }
    let fault = match attention::wgmma_fault(dev)? {
        None => paged_attention::wgmma_fault(dev)?,
        fault => fault,
    };
    if let Some(fault) = fault {
        dev.refuse_wgmma_attention();
        return Ok(Some(format!("attention uses mma.sync instead of wgmma: {fault}")));
    }
    let fault = attention::wgmma_bwd_fault(dev)?;
    Ok(fault.map(|fault| {
        dev.refuse_wgmma_attention_bwd();
        format!("the backward pass of attention uses mma.sync instead of wgmma: {fault}")
    }))
}

//! Which bodies of products and attention a run on a card of compute capability 9.0 takes.

use super::{attention, linear, paged_attention};
use crate::device::{Body, Device};
use crate::error::Result;

/// Bytes of [`Region::Workspace`](crate::device::Region) that [`take_wgmma`] takes: most of all the states of a prefill's
/// chunks, for each CTA that a card of 132 multiprocessors holds.
pub const AGREEMENT_BYTES: usize = 12 << 20;

/// From here on products and attention run by wgmma on `dev`, which has it, as far as they prove right there; where they
/// do not the line that says so. Errors where there is no wgmma.
pub fn take_wgmma(dev: &mut Device) -> Result<Option<String>> {
    dev.use_body(Body::Wgmma)?;
    if let Some(fault) = linear::wgmma_fault(dev)? {
        dev.refuse_wgmma();
        return Ok(Some(format!("matrix products run by mma.sync, not by wgmma: {fault}")));
    }
    let fault = match attention::wgmma_fault(dev)? {
        None => paged_attention::wgmma_fault(dev)?,
        fault => fault,
    };
    if let Some(fault) = fault {
        dev.refuse_wgmma_attention();
        return Ok(Some(format!("attention runs by mma.sync, not by wgmma: {fault}")));
    }
    let fault = attention::wgmma_bwd_fault(dev)?;
    Ok(fault.map(|fault| {
        dev.refuse_wgmma_attention_bwd();
        format!("attention's backward runs by mma.sync, not by wgmma: {fault}")
    }))
}

//! Checks that both kernel variants of a GPU of compute capability 9.0 have bitwise identical results, for a matrix
//! product and for attention.

use super::case::{Case, JobSize, label};
use super::inputs::{Sizes, random, weight, zeros};
use omr_base::error::{Error, Result};
use omr_runtime::device::{Device, KernelVariant, Kind};
use omr_runtime::ops::{attention, linear};
use omr_runtime::tensor::DType;

/// Head size of the attention.
const DIM: usize = 128;

/// Makes the case. A repetition returns an error if a bit differs, or if the device has only one variant.
pub fn variants(dev: &mut Device) -> Result<Case> {
    let [tokens, columns, terms] = if dev.kind() == Kind::Cuda { [2600, 1024, 3584] } else { [150, 320, 1088] };
    let sizes = Sizes::of(dev.kind(), DType::Bf16, 1.0);
    let (x, w) = (random(dev, DType::Bf16, &[tokens, terms], 1.0)?, weight(dev, sizes, columns, terms)?);
    let sums = zeros(dev, DType::F32, &[tokens, columns])?;
    let product = move |dev: &mut Device| {
        linear::fwd_f32(dev, x, &w, sums)?;
        Ok::<_, Error>(dev.read::<f32>(sums)?.into_iter().map(f32::to_bits).collect::<Vec<u32>>())
    };
    Ok(Case {
        name: "variants",
        shape: format!("[{tokens}, {terms}] x [{columns}, {terms}], attention with heads of {DIM}"),
        dtype: label(DType::Bf16),
        flops: 0.0,
        bytes: 0.0,
        job: Some(JobSize { parameters: 0, tokens: 0, pages: None }),
        run: Box::new(move |dev| {
            let Some(selected) = dev.variant() else { return product(dev).map(drop) };
            dev.use_variant(KernelVariant::Mma)?;
            let sums = product(dev)?;
            dev.use_variant(KernelVariant::Wgmma)?;
            let differing = product(dev)?.iter().zip(&sums).filter(|(a, b)| a != b).count();
            let fault = match differing {
                0 => attention::wgmma_fault(dev, DIM)?,
                n => Some(format!("{n} of {} sums of a product differ bitwise", sums.len())),
            };
            dev.use_variant(selected)?;
            fault.map_or(Ok(()), |fault| Err(Error::Failed(format!("wgmma and mma.sync: {fault}"))))
        }),
    })
}

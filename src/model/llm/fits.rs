//! Checks that a model fits into memory without training, before anything is loaded.

use omr_base::error::Result;
use omr_base::observe::bytes;
use omr_runtime::device::{Plan, Target};
use omr_runtime::tensor::DType;

/// Counts the memory of a job with weights of type `dtype`. `count` returns the job's limits and its memory.
/// Errors if the memory exceeds that of `target`. The error states what bf16 saves, if the weights are f32, and suggests
/// to lower the settings named in `lower`.
pub fn within<C>(
    target: Target,
    dtype: DType,
    lower: &str,
    count: impl Fn(DType) -> Result<(C, Plan)>,
) -> Result<(C, Plan)> {
    let (config, memory) = count(dtype)?;
    if target.memory.is_none_or(|budget| memory.total() <= budget) {
        return Ok((config, memory));
    }
    let mut lower = lower.to_owned();
    if dtype == DType::F32 {
        let need = count(DType::Bf16)?.1.total() as u64;
        let saved = bytes((memory.total() as u64).saturating_sub(need));
        lower = format!("dtype to bf16, which needs {} and saves {saved}, or {lower}", bytes(need));
    }
    memory.within(target.memory, &lower)?;
    Ok((config, memory))
}

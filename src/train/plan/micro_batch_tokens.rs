//! Chooses the size of micro-batches of fine-tuning that leaves it to omr (`micro_batch_tokens: auto`).

use std::sync::Arc;

use super::assumptions::H200;
use super::faster::WORTH;
use super::layout::GpuLayout;
use super::rounds::{PassTimes, Rounds};
use crate::training::sft::{LOWER, SMALLEST, SftJob, sequences};
use crate::training::{levels, plan};
use omr_base::config::{MicroBatchTokens, SftConfig};
use omr_base::error::Result;
use omr_data::rows::Index;
use omr_model::nn::ModelConfig;
use omr_runtime::device::Target;
use omr_runtime::ranks::Ranks as _;

/// Returns the size of micro-batches of `config`: its own, or for `auto` the one with the least arithmetic among
/// `packing_length` and the powers of two below it that fit into `target`. It depends on the rows and the memory, and not on
/// the speed of a machine. Errors if none fits.
pub fn micro_batch_tokens(
    config: &SftConfig,
    model: &ModelConfig,
    index: &Arc<Index>,
    target: Target,
    layout: GpuLayout,
) -> Result<usize> {
    if let MicroBatchTokens::AtMost(tokens) = config.micro_batch_tokens {
        return Ok(tokens);
    }
    let whole = config.packing_length;
    let (mut best, mut refused): (Option<(f64, usize)>, Result<usize>) = (None, Ok(whole));
    for tokens in std::iter::once(whole).chain(levels::smaller(whole, SMALLEST)) {
        let config = &SftConfig { micro_batch_tokens: tokens.into(), ..config.clone() };
        let rounds = Rounds::new(config, model, index, layout.count)?;
        let classes = sequences(&rounds.classes);
        let planned = plan::sft(model.clone(), config, target, layout.fullest, rounds.most_micro_batches, &classes)?;
        match planned.check(LOWER) {
            Err(error) => refused = Err(error),
            Ok(planned) => {
                let ceilings = H200.gpu.ceilings();
                let (time, _) =
                    PassTimes::new(target, ceilings, None, config, model, &layout, &planned.ladder)?.update(&rounds)?;
                // Still smaller micro-batches recompute no less and have more passes. Sizes are rounded, so a smaller
                // difference says nothing.
                if best.is_some_and(|(least, _)| time.floor.seconds >= WORTH * least) {
                    break;
                }
                best = Some((time.floor.seconds, tokens));
            }
        }
    }
    best.map_or(refused, |(_, tokens)| Ok(tokens))
}

/// Chooses the size of micro-batches of a job that leaves it to omr, for a device with the memory of `target`.
pub fn choose_micro_batch_tokens(job: &mut SftJob, target: Target) -> Result<()> {
    let (config, common) = (&job.config, &job.common);
    let target = target.within(plan::gib_to_bytes(config.training.max_memory_gib));
    let (optimizer, size) = (config.optimizer.clone(), common.ranks.size());
    let owned = plan::owned(&common.model_config, config.dtype, optimizer, target, size)?;
    let layout = GpuLayout::new(config.training.lanes(), &owned);
    let tokens = micro_batch_tokens(config, &common.model_config, &common.index, target, layout)?;
    job.config.micro_batch_tokens = tokens.into();
    Ok(())
}

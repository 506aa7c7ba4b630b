//! Policy loss on a device: inputs, outputs and accumulated statistics are tensors.

use super::batch::Batch;
use super::compute::compute;
use super::loss::{Denominators, PolicyLoss};
use super::stats::{STATS, Sums};
use crate::device::{Cpu, Device, Gpu, Launch, Region, params};
use crate::ops::check;
use crate::ops::cta::THREADS;
use crate::tensor::{DType, Tensor};
use omr_base::choice::{KlLossType, LossAggMode, LossMode};
use omr_base::error::Result;

const OP: &str = "policy_loss::fwd";

/// A mini-batch or a part of one on the device: R tokens in S packed sequences.
#[derive(Clone, Copy, Debug)]
pub struct Packed {
    /// Cumulative sequence lengths, u32 `[S+1]`, from 0 to R.
    pub cu_seqlens: Tensor,
    /// Log-probs under the policy that sampled the tokens, f32 `[R]`.
    pub old_log_prob: Tensor,
    /// Log-probs under the reference policy, f32 `[R]`; required with a KL term.
    pub ref_log_prob: Option<Tensor>,
    /// Log-probs under the teacher, f32 `[R]`; required with distillation.
    pub teacher_log_prob: Option<Tensor>,
    /// Advantage of each sequence, f64 `[S]`.
    pub advantages: Tensor,
}

/// Allocates a `stats` tensor for [`fwd`], f64 `[STATS]`, that represents no tokens.
pub fn stats(dev: &mut Device, region: Region) -> Result<Tensor> {
    dev.upload(region, &Sums::NONE.0, &[STATS])
}

/// Resets `stats` to represent no tokens. `stats` may have n * [`STATS`] elements: the statistics of n passes, one
/// after the other.
pub fn reset(dev: &mut Device, stats: Tensor) -> Result<()> {
    dev.write(stats, &Sums::NONE.0.repeat(stats.len() / STATS))
}

/// Tensors of a [`fwd`] call, except those of its batch.
#[derive(Clone, Copy, Debug)]
pub struct Io {
    /// Log-probs under the policy that is trained, f32 `[R]`.
    pub log_prob: Tensor,
    /// Entropies of the policy that is trained, f32 `[R]`. If given, they are part of the statistics.
    pub entropy: Option<Tensor>,
    /// Gradient of the loss with respect to `log_prob`, f32 `[R]`, overwritten.
    pub dlog_prob: Tensor,
    /// Gradient of the loss with respect to `entropy`, f32 `[R]`, overwritten. `None` if it is not needed.
    pub dentropy: Option<Tensor>,
    /// Statistics, f64 `[STATS]`. The statistics of this batch are added to them (see [`Sums`]).
    pub stats: Tensor,
}

/// Computes the loss of `batch` with the mini-batch's `denominators`. Does not wait for the device. Returns an error
/// for other shapes and if log-probs of the reference or of the teacher are missing.
pub fn fwd(dev: &mut Device, config: &PolicyLoss, denominators: &Denominators, batch: &Packed, io: Io) -> Result<()> {
    let Io { log_prob, entropy, dlog_prob, dentropy, stats } = io;
    let (tokens, rows) = (log_prob.len(), batch.advantages.len());
    check::tensor(OP, "log_prob", log_prob, DType::F32, &[tokens])?;
    check::tensor(OP, "cu_seqlens", batch.cu_seqlens, DType::U32, &[rows + 1])?;
    check::tensor(OP, "advantages", batch.advantages, DType::F64, &[rows])?;
    check::tensor(OP, "old_log_prob", batch.old_log_prob, DType::F32, &[tokens])?;
    check::optional(OP, "ref_log_prob", batch.ref_log_prob, DType::F32, &[tokens])?;
    check::optional(OP, "teacher_log_prob", batch.teacher_log_prob, DType::F32, &[tokens])?;
    check::optional(OP, "entropy", entropy, DType::F32, &[tokens])?;
    check::tensor(OP, "dlog_prob", dlog_prob, DType::F32, &[tokens])?;
    check::optional(OP, "dentropy", dentropy, DType::F32, &[tokens])?;
    check::tensor(OP, "stats", stats, DType::F64, &[STATS])?;
    let reference = batch.ref_log_prob.is_some() || config.kl_loss.is_none();
    check::that(OP, reference, "ref_log_prob with a KL term", "none")?;
    let teacher = batch.teacher_log_prob.is_some() || config.distillation.is_none();
    check::that(OP, teacher, "teacher_log_prob with distillation", "none")?;
    dev.scope(Region::Workspace, |dev| {
        let on_gpu = if dev.kind().is_gpu() { rows } else { 0 };
        let partials = dev.alloc(Region::Workspace, DType::F64, &[on_gpu, STATS])?;
        dev.op(OP).run(
            |cpu| on_cpu(cpu, config, denominators, batch, io),
            |gpu| launch(gpu, config, denominators, batch, io, partials),
        )
    })
}

fn on_cpu(cpu: Cpu<'_>, config: &PolicyLoss, denominators: &Denominators, batch: &Packed, io: Io) -> Result<()> {
    // An absent tensor is passed as an empty slice of a present one.
    let [reference, teacher, entropy] =
        [batch.ref_log_prob, batch.teacher_log_prob, io.entropy].map(|t| t.unwrap_or(io.log_prob.slice(0, 0)));
    let dentropy = io.dentropy.unwrap_or(io.dlog_prob.slice(0, 0));
    let inputs = [io.log_prob, entropy, batch.old_log_prob, reference, teacher, batch.cu_seqlens, batch.advantages];
    let ([d, dh, total], [lp, h, old, reference, teacher, cu, advantages]) =
        cpu.memory.tensors([io.dlog_prob, dentropy, io.stats], inputs);
    let host = Batch {
        cu_seqlens: cu.of::<u32>(),
        old_log_prob: old.of::<f32>(),
        ref_log_prob: batch.ref_log_prob.map(|_| reference.of::<f32>()),
        teacher_log_prob: batch.teacher_log_prob.map(|_| teacher.of::<f32>()),
        advantages: advantages.of::<f64>(),
    };
    let h = io.entropy.map(|_| h.of::<f32>());
    let dh = io.dentropy.map(|_| dh.of::<f32>());
    let part = compute(config, denominators, &host, lp.of::<f32>(), d.of::<f32>(), h, dh)?;
    let total = total.of::<f64>();
    let mut all = Sums::of(total);
    all += part;
    total.copy_from_slice(&all.0);
    Ok(())
}

/// Returns the value of `policy_loss::LossMode` in the kernel.
fn loss_mode(mode: LossMode) -> i32 {
    match mode {
        LossMode::Vanilla => 0,
        LossMode::Gspo => 1,
        LossMode::Cispo => 2,
    }
}

/// Returns the value of `policy_loss::AggMode` in the kernel.
fn agg_mode(mode: LossAggMode) -> i32 {
    match mode {
        LossAggMode::TokenMean => 0,
        LossAggMode::SeqMeanTokenSum => 1,
        LossAggMode::SeqMeanTokenMean => 2,
        // The kernel has no mode of its own for a sum: `loss_scale_factor` is 1 then.
        LossAggMode::SeqMeanTokenSumNorm | LossAggMode::TokenSum => 3,
    }
}

/// Returns the value of `policy_loss::KlType` in the kernel, where 0 means no KL term.
fn kl_type(kind: KlLossType) -> i32 {
    match kind {
        KlLossType::Kl => 1,
        KlLossType::Abs => 2,
        KlLossType::Mse => 3,
        KlLossType::LowVarKl => 4,
    }
}

fn launch(
    mut gpu: Gpu<'_>,
    config: &PolicyLoss,
    denominators: &Denominators,
    batch: &Packed,
    io: Io,
    partials: Tensor,
) -> Result<()> {
    // For each warp: its sums and a log ratio.
    const SMEM: usize = (STATS + 1) * THREADS / 32 * 8;
    check::count(OP, "tokens", io.log_prob.len())?;
    let rows = batch.advantages.len();
    let is_sum = config.loss_agg_mode == LossAggMode::TokenSum;
    let args = params!(policy_loss::Args {
        log_prob: io.log_prob,
        old_log_prob: batch.old_log_prob,
        ref_log_prob: batch.ref_log_prob,
        teacher_log_prob: batch.teacher_log_prob.filter(|_| config.distillation.is_some()),
        entropy: io.entropy,
        cu_seqlens: batch.cu_seqlens,
        advantages: batch.advantages,
        dlog_prob: io.dlog_prob,
        dentropy: io.dentropy,
        partials,
        low: 1.0 - config.clip_ratio_low,
        high: 1.0 + config.clip_ratio_high,
        clip_ratio_c: config.clip_ratio_c.filter(|_| config.loss_mode == LossMode::Vanilla).unwrap_or(f64::INFINITY),
        kl_loss_coef: config.kl_loss.map_or(0.0, |kl| kl.kl_loss_coef),
        distillation_coef: config.distillation.map_or(0.0, |term| term.coef),
        loss_max_clamp: config.distillation.and_then(|term| term.loss_max_clamp).unwrap_or(f64::INFINITY),
        entropy_coeff: config.entropy_coeff,
        batch_num_tokens: denominators.batch_num_tokens,
        num_seqs: denominators.num_seqs,
        loss_scale_factor: if is_sum { 1.0 } else { denominators.loss_scale_factor },
        loss_mode: loss_mode(config.loss_mode),
        pg_agg_mode: agg_mode(config.pg_agg_mode()),
        loss_agg_mode: agg_mode(config.loss_agg_mode),
        kl_loss_type: config.kl_loss.map_or(0, |kl| kl_type(kl.kl_loss_type)),
    });
    gpu.launch("policy_loss", "policy_loss_rows", check::launch(OP, rows, THREADS, SMEM)?, args)?;
    let args = params!(policy_loss::AddArgs { partials, stats: io.stats, rows: rows as i32 });
    gpu.launch("policy_loss", "policy_loss_add", Launch::new([1, 1, 1], 32, 0), args)
}

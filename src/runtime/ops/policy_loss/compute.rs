//! Policy loss of a batch in host memory.

use super::batch::{Batch, Real};
use super::loss::{Denominators, PolicyLoss, rows};
use super::row;
use super::stats::Sums;
use crate::ops::check;
use omr_base::error::Result;

/// Computes the loss of `batch` with the mini-batch's `denominators`, and writes its gradient to `dlog_prob` `[T]`.
/// `entropy` holds the entropies `[T]`, and `dentropy` receives their gradient. The results of micro-batches can be
/// added. Returns an error if lengths do not fit or log-probs of the reference or of the teacher are missing.
pub fn compute<F: Real>(
    config: &PolicyLoss,
    denominators: &Denominators,
    batch: &Batch<'_, F>,
    log_prob: &[F],
    dlog_prob: &mut [F],
    entropy: Option<&[F]>,
    mut dentropy: Option<&mut [F]>,
) -> Result<Sums> {
    let shape = |what: &str, want: usize, got: usize| {
        check::that("policy_loss", want == got, format!("{what} {want}"), got.to_string())
    };
    let (t, s) = (log_prob.len(), batch.advantages.len());
    shape("length of cu_seqlens", s + 1, batch.cu_seqlens.len())?;
    shape("first row border", 0, batch.cu_seqlens[0] as usize)?;
    shape("last row border", t, batch.cu_seqlens[s] as usize)?;
    if let Some(w) = batch.cu_seqlens.windows(2).find(|w| w[0] > w[1]) {
        return check::fail("policy_loss", "ascending cu_seqlens", format!("{w:?}"));
    }
    let reference = if config.kl_loss.is_some() { 0 } else { t };
    shape("length of dlog_prob", t, dlog_prob.len())?;
    shape("length of old_log_prob", t, batch.old_log_prob.len())?;
    shape("length of ref_log_prob", t, batch.ref_log_prob.map_or(reference, <[F]>::len))?;
    let teacher = if config.distillation.is_some() { 0 } else { t };
    shape("length of teacher_log_prob", t, batch.teacher_log_prob.map_or(teacher, <[F]>::len))?;
    shape("length of entropy", t, entropy.map_or(t, <[F]>::len))?;
    shape("length of dentropy", t, dentropy.as_deref().map_or(t, <[F]>::len))?;
    let (mut sums, mut lanes) = (Sums::NONE, Vec::new());
    let row = row::LossRows { config, denominators, batch, log_prob, entropy };
    for (i, at) in rows(batch.cu_seqlens).enumerate() {
        let d = &mut dlog_prob[at.clone()];
        let dh = dentropy.as_deref_mut().map(|d| &mut d[at]);
        sums += row.sums(i, d, dh, &mut lanes);
    }
    Ok(sums)
}

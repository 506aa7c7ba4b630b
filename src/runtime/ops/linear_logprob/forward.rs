//! Forward: computes logits tile by tile and folds them to log-probs.

use super::call::{LogProbCall, Outs, ROWS, check_logits, check_targets, checked};
use super::gpu;
use super::logits::{Allowed, Fold, Logits, PARTIAL, Scale, inverse_temperature, multiply, segments};
use crate::device::{Cpu, Device, Parts, Region};
use crate::ops::check::{by_dtype, moved};
use crate::ops::dequantize::widened;
use crate::ops::matmul::{Cells, PANEL, panel_count};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Computes the log-probs of the targets. A target that is not allowed has log-prob minus infinity. A target of V or
/// more is an error on the CPU. On a GPU, the log-prob of such a target is NaN.
pub fn fwd(dev: &mut Device, logprob_call: LogProbCall<'_>, outs: Outs) -> Result<()> {
    const OP: &str = "linear_logprob::fwd";
    let (LogProbCall { hidden, w, .. }, Outs { log_prob, lse, entropy, logits }) = (logprob_call, outs);
    let per_token = [("log_prob", Some(log_prob)), ("lse", Some(lse)), ("entropy", entropy)];
    checked(OP, logprob_call, &per_token)?;
    let t = hidden.rows();
    check_logits(OP, dev, logits, t, w.n)?;
    dev.note_product("linear_logprob", [t, w.n, w.k], moved(&[hidden]) + w.bytes());
    dev.scope(Region::Workspace, |dev| {
        let width = segments(w.n) * if dev.kind().is_gpu() { gpu::PARTIAL } else { PARTIAL };
        let partials = dev.alloc(Region::Workspace, DType::F32, &[t, width])?;
        if !dev.kind().is_gpu() {
            return dev.op(OP).run(|cpu| on_cpu(OP, cpu, logprob_call, outs, partials), |_| Ok(()));
        }
        widened(dev, w, |dev, w| {
            dev.op(OP).run(|_| (), |gpu| gpu::fwd(gpu, LogProbCall { w, ..logprob_call }, outs, partials))
        })
    })
}

fn on_cpu(op: &'static str, cpu: Cpu<'_>, call: LogProbCall<'_>, outs: Outs, partials: Tensor) -> Result<()> {
    let LogProbCall { hidden, w, allowed, temperature, targets } = call;
    let Outs { log_prob, lse, entropy, logits } = outs;
    let (t, width, has_entropy, none) = (hidden.rows(), partials.cols(), entropy.is_some(), lse.slice(0, 0));
    let ins = [hidden, w.data, w.scales(), targets, allowed.unwrap_or(targets.slice(0, 0))];
    let outs = [log_prob, lse, entropy.unwrap_or(none), logits.unwrap_or(none), partials];
    let ([log_prob, lse, entropy, logits_view, partials], [hidden_view, w_view, scales, targets, bitmap]) =
        cpu.memory.tensors(outs, ins);
    let (targets, log_prob, partials) = (targets.of::<u32>(), log_prob.of::<f32>(), partials.of::<f32>());
    check_targets(op, targets, w.n)?;
    let epilogue = Logits {
        allowed: Allowed { vocab: w.n, bitmap: allowed.map(|_| bitmap.of()) },
        scale: Scale::All(inverse_temperature(temperature)),
        entropy: has_entropy,
        // `log_prob` holds the target's logit until the logsumexp is known.
        targets: Some((targets, Cells::new(log_prob, 1))),
        partials: Cells::new(partials, width),
        logits: logits.map(|_| Cells::new(logits_view.of(), panel_count(w.n) * PANEL)),
    };
    by_dtype!(hidden.dtype, multiply(cpu.pool, cpu.isa, hidden_view, t, w, [w_view, scales], &epilogue));
    let (log_prob, lse) = (Parts::new(log_prob, ROWS), Parts::new(lse.of::<f32>(), ROWS));
    let entropy = Parts::new(entropy.of::<f32>(), ROWS);
    cpu.pool.run(log_prob.count(), |i| {
        let (log_prob, lse) = (log_prob.take(i), lse.take(i));
        let mut entropy = if entropy.count() > 0 { entropy.take(i) } else { &mut [] }.iter_mut();
        for (r, (log_prob, lse)) in log_prob.iter_mut().zip(lse).enumerate() {
            let row = i * ROWS + r;
            let fold = Fold::of(&partials[row * width..(row + 1) * width]);
            *lse = fold.logsumexp();
            *log_prob -= *lse;
            if let Some(entropy) = entropy.next() {
                *entropy = fold.entropy();
            }
        }
    });
    Ok(())
}

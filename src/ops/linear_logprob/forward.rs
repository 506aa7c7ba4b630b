//! Forward: computes logits tile by tile and folds them to log-probs.

use half::bf16;

use super::call::{LogProbCall, Outs, ROWS, check_logits, check_targets, checked};
use super::gpu;
use super::logits::{Allowed, Fold, Logits, PARTIAL, Scale, inverse_temperature, segments};
use crate::device::{Device, On, Parts, Region};
use crate::error::Result;
use crate::ops::cost::moved;
use crate::ops::matmul::{self, Cells, PANEL, Product, panel_count};
use crate::tensor::DType;

/// Computes the log-probs of the targets. A target that is not allowed has log-prob minus infinity. A target of V or
/// more is an error on the CPU. On a GPU, the log-prob of such a target is NaN.
pub fn fwd(dev: &mut Device, logprob_call: LogProbCall<'_>, outs: Outs) -> Result<()> {
    const OP: &str = "linear_logprob::fwd";
    let LogProbCall { hidden, w, allowed, temperature, targets } = logprob_call;
    let Outs { log_prob, lse, entropy, logits } = outs;
    let per_token = [("log_prob", Some(log_prob)), ("lse", Some(lse)), ("entropy", entropy)];
    let dtype = checked(OP, logprob_call, &per_token)?;
    let t = hidden.rows();
    check_logits(OP, dev, logits, t, w.n)?;
    dev.note_product("linear_logprob", [t, w.n, w.k], moved(&[hidden, w.data]));
    let mark = dev.mark(Region::Workspace);
    let partials = if dev.kind().is_gpu() {
        gpu::partials(dev, t, w.n)?
    } else {
        dev.alloc(Region::Workspace, DType::F32, &[t, segments(w.n) * PARTIAL])?
    };
    let wants_entropy = entropy.is_some();
    let mut body = || -> Result<()> {
        let cpu = match dev.on() {
            On::Count => return Ok(()),
            On::Cpu(cpu) => cpu,
            On::Gpu(gpu) => return gpu::fwd(OP, gpu, logprob_call, outs, partials),
        };
        let ins = [hidden, w.data, targets, allowed.unwrap_or(targets.slice(0, 0))];
        let none = lse.slice(0, 0);
        let outs = [log_prob, lse, entropy.unwrap_or(none), logits.unwrap_or(none), partials];
        let ([log_prob, lse, entropy, logits_view, partials], [hidden_view, w_view, targets, bitmap]) =
            cpu.memory.tensors(outs, ins);
        let (targets, log_prob, partials) = (targets.of::<u32>(), log_prob.of::<f32>(), partials.of::<f32>());
        check_targets(OP, targets, w.n)?;
        let width = segments(w.n) * PARTIAL;
        let epilogue = Logits {
            allowed: Allowed { vocab: w.n, bitmap: allowed.map(|_| bitmap.of()) },
            scale: Scale::All(inverse_temperature(temperature)),
            entropy: wants_entropy,
            // `log_prob` holds the target's logit until the logsumexp is known.
            targets: Some((targets, Cells::new(log_prob, 1))),
            partials: Cells::new(partials, width),
            logits: logits.map(|_| Cells::new(logits_view.of(), panel_count(w.n) * PANEL)),
        };
        match dtype {
            DType::Bf16 => {
                let product = Product::rows::<bf16>(hidden_view.of(), t, w.k, w_view.of(), w.n);
                matmul::run(cpu.pool, cpu.isa, &product, &epilogue);
            }
            _ => {
                let product = Product::rows::<f32>(hidden_view.of(), t, w.k, w_view.of(), w.n);
                matmul::run(cpu.pool, cpu.isa, &product, &epilogue);
            }
        }
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
    };
    let result = body();
    dev.release(mark);
    result
}

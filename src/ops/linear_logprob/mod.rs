//! Log-probabilities of given tokens straight from hidden states and the output weight. Logits exist a tile at
//! a time in the forward and a slab of columns at a time in the backward, never as a whole.
//!
//! Shapes: T tokens, D hidden size, V vocabulary. The policy is softmax(z) over the allowed ids,
//! z = hidden W^T / temperature.

mod backward;
pub(in crate::ops) mod gpu;
pub(in crate::ops) mod logits;
mod waves;

pub use backward::{Bwd, WAVE_BYTES, bwd, bwd_within};

use half::bf16;

use crate::device::{Device, On, Parts, Region};
use crate::error::{Error, Result};
use crate::ops::check;
use crate::ops::matmul::{self, Cells, Product, Weight, panel_count};
use crate::tensor::{DType, Tensor};
use logits::{Allowed, Fold, Logits, PARTIAL, Scale, inverse_temperature, segments};

/// Rows of one job of the passes over rows.
const ROWS: usize = 64;

fn checked(
    op: &'static str,
    Asked { hidden, w, allowed, targets, .. }: Asked<'_>,
    per_token: &[(&str, Option<Tensor>)],
) -> Result<DType> {
    let t = hidden.rows();
    let dtype = check::weight(op, w, w.n, hidden.cols())?;
    check::tensor(op, "hidden", hidden, dtype, &[t, w.k])?;
    check::optional(op, "allowed", allowed, DType::U32, &[panel_count(w.n)])?;
    check::tensor(op, "targets", targets, DType::U32, &[t])?;
    for (name, tensor) in per_token {
        check::optional(op, name, *tensor, DType::F32, &[t])?;
    }
    Ok(dtype)
}

fn check_targets(op: &'static str, targets: &[u32], vocab: usize) -> Result<()> {
    match targets.iter().position(|&id| id as usize >= vocab) {
        None => Ok(()),
        Some(i) => Err(Error::Shape {
            op,
            want: format!("target ids below {vocab}"),
            got: format!("{} at token {i}", targets[i]),
        }),
    }
}

/// The tokens asked about and the policy they are asked of.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `[T, D]`.
    pub hidden: Tensor,
    /// `[V, D]`.
    pub w: &'a Weight,
    /// A bitmap of u32 `[ceil(V/32)]` (bit v % 32 of word v / 32); all ids without it.
    pub allowed: Option<Tensor>,
    /// Divides the logits; 0 (greedy) counts as 1.
    pub temperature: f32,
    /// u32 `[T]`.
    pub targets: Tensor,
}

/// What [`fwd`] leaves, f32 `[T]` each.
#[derive(Clone, Copy, Debug)]
pub struct Outs {
    /// `z[target]` - lse.
    pub logprob: Tensor,
    /// ln of the sum of e^z.
    pub lse: Tensor,
    /// In nats.
    pub entropy: Option<Tensor>,
}

/// Log-probs of the targets. A target that is not allowed has log-prob minus infinity; one not below V is an error, on
/// a GPU a log-prob of NaN.
pub fn fwd(dev: &mut Device, asked: Asked<'_>, outs: Outs) -> Result<()> {
    const OP: &str = "linear_logprob::fwd";
    let Asked { hidden, w, allowed, temperature, targets } = asked;
    let Outs { logprob, lse, entropy } = outs;
    let per_token = [("logprob", Some(logprob)), ("lse", Some(lse)), ("entropy", entropy)];
    let dtype = checked(OP, asked, &per_token)?;
    let t = hidden.rows();
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
            On::Gpu(gpu) => return gpu::fwd(OP, gpu, asked, outs, partials),
        };
        let ins = [hidden, w.data, targets, allowed.unwrap_or(targets.slice(0, 0))];
        let outs = [logprob, lse, entropy.unwrap_or(lse.slice(0, 0)), partials];
        let ([logprob, lse, entropy, partials], [hidden_view, w_view, targets, bitmap]) = cpu.memory.tensors(outs, ins);
        let (targets, logprob, partials) = (targets.of::<u32>(), logprob.of::<f32>(), partials.of::<f32>());
        check_targets(OP, targets, w.n)?;
        let width = segments(w.n) * PARTIAL;
        let epilogue = Logits {
            allowed: Allowed { vocab: w.n, bitmap: allowed.map(|_| bitmap.of()) },
            scale: Scale::All(inverse_temperature(temperature)),
            entropy: wants_entropy,
            // The target's logit waits in `logprob` for the logsumexp.
            targets: Some((targets, Cells::new(logprob, 1))),
            partials: Cells::new(partials, width),
            logits: None,
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
        let (logprob, lse) = (Parts::new(logprob, ROWS), Parts::new(lse.of::<f32>(), ROWS));
        let entropy = Parts::new(entropy.of::<f32>(), ROWS);
        cpu.pool.run(logprob.count(), |i| {
            let (logprob, lse) = (logprob.take(i), lse.take(i));
            let mut entropy = if entropy.count() > 0 { entropy.take(i) } else { &mut [] }.iter_mut();
            for (r, (logprob, lse)) in logprob.iter_mut().zip(lse).enumerate() {
                let row = i * ROWS + r;
                let fold = Fold::of(&partials[row * width..(row + 1) * width]);
                *lse = fold.logsumexp();
                *logprob -= *lse;
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

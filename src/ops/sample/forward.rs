//! Samples tokens for rows of hidden states, or for given logits.

use half::bf16;

use super::draw::{Draw, Outs};
use super::{choose, gpu};
use crate::device::{Cpu, Device, Parts, Region};
use crate::error::Result;
use crate::ops::check;
use crate::ops::cost::moved;
use crate::ops::linear_logprob::logits::{
    Allowed, Fold, Logits, PARTIAL, Scale, inverse_temperature, of_given, segments,
};
use crate::ops::matmul::{self, Cells, PANEL, Product, Weight, panel_count};
use crate::tensor::{DType, Tensor};

fn check_draws(op: &'static str, b: usize, draws: &[Draw], table: Tensor) -> Result<()> {
    check::that(op, draws.len() == b, format!("{b} draws"), draws.len().to_string())?;
    let (dtype, dims) = Draw::table(b);
    check::tensor(op, "table", table, dtype, &dims)
}

/// Samples a token for each row of hidden `[B, D]` with w `[V, D]`. `draws` has one [`Draw`] per row, and `table` is a
/// copy of `draws` on the device ([`Draw::upload`]). `allowed` is the bitmap of [`crate::ops::linear_logprob::LogProbCall`].
/// Ties go to the lower id. A GPU reads only `table`, so that a captured call can be replayed with other draws.
pub fn fwd(
    dev: &mut Device,
    hidden: Tensor,
    w: &Weight,
    allowed: Option<Tensor>,
    draws: &[Draw],
    table: Tensor,
    outs: Outs,
) -> Result<()> {
    const OP: &str = "sample::fwd";
    let b = hidden.rows();
    let dtype = check::weight(OP, w, w.n, hidden.cols())?;
    check::tensor(OP, "hidden", hidden, dtype, &[b, w.k])?;
    check::optional(OP, "allowed", allowed, DType::U32, &[panel_count(w.n)])?;
    outs.check(OP, b, w.n)?;
    check_draws(OP, b, draws, table)?;
    dev.note_product("sample", [b, w.n, w.k], moved(&[w.data]));
    if dev.kind().is_gpu() {
        return gpu::fwd(OP, dev, hidden, w, allowed, table, outs);
    }
    let mark = dev.mark(Region::Workspace);
    let width = segments(w.n) * PARTIAL;
    let logits = scratch(dev, b, w.n, outs)?;
    let columns = logits.cols();
    let partials = dev.alloc(Region::Workspace, DType::F32, &[b, width])?;
    if let Some(cpu) = dev.on_cpu() {
        let ins = [hidden, w.data, allowed.unwrap_or(hidden.slice(0, 0))];
        let ([logits_view, partials_view], [hidden, w_view, bitmap]) = cpu.memory.tensors([logits, partials], ins);
        let scales = scales(draws);
        let epilogue = Logits {
            allowed: Allowed { vocab: w.n, bitmap: allowed.map(|_| bitmap.of()) },
            scale: Scale::Rows(&scales),
            entropy: false,
            targets: None,
            partials: Cells::new(partials_view.of(), width),
            logits: Some(Cells::new(logits_view.of(), columns)),
        };
        match dtype {
            DType::Bf16 => {
                let product = Product::rows::<bf16>(hidden.of(), b, w.k, w_view.of(), w.n);
                matmul::run(cpu.pool, cpu.isa, &product, &epilogue);
            }
            _ => {
                let product = Product::rows::<f32>(hidden.of(), b, w.k, w_view.of(), w.n);
                matmul::run(cpu.pool, cpu.isa, &product, &epilogue);
            }
        }
        draw(cpu, w.n, logits, partials, draws, outs);
    }
    dev.release(mark);
    Ok(())
}

/// Samples as [`fwd`] does, but from given logits: `sums` f32 `[B, V]`, not yet divided by the temperature. For equal
/// sums every device returns the same tokens.
pub fn from_logits(
    dev: &mut Device,
    sums: Tensor,
    allowed: Option<Tensor>,
    draws: &[Draw],
    table: Tensor,
    outs: Outs,
) -> Result<()> {
    const OP: &str = "sample::from_logits";
    let (b, vocab) = (sums.rows(), sums.cols());
    check::tensor(OP, "sums", sums, DType::F32, &[b, vocab])?;
    check::optional(OP, "allowed", allowed, DType::U32, &[panel_count(vocab)])?;
    outs.check(OP, b, vocab)?;
    check_draws(OP, b, draws, table)?;
    if dev.kind().is_gpu() {
        return gpu::given(OP, dev, sums, allowed, table, outs);
    }
    let mark = dev.mark(Region::Workspace);
    let width = segments(vocab) * PARTIAL;
    let logits = scratch(dev, b, vocab, outs)?;
    let columns = logits.cols();
    let partials = dev.alloc(Region::Workspace, DType::F32, &[b, width])?;
    if let Some(cpu) = dev.on_cpu() {
        let ins = [sums, allowed.unwrap_or(outs.ids.slice(0, 0))];
        let ([z, partial], [sums, bitmap]) = cpu.memory.tensors([logits, partials], ins);
        let (sums, scales) = (sums.of::<f32>(), scales(draws));
        let allowed = Allowed { vocab, bitmap: allowed.map(|_| bitmap.of()) };
        let (z, partial) = (Parts::new(z.of::<f32>(), columns), Parts::new(partial.of::<f32>(), width));
        cpu.pool.run(b, |row| {
            let z = z.take(row);
            z[..vocab].copy_from_slice(&sums[row * vocab..][..vocab]);
            z[vocab..].fill(0.0);
            let z = &mut z[..panel_count(vocab) * PANEL];
            of_given(cpu.isa, z, scales[row], allowed, partial.take(row));
        });
        draw(cpu, vocab, logits, partials, draws, outs);
    }
    dev.release(mark);
    Ok(())
}

/// Returns the memory for the logits of a call on the CPU.
fn scratch(dev: &mut Device, b: usize, vocab: usize, outs: Outs) -> Result<Tensor> {
    match outs.logits {
        Some(logits) => Ok(logits),
        None => dev.alloc(Region::Workspace, DType::F32, &[b, panel_count(vocab) * PANEL]),
    }
}

fn scales(draws: &[Draw]) -> Vec<f32> {
    draws.iter().map(|d| inverse_temperature(d.params().temperature)).collect()
}

/// Computes tokens and log-probs from logits, padded to full panels, and their partials.
fn draw(cpu: Cpu<'_>, vocab: usize, logits: Tensor, partials: Tensor, draws: &[Draw], outs: Outs) {
    let (columns, width) = (logits.cols(), partials.cols());
    let ([ids, logprobs], [logits, partials]) = cpu.memory.tensors([outs.ids, outs.logprobs], [logits, partials]);
    let (logits, partials) = (logits.of::<f32>(), partials.of::<f32>());
    let (ids, logprobs) = (Parts::new(ids.of::<u32>(), 1), Parts::new(logprobs.of::<f32>(), 1));
    cpu.pool.run(ids.count(), |row| {
        if draws[row].is_kept() {
            (ids.take(row)[0], logprobs.take(row)[0]) = (0, 0.0);
            return;
        }
        let z = &logits[row * columns..][..vocab];
        let fold = Fold::of(&partials[row * width..][..width]);
        let id = choose::token(cpu.isa, z, fold.max(), &draws[row]);
        ids.take(row)[0] = id;
        logprobs.take(row)[0] = z[id as usize] - fold.logsumexp();
    });
}

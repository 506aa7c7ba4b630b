//! Samples tokens for rows of hidden states, or for given logits.

use super::draw::{Draw, Outs, WORDS};
use super::{choose, gpu};
use crate::device::{Cpu, Device, Parts, Region};
use crate::ops::check::{self, by_dtype};
use crate::ops::dequantize::widened;
use crate::ops::linear_logprob::logits::{
    Allowed, Fold, Logits, PARTIAL, Scale, inverse_temperature, multiply, of_given, segments,
};
use crate::ops::matmul::{Cells, PANEL, Weight, panel_count};
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

fn check_draws(op: &'static str, b: usize, draws: &[Draw], table: Tensor) -> Result<()> {
    check::that(op, draws.len() == b, format!("{b} draws"), draws.len().to_string())?;
    check::tensor(op, "table", table, DType::U32, &[b, WORDS])
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
    dev.note_product("sample", [b, w.n, w.k], w.bytes());
    if dev.kind().is_gpu() {
        return widened(dev, w, |dev, w| gpu::fwd(OP, dev, hidden, w, allowed, table, outs));
    }
    on_cpu(dev, w.n, draws, outs, |cpu, scales, logits, partials| {
        let ins = [hidden, w.data, w.scales(), allowed.unwrap_or(hidden.slice(0, 0))];
        let (columns, width) = (logits.cols(), partials.cols());
        let ([logits, partials], [hidden, w_view, scale_view, bitmap]) = cpu.memory.tensors([logits, partials], ins);
        let epilogue = Logits {
            allowed: Allowed { vocab: w.n, bitmap: allowed.map(|_| bitmap.of()) },
            scale: Scale::Rows(scales),
            entropy: false,
            targets: None,
            partials: Cells::new(partials.of(), width),
            logits: Some(Cells::new(logits.of(), columns)),
        };
        by_dtype!(dtype, multiply(cpu.pool, cpu.isa, hidden, b, w, [w_view, scale_view], &epilogue));
    })
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
    on_cpu(dev, vocab, draws, outs, |cpu, scales, logits, partials| {
        let ins = [sums, allowed.unwrap_or(outs.ids.slice(0, 0))];
        let (columns, width) = (logits.cols(), partials.cols());
        let ([z, partial], [sums, bitmap]) = cpu.memory.tensors([logits, partials], ins);
        let (sums, allowed) = (sums.of::<f32>(), Allowed { vocab, bitmap: allowed.map(|_| bitmap.of()) });
        let (z, partial) = (Parts::new(z.of::<f32>(), columns), Parts::new(partial.of::<f32>(), width));
        cpu.pool.run(b, |row| {
            let z = z.take(row);
            z[..vocab].copy_from_slice(&sums[row * vocab..][..vocab]);
            z[vocab..].fill(0.0);
            let z = &mut z[..panel_count(vocab) * PANEL];
            of_given(cpu.isa, z, scales[row], allowed, partial.take(row));
        });
    })
}

/// Draws on the CPU from the logits and their partial sums that `compute` makes with the scales of the rows. Only counts
/// the memory on a device that only counts.
fn on_cpu(
    dev: &mut Device,
    vocab: usize,
    draws: &[Draw],
    outs: Outs,
    compute: impl FnOnce(&mut Cpu<'_>, &[f32], Tensor, Tensor),
) -> Result<()> {
    let b = draws.len();
    dev.scope(Region::Workspace, |dev| {
        let mut alloc = |columns: usize| dev.alloc(Region::Workspace, DType::F32, &[b, columns]);
        let logits = outs.logits.map_or_else(|| alloc(panel_count(vocab) * PANEL), Ok)?;
        let partials = alloc(segments(vocab) * PARTIAL)?;
        let body = |mut cpu: Cpu<'_>| {
            let scales: Vec<f32> = draws.iter().map(|d| inverse_temperature(d.params().temperature)).collect();
            compute(&mut cpu, &scales, logits, partials);
            draw(cpu, vocab, logits, partials, draws, outs);
        };
        dev.on().run(body, |_| Ok(()))
    })
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
        let id = choose::token(cpu.isa, z, fold.max, &draws[row]);
        ids.take(row)[0] = id;
        logprobs.take(row)[0] = z[id as usize] - fold.logsumexp();
    });
}

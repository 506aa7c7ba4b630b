//! Launches of attention's backward: kernels/attention_bwd.cu, and the wgmma kernels if the device is set to use them. The kernel of dQ, which also writes D, runs before the kernel of dK and dV.

use super::bwd_sm90a::WideBwd;
use super::call::{Bwd, Pack};
use super::launch::wide;
use super::names::{ByDim, by_dim, holding, num_slots, shared_rows};
use crate::device::{Gpu, Launch, params};
use crate::ops::attend::Setting;
use crate::ops::check;
use crate::tensor::Tensor;
use omr_base::error::Result;

/// Threads of a CTA, in eight warps.
const THREADS: u32 = 256;

/// Rows (token, query head of the group) of a CTA of dQ, and keys of a CTA of dK and dV.
pub const OWNED: usize = 128;

/// Keys of a stage of dQ, and rows of a stage of dK and dV.
const STAGE: usize = 64;

/// Maximum number of query heads of a group, for which [`inverse`] divides exactly.
pub const MOST_HEADS: usize = 1 << 15;

const QUERIES: ByDim = by_dim!("attention_bwd_dq");
const KEYS: ByDim = by_dim!("attention_bwd_dkv");

/// Returns the rows of a stage or a tile: complete tokens if a group fits in a stage. TMA copies complete tokens, and
/// on tensor cores the bits of a sum depend on where its steps begin.
fn stage_rows(group: usize) -> usize {
    if group > STAGE { STAGE } else { STAGE / group * group }
}

/// Returns the bytes of two stages of two operands (`attention_bwd::KeySmem`). `attention_bwd::RowSmem` has two more
/// numbers per row.
fn stages(dim: usize) -> usize {
    4 * shared_rows(STAGE, dim)
}

/// Returns x such that (n * x) >> 31 is n / group, rounded down, for all n below group + OWNED. The result is exact:
/// n x / 2^31 exceeds n / group by less than n / 2^31, and the next integer exceeds n / group by at least 1 / group.
pub fn inverse(group: usize) -> u32 {
    (1u32 << 31).div_ceil(group as u32)
}

/// Launches the kernels with wgmma if the device is set to use them, otherwise those with `mma.sync`. Both give the same
/// bits. `delta` is scratch `[T, q]` f32 for D, and `partial` is scratch `[T, 2 kv, dim]` f32 for sums of the gradients of prompts.
pub(super) fn bwd(
    mut gpu: Gpu<'_>,
    pack: &Pack,
    call: Bwd,
    delta: Tensor,
    partial: Option<Tensor>,
    setting: Setting,
) -> Result<()> {
    let &Pack { cu_seqlens, heads, causal, scale, .. } = pack;
    let Bwd { qkv, out, dout, lse, dqkv, prompt_of } = call;
    let (sequences, tokens) = (cu_seqlens.rows() - 1, qkv.rows());
    check::that(gpu.op, sequences > 0 || tokens == 0, "a sequence", "none")?;
    let few = heads.group() <= MOST_HEADS;
    check::that(gpu.op, few, "at most 32768 query heads per key head on a GPU", heads.group().to_string())?;
    let (wide, step) = (wide(&gpu, heads.dim, &[qkv, out, dout, dqkv]), stage_rows(heads.group()) as i32);
    let (q_heads, kv_heads, dim) = (heads.q as i32, heads.kv as i32, heads.dim as i32);
    let scale_log2e = setting.scale_log2e;
    let args = params!(attention_bwd::Args {
        qkv,
        out,
        dout,
        lse,
        cu_seqlens,
        dqkv,
        delta,
        prompt_of,
        partial,
        sequences: check::count(gpu.op, "sequences", sequences)?,
        q_heads,
        kv_heads,
        dim,
        causal,
        wide,
        scale,
        scale_log2e,
        inverse: inverse(heads.group()),
        step,
    });
    let call = WideBwd { qkv, dout, sequences, shares: prompt_of.is_some(), heads, wide, stage: STAGE };
    if call.launch(&mut gpu, &args)? {
        return Ok(());
    }
    let kv = check::grid(gpu.op, heads.kv)?;
    let (kept, kernel) = holding(&QUERIES, heads.dim);
    let grid = [num_slots(gpu.op, tokens, sequences, heads.group(), OWNED)?, kv, 1];
    gpu.launch("attention_bwd", kernel, Launch::new(grid, THREADS, stages(kept)), args.clone())?;
    let (kept, kernel) = holding(&KEYS, heads.dim);
    let grid = [num_slots(gpu.op, tokens, sequences, 1, OWNED)?, kv, 1];
    gpu.launch("attention_bwd", kernel, Launch::new(grid, THREADS, stages(kept) + 4 * STAGE * 4), args)
}

//! Launch of kernels/attention.cu, and code shared with the launches of kernels/paged_attention.cu.

use super::call::{Fwd, Pack};
use super::names::{ByDim, WideKernels, by_dim, holding, num_slots, shared_rows, wide_kernels};
use super::sm90a::{self, WideCall};
use crate::device::{Gpu, Launch, params};
use crate::ops::attend::{BLOCK, Heads, Setting};
use crate::ops::check;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

/// Threads of a CTA, in four warps.
pub(crate) const THREADS: u32 = 128;

/// Rows (token, query head of the group) of a slot of four warps with 16 rows each.
pub(crate) const TILE_ROWS: usize = 64;

const PACKED: ByDim = by_dim!("attention_fwd");
const WIDE: WideKernels = wide_kernels!("attention_sm90a", "attention_fwd_wide");

/// Returns an error unless the kernels support the call: bf16, heads of at most 128 elements.
pub(crate) fn check_heads(op: &'static str, dtype: DType, heads: Heads) -> Result<()> {
    check::gpu_compute(op, dtype)?;
    check::that(op, heads.dim <= 128, "a head_dim of at most 128 on a GPU", heads.dim.to_string())
}

/// Returns true if the rows of all tensors can be read and written 16 bytes at a time.
pub(crate) fn wide(gpu: &Gpu<'_>, dim: usize, rows: &[Tensor]) -> bool {
    dim.is_multiple_of(8) && rows.iter().all(|t| gpu.ptr(*t).is_multiple_of(16))
}

/// Returns the bytes of `attend::RowsSmem`.
pub(crate) fn rows_smem(dim: usize) -> usize {
    2 * shared_rows(BLOCK, dim)
}

/// Launches the kernel with wgmma if the device is set to use it, otherwise the one with `mma.sync`. Both give the same
/// bits. `counter` comes from [`sm90a::counter`].
pub(super) fn fwd(mut gpu: Gpu<'_>, pack: &Pack, call: Fwd, counter: Tensor, setting: Setting) -> Result<()> {
    let (&Pack { cu_seqlens, heads, causal, .. }, Fwd { qkv, out, lse }) = (pack, call);
    let sequences = cu_seqlens.rows() - 1;
    let (tokens, group) = (qkv.rows(), heads.group());
    check::that(gpu.op, sequences > 0 || tokens == 0, "a sequence", "none")?;
    let (wide, scale_log2e) = (wide(&gpu, heads.dim, &[qkv, out]), setting.scale_log2e);
    let (q_heads, kv_heads, dim) = (heads.q as i32, heads.kv as i32, heads.dim as i32);
    let args = params!(attend::PackedArgs {
        qkv,
        cu_seqlens,
        out,
        lse,
        sequences: check::count(gpu.op, "sequences", sequences)?,
        q_heads,
        kv_heads,
        dim,
        causal,
        wide,
        scale_log2e,
    });
    let keys = sm90a::packed_keys(gpu.ptr(qkv), tokens, heads);
    let call = WideCall { qkv, tokens, sequences, heads, wide, keys: [keys.clone(), keys], counter };
    if call.launch(&mut gpu, &WIDE, &args)? {
        return Ok(());
    }
    let (kept, kernel) = holding(&PACKED, heads.dim);
    let grid = [num_slots(gpu.op, tokens, sequences, group, TILE_ROWS)?, check::grid(gpu.op, heads.kv)?, 1];
    gpu.launch("attention", kernel, Launch::new(grid, THREADS, rows_smem(kept)), args)
}

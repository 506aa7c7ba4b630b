//! Launches of kernels/attention.cu and kernels/attention_window.cu, and what kernels/paged_attention.cu shares with
//! them: head dimensions, slots and shared memory of kernels/common/attend_tile.cuh.

use bytemuck::NoUninit;

use super::Pack;
use super::sm90a::{self, WideCall, WideNames};
pub(crate) use super::tiles::{shared_rows, slots};
use crate::device::{Address, Gpu, Launch};
use crate::error::Result;
use crate::ops::attend::{BLOCK, Heads, Setting};
use crate::ops::check;
use crate::tensor::{DType, Tensor};

/// Threads of a CTA, in four warps.
pub(crate) const THREADS: u32 = 128;

/// Rows (token, query head of the group) of a slot whose warps have 16 rows each.
pub(crate) const TILE_ROWS: usize = 64;

/// Keys that a CTA of attention_window.cu and attention_window_bwd.cu holds.
pub(super) const WINDOW: usize = 64;

/// CTAs a grid may have along y.
const GRID_Y: usize = 65_535;

/// A kernel by the head dimension it keeps in shared memory, ascending.
pub(crate) type ByDim = [(usize, &'static str); 5];

const PACKED: ByDim = [
    (16, "attention_fwd_hd16"),
    (32, "attention_fwd_hd32"),
    (64, "attention_fwd_hd64"),
    (80, "attention_fwd_hd80"),
    (128, "attention_fwd_hd128"),
];

const WINDOWS: ByDim = [
    (16, "attention_window_fwd_hd16"),
    (32, "attention_window_fwd_hd32"),
    (64, "attention_window_fwd_hd64"),
    (80, "attention_window_fwd_hd80"),
    (128, "attention_window_fwd_hd128"),
];

const WIDE: WideNames = [(80, "attention_fwd_wide_hd80"), (128, "attention_fwd_wide_hd128")];

/// `attend::PackedArgs` of kernels/common/attend_calls.cuh.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct PackedArgs {
    qkv: Address,
    cu_seqlens: Address,
    out: Address,
    lse: Address,
    sequences: i32,
    q_heads: i32,
    kv_heads: i32,
    dim: i32,
    causal: i32,
    wide: i32,
    scale_log2e: f32,
    padding: i32,
}

/// `attention_window::Args` of kernels/attention_window.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct WindowArgs {
    qkv: Address,
    cu_seqlens: Address,
    out: Address,
    lse: Address,
    q_heads: i32,
    kv_heads: i32,
    dim: i32,
    wide: i32,
    scale_log2e: f32,
    padding: i32,
}

/// Errors unless kernels can attend: bf16, heads of at most 128 elements.
pub(crate) fn check_heads(op: &'static str, dtype: DType, heads: Heads) -> Result<()> {
    check::gpu_compute(op, dtype)?;
    check::that(op, heads.dim <= 128, "a head_dim of at most 128 on a GPU", heads.dim.to_string())
}

/// The first kernel that holds heads of `dim` elements, with the head dimension it keeps.
pub(crate) fn by_dim(kernels: &ByDim, dim: usize) -> (usize, &'static str) {
    kernels.iter().copied().find(|(kept, _)| dim <= *kept).unwrap_or(kernels[kernels.len() - 1])
}

/// Whether rows can be read and written 16 bytes at a time.
pub(crate) fn wide(dim: usize, addresses: &[Address]) -> bool {
    dim.is_multiple_of(8) && addresses.iter().all(|a| a.is_multiple_of(16))
}

/// Bytes of `attend::RowsSmem`.
pub(crate) fn rows_smem(dim: usize) -> usize {
    2 * shared_rows(BLOCK, dim) + (dim / 2 + 4) * THREADS as usize * 4
}

/// Launches the windows' kernel where no sequence is longer than a window and nothing is masked, else that of whole
/// sequences, by wgmma where the device is told to; the bits are the same. `totals` is of [`sm90a::totals`].
pub(super) fn fwd(
    op: &'static str,
    mut gpu: Gpu<'_>,
    pack: &Pack,
    [qkv, out, lse, totals]: [Tensor; 4],
    setting: Setting,
) -> Result<()> {
    let &Pack { cu_seqlens, max_seqlen, heads, causal, .. } = pack;
    let sequences = cu_seqlens.rows() - 1;
    let (tokens, group) = (qkv.rows(), heads.group());
    check::that(op, sequences > 0 || tokens == 0, "a sequence", "none")?;
    let [qkv, cu_seqlens, out, lse, totals] = [qkv, cu_seqlens, out, lse, totals].map(|t| gpu.ptr(t));
    let wide = i32::from(wide(heads.dim, &[qkv, out]));
    let (q_heads, kv_heads, dim) = (heads.q as i32, heads.kv as i32, heads.dim as i32);
    let scale_log2e = setting.scale_log2e;
    if !causal && max_seqlen <= WINDOW && sequences * group <= GRID_Y {
        let args = WindowArgs { qkv, cu_seqlens, out, lse, q_heads, kv_heads, dim, wide, scale_log2e, padding: 0 };
        let (kept, kernel) = by_dim(&WINDOWS, heads.dim);
        let grid = [check::grid(op, heads.kv)?, (sequences * group) as u32, 1];
        let launch = Launch::new(grid, THREADS, 3 * shared_rows(WINDOW, kept));
        return gpu.launch("attention_window", kernel, launch, &args);
    }
    let args = PackedArgs {
        qkv,
        cu_seqlens,
        out,
        lse,
        sequences: check::count(op, "sequences", sequences)?,
        q_heads,
        kv_heads,
        dim,
        causal: i32::from(causal),
        wide,
        scale_log2e,
        padding: 0,
    };
    let keys = sm90a::packed_keys(qkv, tokens, heads);
    let call = WideCall { qkv, tokens, sequences, heads, wide: wide != 0, keys: [keys.clone(), keys], totals };
    if call.launch(op, &mut gpu, ("attention_sm90a", &WIDE), &args)? {
        return Ok(());
    }
    let (kept, kernel) = by_dim(&PACKED, heads.dim);
    let grid = [slots(op, tokens, sequences, group, TILE_ROWS)?, check::grid(op, heads.kv)?, 1];
    gpu.launch("attention", kernel, Launch::new(grid, THREADS, rows_smem(kept)), &args)
}

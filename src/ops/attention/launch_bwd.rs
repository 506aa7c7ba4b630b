//! Launches of kernels/attention_bwd.cu: first the kernel of dQ, which also leaves D, then that of dK and dV.

use bytemuck::NoUninit;

use super::launch::{ByDim, by_dim, shared_rows, slots, wide};
use crate::device::{Address, Gpu, Launch};
use crate::error::Result;
use crate::ops::attend::{Heads, Setting};
use crate::ops::check;
use crate::tensor::Tensor;

/// Threads of a CTA, in eight warps.
const THREADS: u32 = 256;

/// Rows (token, query head of the group) of a CTA of dQ; keys of a CTA of dK and dV.
const OWNED: usize = 128;

/// Keys of a stage of dQ; rows of a stage of dK and dV.
const STAGE: usize = 64;

const QUERIES: ByDim = [
    (16, "attention_bwd_dq_hd16"),
    (32, "attention_bwd_dq_hd32"),
    (64, "attention_bwd_dq_hd64"),
    (80, "attention_bwd_dq_hd80"),
    (128, "attention_bwd_dq_hd128"),
];

const KEYS: ByDim = [
    (16, "attention_bwd_dkv_hd16"),
    (32, "attention_bwd_dkv_hd32"),
    (64, "attention_bwd_dkv_hd64"),
    (80, "attention_bwd_dkv_hd80"),
    (128, "attention_bwd_dkv_hd128"),
];

/// `attention_bwd::Args` of kernels/attention_bwd.cu.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    qkv: Address,
    out: Address,
    dout: Address,
    lse: Address,
    cu_seqlens: Address,
    dqkv: Address,
    delta: Address,
    sequences: i32,
    q_heads: i32,
    kv_heads: i32,
    dim: i32,
    causal: i32,
    wide: i32,
    scale: f32,
    scale_log2e: f32,
}

/// The tensors of a call.
pub(super) struct Operands {
    pub qkv: Tensor,
    pub out: Tensor,
    pub dout: Tensor,
    pub lse: Tensor,
    pub cu_seqlens: Tensor,
    pub dqkv: Tensor,
    /// Scratch `[T, q]` f32 for D.
    pub delta: Tensor,
}

/// Bytes of two stages of two operands, `attention_bwd::KeySmem`; `attention_bwd::RowSmem` has two numbers more a row.
fn stages(dim: usize) -> usize {
    4 * shared_rows(STAGE, dim)
}

pub(super) fn bwd(
    op: &'static str,
    mut gpu: Gpu<'_>,
    operands: Operands,
    heads: Heads,
    causal: bool,
    scale: f32,
    setting: Setting,
) -> Result<()> {
    let sequences = operands.cu_seqlens.rows() - 1;
    let tokens = operands.qkv.rows();
    check::that(op, sequences > 0 || tokens == 0, "a sequence", "none")?;
    let Operands { qkv, out, dout, lse, cu_seqlens, dqkv, delta } = operands;
    let [qkv, out, dout, lse, cu_seqlens, dqkv, delta] =
        [qkv, out, dout, lse, cu_seqlens, dqkv, delta].map(|t| gpu.ptr(t));
    let args = Args {
        qkv,
        out,
        dout,
        lse,
        cu_seqlens,
        dqkv,
        delta,
        sequences: check::count(op, "sequences", sequences)?,
        q_heads: heads.q as i32,
        kv_heads: heads.kv as i32,
        dim: heads.dim as i32,
        causal: i32::from(causal),
        wide: i32::from(wide(heads.dim, &[qkv, out, dout, dqkv])),
        scale,
        scale_log2e: setting.scale_log2e,
    };
    let kv = check::grid(op, heads.kv)?;
    let (kept, kernel) = by_dim(&QUERIES, heads.dim);
    let grid = [slots(op, tokens, sequences, heads.group(), OWNED)?, kv, 1];
    gpu.launch("attention_bwd", kernel, Launch::new(grid, THREADS, stages(kept)), &args)?;
    let (kept, kernel) = by_dim(&KEYS, heads.dim);
    let grid = [slots(op, tokens, sequences, 1, OWNED)?, kv, 1];
    gpu.launch("attention_bwd", kernel, Launch::new(grid, THREADS, stages(kept) + 4 * STAGE * 4), &args)
}

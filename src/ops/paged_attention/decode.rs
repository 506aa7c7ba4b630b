//! Launches of decode's attention, by mma.sync or by wgmma: a list of work items ([`Split`]) that lies on the device, so that
//! a captured step can be replayed with another.

use bytemuck::NoUninit;

use super::split::{Split, WORDS};
use super::{BLOCK, Paged};
use crate::device::{Address, Device, Gpu, Launch, On, Region};
use crate::error::Result;
use crate::ops::attend::{Heads, Setting};
use crate::ops::attention::launch::{self, ByDim};
use crate::ops::attention::sm90a::{self, WideNames};
use crate::ops::check;
use crate::tensor::{DType, Tensor};

const DECODE: ByDim = [
    (16, "paged_attention_decode_hd16"),
    (32, "paged_attention_decode_hd32"),
    (64, "paged_attention_decode_hd64"),
    (80, "paged_attention_decode_hd80"),
    (128, "paged_attention_decode_hd128"),
];

const WIDE: WideNames = [(80, "paged_attention_decode_wide_hd80"), (128, "paged_attention_decode_wide_hd128")];

/// Rows of a CTA whose warps share them.
const ROWS: usize = 16;

/// Warps that multiply, of both bodies: each has a ticket, and a copy of a row's base and sum in the first (`attend::KEPT`).
const WARPS: [usize; 2] = [4, 8];

/// A decode step's work items on the device.
#[derive(Clone, Copy, Debug)]
pub struct Decode {
    /// [`Split::words`].
    work: Tensor,
    tickets: Tensor,
    /// Whether an item may have several sequences.
    shares: bool,
    together: usize,
}

impl Decode {
    /// What steps of at most `sequences` sequences count arrivals in: zeros, and zeros again after each step.
    pub fn tickets(dev: &mut Device, region: Region, sequences: usize, heads: Heads) -> Result<Tensor> {
        dev.zeros(region, DType::U32, &[sequences, heads.kv * each(heads)])
    }

    /// Copies the items of a step of `sequences` sequences up. `tickets` are of [`Decode::tickets`].
    pub fn upload(
        dev: &mut Device,
        region: Region,
        split: &Split,
        sequences: usize,
        tickets: Tensor,
    ) -> Result<Decode> {
        let words = split.words(sequences);
        let work = dev.upload(region, &words, &[words.len()])?;
        Ok(Decode { work, tickets, shares: split.shares(), together: split.together() })
    }
}

/// Tickets of a sequence's key head.
fn each(heads: Heads) -> usize {
    (heads.group().div_ceil(ROWS) * WARPS[0]).max(WARPS[1])
}

/// Tokens of different sequences that an item can have on `dev`.
pub fn together(dev: &mut Device, heads: Heads) -> usize {
    match dev.on() {
        On::Gpu(gpu) => in_item(heads, sm90a::takes(&gpu, &WIDE, heads)),
        // A plan has memory for either body.
        _ => in_item(heads, false).max(in_item(heads, true)),
    }
}

/// Tokens that an item has room for.
fn in_item(heads: Heads, by_wgmma: bool) -> usize {
    match by_wgmma {
        true => sm90a::ROWS / pitch(heads.group()),
        false => ROWS / heads.group().clamp(1, ROWS),
    }
}

/// Rows of a token by wgmma: it begins where a swizzle's pattern does, or a warp's rows.
fn pitch(group: usize) -> usize {
    if group > 8 { group.next_multiple_of(16) } else { 8 }
}

/// Room for the states of chunks, of which a sequence has no more than its table's.
pub(super) fn states(dev: &mut Device, decode: Decode, paged: &Paged<'_>) -> Result<Tensor> {
    let (sequences, columns) = (paged.context_lens.rows(), paged.block_tables.cols());
    let (kept, _) = launch::by_dim(&DECODE, paged.heads.dim);
    let chunks = Split::chunks(columns);
    let used = if chunks > 1 || decode.shares { sequences } else { 0 };
    dev.alloc(Region::Workspace, DType::F32, &[used, chunks * paged.heads.q * (kept + 2 * WARPS[0])])
}

/// `attend::DecodeArgs` of kernels/common/attend_item.cuh.
#[repr(C)]
#[derive(Clone, Copy, NoUninit)]
struct Args {
    qkv: Address,
    k: Address,
    v: Address,
    block_tables: Address,
    cu_seqlens_q: Address,
    items: Address,
    members: Address,
    tickets: Address,
    states: Address,
    out: Address,
    columns: i32,
    q_heads: i32,
    kv_heads: i32,
    dim: i32,
    chunks: i32,
    each: i32,
    wide: i32,
    scale_log2e: f32,
}

/// Bytes of `attend::TogetherSmem`.
fn together_smem(dim: usize) -> usize {
    2 * launch::shared_rows(BLOCK, dim)
        + launch::shared_rows(ROWS, dim)
        + launch::shared_rows(ROWS, BLOCK)
        + WARPS[0] * ROWS * 5 * 4
}

/// Launches the items of several sequences where there may be any, then each sequence's own.
pub(super) fn fwd(
    op: &'static str,
    mut gpu: Gpu<'_>,
    paged: &Paged<'_>,
    decode: Decode,
    [qkv, out, states]: [Tensor; 3],
    setting: Setting,
) -> Result<()> {
    let tokens = qkv.rows();
    let (heads, sequences, columns) = (paged.heads, paged.context_lens.rows(), paged.block_tables.cols());
    let most = Split::most(sequences, columns);
    let words = (most[0] + most[1] + 2) * WORDS + sequences;
    check::tensor(op, "the items", decode.work, DType::U32, &[words])?;
    let tickets = decode.tickets;
    check::that(
        op,
        tickets.len() >= sequences * heads.kv * each(heads),
        "tickets of each sequence",
        tickets.len().to_string(),
    )?;
    let [k, v] = [paged.cache.k, paged.cache.v].map(|t| gpu.ptr(t));
    let (blocks, work) = (paged.cache.blocks(), gpu.ptr(decode.work));
    let lists = [0, (1 + most[0]) * WORDS].map(|at| work + 4 * at as Address);
    let (qkv, out) = (gpu.ptr(qkv), gpu.ptr(out));
    let wide = launch::wide(heads.dim, &[qkv, k, v, out]);
    let by_wgmma = wide && sm90a::takes(&gpu, &WIDE, heads);
    let can = in_item(heads, by_wgmma);
    check::that(op, decode.together <= can, format!("items of at most {can} sequences"), decode.together.to_string())?;
    for shared in [true, false] {
        let most = most[usize::from(shared)];
        if shared && !decode.shares {
            continue;
        }
        let args = Args {
            qkv,
            k,
            v,
            block_tables: gpu.ptr(paged.block_tables),
            cu_seqlens_q: gpu.ptr(paged.cu_seqlens_q),
            items: lists[usize::from(shared)],
            members: work + 4 * (words - sequences) as Address,
            tickets: gpu.ptr(tickets),
            states: gpu.ptr(states),
            out,
            columns: check::count(op, "columns", columns)?,
            q_heads: heads.q as i32,
            kv_heads: heads.kv as i32,
            dim: heads.dim as i32,
            chunks: Split::chunks(columns) as i32,
            each: each(heads) as i32,
            wide: i32::from(wide),
            scale_log2e: setting.scale_log2e,
        };
        if by_wgmma {
            let keys = [k, v].map(|pages| sm90a::paged_keys(pages, blocks, heads));
            let q = sm90a::packed_map(qkv, tokens, heads, [heads.group(), 1]);
            let items = check::count(op, "tiles", most * heads.kv)? as usize;
            sm90a::launch(
                &mut gpu,
                ("paged_attention_sm90a", &WIDE),
                heads,
                [&q, &keys[0], &keys[1]],
                bytemuck::bytes_of(&args),
                items,
            )?;
            continue;
        }
        let (kept, kernel) = launch::by_dim(&DECODE, heads.dim);
        let grid = [check::grid(op, most)?, check::grid(op, heads.kv * heads.group().div_ceil(ROWS))?, 1];
        gpu.launch("paged_attention", kernel, Launch::new(grid, launch::THREADS, together_smem(kept)), &args)?;
    }
    Ok(())
}

//! Launches of decode attention, by `mma.sync` or by wgmma, over a list of work items on the device.

use super::call::Paged;
use super::decode::{Decode, ROWS, WARPS, WIDE, each, in_item};
use super::split::Split;
use crate::device::{Device, Gpu, Launch, Region, params};
use crate::ops::attend::{BLOCK, Setting};
use crate::ops::attention::names::{ByDim, by_dim, holding, shared_rows};
use crate::ops::attention::{launch, sm90a};
use crate::ops::check;
use crate::tensor::{DType, Tensor};
use omr_base::error::Result;

const DECODE: ByDim = by_dim!("paged_attention_decode");

/// CTAs per multiprocessor, which process the items in turn: as many as the registers allow for the smallest heads. A
/// step seldom has the maximum number of items, so with one CTA per possible item most CTAs would start without any
/// work.
const CTAS: usize = 4;

/// Allocates memory for the states of chunks. A sequence has at most as many chunks as fit in its block table.
pub(super) fn states(dev: &mut Device, decode: Decode, paged: &Paged<'_>) -> Result<Tensor> {
    let (sequences, columns) = (paged.context_lens.rows(), paged.block_tables.cols());
    let (kept, _) = holding(&DECODE, paged.heads.dim);
    let chunks = Split::chunks(columns);
    let used = if chunks > 1 || decode.shares { sequences } else { 0 };
    dev.alloc(Region::Workspace, DType::F32, &[used, chunks * paged.heads.q * (kept + 2 * WARPS[0])])
}

/// Returns the bytes of `attend::TogetherSmem`.
fn together_smem(dim: usize) -> usize {
    2 * shared_rows(BLOCK, dim) + shared_rows(ROWS, dim) + shared_rows(ROWS, BLOCK) + WARPS[0] * ROWS * 5 * 4
}

/// Launches the kernel for the shared items (if the step may have any), then the kernel for the own items.
pub(super) fn fwd(
    mut gpu: Gpu<'_>,
    paged: &Paged<'_>,
    decode: Decode,
    qkv: Tensor,
    out: Tensor,
    states: Tensor,
) -> Result<()> {
    let (heads, sequences, columns) = (paged.heads, paged.context_lens.rows(), paged.block_tables.cols());
    let (k, v, blocks, tickets) = (paged.cache.k, paged.cache.v, paged.cache.blocks(), decode.tickets);
    let most = Split::most(sequences, columns);
    for (list, room) in decode.lists.into_iter().zip(Split::room(sequences, columns)) {
        check::tensor(gpu.op, "the items", list, DType::U32, &[room])?;
    }
    let enough = tickets.len() >= sequences * heads.kv * each(heads);
    check::that(gpu.op, enough, "tickets for each sequence", tickets.len().to_string())?;
    let wide = launch::wide(&gpu, heads.dim, &[qkv, k, v, out]);
    let by_wgmma = wide && sm90a::takes(&gpu, &WIDE, heads);
    let supports_items = in_item(heads, by_wgmma);
    check::that(
        gpu.op,
        decode.together <= supports_items,
        format!("items of at most {supports_items} sequences"),
        decode.together.to_string(),
    )?;
    for shared in [true, false] {
        let most = most[usize::from(shared)];
        if shared && !decode.shares {
            continue;
        }
        let args = params!(attend::DecodeArgs {
            qkv,
            k,
            v,
            block_tables: paged.block_tables,
            cu_seqlens_q: paged.cu_seqlens_q,
            items: decode.lists[usize::from(shared)],
            members: decode.lists[2],
            tickets,
            states,
            out,
            columns: check::count(gpu.op, "columns", columns)?,
            q_heads: heads.q as i32,
            kv_heads: heads.kv as i32,
            dim: heads.dim as i32,
            chunks: Split::chunks(columns) as i32,
            each: each(heads) as i32,
            wide,
            scale_log2e: Setting::new(qkv.dtype, heads, paged.scale).scale_log2e,
        });
        if by_wgmma {
            let [k, v] = [k, v].map(|pages| sm90a::paged_keys(gpu.ptr(pages), blocks, heads));
            let q = sm90a::packed_map(gpu.ptr(qkv), qkv.rows(), heads, [heads.group(), 1]);
            let items = check::count(gpu.op, "tiles", most * heads.kv)? as usize;
            sm90a::launch(&mut gpu, &WIDE, heads, [&q, &k, &v], args, items)?;
            continue;
        }
        let (kept, kernel) = holding(&DECODE, heads.dim);
        let rows = heads.kv * heads.group().div_ceil(ROWS);
        let ctas = (CTAS * gpu.driver.properties().multiprocessors as usize).div_ceil(rows).min(most);
        let grid = [check::grid(gpu.op, ctas)?, check::grid(gpu.op, rows)?, 1];
        gpu.launch("paged_attention", kernel, Launch::new(grid, launch::THREADS, together_smem(kept)), args)?;
    }
    Ok(())
}

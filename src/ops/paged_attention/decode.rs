//! Launches of decode's attention, by mma.sync or by wgmma: a list of work items ([`Split`]) that lies on the device, so that
//! a captured step can be replayed with another.

use bytemuck::NoUninit;

use super::split::Split;
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

/// CTAs of a multiprocessor, which take items in turn: as many as registers leave room for at the smallest heads. A step has
/// seldom the items there could be, and the CTAs of all would mostly begin for nothing.
const CTAS: usize = 4;

/// A decode step's work items on the device.
#[derive(Clone, Copy, Debug)]
pub struct Decode {
    /// [`Split::lists`] in [`Split::room`].
    lists: [Tensor; 3],
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

    /// Copies a step's items up, to addresses that the step's size alone decides. `tickets` are of [`Decode::tickets`].
    pub fn upload(dev: &mut Device, region: Region, split: &Split, tickets: Tensor) -> Result<Decode> {
        let [sequences, columns] = split.size();
        let mut lists = Vec::with_capacity(3);
        for (list, room) in split.lists().into_iter().zip(Split::room(sequences, columns)) {
            let to = dev.alloc(region, DType::U32, &[room])?;
            let (want, got) = (format!("{room} words"), list.len().to_string());
            check::that("paged_attention::Decode", list.len() <= room, want, got)?;
            // What is behind a list's end is not read.
            dev.write(to.slice(0, list.len()), &list)?;
            lists.push(to);
        }
        let (lists, shares) = ([lists[0], lists[1], lists[2]], split.shares());
        Ok(Decode { lists, tickets, shares, together: split.together() })
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
    for (list, room) in decode.lists.into_iter().zip(Split::room(sequences, columns)) {
        check::tensor(op, "the items", list, DType::U32, &[room])?;
    }
    let tickets = decode.tickets;
    check::that(
        op,
        tickets.len() >= sequences * heads.kv * each(heads),
        "tickets of each sequence",
        tickets.len().to_string(),
    )?;
    let [k, v] = [paged.cache.k, paged.cache.v].map(|t| gpu.ptr(t));
    let (blocks, lists) = (paged.cache.blocks(), decode.lists.map(|t| gpu.ptr(t)));
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
            members: lists[2],
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
        let rows = heads.kv * heads.group().div_ceil(ROWS);
        let ctas = (CTAS * gpu.driver.properties().multiprocessors as usize).div_ceil(rows).min(most);
        let grid = [check::grid(op, ctas)?, check::grid(op, rows)?, 1];
        gpu.launch("paged_attention", kernel, Launch::new(grid, launch::THREADS, together_smem(kept)), &args)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::listing::{Entry, Listing};
    use crate::device::{Kind, Plan, Properties};
    use crate::ops::paged_attention::{DecodeStep, KvCache, fwd};

    /// The shape of the launch of a step of so many sequences of so many keys each, whose tables have 257 columns.
    fn grid(sequences: usize, keys: u32) -> [u32; 3] {
        let properties = Properties {
            name: "none".into(),
            compute_capability: (8, 0),
            multiprocessors: 108,
            memory: 1 << 40,
            shared_memory_per_block: 163 << 10,
            driver: "none".into(),
        };
        let dev = &mut Device::gpu(Box::new(Listing::new(properties)), Kind::Cuda, &Plan::uniform(1 << 42)).unwrap();
        let (heads, at) = (Heads { q: 28, kv: 4, dim: 128 }, Region::Overlay);
        let (cu, contexts) = ((0..=sequences as u32).collect::<Vec<_>>(), vec![keys; sequences]);
        let tables: Vec<u32> = (0..257 * sequences as u32).collect();
        let step = DecodeStep { cu_seqlens_q: &cu, context_lens: &contexts, block_tables: &tables };
        let split = Split::new(step, together(dev, heads)).unwrap();
        let tickets = Decode::tickets(dev, at, sequences, heads).unwrap();
        let cache = KvCache::alloc(dev, at, DType::Bf16, tables.len(), heads).unwrap();
        let [qkv, out] =
            [heads.qkv_len(), heads.out_len()].map(|n| dev.alloc(at, DType::Bf16, &[sequences, n]).unwrap());
        let paged = Paged {
            cache: &cache,
            block_tables: dev.upload(at, &tables, &[sequences, 257]).unwrap(),
            cu_seqlens_q: dev.upload(at, &cu, &[sequences + 1]).unwrap(),
            context_lens: dev.upload(at, &contexts, &[sequences]).unwrap(),
            heads,
            scale: 1.0,
            decode: Some(Decode::upload(dev, at, &split, tickets).unwrap()),
        };
        fwd(dev, paged, qkv, out).unwrap();
        match dev.driver().unwrap().as_any().downcast_mut::<Listing>().unwrap().take()[..] {
            [Entry::Launch("paged_attention_decode_hd128", Launch { grid, .. }, _)] => grid,
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_step_has_no_more_ctas_than_a_card_holds() {
        assert_eq!([grid(1, 28_000), grid(1024, 1000)], [[17, 4, 1], [108, 4, 1]]);
    }
}

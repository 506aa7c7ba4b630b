//! Tests of kernels/kv_cache.cu: every cell of the pages.

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::{BLOCK, Heads};
use omr_runtime::ops::paged_attention::{KvCache, store, store_rows};
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{normals, random, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

const BLOCKS: usize = 5;

/// (tokens, heads): head sizes that are and are not multiples of 16 bytes, grouped heads, one token, no token.
const SHAPES: [(usize, (usize, usize, usize)); 6] =
    [(9, (14, 2, 64)), (130, (3, 1, 12)), (70, (4, 2, 24)), (1, (2, 2, 80)), (0, (2, 1, 16)), (33, (7, 1, 128))];

/// Returns distinct slots of the cache. With more than 5 tokens, two slots are past the end of the cache.
fn slots(t: usize) -> Vec<u32> {
    let mut all: Vec<u32> = (0..(BLOCKS * BLOCK) as u32).collect();
    random(t as u64).shuffle(&mut all);
    all.truncate(t);
    if t > 5 {
        (all[2], all[5]) = ((BLOCKS * BLOCK) as u32, u32::MAX);
    }
    all
}

/// Returns the pages of k, then those of v, after a store into pages of ones: of row i into slot i, or of the rows
/// `from`.
fn run(dev: &mut Device, qkv: &[bf16], from: Option<&[u32]>, slots: &[u32], heads: Heads) -> Outcome<Vec<bf16>> {
    let cache = KvCache::alloc(dev, Region::Overlay, DType::Bf16, BLOCKS, heads)?;
    let ones = vec![bf16::ONE; cache.k.len()];
    dev.write(cache.k, &ones)?;
    dev.write(cache.v, &ones)?;
    let qkv = up(dev, qkv, &[qkv.len() / heads.qkv_len(), heads.qkv_len()]);
    let slot_mapping = up(dev, slots, &[slots.len()]);
    match from {
        None => store(dev, qkv, slot_mapping, &cache)?,
        Some(from) => {
            let from = up(dev, from, &[slots.len()]);
            store_rows(dev, qkv, from, slot_mapping, &cache)?;
        }
    }
    let mut pages = dev.read::<bf16>(cache.k)?;
    pages.extend(dev.read::<bf16>(cache.v)?);
    Ok(pages)
}

/// Returns the expected `[k, v][block][kv head][position][dim]` after `from[i]` was stored in slot i.
fn expected(qkv: &[bf16], from: &[u32], slots: &[u32], heads: Heads) -> Vec<bf16> {
    let (dim, len) = (heads.dim, BLOCKS * heads.kv * BLOCK * heads.dim);
    let mut pages = vec![bf16::ONE; 2 * len];
    for (&t, &slot) in from.iter().zip(slots).filter(|(t, _)| (**t as usize) < qkv.len() / heads.qkv_len()) {
        let (block, position) = (slot as usize / BLOCK, slot as usize % BLOCK);
        for head in 0..2 * heads.kv {
            if block < BLOCKS {
                let cell = (block * heads.kv + head % heads.kv) * BLOCK + position;
                let from = &qkv[t as usize * heads.qkv_len() + (heads.q + head) * dim..][..dim];
                pages[head / heads.kv * len + cell * dim..][..dim].copy_from_slice(from);
            }
        }
    }
    pages
}

fn probe(dev: &mut Device) -> Outcome {
    for (t, (q, kv, dim)) in SHAPES {
        let (heads, slots) = (Heads { q, kv, dim }, slots(t));
        let qkv = normals::<bf16>(t as u64, t * heads.qkv_len());
        let (got, rows) = (run(dev, &qkv, None, &slots, heads)?, (0..t as u32).collect::<Vec<_>>());
        equal(&format!("{t} x {q}:{kv} x {dim}"), &got, &expected(&qkv, &rows, &slots, heads))?;
        // Two rows go to all slots, and one slot gets a row that does not exist.
        let from: Vec<u32> = rows.iter().map(|i| if *i == 7 { t as u32 } else { i % 2 * (t as u32 / 2) }).collect();
        let got = run(dev, &qkv, Some(&from), &slots, heads)?;
        equal(&format!("rows of {t} x {q}:{kv} x {dim}"), &got, &expected(&qkv, &from, &slots, heads))?;
    }
    Ok(())
}

#[test]
fn every_cell_holds_what_was_stored() {
    probe(&mut emu()).unwrap();
    let heads = Heads { q: 3, kv: 1, dim: 12 };
    same_bits(4, |dev| run(dev, &normals::<bf16>(1, 130 * heads.qkv_len()), None, &slots(130), heads));
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("if (block >= args.blocks) return Place{nullptr, nullptr};", ""),
        ("key ? head : head - args.heads", "head"),
        ("args.skip + column", "column"),
        ("slot % BLOCK;", "slot % (BLOCK - 1);"),
        ("args.from == nullptr ? row : args.from[row]", "row"),
    ] {
        mutate_source("kv_cache", from, to, 1, probe);
    }
}

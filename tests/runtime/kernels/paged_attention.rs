//! Tests of kernels/paged_attention.cu: bitwise identical to kernels/attention.cu. A row has the same bits in training,
//! in prefill that is cut into chunks anywhere, and in one-token decode, whatever else is in the batch. attention.rs
//! compares attention.cu with the CPU and the formula.

use half::bf16;
use omr_runtime::device::{Device, Region};
use omr_runtime::ops::attend::{BLOCK, Heads};
use omr_runtime::ops::paged_attention::{self, Decode, DecodeStep, KvCache, Paged, Split};
use omr_runtime::tensor::DType;

use crate::kernels::attention::{Case, heads};
use crate::kernels::inputs::{blank, normals, up};
use crate::kernels::{Outcome, emu, emulator, equal, mutate_sites, mutate_source, same_bits, skipped};

/// Returns the work items of a step in which no sequence has more than one new token.
fn items(dev: &mut Device, cu: &[u32], contexts: &[u32], tables: &[u32], heads: Heads) -> Outcome<Decode> {
    let step = DecodeStep { cu_seqlens_q: cu, context_lens: contexts, block_tables: tables };
    Ok(Decode::of(dev, Region::Overlay, step, heads)?)
}

/// Returns the outputs of paged attention over a cache of shuffled blocks that were full of NaN, with `step(sequence,
/// tokens done)` tokens of each sequence at a time. Sequences that are done stay in the call, without tokens.
pub fn paged(case: &Case, dev: &mut Device, step: impl Fn(usize, usize) -> usize) -> Outcome<Vec<bf16>> {
    let (heads, sequences, width) = (case.heads, case.cu.len() - 1, case.heads.qkv_len());
    let lens: Vec<usize> = case.cu.windows(2).map(|w| (w[1] - w[0]) as usize).collect();
    let columns = lens.iter().map(|n| n.div_ceil(BLOCK)).max().unwrap();
    // 7 is coprime to the number of blocks, so that neighbours in a sequence are not adjacent in memory.
    let blocks = (sequences * columns + 1..).find(|n| n % 7 != 0).unwrap();
    let table = |s: usize, b: usize| ((s * columns + b) * 7 % blocks) as u32;
    let mark = dev.mark(Region::Overlay);
    let cache = KvCache::alloc(dev, Region::Overlay, DType::Bf16, blocks, heads)?;
    dev.write(cache.k, &vec![bf16::NAN; cache.k.len()])?;
    dev.write(cache.v, &vec![bf16::NAN; cache.v.len()])?;
    let (mut out, mut done) = (vec![bf16::ZERO; case.t() * heads.out_len()], vec![0usize; sequences]);
    while (0..sequences).any(|s| done[s] < lens[s]) {
        let (mut qkv, mut slots, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let (mut cu, mut contexts, mut tables) = (vec![0u32], Vec::new(), Vec::new());
        for s in 0..sequences {
            let new = done[s]..(done[s] + step(s, done[s])).min(lens[s]);
            let first = case.cu[s] as usize;
            qkv.extend_from_slice(&case.qkv[(first + new.start) * width..(first + new.end) * width]);
            slots.extend(new.clone().map(|p| table(s, p / BLOCK) * BLOCK as u32 + (p % BLOCK) as u32));
            rows.extend(new.clone().map(|p| first + p));
            cu.push(rows.len() as u32);
            contexts.push(new.end as u32);
            tables.extend((0..columns).map(|b| table(s, b)));
            done[s] = new.end;
        }
        let mark = dev.mark(Region::Overlay);
        let qkv = up(dev, &qkv, &[rows.len(), width]);
        let decode = match cu.windows(2).all(|w| w[1] - w[0] <= 1) {
            true => Some(items(dev, &cu, &contexts, &tables, heads)?),
            false => None,
        };
        let slots = up(dev, &slots, &[rows.len()]);
        let (cu, contexts) = (up(dev, &cu, &[sequences + 1]), up(dev, &contexts, &[sequences]));
        let tables = up(dev, &tables, &[sequences, columns]);
        let y = blank(dev, DType::Bf16, &[rows.len(), heads.out_len()]);
        paged_attention::store(dev, qkv, slots, &cache)?;
        paged_attention::fwd(
            dev,
            Paged {
                cache: &cache,
                block_tables: tables,
                cu_seqlens_q: cu,
                context_lens: contexts,
                heads,
                scale: case.scale(),
                decode,
            },
            qkv,
            y,
        )?;
        for (row, y) in rows.iter().zip(dev.read::<bf16>(y)?.chunks_exact(heads.out_len())) {
            out[row * heads.out_len()..][..heads.out_len()].copy_from_slice(y);
        }
        dev.release(mark);
    }
    dev.release(mark);
    Ok(out)
}

/// Processes the last `n` tokens of each sequence one at a time, and everything before them at once.
fn decode(case: &Case, n: usize) -> impl Fn(usize, usize) -> usize {
    let lens: Vec<usize> = case.cu.windows(2).map(|w| (w[1] - w[0]) as usize).collect();
    move |s, done| if done + n < lens[s] { lens[s] - n - done } else { 1 }
}

/// A decode step over a cache of shuffled pages. The first `shared` pages are the same in all sequences.
pub struct Step {
    heads: Heads,
    contexts: Vec<u32>,
    tables: Vec<u32>,
    cache: [Vec<bf16>; 2],
    qkv: Vec<bf16>,
}

impl Step {
    pub fn new(heads: Heads, contexts: &[usize], shared: usize) -> Step {
        let columns = contexts.iter().map(|n| n.div_ceil(BLOCK)).max().unwrap();
        let blocks = (contexts.len() * columns + 1..).find(|n| n % 7 != 0).unwrap();
        let (mut tables, page) = (Vec::new(), BLOCK * heads.dim);
        let mut cache = [3, 5].map(|seed| normals(seed, blocks * heads.kv * page));
        for (s, keys) in contexts.iter().enumerate() {
            for b in 0..columns {
                let own = if b < shared { 0 } else { s };
                let at = (own * columns + b) * 7 % blocks;
                tables.push(at as u32);
                // Elements of the cache that were never stored may have any value, so they become NaN.
                let used = keys.saturating_sub(b * BLOCK).min(BLOCK);
                for page in cache.iter_mut().flat_map(|x| x[at * heads.kv * page..][..heads.kv * page].chunks_mut(page))
                {
                    if b >= shared {
                        page[used * heads.dim..].fill(bf16::NAN);
                    }
                }
            }
        }
        let contexts: Vec<u32> = contexts.iter().map(|&n| n as u32).collect();
        let qkv = normals(7, contexts.len() * heads.qkv_len());
        Step { heads, contexts, tables, cache, qkv }
    }

    /// Returns the outputs: cut into items of at most `together` sequences, or by the prefill kernel if `None`.
    pub fn run(&self, dev: &mut Device, together: Option<usize>) -> Outcome<Vec<bf16>> {
        let (heads, n) = (self.heads, self.contexts.len());
        let (columns, cu) = (self.tables.len() / n, (0..=n as u32).collect::<Vec<_>>());
        let mark = dev.mark(Region::Overlay);
        let dims = [self.cache[0].len() / (heads.kv * BLOCK * heads.dim), heads.kv, BLOCK, heads.dim];
        let [k, v] = [0, 1].map(|i| up(dev, &self.cache[i], &dims));
        let qkv = up(dev, &self.qkv, &[n, heads.qkv_len()]);
        let y = blank(dev, DType::Bf16, &[n, heads.out_len()]);
        let tickets = Decode::tickets(dev, Region::Overlay, n, heads)?;
        let decode = match together {
            Some(together) => {
                let (context_lens, block_tables) = (&self.contexts, &self.tables);
                let split = Split::new(DecodeStep { cu_seqlens_q: &cu, context_lens, block_tables }, together)?;
                assert_eq!(split.shares(), together > 1);
                Some(Decode::upload(dev, Region::Overlay, &split, tickets)?)
            }
            None => None,
        };
        let paged = Paged {
            cache: &KvCache { k, v },
            block_tables: up(dev, &self.tables, &[n, columns]),
            cu_seqlens_q: up(dev, &cu, &[n + 1]),
            context_lens: up(dev, &self.contexts, &[n]),
            heads,
            scale: 1.0 / (heads.dim as f32).sqrt(),
            decode,
        };
        paged_attention::fwd(dev, paged, qkv, y)?;
        let first = dev.read::<bf16>(y)?;
        // A captured step finds the tickets in the same state as the first run.
        paged_attention::fwd(dev, paged, qkv, y)?;
        equal("once more", &dev.read::<bf16>(y)?, &first)?;
        assert!(dev.read::<u32>(tickets)?.iter().all(|&n| n == 0), "tickets are zeros again");
        dev.release(mark);
        Ok(first)
    }

    /// Checks that the bits equal those of prefill, however the step is cut into items.
    pub fn check(&self, dev: &mut Device, together: usize) -> Outcome {
        let want = self.run(dev, None)?;
        for together in [1, together].into_iter().take(together.min(2)) {
            let what = format!("{together} in an item, {:?} {:?}", self.heads, self.contexts);
            equal(&what, &self.run(dev, Some(together))?, &want)?;
        }
        Ok(())
    }
}

/// Sequence lengths near a block (128 keys) and a chunk (2,048 keys), and a length of three chunks.
pub const LENGTHS: [usize; 8] = [1, 127, 128, 129, 2047, 2048, 2049, 4100];

#[test]
fn decode_by_chunks_has_the_bits_of_prefill() {
    let dev = &mut emu();
    Step::new(heads(7, 1, 128), &LENGTHS, 0).check(dev, 1).unwrap();
    for (q, kv, dim) in [(16, 2, 64), (5, 1, 64), (8, 1, 80), (5, 1, 80), (40, 2, 8)] {
        Step::new(heads(q, kv, dim), &[129, 2049], 0).check(dev, 1).unwrap();
    }
}

#[test]
fn keys_read_for_several_sequences_leave_the_bits() {
    let dev = &mut emu();
    // Shared prefixes: within a chunk, more than a complete chunk, and exactly one chunk.
    for (shared, contexts) in
        [(2, &[300, 257, 500, 270, 431][..]), (17, &[2300, 2177, 4200]), (16, &[2100, 2050, 2400])]
    {
        Step::new(heads(7, 1, 16), contexts, shared).check(dev, 2).unwrap();
        Step::new(heads(4, 2, 12), contexts, shared).check(dev, 8).unwrap();
    }
}

pub fn check(case: &Case, dev: &mut Device, tail: usize) -> Outcome {
    let (want, _) = case.run(dev, true, case.t())?;
    let what = |how: &str| format!("{how}, {:?} {:?}", case.heads, case.cu);
    equal(&what("whole prompts"), &paged(case, dev, |_, _| usize::MAX / 2)?, &want)?;
    let uneven = |s: usize, done: usize| [97, 61, 1, 128, 33][(s + done / 50) % 5];
    equal(&what("uneven chunks"), &paged(case, dev, uneven)?, &want)?;
    equal(&what("decode"), &paged(case, dev, decode(case, tail))?, &want)
}

#[test]
fn training_prefill_and_decode_agree_to_the_bit() {
    let dev = &mut emu();
    for (q, kv, dim) in [(28, 4, 16), (16, 2, 32), (40, 8, 8), (64, 8, 16), (2, 2, 80), (3, 1, 64)] {
        check(&Case::new(heads(q, kv, dim), &[1, 0, 40, 11]), dev, 3).unwrap();
    }
    for (q, kv, dim) in [(7, 1, 128), (2, 1, 12), (5, 1, 24)] {
        check(&Case::new(heads(q, kv, dim), &[128, 1, 131]), dev, 5).unwrap();
    }
}

#[test]
fn every_token_decoded_from_the_first_agrees_to_the_bit() {
    let (dev, case) = (&mut emu(), Case::new(heads(2, 1, 16), &[140, 1, 129]));
    let got = paged(&case, dev, |_, _| 1).unwrap();
    equal("one by one", &got, &case.run(dev, true, 140).unwrap().0).unwrap();
}

#[test]
fn agrees_to_the_bit_over_chunk_borders() {
    let (dev, case) = (&mut emu(), Case::new(heads(2, 1, 4), &[2060, 5]));
    let (want, _) = case.run(dev, true, 2060).unwrap();
    equal("prefill", &paged(&case, dev, |_, _| 2050).unwrap(), &want).unwrap();
    // Rows with 2,048 keys and with one more.
    equal("decode", &paged(&case, dev, decode(&case, 14)).unwrap(), &want).unwrap();
}

/// The decoded tail of 4,100 keys crosses two chunk borders.
#[test]
fn three_chunks_are_folded_in_order() {
    let (dev, case) = (&mut emu(), Case::new(heads(1, 1, 4), &[4100]));
    let (want, _) = case.run(dev, true, 4100).unwrap();
    equal("decode", &paged(&case, dev, decode(&case, 6)).unwrap(), &want).unwrap();
}

/// Requires that rows without keys become zeros in prefill. The unused rows of a CUDA graph are sequences of one token
/// without keys.
pub fn rows_without_keys_are_zeros(dev: &mut Device, heads: Heads) -> Outcome {
    const ROWS: usize = 5;
    let cache = KvCache::alloc(dev, Region::Overlay, DType::Bf16, 1, heads)?;
    let qkv = up(dev, &vec![bf16::NAN; ROWS * heads.qkv_len()], &[ROWS, heads.qkv_len()]);
    let borders: Vec<u32> = (0..=ROWS as u32).collect();
    let (tables, cu) = (up(dev, &[0u32; ROWS], &[ROWS, 1]), up(dev, &borders, &[ROWS + 1]));
    let contexts = up(dev, &[0u32; ROWS], &[ROWS]);
    let y = blank(dev, DType::Bf16, &[ROWS, heads.out_len()]);
    let paged = Paged {
        cache: &cache,
        block_tables: tables,
        cu_seqlens_q: cu,
        context_lens: contexts,
        heads,
        scale: 1.0,
        decode: None,
    };
    paged_attention::fwd(dev, paged, qkv, y)?;
    let zeros = dev.read::<bf16>(y)?.iter().all(|x| *x == bf16::ZERO);
    if zeros { Ok(()) } else { Err("a row without keys is not zero".into()) }
}

#[test]
fn a_row_without_keys_is_zero() {
    rows_without_keys_are_zeros(&mut emu(), heads(2, 1, 16)).unwrap();
}

#[test]
fn the_same_bits_under_every_schedule() {
    let case = Case::new(heads(7, 1, 16), &[131, 30]);
    let whole = same_bits(5, |dev| paged(&case, dev, |_, _| 200));
    let tail = same_bits(5, |dev| paged(&case, dev, decode(&case, 2)));
    equal("decode", &tail, &whole).unwrap();
}

/// Returns a step over two chunks. The sequences share the first chunk and some keys of the second.
fn step() -> Step {
    Step::new(heads(2, 1, 16), &[2310, 2200, 300], 17)
}

#[test]
fn the_last_of_a_sequence_to_arrive_is_any() {
    let step = step();
    let apart = same_bits(8, |dev| step.run(dev, Some(1)));
    let together = same_bits(8, |dev| step.run(dev, Some(8)));
    equal("together", &together, &apart).unwrap();
}

#[test]
fn each_call_that_joins_chunks_is_needed() {
    let step = step();
    let want = step.run(&mut emu(), None).unwrap();
    mutate_sites(&["kernels/common/attend_item.cuh"], 8, |dev| {
        equal("apart", &step.run(dev, Some(1))?, &want)?;
        equal("together", &step.run(dev, Some(8))?, &want)
    });
}

/// Runs prefill over two blocks and across a chunk, then decode.
fn probe(dev: &mut Device) -> Outcome {
    let case = Case::new(heads(2, 1, 16), &[131, 4]);
    let (want, _) = case.run(&mut emu(), true, 131)?;
    equal("prefill", &paged(&case, dev, |_, done| [100, 29][(done > 0) as usize])?, &want)?;
    equal("decode", &paged(&case, dev, decode(&case, 3))?, &want)
}

#[test]
fn each_synchronising_call_is_needed() {
    mutate_sites(&["kernels/paged_attention.cu", "kernels/common/attend_tile.cuh"], 4, probe);
}

#[test]
fn a_context_off_by_one_is_seen() {
    mutate_source("common/attend_calls.cuh", "- tokens + 1", "- tokens", 1, probe);
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn mutations_are_seen() {
    for (file, from, to) in [
        ("paged_attention", "(int64_t)place.sequence * args.columns", "(int64_t)place.sequence"),
        ("paged_attention", "table[b] * page", "table[0] * page"),
        ("common/attend_calls.cuh", "rows.step = 1;", "rows.step = 0;"),
        ("common/attend_tile.cuh", "first_key = warp() * 32", "first_key = warp() * 32 % 96"),
        ("common/attend_tile.cuh", "sum[i] += part[w * WARP_ROWS * 4]", "sum[i] += part[0]"),
        ("common/attend_tile.cuh", "most[0] = fmaxf(most[0], smem.most[w * WARP_ROWS + lane() / 4])", "(void)w"),
    ] {
        mutate_source(file, from, to, 1, probe);
    }
}

/// Checks through the public op that both kernels are used.
#[test]
fn decode_and_prefill_run_their_own_kernels() {
    if skipped("which lines of a kernel ran") {
        return;
    }
    let case = Case::new(heads(2, 1, 16), &[60]);
    let lines = |step: usize| {
        let dev = &mut emu();
        paged(&case, dev, |_, _| step).unwrap();
        let sites = emulator(dev).sites();
        sites.into_iter().filter(|(p, _)| p.site.file.ends_with("attend_tile.cuh")).map(|(p, _)| p.site.line).collect()
    };
    let (prefill, decode): (Vec<u32>, Vec<u32>) = (lines(60), lines(1));
    assert!(!prefill.is_empty() && !decode.is_empty() && prefill.iter().all(|l| !decode.contains(l)));
}

//! Tests the property on which the project depends: a row has bitwise identical results in training, in prefill with
//! any chunks, and in one-token decode, independent of the rest of the batch.

use half::bf16;
use omr_runtime::device::{Device, Isa, Region};
use omr_runtime::ops::attend::{BLOCK, Heads};
use omr_runtime::ops::attention;
use omr_runtime::ops::paged_attention::{self, KvCache, Paged};
use omr_runtime::tensor::{DType, Elem};

use super::reference::{Random, blank, device, instruction_sets, up};

/// Sequences and their packed qkv rows.
struct Case<T> {
    heads: Heads,
    lens: Vec<usize>,
    qkv: Vec<Vec<T>>,
}

impl<T: Elem> Case<T> {
    fn new(lens: &[usize], heads: Heads) -> Case<T> {
        let mut r = Random::new(9);
        let qkv = lens.iter().map(|n| r.values(n * heads.qkv_len())).collect();
        Case { heads, lens: lens.to_vec(), qkv }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.heads.dim as f32).sqrt()
    }

    /// Returns the outputs of `attention::fwd` over all packed sequences, split into sequences.
    fn training(&self, dev: &mut Device) -> Vec<Vec<T>> {
        let (t, heads) = (self.lens.iter().sum::<usize>(), self.heads);
        let mut cu = vec![0u32];
        self.lens.iter().for_each(|&n| cu.push(cu[cu.len() - 1] + n as u32));
        let qkv = up(dev, &self.qkv.concat(), &[t, heads.qkv_len()]);
        let cu_tensor = up(dev, &cu, &[cu.len()]);
        let (out, lse) = (blank(dev, T::DTYPE, &[t, heads.out_len()]), blank(dev, DType::F32, &[t, heads.q]));
        attention::fwd(
            dev,
            &attention::Pack {
                cu_seqlens: cu_tensor,
                max_seqlen: t,
                heads,
                causal: true,
                scale: self.scale(),
                pairs: 0,
            },
            qkv,
            out,
            lse,
        )
        .unwrap();
        let out: Vec<T> = dev.read(out).unwrap();
        cu.windows(2).map(|w| out[w[0] as usize * heads.out_len()..w[1] as usize * heads.out_len()].to_vec()).collect()
    }

    /// Returns the outputs through a cache with shuffled blocks that are filled with NaN. Each call processes
    /// `step(sequence, done)` tokens; a sequence with 0 tokens is not part of the call.
    fn paged(&self, dev: &mut Device, step: impl Fn(usize, usize) -> usize) -> Vec<Vec<T>> {
        let (heads, s) = (self.heads, self.lens.len());
        let columns = self.lens.iter().map(|n| n.div_ceil(BLOCK)).max().unwrap();
        let blocks = s * columns + 3;
        let cache = KvCache {
            k: blank(dev, T::DTYPE, &[blocks, heads.kv, heads.dim, BLOCK]),
            v: blank(dev, T::DTYPE, &[blocks, heads.kv, BLOCK, heads.dim]),
        };
        // 7 is coprime to the block counts used here, so neighbouring blocks of a sequence are not adjacent.
        assert_ne!(blocks % 7, 0);
        let table = |s: usize, b: usize| ((s * columns + b) * 7 % blocks) as u32;
        let mut out: Vec<Vec<T>> = vec![Vec::new(); s];
        let mut done = vec![0usize; s];
        while (0..s).any(|i| done[i] < self.lens[i]) {
            let (mut qkv, mut cu, mut contexts, mut tables, mut slots) = (vec![], vec![0u32], vec![], vec![], vec![]);
            let mut rows = Vec::new();
            for (i, done) in done.iter_mut().enumerate() {
                let n = step(i, *done).min(self.lens[i] - *done);
                if n == 0 {
                    continue;
                }
                qkv.extend_from_slice(&self.qkv[i][*done * heads.qkv_len()..(*done + n) * heads.qkv_len()]);
                let slot = |p: usize| table(i, p / BLOCK) * BLOCK as u32 + (p % BLOCK) as u32;
                slots.extend((*done..*done + n).map(slot));
                *done += n;
                cu.push(cu[cu.len() - 1] + n as u32);
                contexts.push(*done as u32);
                tables.extend((0..columns).map(|b| table(i, b)));
                rows.push((i, n));
            }
            let marks = [dev.mark(Region::Weights), dev.mark(Region::State)];
            let t = slots.len();
            let qkv = up(dev, &qkv, &[t, heads.qkv_len()]);
            let slots = up(dev, &slots, &[t]);
            let cu = up(dev, &cu, &[rows.len() + 1]);
            let contexts = up(dev, &contexts, &[rows.len()]);
            let tables = up(dev, &tables, &[rows.len(), columns]);
            let y = blank(dev, T::DTYPE, &[t, heads.out_len()]);
            paged_attention::store(dev, qkv, slots, &cache).unwrap();
            paged_attention::fwd(
                dev,
                Paged {
                    cache: &cache,
                    block_tables: tables,
                    cu_seqlens_q: cu,
                    context_lens: contexts,
                    heads,
                    scale: self.scale(),
                    decode: None,
                },
                qkv,
                y,
            )
            .unwrap();
            let y: Vec<T> = dev.read(y).unwrap();
            let mut y = y.as_slice();
            for (i, n) in rows {
                let (mine, rest) = y.split_at(n * heads.out_len());
                out[i].extend_from_slice(mine);
                y = rest;
            }
            marks.into_iter().for_each(|m| dev.release(m));
        }
        out
    }
}

fn same<T: Elem>(want: &[Vec<T>], got: &[Vec<T>], what: &str) {
    for (i, (want, got)) in want.iter().zip(got).enumerate() {
        let bytes = |x: &[T]| bytemuck::cast_slice::<T, u8>(x).to_vec();
        assert!(bytes(want) == bytes(got), "{what}: sequence {i} differs");
    }
}

const LENGTHS: [usize; 8] = [1, 127, 128, 129, 2047, 2048, 2049, 4500];

fn training_is_prefill<T: Elem>(threads: usize, isa: Isa, heads: Heads, lens: &[usize]) {
    let case = Case::<T>::new(lens, heads);
    let want = case.training(&mut device(threads, isa));
    let what = |how: &str| format!("{how}, {threads} threads, {isa:?}, {heads:?}");
    same(&want, &case.paged(&mut device(threads, isa), |_, _| usize::MAX), &what("whole prompts"));
    same(&want, &case.paged(&mut device(threads, isa), |_, _| 512), &what("chunks of 512"));
    // Chunks of different sizes, so that the sequences are at different positions in one call.
    let uneven = |i: usize, done: usize| [97, 300, 0, 128, 33, 1000][(i + done / 50) % 6].max(done % 2);
    let uneven = |i: usize, done: usize| if uneven(i, done) == 0 { 61 } else { uneven(i, done) };
    same(&want, &case.paged(&mut device(threads, isa), uneven), &what("uneven chunks"));
}

#[test]
fn training_and_prefill_agree_to_the_bit() {
    let heads = Heads { q: 3, kv: 1, dim: 32 };
    training_is_prefill::<f32>(2, Isa::detect(), heads, &LENGTHS);
    training_is_prefill::<bf16>(2, Isa::detect(), heads, &LENGTHS);
    for (q, kv, dim) in [(7, 1, 128), (4, 2, 12), (2, 2, 80)] {
        training_is_prefill::<f32>(2, Isa::detect(), Heads { q, kv, dim }, &[129, 2049, 300]);
        training_is_prefill::<bf16>(2, Isa::detect(), Heads { q, kv, dim }, &[129, 2049, 300]);
    }
}

#[test]
fn decode_agrees_to_the_bit() {
    for (q, kv, dim) in [(3, 1, 32), (14, 2, 16), (2, 1, 24)] {
        // The last 20 tokens of each sequence are decoded one at a time, all sequences together.
        let heads = Heads { q, kv, dim };
        let f32 = Case::<f32>::new(&LENGTHS, heads);
        let lens = f32.lens.clone();
        let decode = |i: usize, done: usize| if done + 20 < lens[i] { lens[i] - 20 - done } else { 1 };
        let want = f32.training(&mut device(2, Isa::detect()));
        same(&want, &f32.paged(&mut device(2, Isa::detect()), decode), "decode");
        let bf16 = Case::<bf16>::new(&LENGTHS, heads);
        let want = bf16.training(&mut device(2, Isa::detect()));
        same(&want, &bf16.paged(&mut device(2, Isa::detect()), decode), "decode in bf16");
    }
}

#[test]
fn every_token_decoded_from_the_first_agrees_to_the_bit() {
    let case = Case::<f32>::new(&[300, 1, 129], Heads { q: 3, kv: 1, dim: 32 });
    let want = case.training(&mut device(2, Isa::detect()));
    same(&want, &case.paged(&mut device(1, Isa::detect()), |_, _| 1), "decode");
}

#[test]
fn threads_and_instruction_sets_agree_bit_for_bit() {
    let heads = Heads { q: 3, kv: 1, dim: 24 };
    let case = Case::<f32>::new(&[1, 2049, 127, 129, 5], heads);
    let rounded = Case::<bf16>::new(&[1, 2049, 127, 129, 5], heads);
    let decode = |_: usize, done: usize| if done < 2040 { 120 } else { 1 };
    let want = case.training(&mut device(1, Isa::Portable));
    let want_rounded = rounded.training(&mut device(1, Isa::Portable));
    for isa in instruction_sets() {
        // The portable kernel variants are slow on machines where fused products are a library call, so they use only
        // one thread count.
        for threads in if isa == Isa::Portable { vec![2] } else { vec![1, 2, 5] } {
            let what = format!("{isa:?}, {threads} threads");
            same(&want, &case.training(&mut device(threads, isa)), &what);
            same(&want, &case.paged(&mut device(threads, isa), decode), &what);
            same(&want_rounded, &rounded.training(&mut device(threads, isa)), &what);
            same(&want_rounded, &rounded.paged(&mut device(threads, isa), decode), &what);
        }
    }
}

#[test]
fn bad_tables_are_errors() {
    let dev = &mut device(1, Isa::Portable);
    let heads = Heads { q: 1, kv: 1, dim: 2 };
    let cache = KvCache::alloc(dev, Region::Overlay, DType::F32, 4, heads).unwrap();
    let qkv = up(dev, &[0.0f32; 12], &[2, 6]);
    let out = blank(dev, DType::F32, &[2, 2]);
    let cu = up(dev, &[0u32, 2], &[2]);
    for (context, table, slot) in [(1u32, 0u32, 0u32), (129, 0, 0), (2, 4, 0), (2, 0, 512)] {
        let contexts = up(dev, &[context], &[1]);
        let tables = up(dev, &[table], &[1, 1]);
        let slots = up(dev, &[slot, 1], &[2]);
        let stored = paged_attention::store(dev, qkv, slots, &cache);
        let done = paged_attention::fwd(
            dev,
            Paged {
                cache: &cache,
                block_tables: tables,
                cu_seqlens_q: cu,
                context_lens: contexts,
                heads,
                scale: 1.0,
                decode: None,
            },
            qkv,
            out,
        );
        assert!(stored.is_err() || done.is_err(), "{context} {table} {slot}");
    }
}

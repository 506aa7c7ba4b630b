//! Tests of kernels/attention_sm90a.cu and kernels/paged_attention_sm90a.cu: on the emulator, attention with wgmma is
//! bitwise identical to attention with mma.sync, in training, prefill and decode. On a GPU `variants::select_wgmma` checks
//! this at the start.

use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant, Kind, WgmmaKernels};
use omr_runtime::ops::attend::Heads;
use omr_runtime::ops::paged_attention;

use crate::kernels::attention::{Case, bits, heads};
use crate::kernels::gemm_sm90a::{both, wide, wide_with};
use crate::kernels::paged_attention::{LENGTHS, Step, paged, rows_without_keys_are_zeros};
use crate::kernels::{
    Outcome, emu, emulator, equal, hopper, kind, mutate_sites_on, mutate_source_of, no_hopper, same_bits_on, skipped,
};

const BODY: &str = "kernels/common/attend_sm90a.cuh";

/// Returns true if the kernel variant in this file ran, which its passed call sites show.
pub fn ran(dev: &mut Device, file: &str) -> bool {
    emulator(dev).sites().iter().any(|(passed, _)| passed.site.file == file)
}

/// Calls `packs` (heads, lengths, true if attention is causal) with every kind of sequences that have few keys.
pub fn short(packs: impl Fn(Heads, &[usize], bool)) {
    for len in [1, 127, 128, 129] {
        packs(heads(7, 1, 128), &[len], true);
    }
    packs(heads(2, 2, 80), &[129], false);
    packs(heads(8, 1, 80), &[129], true);
    packs(heads(5, 1, 128), &[129], true);
    // Windows of the vision tower, and complete images.
    packs(heads(2, 2, 80), &[64, 1, 130, 0, 63], false);
    // Sequences that do not fill a tile, and some without tokens.
    packs(heads(7, 1, 128), &[3, 0, 40, 131, 0, 1], true);
}

/// Calls `packs` with sequences about as long as a chunk.
pub fn long(packs: impl Fn(Heads, &[usize], bool)) {
    for len in [2047, 2048, 2049] {
        packs(heads(7, 1, 128), &[len], true);
    }
    for (group, dim) in [(8, 80), (5, 80), (5, 128)] {
        packs(heads(group, 1, dim), &[2049], true);
    }
}

/// Compares outputs and log-sum-exps of a pack between both kernel variants.
fn packs(heads: Heads, lens: &[usize], causal: bool) {
    let case = Case::new(heads, lens);
    both(&format!("{heads:?} {lens:?} causal {causal}"), |dev| Ok(bits(case.run(dev, causal, case.t())?)));
}

/// Compares both kernel variants on the last `tail` tokens of sequences of these lengths, over a cache of shuffled
/// pages full of NaN.
fn prefills(heads: Heads, lens: &[usize], tail: usize) {
    let case = Case::new(heads, lens);
    let step = |s: usize, done: usize| {
        let len = lens[s];
        if done + tail < len { len - tail - done } else { tail }
    };
    both(&format!("prefill {heads:?} {lens:?}"), |dev| paged(&case, dev, step));
}

#[test]
fn a_sequence_of_any_length_has_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    short(packs);
}

#[test]
fn prefill_has_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    prefills(heads(7, 1, 128), &[140, 33], 33);
    prefills(heads(4, 2, 80), &[257, 129, 64], 64);
}

#[test]
fn decode_by_chunks_has_the_bits_of_prefill_and_of_the_other_variant() {
    if no_hopper("wgmma") {
        return;
    }
    let dev = &mut wide();
    let step = Step::new(heads(7, 1, 128), &LENGTHS, 0);
    step.check(dev, 1).unwrap();
    both("decode", |dev| step.run(dev, Some(1)));
    for (q, kv, dim) in [(8, 1, 128), (5, 1, 80), (16, 2, 80), (20, 1, 80)] {
        Step::new(heads(q, kv, dim), &[129, 2049], 0).check(dev, 1).unwrap();
    }
    assert!(kind() == Kind::Cuda || ran(dev, BODY));
}

#[test]
fn keys_read_for_several_sequences_leave_the_bits() {
    if no_hopper("wgmma") {
        return;
    }
    let dev = &mut wide();
    for (group, contexts, shared) in [
        (7, &[300, 257, 500, 270, 431][..], 2),
        (3, &[2310, 2177, 2200], 17),
        (20, &[2100, 2050], 16),
        (40, &[140, 290], 1),
    ] {
        let together = paged_attention::together(dev, heads(group, 1, 80));
        Step::new(heads(group, 1, 80), contexts, shared).check(dev, together).unwrap();
    }
}

#[test]
#[ignore = "two minutes"]
fn long_sequences_have_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    long(packs);
    packs(heads(1, 1, 80), &[4200, 1, 2048], false);
    // Three chunks, the last with one key.
    prefills(heads(7, 1, 128), &[4097, 2300], 150);
}

/// Returns a case with more blocks than stages, more tiles than CTAs, an incomplete last block, rows that do not fill a
/// warp, and a tile of one block.
fn case() -> Case {
    Case::new(heads(3, 1, 80), &[270, 0, 5])
}

#[test]
fn the_same_bits_under_every_schedule() {
    if no_hopper("wgmma") {
        return;
    }
    let case = case();
    let got = same_bits_on(wide_with, 6, |dev| Ok(bits(case.run(dev, true, 270)?)));
    if kind() == Kind::Emu {
        equal("mma.sync", &got, &bits(case.run(&mut emu(), true, 270).unwrap())).unwrap();
    }
}

/// The math warps wait for the values of a partial block until the producer has cleared them, also if the next tile of
/// the CTA has no keys. The last sequence is the first one of the grid.
#[test]
fn a_sequence_without_keys_after_a_partial_block_does_not_hang() {
    if no_hopper("wgmma") {
        return;
    }
    for contexts in [[0, 130], [130, 0], [0, 128]] {
        let step = Step::new(heads(2, 1, 80), &contexts, 0);
        let dev = &mut wide();
        dev.limit_ctas(Some(1));
        equal("mma.sync", &step.run(dev, None).unwrap(), &step.run(&mut emu(), None).unwrap()).unwrap();
    }
}

/// Returns two steps. In the first, two sequences share a prefix: a shared item covers it, and own items cover the
/// rest. One warpgroup computes the items of the first step, and both compute the items of the second.
fn steps() -> [Step; 2] {
    [Step::new(heads(6, 2, 80), &[270, 290, 5], 1), Step::new(heads(70, 1, 80), &[140, 5], 0)]
}

#[test]
fn decode_has_the_same_bits_under_every_schedule() {
    if no_hopper("wgmma") {
        return;
    }
    for step in steps() {
        same_bits_on(wide_with, 6, |dev| step.run(dev, Some(1)));
    }
    same_bits_on(wide_with, 6, |dev| steps()[0].run(dev, Some(16)));
}

/// Returns a probe that fails if a row has other bits than with mma.sync.
fn probe() -> impl Fn(&mut Device) -> Outcome {
    let (case, [short, both]) = (case(), steps());
    let want = bits(case.run(&mut emu(), true, 270).unwrap());
    // A second chunk, of one key.
    let chunks = Case::new(heads(1, 1, 80), &[2049]);
    let folded = bits(chunks.run(&mut emu(), true, 2049).unwrap());
    let decoded = [&short, &both].map(|step| step.run(&mut emu(), None).unwrap());
    move |dev| {
        dev.use_variant(KernelVariant::Wgmma)?;
        equal("mma.sync", &bits(case.run(dev, true, 270)?), &want)?;
        rows_without_keys_are_zeros(dev, heads(2, 1, 80))?;
        equal("chunks", &bits(chunks.run(dev, true, 2049)?), &folded)?;
        equal("decode", &short.run(dev, Some(16))?, &decoded[0])?;
        equal("decode apart", &short.run(dev, Some(1))?, &decoded[0])?;
        equal("decode of two warpgroups", &both.run(dev, Some(1))?, &decoded[1])
    }
}

#[test]
fn each_synchronising_call_is_needed() {
    if skipped("the bits of both kernel variants") {
        return;
    }
    mutate_sites_on(wide_with, &[BODY], 6, probe());
}

#[test]
fn a_key_behind_the_last_is_seen() {
    mutate_source_of(Arch::Sm90a, "common/attend_sm90a.cuh", "begin + BLOCK > tile.keys", "false", 1, |dev| {
        dev.use_variant(KernelVariant::Wgmma)?;
        let case = Case::new(heads(2, 1, 80), &[70]);
        equal("prefill", &paged(&case, dev, |_, _| 70)?, &case.run(&mut emu(), true, 70)?.0)
    });
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn mutations_are_seen() {
    for (file, from, to) in [
        ("common/attend_sm90a.cuh", "visible_keys.least < begin + BLOCK", "false"),
        ("common/attend.cuh", "least = rows.visible(from)", "least = rows.visible(from + WARP_ROWS - 1)"),
        (
            "common/attend_sm90a.cuh",
            "softmax(visible_keys, begin + BLOCK, scale)",
            "softmax(visible_keys, begin, scale)",
        ),
        (
            "common/attend_sm90a.cuh",
            "softmax(visible_keys, begin, scale);\n        tile::row_scale(state.o, alpha);",
            "softmax(visible_keys, begin, scale);",
        ),
        ("common/attend_sm90a.cuh", "            tile::row_scale(state.o, alpha);", ""),
        ("common/attend_sm90a.cuh", "fmaf(l.y, alpha[1], sum[1])", "l.y + sum[1]"),
        ("common/attend_sm90a.cuh", "math.state.fold(m, l, total, WARP);", ""),
        ("common/attend_sm90a.cuh", "gridDim.x + isa::shfl(taken, 0)", "gridDim.x + isa::shfl(taken, 0) + 1"),
        ("common/attend_sm90a.cuh", "tail_row = tile.keys - begin;", "tail_row = BLOCK;"),
        ("common/attend_sm90a.cuh", "group * GROUP_ROWS * PANEL", "0"),
        ("common/attend_sm90a.cuh", "tile.place.rows.from / group", "0"),
        ("attention_sm90a", "args.in.q_heads + args.in.kv_heads + tile.head", "args.in.q_heads + tile.head"),
        ("common/attend_calls.cuh", "args.causal ? 1 : 0", "0"),
        ("common/attend_item.cuh", "if (item.begin % CHUNK > 0)", "if (false)"),
    ] {
        mutate_source_of(Arch::Sm90a, file, from, to, 1, probe());
    }
}

#[test]
fn other_calls_run_on_the_other_variant() {
    if skipped("which kernel variant ran") {
        return;
    }
    let run = |heads: Heads, dev: &mut Device| {
        Case::new(heads, &[3]).run(dev, true, 3).unwrap();
        ran(dev, BODY)
    };
    assert!(run(heads(2, 1, 80), &mut wide()) && run(heads(7, 1, 128), &mut wide()));
    assert!(!run(heads(2, 1, 80), &mut hopper()), "products by mma.sync");
    for other in [heads(2, 1, 64), heads(2, 1, 72), heads(129, 1, 80)] {
        assert!(!run(other, &mut wide()), "{other:?}");
    }
    let dev = &mut wide();
    dev.refuse_wgmma(WgmmaKernels::Attention(80));
    assert!(!run(heads(2, 1, 80), dev) && run(heads(2, 1, 128), dev), "refused for one head size");
}

//! Tests of sequences that share a prompt: attention through pages that hold the prompt once, and its gradients by both
//! kernel variants.

use half::bf16;
use omr_runtime::device::images::Arch;
use omr_runtime::device::{Device, KernelVariant, Region};
use omr_runtime::ops::attend::{BLOCK, Heads};
use omr_runtime::ops::paged_attention::{self, KvCache, Paged};
use omr_runtime::tensor::DType;

use crate::kernels::attention::{Case, bits, heads};
use crate::kernels::attention_bwd::{GradCase, WHOLE};
use crate::kernels::gemm_sm90a::{both, wide, wide_with};
use crate::kernels::inputs::{blank, cpu, normals, random, up};
use crate::kernels::{
    Outcome, emu, equal, mutate_sites, mutate_sites_on, mutate_source, mutate_source_of, no_hopper, same_bits,
    same_bits_on, skipped,
};

const BODY: &str = "kernels/common/attend_bwd_sm90a.cuh";

/// Rows of a prompt, and of each of its responses. A sequence without responses shares nothing.
type Group<'a> = (usize, &'a [usize]);

/// Returns the lengths of the sequences, and the index of each sequence's prompt.
fn layout(groups: &[Group<'_>]) -> (Vec<usize>, Vec<u32>) {
    let (mut lens, mut prompt_of) = (Vec::new(), Vec::new());
    for (prompt, responses) in groups {
        prompt_of.resize(lens.len() + 1 + responses.len(), lens.len() as u32);
        lens.push(*prompt);
        lens.extend_from_slice(responses);
    }
    (lens, prompt_of)
}

/// Returns a case in which each sequence is whole, that is with its own copy of its prompt, and the row of that case
/// that each row of `case` is.
fn whole(case: &Case, prompt_of: &[u32]) -> (Case, Vec<usize>) {
    let rows_of = |s: usize| case.cu[s] as usize..case.cu[s + 1] as usize;
    let (mut cu, mut qkv, mut rows) = (vec![0u32], Vec::new(), Vec::new());
    for (s, &prompt) in prompt_of.iter().enumerate() {
        let prompt = if prompt as usize == s { 0..0 } else { rows_of(prompt as usize) };
        let first = cu[s] as usize + prompt.len();
        rows.extend((0..rows_of(s).len()).map(|i| first + i));
        cu.push((first + rows_of(s).len()) as u32);
        let width = case.heads.qkv_len();
        prompt.chain(rows_of(s)).for_each(|row| qkv.extend_from_slice(&case.qkv[row * width..][..width]));
    }
    (Case { heads: case.heads, cu, qkv }, rows)
}

/// Returns the rows of `x` with these numbers.
fn picked<T: Copy>(x: &[T], rows: &[usize], width: usize) -> Vec<T> {
    rows.iter().flat_map(|row| x[row * width..][..width].to_vec()).collect()
}

/// Returns a case with the outputs and log-sum-exps that its whole sequences have.
fn shared(heads: Heads, groups: &[Group<'_>]) -> GradCase {
    let (lens, prompt_of) = layout(groups);
    graded(Case::new(heads, &lens), prompt_of)
}

/// Returns a case whose scores are about -36 times the square root of the head dimension. A key that does not exist has
/// a score of 0, so its probability would be infinite.
fn negative(heads: Heads, groups: &[Group<'_>]) -> GradCase {
    let (lens, prompt_of) = layout(groups);
    let mut case = Case::new(heads, &lens);
    for (i, x) in case.qkv.iter_mut().enumerate() {
        let column = i % heads.qkv_len();
        if column < heads.out_len() + heads.kv * heads.dim {
            let middle = if column < heads.out_len() { 6.0 } else { -6.0 };
            *x = bf16::from_f32(0.1 * x.to_f32() + middle);
        }
    }
    graded(case, prompt_of)
}

fn graded(case: Case, prompt_of: Vec<u32>) -> GradCase {
    let heads = case.heads;
    let (whole, rows) = whole(&case, &prompt_of);
    let (out, lse) = whole.run(&mut cpu(), true, whole.t()).unwrap();
    let (out, lse) = (picked(&out, &rows, heads.out_len()), picked(&lse, &rows, heads.q));
    GradCase { dout: normals(out.len() as u64, out.len()), case, causal: true, prompt_of: Some(prompt_of), out, lse }
}

/// Prompts that end before, at and after the borders of blocks, and the number of their responses.
const PROMPTS: [(usize, usize); 5] = [(1, 2), (127, 1), (128, 16), (129, 2), (300, 1)];

/// Calls `check` with the groups of each of [`PROMPTS`], between sequences that share nothing. The responses have
/// lengths of 0 to `most` rows.
fn each_prompt(most: u64, check: impl Fn(&[Group<'_>])) {
    let mut random = random(most);
    for (prompt, count) in PROMPTS {
        let mut responses: Vec<usize> = (0..count).map(|_| random.below(most + 1) as usize).collect();
        responses[0] = responses[0].max(1);
        check(&[(5, &[]), (prompt, &responses), (0, &[]), (3, &[2]), (70, &[])]);
    }
}

#[test]
fn gradients_are_those_of_the_formula() {
    each_prompt(40, |groups| {
        let case = shared(heads(2, 1, 16), groups);
        case.check(&mut emu(), WHOLE).unwrap();
    });
    // Responses of more than one tile, and heads that do not fill their vectors.
    let case = shared(heads(6, 2, 12), &[(130, &[150, 0, 7]), (1, &[1])]);
    case.check(&mut emu(), WHOLE).unwrap();
}

#[test]
fn gradients_by_wgmma_have_the_other_bodys_bits() {
    if no_hopper("wgmma") {
        return;
    }
    each_prompt(30, |groups| {
        let case = shared(heads(3, 1, 80), groups);
        both(&format!("{groups:?}"), |dev| case.run(dev, WHOLE));
    });
    let case = shared(heads(7, 1, 128), &[(20, &[9, 0, 30]), (140, &[19])]);
    both("heads of size 128", |dev| case.run(dev, WHOLE));
    case.check_formula(&case.run(&mut wide(), WHOLE).unwrap()).unwrap();
}

/// A probe with a prompt that does not fill its last stage of keys.
fn finite(dim: usize) -> impl Fn(&mut Device) -> Outcome {
    let case = negative(heads(3, 1, dim), &[(140, &[3, 30])]);
    move |dev| match case.run(dev, WHOLE)?.iter().all(|x| x.is_finite()) {
        true => Ok(()),
        false => Err("a gradient that is not finite".into()),
    }
}

#[test]
fn keys_that_do_not_exist_add_nothing_whatever_their_probability() {
    finite(16)(&mut emu()).unwrap();
    if !no_hopper("wgmma") {
        finite(80)(&mut wide()).unwrap();
    }
}

#[test]
fn rows_of_a_response_have_the_bits_of_a_whole_sequence() {
    // A step of the chains over keys begins where the prompt ends, as in the whole sequence.
    let case = shared(heads(3, 1, 32), &[(128, &[140, 3]), (40, &[])]);
    let (whole, rows) = whole(&case.case, case.prompt_of.as_ref().unwrap());
    let (out, lse) = whole.run(&mut cpu(), true, whole.t()).unwrap();
    let mut dout = vec![bf16::ZERO; out.len()];
    for (from, to) in case.dout.chunks(case.case.heads.out_len()).zip(&rows) {
        dout[to * from.len()..][..from.len()].copy_from_slice(from);
    }
    let whole = GradCase { case: whole, causal: true, prompt_of: None, dout, out, lse };
    let (got, want) = (case.run(&mut emu(), WHOLE).unwrap(), whole.run(&mut emu(), WHOLE).unwrap());
    let width = case.case.heads.qkv_len();
    let own = 128 * width..;
    equal("rows after the prompt", &got[own.clone()], &picked(&want, &rows, width)[own]).unwrap();
}

/// A probe for mutations: a prompt with an incomplete last stage and two tiles of keys, whose three responses have one
/// stage, several stages and no row.
fn case(dim: usize) -> GradCase {
    shared(heads(3, 1, dim), &[(140, &[3, 0, 30]), (4, &[1])])
}

#[test]
fn the_same_bits_under_every_schedule() {
    same_bits(4, |dev| case(16).run(dev, WHOLE));
    if !no_hopper("wgmma") {
        same_bits_on(wide_with, 4, |dev| case(80).run(dev, WHOLE));
    }
}

/// Returns a probe that fails if a gradient has other bits than under the fixed schedule.
fn probe(dim: usize) -> impl Fn(&mut Device) -> Outcome {
    let case = case(dim);
    let want = case.run(&mut emu(), WHOLE).unwrap();
    move |dev| equal("the fixed schedule", &case.run(dev, WHOLE)?, &want)
}

#[test]
fn each_synchronising_call_is_needed() {
    if skipped("the bits of both kernel variants") {
        return;
    }
    mutate_sites(&["kernels/attention_bwd.cu"], 4, probe(16));
    mutate_sites_on(wide_with, &[BODY], 6, probe(80));
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn mistakes_in_the_kernels_are_seen() {
    for (from, to) in [
        ("bool causal = args.causal && reader == sequence", "bool causal = args.causal"),
        ("k.data = next == own ? args.qkv + place.k : k.data", "k.data = k.data"),
        ("(begin < own ? prompt.tokens : keys)", "keys"),
    ] {
        mutate_source("attention_bwd", from, to, 1, probe(16));
    }
    mutate_source("attention_bwd", "(shared ? prompt.tokens : least) < next", "least < next", 1, finite(16));
    for (from, to) in [
        ("last = reader == sequence;", "last = true;"),
        ("first = reader == sequence + 1,", "first = false,"),
        ("add_reader<HD>(dv, args, at + args.kv_heads * args.dim", "add_reader<HD>(dv, args, at"),
        ("real && !first ?", "real && first ?"),
    ] {
        mutate_source("common/attend_bwd.cuh", from, to, 1, probe(16));
    }
    let (same, finite) = (probe(80), finite(80));
    for (from, to) in [
        ("tails++ % 2);\n            clear", "0);\n            clear"),
        ("tails++ % 2);\n                clear", "0);\n                clear"),
        ("reader == item.sequence ? first : 0", "first"),
        ("shared ? prompt.start + begin : start + begin - own", "start + begin - own"),
        ("(shared ? prompt.tokens : least) < begin + BLOCK", "least < begin + BLOCK"),
    ] {
        mutate_source_of(Arch::Sm90a, "common/attend_bwd_sm90a.cuh", from, to, 3, |dev| {
            dev.use_variant(KernelVariant::Wgmma)?;
            same(dev)?;
            finite(dev)
        });
    }
}

/// Returns outputs and log-sum-exps of a pack through pages: each response has the complete blocks of its prompt, and a
/// copy of the prompt's last block before its own rows. The lists of stored rows are padded.
fn through_pages(dev: &mut Device, case: &Case, prompt_of: &[u32]) -> Outcome<(Vec<bf16>, Vec<f32>)> {
    let (heads, sequences, t) = (case.heads, prompt_of.len(), case.t());
    let len = |s: usize| (case.cu[s + 1] - case.cu[s]) as usize;
    let (mut tables, mut contexts) = (Vec::<Vec<u32>>::new(), Vec::new());
    let (mut from, mut slots, mut blocks) = (Vec::new(), Vec::new(), 0);
    for (s, &prompt) in prompt_of.iter().enumerate() {
        let (prompt, shared) = if prompt as usize == s { (s, 0) } else { (prompt as usize, len(prompt as usize)) };
        let mut table: Vec<u32> = tables.get(prompt).map_or(vec![], |table| table[..shared / BLOCK].to_vec());
        for position in shared / BLOCK * BLOCK..shared + len(s) {
            if position % BLOCK == 0 {
                table.push(blocks);
                blocks += 1;
            }
            let row = if position < shared {
                case.cu[prompt] as usize + position
            } else {
                case.cu[s] as usize + position - shared
            };
            from.push(row as u32);
            slots.push(table[position / BLOCK] * BLOCK as u32 + (position % BLOCK) as u32);
        }
        contexts.push((shared + len(s)) as u32);
        tables.push(table);
    }
    from.extend([0; 3]);
    slots.extend([u32::MAX; 3]);
    let columns = tables.iter().map(Vec::len).max().unwrap();
    tables.iter_mut().for_each(|table| table.resize(columns, 0));
    let mark = dev.mark(Region::Overlay);
    let cache = KvCache::alloc(dev, Region::Overlay, DType::Bf16, blocks as usize, heads)?;
    dev.write(cache.k, &vec![bf16::NAN; cache.k.len()])?;
    dev.write(cache.v, &vec![bf16::NAN; cache.v.len()])?;
    let qkv = up(dev, &case.qkv, &[t, heads.qkv_len()]);
    let (from, slots) = (up(dev, &from, &[from.len()]), up(dev, &slots, &[slots.len()]));
    paged_attention::store_rows(dev, qkv, from, slots, &cache)?;
    let paged = Paged {
        cache: &cache,
        block_tables: up(dev, &tables.concat(), &[sequences, columns]),
        cu_seqlens_q: up(dev, &case.cu, &[sequences + 1]),
        context_lens: up(dev, &contexts, &[sequences]),
        heads,
        scale: case.scale(),
        decode: None,
    };
    let (out, lse) = (blank(dev, DType::Bf16, &[t, heads.out_len()]), blank(dev, DType::F32, &[t, heads.q]));
    paged_attention::fwd_with_lse(dev, paged, qkv, out, lse, 0)?;
    let results = (dev.read(out)?, dev.read(lse)?);
    dev.release(mark);
    Ok(results)
}

/// Compares attention through pages with attention of the whole sequences on the same device.
fn same_forward(dev: &mut Device, heads: Heads, groups: &[Group<'_>]) {
    let (lens, prompt_of) = layout(groups);
    let case = Case::new(heads, &lens);
    let (whole, rows) = whole(&case, &prompt_of);
    let (out, lse) = whole.run(dev, true, whole.t()).unwrap();
    let want = bits((picked(&out, &rows, heads.out_len()), picked(&lse, &rows, heads.q)));
    equal(&format!("{groups:?}"), &bits(through_pages(dev, &case, &prompt_of).unwrap()), &want).unwrap();
}

#[test]
fn attention_through_pages_has_the_bits_of_whole_sequences() {
    let groups: &[Group<'_>] = &[(5, &[]), (127, &[9, 0]), (128, &[3]), (129, &[1, 130]), (2, &[7])];
    for dev in [&mut cpu(), &mut emu()] {
        same_forward(dev, heads(4, 2, 16), groups);
    }
    if !no_hopper("wgmma") {
        same_forward(&mut wide(), heads(3, 1, 80), &[(129, &[9, 0, 3]), (2, &[])]);
    }
}

//! Tests of kernels/sample.cu: on equal logits it must always give the CPU's tokens and log-probs.

use half::bf16;
use omr_base::philox::Random;
use omr_runtime::device::{Device, Region, Target};
use omr_runtime::ops::linear_logprob;
use omr_runtime::ops::sample::{self, Changes, Draw, NoiseKey, RowCall, SamplingParams};
use omr_runtime::tensor::DType;

use crate::kernels::gemm_sm90a::wide;
use crate::kernels::inputs::{bitmap, blank, cpu, normals, random, up, weight};
use crate::kernels::{Outcome, Schedule, emu, emu_with, kind, mutate_sites, mutate_source, no_hopper, same_bits};

/// Rows of logits, and how each is sampled.
struct Case {
    vocab: usize,
    sums: Vec<f32>,
    draws: Vec<Draw>,
    allowed: Option<Vec<bool>>,
}

fn pick<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len() as u64) as usize]
}

/// Returns a row of one of the kinds that are hard to cut: ties, few values, a peak, flat, wide, many impossible ids,
/// or values that differ only in the last bits.
fn row(random: &mut Random, vocab: usize) -> Vec<f32> {
    let kind = random.below(10);
    let peak = random.below(vocab as u64) as usize;
    (0..vocab)
        .map(|i| match kind {
            0..3 => random.normal() * 3.0,
            3 => (random.normal() * 2.0).round() * 0.5,
            4 => pick(random, &[0.0, -0.0, 1.0]),
            5 => random.normal() + if i == peak { 30.0 } else { 0.0 },
            6 => 2.5,
            7 => random.normal() * 40.0,
            8 => {
                let some = random.normal();
                pick(random, &[f32::NEG_INFINITY, f32::NEG_INFINITY, some, 1.0])
            }
            _ => f32::from_bits(1.0f32.to_bits() + random.below(3) as u32),
        })
        .collect()
}

fn params(random: &mut Random, vocab: usize) -> SamplingParams {
    let v = vocab as u32;
    SamplingParams {
        temperature: pick(random, &[0.0, 1.0, 1.0, 1.0, 0.7, 1e-3, 1e-6, 1e-30, 100.0]),
        min_p: pick(random, &[0.0, 0.0, 0.0, 1e-9, 0.05, 0.3, 1.0]),
        top_k: pick(random, &[0, 0, 0, 1, 2, 7, 50, v - 1, v, v + 5]),
        top_p: pick(random, &[1.0, 1.0, 0.999, 0.9, 0.5, 0.1, 1e-6]),
    }
}

fn case(name: u64, rows: usize, vocab: usize) -> Case {
    let mut random = random(name);
    let mut sums: Vec<f32> = (0..rows).flat_map(|_| row(&mut random, vocab)).collect();
    if name.is_multiple_of(7) {
        // The output of a broken model must not cause further failures.
        sums[0] = f32::NAN;
        sums[vocab + vocab / 2] = f32::INFINITY;
    }
    let draws = (0..rows as u32)
        .map(|i| {
            let noise = NoiseKey { prompt: i, rollout: name as u32, position: random.next_u32() };
            Draw::new(params(&mut random, vocab), noise, random.next_u64(), name)
        })
        .collect();
    let allowed = match name % 4 {
        0 => None,
        1 => Some((0..vocab).map(|_| random.below(2) == 0).collect()),
        2 => Some((0..vocab).map(|_| random.below(16) > 0).collect()),
        _ if name % 8 == 3 => Some(vec![false; vocab]),
        _ => Some((0..vocab).map(|i| i == vocab - 1).collect()),
    };
    Case { vocab, sums, draws, allowed }
}

/// Returns rows of 0 and -0 in turn, which must count as equal logits: the lowest ids are kept, whatever the seed.
fn both_zeros(rows: usize, vocab: usize) -> Case {
    let params = SamplingParams { temperature: 1.0, min_p: 0.0, top_k: 7, top_p: 1.0 };
    let noise = |prompt| NoiseKey { prompt, rollout: 1, position: 2 };
    Case {
        vocab,
        sums: (0..rows * vocab).map(|i| if i % 2 == 0 { -0.0 } else { 0.0 }).collect(),
        draws: (0..rows as u32).map(|i| Draw::new(params, noise(i), 3, 4)).collect(),
        allowed: None,
    }
}

fn allowed_on(dev: &mut Device, allowed: &Option<Vec<bool>>) -> Option<omr_runtime::tensor::Tensor> {
    allowed.as_ref().map(|a| {
        let words = bitmap(a);
        up(dev, &words, &[words.len()])
    })
}

/// Returns tokens and the bits of their log-probs; all NaN have one bit pattern.
fn from_logits(dev: &mut Device, c: &Case, from: usize, to: usize) -> Outcome<Vec<u32>> {
    let n = to - from;
    let sums = up(dev, &c.sums[from * c.vocab..to * c.vocab], &[n, c.vocab]);
    let allowed = allowed_on(dev, &c.allowed);
    let draws = &c.draws[from..to];
    let table = Draw::upload(dev, Region::Overlay, draws)?;
    let (ids, logprobs) = (blank(dev, DType::U32, &[n]), blank(dev, DType::F32, &[n]));
    sample::forward::from_logits(dev, sums, allowed, draws, table, sample::Outs { ids, logprobs, logits: None })?;
    let mut out = dev.read::<u32>(ids)?;
    out.extend(dev.read::<f32>(logprobs)?.iter().map(|p| if p.is_nan() { u32::MAX } else { p.to_bits() }));
    Ok(out)
}

/// Samples from given logits.
pub fn given(dev: &mut Device) -> Outcome {
    from_logits(dev, &drawn(1, 64, &[SamplingParams::default()]), 0, 1).map(drop)
}

fn probe(dev: &mut Device, c: &Case) -> Outcome {
    let n = c.draws.len();
    let (got, want) = (from_logits(dev, c, 0, n)?, from_logits(&mut cpu(), c, 0, n)?);
    for row in 0..n {
        if (got[row], got[n + row]) != (want[row], want[n + row]) {
            let [got, want] = [&got, &want].map(|v| (v[row], f32::from_bits(v[n + row])));
            return Err(format!("row {row}, {:?}: {got:?}, on the CPU {want:?}", c.draws[row].params()).into());
        }
    }
    Ok(())
}

/// Vocabulary sizes: below a segment, multiples of a segment or not, not multiples of the bitmap's words, and with more
/// segments than a warp folds at once.
const VOCABS: [usize; 8] = [5, 33, 128, 129, 300, 1000, 2048, 4500];

#[test]
fn equal_logits_give_equal_tokens_and_log_probs() {
    let (mut dev, mut rows) = (emu(), 0);
    for name in 0..64 {
        let vocab = VOCABS[name as usize % VOCABS.len()];
        let c = case(name, 40, vocab);
        probe(&mut dev, &c).unwrap_or_else(|e| panic!("case {name}, {vocab} ids: {e}"));
        rows += c.draws.len();
    }
    println!("{rows} rows");
}

/// Creates draws with each set of parameters, from the same kind of logits.
fn drawn(name: u64, vocab: usize, params: &[SamplingParams]) -> Case {
    let mut random = random(name);
    let sums = (0..params.len() * vocab).map(|_| random.normal() * 2.0).collect();
    let key = |i| NoiseKey { prompt: i as u32, rollout: 0, position: 1 };
    let draws = params.iter().enumerate().map(|(i, p)| Draw::new(*p, key(i), name, 0)).collect();
    Case { vocab, sums, draws, allowed: None }
}

#[test]
fn a_vocabulary_of_more_segments_than_threads() {
    let plain = SamplingParams::default();
    let cases = [SamplingParams::greedy(), plain, SamplingParams { top_p: 0.9, ..plain }];
    probe(&mut emu(), &drawn(11, 70_001, &cases)).unwrap();
}

#[test]
fn what_is_counted_is_what_is_taken() {
    let (hidden, w, draws) = hidden_case(33);
    let run = |mut dev: Device| {
        from_hidden(&mut dev, &hidden, &w, &draws, &None).unwrap();
        let c = drawn(3, 500, &[SamplingParams::default(); 5]);
        from_logits(&mut dev, &c, 0, 5).unwrap();
        dev.high_water()
    };
    let counted = run(Device::count_for(Target::gpu(kind())));
    assert_eq!(format!("{counted:?}"), format!("{:?}", run(emu())));
}

#[test]
#[ignore = "many cases and schedules"]
fn equal_logits_give_equal_tokens_under_random_schedules() {
    for (i, schedule) in Schedule::several(6).into_iter().enumerate() {
        let mut dev = emu_with(schedule);
        for name in 0..40 {
            let (name, vocab) = (1000 * (i as u64 + 1) + name, VOCABS[(name as usize + i) % VOCABS.len()]);
            probe(&mut dev, &case(name, 40, vocab)).unwrap_or_else(|e| panic!("{schedule:?}, case {name}: {e}"));
        }
    }
}

#[test]
fn bits_depend_on_no_schedule_and_on_no_neighbour() {
    let c = case(8, 21, 300);
    let all = same_bits(4, |dev| from_logits(dev, &c, 0, 21));
    for row in 0..21 {
        let alone = from_logits(&mut emu(), &c, row, row + 1).unwrap();
        assert_eq!(alone, [all[row], all[21 + row]], "row {row}");
    }
}

/// Returns hidden states, a weight and draws.
pub fn hidden_case(rows: usize) -> (Vec<bf16>, Vec<bf16>, Vec<Draw>) {
    let mut random = random(rows as u64);
    let draws = (0..rows as u32)
        .map(|i| {
            let noise = NoiseKey { prompt: i, rollout: 1, position: 2 };
            let mut params = params(&mut random, V);
            params.temperature = pick(&mut random, &[0.0, 1.0, 0.7]);
            Draw::new(params, noise, 3, 4)
        })
        .collect();
    (normals(1, rows * K), normals(2, V * K), draws)
}

const V: usize = 700;
/// Rows are a multiple of 16 bytes, so that both kernel variants of products accept them.
const K: usize = 104;

pub fn from_hidden(
    dev: &mut Device,
    hidden: &[bf16],
    w: &[bf16],
    draws: &[Draw],
    allowed: &Option<Vec<bool>>,
) -> Outcome<(Vec<u32>, Vec<f32>)> {
    let n = draws.len();
    let (hidden, w) = (up(dev, hidden, &[n, K]), weight(dev, w, V, K));
    let allowed = allowed_on(dev, allowed);
    let table = Draw::upload(dev, Region::Overlay, draws)?;
    let (ids, logprobs) = (blank(dev, DType::U32, &[n]), blank(dev, DType::F32, &[n]));
    sample::fwd(dev, hidden, &w, allowed, draws, table, sample::Outs { ids, logprobs, logits: None })?;
    Ok((dev.read(ids)?, dev.read(logprobs)?))
}

#[test]
fn the_log_prob_is_the_trainers_bit_for_bit_in_any_batch() {
    let allowed = Some((0..V).map(|i| i % 5 != 3).collect());
    let (hidden, w, draws) = hidden_case(70);
    let (ids, logprobs) = from_hidden(&mut emu(), &hidden, &w, &draws, &allowed).unwrap();
    let mut dev = emu();
    for temperature in [0.0, 1.0, 0.7] {
        let x = up(&mut dev, &hidden, &[70, K]);
        let weight = weight(&mut dev, &w, V, K);
        let (bits, targets) = (allowed_on(&mut dev, &allowed), up(&mut dev, &ids, &[70]));
        let [log_prob, lse] = [0; 2].map(|_| blank(&mut dev, DType::F32, &[70]));
        linear_logprob::fwd(
            &mut dev,
            linear_logprob::LogProbCall { hidden: x, w: &weight, allowed: bits, temperature, targets },
            linear_logprob::Outs { log_prob, lse, entropy: None, logits: None },
        )
        .unwrap();
        let trainer = dev.read::<f32>(log_prob).unwrap();
        for row in (0..70).filter(|&row| draws[row].params().temperature == temperature) {
            assert_eq!(logprobs[row].to_bits(), trainer[row].to_bits(), "row {row}, {:?}", draws[row].params());
        }
    }
    // Alone, in a tile of 16 rows and in one of 64.
    for (from, to) in [(0, 1), (9, 20), (3, 50)] {
        let part = from_hidden(&mut emu(), &hidden[from * K..to * K], &w, &draws[from..to], &allowed).unwrap();
        assert_eq!(part, (ids[from..to].to_vec(), logprobs[from..to].to_vec()), "rows {from}..{to}");
    }
}

/// Samples like [`from_hidden`], but the rows in `kept` from kept logits on the host.
fn from_kept(
    dev: &mut Device,
    hidden: &[bf16],
    w: &[bf16],
    draws: &[Draw],
    allowed: &Option<Vec<bool>>,
    kept: impl Fn(usize) -> bool,
) -> Outcome<(Vec<u32>, Vec<f32>)> {
    let n = draws.len();
    let (hidden, w) = (up(dev, hidden, &[n, K]), weight(dev, w, V, K));
    let allowed = allowed_on(dev, allowed);
    let some: Vec<Draw> = (0..n).map(|i| if kept(i) { Draw::kept() } else { draws[i] }).collect();
    let table = Draw::upload(dev, Region::Overlay, &some)?;
    let (ids, logprobs) = (blank(dev, DType::U32, &[n]), blank(dev, DType::F32, &[n]));
    let logits = blank(dev, DType::F32, &[n, sample::logit_columns(V)]);
    let outs = sample::Outs { ids, logprobs, logits: Some(logits) };
    sample::fwd(dev, hidden, &w, allowed, &some, table, outs)?;
    let (mut ids, mut logprobs) = (dev.read::<u32>(ids)?, dev.read::<f32>(logprobs)?);
    let rows: Vec<usize> = (0..n).filter(|&i| kept(i)).collect();
    let call = |i: usize| RowCall { draw: draws[rows[i]], changes: Changes::NONE, report: None };
    let results = sample::with_rows(dev, logits, V, &rows, |isa, i, z| sample::sample_row(isa, z, &call(i)))?;
    for (&row, result) in rows.iter().zip(&results) {
        (ids[row], logprobs[row]) = (result.token_id, result.logprob);
    }
    Ok((ids, logprobs))
}

/// Compares the fused sampler with sampling from kept logits, for all rows and for every third one.
fn kept_is_fused(device: impl Fn() -> Device) {
    for (rows, masked) in [(1, false), (16, true), (45, false), (140, true)] {
        let allowed = masked.then(|| (0..V).map(|i| i % 5 != 3).collect());
        let (hidden, w, draws) = hidden_case(rows);
        let (ids, logprobs) = from_hidden(&mut device(), &hidden, &w, &draws, &allowed).unwrap();
        for every in [1, 3] {
            let kept = |i: usize| i.is_multiple_of(every);
            let (from_kept, log) = from_kept(&mut device(), &hidden, &w, &draws, &allowed, kept).unwrap();
            assert_eq!(ids, from_kept, "{rows} rows");
            for row in 0..rows {
                let params = draws[row].params();
                assert_eq!(logprobs[row].to_bits(), log[row].to_bits(), "row {row} of {rows}, {params:?}");
            }
        }
    }
}

#[test]
fn kept_logits_give_the_fused_samplers_bits() {
    kept_is_fused(emu);
    if !no_hopper("wgmma") {
        kept_is_fused(wide);
    }
}

#[test]
fn tokens_from_hidden_states_are_those_of_their_logits() {
    let (hidden, w, draws) = hidden_case(20);
    let (ids, _) = from_hidden(&mut emu(), &hidden, &w, &draws, &None).unwrap();
    // The CPU sums in other chains, so a near tie may be decided differently.
    let (want, _) = from_hidden(&mut cpu(), &hidden, &w, &draws, &None).unwrap();
    let same = ids.iter().zip(&want).filter(|(a, b)| a == b).count();
    assert!(same >= 18, "{same} of 20 tokens are the CPU's");
}

#[test]
fn every_synchronising_call_is_needed() {
    // The cases cut ids by number and by weight, have ties, and keep many or few ids.
    let cases = [1, 5, 9].map(|name| case(name, 6, 300));
    mutate_sites(&["kernels/sample.cu"], 6, |dev| cases.iter().try_for_each(|c| probe(dev, c)));
}

#[test]
fn changes_by_hand_are_seen() {
    let mut cases: Vec<Case> = [1, 2, 4, 5, 6, 8, 9, 10].map(|name| case(name, 24, 300)).into();
    cases.push(both_zeros(16, 300));
    let probe = |dev: &mut Device| cases.iter().try_for_each(|c| probe(dev, c));
    for (from, to) in [
        ("(other_score == score && other_id < id)", "(other_score == score && other_id > id)"),
        ("uint32_t bits = __float_as_uint(z + 0.0f);", "uint32_t bits = __float_as_uint(z);"),
        ("place < left.key || (", "place <= left.key || ("),
        ("id <= left.id", "id < left.id"),
        ("weight >= least;", "weight > least;"),
        ("row.prompt, row.rollout, row.position", "row.rollout, row.prompt, row.position"),
    ] {
        mutate_source("sample", from, to, 1, probe);
    }
}

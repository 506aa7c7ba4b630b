//! Tests sampling from kept logits: it gives the fused sampler's bits if nothing else is requested, and penalties,
//! restrictions, biases and reported log-probs follow their definitions.

use std::collections::HashMap;

use omr_runtime::ops::linear_logprob;
use omr_runtime::ops::sample::{
    self, Changes, Draw, LogprobsMode, NoiseKey, Penalties, Ranked, RowCall, RowSample, SamplingParams,
};

use super::sample::{Case, SEED, case};
use super::*;

/// Samples the rows of a case: those in `kept` from kept logits, and the others by the fused sampler.
fn run(
    dev: &mut Device,
    dtype: DType,
    c: &Case,
    kept: impl Fn(usize) -> bool,
    report: Option<(LogprobsMode, usize)>,
) -> (Vec<u32>, Vec<f32>, Vec<RowSample>) {
    let hidden = upload(dev, dtype, &c.hidden, &[c.b, c.d]);
    let w = weight(dev, dtype, &c.w, c.v, c.d);
    let allowed = c.allowed.as_ref().map(|a| dev.upload(Region::Overlay, a, &[a.len()]).unwrap());
    let ids = dev.alloc(Region::Overlay, DType::U32, &[c.b]).unwrap();
    let logprobs = dev.alloc(Region::Overlay, DType::F32, &[c.b]).unwrap();
    let logits = dev.alloc(Region::Overlay, DType::F32, &[c.b, sample::logit_columns(c.v)]).unwrap();
    let draws: Vec<Draw> = c.params.iter().zip(&c.noise).map(|(p, n)| Draw::new(*p, *n, SEED.0, SEED.1)).collect();
    let some: Vec<Draw> = (0..c.b).map(|i| if kept(i) { Draw::kept() } else { draws[i] }).collect();
    let table = Draw::upload(dev, Region::Overlay, &some).unwrap();
    let outs = sample::Outs { ids, logprobs, logits: Some(logits) };
    sample::fwd(dev, hidden, &w, allowed, &some, table, outs).unwrap();
    let (mut ids, mut logprobs) = (dev.read::<u32>(ids).unwrap(), dev.read::<f32>(logprobs).unwrap());
    let rows: Vec<usize> = (0..c.b).filter(|&i| kept(i)).collect();
    let call = |i: usize| RowCall { draw: draws[rows[i]], changes: Changes::NONE, report };
    let results = sample::with_rows(dev, logits, c.v, &rows, |isa, i, z| sample::sample_row(isa, z, &call(i))).unwrap();
    for (&row, result) in rows.iter().zip(&results) {
        (ids[row], logprobs[row]) = (result.token_id, result.logprob);
    }
    (ids, logprobs, results)
}

/// Returns a case whose rows use many temperatures and filters.
fn many(dtype: DType, b: usize, v: usize, d: usize, masked: bool) -> Case {
    let mut c = case(dtype, b, v, d, masked);
    let temperatures = [1.0, 0.7, 0.0, 1.3, 0.05, 2.0, 1.0];
    for (i, params) in c.params.iter_mut().enumerate() {
        params.temperature = temperatures[i % temperatures.len()];
        params.top_k = [0, 3, 0, 40, u32::MAX][i % 5];
        params.top_p = [1.0, 1.0, 0.9, 0.5][i % 4];
        params.min_p = [0.0, 0.0, 0.05][i % 3];
    }
    c
}

#[test]
fn a_row_that_asks_for_nothing_has_the_fused_samplers_bits() {
    let mut rows = 0;
    for dtype in [DType::F32, DType::Bf16] {
        for (b, v, d) in [(420, 512, 48), (105, 130, 7), (1, 1000, 24), (70, 1537, 31), (14, 33, 20)] {
            for masked in [false, true] {
                let c = many(dtype, b, v, d, masked);
                for isa in isas() {
                    let fused = run(&mut device(2, isa), dtype, &c, |_| false, None);
                    for report in [None, Some((LogprobsMode::Raw, 5)), Some((LogprobsMode::Processed, 20))] {
                        let all = run(&mut device(2, isa), dtype, &c, |_| true, report);
                        let some = run(&mut device(1, isa), dtype, &c, |i| i % 3 == 1, report);
                        for (ids, logprobs, _) in [&all, &some] {
                            assert_eq!(*ids, fused.0, "{dtype:?} {} {b} {v} {d} {masked} {report:?}", isa.name());
                            same_bits("log-prob", logprobs, &fused.1);
                        }
                    }
                    rows += b;
                }
            }
        }
    }
    println!("{rows} rows");
}

#[test]
fn raw_log_probs_are_the_trainers_at_temperature_1() {
    for dtype in [DType::F32, DType::Bf16] {
        let c = many(dtype, 70, 300, 31, true);
        for isa in isas() {
            let mut dev = device(2, isa);
            let (ids, _, rows) = run(&mut dev, dtype, &c, |_| true, Some((LogprobsMode::Raw, 4)));
            let hidden = upload(&mut dev, dtype, &c.hidden, &[c.b, c.d]);
            let w = weight(&mut dev, dtype, &c.w, c.v, c.d);
            let allowed = c.allowed.as_ref().map(|a| dev.upload(Region::Overlay, a, &[a.len()]).unwrap());
            let mut trained = |targets: &[u32]| {
                let targets = dev.upload(Region::Overlay, targets, &[c.b]).unwrap();
                let [log_prob, lse] = [0; 2].map(|_| dev.alloc(Region::Overlay, DType::F32, &[c.b]).unwrap());
                let call = linear_logprob::LogProbCall { hidden, w: &w, allowed, temperature: 1.0, targets };
                linear_logprob::fwd(
                    &mut dev,
                    call,
                    linear_logprob::Outs { log_prob, lse, entropy: None, logits: None },
                )
                .unwrap();
                dev.read::<f32>(log_prob).unwrap()
            };
            let ranked: Vec<&Ranked> = rows.iter().map(|row| row.ranked.as_ref().unwrap()).collect();
            let own: Vec<f32> = ranked.iter().map(|r| r.logprob).collect();
            same_bits("raw log-probs", &own, &trained(&ids));
            for place in 0..4 {
                let top: Vec<u32> = ranked.iter().map(|r| r.top[place].token_id).collect();
                let logprobs: Vec<f32> = ranked.iter().map(|r| r.top[place].logprob).collect();
                same_bits("top log-probs", &logprobs, &trained(&top));
            }
            for (ranked, id) in ranked.iter().zip(&ids) {
                let place = ranked.top.iter().position(|top| top.token_id == *id);
                assert_eq!(place, Some(ranked.rank as usize - 1).filter(|&place| place < 4));
            }
        }
    }
}

/// Returns the logits of a row: distinct values, some equal ones, and ids that are not allowed.
fn logits(random: &mut Random, v: usize) -> Vec<f32> {
    let value = |random: &mut Random| match random.below(8) {
        0 => f32::NEG_INFINITY,
        1 => 1.5,
        _ => random.normal() * 3.0,
    };
    let mut z: Vec<f32> = (0..v).map(|_| value(random)).collect();
    z[5] = 2.0;
    z
}

/// Returns the changed logits by the definitions, one id at a time, in f64.
fn changed(z: &[f32], changes: &Changes<'_>) -> Vec<f64> {
    let count = |id: u32| changes.counts.and_then(|counts| counts.get(&id)).copied().unwrap_or(0);
    let one = |(id, &z): (usize, &f32)| {
        let id = id as u32;
        let off = changes.allowed.is_some_and(|a| a[id as usize / 32] >> (id % 32) & 1 == 0);
        if off || changes.banned.contains(&id) {
            return f64::NEG_INFINITY;
        }
        let mut z = f64::from(z) + changes.bias.iter().filter(|b| b.0 == id).map(|b| f64::from(b.1)).sum::<f64>();
        let Penalties { repetition, frequency, presence } = changes.penalties;
        if changes.prompt.contains(&id) || count(id) > 0 {
            z = if z > 0.0 { z / f64::from(repetition) } else { z * f64::from(repetition) };
        }
        z - f64::from(frequency) * f64::from(count(id)) - if count(id) > 0 { f64::from(presence) } else { 0.0 }
    };
    z.iter().enumerate().map(one).collect()
}

#[test]
fn changes_and_reports_follow_their_definitions() {
    let mut random = Random::new(8, Purpose::Test, 1);
    for name in 0..400u64 {
        let v = [40, 129, 300, 1000][name as usize % 4];
        let z = logits(&mut random, v);
        let mut ids = |n: u64| (0..n).map(|_| random.below(v as u64) as u32).collect::<Vec<u32>>();
        let (mut prompt, output, banned, biased) = (ids(20), ids(30), ids(3), ids(4));
        let allowed: Vec<u32> = ids(v.div_ceil(32) as u64).iter().map(|id| !(id * 77_777)).collect();
        prompt.sort_unstable();
        prompt.dedup();
        let mut bias: Vec<(u32, f32)> = biased.into_iter().zip([-100.0, 2.5, 0.3, 7.0]).collect();
        bias.sort_by_key(|b| b.0);
        bias.dedup_by_key(|b| b.0);
        let mut counts: HashMap<u32, u32> = HashMap::new();
        output.iter().for_each(|&id| *counts.entry(id).or_default() += 1);
        let penalties = match name % 3 {
            0 => Penalties { repetition: 1.3, frequency: 0.4, presence: -0.7 },
            1 => Penalties { repetition: 0.8, ..Penalties::NONE },
            _ => Penalties::NONE,
        };
        let changes = Changes {
            allowed: (name % 2 == 0).then_some(&allowed[..]),
            banned: if name % 5 < 3 { &banned } else { &[] },
            bias: if name % 7 < 4 { &bias } else { &[] },
            penalties,
            prompt: &prompt,
            counts: Some(&counts),
        };
        let params = SamplingParams {
            temperature: [1.0, 0.6, 0.0][name as usize % 3],
            top_k: [0, 9][name as usize % 2],
            top_p: [1.0, 0.8][name as usize / 2 % 2],
            min_p: [0.0, 0.01][name as usize / 4 % 2],
        };
        let draw = Draw::new(params, NoiseKey { position: name as u32, ..NoiseKey::default() }, 4, 0);
        for mode in [LogprobsMode::Raw, LogprobsMode::Processed] {
            let call = RowCall { draw, changes, report: Some((mode, 7)) };
            let row = sample::sample_row(Isa::detect(), &z, &call);
            let scale = if params.temperature == 0.0 { 1.0 } else { 1.0 / f64::from(params.temperature) };
            let policy: Vec<f64> = changed(&z, &changes).iter().map(|z| z * scale).collect();
            let mut kept: Vec<usize> = (0..v).filter(|&id| policy[id] > f64::NEG_INFINITY).collect();
            let order = |z: &[f64], a: usize, b: usize| z[b].total_cmp(&z[a]).then(a.cmp(&b));
            kept.sort_by(|&a, &b| order(&policy, a, b));
            let weight = |id: usize| (policy[id] - policy[kept[0]]).exp();
            if params.temperature > 0.0 {
                let mut left: Vec<usize> =
                    kept.iter().copied().filter(|&id| weight(id) >= f64::from(params.min_p)).collect();
                left.truncate(if params.top_k > 0 { params.top_k as usize } else { v });
                let total: f64 = left.iter().map(|&id| weight(id)).sum();
                let mut sum = 0.0;
                left.retain(|&id| {
                    let stays = sum < f64::from(params.top_p) * total || sum == 0.0;
                    sum += weight(id);
                    stays
                });
                kept = left;
            }
            let token = row.token_id as usize;
            assert!(kept.contains(&token), "{name}: {token} is not in {kept:?}");
            assert!(params.temperature > 0.0 || token == kept[0], "{name}");
            let raw: Vec<f64> = z.iter().map(|&z| f64::from(z)).collect();
            let (reported, mut of) = match mode {
                LogprobsMode::Raw => (&raw, (0..v).filter(|&id| raw[id] > f64::NEG_INFINITY).collect::<Vec<_>>()),
                LogprobsMode::Processed => (&policy, kept.clone()),
            };
            of.sort_by(|&a, &b| order(reported, a, b));
            let lse = of.iter().map(|&id| (reported[id] - reported[of[0]]).exp()).sum::<f64>().ln() + reported[of[0]];
            let ranked = row.ranked.unwrap();
            assert!((f64::from(ranked.logprob) - (reported[token] - lse)).abs() < 1e-4, "{name} {mode:?}");
            assert_eq!(ranked.rank as usize, 1 + of.iter().position(|&id| id == token).unwrap(), "{name} {mode:?}");
            let top: Vec<usize> = ranked.top.iter().map(|top| top.token_id as usize).collect();
            assert_eq!(top, of[..of.len().min(7)], "{name} {mode:?}");
            for top in &ranked.top {
                assert!((f64::from(top.logprob) - (reported[top.token_id as usize] - lse)).abs() < 1e-4);
            }
            let all: f64 = raw.iter().map(|z| (z * scale).exp()).sum::<f64>().ln();
            assert!((f64::from(row.logprob) - (raw[token] * scale - all)).abs() < 1e-4, "{name}: rollout log-prob");
        }
    }
}

#[test]
fn no_id_left_gives_no_log_prob() {
    let call = RowCall {
        draw: Draw::new(SamplingParams::greedy(), NoiseKey::default(), 0, 0),
        changes: Changes { banned: &[0, 1, 2], ..Changes::NONE },
        report: None,
    };
    assert!(sample::sample_row(Isa::detect(), &[1.0, 2.0, 3.0], &call).logprob.is_nan());
}

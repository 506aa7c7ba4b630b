//! Tests the sampling op: every parameter by its definition, and the frequencies of the samples.

use omr_base::philox::{gumbel, key, philox4x32_10};
use omr_runtime::ops::linear_logprob;
use omr_runtime::ops::sample::{self, Draw, NoiseKey, SamplingParams};

use super::*;

/// Rows of hidden states, a weight, and how each row is sampled.
pub struct Case {
    pub b: usize,
    pub v: usize,
    pub d: usize,
    pub hidden: Vec<f32>,
    pub w: Vec<f32>,
    pub allowed: Option<Vec<u32>>,
    pub params: Vec<SamplingParams>,
    pub noise: Vec<NoiseKey>,
}

pub const SEED: (u64, u64) = (42, 7);

/// Returns rows that use every kind of sampling parameters in turn.
pub fn case(dtype: DType, b: usize, v: usize, d: usize, masked: bool) -> Case {
    let kinds = [
        SamplingParams::default(),
        SamplingParams { temperature: 0.7, ..Default::default() },
        SamplingParams::greedy(),
        SamplingParams { temperature: 1.2, min_p: 0.1, ..Default::default() },
        SamplingParams { top_k: 5, ..Default::default() },
        SamplingParams { top_p: 0.8, ..Default::default() },
        SamplingParams { temperature: 0.9, min_p: 0.02, top_k: 20, top_p: 0.9 },
    ];
    let mut random = Random::new(6, Purpose::Test, v as u64);
    let allowed = masked.then(|| {
        let mut words: Vec<u32> = (0..v.div_ceil(32)).map(|_| random.next_u32()).collect();
        words[0] |= 1 << 3;
        words
    });
    Case {
        b,
        v,
        d,
        hidden: values(dtype, 1, b * d).iter().map(|x| round(dtype, x * 3.0)).collect(),
        w: values(dtype, 2, v * d),
        allowed,
        params: (0..b).map(|i| kinds[i % kinds.len()]).collect(),
        noise: (0..b as u32).map(|i| NoiseKey { prompt: i / 4, rollout: i % 4, position: 10 + i }).collect(),
    }
}

fn run(dev: &mut Device, dtype: DType, c: &Case) -> (Vec<u32>, Vec<f32>) {
    let hidden = upload(dev, dtype, &c.hidden, &[c.b, c.d]);
    let w = weight(dev, dtype, &c.w, c.v, c.d);
    let allowed = c.allowed.as_ref().map(|a| dev.upload(Region::Overlay, a, &[a.len()]).unwrap());
    let ids = dev.alloc(Region::Overlay, DType::U32, &[c.b]).unwrap();
    let logprob = dev.alloc(Region::Overlay, DType::F32, &[c.b]).unwrap();
    let draws: Vec<Draw> = c.params.iter().zip(&c.noise).map(|(p, n)| Draw::new(*p, *n, SEED.0, SEED.1)).collect();
    let table = Draw::upload(dev, Region::Overlay, &draws).unwrap();
    sample::fwd(dev, hidden, &w, allowed, &draws, table, sample::Outs { ids, logprobs: logprob, logits: None })
        .unwrap();
    (dev.read(ids).unwrap(), dev.read(logprob).unwrap())
}

fn is_allowed(c: &Case, id: usize) -> bool {
    c.allowed.as_ref().is_none_or(|a| a[id / 32] >> (id % 32) & 1 == 1)
}

/// Returns the token of one row by the definition, from the f32 chain of the logits.
fn choice(c: &Case, row: usize) -> u32 {
    let p = c.params[row];
    let scale = if p.temperature == 0.0 { 1.0 } else { 1.0 / p.temperature };
    let mut ids: Vec<(f32, u32)> = (0..c.v)
        .filter(|&id| is_allowed(c, id))
        .map(|id| {
            let sum = (0..c.d).fold(0f32, |s, i| c.hidden[row * c.d + i].mul_add(c.w[id * c.d + i], s));
            (sum * scale, id as u32)
        })
        .collect();
    ids.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    if p.temperature == 0.0 {
        return ids[0].1;
    }
    let max = ids[0].0;
    let weight = |z: f32| (f64::from(omr_base::math::exp(z - max)) * 2f64.powi(32)) as u64;
    ids.retain(|&(z, _)| weight(z) as f64 >= f64::from(p.min_p) * 2f64.powi(32));
    if p.top_k > 0 {
        ids.truncate(p.top_k as usize);
    }
    if p.top_p < 1.0 {
        let total: u64 = ids.iter().map(|&(z, _)| weight(z)).sum();
        let mut sum = 0;
        let mut keep = 0;
        while keep == 0 || (sum as f64) < f64::from(p.top_p) * total as f64 {
            sum += weight(ids[keep].0);
            keep += 1;
        }
        ids.truncate(keep);
    }
    let noise = c.noise[row];
    let scored = ids.iter().map(|&(z, id)| {
        let words =
            philox4x32_10(key(SEED.0, Purpose::Noise, SEED.1), [noise.prompt, noise.rollout, noise.position, id / 4]);
        (z + gumbel(words[id as usize % 4]), id)
    });
    scored.max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1))).unwrap().1
}

#[test]
fn choices_follow_the_definition_on_all_devices() {
    for (b, v, d) in [(70, 512, 96), (7, 130, 7), (1, 1000, 24), (0, 64, 8), (14, 33, 20)] {
        for masked in [false, true] {
            let c = case(DType::F32, b, v, d, masked);
            let want: Vec<u32> = (0..b).map(|row| choice(&c, row)).collect();
            let (_, logprob) = run(&mut device(1, Isa::detect()), DType::F32, &c);
            for mut dev in devices() {
                let got = run(&mut dev, DType::F32, &c);
                assert_eq!(got.0, want);
                same_bits("logprob", &got.1, &logprob);
            }
        }
    }
}

#[test]
fn the_log_prob_is_the_trainers_bit_for_bit() {
    for dtype in [DType::F32, DType::Bf16] {
        for (b, v, d) in [(70, 512, 96), (1, 130, 7), (21, 1100, 31)] {
            let c = case(dtype, b, v, d, true);
            for isa in isas() {
                let mut dev = device(2, isa);
                let (ids, logprob) = run(&mut dev, dtype, &c);
                for row in 0..b {
                    assert!(is_allowed(&c, ids[row] as usize));
                    // The trainer processes the token in another batch: here, three copies of it.
                    let hidden: Vec<f32> = c.hidden[row * d..(row + 1) * d].repeat(3);
                    let hidden = upload(&mut dev, dtype, &hidden, &[3, d]);
                    let w = weight(&mut dev, dtype, &c.w, v, d);
                    let allowed = c.allowed.as_ref().map(|a| dev.upload(Region::Overlay, a, &[a.len()]).unwrap());
                    let targets = dev.upload(Region::Overlay, &[ids[row]; 3], &[3]).unwrap();
                    let out = dev.alloc(Region::Overlay, DType::F32, &[3]).unwrap();
                    let lse = dev.alloc(Region::Overlay, DType::F32, &[3]).unwrap();
                    let temperature = c.params[row].temperature;
                    linear_logprob::fwd(
                        &mut dev,
                        linear_logprob::LogProbCall { hidden, w: &w, allowed, temperature, targets },
                        linear_logprob::Outs { log_prob: out, lse, entropy: None, logits: None },
                    )
                    .unwrap();
                    same_bits("log-prob", &dev.read::<f32>(out).unwrap(), &[logprob[row]; 3]);
                }
            }
        }
    }
}

#[test]
fn frequencies_are_the_policys() {
    // One row, sampled with many noise keys: chi-squared test against softmax(z / temperature).
    let (v, d, draws) = (40, 6, 20_000);
    let mut c = case(DType::F32, 1, v, d, true);
    let temperature = 1.5;
    let hidden = c.hidden.clone();
    c.b = draws;
    c.hidden = hidden.repeat(draws);
    c.params = vec![SamplingParams { temperature, ..Default::default() }; draws];
    c.noise = (0..draws as u32).map(|i| NoiseKey { prompt: i % 100, rollout: i / 100, position: 3 }).collect();
    let (ids, _) = run(&mut device(2, Isa::detect()), DType::F32, &c);
    let z = |id: usize| (0..d).map(|i| f64::from(hidden[i]) * f64::from(c.w[id * d + i])).sum::<f64>() / 1.5;
    let total: f64 = (0..v).filter(|&id| is_allowed(&c, id)).map(|id| z(id).exp()).sum();
    let (mut chi2, mut degrees) = (0.0, -1.0);
    for id in 0..v {
        let count = ids.iter().filter(|&&x| x as usize == id).count() as f64;
        if is_allowed(&c, id) {
            let expected = z(id).exp() / total * draws as f64;
            chi2 += (count - expected).powi(2) / expected;
            degrees += 1.0;
        } else {
            assert_eq!(count, 0.0);
        }
    }
    // The bound is the mean plus 5 standard deviations of chi-squared.
    assert!(chi2 < degrees + 5.0 * (2.0f64 * degrees).sqrt(), "{chi2} with {degrees} degrees of freedom");
}

#[test]
fn ties_go_to_the_lower_id_and_limits_can_leave_one() {
    let mut dev = device(1, Isa::detect());
    let (v, d) = (100, 4);
    let mut c = case(DType::F32, 3, v, d, false);
    // All rows of the weight are equal, so all logits are the same.
    c.w = c.w[..d].repeat(v);
    c.params = vec![
        SamplingParams::greedy(),
        SamplingParams { top_k: 1, ..Default::default() },
        SamplingParams { top_p: 1e-6, ..Default::default() },
    ];
    assert_eq!(run(&mut dev, DType::F32, &c).0, [0, 0, 0]);
}

#[test]
fn parameters_are_checked() {
    assert!(SamplingParams::default().validate("rollout").is_ok());
    for (params, name) in [
        (SamplingParams { temperature: -1.0, ..Default::default() }, "temperature"),
        (SamplingParams { temperature: f32::NAN, ..Default::default() }, "temperature"),
        (SamplingParams { top_p: 0.0, ..Default::default() }, "top_p"),
        (SamplingParams { min_p: 1.5, ..Default::default() }, "min_p"),
    ] {
        let error = params.validate("rollout").unwrap_err();
        assert!(error.to_string().starts_with(&format!("rollout.{name}")), "{error}");
    }
}

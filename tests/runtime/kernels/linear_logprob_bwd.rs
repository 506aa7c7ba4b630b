//! Tests of kernels/linear_logprob_bwd.cu and its products: gradients of log-probs and entropies against f64 and
//! against the CPU. The f64 gradient is checked by finite differences. The bits must not depend on waves, batch or
//! schedule.

pub mod truth;

use half::bf16;
use omr_runtime::device::{Device, Region, Target};
use omr_runtime::ops::linear_logprob::{
    self,
    backward::{WAVE_BYTES, bwd_within},
};
use omr_runtime::ops::matmul::Order;
use omr_runtime::tensor::DType;

use crate::kernels::inputs::{bitmap, blank, cpu, normals, random, up, weight, wide};
use crate::kernels::{Outcome, emu, emulator, equal, kind, mutate_sites, mutate_source, same_bits, skipped};
use truth::{Sum, half_ulp, row, truth};

/// (T, V, K).
///
/// - T includes one token, no token, and numbers near the rows of a tile.
/// - V includes one id, numbers that are no multiple of the wave, the segment, the bitmap's word or a 16-byte copy, and
///   three waves of the largest size.
/// - K includes the sizes of the golden models and an odd number.
///
/// One shape has few ids and many tokens.
const SHAPES: [(usize, usize, usize); 10] = [
    (1, 130, 64),
    (0, 64, 8),
    (1, 1, 1),
    (13, 33, 100),
    (20, 513, 17),
    (127, 300, 136),
    (128, 257, 100),
    (129, 140, 256),
    (9, 1000, 136),
    (2, 16_424, 100),
];
/// Selects the smallest waves, of 128 ids.
const SMALLEST: usize = 0;

#[derive(Clone)]
pub struct Case {
    t: usize,
    v: usize,
    k: usize,
    hidden: Vec<bf16>,
    w: Vec<bf16>,
    targets: Vec<u32>,
    allowed: Option<Vec<bool>>,
    temperature: f32,
    dlog_prob: Vec<f32>,
    dentropy: Option<Vec<f32>>,
    /// Initial content of dw, [V, K].
    dw: Vec<f32>,
}

pub fn case((t, v, k): (usize, usize, usize), masked: bool, temperature: f32) -> Case {
    let mut random = random(v as u64);
    let allowed = masked.then(|| (0..v).map(|i| i == v / 2 || random.below(3) > 0).collect::<Vec<_>>());
    let mut target = || loop {
        let id = random.below(v as u64) as usize;
        if allowed.as_ref().is_none_or(|a| a[id]) {
            break id as u32;
        }
    };
    let targets = (0..t).map(|_| target()).collect();
    let scaled = |name, len, by: f32| -> Vec<bf16> {
        normals::<f32>(name, len).iter().map(|x| bf16::from_f32(x * by)).collect()
    };
    Case {
        t,
        v,
        k,
        hidden: scaled(1, t * k, 1.0),
        // Logits of order 2, so that no id takes all of the probability.
        w: scaled(2, v * k, 2.0 / (k as f32).sqrt()),
        targets,
        allowed,
        temperature,
        dlog_prob: normals(3, t),
        dentropy: masked.then(|| normals(4, t)),
        dw: normals(5, v * k),
    }
}

/// Creates a case whose logits are exact sums in any order: multiples of 1/8 that stay small.
fn exact(shape: (usize, usize, usize), temperature: f32) -> Case {
    let coarse = |x: &bf16| bf16::from_f32((x.to_f32() * 4.0).round().clamp(-4.0, 4.0) / 8.0);
    let c = case(shape, true, temperature);
    Case { hidden: c.hidden.iter().map(coarse).collect(), w: c.w.iter().map(coarse).collect(), ..c }
}

/// Returns lse and entropy of the forward pass.
fn forward(dev: &mut Device, c: &Case) -> Outcome<[Vec<f32>; 2]> {
    let hidden = up(dev, &c.hidden, &[c.t, c.k]);
    let w = weight(dev, &c.w, c.v, c.k);
    let allowed = c.allowed.as_ref().map(|a| bitmap(a)).map(|b| up(dev, &b, &[b.len()]));
    let targets = up(dev, &c.targets, &[c.t]);
    let [log_prob, lse, entropy] = [0; 3].map(|_| blank(dev, DType::F32, &[c.t]));
    linear_logprob::fwd(
        dev,
        linear_logprob::LogProbCall { hidden, w: &w, allowed, temperature: c.temperature, targets },
        linear_logprob::Outs { log_prob, lse, entropy: Some(entropy), logits: None },
    )?;
    Ok([dev.read(lse)?, dev.read(entropy)?])
}

/// Returns dhidden [T, K] and dw [V, K], computed in waves of `bytes`. Errors if the padding of dw is no longer zero.
fn backward(dev: &mut Device, c: &Case, saved: &[Vec<f32>; 2], bytes: usize) -> Outcome<(Vec<bf16>, Vec<f32>)> {
    let hidden = up(dev, &c.hidden, &[c.t, c.k]);
    let w = weight(dev, &c.w, c.v, c.k);
    let allowed = c.allowed.as_ref().map(|a| bitmap(a)).map(|b| up(dev, &b, &[b.len()]));
    let targets = up(dev, &c.targets, &[c.t]);
    let [lse, entropy] = [0, 1].map(|i| up(dev, &saved[i], &[c.t]));
    let dlog_prob = up(dev, &c.dlog_prob, &[c.t]);
    let dentropy = c.dentropy.as_ref().map(|d| up(dev, d, &[c.t]));
    let order = Order::of(dev);
    let place = |i: usize| order.index(DType::Bf16, c.k, i / c.k, i % c.k);
    let mut data = vec![0.0f32; order.len(DType::Bf16, c.v, c.k)];
    c.dw.iter().enumerate().for_each(|(i, &value)| data[place(i)] = value);
    let dw = up(dev, &data, &[data.len()]);
    let dhidden = blank(dev, DType::Bf16, &[c.t, c.k]);
    let (t, h) = (c.temperature, dentropy.map(|_| entropy));
    bwd_within(
        dev,
        bytes,
        linear_logprob::LogProbCall { hidden, w: &w, allowed, temperature: t, targets },
        linear_logprob::Bwd { lse, entropy: h, logits: None, dlog_prob, dentropy, dhidden, dw: Some(dw.into()) },
    )?;
    let mut data = dev.read::<f32>(dw)?;
    let dw = (0..c.v * c.k).map(|i| std::mem::take(&mut data[place(i)])).collect();
    if data.iter().any(|x| x.to_bits() != 0) {
        return Err("padding of dw is not zero".into());
    }
    Ok((dev.read(dhidden)?, dw))
}

/// Runs forward and backward. Returns dhidden, then dw, as f32.
pub fn run(dev: &mut Device, c: &Case, bytes: usize) -> Outcome<Vec<f32>> {
    let saved = forward(dev, c)?;
    resume(dev, c, &saved, bytes)
}

/// Runs only the backward.
fn resume(dev: &mut Device, c: &Case, saved: &[Vec<f32>; 2], bytes: usize) -> Outcome<Vec<f32>> {
    let (dhidden, dw) = backward(dev, c, saved, bytes)?;
    Ok(dhidden.iter().map(|x| x.to_f32()).chain(dw).collect())
}

/// Returns the largest ratio of an error to its bound. Errors if it is above one.
fn within(what: &str, got: &[f32], want: &[Sum], bound: impl Fn(&Sum) -> f64) -> Outcome<f64> {
    assert_eq!(got.len(), want.len());
    let mut largest = 0f64;
    for (i, (&got, sum)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(got) - sum.value).abs();
        if error.is_nan() || error > bound(sum) {
            return Err(format!("{what} {i}: {got} for {}, bound {:e}", sum.value, bound(sum)).into());
        }
        largest = largest.max(error / bound(sum));
    }
    Ok(largest)
}

/// Returns the largest ratios of the errors of dhidden and dw to their bounds.
fn check(c: &Case, got: &[f32], (dhidden, dw): &(Vec<Sum>, Vec<Sum>)) -> Outcome<[f64; 2]> {
    let rounded = |s: &Sum| {
        let off = s.off + s.chain(c.v);
        off + half_ulp(s.value.abs() + off)
    };
    let a = within("dhidden", &got[..c.t * c.k], dhidden, rounded)?;
    Ok([a, within("dw", &got[c.t * c.k..], dw, |s| s.off + s.chain(c.t))?])
}

#[test]
fn gradients_agree_with_f64_for_every_shape() {
    for shape in SHAPES {
        for (masked, temperature) in [(false, 1.0), (true, 0.7)] {
            let c = case(shape, masked, temperature);
            let truth = truth(&c);
            let share = check(&c, &run(&mut emu(), &c, WAVE_BYTES).unwrap(), &truth)
                .unwrap_or_else(|e| panic!("{shape:?}: {e}"));
            // The CPU's bf16 run must meet the same bounds.
            let host = check(&c, &run(&mut cpu(), &c, WAVE_BYTES).unwrap(), &truth)
                .unwrap_or_else(|e| panic!("CPU, {shape:?}: {e}"));
            println!("{shape:?}, masked {masked}: dhidden and dw {share:.3?} of the bounds, the CPU {host:.3?}");
        }
    }
}

#[test]
fn the_f64_gradients_are_slopes() {
    let mut c = case((3, 40, 6), true, 0.8);
    c.dw.fill(0.0);
    let (dhidden, _) = truth(&c);
    let objective = |hidden: &[f64]| -> f64 {
        let terms = (0..c.t).map(|t| {
            let row = row(&c, t, hidden);
            let log_prob = row.z[c.targets[t] as usize] - row.lse;
            f64::from(c.dlog_prob[t]) * log_prob + f64::from(c.dentropy.as_ref().unwrap()[t]) * row.entropy
        });
        terms.sum()
    };
    let hidden = wide(&c.hidden);
    for i in 0..c.t * c.k {
        let at = |by: f64| {
            let mut moved = hidden.clone();
            moved[i] += by;
            objective(&moved)
        };
        // Error: h^2 times third derivatives of order 100, plus 2^-53 / h.
        let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
        assert!((slope - dhidden[i].value).abs() < 1e-7, "element {i}: {slope} and {}", dhidden[i].value);
    }
}

/// Both devices compute bitwise identical dZ from exact logits and the same lse and entropy. Only the order of the two
/// final chains differs.
#[test]
fn the_cpu_is_a_reordering_away() {
    for (shape, temperature) in [((1, 300, 64), 0.7), ((37, 1300, 100), 0.5), ((130, 200, 136), 0.7)] {
        let mut c = exact(shape, temperature);
        c.dw.fill(0.0);
        let (dhidden_sums, dw_sums) = truth(&c);
        let mut host = cpu();
        let saved = forward(&mut host, &c).unwrap();
        let (dhidden, dw) = backward(&mut host, &c, &saved, SMALLEST).unwrap();
        let (got_dhidden, got_dw) = backward(&mut emu(), &c, &saved, SMALLEST).unwrap();
        let mut equal_bits = 0;
        for (i, s) in dhidden_sums.iter().enumerate() {
            let (a, b) = (dhidden[i].to_f64(), got_dhidden[i].to_f64());
            // Two chains, each rounded once.
            let bound = 2.0 * s.chain(c.v) + 2.0 * half_ulp(a.abs().max(b.abs()));
            assert!((a - b).abs() <= bound, "{shape:?}, dhidden {i}: {b}, the CPU {a}");
            equal_bits += usize::from(dhidden[i] == got_dhidden[i]);
        }
        for (i, s) in dw_sums.iter().enumerate() {
            let (a, b) = (f64::from(dw[i]), f64::from(got_dw[i]));
            assert!((a - b).abs() <= 2.0 * s.chain(c.t), "{shape:?}, dw {i}: {b}, the CPU {a}");
        }
        let share = equal_bits as f64 / dhidden.len() as f64;
        println!("{shape:?}: dhidden has the CPU's bits in {:.1} %", 100.0 * share);
        // Chains of hundreds of terms differ by about 2^-21 of their size; the spacing of bf16 is 2^-8.
        assert!(share > 0.97);
        if c.t == 1 {
            // With one token, each chain of dw is one exact product.
            equal("dw", &got_dw, &dw).unwrap();
        }
    }
}

#[test]
fn waves_change_no_bit() {
    for shape in [(13, 1000, 100), (70, 300, 17), (129, 400, 72)] {
        let c = case(shape, true, 0.7);
        let whole = run(&mut emu(), &c, usize::MAX).unwrap();
        // Waves of 128 ids, of 256 ids, and of all ids except the last few.
        for bytes in [SMALLEST, 2 * c.t * 300, 2 * c.t * (c.v - 10)] {
            let got = run(&mut emu(), &c, bytes).unwrap();
            equal(&format!("{shape:?} in {bytes} bytes"), &got, &whole).unwrap();
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_batch_and_under_every_schedule() {
    let c = case((131, 300, 72), true, 0.7);
    let all = same_bits(4, |dev| run(dev, &c, 2 * 131 * 128));
    // Rows for tiles of 16, 64 and 128 rows.
    for (from, to) in [(0, 1), (7, 23), (50, 114), (1, 131)] {
        let part = Case {
            t: to - from,
            hidden: c.hidden[from * c.k..to * c.k].to_vec(),
            targets: c.targets[from..to].to_vec(),
            dlog_prob: c.dlog_prob[from..to].to_vec(),
            dentropy: c.dentropy.as_ref().map(|d| d[from..to].to_vec()),
            ..c.clone()
        };
        let some = run(&mut emu(), &part, SMALLEST).unwrap();
        equal(&format!("rows {from}..{to}"), &some[..part.t * c.k], &all[from * c.k..to * c.k]).unwrap();
    }
}

#[test]
#[ignore = "many schedules"]
fn no_drawn_schedule_changes_a_bit() {
    for shape in [(150, 700, 150), (16, 1000, 70), (64, 300, 99)] {
        let c = case(shape, true, 0.7);
        assert_eq!(same_bits(24, |dev| run(dev, &c, 2 * c.t * 256)), run(&mut emu(), &c, usize::MAX).unwrap());
    }
}

#[test]
fn tokens_without_a_share_and_ids_that_are_off_leave_no_trace() {
    let mut c = case((40, 260, 100), true, 0.7);
    c.allowed.as_mut().unwrap()[200] = false;
    c.targets[5] = 200;
    let masked = |t: usize| t % 3 == 1;
    for t in (0..c.t).filter(|t| masked(*t)) {
        c.dlog_prob[t] = 0.0;
        c.dentropy.as_mut().unwrap()[t] = 0.0;
    }
    let got = run(&mut emu(), &c, SMALLEST).unwrap();
    let (dhidden, dw) = got.split_at(c.t * c.k);
    for t in 0..c.t {
        assert_eq!(dhidden[t * c.k..][..c.k].iter().all(|x| *x == 0.0), masked(t), "token {t}");
    }
    for v in (0..c.v).filter(|v| !c.allowed.as_ref().unwrap()[*v]) {
        assert_eq!(dw[v * c.k..][..c.k], c.dw[v * c.k..][..c.k], "id {v}");
    }
    // The content of masked tokens does not matter either.
    let mut other = c.clone();
    for t in (0..c.t).filter(|t| masked(*t)) {
        other.hidden[t * c.k..][..c.k].fill(bf16::from_f32(0.25));
        other.targets[t] = 5;
    }
    equal("dw", &run(&mut emu(), &other, SMALLEST).unwrap()[c.t * c.k..], dw).unwrap();
}

#[test]
fn a_target_that_is_no_id_is_none() {
    // None of these targets is an id. They lie in the padded row of dz, in its tile, in the next wave, or outside all.
    let c = |target: u32| Case { targets: vec![target; 3], ..case((3, 130, 64), false, 1.0) };
    let want = run(&mut emu(), &c(u32::MAX), SMALLEST).unwrap();
    for target in [130, 135, 140, 256, 1 << 31] {
        equal(&format!("target {target}"), &run(&mut emu(), &c(target), SMALLEST).unwrap(), &want).unwrap();
    }
    assert!(want != run(&mut emu(), &c(129), SMALLEST).unwrap());
}

#[test]
fn what_is_counted_is_what_is_taken() {
    for bytes in [SMALLEST, WAVE_BYTES] {
        let c = case((33, 300, 40), true, 1.0);
        let run = |mut dev: Device| {
            run(&mut dev, &c, bytes).map(|_| ()).unwrap_or(());
            dev.high_water()
        };
        let counted = run(Device::count_for(Target::gpu(kind())));
        assert_eq!(format!("{counted:?}"), format!("{:?}", run(emu())));
    }
}

#[test]
fn no_plan_holds_all_gradients_of_logits() {
    let (v, k) = (152_064, 3584);
    for t in [1000, 32_768, 131_072] {
        let mut dev = Device::count_for(Target::gpu(kind()));
        let mut matrix = |dtype, dims: &[usize]| blank(&mut dev, dtype, dims);
        let (hidden, dhidden) = (matrix(DType::Bf16, &[t, k]), matrix(DType::Bf16, &[t, k]));
        let (data, dw) = (matrix(DType::Bf16, &[v * k]), matrix(DType::F32, &[v * k]));
        let (targets, lse, dlog_prob) = (matrix(DType::U32, &[t]), matrix(DType::F32, &[t]), matrix(DType::F32, &[t]));
        let w = omr_runtime::ops::matmul::Weight::new(data, Order::Rows, v, k);
        let none = None;
        linear_logprob::bwd(
            &mut dev,
            linear_logprob::LogProbCall { hidden, w: &w, allowed: none, temperature: 1.0, targets },
            linear_logprob::Bwd {
                lse,
                entropy: none,
                logits: None,
                dlog_prob,
                dentropy: none,
                dhidden,
                dw: Some(dw.into()),
            },
        )
        .unwrap();
        let bytes = dev.high_water().bytes(Region::Workspace);
        let sums = t * k * 4;
        // The last summand covers the padding with which the device rounds up the size of each tensor.
        let most = sums + WAVE_BYTES.min(t * v * 2 / 18) + (64 << 10);
        println!("{t} tokens: {} MiB, all gradients of logits {} MiB", bytes >> 20, (t * v * 2) >> 20);
        assert!(bytes <= most, "{t} tokens: {bytes}");
    }
}

#[test]
fn shared_memory_has_no_bank_conflicts() {
    if skipped("bank conflicts") {
        return;
    }
    for t in [8, 64, 130] {
        let (mut dev, c) = (emu(), case((t, 300, 136), true, 0.7));
        let saved = forward(&mut dev, &c).unwrap();
        backward(&mut dev, &c, &saved, SMALLEST).unwrap();
        assert_eq!(emulator(&mut dev).counters().bank_conflicts, 0, "{t} rows");
    }
}

/// Every ring runs more steps than it has stages, in several waves.
#[test]
fn every_synchronising_call_is_needed() {
    let cases = [(5, 500, 264), (300, 140, 72)].map(|shape| case(shape, true, 0.7));
    let known = cases.clone().map(|c| (forward(&mut cpu(), &c).unwrap(), truth(&c)));
    let files = ["kernels/linear_logprob_bwd.cu", "kernels/gemm_bwd.cu", "kernels/common/gemm.cuh"];
    mutate_sites(&files, 3, |dev| {
        for (c, (saved, truth)) in cases.iter().zip(&known) {
            check(c, &resume(dev, c, saved, 2 * c.t * 384)?, truth)?;
        }
        Ok(())
    });
}

/// Plausible mistakes: the file, the text, and its replacement.
const MISTAKES: [(&str, &str, &str); 10] = [
    ("linear_logprob_bwd", "fmaf(dentropy, ln_p + entropy, dlogprob)", "dlogprob"),
    ("gemm_bwd", "resume<T>(Floats{args.from, in.rows, in.cols, in.ld}, at, warp, sums);", ""),
    ("linear_logprob_bwd", "dz += dlogprob;", "dz = dlogprob;"),
    ("linear_logprob_bwd", "&& (on >> i & 1u)) dz", ") dz"),
    ("linear_logprob_bwd", "q.v[i] = dz * to.scale;", "q.v[i] = dz;"),
    ("linear_logprob_bwd", "uint32_t id = to.first + n + column;", "uint32_t id = n + column;"),
    ("linear_logprob_bwd", ">> id % 32;", ";"),
    ("linear_logprob_bwd", "to.lse[token]", "to.lse[m]"),
    ("linear_logprob_bwd", "(size_t)token * to.stride", "(size_t)token * in.cols"),
    ("gemm_bwd", "first ? args.terms : pair.depth", "first ? in.depth : pair.depth"),
];

/// Runs two waves, the last with an odd number of ids, with a target that is not allowed and a token whose log-prob has
/// overflowed.
fn small(dev: &mut Device) -> Outcome {
    let mut c = case((20, 205, 70), true, 0.7);
    c.allowed.as_mut().unwrap()[200] = false;
    c.targets[5] = 200;
    check(&c, &run(dev, &c, SMALLEST)?, &truth(&c))?;
    c.allowed = None;
    c.dlog_prob[7] = f32::INFINITY;
    let got = run(dev, &c, SMALLEST)?;
    let bad = |row: &[f32]| row.iter().any(|x| !x.is_finite());
    let rows: Vec<usize> = (0..c.t).filter(|t| bad(&got[t * c.k..][..c.k])).collect();
    if rows != [7] {
        return Err(format!("one infinity belongs in one row of dhidden, not {rows:?}").into());
    }
    Ok(())
}

#[test]
fn a_lost_term_or_wave_is_seen() {
    small(&mut emu()).unwrap();
    for (file, from, to) in &MISTAKES[..2] {
        mutate_source(file, from, to, 1, small);
    }
}

#[test]
#[ignore = "a compilation each"]
fn mistakes_in_the_kernels_are_seen() {
    for (file, from, to) in MISTAKES {
        mutate_source(file, from, to, 2, small);
    }
}

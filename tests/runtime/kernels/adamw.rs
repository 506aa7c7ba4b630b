//! Tests of kernels/adamw.cu: the same bits as the CPU op.

use half::bf16;
use omr_runtime::device::Device;
use omr_runtime::ops::adamw::code8::BLOCK;
use omr_runtime::ops::adamw::master::split;
use omr_runtime::ops::adamw::{self, AdamW, Coded, Moments};
use omr_runtime::tensor::{DType, Tensor};

use crate::kernels::inputs::{cpu, random, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};
use crate::ops::adamw::range;

/// Numbers of elements: one, less than a quad, lengths that end within a quad or a block, and more than one CTA.
const LENGTHS: [usize; 8] = [1, 3, 4, 127, 257, 1024, 2047, 4099];

/// Storage of weights and moments: true if the weights have a low half, and the type of the moments.
const VARIANTS: [(bool, DType); 6] = [
    (true, DType::F32),
    (true, DType::Bf16),
    (true, DType::U8),
    (false, DType::F32),
    (false, DType::Bf16),
    (false, DType::U8),
];

/// Weights and state of one parameter, as uploaded.
struct State {
    w: Tensor,
    lo: Option<Tensor>,
    moments: Moments,
}

impl State {
    /// Creates weights and moments of a run that has made some steps; `masters` are f32.
    fn new(
        dev: &mut Device,
        (split_master, kind): (bool, DType),
        masters: &[f32],
        mut normals: impl FnMut(f32) -> Vec<f32>,
    ) -> State {
        let len = masters.len();
        let (hi, lo): (Vec<bf16>, Vec<i16>) = masters.iter().map(|w| split(*w)).unzip();
        let w = up(dev, &hi, &[len]);
        let lo = split_master.then(|| up(dev, &lo, &[len]));
        let m = normals(0.01);
        let v: Vec<f32> = normals(0.01).iter().map(|v| v * v).collect();
        let moments = match kind {
            DType::F32 => Moments::F32 { m: up(dev, &m, &[len]), v: up(dev, &v, &[len]) },
            DType::Bf16 => {
                let short = |x: &[f32]| -> Vec<bf16> { x.iter().map(|x| bf16::from_f32(*x)).collect() };
                Moments::Bf16 { m: up(dev, &short(&m), &[len]), v: up(dev, &short(&v), &[len]) }
            }
            _ => {
                // Any codes are valid. A block of zeros has scale 0.
                let codes = |x: &[f32]| -> Vec<u8> { x.iter().map(|x| (x.to_bits() >> 13) as u8).collect() };
                let scales: Vec<f32> = (0..len.div_ceil(BLOCK)).map(|i| i as f32 * 0.01).collect();
                let mut coded =
                    |x: &[f32]| Coded { codes: up(dev, &codes(x), &[len]), scales: up(dev, &scales, &[scales.len()]) };
                Moments::Code8 { m: coded(&m), v: coded(&v) }
            }
        };
        State { w, lo, moments }
    }

    /// Returns every bit of the state.
    fn words(&self, dev: &mut Device) -> Outcome<Vec<u32>> {
        let mut words: Vec<u32> = dev.read::<bf16>(self.w)?.iter().map(|x| x.to_bits().into()).collect();
        if let Some(lo) = self.lo {
            words.extend(dev.read::<i16>(lo)?.iter().map(|x| u32::from(*x as u16)));
        }
        match self.moments {
            Moments::F32 { m, v } => {
                words.extend(dev.read::<f32>(m)?.iter().chain(&dev.read::<f32>(v)?).map(|x| x.to_bits()));
            }
            Moments::Bf16 { m, v } => {
                let short = dev.read::<bf16>(m)?.into_iter().chain(dev.read::<bf16>(v)?);
                words.extend(short.map(|x| u32::from(x.to_bits())));
            }
            Moments::Code8 { m, v } => {
                for coded in [m, v] {
                    words.extend(dev.read::<f32>(coded.scales)?.iter().map(|x| x.to_bits()));
                    words.extend(dev.read::<u8>(coded.codes)?.iter().map(|x| u32::from(*x)));
                }
            }
        }
        Ok(words)
    }
}

/// Returns the words of weight, low half and moments after three updates. The ranges between `cuts` are updated one by
/// one.
pub fn updated(dev: &mut Device, variant: (bool, DType), len: usize, flag: f32, cuts: &[usize]) -> Outcome<Vec<u32>> {
    let mut random = random(len as u64);
    let mut normals = |scale: f32| -> Vec<f32> { (0..len).map(|_| random.normal() * scale).collect() };
    let masters = normals(0.05);
    let state = State::new(dev, variant, &masters, &mut normals);
    let clip = up(dev, &[0.75, flag], &[2]);
    for step in 1..=3 {
        // Gradients of many sizes, and some of zero.
        let sizes = normals(4.0);
        let grad: Vec<f32> =
            normals(0.3).iter().zip(&sizes).map(|(g, s)| if *s > 6.0 { 0.0 } else { g * s.exp() }).collect();
        let grad = up(dev, &grad, &[len]);
        let hp = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step, seed: 11, param: 7 };
        let whole = adamw::Parameter { first: 0, w: state.w, lo: state.lo, grad, moments: state.moments };
        for cut in cuts.windows(2) {
            adamw::step(dev, range(whole, cut[0], cut[1]), &hp, clip)?;
        }
    }
    state.words(dev)
}

fn probe(dev: &mut Device, variants: &[(bool, DType)]) -> Outcome {
    for variant in variants {
        for len in LENGTHS {
            for flag in [1.0, 0.0] {
                let want = updated(&mut cpu(), *variant, len, flag, &[0, len])?;
                let what = format!("{variant:?}, {len} elements, flag {flag}");
                equal(&what, &updated(dev, *variant, len, flag, &[0, len])?, &want)?;
                if len > 1024 {
                    equal(&what, &updated(dev, *variant, len, flag, &[0, 768, 1024, len])?, &want)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    probe(&mut emu(), &VARIANTS).unwrap();
    for variant in VARIANTS {
        same_bits(3, |dev| updated(dev, variant, 4099, 1.0, &[0, 4099]));
    }
}

/// Tests every low half of masters of both signs: zero, the smallest normal number, 1, and the largest finite number. A
/// master that is split, joined and split again on the device is unchanged, and the CPU joins the same value.
#[test]
fn every_low_half_survives_an_update_that_changes_nothing() {
    for high in [0x0000u32, 0x0080, 0x3f80, 0x7f7f, 0x8000, 0xbf80, 0xff7f] {
        let masters: Vec<f32> = (0..=0xffff).map(|low| f32::from_bits(high << 16 | low)).collect();
        let (hi, lo): (Vec<bf16>, Vec<i16>) = masters.iter().map(|w| split(*w)).unzip();
        let mut dev = emu();
        let len = masters.len();
        let zeros = vec![0f32; len];
        let state = State {
            w: up(&mut dev, &hi, &[len]),
            lo: Some(up(&mut dev, &lo, &[len])),
            moments: Moments::F32 { m: up(&mut dev, &zeros, &[len]), v: up(&mut dev, &zeros, &[len]) },
        };
        let (grad, clip) = (up(&mut dev, &zeros, &[len]), up(&mut dev, &[1f32, 1.0], &[2]));
        let before = state.words(&mut dev).unwrap();
        let hp = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 1, seed: 1, param: 0 };
        adamw::step(
            &mut dev,
            adamw::Parameter { first: 0, w: state.w, lo: state.lo, grad, moments: state.moments },
            &hp,
            clip,
        )
        .unwrap();
        equal(&format!("{high:#x}"), &state.words(&mut dev).unwrap(), &before).unwrap();
    }
}

#[test]
fn changes_by_hand_are_seen() {
    let float = [VARIANTS[0]];
    for (from, to) in [
        ("if (args.clip[1] == 0.0f) return;", ""),
        ("fmaf(sqrtf(v), f.inv_root, f.eps)", "sqrtf(v) * f.inv_root"),
        ("(w * f.keep)", "w"),
        ("g = g * clip;", ""),
        ("left > 0 ? (int)left : 0", "left > 1 ? (int)left : 0"),
    ] {
        mutate_source("adamw", from, to, 1, |dev| probe(dev, &float));
    }
    mutate_source("common/master.cuh", "+ 0x8000u) >> 16", ") >> 16", 1, |dev| probe(dev, &float));
}

#[test]
#[ignore = "compiles the kernel for each mutation"]
fn changes_by_hand_to_the_codes_are_seen() {
    let coded = [(false, DType::U8)];
    for (file, from, to) in [
        ("adamw", "reduce::larger(m_most, fabsf(q[i].m[j]))", "reduce::larger(m_most, q[i].m[j])"),
        ("adamw", "SECOND_MOMENT = 0, WEIGHT = 1", "SECOND_MOMENT = 0, WEIGHT = 0"),
        ("adamw", "(args.first + at) / EACH", "(args.first + at)"),
        ("adamw", "(args.first + at) / EACH", "at / EACH"),
        ("common/code8.cuh", "(uint32_t)(c > 1 ? c : 1)", "(uint32_t)c"),
        ("common/code8.cuh", "bits + (word >> 16)", "bits + 0x8000u"),
        ("common/code8.cuh", "y < power(-3 * S) ? y * power(3 * S) : within", "within"),
    ] {
        mutate_source(file, from, to, 1, |dev| probe(dev, &coded));
    }
    mutate_source("common/code8.cuh", "x > 0.0f && rounded == 0u ? 1u : rounded", "rounded", 1, |dev| {
        // Second moments so small that rounding them down would give zero.
        let v: Vec<f32> = (0..256).map(|i| f32::from_bits(1 + 7 * i)).collect();
        let run = |dev: &mut Device| -> Outcome<Vec<bf16>> {
            let (w, g) = (up(dev, &[bf16::ONE; 256], &[256]), up(dev, &v, &[256]));
            let [m, v] = [0; 2].map(|_| up(dev, &[bf16::from_bits(1); 256], &[256]));
            let clip = up(dev, &[1f32, 1.0], &[2]);
            let hp =
                AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.1, eps: 1e-8, weight_decay: 0.0, step: 1, seed: 1, param: 0 };
            adamw::step(
                dev,
                adamw::Parameter { first: 0, w, lo: None, grad: g, moments: Moments::Bf16 { m, v } },
                &hp,
                clip,
            )?;
            Ok(dev.read::<bf16>(v)?)
        };
        equal("v", &run(dev)?, &run(&mut cpu())?)
    });
}

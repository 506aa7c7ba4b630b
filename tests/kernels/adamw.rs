//! kernels/adamw.cu against the CPU op: the same bits.

use half::bf16;
use omr::device::Device;
use omr::ops::adamw::{self, AdamW, split};

use crate::kernels::inputs::{cpu, random, up};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// One element, less than a thread's, ragged ends, more than a CTA's.
const LENGTHS: [usize; 6] = [1, 3, 4, 127, 1024, 4099];

/// Words of weight, low half and moments after three updates.
fn updated(dev: &mut Device, len: usize, flag: f32) -> Outcome<Vec<u32>> {
    let mut random = random(len as u64);
    let mut normals = |scale: f32| -> Vec<f32> { (0..len).map(|_| random.normal() * scale).collect() };
    let (master, m, v) = (normals(0.05), normals(0.01), normals(0.01));
    let (hi, lo): (Vec<bf16>, Vec<i16>) = master.iter().map(|w| split(*w)).unzip();
    let v: Vec<f32> = v.iter().map(|v| v * v).collect();
    let (w, lo) = (up(dev, &hi, &[len]), up(dev, &lo, &[len]));
    let (m, v) = (up(dev, &m, &[len]), up(dev, &v, &[len]));
    let clip = up(dev, &[0.75, flag], &[2]);
    for step in 1..=3 {
        let grad = up(dev, &normals(0.3), &[len]);
        let hp = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01, step };
        adamw::step(dev, w, Some(lo), grad, m, v, &hp, clip)?;
    }
    let mut words: Vec<u32> = dev.read::<bf16>(w)?.iter().map(|x| x.to_bits().into()).collect();
    words.extend(dev.read::<i16>(lo)?.iter().map(|x| u32::from(*x as u16)));
    words.extend(dev.read::<f32>(m)?.iter().chain(&dev.read::<f32>(v)?).map(|x| x.to_bits()));
    Ok(words)
}

fn probe(dev: &mut Device) -> Outcome {
    for len in LENGTHS {
        for flag in [1.0, 0.0] {
            let want = updated(&mut cpu(), len, flag)?;
            equal(&format!("{len} elements, flag {flag}"), &updated(dev, len, flag)?, &want)?;
        }
    }
    Ok(())
}

#[test]
fn bits_are_those_of_the_cpu() {
    probe(&mut emu()).unwrap();
    same_bits(3, |dev| updated(dev, 4099, 1.0));
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [
        ("if (args.clip[1] == 0.0f) return;", ""),
        ("+ 0x8000u) >> 16", ") >> 16"),
        ("fmaf(sqrtf(v), f.inv_root, f.eps)", "sqrtf(v) * f.inv_root"),
        ("(w * f.keep)", "w"),
        ("g = g * clip;", ""),
        ("i < args.len; i++", "i + 1 < args.len; i++"),
    ] {
        mutate_source("adamw", from, to, 1, probe);
    }
}

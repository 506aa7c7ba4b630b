//! kernels/embedding.cu against the CPU op.

use half::bf16;
use omr::device::Device;
use omr::ops::embedding;
use omr::tensor::DType;

use crate::kernels::inputs::{blank, cpu, normals, random, up, weight};
use crate::kernels::{Outcome, emu, equal, mutate_source, same_bits};

/// (tokens, table rows, columns): rows of every alignment, one row, no row, more rows than a CTA takes.
const SHAPES: [(usize, usize, usize); 6] =
    [(9, 40, 64), (5, 33, 100), (1, 7, 135), (0, 3, 8), (130, 50, 136), (6, 9, 1282)];

fn ids(t: usize, n: usize) -> Vec<u32> {
    let mut random = random(t as u64);
    (0..t).map(|_| random.below(n as u64) as u32).collect()
}

fn run(dev: &mut Device, ids: &[u32], n: usize, k: usize) -> Outcome<Vec<bf16>> {
    let w = weight(dev, &normals(k as u64, n * k), n, k);
    let y = blank(dev, DType::Bf16, &[ids.len(), k]);
    let ids = up(dev, ids, &[ids.len()]);
    embedding::fwd(dev, ids, &w, y)?;
    Ok(dev.read(y)?)
}

fn probe(dev: &mut Device) -> Outcome {
    for (t, n, k) in SHAPES {
        let ids = ids(t, n);
        equal(&format!("{t} of {n} x {k}"), &run(dev, &ids, n, k)?, &run(&mut cpu(), &ids, n, k)?)?;
    }
    Ok(())
}

#[test]
fn rows_are_the_cpus() {
    probe(&mut emu()).unwrap();
    same_bits(4, |dev| run(dev, &ids(130, 50), 50, 136));
}

#[test]
fn an_id_that_does_not_exist_gives_nan() {
    let (n, k) = (7, 100);
    let got = run(&mut emu(), &[3, 7, 6, u32::MAX], n, k).unwrap();
    let want = run(&mut cpu(), &[3, 6], n, k).unwrap();
    assert_eq!((&got[..k], &got[2 * k..3 * k]), (&want[..k], &want[k..]));
    assert!(got[k..2 * k].iter().chain(&got[3 * k..]).all(|x| x.is_nan()));
}

#[test]
fn changes_by_hand_are_seen() {
    for (from, to) in [("(int64_t)id * args.ld", "(int64_t)id * args.words"), ("if (row >= args.rows) return;", "")] {
        mutate_source("embedding", from, to, 1, probe);
    }
}
